#!/bin/sh
# Makes a server with Debian 13 a hub, with the files that `edge-provision hub` has written.
# Running it again changes only what differs.
set -eu

usage() {
    cat <<'EOF'
Usage: install.sh [--check] [--alertmanager FILE] [--node-red] [DIR]

Makes this server with Debian 13 a hub: installs WireGuard, nftables, Mosquitto, chrony, nginx,
Prometheus and Alertmanager, puts the files of `edge-provision hub` in place, and starts what has
changed. Run it as root, again after each `edge-provision hub`.

  DIR                  the directory of this hub, such as out/hubs/hub-a; by default that of this
                       script, which `edge-provision hub` puts there
  --alertmanager FILE  configuration of Alertmanager: who gets the alerts, and how
  --node-red           installs Node-RED too, by npm, since Debian has none
  --check              says what would be done, and does nothing
  --help               shows this

The broker, the bundles and the time server are reached through the tunnel; Prometheus (port 9090),
Alertmanager (9093) and Node-RED (1880) on this machine only: `ssh -L 9090:127.0.0.1:9090 root@HUB`.

Exit codes: 0 done, 1 failed, 2 wrong use.
EOF
}

PACKAGES="chrony mosquitto mosquitto-clients nftables nginx procps prometheus
    prometheus-alertmanager wireguard-tools"
INCLUDE='include "/etc/nftables.d/*.nft"'
# A boot loads everything.
PENDING=/run/edge-hub.changed
POLICY=/usr/sbin/policy-rc.d
NODE_RED=4.1.8
NODE_RED_DIR=/opt/node-red
NODE_RED_SETTINGS=/etc/edge-hub/node-red.js
NODE_RED_PASSWORD=/etc/edge-hub/node-red.password
ALERTMANAGER=/etc/prometheus/alertmanager.yml

die() {
    echo "install.sh: $*" >&2
    exit 1
}

wrong_use() {
    echo "install.sh: $*; --help shows how it is used" >&2
    exit 2
}

# Says what is done, or would be. Nothing is done unless it succeeds.
doing() {
    steps=$((steps + 1))
    echo "${would}$*"
    [ -z "$would" ]
}

# ---- What is given, and where -----------------------------------------------------------------

read_arguments() {
    dir='' receivers='' node_red='' would='' steps=0
    while [ $# -gt 0 ]; do
        case $1 in
            --help) usage; exit 0 ;;
            --check) would="would: " ;;
            --node-red) node_red=yes ;;
            --alertmanager)
                [ $# -gt 1 ] || wrong_use "--alertmanager needs a file"
                receivers=$2
                shift
                ;;
            -*) wrong_use "there is no option $1" ;;
            *)
                [ -z "$dir" ] || wrong_use "two directories: $dir and $1"
                dir=$1
                ;;
        esac
        shift
    done
    [ -n "$dir" ] || dir=$(dirname "$0")
}

problem() {
    problems="$problems
  $*"
}

# Reports everything that is wrong at once.
check_input() {
    problems=''
    [ "$(id -u)" = 0 ] || problem "it needs root"
    release=$(. /etc/os-release && echo "$ID ${VERSION_ID:-}")
    [ "$release" = "debian 13" ] || problem "this is $release, and not debian 13"
    [ -d /run/systemd/system ] || problem "systemd does not run here"
    for file in wireguard/edge.conf nftables.d/edge.nft prometheus/prometheus.yml; do
        [ -r "$dir/etc/$file" ] ||
            problem "$dir/etc/$file is not there: give the directory of one hub, out/hubs/NAME"
    done
    for broker in nats emqx; do
        [ ! -d "$dir/etc/$broker" ] ||
            problem "the broker of this fleet is $broker: install it by hand (docs/hub/install.md)"
    done
    [ -z "$receivers" ] || [ -r "$receivers" ] || problem "$receivers is not there"
    check_ssh
    [ -z "$problems" ] || die "nothing was changed:$problems"
}

# The packet filter must leave the way open by which the administrator came.
check_ssh() {
    port=${SSH_CONNECTION:-}
    port=${port##* }
    # sudo hides it.
    [ -n "$port" ] || port=$(sshd -T 2>/dev/null | sed -n 's/^port //p' | head -n 1)
    [ -n "$port" ] && [ -r "$dir/etc/nftables.d/edge.nft" ] || return 0
    grep -q "^[[:space:]]*tcp dport $port accept" "$dir/etc/nftables.d/edge.nft" ||
        problem "ssh is on port $port here, which the packet filter would close: set ssh_port = $port" \
            "in the [[hub]] of fleet.toml"
}

# ---- Packages ---------------------------------------------------------------------------------

has_kernel_wireguard() {
    [ -d /sys/module/wireguard ] || modprobe --quiet --dry-run wireguard 2>/dev/null
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_packages() {
    has_kernel_wireguard || PACKAGES="$PACKAGES wireguard-go"
    [ -z "$node_red" ] || PACKAGES="$PACKAGES nodejs"
    [ -z "$node_red" ] || has_node_red || PACKAGES="$PACKAGES npm"
    missing='' has_nginx=yes
    for package in $PACKAGES; do
        is_installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    is_installed nginx || has_nginx=''
    doing "install$missing" || return 0
    without_starts
    # Its page for visitors: the bundles are served inside the tunnel only.
    [ -n "$has_nginx" ] || rm -f /etc/nginx/sites-enabled/default
}

# No service starts before its files are in place (invoke-rc.d's policy, exit code 101).
without_starts() {
    if [ ! -e "$POLICY" ]; then
        trap 'rm -f "$POLICY"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$POLICY"
        chmod 755 "$POLICY"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # one argument for each package
    apt-get install -qq --yes --no-install-recommends $missing >/dev/null
}

# ---- Files ------------------------------------------------------------------------------------

# Remembers a file whose program has to load it, also for the next run if this one fails.
will_change() {
    changed="$changed $1 "
    [ -n "$would" ] || echo "$1 " >>"$PENDING"
}

# put SOURCE TARGET MODE OWNER: makes the target like this, in one step.
put() {
    if cmp -s "$1" "$2" && [ "$(stat -c '%a %U' "$2")" = "$3 $4" ]; then
        return 0
    fi
    will_change "$2"
    doing "write $2" || return 0
    mkdir -p "$(dirname "$2")"
    install -m "$3" -o "$4" -g "$(id -gn "$4")" "$1" "$2.new"
    mv "$2.new" "$2"
}

put_files() {
    changed=$(cat "$PENDING" 2>/dev/null || true)
    for file in $(cd "$dir" && find etc -type f | sort); do
        case $file in
            etc/wireguard/*) put "$dir/$file" "/$file" 600 root ;;
            etc/mosquitto/edge.* | *.key) put "$dir/$file" "/$file" 600 mosquitto ;;
            *) put "$dir/$file" "/$file" 644 root ;;
        esac
    done
    put_receivers
    put_node_red
    if [ ! -d /srv/bundles ]; then
        ! doing "make /srv/bundles" || mkdir -p /srv/bundles
    fi
    if ! grep -qxF "$INCLUDE" /etc/nftables.conf 2>/dev/null; then
        ! doing "include the packet filter in /etc/nftables.conf" ||
            echo "$INCLUDE" >>/etc/nftables.conf
    fi
}

# The receivers of alerts may hold a password. Debian's example would send mails to example.org.
put_receivers() {
    if [ -n "$receivers" ]; then
        [ -n "$would" ] || amtool check-config "$receivers" >/dev/null ||
            die "Alertmanager does not take $receivers"
        put "$receivers" "$ALERTMANAGER" 600 prometheus
    elif [ ! -e "$ALERTMANAGER" ] || is_as_packaged "$ALERTMANAGER" prometheus-alertmanager; then
        will_change "$ALERTMANAGER"
        doing "write $ALERTMANAGER, which sends alerts to none (--alertmanager)" || return 0
        printf 'route:\n  receiver: none\nreceivers:\n  - name: none\n' >"$ALERTMANAGER"
    fi
}

is_as_packaged() {
    sum=$(md5sum "$1")
    dpkg-query -W -f '${Conffiles}\n' "$2" | grep -qF " $1 ${sum%% *}"
}

# ---- Node-RED, if asked for -------------------------------------------------------------------

has_node_red() {
    [ -e "$NODE_RED_DIR/node_modules/node-red/red.js" ]
}

put_node_red() {
    [ -n "$node_red" ] || return 0
    if ! has_node_red; then
        ! doing "install Node-RED $NODE_RED into $NODE_RED_DIR" ||
            npm install --prefix "$NODE_RED_DIR" --omit=optional --ignore-scripts --no-audit \
                --no-fund --silent "node-red@$NODE_RED"
    fi
    if ! id node-red >/dev/null 2>&1; then
        ! doing "make the user node-red" || useradd --system --create-home \
            --home-dir /var/lib/node-red --shell /usr/sbin/nologin node-red
    fi
    if [ ! -e "$NODE_RED_PASSWORD" ]; then
        ! doing "make a password for Node-RED" || make_password
    fi
    # After another password was written into its file, too.
    newer=$(find "$NODE_RED_PASSWORD" -newer "$NODE_RED_SETTINGS" 2>/dev/null || true)
    if [ ! -e "$NODE_RED_SETTINGS" ] || [ -n "$newer" ]; then
        will_change "$NODE_RED_SETTINGS"
        ! doing "write $NODE_RED_SETTINGS" || write_settings
    fi
    temporary=$(mktemp)
    node_red_unit >"$temporary"
    put "$temporary" /etc/systemd/system/edge-node-red.service 644 root
    rm "$temporary"
}

# Shown once; only its hash is in the settings.
make_password() {
    mkdir -p /etc/edge-hub
    (umask 077 && head -c 18 /dev/urandom | base64 >"$NODE_RED_PASSWORD")
    echo "Node-RED: user admin, password $(cat "$NODE_RED_PASSWORD") (kept in $NODE_RED_PASSWORD)"
}

write_settings() {
    hash=$(NODE_PATH="$NODE_RED_DIR/node_modules" node -e '
        const password = require("fs").readFileSync(0, "utf8").trim();
        console.log(require("bcryptjs").hashSync(password, 10));' <"$NODE_RED_PASSWORD")
    cat >"$NODE_RED_SETTINGS.new" <<EOF
// Made by install.sh; to change the password, change $NODE_RED_PASSWORD and run it again.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: 1880,
    flowFile: "flows.json",
    adminAuth: {
        type: "credentials",
        users: [{ username: "admin", password: "$hash", permissions: "*" }],
    },
};
EOF
    chown node-red: "$NODE_RED_SETTINGS.new"
    chmod 600 "$NODE_RED_SETTINGS.new"
    mv "$NODE_RED_SETTINGS.new" "$NODE_RED_SETTINGS"
}

node_red_unit() {
    cat <<EOF
# Made by install.sh; changes here are lost.
[Unit]
Description=Node-RED
After=mosquitto.service

[Service]
User=node-red
ExecStart=/usr/bin/node $NODE_RED_DIR/node_modules/node-red/red.js --settings $NODE_RED_SETTINGS --userDir /var/lib/node-red
Restart=on-failure

[Install]
WantedBy=multi-user.target
EOF
}

# ---- Services ---------------------------------------------------------------------------------

# Returns whether a file whose path contains this pattern was changed.
has_changed() {
    # shellcheck disable=SC2254 # a pattern
    case $changed in
        *$1*) return 0 ;;
        *) return 1 ;;
    esac
}

# run UNIT RESTART RELOAD: has it run as its files say; the patterns are of the files that ask for
# the one or the other.
run() {
    if ! systemctl is-enabled --quiet "$1" 2>/dev/null; then
        ! doing "enable $1" || systemctl enable --quiet "$1"
    fi
    if ! systemctl is-active --quiet "$1"; then
        ! is_excused "$1" || return 0
        ! doing "start $1" || systemctl start "$1" || fails "$1"
    elif has_changed "$2"; then
        ! doing "restart $1" || systemctl restart "$1" || fails "$1"
    elif has_changed "$3"; then
        ! doing "reload $1" || systemctl reload "$1" || fails "$1"
    fi
}

fails() {
    die "$1 does not start: \`journalctl -u $1\` says why. Run this script again afterwards"
}

# Returns whether systemd has tried to start a unit that does not apply here: a container has no
# clock of its own for chrony.
is_excused() {
    [ "$(systemctl show --value -p ConditionTimestampMonotonic "$1")" != 0 ] &&
        [ "$(systemctl show --value -p ConditionResult "$1")" = no ]
}

run_services() {
    if has_changed /etc/systemd/; then
        ! doing "reload systemd" || systemctl daemon-reload
    fi
    # Before anything listens.
    systemctl is-enabled --quiet nftables 2>/dev/null ||
        ! doing "enable nftables" || systemctl enable --quiet nftables
    if has_changed /etc/nftables.d/ || ! nft list table inet edge >/dev/null 2>&1; then
        ! doing "load the packet filter" || nft -f /etc/nftables.d/edge.nft
    fi
    run wg-quick@edge no-path /etc/wireguard/
    run mosquitto "/etc/mosquitto/c[eo]" /etc/mosquitto/edge.
    run chrony /etc/chrony/ no-path
    run nginx nginx.service.d/ /etc/nginx/
    run prometheus /prometheus.service.d/ "/etc/prometheus/[ep]"
    [ -z "$node_red" ] || run edge-node-red node-red no-path
    run prometheus-alertmanager prometheus-alertmanager.service.d/ "$ALERTMANAGER"
}

read_arguments "$@"
check_input
install_packages
put_files
run_services
[ -n "$would" ] || rm -f "$PENDING"
if [ "$steps" = 0 ]; then
    echo "Nothing to change."
elif [ -z "$would" ]; then
    echo "The hub runs."
fi
