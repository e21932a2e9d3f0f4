//! What comes in: numbered, kept in memory, and written to the log as durability wants it.

use std::sync::Arc;
use std::time::Instant;

use provisioning::config::{Durability, OnFull};

use super::ledger::Untold;
use super::log::{Found, Item, Refusal};
use super::ring::{Held, Place};
use super::storage::Storage;
use super::{CACHE, Entry, Gap, Id, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// What may be evicted for an entry that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Room {
    Free,
    Telemetry,
    Anything,
}

impl<S: Storage> Queue<S> {
    /// Takes an entry and gives it the next number of its topic.
    ///
    /// Returns nothing when there is no room; the number is spent all the same, so that the
    /// receiver sees the gap. When full, telemetry makes room as `on_full` says, for a message
    /// from either end; messages make room for messages only, and what is handed out stays.
    pub fn push(&mut self, topic: TopicId, entry: Entry, now: Instant) -> Option<Id> {
        self.metrics.produced.inc_by(entry.samples());
        let room = match (&entry, self.on_full) {
            (Entry::Record(_), OnFull::DropNewest) => Room::Free,
            (Entry::Record(_), OnFull::DropOldest) => Room::Telemetry,
            (Entry::Message(_), OnFull::DropNewest) => Room::Telemetry,
            (Entry::Message(_), OnFull::DropOldest) => Room::Anything,
        };
        let accepted = self.make_room(entry.bytes(), room);
        let (id, held) = self.number(topic, entry, now);
        if accepted {
            self.keep(id, held, now);
        } else {
            self.lose(&held, self.reason());
        }
        self.show();
        (accepted && self.ring.get(id).is_some()).then_some(Id::from_ticket(id))
    }

    /// Queues the events that tell what was lost since the last call, and returns what they tell.
    ///
    /// Telling takes room and may have to wait for it: telemetry makes room, messages do not. Ask
    /// while the broker takes messages, and not more often than about once a second: runs grow
    /// together in the meantime.
    pub fn tell(&mut self, now: Instant) -> Vec<Gap> {
        self.tell_uncleans(now);
        // The log knows a loss before an event tells it: the event may wait in memory while higher
        // numbers are written.
        self.write_losses(now);
        let is_written = self.log.as_ref().is_some_and(super::Log::is_writable);
        let gaps = self.ledger.gaps.iter();
        let gaps = gaps.filter(|gap| !is_written || !self.ledger.gaps.is_changed(gap));
        let gaps: Vec<Gap> = gaps.cloned().collect();
        gaps.into_iter().filter(|gap| self.tell_gap(gap, now)).collect()
    }

    pub(super) fn tell_gap(&mut self, gap: &Gap, now: Instant) -> bool {
        let topics = &self.ledger.topics;
        let (Some(events), Some(topic)) = (topics.name(self.events), topics.name(gap.topic)) else {
            return false;
        };
        let message = gap.announce(events, topic);
        let Some(id) = self.announce(message, now) else { return false };
        self.ledger.pending.push((id, Untold::Gap(gap.clone())));
        self.ledger.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
        true
    }

    pub(super) fn tell_uncleans(&mut self, now: Instant) {
        for unclean in self.ledger.uncleans.clone() {
            let Some(events) = self.ledger.topics.name(self.events) else { return };
            let message = unclean.announce(events, &self.ledger.topics);
            if let Some(id) = self.announce(message, now) {
                self.ledger.uncleans.retain(|told| *told != unclean);
                self.ledger.pending.push((id, Untold::Unclean(unclean)));
            }
        }
    }

    /// Without room no number is spent.
    fn announce(&mut self, message: Message, now: Instant) -> Option<u64> {
        let entry = Entry::Message(message);
        if !self.make_room(entry.bytes(), Room::Telemetry) {
            return None;
        }
        let (id, held) = self.number(self.events, entry, now);
        self.keep(id, held, now);
        self.show();
        Some(id)
    }

    fn number(&mut self, topic: TopicId, entry: Entry, now: Instant) -> (u64, Held) {
        let (id, seq) = self.ledger.number(topic);
        let held = Held {
            topic,
            seq,
            epoch: Arc::clone(&self.ledger.epoch),
            entry,
            homeless: 0,
            place: Place::Memory,
            since: Some(now),
            sent: None,
            is_history: false,
        };
        (id, held)
    }

    fn keep(&mut self, id: u64, held: Held, now: Instant) {
        let is_message = !held.is_record();
        self.ledger.unstored.insert((held.topic, held.seq));
        self.ring.insert(id, held);
        if self.durability != Durability::LowWear || is_message {
            self.write_up_to(id, now);
        }
    }

    /// Writes everything to the log that lies in memory alone, up to this id: ids rise along the
    /// log.
    pub(super) fn write_up_to(&mut self, last: u64, now: Instant) {
        while let Some(id) = self.ring.first_unstored().filter(|id| *id <= last) {
            if !self.log.as_ref().is_some_and(super::Log::is_writable) {
                return;
            }
            let since = self.ring.get(id).and_then(|held| held.since).unwrap_or(now);
            match self.write(id) {
                Ok(()) => self.deadlines.appended(since),
                Err(Refusal::Full) => {
                    if !self.make_room_on_disk(id, now) {
                        return;
                    }
                }
                // It waits in memory: giving up more would free nothing sooner.
                Err(Refusal::Soon) => return self.deadlines.sync_at_once(),
                Err(refusal) => return self.refused(refusal, now),
            }
        }
        let synced = self.log.as_ref().map_or(0, super::Log::synced);
        self.ring.trim(CACHE, synced);
    }

    fn write(&mut self, id: u64) -> Result<(), Refusal> {
        // A number that was refused is written before the next one that is not.
        if let (Some(log), Some(held)) = (&mut self.log, self.ring.get(id))
            && self.ledger.gaps.has_changed()
        {
            log.admit_entry(&self.ledger, &held.entry)?;
            let gaps = self.ledger.take_losses();
            gaps.iter().try_for_each(|gap| log.lost(&self.ledger, gap))?;
        }
        let (Some(log), Some(held)) = (&mut self.log, self.ring.get(id)) else { return Ok(()) };
        let Held { topic, seq, epoch, entry, .. } = held;
        let item = Item { id, topic: *topic, seq: *seq, epoch, entry };
        let appended = log.append(&self.ledger, &item)?;
        if *held.epoch == *self.ledger.epoch {
            self.ledger.unstored.remove(&(*topic, *seq));
        }
        let place = Place::Logged { bytes: appended.bytes, position: appended.position };
        self.ring.place(id, place);
        Ok(())
    }

    /// Evicts from memory until `bytes` fit. Evicts nothing when they would not fit even then.
    fn make_room(&mut self, bytes: u64, room: Room) -> bool {
        let (records, messages) = self.ring.waiting();
        let evictable = match room {
            Room::Free => 0,
            Room::Telemetry => records,
            Room::Anything => records + messages,
        };
        let synced = self.log.as_ref().map_or(0, super::Log::synced);
        if self.ring.memory() + bytes > self.memory {
            self.ring.trim(self.memory.saturating_sub(bytes), synced);
        }
        if self.ring.memory() - evictable + bytes > self.memory {
            return false;
        }
        while self.ring.memory() + bytes > self.memory {
            let Some((_, victim)) = self.ring.evict(self.on_full) else { return false };
            self.lose(&victim, self.reason());
        }
        true
    }

    /// Why there is no room in memory.
    const fn reason(&self) -> DropReason {
        if self.health.is_failing() { DropReason::Storage } else { DropReason::Full }
    }

    /// This entry is not in memory alone any more.
    pub(super) fn stored_or_gone(&mut self, held: &Held) {
        if *held.epoch == *self.ledger.epoch {
            self.ledger.unstored.remove(&(held.topic, held.seq));
        }
    }

    /// Counts an entry that is gone, and remembers that it has to be told.
    pub(super) fn lose(&mut self, held: &Held, reason: DropReason) {
        let samples = held.entry.samples() + held.homeless;
        self.metrics.count_dropped(reason, samples);
        self.stored_or_gone(held);
        self.ledger.gaps.add(held.gap(reason));
        if let Entry::Message(message) = &held.entry {
            let told = Untold::told_by(message, &held.epoch, &mut self.ledger.topics);
            told.into_iter().for_each(|told| self.ledger.tell_again(told));
        }
    }
}

impl Held {
    pub(super) fn gap(&self, reason: DropReason) -> Gap {
        Gap {
            epoch: Arc::clone(&self.epoch),
            topic: self.topic,
            first_seq: self.seq,
            last_seq: self.seq,
            samples: self.entry.samples() + self.homeless,
            reason,
        }
    }
}

impl<C> Found<C> {
    pub(super) fn gap(&self, reason: DropReason) -> Gap {
        Gap {
            epoch: Arc::clone(&self.epoch),
            topic: self.topic,
            first_seq: self.seq,
            last_seq: self.seq,
            samples: self.samples,
            reason,
        }
    }
}
