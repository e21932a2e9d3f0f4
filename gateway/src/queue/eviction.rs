//! A full log: what is dropped. One segment is evicted for one segment begun: an eviction has to
//! become durable before its file can be used, and until then nothing more is evicted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Durability, OnFull};

use super::index::{Location, MemoryEntry};
use super::ledger::PendingAnnouncement;
use super::log::SegmentKind;
use super::storage::Storage;
use super::{Entry, Health, Log, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// A device that has not answered for this long is not read for an eviction.
const STALL_THRESHOLD: Duration = Duration::from_millis(100);
/// How often a start waits for files to become free: more often than memory has segments.
const MAX_DRAIN_ROUNDS: u32 = 8;

/// Topic, number and epoch of a message of an evicted segment, and the message.
type RelocatedMessage = (TopicId, u64, Arc<str>, Message);

/// What to do with the event messages of an evicted segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MessagePolicy {
    /// Move them to the end of the log.
    Move,
    /// Drop them: the log holds nothing else.
    Drop,
}

impl<S: Storage> Queue<S> {
    /// Frees space in the full log for the entry with this id, or drops it. Returns whether it
    /// makes sense to go on.
    pub(super) fn free_disk_space(&mut self, id: u64, now: Instant) -> bool {
        if self.is_device_stalled(now) {
            return false;
        }
        let Some(held) = self.index.get(id) else { return false };
        let (is_record, is_handed_out) = (held.is_record(), held.handed_out_at.is_some());
        if self.compact(now) {
            return true;
        }
        let is_refused = is_record && self.on_full == OnFull::DropNewest;
        if !is_refused && self.evict_telemetry(now) {
            return true;
        }
        let has_telemetry = self.log.as_ref().is_some_and(|log| log.index().total().samples > 0);
        if is_refused || is_record && !has_telemetry {
            // What is handed out may already be with the broker: it waits in memory.
            if !is_handed_out && let Some(held) = self.index.remove(id) {
                self.drop_entry(&held, DropReason::Full);
            }
            return !is_handed_out;
        }
        let may_evict = !is_record && !has_telemetry && self.on_full == OnFull::DropOldest;
        may_evict && self.evict_oldest(now)
    }

    /// Returns whether the device has not answered for a while. An eviction reads a segment on this
    /// thread, which must not wait for it.
    fn is_device_stalled(&self, now: Instant) -> bool {
        let since = self.log.as_ref().and_then(|log| log.durability().waiting_since());
        since.is_some_and(|since| now >= since + STALL_THRESHOLD)
    }

    /// Records that the file system has no room for the next entry. It waits in memory: what is
    /// stored is evicted only when memory has no room either.
    pub(super) fn on_disk_full(&mut self, now: Instant) {
        if !self.health.is_failing() {
            self.set_health(Health::DiskFullMemoryOnly);
        }
        if let Some(log) = &mut self.log {
            log.mark_failing();
        }
        if !self.is_device_stalled(now)
            && !self.compact_within_tail(now)
            && self.on_full == OnFull::DropOldest
            && self.is_memory_short()
        {
            self.evict_telemetry(now);
        }
    }

    /// Evicts the telemetry of the oldest segment that has any, or of the newest where new samples
    /// are dropped. Its messages move to the end of the log.
    pub(super) fn evict_telemetry(&mut self, now: Instant) -> bool {
        let victim = self.find_victim(self.on_full, |kind| kind == SegmentKind::Telemetry);
        victim.is_some_and(|number| self.evict_segment(number, MessagePolicy::Move, now))
    }

    /// Frees a segment in which a few messages have outlived everything else: they move.
    fn compact(&mut self, now: Instant) -> bool {
        let victim = self.find_compactable();
        victim.is_some_and(|number| self.evict_segment(number, MessagePolicy::Move, now))
    }

    /// As [`Queue::compact`], if the messages fit into the segment being written: without room on
    /// the disk they would be in memory only.
    fn compact_within_tail(&mut self, now: Instant) -> bool {
        let (Some(number), Some(log)) = (self.find_compactable(), &self.log) else { return false };
        log.has_message_room(log.index().waiting_bytes(number))
            && self.evict_segment(number, MessagePolicy::Move, now)
    }

    fn find_compactable(&self) -> Option<u64> {
        self.find_victim(OnFull::DropOldest, |kind| kind == SegmentKind::FewMessages)
    }

    fn evict_oldest(&mut self, now: Instant) -> bool {
        let victim = self.find_victim(OnFull::DropOldest, |_| true);
        victim.is_some_and(|number| self.evict_segment(number, MessagePolicy::Drop, now))
    }

    /// Returns the first sealed segment from this end of which no entry is handed out.
    fn find_victim(&self, end: OnFull, is_wanted: impl Fn(SegmentKind) -> bool) -> Option<u64> {
        let log = self.log.as_ref()?;
        let may_go = |(number, kind): &(u64, SegmentKind)| {
            is_wanted(*kind) && !self.index.has_handed_out(log.index().id_range(*number))
        };
        let mut segments = log.index().sealed();
        let victim = match end {
            OnFull::DropOldest => segments.find(may_go),
            OnFull::DropNewest => segments.rfind(may_go),
        };
        victim.map(|(number, _)| number)
    }

    /// Appends everything that is in memory only, and waits for the files that it needs.
    pub(super) fn write_all(&mut self, now: Instant) {
        self.append_all(now);
        for _ in 0..MAX_DRAIN_ROUNDS {
            if self.is_all_stored() {
                return;
            }
            self.sync_now(now);
            self.append_all(now);
        }
    }

    /// Evicts segments until the rest is within `max_size`.
    pub(super) fn evict_excess(&mut self, now: Instant) {
        while self.log.as_ref().is_some_and(Log::exceeds_limit)
            && (self.compact(now) || self.evict_telemetry(now) || self.evict_oldest(now))
        {}
    }

    fn evict_segment(&mut self, number: u64, messages: MessagePolicy, now: Instant) -> bool {
        let Some(log) = &mut self.log else { return false };
        let read = log.read_for_eviction(number, &mut self.ledger.topics);
        let Some((reader, stated)) = read else { return false };
        if reader.has_missing_ids() {
            log.unreadable_gaps(&reader).into_iter().for_each(|gap| self.ledger.gaps.add(gap));
        }
        if let Some((first, last)) = log.drop_segment(number) {
            self.index.remove_disk_only(first, last);
        }
        let (mut found_samples, mut relocated) = (0, Vec::new());
        for stored in reader.all_entries(&self.ledger.topics) {
            self.index.remove(stored.id);
            found_samples += stored.samples;
            if let Some(message) = stored.content {
                relocated.push((stored.topic, stored.seq, stored.epoch, message));
            } else {
                self.metrics.count_dropped(DropReason::Full, stored.samples);
                self.ledger.gaps.add(stored.to_gap(DropReason::Full));
            }
        }
        if !relocated.is_empty() {
            log.on_messages_moved(number);
        }
        relocated.into_iter().for_each(|message| self.relocate_message(message, messages, now));
        let unreadable = stated.samples.saturating_sub(found_samples);
        self.metrics.recovered.inc_by(found_samples.saturating_sub(stated.samples));
        self.metrics.count_dropped(DropReason::Corrupt, unreadable);
        // The file is free only after a sync has made durable that nothing waits in it.
        self.sync.request();
        true
    }

    /// Moves a message of an evicted segment to the end of the log under its number, or drops it.
    fn relocate_message(&mut self, moved: RelocatedMessage, messages: MessagePolicy, now: Instant) {
        let (topic, seq, epoch, message) = moved;
        let announced = PendingAnnouncement::from_event(&message, &epoch, &mut self.ledger.topics);
        let held = MemoryEntry {
            topic,
            seq,
            epoch,
            entry: Entry::Message(message),
            unmapped_samples: 0,
            location: Location::Memory,
            pushed_at: Some(now),
            handed_out_at: None,
            is_history: true,
        };
        match messages {
            MessagePolicy::Drop => self.drop_entry(&held, DropReason::Full),
            MessagePolicy::Move => {
                let id = self.ledger.next_id;
                self.ledger.next_id += 1;
                // Until its new copy is durable, it may be lost with what it announces.
                let gap = PendingAnnouncement::Gap(held.to_gap(DropReason::Full));
                let pending = std::iter::once(gap).chain(announced);
                self.ledger.announced_by.extend(pending.map(|announced| (id, announced)));
                self.index.insert(id, held);
            }
        }
    }

    /// Checks whether a full file system has room again.
    pub(super) fn check_disk_space(&mut self) {
        if self.health != Health::DiskFullMemoryOnly || self.storage_retry.is_retrying() {
            return;
        }
        let has_room = self.log.as_ref().is_some_and(Log::has_telemetry_room);
        // With `low-wear`, the latest entries are in memory only at any time.
        if has_room && (self.is_all_stored() || self.durability == Durability::LowWear) {
            self.set_health(self.working_health());
        }
    }
}
