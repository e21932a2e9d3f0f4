# Stand-in for /lib/functions.sh of OpenWrt: what the scripts of a package use of it for its user.

group_exists() { # NAME
	grep -qs "^$1:" "${IPKG_INSTROOT}/etc/group"
}

group_add_next() { # NAME; prints its number
	local gid=65536
	while cut -d: -f3 "${IPKG_INSTROOT}/etc/group" | grep -qx "$gid"; do
		gid=$((gid + 1))
	done
	echo "$1:x:$gid:" >>"${IPKG_INSTROOT}/etc/group"
	echo "$gid"
}

user_exists() { # NAME
	grep -qs "^$1:" "${IPKG_INSTROOT}/etc/passwd"
}

user_add() { # NAME [UID] [GID] [DESCRIPTION] [HOME] [SHELL]
	local uid=${2:-65536}
	while [ -z "$2" ] && cut -d: -f3 "${IPKG_INSTROOT}/etc/passwd" | grep -qx "$uid"; do
		uid=$((uid + 1))
	done
	echo "$1:x:$uid:${3:-$uid}:${4:-$1}:${5:-/var/run/$1}:${6:-/bin/false}" \
		>>"${IPKG_INSTROOT}/etc/passwd"
}
