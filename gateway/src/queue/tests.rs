mod capacity;
mod crashes;
mod damage;
mod failing;
mod full;
mod late_storage;
mod model;
mod restarts;
mod scarce;
mod starts;
mod windows;

use std::sync::Arc;

use serde_json::Value;

use super::storage::simulated::SimulatedDisk;
use super::*;
use crate::metrics::Metrics;
use crate::model::{Message, Quality, Record, Sample, UnixTime, Value as TagValue};

const A: TopicId = TopicId::new(0);
const EVENTS: TopicId = TopicId::new(9);
const EVENT: &str = "edge/a/event";

#[test]
fn entries_are_handed_out_in_the_order_of_their_arrival() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    queue.push(A, record(1, 1), now());
    queue.push(EVENTS, message(4), now());
    queue.push(A, record(2, 1), now());

    assert_eq!(handed_out(&mut queue), [(A, 0), (EVENTS, 0), (A, 1)]);
}

#[test]
fn after_a_rewind_entries_without_an_acknowledgement_are_handed_out_again() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let ids: Vec<EntryId> = (0..4).filter_map(|at| queue.push(A, record(at, 1), now())).collect();
    handed_out(&mut queue);
    queue.acknowledge(ids[2], now());
    queue.acknowledge(ids[0], now());

    queue.rewind(now());

    assert_eq!(handed_out(&mut queue), [(A, 1), (A, 3)]);
}

#[test]
fn a_backlog_is_paced_until_the_gateway_stops() {
    let mut queue = queue(100_000, OnFull::DropOldest);
    let pushed = now();
    for at in 0..40 {
        queue.push(A, record(at, 1), pushed);
    }
    // By then none of them is live.
    queue.rewind(pushed + Duration::from_mins(1));
    assert!((1..40).contains(&handed_out(&mut queue).len()));

    queue.end_pacing();
    queue.rewind(pushed + Duration::from_mins(2));
    assert_eq!(handed_out(&mut queue).len(), 40);
}

#[test]
fn a_late_acknowledgement_after_a_rewind_changes_nothing() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let id = queue.push(A, record(1, 1), now()).unwrap();
    handed_out(&mut queue);
    queue.rewind(now());

    queue.acknowledge(id, now());

    assert_eq!(handed_out(&mut queue), [(A, 0)]);
}

#[test]
fn the_oldest_record_is_evicted_and_its_number_is_announced() {
    let mut queue = queue(bytes_for_records(2), OnFull::DropOldest);
    for at in 0..5 {
        assert!(queue.push(A, record(at, 3), now()).is_some());
    }

    let gaps = queue.ledger.gaps.take();

    assert_eq!(
        gaps,
        [Gap {
            epoch: "e".into(),
            topic: A,
            first_seq: 0,
            last_seq: 2,
            samples: 9,
            reason: DropReason::Full
        }]
    );
    assert_eq!(handed_out(&mut queue), [(A, 3), (A, 4)]);
}

#[test]
fn the_newest_record_is_refused_and_uses_up_its_number() {
    let mut queue = queue(bytes_for_records(2), OnFull::DropNewest);
    let pushed: Vec<bool> =
        (0..3).map(|at| queue.push(A, record(at, 3), now()).is_some()).collect();
    assert_eq!(pushed, [true, true, false]);
    let first = queue.next(now()).unwrap().id;
    queue.acknowledge(first, now());

    queue.push(A, record(3, 3), now()).unwrap();

    assert_eq!(queue.ledger.gaps.take()[0].first_seq, 2);
    assert_eq!(handed_out(&mut queue), [(A, 1), (A, 3)]);
}

#[test]
fn a_message_outlives_the_telemetry_around_it_under_both_policies() {
    for on_full in [OnFull::DropOldest, OnFull::DropNewest] {
        let mut queue = queue(bytes_for_records(3), on_full);
        queue.push(A, record(0, 3), now());
        queue.push(A, record(1, 3), now());
        queue.push(A, record(2, 3), now());

        assert!(queue.push(EVENTS, message(20), now()).is_some());
        for at in 3..9 {
            queue.push(A, record(at, 3), now());
        }

        assert!(handed_out(&mut queue).contains(&(EVENTS, 0)), "{on_full:?}");
    }
}

#[test]
fn entries_that_are_handed_out_are_never_evicted() {
    let mut queue = queue(bytes_for_records(2), OnFull::DropOldest);
    queue.push(A, record(0, 3), now());
    queue.push(A, record(1, 3), now());
    handed_out(&mut queue);

    assert_eq!(queue.push(A, record(2, 3), now()), None);

    queue.rewind(now());
    assert_eq!(handed_out(&mut queue), [(A, 0), (A, 1)]);
}

#[test]
fn an_entry_that_never_fits_evicts_nothing() {
    let mut queue = queue(bytes_for_records(2), OnFull::DropOldest);
    queue.push(A, record(0, 3), now());

    assert_eq!(queue.push(A, record(1, 500), now()), None);

    assert_eq!(handed_out(&mut queue), [(A, 0)]);
    assert_eq!(queue.ledger.gaps.take()[0].samples, 500);
}

#[test]
fn a_discarded_entry_is_counted_under_its_reason() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    queue.push(A, record(0, 7), now());
    let id = queue.next(now()).unwrap().id;

    queue.discard(id, DropReason::TooLarge, now());

    assert!(queue.is_empty());
    let gap = Gap {
        epoch: "e".into(),
        topic: A,
        first_seq: 0,
        last_seq: 0,
        samples: 7,
        reason: DropReason::TooLarge,
    };
    assert_eq!(queue.ledger.gaps.take(), [gap]);
}

#[test]
fn a_gap_comes_back_when_its_announcement_is_lost() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let id = announce(&mut queue, &sample_gap()).unwrap();
    handed_out(&mut queue);

    queue.discard(id, DropReason::Refused, now());

    let own = Gap {
        epoch: "e".into(),
        topic: EVENTS,
        first_seq: 0,
        last_seq: 0,
        samples: 0,
        reason: DropReason::Refused,
    };
    assert_eq!(queue.ledger.gaps.take(), [sample_gap(), own]);
}

#[test]
fn a_gap_whose_announcement_was_acknowledged_is_not_announced_again() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let id = announce(&mut queue, &sample_gap()).unwrap();
    handed_out(&mut queue);

    queue.acknowledge(id, now());
    queue.discard(id, DropReason::Refused, now());

    assert_eq!(queue.ledger.gaps.take(), []);
}

#[test]
fn telemetry_is_evicted_for_an_announcement() {
    let mut queue = queue(bytes_for_records(5), OnFull::DropOldest);
    for at in 0..5 {
        queue.push(A, record(at, 3), now());
    }

    announce(&mut queue, &sample_gap()).unwrap();

    assert!(queue.ledger.gaps.take()[0].samples > 0);
    assert_eq!(handed_out(&mut queue).last(), Some(&(EVENTS, 0)));
}

#[test]
fn an_announcement_evicts_no_message_and_uses_up_no_number_without_room() {
    let mut queue = queue(message(900).memory_bytes() + 300, OnFull::DropOldest);
    let first = queue.push(EVENTS, message(900), now()).unwrap();
    queue.push(A, record(0, 3), now());

    assert_eq!(announce(&mut queue, &sample_gap()), None);

    assert_eq!(queue.ledger.gaps.take(), [sample_gap()]);
    assert_eq!(handed_out(&mut queue), [(EVENTS, 0), (A, 0)]);
    queue.acknowledge(first, now());
    announce(&mut queue, &sample_gap()).unwrap();
    assert_eq!(handed_out(&mut queue), [(EVENTS, 1)]);
}

#[test]
fn the_metrics_show_the_oldest_record_and_go_back_to_zero() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    queue.push(EVENTS, message(1), now());
    queue.push(A, record(5_000_000, 1), now());
    assert_eq!(queue.stats().oldest, Some(UnixTime::from_micros(5_000_000)));
    queue.update_gauges();
    assert!((queue.metrics.oldest_timestamp.get() - 5.0).abs() < f64::EPSILON);

    while let Some(id) = queue.next(now()).map(|queued| queued.id) {
        queue.acknowledge(id, now());
    }

    queue.update_gauges();
    assert_eq!((queue.metrics.stored.get(), queue.metrics.queued_bytes.get()), (0, 0));
    assert!(queue.metrics.oldest_timestamp.get().abs() < f64::EPSILON);
}

fn queue(max_size: u64, on_full: OnFull) -> Queue<SimulatedDisk> {
    let config = config::Queue { max_size, on_full, ..crate::testing::queue() };
    Queue::in_memory(&config, identity("e"), metrics().queue)
}

fn identity(epoch: &str) -> QueueIdentity {
    let topics =
        (0..10).map(|n| if n == 9 { EVENT.into() } else { format!("edge/a/data/{n}").into() });
    let plcs = (0..3)
        .map(|n| PlcNames { name: format!("plc{n}"), tags: ["t", "u"].into_iter().collect() });
    QueueIdentity {
        names: ConfigNames { topics: topics.collect(), plcs: plcs.collect() },
        events: EVENTS,
        epoch: epoch.into(),
        boot: "boot".to_owned(),
    }
}

fn now() -> Instant {
    Instant::now()
}

fn sample_gap() -> Gap {
    Gap {
        epoch: "e".into(),
        topic: A,
        first_seq: 4,
        last_seq: 6,
        samples: 9,
        reason: DropReason::Full,
    }
}

fn metrics() -> Metrics {
    Metrics::new(&crate::testing::config(0), "0").unwrap()
}

/// Returns the bytes of memory that `records` records of three samples take.
fn bytes_for_records(records: u64) -> u64 {
    record(0, 3).memory_bytes() * records
}

fn record(at: i64, samples: usize) -> Entry {
    let at = UnixTime::from_micros(at);
    let sample = Sample { tag: 0, value: Some(TagValue::Bool(true)), quality: Quality::Good, at };
    Entry::Record(Record { plc: 0, at, clock: None, samples: vec![sample; samples] })
}

fn message(text: usize) -> Entry {
    let body = [("text".to_owned(), Value::from("x".repeat(text)))].into_iter().collect();
    Entry::Message(Message { topic: Arc::from(EVENT), body })
}

fn announce(queue: &mut Queue<SimulatedDisk>, gap: &Gap) -> Option<EntryId> {
    let id = queue.ledger.next_id;
    queue.ledger.gaps.add(gap.clone());
    queue.announce_gap(gap, now()).then_some(EntryId::from_ticket(id))
}

fn handed_out(queue: &mut Queue<SimulatedDisk>) -> Vec<(TopicId, u64)> {
    std::iter::from_fn(|| queue.next(now()).map(|queued| (queued.topic, queued.seq))).collect()
}
