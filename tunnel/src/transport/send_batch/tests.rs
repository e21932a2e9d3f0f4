use proptest::prelude::*;

use super::*;

fn hub(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn runs(outbox: &SendBatch) -> Vec<(u16, usize, usize)> {
    outbox.segments().map(|run| (run.to.port(), run.bytes.len(), run.segment_size)).collect()
}

#[test]
fn what_is_committed_comes_out_in_order() {
    let mut outbox = SendBatch::new();
    outbox.reserve(hub(1), 100)[..3].copy_from_slice(b"one");
    outbox.commit(3);
    outbox.push(hub(2), b"two");
    let all: Vec<_> = outbox.datagrams().collect();
    assert_eq!(all, [(hub(1), b"one".as_slice()), (hub(2), b"two".as_slice())]);
    assert_eq!(outbox.len_bytes(), 6);
    outbox.clear();
    assert!(outbox.is_empty() && outbox.datagrams().next().is_none());
}

#[test]
fn what_is_not_committed_is_not_sent() {
    let mut outbox = SendBatch::new();
    outbox.commit(5);
    outbox.reserve(hub(1), 100);
    outbox.commit(0);
    outbox.reserve(hub(1), 100);
    outbox.push(hub(2), b"x");
    assert_eq!(runs(&outbox), [(2, 1, 1)]);
}

#[test]
fn equal_lengths_are_joined_up_to_a_shorter_one() {
    let mut outbox = SendBatch::new();
    for length in [10, 10, 10, 4, 10, 20, 20] {
        outbox.push(hub(1), &vec![0; length]);
    }
    outbox.push(hub(2), &[0; 20]);
    assert_eq!(runs(&outbox), [(1, 34, 10), (1, 10, 10), (1, 40, 20), (2, 20, 20)]);
}

#[test]
fn a_run_holds_no_more_than_a_kernel_takes() {
    let mut outbox = SendBatch::new();
    (0..65).for_each(|_| outbox.push(hub(1), &[0; 100]));
    assert_eq!(runs(&outbox), [(1, 6400, 100), (1, 100, 100)]);
    outbox.clear();
    (0..64).for_each(|_| outbox.push(hub(1), &[0; 1452]));
    assert_eq!(runs(&outbox), [(1, 45 * 1452, 1452), (1, 19 * 1452, 1452)]);
}

#[test]
fn there_is_always_a_place_to_write_to() {
    let mut outbox = SendBatch::new();
    for _ in 0..20 {
        assert_eq!(outbox.reserve(hub(1), usize::MAX).len(), MAX_DATAGRAM);
        outbox.commit(usize::MAX);
    }
    assert!(outbox.is_full());
    assert_eq!(outbox.datagrams().count(), CAPACITY_BYTES / MAX_DATAGRAM);
    assert_eq!(outbox.dropped(), 20 - (CAPACITY_BYTES / MAX_DATAGRAM) as u64);
}

proptest! {
    #[test]
    fn runs_hold_exactly_the_datagrams(sizes in prop::collection::vec((0..3_u16, 1..3000_usize), 0..200)) {
        let mut outbox = SendBatch::new();
        for (index, (port, length)) in sizes.iter().enumerate() {
            outbox.push(hub(*port), &vec![index.to_le_bytes()[0]; *length]);
        }
        let apart: Vec<_> = outbox
            .segments()
            .flat_map(|run| run.bytes.chunks(run.segment_size).map(move |bytes| (run.to, bytes)))
            .collect();
        prop_assert_eq!(apart, outbox.datagrams().collect::<Vec<_>>());
    }
}
