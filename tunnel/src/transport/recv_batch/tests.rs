use super::*;

fn hub(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn all(inbox: &RecvBatch) -> Vec<(u16, Vec<u8>)> {
    inbox.datagrams().map(|(from, bytes)| (from.port(), bytes.to_vec())).collect()
}

#[test]
fn what_is_pushed_comes_out_in_order() {
    let mut inbox = RecvBatch::new();
    assert!(inbox.is_empty());
    inbox.push(hub(1), b"one");
    inbox.push(hub(2), b"two");
    assert_eq!(all(&inbox), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    inbox.clear();
    assert!(inbox.is_empty() && all(&inbox).is_empty());
}

#[test]
fn a_run_comes_apart_at_its_stride() {
    let mut inbox = RecvBatch::new();
    inbox.spare_capacity()[..8].copy_from_slice(b"abcdefgh");
    inbox.commit(hub(1), 8, 3);
    inbox.push(hub(2), b"z");
    let expected: [(u16, &[u8]); 4] = [(1, b"abc"), (1, b"def"), (1, b"gh"), (2, b"z")];
    assert_eq!(all(&inbox), expected.map(|(port, bytes)| (port, bytes.to_vec())));
}

#[test]
fn nonsense_lengths_are_cut() {
    let mut inbox = RecvBatch::new();
    inbox.commit(hub(1), usize::MAX, 0);
    assert_eq!(inbox.datagrams().map(|(_, bytes)| bytes.len()).sum::<usize>(), CAPACITY_BYTES);
    assert!(!inbox.has_room() && inbox.spare_capacity().is_empty());
    inbox.commit(hub(1), 3, 0);
    inbox.push(hub(1), b"no room");
    assert_eq!((inbox.datagrams().count(), inbox.dropped()), (1, 1));
}

#[test]
fn who_does_not_listen_is_told_once() {
    let mut inbox = RecvBatch::new();
    for port in [1, 1, 2] {
        inbox.push_refused(hub(port));
    }
    assert_eq!(inbox.refused(), [hub(1), hub(2)]);
    assert!(!inbox.is_empty());
    inbox.clear();
    assert!(inbox.refused().is_empty());
    (0..1000).for_each(|port| inbox.push_refused(hub(port)));
    assert_eq!(inbox.refused().len(), MAX_REFUSED);
}
