#!/bin/sh
# Installs edge-gateway from this directory on a Linux without a package for it, or removes it.
#
#   sudo ./install.sh                     install, or upgrade; the configuration is kept
#   sudo ./install.sh --uninstall         remove the program and the service
#   sudo ./install.sh --uninstall --purge and the configuration, the secrets and the queue
set -eu
# Directories that it creates are for everyone, as on a fresh system.
umask 022

here=$(cd "$(dirname "$0")" && pwd)
program=/usr/local/bin/edge-gateway
config=/etc/edge-gateway
state=/var/lib/edge-gateway
unit=/etc/systemd/system/edge-gateway.service
user=edge-gateway

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

has_systemd() {
    command -v systemctl >/dev/null
}

# Whether systemd manages this system, not only an image of it.
runs_systemd() {
    [ -d /run/systemd/system ] && has_systemd
}

create_user() {
    id "$user" >/dev/null 2>&1 && return
    if command -v useradd >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir "$state" \
            --shell /usr/sbin/nologin "$user"
    elif command -v adduser >/dev/null; then
        # As in BusyBox.
        addgroup -S "$user" 2>/dev/null || true
        adduser -S -D -H -h "$state" -s /sbin/nologin -G "$user" "$user"
    else
        fail "no useradd and no adduser: create the user $user, then run this again"
    fi
}

install_all() {
    # A program that does not run here must not replace one that does.
    "$here/edge-gateway" --version >/dev/null || fail "this program does not run on $(uname -m)"
    create_user
    mkdir -p "$(dirname "$program")" "$config" "$state"
    # Renamed into place, so that the running program is not written to.
    cp "$here/edge-gateway" "$program.new"
    chmod 0755 "$program.new"
    mv "$program.new" "$program"
    [ -e "$config/gateway.toml" ] || cp "$here/gateway.toml" "$config/gateway.toml"
    chown "root:$user" "$config" "$config/gateway.toml"
    chmod 0750 "$config"
    chmod 0640 "$config/gateway.toml"
    chown "$user:$user" "$state"
    chmod 0750 "$state"
    if has_systemd; then
        sed "s|/usr/bin/edge-gateway|$program|" "$here/edge-gateway.service" >"$unit"
        chmod 0644 "$unit"
    fi
    if runs_systemd; then
        systemctl daemon-reload
        systemctl try-restart edge-gateway.service
    fi
    echo "edge-gateway: edit $config/gateway.toml, then run: edge-gateway check"
    if has_systemd; then
        echo "edge-gateway: then start it: systemctl enable --now edge-gateway"
    else
        echo "edge-gateway: then let your service manager run, as the user $user, with restart:"
        echo "  $program run $config/gateway.toml"
    fi
}

uninstall() {
    if has_systemd && [ -e "$unit" ]; then
        if runs_systemd; then
            systemctl disable --now edge-gateway.service
        else
            systemctl disable edge-gateway.service 2>/dev/null || true
        fi
        rm -f "$unit"
        if runs_systemd; then
            systemctl daemon-reload
        fi
    fi
    rm -f "$program"
}

purge() {
    rm -rf "$config" "$state"
    if command -v userdel >/dev/null; then
        ! id "$user" >/dev/null 2>&1 || userdel "$user"
    elif command -v deluser >/dev/null; then
        ! id "$user" >/dev/null 2>&1 || deluser "$user"
    fi
}

[ "$(id -u)" = 0 ] || fail "run it as root"
case "$*" in
    "") install_all ;;
    --uninstall) uninstall ;;
    "--uninstall --purge")
        uninstall
        purge
        ;;
    *) fail "usage: install.sh [--uninstall [--purge]]" ;;
esac
