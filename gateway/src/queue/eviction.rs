//! A log that is full: who has to go. One segment for one segment: what was given up has to become
//! durable before its file can be used, and nothing more is given up as long as that takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::OnFull;

use super::index::{Location, MemoryEntry};
use super::ledger::PendingAnnouncement;
use super::log::SegmentKind;
use super::storage::Storage;
use super::{Entry, Log, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// A device that owes an answer for so long is not asked to read what is given up.
const STALL_THRESHOLD: Duration = Duration::from_millis(100);
/// So often a start and a stop wait for files to become free: more often than memory has segments.
const MAX_DRAIN_ROUNDS: u32 = 8;

/// Topic, number and epoch of a message that has to move, and the message.
type RelocatedMessage = (TopicId, u64, Arc<str>, Message);

/// What happens to the messages of a segment that is given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MessagePolicy {
    /// They move to the end of the log.
    Move,
    /// They go: nothing else is there.
    Drop,
}

impl<S: Storage> Queue<S> {
    /// The log is full. Makes room for the entry with this id or gives it up; whether it makes
    /// sense to go on.
    pub(super) fn free_disk_space(&mut self, id: u64, now: Instant) -> bool {
        let since = self.log.as_ref().and_then(Log::waiting_since);
        if since.is_some_and(|since| now >= since + STALL_THRESHOLD) {
            return false;
        }
        let Some(held) = self.index.get(id) else { return false };
        let (is_record, is_sent) = (held.is_record(), held.handed_out_at.is_some());
        if self.compact(now) {
            return true;
        }
        let is_refused = is_record && self.on_full == OnFull::DropNewest;
        if !is_refused && self.evict_telemetry(now) {
            self.note_disk_full(false);
            return true;
        }
        let has_telemetry = self.log.as_ref().is_some_and(Log::has_telemetry);
        if is_refused || is_record && !has_telemetry {
            // What is under way may already be with the broker: it waits in memory.
            if !is_sent && let Some(held) = self.index.remove(id) {
                self.drop_entry(&held, DropReason::Full);
            }
            self.note_disk_full(is_sent);
            return !is_sent;
        }
        let can_go = !is_record && !has_telemetry && self.on_full == OnFull::DropOldest;
        let has_room = can_go && self.evict_oldest(MessagePolicy::Drop, now);
        self.note_disk_full(!has_room);
        has_room
    }

    /// Gives up the telemetry of a segment that has any: of the oldest, or of the newest where what is
    /// new has to go. Its messages move to the end of the log.
    pub(super) fn evict_telemetry(&mut self, now: Instant) -> bool {
        let victim = self.find_victim(self.on_full, |holds| holds == SegmentKind::Telemetry);
        victim.is_some_and(|number| self.evict_segment(number, MessagePolicy::Move, now))
    }

    /// Frees a segment in which a few messages have outlived everything else: they move.
    fn compact(&mut self, now: Instant) -> bool {
        let victim =
            self.find_victim(OnFull::DropOldest, |holds| holds == SegmentKind::FewMessages);
        victim.is_some_and(|number| self.evict_segment(number, MessagePolicy::Move, now))
    }

    /// The first full segment from this end of which nothing is under way.
    fn find_victim(&self, end: OnFull, is_wanted: impl Fn(SegmentKind) -> bool) -> Option<u64> {
        let log = self.log.as_ref()?;
        let is_free = |(number, holds): &(u64, SegmentKind)| {
            is_wanted(*holds) && !self.index.has_handed_out(log.id_range(*number))
        };
        let mut segments = log.sealed_segments();
        let victim = match end {
            OnFull::DropOldest => segments.find(is_free),
            OnFull::DropNewest => segments.rfind(is_free),
        };
        victim.map(|(number, _)| number)
    }

    /// Writes everything that lies in memory alone, and waits for the files that it takes.
    pub(super) fn write_all(&mut self, now: Instant) {
        self.append_up_to(u64::MAX, now);
        for _ in 0..MAX_DRAIN_ROUNDS {
            if self.is_all_stored() {
                return;
            }
            self.sync_now(now);
            self.append_up_to(u64::MAX, now);
        }
    }

    /// Gives up what waits in a segment until what is left is within the bound.
    pub(super) fn evict_excess(&mut self, now: Instant) {
        while self.log.as_ref().is_some_and(Log::exceeds_limit)
            && (self.compact(now)
                || self.evict_telemetry(now)
                || self.evict_oldest(MessagePolicy::Drop, now))
        {}
    }

    fn evict_oldest(&mut self, messages: MessagePolicy, now: Instant) -> bool {
        let victim = self.find_victim(OnFull::DropOldest, |_| true);
        victim.is_some_and(|number| self.evict_segment(number, messages, now))
    }

    fn evict_segment(&mut self, number: u64, messages: MessagePolicy, now: Instant) -> bool {
        let Some(log) = &mut self.log else { return false };
        let Some((loaded, held)) = log.read_for_eviction(number, &mut self.ledger.topics) else {
            return false;
        };
        if !loaded.missing_ids.is_empty() {
            log.unreadable_gaps(&loaded).into_iter().for_each(|gap| self.ledger.gaps.add(gap));
        }
        if let Some((first, last)) = log.drop_segment(number) {
            self.index.remove_disk_only(first, last);
        }
        let (mut found_samples, mut outlive) = (0, Vec::new());
        for found in loaded.all_entries(&self.ledger.topics) {
            self.index.remove(found.id);
            found_samples += found.samples;
            if let Some(message) = found.content {
                outlive.push((found.topic, found.seq, found.epoch, message));
            } else {
                self.metrics.count_dropped(DropReason::Full, found.samples);
                self.ledger.gaps.add(found.gap(DropReason::Full));
            }
        }
        for message in outlive {
            self.relocate_message(message, messages, now);
            self.log.iter_mut().for_each(|log| log.mark_messages_moved(number));
        }
        let unreadable = held.samples.saturating_sub(found_samples);
        self.metrics.recovered.inc_by(found_samples.saturating_sub(held.samples));
        self.metrics.count_dropped(DropReason::Corrupt, unreadable);
        self.deadlines.request_sync();
        true
    }

    /// A message of a segment that is given up gets a new place; its number stays.
    fn relocate_message(&mut self, moved: RelocatedMessage, messages: MessagePolicy, now: Instant) {
        let (topic, seq, epoch, message) = moved;
        let told = PendingAnnouncement::from_event(&message, &epoch, &mut self.ledger.topics);
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
                let gap = held.gap(DropReason::Full);
                self.ledger.announced_by.push((id, PendingAnnouncement::Gap(gap)));
                self.ledger.announced_by.extend(told.map(|told| (id, told)));
                self.index.insert(id, held);
            }
        }
    }

    /// Where it is the file system that leaves no room, people have to know: the bound was not reached,
    /// and what waits in memory alone goes with the process.
    fn note_disk_full(&mut self, is_stuck: bool) {
        let is_cramped = self.log.as_ref().is_some_and(Log::is_disk_full);
        if is_cramped && self.health.be_full(self.on_full, is_stuck) {
            tracing::warn!("{}", self.health.sentence().unwrap_or_default());
        }
    }

    /// Whether there is room on the file system again.
    pub(super) fn check_disk_space(&mut self) {
        if !self.health.is_full() {
            return;
        }
        if !self.log.as_ref().is_some_and(Log::is_disk_full) {
            tracing::info!("there is room on the file system again");
            self.health = self.working_health();
        } else if self.is_all_stored() {
            self.health.be_full(self.on_full, false);
        }
    }
}
