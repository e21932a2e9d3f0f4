mod crashes;
mod damage;
mod homeless;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::storage::simulated::Simulated;
use super::*;
use crate::metrics::Metrics;
use crate::model::{Message, Quality, Record, Sample, Value as TagValue};

const A: TopicId = TopicId::new(0);
const EVENTS: TopicId = TopicId::new(9);
const EVENT: &str = "edge/a/event";

#[test]
fn entries_leave_in_the_order_in_which_they_came() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    queue.push(A, record(1, 1), now());
    queue.push(EVENTS, message(4), now());
    queue.push(A, record(2, 1), now());

    assert_eq!(handed_out(&mut queue), [(A, 0), (EVENTS, 0), (A, 1)]);
}

#[test]
fn after_a_rewind_only_what_was_not_acknowledged_comes_again() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let ids: Vec<Id> = (0..4).filter_map(|at| queue.push(A, record(at, 1), now())).collect();
    handed_out(&mut queue);
    queue.acknowledge(ids[2], now());
    queue.acknowledge(ids[0], now());

    queue.rewind(now());

    assert_eq!(handed_out(&mut queue), [(A, 1), (A, 3)]);
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
fn the_oldest_record_makes_room_and_its_number_is_announced() {
    let mut queue = queue(room_for_records(2), OnFull::DropOldest);
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
fn the_newest_record_is_refused_and_spends_its_number() {
    let mut queue = queue(room_for_records(2), OnFull::DropNewest);
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
        let mut queue = queue(room_for_records(3), on_full);
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
fn what_is_handed_out_is_never_evicted() {
    let mut queue = queue(room_for_records(2), OnFull::DropOldest);
    queue.push(A, record(0, 3), now());
    queue.push(A, record(1, 3), now());
    handed_out(&mut queue);

    assert_eq!(queue.push(A, record(2, 3), now()), None);

    queue.rewind(now());
    assert_eq!(handed_out(&mut queue), [(A, 0), (A, 1)]);
}

#[test]
fn an_entry_that_never_fits_pushes_nothing_out() {
    let mut queue = queue(room_for_records(2), OnFull::DropOldest);
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
    let id = announce(&mut queue, &told()).unwrap();
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
    assert_eq!(queue.ledger.gaps.take(), [told(), own]);
}

#[test]
fn a_gap_whose_announcement_arrived_is_done() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    let id = announce(&mut queue, &told()).unwrap();
    handed_out(&mut queue);

    queue.acknowledge(id, now());
    queue.discard(id, DropReason::Refused, now());

    assert_eq!(queue.ledger.gaps.take(), []);
}

#[test]
fn an_announcement_displaces_telemetry() {
    let mut queue = queue(room_for_records(5), OnFull::DropOldest);
    for at in 0..5 {
        queue.push(A, record(at, 3), now());
    }

    announce(&mut queue, &told()).unwrap();

    assert!(queue.ledger.gaps.take()[0].samples > 0);
    assert_eq!(handed_out(&mut queue).last(), Some(&(EVENTS, 0)));
}

#[test]
fn an_announcement_displaces_no_message_and_spends_no_number_in_vain() {
    let mut queue = queue(message(900).bytes() + 300, OnFull::DropOldest);
    let first = queue.push(EVENTS, message(900), now()).unwrap();
    queue.push(A, record(0, 3), now());

    assert_eq!(announce(&mut queue, &told()), None);

    assert_eq!(queue.ledger.gaps.take(), [told()]);
    assert_eq!(handed_out(&mut queue), [(EVENTS, 0), (A, 0)]);
    queue.acknowledge(first, now());
    announce(&mut queue, &told()).unwrap();
    assert_eq!(handed_out(&mut queue), [(EVENTS, 1)]);
}

#[test]
fn the_metrics_show_the_oldest_record_and_go_back_to_zero() {
    let mut queue = queue(10_000, OnFull::DropOldest);
    queue.push(EVENTS, message(1), now());
    queue.push(A, record(5_000_000, 1), now());
    assert_eq!(queue.stats().oldest, Some(UnixTime::from_micros(5_000_000)));
    assert!((queue.metrics.oldest.get() - 5.0).abs() < f64::EPSILON);

    while let Some(id) = queue.next(now()).map(|queued| queued.id) {
        queue.acknowledge(id, now());
    }

    assert_eq!((queue.metrics.stored.get(), queue.metrics.bytes.get()), (0, 0));
    assert!(queue.metrics.oldest.get().abs() < f64::EPSILON);
}

proptest! {
    #[test]
    fn behaves_like_a_plain_list(
        drop_oldest: bool,
        room in 0..12_u64,
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        let on_full = if drop_oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let max_size = room_for_records(room);
        let mut queue = queue(max_size, on_full);
        let mut model = Model { max_size, on_full, ..Model::default() };
        for (at, operation) in operations.into_iter().enumerate() {
            model.check(&mut queue, i64::try_from(at).unwrap(), &operation);
        }
        model.check_that_every_number_is_accounted_for(&mut queue);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Record { topic: u16, samples: usize },
    Message { text: usize },
    Next,
    Acknowledge(prop::sample::Index),
    Discard(prop::sample::Index),
    Rewind,
    TakeGaps,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => (0..3_u16, 1..6_usize)
            .prop_map(|(topic, samples)| Operation::Record { topic, samples }),
        2 => (0..200_usize).prop_map(|text| Operation::Message { text }),
        5 => Just(Operation::Next),
        3 => any::<prop::sample::Index>().prop_map(Operation::Acknowledge),
        1 => any::<prop::sample::Index>().prop_map(Operation::Discard),
        1 => Just(Operation::Rewind),
        1 => Just(Operation::TakeGaps),
    ]
}

/// The queue again, as a list that is searched from end to end.
#[derive(Debug)]
struct Model {
    max_size: u64,
    on_full: OnFull,
    open: Vec<Open>,
    pushed: BTreeMap<TopicId, u64>,
    samples: Samples,
    /// Numbers that were delivered or announced as lost, with how often.
    settled: BTreeMap<(TopicId, u64), u32>,
}

#[derive(Clone, Debug)]
struct Open {
    topic: TopicId,
    seq: u64,
    entry: Entry,
    id: Option<Id>,
    handed_out: bool,
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Samples {
    produced: u64,
    delivered: u64,
    dropped: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            max_size: 0,
            on_full: OnFull::DropOldest,
            open: Vec::new(),
            pushed: BTreeMap::new(),
            samples: Samples::default(),
            settled: BTreeMap::new(),
        }
    }
}

impl Model {
    fn check(&mut self, queue: &mut Queue<Simulated>, at: i64, operation: &Operation) {
        match operation {
            Operation::Record { topic, samples } => {
                self.push(queue, TopicId::new(*topic), record(at, *samples));
            }
            Operation::Message { text } => self.push(queue, EVENTS, message(*text)),
            Operation::Next => self.next(queue),
            Operation::Acknowledge(pick) => {
                if let Some(open) = self.remove_handed_out(pick) {
                    queue.acknowledge(open.id.unwrap(), now());
                    self.samples.delivered += open.entry.samples();
                    *self.settled.entry((open.topic, open.seq)).or_default() += 1;
                }
            }
            Operation::Discard(pick) => {
                if let Some(open) = self.remove_handed_out(pick) {
                    queue.discard(open.id.unwrap(), DropReason::Refused, now());
                    self.samples.dropped += open.entry.samples();
                }
            }
            Operation::Rewind => {
                queue.rewind(now());
                self.open.iter_mut().for_each(|open| open.handed_out = false);
            }
            Operation::TakeGaps => self.take_gaps(queue),
        }
        self.compare(queue);
    }

    fn push(&mut self, queue: &mut Queue<Simulated>, topic: TopicId, entry: Entry) {
        let next = self.pushed.entry(topic).or_default();
        let seq = *next;
        *next += 1;
        self.samples.produced += entry.samples();
        let mut after = self.open.clone();
        let mut lost = entry.samples();
        let mut fits = true;
        while after.iter().map(|open| open.entry.bytes()).sum::<u64>() + entry.bytes()
            > self.max_size
            && fits
        {
            match self.victim(&after, &entry) {
                Some(victim) => drop(after.remove(victim)),
                None => fits = false,
            }
        }
        let id = queue.push(topic, entry.clone(), now());
        assert_eq!(id.is_some(), fits);
        if fits {
            let before: u64 = self.open.iter().map(|open| open.entry.samples()).sum();
            lost = before - after.iter().map(|open| open.entry.samples()).sum::<u64>();
            self.open = after;
            self.open.push(Open { topic, seq, entry, id, handed_out: false });
        }
        self.samples.dropped += lost;
    }

    fn victim(&self, open: &[Open], incoming: &Entry) -> Option<usize> {
        let for_message = matches!(incoming, Entry::Message(_));
        let is_record = |open: &Open| matches!(open.entry, Entry::Record(_));
        let waiting_record = |open: &Open| is_record(open) && !open.handed_out;
        let waiting_message = |open: &Open| !is_record(open) && !open.handed_out;
        match (self.on_full, for_message) {
            (OnFull::DropOldest, true) => open
                .iter()
                .position(waiting_record)
                .or_else(|| open.iter().position(waiting_message)),
            (OnFull::DropOldest, false) => open.iter().position(waiting_record),
            (OnFull::DropNewest, true) => open.iter().rposition(waiting_record),
            (OnFull::DropNewest, false) => None,
        }
    }

    fn next(&mut self, queue: &mut Queue<Simulated>) {
        let expected = self.open.iter_mut().find(|open| !open.handed_out);
        match (queue.next(now()), expected) {
            (Some(queued), Some(open)) => {
                assert_eq!((queued.topic, queued.seq), (open.topic, open.seq));
                assert_eq!(queued.entry, &open.entry);
                assert_eq!(Some(queued.id), open.id);
                open.handed_out = true;
            }
            (None, None) => {}
            (queued, expected) => panic!("{queued:?} instead of {expected:?}"),
        }
    }

    fn remove_handed_out(&mut self, pick: &prop::sample::Index) -> Option<Open> {
        let handed_out: Vec<usize> =
            (0..self.open.len()).filter(|index| self.open[*index].handed_out).collect();
        (!handed_out.is_empty()).then(|| self.open.remove(*pick.get(&handed_out)))
    }

    fn take_gaps(&mut self, queue: &mut Queue<Simulated>) {
        for gap in queue.ledger.gaps.take() {
            for seq in gap.first_seq..=gap.last_seq {
                *self.settled.entry((gap.topic, seq)).or_default() += 1;
            }
        }
    }

    fn compare(&self, queue: &Queue<Simulated>) {
        let stats = queue.stats();
        let bytes: u64 = self.open.iter().map(|open| open.entry.bytes()).sum();
        let samples: u64 = self.open.iter().map(|open| open.entry.samples()).sum();
        assert_eq!((stats.samples, stats.bytes), (samples, bytes));
        assert!(stats.bytes <= self.max_size);
        assert_eq!(stats.entries, to_u64(self.open.len()));
        assert_eq!(stats.oldest, self.open.iter().find_map(|open| open.entry.at()));

        let metrics = &queue.metrics;
        let counted = Samples {
            produced: metrics.produced.get(),
            delivered: metrics.delivered.get(),
            dropped: metrics.dropped(),
        };
        assert_eq!(counted, self.samples);
        assert_eq!(metrics.stored.get(), i64::try_from(samples).unwrap());
        assert_eq!(counted.produced, counted.delivered + counted.dropped + samples);
    }

    fn check_that_every_number_is_accounted_for(mut self, queue: &mut Queue<Simulated>) {
        self.take_gaps(queue);
        for open in &self.open {
            *self.settled.entry((open.topic, open.seq)).or_default() += 1;
        }
        let all = self.pushed.iter().flat_map(|(topic, n)| (0..*n).map(move |seq| (*topic, seq)));
        assert!(self.settled.into_iter().eq(all.map(|number| (number, 1))));
    }
}

fn queue(max_size: u64, on_full: OnFull) -> Queue<Simulated> {
    let config = config::Queue { max_size, on_full, ..crate::testing::queue() };
    Queue::in_memory(&config, identity("e"), metrics().queue)
}

fn identity(epoch: &str) -> Identity {
    let topics =
        (0..10).map(|n| if n == 9 { EVENT.into() } else { format!("edge/a/data/{n}").into() });
    let plcs =
        (0..3).map(|n| PlcNames { name: format!("plc{n}"), tags: vec!["t".into(), "u".into()] });
    Identity {
        names: Names { topics: topics.collect(), plcs: plcs.collect() },
        events: EVENTS,
        epoch: epoch.into(),
        boot: "boot".to_owned(),
    }
}

fn now() -> Instant {
    Instant::now()
}

fn told() -> Gap {
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

/// Room for this many records of three samples.
fn room_for_records(records: u64) -> u64 {
    record(0, 3).bytes() * records
}

fn record(at: i64, samples: usize) -> Entry {
    let at = UnixTime::from_micros(at);
    let sample = Sample { tag: 0, value: Some(TagValue::Bool(true)), quality: Quality::Good, at };
    Entry::Record(Record { plc: 0, at, samples: vec![sample; samples] })
}

fn message(text: usize) -> Entry {
    let body = [("text".to_owned(), Value::from("x".repeat(text)))].into_iter().collect();
    Entry::Message(Message { topic: Arc::from(EVENT), body })
}

fn announce(queue: &mut Queue<Simulated>, gap: &Gap) -> Option<Id> {
    let id = queue.ledger.next_id;
    queue.ledger.gaps.add(gap.clone());
    queue.tell_gap(gap, now()).then_some(Id::from_ticket(id))
}

fn handed_out(queue: &mut Queue<Simulated>) -> Vec<(TopicId, u64)> {
    std::iter::from_fn(|| queue.next(now()).map(|queued| (queued.topic, queued.seq))).collect()
}
