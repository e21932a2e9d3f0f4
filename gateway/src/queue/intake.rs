//! What comes in: it gets a number, is kept in memory, and is appended to the log as `durability`
//! requires.

use std::sync::Arc;
use std::time::Instant;

use provisioning::config::{Durability, OnFull};

use super::index::{Location, MemoryEntry};
use super::ledger::PendingAnnouncement;
use super::log::{AppendError, NewEntry};
use super::storage::Storage;
use super::{CACHE_BYTES, Entry, EntryId, Gap, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// What may be evicted from memory for an entry that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Evictable {
    Nothing,
    Telemetry,
    Anything,
}

impl<S: Storage> Queue<S> {
    /// Takes an entry and gives it the next number of its topic.
    ///
    /// Returns `None` when there is no room. The number is used up all the same, so that the
    /// receiver sees the gap. When the queue is full, telemetry is evicted as `on_full` says, for a
    /// message from either end; messages are evicted for messages only, and nothing that is handed
    /// out.
    pub fn push(&mut self, topic: TopicId, entry: Entry, now: Instant) -> Option<EntryId> {
        self.metrics.produced.inc_by(entry.sample_count());
        let evictable = match (&entry, self.on_full) {
            (Entry::Record(_), OnFull::DropNewest) => Evictable::Nothing,
            (Entry::Record(_), OnFull::DropOldest) => Evictable::Telemetry,
            (Entry::Message(_), OnFull::DropNewest) => Evictable::Telemetry,
            (Entry::Message(_), OnFull::DropOldest) => Evictable::Anything,
        };
        let fits = self.free_memory(entry.memory_bytes(), evictable);
        // Numbered even if it is dropped: the hole in `seq` shows the loss to the receiver.
        let (id, held) = self.new_entry(topic, entry, now);
        if !fits {
            self.drop_entry(&held, self.memory_drop_reason());
            return None;
        }
        self.store_entry(id, held, now);
        // A full log may have dropped it at once.
        self.index.get(id).is_some().then_some(EntryId::from_ticket(id))
    }

    /// Queues the events that announce what was lost since the last call, and returns the losses.
    ///
    /// Events need room and may have to wait for it: telemetry is evicted for them, messages are
    /// not. Call it while the broker takes messages, about once a second: neighbouring losses are
    /// joined in the meantime.
    pub fn announce_losses(&mut self, now: Instant) -> Vec<Gap> {
        self.announce_uncleans(now);
        // The log records a loss before an event announces it: the event may wait in memory while
        // higher numbers are written.
        self.record_losses(now);
        let is_writable = self.log.as_ref().is_some_and(super::Log::is_writable);
        let gaps = self.ledger.gaps.iter();
        let gaps = gaps.filter(|gap| !is_writable || !self.ledger.gaps.is_changed(gap));
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
                self.ledger.uncleans.retain(|other| *other != unclean);
                self.ledger.announced_by.push((id, PendingAnnouncement::Unclean(unclean)));
            }
        }
    }

    /// Queues an event, if there is room; otherwise no number is used up.
    fn push_announcement(&mut self, message: Message, now: Instant) -> Option<u64> {
        let entry = Entry::Message(message);
        // Before the number is taken: the event is tried again later and must leave no hole.
        if !self.free_memory(entry.memory_bytes(), Evictable::Telemetry) {
            return None;
        }
        let (id, held) = self.new_entry(self.events, entry, now);
        self.store_entry(id, held, now);
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
            self.append_up_to(Some(id), now);
        }
    }

    /// Appends everything to the log that is in memory only.
    pub(super) fn append_all(&mut self, now: Instant) {
        self.append_up_to(None, now);
    }

    /// Appends everything to the log that is in memory only, up to this id: ids rise along the log.
    pub(super) fn append_up_to(&mut self, last: Option<u64>, now: Instant) {
        let is_due = |id: &u64| last.is_none_or(|last| *id <= last);
        while let Some(id) = self.index.first_memory_only().filter(is_due) {
            if !self.log.as_ref().is_some_and(super::Log::is_writable) {
                return;
            }
            let pushed_at = self.index.get(id).and_then(|held| held.pushed_at);
            // How long it waited for room says nothing about the time that the device takes.
            let pushed_at = pushed_at.filter(|_| !self.health.is_memory_only()).unwrap_or(now);
            match self.append_entry(id) {
                Ok(()) => self.sync.on_appended(pushed_at),
                Err(AppendError::Full) => {
                    if !self.free_disk_space(id, now) {
                        return;
                    }
                }
                Err(AppendError::DiskFull) => return self.on_disk_full(now),
                // It waits in memory: evicting more would free nothing sooner.
                Err(AppendError::FullForNow) => return self.sync.request(),
                Err(error) => return self.on_append_error(error, now),
            }
        }
        self.trim_cache(CACHE_BYTES);
    }

    /// Removes copies of what is durable from memory, until no more than `max_bytes` are in use.
    pub(super) fn trim_cache(&mut self, max_bytes: u64) {
        let synced = self.log.as_ref().map_or(0, |log| log.durability().synced());
        self.index.trim_cache(max_bytes, synced);
    }

    fn append_entry(&mut self, id: u64) -> Result<(), AppendError> {
        let (Some(log), Some(held)) = (&mut self.log, self.index.get(id)) else { return Ok(()) };
        // A loss is recorded before higher numbers: after a crash everything below a known number
        // must be accounted for.
        if self.ledger.gaps.has_changed() {
            log.reserve_for_entry(&self.ledger, &held.entry)?;
            let gaps = self.ledger.take_losses();
            gaps.iter().try_for_each(|gap| log.append_loss(&self.ledger, gap))?;
        }
        let MemoryEntry { topic, seq, epoch, entry, .. } = held;
        let new = NewEntry { id, topic: *topic, seq: *seq, epoch, entry };
        let appended = log.append(&self.ledger, &new)?;
        if *held.epoch == *self.ledger.epoch {
            self.ledger.memory_only_seqs.remove(&(*topic, *seq));
        }
        let location = Location::Appended { bytes: appended.bytes, position: appended.position };
        self.index.set_location(id, location);
        Ok(())
    }

    /// Evicts entries from memory until `bytes` fit. Evicts nothing when they would not fit even
    /// then.
    fn free_memory(&mut self, bytes: u64, evictable: Evictable) -> bool {
        let (records, messages) = self.index.waiting_bytes();
        let evictable = match evictable {
            Evictable::Nothing => 0,
            Evictable::Telemetry => records,
            Evictable::Anything => records + messages,
        };
        if self.index.memory_bytes() + bytes > self.max_memory {
            self.trim_cache(self.max_memory.saturating_sub(bytes));
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

    /// Returns why there is no room in memory.
    const fn memory_drop_reason(&self) -> DropReason {
        if self.health.is_failing() { DropReason::Storage } else { DropReason::Full }
    }

    /// Returns whether the memory for entries that are nowhere else is nearly full. Not when it is
    /// full: evicting a segment takes a while, in which more entries come.
    pub(super) fn is_memory_short(&self) -> bool {
        self.index.memory_only().bytes > self.max_memory - self.max_memory / 8
    }

    /// Records that an entry is in memory only no more: it is in the log, settled or dropped.
    pub(super) fn forget_memory_only(&mut self, held: &MemoryEntry) {
        if *held.epoch == *self.ledger.epoch {
            self.ledger.memory_only_seqs.remove(&(held.topic, held.seq));
        }
    }

    /// Counts an entry as dropped, and records that the loss has to be announced.
    pub(super) fn drop_entry(&mut self, held: &MemoryEntry, reason: DropReason) {
        let gap = held.to_gap(reason);
        self.metrics.count_dropped(reason, gap.samples);
        self.forget_memory_only(held);
        self.ledger.gaps.add(gap);
        if let Entry::Message(message) = &held.entry {
            let announced =
                PendingAnnouncement::from_event(message, &held.epoch, &mut self.ledger.topics);
            announced.into_iter().for_each(|announced| self.ledger.requeue(announced));
        }
    }
}
