use super::*;
use crate::testing::{Namespace, ip, ip_json};

const MTU: u16 = 1280;

#[test]
fn an_error_names_its_remedy() {
    let net: IpNet = "fd00::1/64".parse().unwrap();
    let text = |errno, step| interface_error(step, errno).to_string();
    assert!(text(Errno::EPERM, InterfaceSetting::State).contains("CAP_NET_ADMIN"));
    assert!(text(Errno::EACCES, InterfaceSetting::Address(net)).contains("IPv6 is switched off"));
    assert!(InterfaceError::RouteTaken(net).to_string().contains("fd00::1/64"));
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

/// Repairs an interface that has no problem; returns whether something was missing.
fn repaired(interface: &mut HostInterface) -> bool {
    let repair = interface.repair().unwrap();
    assert!(repair.problems.is_empty(), "{repair:?}");
    repair.has_changed
}

fn is_taken(repair: &Repair) -> bool {
    matches!(repair.problems.as_slice(), [InterfaceError::RouteTaken(_)])
}

/// Returns the routes of an interface, as `ip` prints them.
fn routes_of(device: &str) -> Vec<String> {
    let mut all: Vec<_> = ["-4", "-6"]
        .iter()
        .flat_map(|family| {
            ip(&[*family, "route", "show", "dev", device])
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .map(|line| line.split_whitespace().next().unwrap_or_default().to_owned())
        .collect();
    all.sort();
    all
}

/// Creates a veth pair; returns the index of the first interface.
fn veth(name: &str) -> u32 {
    let other = format!("{name}-end");
    ip(&["link", "add", name, "type", "veth", "peer", "name", &other]);
    ip(&["link", "set", &other, "up"]);
    nix::net::if_::if_nametoindex(name).unwrap()
}

#[test]
fn as_root_addresses_and_routes_are_set_and_missing_ones_are_restored() {
    let _namespace = Namespace::enter();
    let index = veth("veth0");
    let (addresses, routes) = (nets("10.77.0.12/32 fd77::12/128"), nets("10.77.0.0/16 fd77::/64"));
    let mut interface = HostInterface::new(index, &addresses, &routes, MTU).unwrap();
    interface.configure().unwrap();
    interface.configure().unwrap();
    assert!(!repaired(&mut interface));
    let shown = ip_json(&["addr", "show", "dev", "veth0"]);
    for expected in ["\"mtu\":1280", "\"txqlen\":1000", "\"10.77.0.12\"", "\"fd77::12\"", "\"UP\""]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!shown.contains("fe80"), "{shown}");
    assert!(!shown.contains("tentative"), "{shown}");
    let mtu = || ip_json(&["link", "show", "dev", "veth0"]).contains("\"mtu\":1280");
    let state = || (routes_of("veth0"), ip(&["-o", "addr", "show", "dev", "veth0"]), mtu());
    let whole = state();
    assert_eq!(whole.0, ["10.77.0.0/16", "fd77::/64", "fd77::12"]);
    for damage in [
        "link set veth0 down;link set veth0 up",
        "addr flush dev veth0",
        "route del 10.77.0.0/16",
        "-6 route del fd77::/64",
        "addr del fd77::12/128 dev veth0",
        "link set veth0 mtu 1420",
    ] {
        for line in damage.split(';') {
            ip(&line.split(' ').collect::<Vec<_>>());
        }
        assert_ne!(state(), whole, "{damage} does no damage");
        assert!(repaired(&mut interface), "{damage}");
        assert!(!repaired(&mut interface), "{damage}");
        assert_eq!(state(), whole, "{damage}");
    }
}

#[test]
fn as_root_a_renamed_interface_gets_its_routes_back() {
    let _namespace = Namespace::enter();
    let (addresses, routes) = (nets("10.77.0.12/32"), nets("10.77.0.0/16"));
    let mut interface = HostInterface::new(veth("veth0"), &addresses, &routes, MTU).unwrap();
    interface.configure().unwrap();
    ip(&["link", "set", "veth0", "down"]);
    ip(&["link", "set", "veth0", "name", "wgx"]);
    ip(&["link", "set", "wgx", "up"]);
    assert!(repaired(&mut interface));
    assert_eq!(
        (routes_of("wgx"), interface.name()),
        (vec!["10.77.0.0/16".to_owned()], "wgx".to_owned())
    );
}

#[test]
fn as_root_an_interface_that_is_down_stays_down() {
    let _namespace = Namespace::enter();
    let (addresses, routes) = (nets("10.77.0.12/32"), nets("10.77.0.0/16"));
    let mut interface = HostInterface::new(veth("veth0"), &addresses, &routes, MTU).unwrap();
    assert!(interface.configure().unwrap().is_up);
    ip(&["link", "set", "veth0", "down"]);
    let down = interface.repair().unwrap();
    assert!(!down.is_up && !down.has_changed && down.problems.is_empty(), "{down:?}");
    assert!(!ip_json(&["link", "show", "dev", "veth0"]).contains("\"UP\""));
}

/// Creates two interfaces that are up, `tun` and `lan`; returns the index of `tun`.
fn tun_and_lan() -> u32 {
    let index = veth("tun");
    veth("lan");
    for name in ["lan", "tun"] {
        ip(&["link", "set", name, "up"]);
    }
    index
}

/// Returns the interface through which a host is reached.
fn device_to(host: &str) -> String {
    let route = ip(&["route", "get", host]);
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).unwrap_or_default().to_owned()
}

#[test]
fn as_root_a_route_of_the_machine_network_is_not_taken_over_at_any_metric() {
    // By hand; by NetworkManager for Ethernet, and for Wi-Fi; by networkd.
    for metric in ["0", "100", "600", "1024"] {
        let _namespace = Namespace::enter();
        let index = tun_and_lan();
        ip(&["addr", "add", "192.168.1.5/24", "dev", "lan", "metric", metric]);
        ip(&["-6", "addr", "add", "fd01::5/64", "dev", "lan", "nodad", "metric", metric]);
        for (network, host) in [("192.168.1.0/24", "192.168.1.10"), ("fd01::/64", "fd01::10")] {
            let taken = HostInterface::new(index, &[], &nets(network), MTU).unwrap().repair();
            assert!(is_taken(&taken.unwrap()), "{metric}");
            assert_eq!(device_to(host), "lan", "{metric}");
            let bound = ip(&["route", "get", host, "oif", "tun"]);
            assert!(bound.contains("dev tun"), "a socket that is bound to the device: {bound}");
        }
        let own = HostInterface::new(index, &nets("192.168.1.50/24"), &[], MTU).unwrap().repair();
        assert!(is_taken(&own.unwrap()), "{metric}");
        assert_eq!(device_to("192.168.1.10"), "lan", "{metric}");
    }
}

#[test]
fn as_root_a_machine_network_that_is_added_later_takes_precedence_and_is_reported() {
    let _namespace = Namespace::enter();
    let index = tun_and_lan();
    let (addresses, routes) = (nets("10.77.0.12/24"), nets("192.168.1.0/24"));
    let mut interface = HostInterface::new(index, &addresses, &routes, MTU).unwrap();
    interface.repair().unwrap();
    assert_eq!(device_to("192.168.1.10"), "tun");
    for (address, host) in [("192.168.1.5/24", "192.168.1.10"), ("10.77.0.5/24", "10.77.0.1")] {
        ip(&["addr", "add", address, "dev", "lan", "metric", "1024"]);
        assert_eq!(device_to(host), "lan");
        let bound = ip(&["route", "get", host, "oif", "tun"]);
        assert!(bound.contains("dev tun"), "a socket that is bound to the device: {bound}");
        assert!(is_taken(&interface.repair().unwrap()));
        ip(&["addr", "del", address, "dev", "lan"]);
        assert_eq!(device_to(host), "tun");
        assert!(!repaired(&mut interface));
    }
}

/// Writes a setting below /proc/sys/net of this thread's namespace.
fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

#[test]
fn as_root_what_cannot_be_set_keeps_nothing_else_from_being_set() {
    let _namespace = Namespace::enter();
    let index = veth("veth0");
    sysctl("ipv6/conf/all/disable_ipv6", "1");
    sysctl("ipv6/conf/veth0/disable_ipv6", "1");
    let addresses = nets("fd77::12/128 10.77.0.12/32");
    // The last one is no network that can be routed.
    let routes = nets("fd77::/64 10.77.0.0/16 10.78.0.0/16");
    let mut interface = HostInterface::new(index, &addresses, &routes, MTU).unwrap();
    let repair = interface.configure().unwrap();
    let texts: Vec<_> = repair.problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("IPv6 is switched off")), "{texts:?}");
    assert_eq!(routes_of("veth0"), ["10.77.0.0/16", "10.78.0.0/16"]);
    // It is tried again.
    sysctl("ipv6/conf/all/disable_ipv6", "0");
    sysctl("ipv6/conf/veth0/disable_ipv6", "0");
    assert!(repaired(&mut interface));
    assert!(routes_of("veth0").contains(&"fd77::/64".to_owned()));
}

#[test]
fn as_root_a_strict_rp_filter_is_relaxed_and_none_is_left_alone() {
    let _namespace = Namespace::enter();
    let mut interface =
        HostInterface::new(veth("veth0"), &nets("10.77.0.12/32"), &[], MTU).unwrap();
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/veth0/rp_filter").unwrap();
    for (all, own, expected) in
        [("0", "0", "0"), ("1", "0", "2"), ("0", "1", "2"), ("1", "1", "2"), ("2", "0", "0")]
    {
        sysctl("ipv4/conf/all/rp_filter", all);
        sysctl("ipv4/conf/veth0/rp_filter", own);
        interface.configure().unwrap();
        assert_eq!(read().trim(), expected, "all {all}, veth0 {own}");
    }
}

#[test]
fn as_root_a_removed_interface_is_reported() {
    let _namespace = Namespace::enter();
    let gone = HostInterface::new(4711, &[], &[], MTU).unwrap().configure();
    assert!(matches!(gone, Err(InterfaceError::Gone)), "{gone:?}");
}
