use proptest::prelude::*;

use super::message::answer;
use super::*;
use crate::testing::{Namespace, ip, ip_json};

#[test]
#[cfg(target_endian = "little")]
fn a_route_is_asked_for_as_the_kernel_reads_it() {
    let message = Message::route(5, "10.77.3.0/24".parse().unwrap());
    let expected = [
        [44, 0, 0, 0, 24, 0, 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
        &[2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0],
        &[8, 0, 1, 0, 10, 77, 3, 0],
        &[8, 0, 4, 0, 5, 0, 0, 0],
    ];
    assert_eq!(message.bytes(), expected.concat());
}

#[test]
fn an_answer_is_yes_or_a_reason() {
    let mut bytes = [0; 36];
    bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    assert_eq!(answer(&bytes), Ok(()));
    bytes[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
    assert_eq!(answer(&bytes), Err(Errno::EEXIST));
    assert_eq!(answer(&bytes[..19]), Err(Errno::EPROTO));
}

#[test]
fn an_error_says_what_to_do() {
    let net: IpNet = "fd00::1/64".parse().unwrap();
    let text = |errno, step| failure(step, errno).to_string();
    assert!(text(Errno::EPERM, Step::State).contains("CAP_NET_ADMIN"));
    assert!(text(Errno::EACCES, Step::Address(net)).contains("IPv6 is switched off"));
    assert!(text(Errno::EEXIST, Step::Route(net)).contains("fd00::1/64"));
}

proptest! {
    #[test]
    fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = answer(&bytes);
    }
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

/// Routes of the device, as `ip` prints them.
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

#[test]
fn as_root_addresses_and_routes_are_set_and_may_be_set_again() {
    let _namespace = Namespace::enter();
    ip(&["link", "add", "veth0", "type", "veth", "peer", "name", "veth1"]);
    ip(&["link", "set", "veth1", "up"]);
    let index = nix::net::if_::if_nametoindex("veth0").unwrap();
    let mut link = Link::new(index).unwrap();
    let addresses = nets("10.77.0.12/32 fd77::12/128");
    for routes in ["10.77.0.0/16 fd77::/64 10.1.0.0/16", "10.77.0.0/16 fd77::/64"] {
        link.set_up(&addresses, 1280).unwrap();
        link.set_routes(&nets(routes)).unwrap();
        link.set_routes(&nets(routes)).unwrap();
    }
    let shown = ip_json(&["addr", "show", "dev", "veth0"]);
    for expected in ["\"mtu\":1280", "\"txqlen\":1000", "\"10.77.0.12\"", "\"fd77::12\"", "\"UP\""]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!shown.contains("fe80"), "{shown}");
    assert!(!shown.contains("tentative"), "{shown}");
    let expected = ["10.77.0.0/16", "fd77::/64", "fd77::12"];
    assert_eq!(routes_of("veth0"), expected);
    // Taking a device down takes its routes away.
    ip(&["link", "set", "veth0", "down"]);
    assert!(!routes_of("veth0").contains(&expected[0].to_owned()));
    link.set_up(&addresses, 1280).unwrap();
    link.set_routes(&nets("10.77.0.0/16 fd77::/64")).unwrap();
    assert_eq!(routes_of("veth0"), expected);
}

#[test]
fn as_root_a_route_of_the_machine_network_is_not_taken_over() {
    let _namespace = Namespace::enter();
    for name in ["lan", "tun"] {
        ip(&["link", "add", name, "type", "veth"]);
        ip(&["link", "set", name, "up"]);
    }
    ip(&["addr", "add", "192.168.1.5/24", "dev", "lan"]);
    let before = ip(&["route"]);
    let index = nix::net::if_::if_nametoindex("tun").unwrap();
    let mut link = Link::new(index).unwrap();
    let taken = link.set_routes(&nets("192.168.1.0/24"));
    assert!(matches!(taken, Err(LinkError::RouteTaken(_))), "{taken:?}");
    assert!(ip(&["route"]).contains(before.trim()));
}

#[test]
fn as_root_a_device_that_is_gone_is_told() {
    let _namespace = Namespace::enter();
    let gone = Link::new(4711).unwrap().set_up(&[], 1280);
    assert!(matches!(gone, Err(LinkError::Gone)), "{gone:?}");
}
