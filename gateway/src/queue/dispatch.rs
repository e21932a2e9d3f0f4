//! What goes out: the live lane, the backlog beside it, and what the broker says to both.

use std::time::{Duration, Instant};

use provisioning::config::{Durability, QueueOrder};

use super::backlog_window::CongestionWindow;
use super::index::{Location, MemoryEntry};
use super::log::{EntryCounts, Log, StoredContent, StoredEntry};
use super::storage::Storage;
use super::{EntryId, Gap, LIVE_MAX_AGE, Queue, QueuedEntry};
use crate::metrics::DropReason;

/// How far entries were handed out in this connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursors {
    /// Entries from here on were new when the connection began, and are sent as they come.
    live_from: u64,
    /// The next of these.
    live: u64,
    /// The next of those before.
    backlog: u64,
    /// Of those before, how many are handed out.
    history_in_flight: u32,
    /// An entry whose segment has to be read.
    pub(super) read_request: Option<u64>,
}

impl Cursors {
    /// Everything that is there now is old.
    pub(super) const fn start_after(&mut self, next_id: u64) {
        self.live_from = next_id;
        self.live = next_id;
    }
}

impl<S: Storage> Queue<S> {
    /// Hands out an entry that was not handed out since the last rewind: what is new first, then
    /// what was left behind, oldest first and as fast as it does no harm. With the order `strict`,
    /// the oldest.
    ///
    /// Nothing when there is none, when the next one has to be read first, or has to be written.
    pub fn next(&mut self, now: Instant) -> Option<QueuedEntry<'_>> {
        let live = (self.order == QueueOrder::LiveFirst).then(|| self.next_live_id()).flatten();
        let id = match live {
            Some(id) => {
                self.cursors.live = id + 1;
                id
            }
            None => self.next_backlog_id(now)?,
        };
        let held = self.index.mark_handed_out(id, now, id < self.cursors.live_from)?;
        self.cursors.history_in_flight += u32::from(held.is_history);
        Some(QueuedEntry {
            id: EntryId::from_ticket(id),
            topic: held.topic,
            epoch: &held.epoch,
            seq: held.seq,
            history: held.is_history,
            entry: &held.entry,
        })
    }

    fn next_live_id(&mut self) -> Option<u64> {
        let in_memory = self.index.first_waiting(self.cursors.live);
        // What did not stay in memory until now is backlog.
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
            if self.backlog_window.is_some_and(|pace| pace.throttled_until(now).is_some()) {
                return None;
            }
            if self.index.get(id).is_some() {
                let may = self.is_sendable(id).then_some(id)?;
                self.cursors.backlog = may + 1;
                return Some(may);
            }
            let log = self.log.as_mut()?;
            let Some(found) = log.take_entry(id, &self.ledger.topics) else {
                self.cursors.read_request = Some(id);
                return None;
            };
            self.cursors.backlog = id + 1;
            if self.admit_stored(found) {
                return Some(id);
            }
        }
    }

    /// An entry of the backlog took so long to encode; for a multiple of it nothing but what is new
    /// is handed out. Not so with the order `strict`.
    pub fn on_encoded(&mut self, took: Duration, now: Instant) {
        if let Some(pace) = &mut self.backlog_window {
            pace.on_encoded(took, now);
        }
    }

    /// Until when [`Queue::next`] has nothing only because what is new goes first.
    #[must_use]
    pub fn throttled_until(&self, now: Instant) -> Option<Instant> {
        self.backlog_window?.throttled_until(now).filter(|_| self.backlog_candidate().is_some())
    }

    /// The lowest id of the backlog that waits, if the pace allows one more.
    fn backlog_candidate(&self) -> Option<u64> {
        let in_memory = self.index.first_waiting(self.cursors.backlog);
        let on_disk = self.index.first_disk_only(self.cursors.backlog);
        let id = in_memory.into_iter().chain(on_disk).min()?;
        let Some(pace) = self.backlog_window else { return Some(id) };
        let is_late = id < self.cursors.live_from;
        (is_late && self.cursors.history_in_flight < pace.max_in_flight()).then_some(id)
    }

    /// Takes an entry from the disk into memory; whether there is anything to send.
    fn admit_stored(&mut self, found: StoredEntry) -> bool {
        let tally = EntryCounts { entries: 1, samples: found.samples, bytes: found.bytes };
        let (homeless, nameless) =
            (found.gap(DropReason::Unconfigured), found.gap(DropReason::Corrupt));
        match found.content {
            StoredContent::Whole(entry, lost) => {
                let held = MemoryEntry {
                    topic: found.topic,
                    seq: found.seq,
                    epoch: found.epoch,
                    entry,
                    unmapped_samples: lost,
                    // What was read is there, and was durable or has survived without.
                    location: Location::Logged { bytes: found.bytes, position: 0 },
                    pushed_at: None,
                    handed_out_at: None,
                    is_history: true,
                };
                self.index.insert(found.id, held);
                true
            }
            StoredContent::UnknownTag => self.drop_stored(&homeless, found.id, tally),
            StoredContent::NamesLost => self.drop_stored(&nameless, found.id, tally),
        }
    }

    fn drop_stored(&mut self, gap: &Gap, id: u64, held: EntryCounts) -> bool {
        self.metrics.count_dropped(gap.reason, held.samples);
        self.index.remove_disk_only(id, id);
        self.ledger.gaps.add(gap.clone());
        if let Some(log) = &mut self.log {
            log.settle_lost(id, held);
        }
        self.update_gauges();
        false
    }

    /// Whether durability allows to send what is in memory under this id.
    fn is_sendable(&self, id: u64) -> bool {
        let Some(log) = self.log.as_ref().filter(|log| log.is_writable()) else { return true };
        match (self.durability, self.index.get(id).map(|held| held.location)) {
            (Durability::Strict, Some(Location::Logged { position, .. })) => {
                position <= log.synced()
            }
            (Durability::Strict, Some(Location::Memory)) => false,
            (Durability::Balanced | Durability::LowWear, _) | (_, None) => true,
        }
    }

    /// Removes an entry that the broker took, in any order.
    ///
    /// Does nothing for an entry that is not handed out: after a rewind it is sent again, and the
    /// acknowledgement that counts is the one for that.
    pub fn acknowledge(&mut self, id: EntryId, now: Instant) {
        if let Some(held) = self.take_handed_out(id, now) {
            if let Some((pace, sent)) = self.backlog_window.as_mut().zip(held.handed_out_at) {
                pace.on_acknowledged(sent, now);
            }
            self.metrics.delivered.inc_by(held.entry.sample_count());
            self.metrics.count_dropped(DropReason::Unconfigured, held.unmapped_samples);
            self.update_gauges();
        }
    }

    /// Gives an entry up that was handed out. It is counted and becomes part of a [`super::Gap`].
    pub fn discard(&mut self, id: EntryId, reason: DropReason, now: Instant) {
        if let Some(held) = self.take_handed_out(id, now) {
            self.drop_entry(&held, reason);
            if let Some(log) = &mut self.log {
                log.settle_lost(id.ticket(), EntryCounts::default());
            }
            self.update_gauges();
        }
    }

    fn take_handed_out(&mut self, id: EntryId, now: Instant) -> Option<MemoryEntry> {
        let held = self.index.take_handed_out(id.ticket())?;
        self.cursors.history_in_flight =
            self.cursors.history_in_flight.saturating_sub(u32::from(held.is_history));
        self.forget_memory_only(&held);
        if matches!(held.location, Location::Logged { .. })
            && let Some(log) = &mut self.log
        {
            log.settle(id.ticket(), held.counts());
            self.deadlines.settled(now);
        }
        Some(held)
    }

    /// Hands everything open out again: a connection began, or the last one was lost.
    pub fn rewind(&mut self, now: Instant) {
        self.index.return_handed_out();
        self.backlog_window = self.backlog_window.map(|_| CongestionWindow::new());
        let newest =
            now.checked_sub(LIVE_MAX_AGE).and_then(|oldest| self.index.first_young_id(oldest));
        let live_from = newest.unwrap_or(self.ledger.next_id);
        self.cursors = Cursors {
            live_from,
            live: live_from,
            backlog: 0,
            history_in_flight: 0,
            read_request: None,
        };
        let synced = self.log.as_ref().map_or(0, Log::synced);
        self.index.trim_cache(super::CACHE_BYTES, synced);
    }
}
