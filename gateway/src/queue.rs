//! Store-and-forward of records: keeps what the broker has not acknowledged.
//!
//! This queue lives in memory and holds the place of a log on disk. Two things hold at every
//! moment: the samples produced are those delivered, stored and dropped together, and every
//! sequence number that will not be delivered is in a [`Gap`].

mod entry;
mod gap;
mod id;
mod lane;

use std::collections::{BTreeMap, HashMap};

use provisioning::config::{self, OnFull};

pub use self::entry::Entry;
use self::gap::Gaps;
pub use self::gap::{Announcement, Gap};
pub use self::id::{Id, TopicId};
use self::lane::{End, Lane, Stored};
use crate::metrics::{DropReason, QueueMetrics};
use crate::model::{Message, UnixTime};

/// An entry that is handed out for sending.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// What [`MemoryQueue::acknowledge`] and [`MemoryQueue::discard`] want back.
    pub id: Id,
    /// Where it goes.
    pub topic: TopicId,
    /// Its number among the entries of its topic, from 0.
    pub seq: u64,
    /// What is sent.
    pub entry: &'a Entry,
}

/// What is open: waiting, or handed out and not acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Samples.
    pub samples: u64,
    /// Records and messages.
    pub entries: u64,
    /// Estimated memory, in the sense of [`Entry::bytes`].
    pub bytes: u64,
    /// When the first record in line was read.
    pub oldest: Option<UnixTime>,
}

/// Bounded queue in memory. Every operation is O(1) amortised, apart from the logarithm of how
/// many entries are handed out at once.
#[derive(Debug)]
pub struct MemoryQueue {
    max_bytes: u64,
    on_full: OnFull,
    telemetry: Lane,
    messages: Lane,
    next_id: u64,
    next_seq: HashMap<TopicId, u64>,
    gaps: Gaps,
    /// Gaps whose announcement is open.
    announcing: BTreeMap<Id, Gap>,
    samples: u64,
    bytes: u64,
    metrics: QueueMetrics,
}

/// What may be evicted for an entry that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Room {
    Free,
    Telemetry,
    Anything,
}

impl MemoryQueue {
    /// An empty queue that holds at most `config.max_size` bytes.
    #[must_use]
    pub fn new(config: &config::Queue, metrics: QueueMetrics) -> Self {
        Self {
            max_bytes: config.max_size,
            on_full: config.on_full,
            telemetry: Lane::default(),
            messages: Lane::default(),
            next_id: 0,
            next_seq: HashMap::new(),
            gaps: Gaps::default(),
            announcing: BTreeMap::new(),
            samples: 0,
            bytes: 0,
            metrics,
        }
    }

    /// Takes an entry and gives it the next number of its topic.
    ///
    /// Returns nothing when there is no room; the number is spent all the same, so that the
    /// receiver sees the gap. When full, telemetry makes room as `on_full` says, for a message
    /// from either end; messages make room for messages only, and what is handed out stays.
    pub fn push(&mut self, topic: TopicId, entry: Entry) -> Option<Id> {
        self.metrics.produced.inc_by(entry.samples());
        let room = match (&entry, self.on_full) {
            (Entry::Record(_), OnFull::DropNewest) => Room::Free,
            (Entry::Record(_), OnFull::DropOldest) => Room::Telemetry,
            (Entry::Message(_), OnFull::DropNewest) => Room::Telemetry,
            (Entry::Message(_), OnFull::DropOldest) => Room::Anything,
        };
        let accepted = self.make_room(entry.bytes(), room);
        let stored = self.number(topic, entry);
        let id = stored.id;
        if accepted {
            self.store(stored);
        } else {
            self.lose(&stored, DropReason::Full);
        }
        self.show();
        accepted.then_some(id)
    }

    /// Takes the message that tells a gap. A gap whose message is lost, now or later, comes back
    /// from [`MemoryQueue::take_gaps`].
    ///
    /// Telemetry makes room for it, other messages do not; without room no number is spent.
    pub fn announce(&mut self, gap: Gap, events: TopicId, message: Message) -> Option<Id> {
        let entry = Entry::Message(message);
        if !self.make_room(entry.bytes(), Room::Telemetry) {
            self.gaps.add(gap);
            return None;
        }
        let stored = self.number(events, entry);
        let id = stored.id;
        self.announcing.insert(id, gap);
        self.store(stored);
        self.show();
        Some(id)
    }

    /// Hands out the oldest entry that was not handed out since the last rewind.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Option<Queued<'_>> {
        let lane = match (self.telemetry.next_id(), self.messages.next_id()) {
            (Some(record), Some(message)) if message < record => &mut self.messages,
            (None, Some(_)) => &mut self.messages,
            (_, _) => &mut self.telemetry,
        };
        let Stored { id, topic, seq, entry, .. } = lane.hand_out()?;
        Some(Queued { id: *id, topic: *topic, seq: *seq, entry })
    }

    /// Removes an entry that the broker took, in any order.
    ///
    /// Does nothing for an entry that is not handed out: after a rewind it is sent again, and the
    /// acknowledgement that counts is the one for that.
    pub fn acknowledge(&mut self, id: Id) {
        if let Some(stored) = self.take(id) {
            self.announcing.remove(&id);
            self.metrics.delivered.inc_by(stored.entry.samples());
            self.show();
        }
    }

    /// Gives an entry up that was handed out. It is counted and becomes part of a [`Gap`].
    pub fn discard(&mut self, id: Id, reason: DropReason) {
        if let Some(stored) = self.take(id) {
            self.lose(&stored, reason);
            self.show();
        }
    }

    /// Hands everything open out again, oldest first: the connection was lost.
    pub fn rewind(&mut self) {
        self.telemetry.rewind();
        self.messages.rewind();
    }

    /// What was lost since the last call, by topic and number.
    ///
    /// Telling them takes room in the queue and may be refused in turn: ask while the broker takes
    /// messages, and not more often than about once a second.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.gaps.take()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stats().entries == 0
    }

    /// What is open.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            samples: self.samples,
            entries: to_u64(self.telemetry.len() + self.messages.len()),
            bytes: self.bytes,
            oldest: self.telemetry.oldest().and_then(|stored| stored.entry.at()),
        }
    }

    fn number(&mut self, topic: TopicId, entry: Entry) -> Stored {
        let id = Id::from_ticket(self.next_id);
        self.next_id += 1;
        let next_seq = self.next_seq.entry(topic).or_insert(0);
        let seq = *next_seq;
        *next_seq += 1;
        Stored { id, topic, seq, bytes: entry.bytes(), entry }
    }

    /// Evicts until `bytes` fit. Evicts nothing when they would not fit even then.
    fn make_room(&mut self, bytes: u64, room: Room) -> bool {
        let evictable = match room {
            Room::Free => 0,
            Room::Telemetry => self.telemetry.waiting_bytes(),
            Room::Anything => self.telemetry.waiting_bytes() + self.messages.waiting_bytes(),
        };
        if self.bytes - evictable + bytes > self.max_bytes {
            return false;
        }
        let end = match self.on_full {
            OnFull::DropOldest => End::Oldest,
            OnFull::DropNewest => End::Newest,
        };
        while self.bytes + bytes > self.max_bytes {
            let victim = self.telemetry.evict(end).or_else(|| self.messages.evict(end));
            let Some(victim) = victim else { return false };
            self.forget(&victim);
            self.lose(&victim, DropReason::Full);
        }
        true
    }

    fn store(&mut self, stored: Stored) {
        self.samples += stored.entry.samples();
        self.bytes += stored.bytes;
        match stored.entry {
            Entry::Record(_) => self.telemetry.push(stored),
            Entry::Message(_) => self.messages.push(stored),
        }
    }

    fn take(&mut self, id: Id) -> Option<Stored> {
        let stored = self.telemetry.take(id).or_else(|| self.messages.take(id))?;
        self.forget(&stored);
        Some(stored)
    }

    fn forget(&mut self, stored: &Stored) {
        self.samples -= stored.entry.samples();
        self.bytes -= stored.bytes;
    }

    fn lose(&mut self, stored: &Stored, reason: DropReason) {
        let samples = stored.entry.samples();
        self.metrics.count_dropped(reason, samples);
        let (topic, seq) = (stored.topic, stored.seq);
        self.gaps.add(Gap { topic, first_seq: seq, last_seq: seq, samples, reason });
        if let Some(untold) = self.announcing.remove(&stored.id) {
            self.gaps.add(untold);
        }
    }

    fn show(&self) {
        let stats = self.stats();
        self.metrics.stored.set(i64::try_from(stats.samples).unwrap_or(i64::MAX));
        self.metrics.bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        self.metrics.oldest.set(stats.oldest.map_or(0.0, UnixTime::as_seconds));
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
