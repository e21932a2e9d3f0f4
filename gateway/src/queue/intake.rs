//! What comes in: numbered, kept in memory, and written to the log as durability wants it.

use std::sync::Arc;
use std::time::Instant;

use provisioning::config::{Durability, OnFull};

use super::index::{Location, MemoryEntry};
use super::ledger::PendingAnnouncement;
use super::log::{AppendError, NewEntry, StoredEntry};
use super::storage::Storage;
use super::{CACHE_BYTES, Entry, EntryId, Gap, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// What may be evicted for an entry that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Evictable {
    Nothing,
    Telemetry,
    Anything,
}

impl<S: Storage> Queue<S> {
    /// Takes an entry and gives it the next number of its topic.
    ///
    /// Returns nothing when there is no room; the number is spent all the same, so that the
    /// receiver sees the gap. When full, telemetry makes room as `on_full` says, for a message
    /// from either end; messages make room for messages only, and what is handed out stays.
    pub fn push(&mut self, topic: TopicId, entry: Entry, now: Instant) -> Option<EntryId> {
        self.metrics.produced.inc_by(entry.sample_count());
        let room = match (&entry, self.on_full) {
            (Entry::Record(_), OnFull::DropNewest) => Evictable::Nothing,
            (Entry::Record(_), OnFull::DropOldest) => Evictable::Telemetry,
            (Entry::Message(_), OnFull::DropNewest) => Evictable::Telemetry,
            (Entry::Message(_), OnFull::DropOldest) => Evictable::Anything,
        };
        let accepted = self.free_memory(entry.memory_bytes(), room);
        let (id, held) = self.new_entry(topic, entry, now);
        if accepted {
            self.store_entry(id, held, now);
        } else {
            self.drop_entry(&held, self.memory_drop_reason());
        }
        self.update_gauges();
        (accepted && self.index.get(id).is_some()).then_some(EntryId::from_ticket(id))
    }

    /// Queues the events that tell what was lost since the last call, and returns what they tell.
    ///
    /// Telling takes room and may have to wait for it: telemetry makes room, messages do not. Ask
    /// while the broker takes messages, and not more often than about once a second: runs grow
    /// together in the meantime.
    pub fn announce_losses(&mut self, now: Instant) -> Vec<Gap> {
        self.announce_uncleans(now);
        // The log knows a loss before an event tells it: the event may wait in memory while higher
        // numbers are written.
        self.record_losses(now);
        let is_written = self.log.as_ref().is_some_and(super::Log::is_writable);
        let gaps = self.ledger.gaps.iter();
        let gaps = gaps.filter(|gap| !is_written || !self.ledger.gaps.is_changed(gap));
        let gaps: Vec<Gap> = gaps.cloned().collect();
        gaps.into_iter().filter(|gap| self.announce_gap(gap, now)).collect()
    }

    pub(super) fn announce_gap(&mut self, gap: &Gap, now: Instant) -> bool {
        let topics = &self.ledger.topics;
        let (Some(events), Some(topic)) = (topics.name(self.events), topics.name(gap.topic)) else {
            return false;
        };
        let message = gap.to_event(events, topic);
        let Some(id) = self.push_announcement(message, now) else { return false };
        self.ledger.announced_by.push((id, PendingAnnouncement::Gap(gap.clone())));
        self.ledger.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
        true
    }

    pub(super) fn announce_uncleans(&mut self, now: Instant) {
        for unclean in self.ledger.uncleans.clone() {
            let Some(events) = self.ledger.topics.name(self.events) else { return };
            let message = unclean.to_event(events, &self.ledger.topics);
            if let Some(id) = self.push_announcement(message, now) {
                self.ledger.uncleans.retain(|told| *told != unclean);
                self.ledger.announced_by.push((id, PendingAnnouncement::Unclean(unclean)));
            }
        }
    }

    /// Without room no number is spent.
    fn push_announcement(&mut self, message: Message, now: Instant) -> Option<u64> {
        let entry = Entry::Message(message);
        if !self.free_memory(entry.memory_bytes(), Evictable::Telemetry) {
            return None;
        }
        let (id, held) = self.new_entry(self.events, entry, now);
        self.store_entry(id, held, now);
        self.update_gauges();
        Some(id)
    }

    fn new_entry(&mut self, topic: TopicId, entry: Entry, now: Instant) -> (u64, MemoryEntry) {
        let (id, seq) = self.ledger.next_number(topic);
        let held = MemoryEntry {
            topic,
            seq,
            epoch: Arc::clone(&self.ledger.epoch),
            entry,
            unmapped_samples: 0,
            location: Location::Memory,
            pushed_at: Some(now),
            handed_out_at: None,
            is_history: false,
        };
        (id, held)
    }

    fn store_entry(&mut self, id: u64, held: MemoryEntry, now: Instant) {
        let is_message = !held.is_record();
        self.ledger.memory_only_seqs.insert((held.topic, held.seq));
        self.index.insert(id, held);
        if self.durability != Durability::LowWear || is_message {
            self.append_up_to(id, now);
        }
    }

    /// Writes everything to the log that lies in memory alone, up to this id: ids rise along the
    /// log.
    pub(super) fn append_up_to(&mut self, last: u64, now: Instant) {
        while let Some(id) = self.index.first_memory_only().filter(|id| *id <= last) {
            if !self.log.as_ref().is_some_and(super::Log::is_writable) {
                return;
            }
            let since = self.index.get(id).and_then(|held| held.pushed_at).unwrap_or(now);
            match self.append_entry(id) {
                Ok(()) => self.deadlines.appended(since),
                Err(AppendError::Full) => {
                    if !self.free_disk_space(id, now) {
                        return;
                    }
                }
                // It waits in memory: giving up more would free nothing sooner.
                Err(AppendError::FullForNow) => return self.deadlines.request_sync(),
                Err(refusal) => return self.on_append_error(refusal, now),
            }
        }
        let synced = self.log.as_ref().map_or(0, super::Log::synced);
        self.index.trim_cache(CACHE_BYTES, synced);
    }

    fn append_entry(&mut self, id: u64) -> Result<(), AppendError> {
        // A number that was refused is written before the next one that is not.
        if let (Some(log), Some(held)) = (&mut self.log, self.index.get(id))
            && self.ledger.gaps.has_changed()
        {
            log.reserve_for_entry(&self.ledger, &held.entry)?;
            let gaps = self.ledger.take_losses();
            gaps.iter().try_for_each(|gap| log.append_loss(&self.ledger, gap))?;
        }
        let (Some(log), Some(held)) = (&mut self.log, self.index.get(id)) else { return Ok(()) };
        let MemoryEntry { topic, seq, epoch, entry, .. } = held;
        let item = NewEntry { id, topic: *topic, seq: *seq, epoch, entry };
        let appended = log.append(&self.ledger, &item)?;
        if *held.epoch == *self.ledger.epoch {
            self.ledger.memory_only_seqs.remove(&(*topic, *seq));
        }
        let place = Location::Logged { bytes: appended.bytes, position: appended.position };
        self.index.set_location(id, place);
        Ok(())
    }

    /// Evicts from memory until `bytes` fit. Evicts nothing when they would not fit even then.
    fn free_memory(&mut self, bytes: u64, room: Evictable) -> bool {
        let (records, messages) = self.index.waiting_bytes();
        let evictable = match room {
            Evictable::Nothing => 0,
            Evictable::Telemetry => records,
            Evictable::Anything => records + messages,
        };
        let synced = self.log.as_ref().map_or(0, super::Log::synced);
        if self.index.memory_bytes() + bytes > self.max_memory {
            self.index.trim_cache(self.max_memory.saturating_sub(bytes), synced);
        }
        if self.index.memory_bytes() - evictable + bytes > self.max_memory {
            return false;
        }
        while self.index.memory_bytes() + bytes > self.max_memory {
            let Some((_, victim)) = self.index.evict(self.on_full) else { return false };
            self.drop_entry(&victim, self.memory_drop_reason());
        }
        true
    }

    /// Why there is no room in memory.
    const fn memory_drop_reason(&self) -> DropReason {
        if self.health.is_failing() { DropReason::Storage } else { DropReason::Full }
    }

    /// This entry is not in memory alone any more.
    pub(super) fn forget_memory_only(&mut self, held: &MemoryEntry) {
        if *held.epoch == *self.ledger.epoch {
            self.ledger.memory_only_seqs.remove(&(held.topic, held.seq));
        }
    }

    /// Counts an entry that is gone, and remembers that it has to be told.
    pub(super) fn drop_entry(&mut self, held: &MemoryEntry, reason: DropReason) {
        let samples = held.entry.sample_count() + held.unmapped_samples;
        self.metrics.count_dropped(reason, samples);
        self.forget_memory_only(held);
        self.ledger.gaps.add(held.gap(reason));
        if let Entry::Message(message) = &held.entry {
            let told =
                PendingAnnouncement::from_event(message, &held.epoch, &mut self.ledger.topics);
            told.into_iter().for_each(|told| self.ledger.requeue(told));
        }
    }
}

impl MemoryEntry {
    pub(super) fn gap(&self, reason: DropReason) -> Gap {
        Gap {
            epoch: Arc::clone(&self.epoch),
            topic: self.topic,
            first_seq: self.seq,
            last_seq: self.seq,
            samples: self.entry.sample_count() + self.unmapped_samples,
            reason,
        }
    }
}

impl<C> StoredEntry<C> {
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
