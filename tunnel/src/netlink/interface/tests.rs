use super::*;
use crate::testing::{Namespace, ip, ip_json};

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
    let mut interface = HostInterface::new(index, &addresses, &routes).unwrap();
    interface.configure(1280).unwrap();
    interface.configure(1280).unwrap();
    assert_eq!(interface.repair().unwrap(), Repaired::Nothing);
    let shown = ip_json(&["addr", "show", "dev", "veth0"]);
    for expected in ["\"mtu\":1280", "\"txqlen\":1000", "\"10.77.0.12\"", "\"fd77::12\"", "\"UP\""]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!shown.contains("fe80"), "{shown}");
    assert!(!shown.contains("tentative"), "{shown}");
    let state = || (routes_of("veth0"), ip(&["-o", "addr", "show", "dev", "veth0"]));
    let whole = state();
    assert_eq!(whole.0, ["10.77.0.0/16", "fd77::/64", "fd77::12"]);
    for damage in [
        "link set veth0 down;link set veth0 up",
        "addr flush dev veth0",
        "route del 10.77.0.0/16",
        "-6 route del fd77::/64",
        "addr del fd77::12/128 dev veth0",
    ] {
        for line in damage.split(';') {
            ip(&line.split(' ').collect::<Vec<_>>());
        }
        assert_ne!(state(), whole, "{damage} does no damage");
        assert_eq!(interface.repair().unwrap(), Repaired::Something, "{damage}");
        assert_eq!(interface.repair().unwrap(), Repaired::Nothing, "{damage}");
        assert_eq!(state(), whole, "{damage}");
    }
}

#[test]
fn as_root_an_interface_that_is_down_stays_down() {
    let _namespace = Namespace::enter();
    let mut interface =
        HostInterface::new(veth("veth0"), &nets("10.77.0.12/32"), &nets("10.77.0.0/16")).unwrap();
    interface.configure(1280).unwrap();
    ip(&["link", "set", "veth0", "down"]);
    let down = interface.repair();
    assert!(matches!(down, Err(InterfaceError::Down)), "{down:?}");
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
            let taken = HostInterface::new(index, &[], &nets(network)).unwrap().repair();
            assert!(matches!(taken, Err(InterfaceError::RouteTaken(_))), "{metric}: {taken:?}");
            assert_eq!(device_to(host), "lan", "{metric}");
            let bound = ip(&["route", "get", host, "oif", "tun"]);
            assert!(bound.contains("dev tun"), "a socket that is bound to the device: {bound}");
        }
        let own = HostInterface::new(index, &nets("192.168.1.50/24"), &[]).unwrap().repair();
        assert!(matches!(own, Err(InterfaceError::RouteTaken(_))), "{metric}: {own:?}");
        assert_eq!(device_to("192.168.1.10"), "lan", "{metric}");
    }
}

#[test]
fn as_root_a_machine_network_that_is_added_later_takes_precedence_and_is_reported() {
    let _namespace = Namespace::enter();
    let index = tun_and_lan();
    let mut interface =
        HostInterface::new(index, &nets("10.77.0.12/24"), &nets("192.168.1.0/24")).unwrap();
    interface.repair().unwrap();
    assert_eq!(device_to("192.168.1.10"), "tun");
    for (address, host) in [("192.168.1.5/24", "192.168.1.10"), ("10.77.0.5/24", "10.77.0.1")] {
        ip(&["addr", "add", address, "dev", "lan", "metric", "1024"]);
        assert_eq!(device_to(host), "lan");
        let bound = ip(&["route", "get", host, "oif", "tun"]);
        assert!(bound.contains("dev tun"), "a socket that is bound to the device: {bound}");
        let taken = interface.repair();
        assert!(matches!(taken, Err(InterfaceError::RouteTaken(_))), "{taken:?}");
        ip(&["addr", "del", address, "dev", "lan"]);
        assert_eq!(device_to(host), "tun");
        assert_eq!(interface.repair().unwrap(), Repaired::Nothing);
    }
}

#[test]
fn as_root_a_removed_interface_is_reported() {
    let _namespace = Namespace::enter();
    let gone = HostInterface::new(4711, &[], &[]).unwrap().configure(1280);
    assert!(matches!(gone, Err(InterfaceError::Gone)), "{gone:?}");
}
