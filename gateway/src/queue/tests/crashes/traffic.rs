//! What comes in, and what the consumer gets.

use super::*;

impl CrashTest {
    pub(super) fn push(&mut self) {
        let topic = TopicId::new(self.rng.u16(..TOPICS));
        let entry = match self.rng.u8(..8) {
            0 => message(self.rng.usize(..90)),
            _ => self.record(topic),
        };
        let topic = if matches!(entry, Entry::Message(_)) { EVENTS } else { topic };
        let now = self.now;
        let queue = self.queue.as_mut().unwrap();
        let seq = queue.ledger.next_seq.get(&topic).copied().unwrap_or(0);
        let number = (topic.number(), consumer::epoch(queue.epoch()), seq);
        let stored = |queue: &Queue<SimulatedDisk>| {
            queue.log.as_ref().map_or(0, |log| log.index().total().bytes)
        };
        let before = stored(queue);
        queue.push(topic, entry.clone(), now);
        // After a failure it is in memory again.
        let lost = before.saturating_sub(stored(queue));
        // What a start and events take of the reserve is given back at once.
        let is_little = lost <= MAX_SEGMENT + SEGMENT || queue.health().is_failing();
        assert!(is_little, "seed {}: one entry costs {lost} bytes", self.seed);
        self.pushed.insert(number, entry);
    }

    fn record(&mut self, topic: TopicId) -> Entry {
        let at = UnixTime::from_micros(self.rng.i64(..));
        let wide = if self.rng.u8(..9) == 0 { 60 } else { 8 };
        let samples = (0..self.rng.usize(1..wide)).map(|_| Sample {
            tag: self.rng.u16(..2),
            value: match self.rng.u8(..6) {
                0 => None,
                1 => Some(TagValue::Bool(true)),
                2 => Some(TagValue::Int(self.rng.i64(..))),
                3 => Some(TagValue::Real(1.5)),
                4 => Some(TagValue::Text(Arc::new("é".repeat(self.rng.usize(..9))))),
                _ => Some(TagValue::List(Arc::new(vec![None, Some(TagValue::Uint(7))]))),
            },
            quality: Quality::ALL[self.rng.usize(..Quality::ALL.len())],
            at: UnixTime::from_micros(self.rng.i64(..)),
        });
        let samples = samples.collect();
        Entry::Record(Record {
            plc: u16::try_from(topic.index()).unwrap(),
            at,
            clock: None,
            samples,
        })
    }

    /// Hands out entries. The consumer may get them although the acknowledgement is lost.
    pub(super) fn send(&mut self) {
        let now = self.now;
        for _ in 0..self.rng.usize(1..16) {
            let arrives = self.rng.bool();
            let Some(queued) = self.queue.as_mut().unwrap().next(now) else { return };
            let id = queued.id;
            if arrives {
                self.arrive(id);
            }
            self.in_flight.push(id);
        }
    }

    /// Lets the consumer get what is handed out under this id.
    pub(super) fn arrive(&mut self, id: EntryId) {
        let queue = self.queue.as_ref().unwrap();
        let held = queue.index.get(id.ticket()).unwrap();
        let topic = consumer::topic(queue.topic(held.topic).unwrap());
        let epoch = consumer::epoch(&held.epoch);
        let number = (topic, epoch, held.seq);
        if let Some(pushed) = self.pushed.get(&number) {
            assert_eq!(*pushed, held.entry, "seed {}: {number:?} changed", self.seed);
        } else {
            let Entry::Message(message) = &held.entry else {
                panic!("seed {}: {number:?} was invented", self.seed)
            };
            if self.is_tracing {
                let body = serde_json::to_string(&message.body).unwrap();
                println!("heard {epoch} {body} faulty {}", self.faulty);
            }
            self.consumer.on_message(message, epoch);
        }
        self.consumer.receive(number);
    }

    pub(super) fn pick_in_flight(&mut self) -> Option<EntryId> {
        let count = self.in_flight.len();
        (count > 0).then(|| self.in_flight.swap_remove(self.rng.usize(..count)))
    }

    pub(super) fn acknowledge(&mut self) {
        let now = self.now;
        for _ in 0..self.rng.usize(1..16) {
            let Some(id) = self.pick_in_flight() else { return };
            self.arrive(id);
            self.queue().acknowledge(id, now);
        }
    }
}
