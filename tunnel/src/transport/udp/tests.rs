use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::testing::{Namespace, ip};

/// Long enough for a busy machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(10);

fn open() -> UdpTransport {
    UdpTransport::bind(LocalPort::Any).unwrap()
}

fn at(ip: impl Into<IpAddr>, path: &UdpTransport) -> SocketAddr {
    (ip.into(), path.local_addr().unwrap().port()).into()
}

async fn receive(path: &mut UdpTransport, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut inbox = RecvBatch::new();
    while all.len() < count {
        time::timeout(PATIENCE, path.receive(&mut inbox)).await.expect("it arrives").unwrap();
        all.extend(inbox.datagrams().map(|(from, bytes)| (from, bytes.to_vec())));
        inbox.clear();
    }
    all
}

#[tokio::test]
async fn datagrams_of_any_size_arrive_as_they_were_sent() {
    let (mut here, mut there) = (open(), open());
    let to = at(Ipv4Addr::LOCALHOST, &there);
    let sizes =
        [1, 32, 148, 148, 148, 92, 1452, 1452, 1452, 7, 1452, 20_000, 20_000, 20_000, 65_507];
    let mut outbox = SendBatch::new();
    for (index, size) in sizes.into_iter().enumerate() {
        outbox.push(to, &vec![index.to_le_bytes()[0]; size]);
    }
    here.send(&mut outbox).await.unwrap();
    assert!(outbox.is_empty() && here.last_send_error().is_none());
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
    let mut outbox = SendBatch::new();
    for index in 0..100_u16 {
        let mut datagram = [0; 1452];
        datagram[..2].copy_from_slice(&index.to_be_bytes());
        outbox.push(to, &datagram);
    }
    here.send(&mut outbox).await.unwrap();
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
    let mut outbox = SendBatch::new();
    (0..100).for_each(|index| outbox.push(at(Ipv6Addr::LOCALHOST, &there), &[index; 1452]));
    here.send(&mut outbox).await.unwrap();
    let received = receive(&mut there, 100).await;
    assert!(received.iter().map(|(_, bytes)| bytes[0]).eq(0..100));
    assert_eq!(received[0].0, at(Ipv6Addr::LOCALHOST, &here));
    assert_eq!(here.batching(), Batching::On);
}

#[tokio::test]
async fn a_kernel_without_ipv6_will_do() {
    let (mut here, mut there) = (open(), open());
    here.socket = UdpSocket::from_std(socket::open_v4(0).unwrap().into()).unwrap();
    here.family = SocketFamily::Ipv4Only;
    let mut outbox = SendBatch::new();
    outbox.push(at(Ipv6Addr::LOCALHOST, &there), b"six");
    outbox.push(at(Ipv4Addr::LOCALHOST, &there), b"four");
    here.send(&mut outbox).await.unwrap();
    let received = receive(&mut there, 1).await;
    assert_eq!(received, [(at(Ipv4Addr::LOCALHOST, &here), b"four".to_vec())]);
    assert_eq!(here.unsent(), 1);
}

#[tokio::test]
async fn who_does_not_listen_is_named_and_the_path_goes_on() {
    let (mut here, mut there) = (open(), open());
    let (gone, gone_at) = {
        let gone = open();
        let to = at(Ipv4Addr::LOCALHOST, &gone);
        (gone, to)
    };
    drop(gone);
    let mut outbox = SendBatch::new();
    let mut inbox = RecvBatch::new();
    for _ in 0..3 {
        outbox.push(gone_at, b"anybody?");
        here.send(&mut outbox).await.unwrap();
        time::timeout(PATIENCE, here.receive(&mut inbox)).await.expect("an answer").unwrap();
        assert_eq!(inbox.refused(), [gone_at]);
        inbox.clear();
    }
    outbox.push(at(Ipv4Addr::LOCALHOST, &there), b"hello");
    here.send(&mut outbox).await.unwrap();
    assert_eq!(receive(&mut there, 1).await.len(), 1);
}

#[tokio::test]
async fn an_answered_error_does_not_keep_the_path_awake() {
    let mut here = open();
    let gone_at = at(Ipv4Addr::LOCALHOST, &open());
    let mut outbox = SendBatch::new();
    let mut inbox = RecvBatch::new();
    outbox.push(gone_at, b"anybody?");
    here.send(&mut outbox).await.unwrap();
    here.receive(&mut inbox).await.unwrap();
    inbox.clear();
    let again = time::timeout(Duration::from_millis(50), here.receive(&mut inbox)).await;
    assert!(again.is_err(), "{inbox:?}");
    let ready = here.socket.ready(Interest::WRITABLE).await.unwrap();
    assert!(!ready.is_write_closed());
}

#[tokio::test]
async fn a_rebind_takes_another_port_unless_it_is_fixed() {
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
async fn what_cannot_be_sent_is_counted_and_explained() {
    let (mut here, mut there) = (open(), open());
    let mut outbox = SendBatch::new();
    outbox.push(at(Ipv4Addr::LOCALHOST, &there), &[0; 65_508]);
    outbox.push(at(Ipv4Addr::LOCALHOST, &there), b"after it");
    here.send(&mut outbox).await.unwrap();
    assert_eq!((here.unsent(), here.last_send_error().is_none()), (1, true));
    assert_eq!(receive(&mut there, 1).await[0].1, b"after it");

    outbox.push((Ipv4Addr::new(127, 255, 255, 255), 9).into(), b"not allowed");
    here.send(&mut outbox).await.unwrap();
    assert_eq!(here.last_send_error().unwrap().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(here.unsent(), 2);
}

#[tokio::test]
async fn as_root_a_way_that_takes_no_joined_datagrams_gets_them_one_by_one() {
    let _namespace = Namespace::enter();
    // Each datagram has to be fragmented, which a kernel does not do to joined ones.
    ip(&["link", "set", "lo", "mtu", "1300"]);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (mut here, mut there) = (open(), open());
        let mut outbox = SendBatch::new();
        (0..10).for_each(|index| outbox.push(at(ip, &there), &[index; 1452]));
        here.send(&mut outbox).await.unwrap();
        let received = receive(&mut there, 10).await;
        assert!(received.iter().map(|(_, bytes)| bytes[0]).eq(0..10));
        assert_eq!((here.batching(), here.unsent()), (Batching::Refused, 0));
        here.rebind().unwrap();
        assert_eq!(here.batching(), Batching::On);
    }
}

#[tokio::test]
async fn a_flood_of_answers_does_not_end_the_path() {
    let (mut here, mut there) = (open(), open());
    let gone_at = at(Ipv4Addr::LOCALHOST, &open());
    let mut outbox = SendBatch::new();
    for _ in 0..300 {
        outbox.push(gone_at, b"anybody?");
        outbox.push(at(Ipv4Addr::LOCALHOST, &there), b"hello");
    }
    here.send(&mut outbox).await.unwrap();
    let arrived = receive(&mut there, 100).await.len();
    assert!(arrived >= 100);
    let mut inbox = RecvBatch::new();
    here.receive(&mut inbox).await.unwrap();
    assert_eq!(inbox.refused(), [gone_at]);
    outbox.push(at(Ipv4Addr::LOCALHOST, &there), b"at the end");
    here.send(&mut outbox).await.unwrap();
    assert!(here.last_send_error().is_none());
}

#[tokio::test]
async fn garbage_of_any_length_arrives_as_it_is() {
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
async fn as_root_another_way_out_is_told_once_and_other_changes_are_not() {
    let _namespace = Namespace::enter();
    ip(&["link", "add", "lan", "type", "veth", "peer", "name", "other"]);
    ip(&["link", "set", "other", "up"]);
    ip(&["link", "set", "lan", "up"]);
    ip(&["addr", "add", "192.0.2.5/24", "dev", "lan"]);
    ip(&["route", "add", "default", "via", "192.0.2.1"]);
    let (mut path, mut inbox, mut outbox) = (open(), RecvBatch::new(), SendBatch::new());
    outbox.push("198.51.100.1:51820".parse().unwrap(), b"hello");
    path.send(&mut outbox).await.unwrap();
    let of_others = time::timeout(Duration::from_secs(3), path.receive(&mut inbox));
    ip(&["route", "add", "10.0.0.0/8", "via", "192.0.2.9"]);
    assert!(of_others.await.is_err() && inbox.is_empty());
    ip(&["route", "replace", "default", "via", "192.0.2.2"]);
    time::timeout(PATIENCE, path.receive(&mut inbox)).await.expect("it is told").unwrap();
    assert!(inbox.has_network_changed() && !inbox.is_empty());
    inbox.clear();
    assert!(!inbox.has_network_changed());
    path.rebind().unwrap();
    assert!(time::timeout(Duration::from_secs(2), path.receive(&mut inbox)).await.is_err());
}

#[tokio::test]
async fn what_the_kernel_has_no_room_for_is_counted() {
    let (mut here, mut there) = (open(), open());
    let (to, mut inbox, mut outbox) =
        (at(Ipv4Addr::LOCALHOST, &there), RecvBatch::new(), SendBatch::new());
    let mut send = async |datagram: &[u8]| {
        outbox.push(to, datagram);
        here.send(&mut outbox).await.unwrap();
    };
    for _ in 0..400 {
        send(&[0; 60_000]).await;
    }
    let (mut arrived, mut turns) = (0, 0);
    while arrived + inbox.dropped() < 400 {
        turns += 1;
        assert!(turns < 1_000, "{arrived} arrived, {} lost", inbox.dropped());
        // The kernel tells with a datagram how many were lost before it came.
        send(b"last").await;
        time::timeout(PATIENCE, there.receive(&mut inbox)).await.expect("it arrives").unwrap();
        arrived += inbox.datagrams().filter(|(_, bytes)| bytes.len() > 4).count() as u64;
        inbox.clear();
    }
    assert!(inbox.dropped() > 0 && arrived > 0, "{arrived} arrived, {} lost", inbox.dropped());
}
