//! The troubles.

use e2e::{GatewayConfig, WireguardGo};
use toml::Value;

/// Where a script runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Site,
    Router,
    Hub,
}

use Place::{Hub, Router, Site};

/// One site. Its scripts run in the shell, with these variables:
///
/// - `i`: the number of the site, whose network is 10.50.`i`.0/24 on its interface `lan`; the
///   router has 10.50.`i`.1 on `s$i`, and an empty chain `c` in the table `t$i` of its firewall,
/// - `site`: the name of its namespace,
/// - `etc`: the directory of its own `hosts` and `resolv.conf`,
/// - `hub`, `key`: the hub's interface, and the public key of the site.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) configure: fn(GatewayConfig, usize) -> GatewayConfig,
    /// Before the gateway starts.
    pub(crate) before: Vec<Script>,
    /// What happens to a gateway when all is well; if there is none, the gateway starts with it.
    pub(crate) trouble: Vec<Script>,
    /// Code of the tunnel's sentence because of it; `None` if the tunnel stays up.
    pub(crate) code: Option<&'static str>,
    /// What ends it, unless it ends by itself.
    pub(crate) mend: Vec<Script>,
    /// Whether the gateway connects to the broker again after the trouble.
    pub(crate) reconnects: bool,
    /// Whether it stays.
    pub(crate) is_lasting: bool,
    /// Whether a second gateway with the same key starts when all is well.
    pub(crate) has_twin: bool,
}

pub(crate) type Script = (Place, &'static str);

impl Case {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            mode: "userspace",
            configure: |config, _| config,
            before: Vec::new(),
            trouble: Vec::new(),
            code: None,
            mend: Vec::new(),
            reconnects: false,
            is_lasting: false,
            has_twin: false,
        }
    }

    const fn tun(mut self) -> Self {
        self.mode = "tun";
        self
    }

    const fn configure(mut self, configure: fn(GatewayConfig, usize) -> GatewayConfig) -> Self {
        self.configure = configure;
        self
    }

    fn before(mut self, place: Place, script: &'static str) -> Self {
        self.before.push((place, script));
        self
    }

    fn trouble(mut self, place: Place, script: &'static str) -> Self {
        self.trouble.push((place, script));
        self
    }

    const fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn mend(mut self, place: Place, script: &'static str) -> Self {
        self.mend.push((place, script));
        self
    }

    const fn reconnects(mut self) -> Self {
        self.reconnects = true;
        self
    }

    const fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    const fn twin(mut self) -> Self {
        self.has_twin = true;
        self
    }
}

const OPEN_ROUTER: &str = "nft flush chain inet t$i c";
const OWN_FIREWALL: &str = "nft 'add table ip f; \
    add chain ip f o { type filter hook output priority 0; }; \
    add rule ip f o udp dport 51820 drop'";
const HOSTS: &str = "echo \"192.0.2.2 hub.test\" > $etc/hosts";
/// The stick has another name, address and router each time.
const OTHER_STICK: &str = "ip link add s$i type veth peer name stick netns $site && \
    ip addr add 10.51.$i.1/24 dev s$i && ip link set s$i up";
const OTHER_ADDRESS: &str = "ip addr add 10.51.$i.9/24 dev stick && ip link set stick up && \
    ip route add default via 10.51.$i.1";

fn with_name(config: GatewayConfig, _: usize) -> GatewayConfig {
    config.set_hub("endpoint", "hub.test:51820")
}

fn allowed(networks: &[&str]) -> Value {
    networks.iter().map(|network| Value::from(*network)).collect::<Vec<_>>().into()
}

fn through_ipv6(config: GatewayConfig, number: usize) -> GatewayConfig {
    config
        .set("tunnel.address", format!("fd77::{number}/128"))
        .set_hub("allowed_ips", allowed(&["fd77::/64"]))
        .brokers(["mqtt://[fd77::1]:1883"])
}

pub(crate) fn cases() -> Vec<Case> {
    at_the_site()
        .into_iter()
        .chain(at_the_router())
        .chain(at_the_hub())
        .chain(names())
        .chain(no_trouble())
        .collect()
}

fn at_the_site() -> [Case; 6] {
    [
        Case::new("own firewall")
            .trouble(Site, OWN_FIREWALL)
            .code("own_firewall")
            .mend(Site, "nft flush ruleset"),
        Case::new("no default route")
            .trouble(Site, "ip route del default")
            .code("no_route")
            .mend(Site, "ip route add default via 10.50.$i.1"),
        Case::new("cable")
            .tun()
            .trouble(Site, "ip link set lan down")
            .code("no_route")
            .mend(Site, "ip link set lan up && ip route add default via 10.50.$i.1"),
        Case::new("another LTE stick")
            .trouble(Site, "ip link del lan")
            .code("no_route")
            .mend(Router, OTHER_STICK)
            .mend(Site, OTHER_ADDRESS),
        Case::new("another LTE stick, tun")
            .tun()
            .trouble(Site, "ip link del lan")
            .code("no_route")
            .mend(Router, OTHER_STICK)
            .mend(Site, OTHER_ADDRESS),
        // The connection of a client whose name another one uses is closed by the broker.
        Case::new("renamed interface")
            .tun()
            .trouble(
                Site,
                "ip link set edge0 down && ip link set edge0 name wgx && ip link set wgx up",
            )
            .trouble(Hub, "mosquitto_pub -h 10.9.0.2 -i gateway-$i -t other -m x")
            .reconnects(),
    ]
}

fn at_the_router() -> [Case; 4] {
    [
        Case::new("router rejects")
            .trouble(
                Router,
                "nft add rule inet t$i c iifname s$i udp dport 51820 \
                 reject with icmpx type port-unreachable",
            )
            .code("router_refuses")
            .mend(Router, OPEN_ROUTER),
        Case::new("router prohibits")
            .trouble(
                Router,
                "nft add rule inet t$i c iifname s$i udp dport 51820 \
                 reject with icmpx type admin-prohibited",
            )
            .code("prohibited")
            .mend(Router, OPEN_ROUTER),
        Case::new("router without a route")
            .tun()
            .trouble(
                Router,
                "nft add rule inet t$i c iifname s$i udp dport 51820 \
                 reject with icmpx type no-route",
            )
            .code("router_no_route")
            .mend(Router, OPEN_ROUTER),
        Case::new("router drops")
            .trouble(
                Router,
                "nft \"add rule inet t$i c iifname s$i drop; \
                 add rule inet t$i c oifname s$i drop\"",
            )
            .code("silent")
            .mend(Router, OPEN_ROUTER),
    ]
}

fn at_the_hub() -> [Case; 5] {
    [
        Case::new("other AllowedIPs")
            .before(Hub, "wg set $hub peer $key allowed-ips 10.9.9.9/32")
            .code("no_data")
            .mend(Hub, "wg set $hub peer $key allowed-ips 10.9.1.$i/32"),
        Case::new("preshared key at the hub only")
            .before(Hub, "wg genpsk > $etc/psk && wg set $hub peer $key preshared-key $etc/psk")
            .code("preshared_key_missing")
            .mend(Hub, "wg set $hub peer $key preshared-key /dev/null"),
        Case::new("wrong public key")
            .configure(|config, _| {
                config.set_hub("public_key", "QjuiUCa+BpRlWjjUYxsqzkQV2mDuS6OMVr2sC1E2lW4=")
            })
            .code("silent")
            .lasting(),
        Case::new("two boxes with one key").twin().code("key_shared").lasting(),
        Case::new("the hub moves")
            .configure(with_name)
            .before(Site, HOSTS)
            .trouble(
                Router,
                "nft add rule inet t$i c iifname s$i ip daddr 192.0.2.2 \
                 reject with icmpx type port-unreachable",
            )
            .trouble(Site, "echo \"192.0.2.7 hub.test\" > $etc/hosts")
            .code("router_refuses"),
    ]
}

fn names() -> [Case; 5] {
    [
        Case::new("blocked name")
            .configure(with_name)
            .before(Site, "echo \"0.0.0.0 hub.test\" > $etc/hosts")
            .code("name_blocked")
            .mend(Site, HOSTS),
        Case::new("captive portal")
            .configure(with_name)
            .before(Site, "echo \"10.50.$i.1 hub.test\" > $etc/hosts")
            .code("captive_portal")
            .mend(Site, HOSTS),
        Case::new("DNS server in the tunnel")
            .tun()
            .configure(|config, number| {
                with_name(config, number).set_hub("allowed_ips", allowed(&["10.0.0.0/8"]))
            })
            .before(Site, "echo nameserver 10.0.0.53 > $etc/resolv.conf")
            .code("resolver_inside")
            .mend(Site, HOSTS),
        Case::new("AAAA is dropped")
            .configure(with_name)
            .before(Site, "echo nameserver 10.50.$i.1 > $etc/resolv.conf")
            .code("looking_up"),
        Case::new("dead AAAA").configure(with_name).before(
            Site,
            "for a in 1 2 3; do echo \"2001:db8:dead::$a hub.test\"; done > $etc/hosts && \
                 echo \"192.0.2.2 hub.test\" >> $etc/hosts && \
                 ip -6 addr add fd50:$i::2/64 dev lan nodad && \
                 ip -6 route add default via fd50:$i::1 dev lan",
        ),
    ]
}

fn no_trouble() -> [Case; 5] {
    [
        Case::new("IPv6 is off")
            .tun()
            .configure(|config, _| {
                config.set_hub("allowed_ips", allowed(&["10.9.0.0/24", "fd77::/64"]))
            })
            .before(
                Site,
                "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
            ),
        Case::new("strict rp_filter")
            .tun()
            .before(
                Site,
                "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 && \
                 ip addr add 10.9.0.200/24 dev lan",
            )
            .configure(|config, _| config.set_hub("allowed_ips", allowed(&["10.9.0.0/24"]))),
        Case::new("address in the LAN")
            .tun()
            .configure(|config, number| {
                config.set("tunnel.address", format!("10.50.{number}.77/32"))
            })
            .before(
                Hub,
                "wg set $hub peer $key allowed-ips 10.50.$i.77/32 && \
                 ip route add 10.50.$i.77/32 dev $hub",
            ),
        Case::new("IPv6 inside").configure(through_ipv6),
        Case::new("IPv6 inside, tun").tun().configure(through_ipv6),
    ]
}

/// Returns the configuration of a site without a trouble.
pub(crate) fn usual(number: usize, hub: &WireguardGo, state: &str) -> GatewayConfig {
    GatewayConfig::new(&format!("site-{number}"))
        .set("gateway.state_dir", state)
        .set("metrics.listen", Value::Array(Vec::new()))
        .set("tunnel.private_key_file", "tunnel.key")
        .set("tunnel.address", format!("10.9.1.{number}/32"))
        .hub("hub-a", WireguardGo::ENDPOINT, hub.public_key(), WireguardGo::ADDRESS)
        .brokers([format!("mqtt://{}:1883", WireguardGo::ADDRESS)])
        .set("mqtt.keep_alive", "5s")
}
