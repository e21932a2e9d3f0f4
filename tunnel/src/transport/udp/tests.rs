use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::testing::{Namespace, ip};

/// Long enough for a busy machine; only a failing test waits this long.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

fn open() -> UdpTransport {
    UdpTransport::bind(LocalPort::Any).unwrap()
}

fn at(ip: impl Into<IpAddr>, transport: &UdpTransport) -> SocketAddr {
    (ip.into(), transport.local_addr().unwrap().port()).into()
}

async fn receive(transport: &mut UdpTransport, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut incoming = RecvBatch::new();
    while all.len() < count {
        time::timeout(TEST_TIMEOUT, transport.receive(&mut incoming))
            .await
            .expect("it arrives")
            .unwrap();
        all.extend(incoming.datagrams().map(|(from, bytes)| (from, bytes.to_vec())));
        incoming.clear();
    }
    all
}

#[tokio::test]
async fn datagrams_of_any_size_arrive_as_they_were_sent() {
    let (mut here, mut there) = (open(), open());
    let to = at(Ipv4Addr::LOCALHOST, &there);
    let sizes =
        [1, 32, 148, 148, 148, 92, 1452, 1452, 1452, 7, 1452, 20_000, 20_000, 20_000, 65_507];
    let mut batch = SendBatch::new();
    for (index, size) in sizes.into_iter().enumerate() {
        batch.push(to, &vec![index.to_le_bytes()[0]; size]);
    }
    here.send(&mut batch).await.unwrap();
    assert!(batch.is_empty() && here.last_send_error().is_none());
    let from = at(Ipv4Addr::LOCALHOST, &here);
    for (index, received) in receive(&mut there, sizes.len()).await.into_iter().enumerate() {
        assert_eq!(received, (from, vec![index.to_le_bytes()[0]; sizes[index]]));
    }
    assert_eq!(here.unsent(), 0);
}

#[tokio::test]
async fn a_hundred_datagrams_arrive_in_order() {
    let (mut here, mut there) = (open(), open());
    let to = at(Ipv4Addr::LOCALHOST, &there);
    let mut batch = SendBatch::new();
    for index in 0..100_u16 {
        let mut datagram = [0; 1452];
        datagram[..2].copy_from_slice(&index.to_be_bytes());
        batch.push(to, &datagram);
    }
    here.send(&mut batch).await.unwrap();
    let received = receive(&mut there, 100).await;
    let order = received.iter().map(|(_, bytes)| u16::from_be_bytes([bytes[0], bytes[1]]));
    assert!(order.eq(0..100));
    assert_eq!(here.batching(), Batching::On);
}

#[tokio::test]
async fn ipv6_goes_through_the_same_socket() {
    let (mut here, mut there) = (open(), open());
    if here.family == SocketFamily::Ipv4Only {
        return;
    }
    let mut batch = SendBatch::new();
    (0..100).for_each(|index| batch.push(at(Ipv6Addr::LOCALHOST, &there), &[index; 1452]));
    here.send(&mut batch).await.unwrap();
    let received = receive(&mut there, 100).await;
    assert!(received.iter().map(|(_, bytes)| bytes[0]).eq(0..100));
    assert_eq!(received[0].0, at(Ipv6Addr::LOCALHOST, &here));
    assert_eq!(here.batching(), Batching::On);
}

#[tokio::test]
async fn a_kernel_without_ipv6_is_sufficient() {
    let (mut here, mut there) = (open(), open());
    here.socket = UdpSocket::from_std(socket::open_v4(0).unwrap().into()).unwrap();
    here.family = SocketFamily::Ipv4Only;
    let mut batch = SendBatch::new();
    batch.push(at(Ipv6Addr::LOCALHOST, &there), b"six");
    batch.push(at(Ipv4Addr::LOCALHOST, &there), b"four");
    here.send(&mut batch).await.unwrap();
    let received = receive(&mut there, 1).await;
    assert_eq!(received, [(at(Ipv4Addr::LOCALHOST, &here), b"four".to_vec())]);
    assert_eq!(here.unsent(), 1);
}

/// Returns the report of a host on which nothing listens.
fn refused(to: SocketAddr) -> PathError {
    PathError { to, cause: PathErrorCause::PortUnreachable, reporter: Some(to.ip()) }
}

#[tokio::test]
async fn a_host_that_refuses_is_reported_and_the_transport_still_works() {
    let (mut here, mut there) = (open(), open());
    let (closed, closed_port) = {
        let closed = open();
        let to = at(Ipv4Addr::LOCALHOST, &closed);
        (closed, to)
    };
    drop(closed);
    let mut batch = SendBatch::new();
    let mut incoming = RecvBatch::new();
    for _ in 0..3 {
        batch.push(closed_port, b"hello?");
        here.send(&mut batch).await.unwrap();
        time::timeout(TEST_TIMEOUT, here.receive(&mut incoming)).await.expect("an answer").unwrap();
        assert_eq!(incoming.path_errors(), [refused(closed_port)]);
        incoming.clear();
    }
    batch.push(at(Ipv4Addr::LOCALHOST, &there), b"hello");
    here.send(&mut batch).await.unwrap();
    assert_eq!(receive(&mut there, 1).await.len(), 1);
}

#[tokio::test]
async fn an_icmp_error_does_not_keep_the_transport_awake() {
    let mut here = open();
    let closed_port = at(Ipv4Addr::LOCALHOST, &open());
    let mut batch = SendBatch::new();
    let mut incoming = RecvBatch::new();
    batch.push(closed_port, b"hello?");
    here.send(&mut batch).await.unwrap();
    here.receive(&mut incoming).await.unwrap();
    incoming.clear();
    let again = time::timeout(Duration::from_millis(50), here.receive(&mut incoming)).await;
    assert!(again.is_err(), "{incoming:?}");
    let ready = here.socket.ready(Interest::WRITABLE).await.unwrap();
    assert!(!ready.is_write_closed());
}

#[tokio::test]
async fn a_rebind_opens_another_port_unless_it_is_fixed() {
    let mut here = open();
    let before = here.local_addr().unwrap();
    here.rebind().unwrap();
    assert_ne!(here.local_addr().unwrap(), before);

    let mut fixed = UdpTransport::bind(LocalPort::Fixed(before.port())).unwrap();
    fixed.rebind().unwrap();
    assert_eq!(fixed.local_addr().unwrap().port(), before.port());
    let taken = UdpTransport::bind(LocalPort::Fixed(before.port())).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn datagrams_that_cannot_be_sent_are_counted_with_the_error() {
    let (mut here, mut there) = (open(), open());
    let mut batch = SendBatch::new();
    batch.push(at(Ipv4Addr::LOCALHOST, &there), &[0; 65_508]);
    batch.push(at(Ipv4Addr::LOCALHOST, &there), b"after it");
    here.send(&mut batch).await.unwrap();
    assert_eq!((here.unsent(), here.last_send_error().is_none()), (1, true));
    assert_eq!(receive(&mut there, 1).await[0].1, b"after it");

    batch.push((Ipv4Addr::new(127, 255, 255, 255), 9).into(), b"not allowed");
    here.send(&mut batch).await.unwrap();
    assert_eq!(here.last_send_error().unwrap().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(here.unsent(), 2);
}

#[tokio::test]
async fn as_root_a_link_without_segmentation_gets_datagrams_one_by_one() {
    let _namespace = Namespace::enter();
    // Each datagram must be fragmented, which the kernel does not do with joined ones.
    ip(&["link", "set", "lo", "mtu", "1300"]);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (mut here, mut there) = (open(), open());
        let mut batch = SendBatch::new();
        (0..10).for_each(|index| batch.push(at(ip, &there), &[index; 1452]));
        here.send(&mut batch).await.unwrap();
        let received = receive(&mut there, 10).await;
        assert!(received.iter().map(|(_, bytes)| bytes[0]).eq(0..10));
        assert_eq!((here.batching(), here.unsent()), (Batching::Refused, 0));
        here.rebind().unwrap();
        assert_eq!(here.batching(), Batching::On);
    }
}

#[tokio::test]
async fn a_flood_of_icmp_errors_does_not_stop_the_transport() {
    let (mut here, mut there) = (open(), open());
    let closed_port = at(Ipv4Addr::LOCALHOST, &open());
    let mut batch = SendBatch::new();
    for _ in 0..300 {
        batch.push(closed_port, b"hello?");
        batch.push(at(Ipv4Addr::LOCALHOST, &there), b"hello");
    }
    here.send(&mut batch).await.unwrap();
    let arrived = receive(&mut there, 100).await.len();
    assert!(arrived >= 100);
    let mut incoming = RecvBatch::new();
    here.receive(&mut incoming).await.unwrap();
    assert_eq!(incoming.path_errors(), [refused(closed_port)]);
    batch.push(at(Ipv4Addr::LOCALHOST, &there), b"at the end");
    here.send(&mut batch).await.unwrap();
    assert!(here.last_send_error().is_none());
}

#[tokio::test]
async fn garbage_of_any_length_arrives_unchanged() {
    let (here, mut there) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), open());
    let to = at(Ipv4Addr::LOCALHOST, &there);
    here.send_to(&[], to).unwrap();
    for length in [1, 3, 31, 1500, 9000, 65_507] {
        here.send_to(&vec![0xff; length], to).unwrap();
    }
    let lengths: Vec<_> = receive(&mut there, 6).await.iter().map(|(_, it)| it.len()).collect();
    assert_eq!(lengths, [1, 3, 31, 1500, 9000, 65_507]);
}

#[tokio::test]
async fn as_root_a_change_of_the_route_is_reported_once_and_other_changes_are_not() {
    let _namespace = Namespace::enter();
    ip(&["link", "add", "lan", "type", "veth", "peer", "name", "other"]);
    ip(&["link", "set", "other", "up"]);
    ip(&["link", "set", "lan", "up"]);
    ip(&["addr", "add", "192.0.2.5/24", "dev", "lan"]);
    ip(&["route", "add", "default", "via", "192.0.2.1"]);
    let (mut transport, mut incoming, mut batch) = (open(), RecvBatch::new(), SendBatch::new());
    batch.push("198.51.100.1:51820".parse().unwrap(), b"hello");
    transport.send(&mut batch).await.unwrap();
    let of_others = time::timeout(Duration::from_secs(2), transport.receive(&mut incoming));
    ip(&["route", "add", "10.0.0.0/8", "via", "192.0.2.9"]);
    assert!(of_others.await.is_err() && incoming.is_empty());
    ip(&["route", "replace", "default", "via", "192.0.2.2"]);
    // A router that does not answer is reported, too.
    let change = async {
        while !incoming.has_network_changed() {
            incoming.clear();
            transport.receive(&mut incoming).await.unwrap();
        }
    };
    time::timeout(TEST_TIMEOUT, change).await.expect("it is reported");
    assert!(!incoming.is_empty());
    incoming.clear();
    assert!(!incoming.has_network_changed());
    transport.rebind().unwrap();
    assert!(time::timeout(Duration::from_secs(2), transport.receive(&mut incoming)).await.is_err());
}

#[tokio::test]
async fn datagrams_that_the_kernel_drops_are_counted() {
    let (mut here, mut there) = (open(), open());
    let (to, mut incoming, mut batch) =
        (at(Ipv4Addr::LOCALHOST, &there), RecvBatch::new(), SendBatch::new());
    let mut send = async |datagram: &[u8]| {
        batch.push(to, datagram);
        here.send(&mut batch).await.unwrap();
    };
    for _ in 0..400 {
        send(&[0; 60_000]).await;
    }
    let (mut arrived, mut turns) = (0, 0);
    while arrived + incoming.dropped() < 400 {
        turns += 1;
        assert!(turns < 1_000, "{arrived} arrived, {} lost", incoming.dropped());
        // The kernel reports the number of lost datagrams with the next one.
        send(b"last").await;
        time::timeout(TEST_TIMEOUT, there.receive(&mut incoming))
            .await
            .expect("it arrives")
            .unwrap();
        arrived += incoming.datagrams().filter(|(_, bytes)| bytes.len() > 4).count() as u64;
        incoming.clear();
    }
    assert!(
        incoming.dropped() > 0 && arrived > 0,
        "{arrived} arrived, {} lost",
        incoming.dropped()
    );
}
