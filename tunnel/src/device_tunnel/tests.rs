//! Tunnels between interfaces and sockets in network namespaces.

mod device_loop;
mod own_datagrams;
mod reconcile;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time;

use super::*;
use crate::core::{ClockBounds, DropReason};
use crate::device::bind_to_interface;
use crate::key::PrivateKey;
use crate::settings::{Endpoint, Hub, HubSettings, SitePeer};
use crate::testing::{Namespace, ip};
use crate::transport::{LocalPort, UdpTransport};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_BYTES: usize = 2 * 1024 * 1024;
const MTU: u16 = 1420;

/// One end of a tunnel, with an interface and a socket in a namespace of its own.
struct End {
    namespace: Namespace,
    transport: UdpTransport,
    tun: Tun,
}

/// Creates two namespaces with a cable between them; the thread is in the second afterwards.
fn ends(offload: [Offload; 2]) -> [End; 2] {
    let first = Namespace::enter();
    ip(&["link", "add", "cable", "type", "veth", "peer", "name", "other"]);
    let a = end(first, 1, offload[0], "cable");
    let second = Namespace::enter();
    a.namespace.enter_again();
    ip(&["link", "set", "other", "netns", &second.path()]);
    second.enter_again();
    let b = end(second, 2, offload[1], "other");
    [a, b]
}

fn end(namespace: Namespace, number: u8, offload: Offload, cable: &str) -> End {
    ip(&["addr", "add", &format!("192.0.2.{number}/24"), "dev", cable]);
    ip(&["addr", "add", &format!("fd02::{number}/64"), "dev", cable, "nodad"]);
    ip(&["link", "set", cable, "up"]);
    let tun = Tun::create("edge0".parse().unwrap(), offload).unwrap();
    let addresses = tunnel_networks(number, 24, 64);
    HostInterface::new(tun.index(), &addresses, &[], MTU).unwrap().configure().unwrap();
    let transport = UdpTransport::bind(LocalPort::Fixed(51820)).unwrap();
    End { namespace, transport, tun }
}

/// Returns the addresses of an end inside the tunnel, as networks of these lengths.
fn tunnel_networks(number: u8, v4_length: u8, v6_length: u8) -> Vec<IpNet> {
    let v4 = format!("10.77.0.{number}/{v4_length}");
    [v4, format!("fd77::{number}/{v6_length}")].map(|net| net.parse().unwrap()).to_vec()
}

/// Returns a site, which is end 1, and its hub, which is end 2.
fn tunnels() -> [Tunnel; 2] {
    let (site_key, hub_key) = (PrivateKey::generate(), PrivateKey::generate());
    let site_peer = SitePeer {
        public_key: site_key.public_key(),
        preshared_key: None,
        allowed_ips: tunnel_networks(1, 32, 128),
    };
    let hub_peer = Hub {
        name: "hub".to_owned(),
        endpoint: Endpoint { host: "192.0.2.2".to_owned(), port: 51820 },
        public_key: hub_key.public_key(),
        preshared_key: None,
        allowed_ips: tunnel_networks(0, 24, 64),
    };
    let site = Settings {
        private_key: site_key,
        addresses: tunnel_networks(1, 24, 64),
        mtu: MTU,
        keep_alive: None,
        hubs: vec![hub_peer],
    };
    let hub = HubSettings {
        private_key: hub_key,
        addresses: tunnel_networks(2, 24, 64),
        mtu: MTU,
        sites: vec![site_peer],
    };
    let now = Now::read();
    [Tunnel::site(site, ClockBounds::default(), now, 1), Tunnel::hub(hub, now, 2)]
}

/// Runs a tunnel between two namespaces until `traffic`, which may enter both, is done. Returns the
/// reports of both ends.
fn with_tunnel(
    offload: [Offload; 2],
    traffic: impl FnOnce(&Namespace, &Namespace) + Send,
) -> [TunnelReport; 2] {
    run_tunnels(tunnels(), offload, |here, there, _| traffic(here, there))
}

/// The same with given tunnels; `traffic` also gets the reports of the site.
fn run_tunnels(
    [site, hub]: [Tunnel; 2],
    offload: [Offload; 2],
    traffic: impl FnOnce(&Namespace, &Namespace, &watch::Receiver<TunnelReport>) + Send,
) -> [TunnelReport; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let [a, b] = ends(offload);
    let (here, there) = (&a.namespace, &b.namespace);
    let new = |tunnel, transport, tun| {
        let (reporter, reports) = Reporter::new(&tunnel, Now::read());
        let clock = ClockCache::new(Now::at);
        (DeviceLoop::new(tunnel, clock, transport, tun, reporter), reports)
    };
    let (mut site, reports) = new(site, a.transport, a.tun);
    let (mut hub, _) = new(hub, b.transport, b.tun);
    thread::scope(|scope| {
        let (done, is_done) = oneshot::channel();
        scope.spawn(move || {
            traffic(here, there, &reports);
            let _ = done.send(());
        });
        let (_site_events, mut site_queue) = mpsc::channel(1);
        let (_hub_events, mut hub_queue) = mpsc::channel(1);
        runtime.block_on(async {
            tokio::select! {
                end = site.run(&mut site_queue) => panic!("{end:?}"),
                end = hub.run(&mut hub_queue) => panic!("{end:?}"),
                end = is_done => end.expect("the traffic passes"),
            }
        });
    });
    [site.report(), hub.report()]
}

/// Sends [`STREAM_BYTES`] from one namespace to the other and compares each byte.
fn stream(from: &Namespace, to: &Namespace, ip: &str) {
    let pattern: Vec<u8> = (0..STREAM_BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();
    to.enter_again();
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    from.enter_again();
    let mut client = TcpStream::connect_timeout(&address, TEST_TIMEOUT).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&pattern).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(STREAM_BYTES);
        server.read_to_end(&mut received).unwrap();
        assert!(received == pattern, "{} bytes differ from those sent", received.len());
    });
}

#[test]
fn as_root_streams_pass_both_ways_with_every_kind_of_offload() {
    let all = [Offload::TcpAndUdp, Offload::Tcp, Offload::Nothing];
    for offload in
        all.map(|one| [one, Offload::TcpAndUdp]).into_iter().chain([[Offload::Nothing; 2]])
    {
        let reports = with_tunnel(offload, |a, b| {
            for (ip_a, ip_b) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
                stream(a, b, ip_b);
                stream(b, a, ip_a);
            }
        });
        for counters in reports.map(|report| report.counters) {
            for reason in [DropReason::Malformed, DropReason::NoRoom, DropReason::Unsent] {
                assert_eq!(counters.dropped(reason), 0, "{offload:?}: {counters:?}");
            }
        }
    }
}

#[test]
fn as_root_streams_pass_in_both_families_at_once() {
    with_tunnel([Offload::TcpAndUdp; 2], |a, b| {
        stream(a, b, "10.77.0.2");
        thread::scope(|scope| {
            scope.spawn(|| stream(a, b, "fd77::2"));
            scope.spawn(|| stream(b, a, "10.77.0.1"));
        });
    });
}

#[test]
fn as_root_an_outer_link_with_a_small_mtu_carries_streams() {
    with_tunnel([Offload::TcpAndUdp; 2], |a, b| {
        for (namespace, cable) in [(a, "cable"), (b, "other")] {
            namespace.enter_again();
            ip(&["link", "set", cable, "mtu", "1300"]);
        }
        stream(a, b, "10.77.0.2");
        stream(b, a, "10.77.0.1");
    });
}

#[test]
fn as_root_a_socket_that_is_bound_to_the_interface_uses_no_other() {
    with_tunnel([Offload::TcpAndUdp; 2], |a, b| {
        b.enter_again();
        let edge0 = InterfaceIndex(nix::net::if_::if_nametoindex("edge0").unwrap());
        let listener = TcpListener::bind("10.77.0.2:0").unwrap();
        bind_to_interface(&listener, edge0).unwrap();
        let address = listener.local_addr().unwrap();
        a.enter_again();
        TcpStream::connect_timeout(&address, TEST_TIMEOUT).unwrap();
        // The same address through the cable.
        ip(&["route", "add", "10.77.0.2/32", "via", "192.0.2.2", "src", "192.0.2.1"]);
        let refused = TcpStream::connect_timeout(&address, TEST_TIMEOUT).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[tokio::test]
async fn as_root_the_tunnel_ends_when_its_interface_is_removed() {
    let namespace = Namespace::enter();
    ip(&["link", "add", "cable", "type", "veth", "peer", "name", "other"]);
    let End { transport, tun, .. } = end(namespace, 1, Offload::TcpAndUdp, "cable");
    let [site, _] = tunnels();
    let clock = ClockCache::new(Now::at);
    let (reporter, _reports) = Reporter::new(&site, Now::read());
    let mut device_loop = DeviceLoop::new(site, clock, transport, tun, reporter);
    let (_events, mut queue) = mpsc::channel(1);
    let mut ended = std::pin::pin!(device_loop.run(&mut queue));
    assert!(time::timeout(Duration::from_millis(1), &mut ended).await.is_err());
    ip(&["link", "del", "edge0"]);
    let ended = time::timeout(TEST_TIMEOUT, ended).await.expect("it ends");
    assert!(matches!(ended, Err(RunError::Device(_))), "{ended:?}");
}
