#!/bin/sh
# The first process of a guest: mounts, modules, the test's own setup, then commands from the console.
# The shell is Debian's and the rest is busybox, whose own shell prefers its applets to programs of
# the same name that the test has put into /bin; installing the applets leaves those as they are.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt /etc /var
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -F /dev/ttyS0 raw -echo
echo "root:x:0:0:root:/:/bin/sh" > /etc/passwd

# The device of a disk, by the serial number that the test gave it.
disk() {
    for block in /sys/block/vd*; do
        [ "$(cat "$block/serial")" = "$1" ] && echo "/dev/${block##*/}" && return
    done
    echo "no disk $1" >&2
    return 1
}

while read -r module; do
    insmod "/modules/$module" || echo "cannot load $module"
done < /modules/order

# Not in a condition: there, the shell would ignore the script's `set -e`.
. /setup
set +e
echo "[guest is up] $(cut -d ' ' -f 1 /proc/uptime)"

while read -r id line; do
    echo "[begin $id]"
    eval "$line" 2>&1
    echo "[end $id $?]"
done < /dev/ttyS0
