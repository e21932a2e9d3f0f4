//! What comes in, and what the far end gets and hears.

use super::*;

impl World {
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
        let number = (queue.topic(topic).unwrap().to_string(), queue.epoch().to_string(), seq);
        queue.push(topic, entry.clone(), now);
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
        Entry::Record(Record { plc: u16::try_from(topic.index()).unwrap(), at, samples })
    }

    /// Hands out, and the far end may get it whatever happens to the acknowledgement.
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

    /// The far end gets what is handed out under this id.
    pub(super) fn arrive(&mut self, id: Id) {
        let queue = self.queue.as_ref().unwrap();
        let held = queue.ring.get(id.ticket()).unwrap();
        let topic = queue.topic(held.topic).unwrap().to_string();
        let (epoch, seq, entry) = (held.epoch.to_string(), held.seq, held.entry.clone());
        let number = (topic, epoch.clone(), seq);
        if let Some(pushed) = self.pushed.get(&number) {
            assert_eq!(*pushed, entry, "seed {}: {number:?} changed", self.seed);
        } else {
            let Entry::Message(message) = &entry else {
                panic!("seed {}: {number:?} was invented", self.seed)
            };
            self.hear(message, &epoch);
        }
        self.received.insert(number);
    }

    fn hear(&mut self, message: &Message, epoch: &str) {
        if self.traces {
            println!(
                "heard {epoch} {} faulty {}",
                serde_json::to_string(&message.body).unwrap(),
                self.faulty
            );
        }
        if let Some(gap) = Announcement::parse(&message.body) {
            let epoch = gap.epoch.unwrap_or_else(|| epoch.to_owned());
            for seq in gap.first_seq..=gap.last_seq {
                self.announced.insert((gap.topic.clone(), epoch.clone(), seq));
            }
        }
        if let Some(start) = UncleanStart::parse(&message.body) {
            self.windows.insert(start.epoch, start.next_seq);
        }
    }

    pub(super) fn pick_in_flight(&mut self) -> Option<Id> {
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
