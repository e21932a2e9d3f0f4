//! Compares the queue in memory with a plain list.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::storage::simulated::SimulatedDisk;
use super::*;

proptest! {
    #[test]
    fn behaves_like_a_plain_list(
        drop_oldest: bool,
        room in 0..12_u64,
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        let on_full = if drop_oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let max_size = bytes_for_records(room);
        let mut queue = queue(max_size, on_full);
        let mut model = ModelQueue { max_size, on_full, ..ModelQueue::default() };
        for (at, operation) in operations.into_iter().enumerate() {
            model.check(&mut queue, i64::try_from(at).unwrap(), &operation);
        }
        model.check_that_every_number_is_accounted_for(&mut queue);
    }
}

#[derive(Clone, Debug)]
enum QueueOperation {
    Record { topic: u16, samples: usize },
    Message { text: usize },
    Next,
    Acknowledge(prop::sample::Index),
    Discard(prop::sample::Index),
    Rewind,
    TakeGaps,
}

fn operation() -> impl Strategy<Value = QueueOperation> {
    prop_oneof![
        5 => (0..3_u16, 1..6_usize)
            .prop_map(|(topic, samples)| QueueOperation::Record { topic, samples }),
        2 => (0..200_usize).prop_map(|text| QueueOperation::Message { text }),
        5 => Just(QueueOperation::Next),
        3 => any::<prop::sample::Index>().prop_map(QueueOperation::Acknowledge),
        1 => any::<prop::sample::Index>().prop_map(QueueOperation::Discard),
        1 => Just(QueueOperation::Rewind),
        1 => Just(QueueOperation::TakeGaps),
    ]
}

/// The queue as a plain list.
#[derive(Debug)]
struct ModelQueue {
    max_size: u64,
    on_full: OnFull,
    open: Vec<ModelEntry>,
    pushed: BTreeMap<TopicId, u64>,
    samples: SampleTotals,
    /// How often each number was delivered or announced as lost.
    settled: BTreeMap<(TopicId, u64), u32>,
}

#[derive(Clone, Debug)]
struct ModelEntry {
    topic: TopicId,
    seq: u64,
    entry: Entry,
    id: Option<EntryId>,
    handed_out: bool,
}

#[derive(Debug, Default, Eq, PartialEq)]
struct SampleTotals {
    produced: u64,
    delivered: u64,
    dropped: u64,
}

impl Default for ModelQueue {
    fn default() -> Self {
        Self {
            max_size: 0,
            on_full: OnFull::DropOldest,
            open: Vec::new(),
            pushed: BTreeMap::new(),
            samples: SampleTotals::default(),
            settled: BTreeMap::new(),
        }
    }
}

impl ModelQueue {
    fn check(&mut self, queue: &mut Queue<SimulatedDisk>, at: i64, operation: &QueueOperation) {
        match operation {
            QueueOperation::Record { topic, samples } => {
                self.push(queue, TopicId::new(*topic), record(at, *samples));
            }
            QueueOperation::Message { text } => self.push(queue, EVENTS, message(*text)),
            QueueOperation::Next => self.next(queue),
            QueueOperation::Acknowledge(pick) => {
                if let Some(open) = self.remove_handed_out(pick) {
                    queue.acknowledge(open.id.unwrap(), now());
                    self.samples.delivered += open.entry.sample_count();
                    *self.settled.entry((open.topic, open.seq)).or_default() += 1;
                }
            }
            QueueOperation::Discard(pick) => {
                if let Some(open) = self.remove_handed_out(pick) {
                    queue.discard(open.id.unwrap(), DropReason::Refused, now());
                    self.samples.dropped += open.entry.sample_count();
                }
            }
            QueueOperation::Rewind => {
                queue.rewind(now());
                self.open.iter_mut().for_each(|open| open.handed_out = false);
            }
            QueueOperation::TakeGaps => self.take_gaps(queue),
        }
        self.compare(queue);
    }

    fn push(&mut self, queue: &mut Queue<SimulatedDisk>, topic: TopicId, entry: Entry) {
        let next = self.pushed.entry(topic).or_default();
        let seq = *next;
        *next += 1;
        self.samples.produced += entry.sample_count();
        let mut after = self.open.clone();
        let mut lost = entry.sample_count();
        let mut fits = true;
        while after.iter().map(|open| open.entry.memory_bytes()).sum::<u64>() + entry.memory_bytes()
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
            let before: u64 = self.open.iter().map(|open| open.entry.sample_count()).sum();
            lost = before - after.iter().map(|open| open.entry.sample_count()).sum::<u64>();
            self.open = after;
            self.open.push(ModelEntry { topic, seq, entry, id, handed_out: false });
        }
        self.samples.dropped += lost;
    }

    fn victim(&self, open: &[ModelEntry], incoming: &Entry) -> Option<usize> {
        let for_message = matches!(incoming, Entry::Message(_));
        let is_record = |open: &ModelEntry| matches!(open.entry, Entry::Record(_));
        let waiting_record = |open: &ModelEntry| is_record(open) && !open.handed_out;
        let waiting_message = |open: &ModelEntry| !is_record(open) && !open.handed_out;
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

    fn next(&mut self, queue: &mut Queue<SimulatedDisk>) {
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

    fn remove_handed_out(&mut self, pick: &prop::sample::Index) -> Option<ModelEntry> {
        let handed_out: Vec<usize> =
            (0..self.open.len()).filter(|index| self.open[*index].handed_out).collect();
        (!handed_out.is_empty()).then(|| self.open.remove(*pick.get(&handed_out)))
    }

    fn take_gaps(&mut self, queue: &mut Queue<SimulatedDisk>) {
        for gap in queue.ledger.gaps.take() {
            for seq in gap.first_seq..=gap.last_seq {
                *self.settled.entry((gap.topic, seq)).or_default() += 1;
            }
        }
    }

    fn compare(&self, queue: &mut Queue<SimulatedDisk>) {
        queue.update_gauges();
        let stats = queue.stats();
        let bytes: u64 = self.open.iter().map(|open| open.entry.memory_bytes()).sum();
        let samples: u64 = self.open.iter().map(|open| open.entry.sample_count()).sum();
        assert_eq!((stats.samples, stats.bytes), (samples, bytes));
        assert!(stats.bytes <= self.max_size);
        assert_eq!(stats.entries, to_u64(self.open.len()));
        assert_eq!(stats.oldest, self.open.iter().find_map(|open| open.entry.at()));

        let metrics = &queue.metrics;
        let counted = SampleTotals {
            produced: metrics.produced.get(),
            delivered: metrics.delivered.get(),
            dropped: metrics.dropped(),
        };
        assert_eq!(counted, self.samples);
        assert_eq!(metrics.stored.get(), i64::try_from(samples).unwrap());
        assert_eq!(counted.produced, counted.delivered + counted.dropped + samples);
    }

    fn check_that_every_number_is_accounted_for(mut self, queue: &mut Queue<SimulatedDisk>) {
        self.take_gaps(queue);
        for open in &self.open {
            *self.settled.entry((open.topic, open.seq)).or_default() += 1;
        }
        let all = self.pushed.iter().flat_map(|(topic, n)| (0..*n).map(move |seq| (*topic, seq)));
        assert!(self.settled.into_iter().eq(all.map(|number| (number, 1))));
    }
}
