//! Devices and sockets in network namespaces.

mod driver;
mod engines;
mod kept;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::*;
use crate::device::{Offload, Tun, bind_to_device};
use crate::key::PrivateKey;
use crate::netlink::HostInterface;
use crate::testing::{Namespace, ip};
use crate::transport::{LocalPort, UdpTransport};
use engines::{Plain, Wire};

const PATIENCE: Duration = Duration::from_secs(20);
const BYTES: usize = 2 * 1024 * 1024;

/// One end of a tunnel, with a device and a socket in a namespace of its own.
struct End {
    namespace: Namespace,
    path: UdpTransport,
    tun: Tun,
}

/// Two namespaces and a cable between them; the thread is in the second then.
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
    let addresses: [IpNet; 2] = [
        format!("10.77.0.{number}/24").parse().unwrap(),
        format!("fd77::{number}/64").parse().unwrap(),
    ];
    HostInterface::new(tun.index(), &addresses, &[]).unwrap().configure(1420).unwrap();
    let path = UdpTransport::bind(LocalPort::Fixed(51820)).unwrap();
    End { namespace, path, tun }
}

/// Where an end is reached from the other.
fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

/// Runs a tunnel between two namespaces until `traffic`, which may enter both, is done.
fn with_tunnel<E: Engine<Event = u8, Command = u8>>(
    mut engines: [E; 2],
    offload: [Offload; 2],
    traffic: impl FnOnce(&Namespace, &Namespace) + Send,
) -> [E; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let [mut a, mut b] = ends(offload);
    let [one, two] = &mut engines;
    let (here, there) = (&a.namespace, &b.namespace);
    thread::scope(|scope| {
        let (done, is_done) = oneshot::channel();
        scope.spawn(move || {
            traffic(here, there);
            let _ = done.send(());
        });
        let (_events_a, receiver_a) = mpsc::channel(1);
        let (_events_b, receiver_b) = mpsc::channel(1);
        let (commands, _asked) = mpsc::channel(1);
        runtime.block_on(async {
            tokio::select! {
                end = run(one, &mut a.path, &mut a.tun, receiver_a, &commands) => panic!("{end:?}"),
                end = run(two, &mut b.path, &mut b.tun, receiver_b, &commands) => panic!("{end:?}"),
                end = is_done => end.expect("the traffic is as it should be"),
            }
        });
    });
    engines
}

/// Sends [`BYTES`] from one namespace to the other and checks each.
fn stream(from: &Namespace, to: &Namespace, ip: &str) {
    let pattern: Vec<u8> = (0..BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();
    to.enter_again();
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    from.enter_again();
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&pattern).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(BYTES);
        server.read_to_end(&mut received).unwrap();
        assert!(received == pattern, "{} bytes are not the ones that were sent", received.len());
    });
}

fn plain() -> [Plain; 2] {
    [Plain::new(at(2)), Plain::new(at(1))]
}

fn wires() -> [Wire; 2] {
    let (a, b) = (PrivateKey::generate(), PrivateKey::generate());
    [Wire::new(&a, &b, at(2)), Wire::new(&b, &a, at(1))]
}

#[test]
fn as_root_streams_go_both_ways_whatever_the_devices_join() {
    let all = [Offload::TcpAndUdp, Offload::Tcp, Offload::Nothing];
    for offload in
        all.map(|one| [one, Offload::TcpAndUdp]).into_iter().chain([[Offload::Nothing; 2]])
    {
        let engines = with_tunnel(plain(), offload, |a, b| {
            for (ip_a, ip_b) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
                stream(a, b, ip_b);
                stream(b, a, ip_a);
            }
        });
        assert!(engines.iter().all(|engine| engine.seen.lost == 0), "{offload:?}");
    }
}

#[test]
fn as_root_streams_go_both_ways_through_wireguard() {
    with_tunnel(wires(), [Offload::TcpAndUdp; 2], |a, b| {
        stream(a, b, "10.77.0.2");
        stream(b, a, "10.77.0.1");
        thread::scope(|scope| {
            scope.spawn(|| stream(a, b, "fd77::2"));
            scope.spawn(|| stream(b, a, "10.77.0.1"));
        });
    });
}

#[test]
fn as_root_an_outer_way_with_a_small_mtu_carries_streams() {
    with_tunnel(wires(), [Offload::TcpAndUdp; 2], |a, b| {
        for (namespace, cable) in [(a, "cable"), (b, "other")] {
            namespace.enter_again();
            ip(&["link", "set", cable, "mtu", "1300"]);
        }
        stream(a, b, "10.77.0.2");
        stream(b, a, "10.77.0.1");
    });
}

#[test]
fn as_root_a_socket_that_is_bound_to_the_device_uses_no_other() {
    with_tunnel(plain(), [Offload::TcpAndUdp; 2], |a, b| {
        let edge0 = "edge0".parse().unwrap();
        b.enter_again();
        let listener = TcpListener::bind("10.77.0.2:0").unwrap();
        bind_to_device(&listener, edge0).unwrap();
        let address = listener.local_addr().unwrap();
        a.enter_again();
        TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        // The same address by way of the cable.
        ip(&["route", "add", "10.77.0.2/32", "via", "192.0.2.2", "src", "192.0.2.1"]);
        let refused = TcpStream::connect_timeout(&address, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[tokio::test]
async fn as_root_a_device_that_somebody_removes_ends_the_tunnel() {
    let namespace = Namespace::enter();
    ip(&["link", "add", "cable", "type", "veth", "peer", "name", "other"]);
    let mut end = end(namespace, 1, Offload::TcpAndUdp, "cable");
    let (_events, receiver) = mpsc::channel(1);
    let (commands, _asked) = mpsc::channel(1);
    let mut engine = Plain::new(at(2));
    let mut ended =
        std::pin::pin!(run(&mut engine, &mut end.path, &mut end.tun, receiver, &commands));
    assert!(time::timeout(Duration::from_millis(1), &mut ended).await.is_err());
    ip(&["link", "del", "edge0"]);
    let ended = time::timeout(PATIENCE, ended).await.expect("it ends");
    assert!(matches!(ended, Err(RunError::Device(_))), "{ended:?}");
}
