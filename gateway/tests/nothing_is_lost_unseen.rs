//! Queue, payload and audit agree: with any faults of broker and connection, every sample is
//! delivered, stored or counted as dropped, and a receiver can prove it from the numbers alone.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

#[path = "../src/testing.rs"]
mod testing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway::audit::Auditor;
use gateway::metrics::{DropReason, Metrics, QueueMetrics};
use gateway::model::{Quality, Record, Sample, UnixTime, Value};
use gateway::payload::{Encoder, MessageStamp, encode_message};
use gateway::queue::{ConfigNames, Entry, EntryId, GapEvent, Queue, QueueIdentity, TopicId};
use proptest::prelude::*;
use proptest::sample::Index;
use provisioning::config::{self, OnFull};

const TOPICS: [&str; 3] =
    ["edge/amsterdam-01/data/plc0", "edge/amsterdam-01/data/plc1", "edge/amsterdam-01/event"];
const EVENTS: u16 = 2;
const WINDOW: usize = 4;

proptest! {
    #[test]
    fn the_audit_accounts_for_every_message_after_any_history(
        drop_oldest: bool,
        max_size in 1500..6000_u64,
        happenings in prop::collection::vec(happening(), 1..120),
    ) {
        let mut world = World::new(drop_oldest, max_size);
        for happening in &happenings {
            world.happens(happening);
        }
        world.drain();

        let auditor = audit(&world.received);
        prop_assert_eq!(auditor.unaccounted(), 0, "{}", auditor.report());
        let metrics = &world.metrics;
        prop_assert_eq!(metrics.stored.get(), 0);
        prop_assert_eq!(metrics.produced.get(), metrics.delivered.get() + metrics.dropped());
        let announced: u64 =
            auditor.report().streams.iter().map(|stream| stream.announced_samples).sum();
        // More when an announcement arrived, was taken for lost, and was made again.
        prop_assert!(announced >= metrics.dropped());
    }

    #[test]
    fn the_audit_finds_any_message_that_vanishes_on_the_way(
        drop_oldest: bool,
        max_size in 1500..6000_u64,
        happenings in prop::collection::vec(happening(), 1..120),
        pick: Index,
    ) {
        let mut world = World::new(drop_oldest, max_size);
        for happening in &happenings {
            world.happens(happening);
        }
        world.drain();
        let candidates = arrived_once_with_others_around(&world.received);
        prop_assume!(!candidates.is_empty());

        world.received.remove(*pick.get(&candidates));

        prop_assert!(audit(&world.received).unaccounted() >= 1);
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Cycle {
        plc: u16,
        samples: usize,
    },
    Send,
    Acknowledge(Index),
    Refuse(Index),
    /// The connection breaks; of what was sent, this many messages had reached the broker.
    Breaks(Index),
    Announce,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0..2_u16, 1..5_usize).prop_map(|(plc, samples)| Happening::Cycle { plc, samples }),
        6 => Just(Happening::Send),
        5 => any::<Index>().prop_map(Happening::Acknowledge),
        1 => any::<Index>().prop_map(Happening::Refuse),
        1 => any::<Index>().prop_map(Happening::Breaks),
        1 => Just(Happening::Announce),
    ]
}

/// A queue, a connection that breaks, and what came out at the far end.
struct World {
    queue: Queue,
    metrics: QueueMetrics,
    encoder: Encoder,
    in_flight: VecDeque<(EntryId, Received)>,
    received: Vec<Received>,
}

type Received = (&'static str, Vec<u8>);

impl World {
    fn new(drop_oldest: bool, max_size: u64) -> Self {
        let on_full = if drop_oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let config = testing::config(1);
        let settings = config::Queue { max_size, on_full, ..testing::queue() };
        let identity = QueueIdentity {
            names: ConfigNames { topics: TOPICS.map(Arc::from).to_vec(), plcs: Vec::new() },
            events: TopicId::new(EVENTS),
            epoch: "k3f9".into(),
            boot: String::new(),
        };
        let metrics = Metrics::new(&config, "0").expect("names are unique").queue;
        Self {
            queue: Queue::in_memory(&settings, identity, metrics.clone()),
            metrics,
            encoder: Encoder::new(&config.gateway, &config.plcs[0]),
            in_flight: VecDeque::new(),
            received: Vec::new(),
        }
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Cycle { plc, samples } => {
                self.queue.push(TopicId::new(*plc), record(*samples), now());
            }
            Happening::Send => self.send(),
            Happening::Acknowledge(pick) => {
                if let Some((id, message)) = self.pick_in_flight(pick) {
                    self.received.push(message);
                    self.queue.acknowledge(id, now());
                }
            }
            Happening::Refuse(pick) => {
                if let Some((id, _)) = self.pick_in_flight(pick) {
                    self.queue.discard(id, DropReason::Refused, now());
                }
            }
            Happening::Breaks(reached) => {
                let reached = reached.index(self.in_flight.len() + 1);
                let sent = std::mem::take(&mut self.in_flight);
                self.received.extend(sent.into_iter().take(reached).map(|(_, message)| message));
                self.queue.rewind(now());
            }
            Happening::Announce => {
                self.announce();
            }
        }
    }

    fn send(&mut self) {
        if self.in_flight.len() == WINDOW {
            return;
        }
        let sent = self.queue.hand_out(now(), |queued| {
            let seq = queued.seq;
            let stamp = MessageStamp { epoch: "k3f9", seq, history: false, corrected: false };
            let payload = match queued.entry {
                Entry::Record(record) => self.encoder.encode(record, &stamp),
                Entry::Message(message) => encode_message("amsterdam-01", message, &stamp),
            };
            Ok((queued.id, (TOPICS[queued.topic.index()], payload)))
        });
        self.in_flight.extend(sent.transpose().expect("every topic is known"));
    }

    fn pick_in_flight(&mut self, pick: &Index) -> Option<(EntryId, Received)> {
        let count = self.in_flight.len();
        (count > 0).then(|| self.in_flight.remove(pick.index(count)))?
    }

    fn announce(&mut self) -> bool {
        !self.queue.announce_losses(now()).is_empty()
    }

    /// Accepts everything as the broker from now on, until every gap is announced.
    fn drain(&mut self) {
        loop {
            while !self.queue.is_empty() {
                self.send();
                let first = self.in_flight.pop_front().expect("what is open can be sent");
                self.received.push(first.1);
                self.queue.acknowledge(first.0, now());
            }
            if !self.announce() {
                break;
            }
        }
    }
}

fn now() -> Instant {
    Instant::now()
}

fn record(samples: usize) -> Entry {
    let at = UnixTime::from_micros(0);
    let sample = Sample { tag: 0, value: Some(Value::Int(7)), quality: Quality::Good, at };
    Entry::Record(Record { plc: 0, at, clock: None, samples: vec![sample; samples] })
}

fn audit(received: &[Received]) -> Auditor {
    let mut auditor = Auditor::default();
    received.iter().for_each(|(topic, payload)| auditor.on_message(topic, payload));
    auditor
}

/// Returns what arrived once and was not announced as lost, behind the first and before the last
/// number of its topic: a receiver cannot know what came before it listened, or what is on its way.
fn arrived_once_with_others_around(received: &[Received]) -> Vec<usize> {
    let numbers: Vec<(&str, u64)> =
        received.iter().map(|(topic, payload)| (*topic, seq(payload))).collect();
    let is_inside = |(topic, seq): &(&str, u64)| {
        let mut same = numbers.iter().filter(|(other, _)| other == topic);
        let first = same.clone().next().is_some_and(|(_, first)| first < seq);
        first && same.any(|(_, other)| other > seq)
    };
    let arrived_once = |number| numbers.iter().filter(|other| *other == number).count() == 1;
    let announced = announced(received);
    let unannounced = |(topic, seq): &(&str, u64)| {
        !announced
            .iter()
            .any(|gap| gap.topic == *topic && (gap.first_seq..=gap.last_seq).contains(seq))
    };
    (0..numbers.len())
        .filter(|index| is_inside(&numbers[*index]) && arrived_once(&numbers[*index]))
        .filter(|index| unannounced(&numbers[*index]))
        .collect()
}

fn announced(received: &[Received]) -> Vec<GapEvent> {
    let body = |payload: &[u8]| serde_json::from_slice(payload).expect("payloads are JSON");
    received.iter().filter_map(|(_, payload)| GapEvent::parse(&body(payload))).collect()
}

fn seq(payload: &[u8]) -> u64 {
    let message: serde_json::Value = serde_json::from_slice(payload).expect("payloads are JSON");
    message["gateway"]["seq"].as_u64().expect("payloads are stamped")
}
