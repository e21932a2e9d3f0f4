//! What is sent: live entries first, the backlog between them, and what the broker answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Durability, QueueOrder};

use super::backlog_window::CongestionWindow;
use super::index::{Location, MemoryEntry};
use super::log::{EntryCounts, StoredContent, StoredEntry};
use super::storage::Storage;
use super::{Entry, EntryId, LIVE_MAX_AGE, Queue, TopicId};
use crate::metrics::DropReason;

/// An entry offered for sending.
#[derive(Clone, Copy, Debug)]
pub struct QueuedEntry<'a> {
    /// Identifies it for [`Queue::acknowledge`] and [`Queue::discard`].
    pub id: EntryId,
    /// Its topic.
    pub topic: TopicId,
    /// The MQTT topic that [`QueuedEntry::topic`] stands for.
    pub topic_name: &'a Arc<str>,
    /// The epoch under which it got its number.
    pub epoch: &'a str,
    /// Its number among the entries of its topic, from 0.
    pub seq: u64,
    /// Whether it comes late: it was taken before this connection, and newer ones may be there.
    pub history: bool,
    /// Its content.
    pub entry: &'a Entry,
}

/// Why an offered entry was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotSent {
    /// It never can be: it is dropped for this reason and announced.
    Dropped(DropReason),
    /// It can be later: it is set aside until [`Queue::offer_deferred`].
    Later,
}

impl From<DropReason> for NotSent {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

/// Most old entries that are set aside before the backlog waits: behind a topic that the broker
/// does not accept now there may be millions, which would be read from the disk for nothing.
const MAX_SET_ASIDE: u32 = 1000;

/// How far entries were handed out in this connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursors {
    /// Entries from this id on were new when the connection began, and are sent as they come.
    live_from: u64,
    /// The next of these.
    live: u64,
    /// The next of those before.
    backlog: u64,
    /// Entries of those before that are handed out.
    history_in_flight: u32,
    /// The lowest and the highest entry that were set aside; they wait behind the cursors.
    deferred: Option<(u64, u64)>,
    /// Entries of the backlog that were set aside since the cursor last moved back.
    set_aside: u32,
    /// An entry whose segment has to be read.
    pub(super) read_request: Option<u64>,
}

impl Cursors {
    /// Takes everything below this id for old.
    pub(super) fn starting_at(next_id: u64) -> Self {
        Self { live_from: next_id, live: next_id, ..Self::default() }
    }

    fn note_deferred(&mut self, id: u64) {
        let (lowest, highest) = self.deferred.unwrap_or((id, id));
        self.deferred = Some((lowest.min(id), highest.max(id)));
    }

    /// Moves the backlog's cursor back to `lowest`; what was live up to `highest` is backlog now.
    fn move_back(&mut self, lowest: u64, highest: u64) {
        self.backlog = self.backlog.min(lowest);
        self.live_from = self.live_from.max(highest.saturating_add(1));
        self.live = self.live.max(self.live_from);
        self.set_aside = 0;
    }
}

impl<S: Storage> Queue<S> {
    /// Offers an entry that was not handed out since the last rewind to `send`: live entries first,
    /// then the backlog, oldest first and as fast as it does not delay live entries. With the order
    /// `strict`, the oldest.
    ///
    /// An entry that `send` accepts waits for [`Queue::acknowledge`], [`Queue::discard`] or
    /// [`Queue::defer`]; one that it refuses is dropped and announced, or set aside. So no entry
    /// can be handed out and forgotten.
    ///
    /// Returns what `send` returned, or `None` when there is no entry, or the next one has to be
    /// read or written first.
    pub fn hand_out<T>(
        &mut self,
        now: Instant,
        send: impl FnOnce(QueuedEntry<'_>) -> Result<T, NotSent>,
    ) -> Option<Result<T, NotSent>> {
        let id = self.next_id(now)?;
        let is_history = id < self.cursors.live_from;
        let held = self.index.mark_handed_out(id, now, is_history)?;
        self.cursors.history_in_flight += u32::from(held.is_history);
        if let Some(window) = self.backlog_window.as_mut().filter(|_| held.is_history) {
            window.on_sent(now);
        }
        // A topic without a name is in no configuration and in no log.
        let sent = self.queued(id).map_or(Err(DropReason::Unconfigured.into()), send);
        match sent {
            Ok(_) => {}
            Err(NotSent::Dropped(reason)) => self.discard(EntryId::from_ticket(id), reason, now),
            Err(NotSent::Later) => self.defer(EntryId::from_ticket(id)),
        }
        Some(sent)
    }

    fn queued(&self, id: u64) -> Option<QueuedEntry<'_>> {
        let held = self.index.get(id)?;
        Some(QueuedEntry {
            id: EntryId::from_ticket(id),
            topic: held.topic,
            topic_name: self.ledger.topics.name(held.topic)?,
            epoch: &held.epoch,
            seq: held.seq,
            history: held.is_history,
            entry: &held.entry,
        })
    }

    /// As [`Queue::hand_out`], for tests that accept every entry.
    #[cfg(test)]
    pub(crate) fn next(&mut self, now: Instant) -> Option<QueuedEntry<'_>> {
        let id = self.hand_out(now, |queued| Ok(queued.id))?.ok()?;
        self.queued(id.ticket())
    }

    fn next_id(&mut self, now: Instant) -> Option<u64> {
        let live = (self.order == QueueOrder::LiveFirst).then(|| self.next_live_id()).flatten();
        let Some(id) = live else { return self.next_backlog_id(now) };
        self.cursors.live = id + 1;
        Some(id)
    }

    fn next_live_id(&mut self) -> Option<u64> {
        let in_memory = self.index.first_waiting(self.cursors.live);
        // What was trimmed from memory meanwhile is backlog.
        if let Some(on_disk) = self.index.first_disk_only(self.cursors.live)
            && in_memory.is_none_or(|id| on_disk < id)
        {
            self.cursors.live_from = in_memory.unwrap_or(self.ledger.next_id);
            self.cursors.live = self.cursors.live_from;
        }
        in_memory.filter(|id| self.is_sendable(*id))
    }

    fn next_backlog_id(&mut self, now: Instant) -> Option<u64> {
        loop {
            let id = self.backlog_candidate()?;
            if self.backlog_window.is_some_and(|window| window.throttled_until(now).is_some()) {
                return None;
            }
            if self.index.get(id).is_some() {
                let sendable = self.is_sendable(id).then_some(id)?;
                self.cursors.backlog = sendable + 1;
                return Some(sendable);
            }
            let log = self.log.as_mut()?;
            let Some(stored) = log.take_entry(id, &self.ledger.topics) else {
                self.cursors.read_request = Some(id);
                return None;
            };
            self.cursors.backlog = id + 1;
            if self.admit_stored(stored) {
                return Some(id);
            }
        }
    }

    /// Records how long an entry of the backlog took to encode. For a multiple of that time only
    /// live entries are handed out; not so with the order `strict`.
    pub fn on_encoded(&mut self, took: Duration, now: Instant) {
        if let Some(window) = &mut self.backlog_window {
            window.on_encoded(took, now);
        }
    }

    /// Lets the backlog use the whole connection, without a window, pauses and rests: the gateway
    /// stops, and no live entry follows.
    pub fn end_pacing(&mut self) {
        self.backlog_window = None;
    }

    /// Returns when the backlog may continue, if only its pause keeps [`Queue::hand_out`] from
    /// handing out an entry.
    #[must_use]
    pub fn throttled_until(&self, now: Instant) -> Option<Instant> {
        self.backlog_window?.throttled_until(now).filter(|_| self.backlog_candidate().is_some())
    }

    /// Returns the lowest id of the backlog that waits, if the window allows one more in flight.
    fn backlog_candidate(&self) -> Option<u64> {
        let in_memory = self.index.first_waiting(self.cursors.backlog);
        let on_disk = self.index.first_disk_only(self.cursors.backlog);
        let id = in_memory.into_iter().chain(on_disk).min()?;
        if self.cursors.set_aside >= MAX_SET_ASIDE {
            return None;
        }
        let Some(window) = self.backlog_window else { return Some(id) };
        let is_old = id < self.cursors.live_from;
        (is_old && self.cursors.history_in_flight < window.max_in_flight()).then_some(id)
    }

    /// Takes an entry from the disk into memory. Returns whether there is anything to send.
    fn admit_stored(&mut self, stored: StoredEntry) -> bool {
        let (entry, unmapped_samples) = match stored.content {
            StoredContent::Whole(entry, unmapped_samples) => (entry, unmapped_samples),
            StoredContent::UnknownTag => {
                self.drop_stored(&stored, DropReason::Unconfigured);
                return false;
            }
            StoredContent::NamesLost => {
                self.drop_stored(&stored, DropReason::Corrupt);
                return false;
            }
        };
        let held = MemoryEntry {
            topic: stored.topic,
            seq: stored.seq,
            epoch: stored.epoch,
            memory_bytes: entry.memory_bytes(),
            entry,
            unmapped_samples,
            location: Location::Stored { bytes: stored.bytes },
            pushed_at: None,
            handed_out_at: None,
            is_history: true,
        };
        self.index.insert(stored.id, held);
        true
    }

    fn drop_stored(&mut self, stored: &StoredEntry, reason: DropReason) {
        self.metrics.count_dropped(reason, stored.samples);
        self.index.remove_disk_only(stored.id, stored.id);
        self.ledger.gaps.add(stored.to_gap(reason));
        if let Some(log) = &mut self.log {
            let counts = EntryCounts { entries: 1, samples: stored.samples, bytes: stored.bytes };
            log.settle_lost(stored.id, counts);
        }
    }

    /// Returns whether `durability` allows to send what is in memory under this id.
    fn is_sendable(&self, id: u64) -> bool {
        let Some(log) = self.log.as_ref().filter(|log| log.is_writable()) else { return true };
        match (self.durability, self.index.get(id)) {
            // What fits nowhere on a full disk is sent from memory, as while the storage fails.
            (Durability::Strict, Some(held)) if held.location == Location::Memory => {
                self.health.is_memory_only()
            }
            (Durability::Strict, Some(held)) => held.location.is_durable(log.durability().synced()),
            (Durability::Balanced | Durability::LowWear, _) | (_, None) => true,
        }
    }

    /// Removes an entry that the broker has acknowledged, in any order, and returns its topic.
    ///
    /// Does nothing for an entry that is not handed out: after a rewind it is sent again, and the
    /// acknowledgement of that message is the one that counts.
    pub fn acknowledge(&mut self, id: EntryId, now: Instant) -> Option<TopicId> {
        let held = self.take_handed_out(id, now)?;
        if let Some((window, sent)) = self.backlog_window.as_mut().zip(held.handed_out_at) {
            window.on_acknowledged(sent, held.is_history, now);
        }
        self.metrics.delivered.inc_by(held.entry.sample_count());
        self.metrics.count_dropped(DropReason::Unconfigured, held.unmapped_samples);
        Some(held.topic)
    }

    /// Drops an entry that was handed out. It is counted and becomes part of a [`super::Gap`]. Does
    /// nothing for an entry that is not handed out.
    pub fn discard(&mut self, id: EntryId, reason: DropReason, now: Instant) {
        if let Some(held) = self.take_handed_out(id, now) {
            self.drop_entry(&held, reason);
            if let Some(log) = &mut self.log {
                log.settle_lost(id.ticket(), EntryCounts::default());
            }
        }
    }

    /// Sets an entry aside that was handed out: it waits until [`Queue::offer_deferred`] or the
    /// next connection, and does not hold up the others. Does nothing for an entry that is not
    /// handed out.
    pub fn defer(&mut self, id: EntryId) {
        let id = id.ticket();
        let Some(is_history) = self.index.return_one(id) else { return };
        if is_history {
            self.cursors.history_in_flight = self.cursors.history_in_flight.saturating_sub(1);
            self.cursors.set_aside = self.cursors.set_aside.saturating_add(1);
        }
        self.cursors.note_deferred(id);
    }

    /// Offers the entries again that were set aside, oldest first, and as late ones.
    pub fn offer_deferred(&mut self) {
        if let Some((lowest, highest)) = self.cursors.deferred.take() {
            self.cursors.move_back(lowest, highest);
        }
    }

    /// Offers this entry next, before other old ones, which are offered by
    /// [`Queue::offer_deferred`]. Returns whether it still waits.
    pub fn offer_first(&mut self, id: EntryId) -> bool {
        let id = id.ticket();
        if !self.holds(EntryId::from_ticket(id)) {
            return false;
        }
        self.cursors.note_deferred(self.cursors.backlog.min(id));
        self.cursors.backlog = id;
        self.cursors.move_back(id, id);
        true
    }

    /// Returns whether an entry is in the queue.
    #[must_use]
    pub fn holds(&self, id: EntryId) -> bool {
        let id = id.ticket();
        self.index.get(id).is_some() || self.index.first_disk_only(id) == Some(id)
    }

    /// Returns the id that the next entry gets.
    #[must_use]
    pub const fn next_entry_id(&self) -> EntryId {
        EntryId::from_ticket(self.ledger.next_id)
    }

    /// Returns whether an entry with a lower id is in the queue.
    #[must_use]
    pub fn holds_before(&self, id: EntryId) -> bool {
        let lowest = self.index.lowest_id().into_iter().chain(self.index.first_disk_only(0)).min();
        lowest.is_some_and(|lowest| lowest < id.ticket())
    }

    fn take_handed_out(&mut self, id: EntryId, now: Instant) -> Option<MemoryEntry> {
        let held = self.index.take_handed_out(id.ticket())?;
        let in_flight = self.cursors.history_in_flight;
        self.cursors.history_in_flight = in_flight.saturating_sub(u32::from(held.is_history));
        self.forget_memory_only(&held);
        if held.location != Location::Memory
            && let Some(log) = &mut self.log
        {
            log.settle(id.ticket(), held.counts());
            self.on_settled(now);
        }
        Some(held)
    }

    /// Makes everything handed out wait again: a connection began, or the last one was lost.
    pub fn rewind(&mut self, now: Instant) {
        self.index.return_handed_out();
        self.backlog_window = self.backlog_window.map(|_| CongestionWindow::new());
        let newest = now.checked_sub(LIVE_MAX_AGE);
        let newest = newest.and_then(|oldest| self.index.first_young_id(oldest));
        self.cursors = Cursors::starting_at(newest.unwrap_or(self.ledger.next_id));
        self.trim_cache(super::CACHE_BYTES);
    }
}
