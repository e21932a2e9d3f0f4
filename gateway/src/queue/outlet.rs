//! What goes out: the live lane, the backlog beside it, and what the broker says to both.

use std::time::{Duration, Instant};

use provisioning::config::{Durability, QueueOrder};

use super::log::{Content, Found, Log, Tally};
use super::pace::Pace;
use super::ring::{Held, Place};
use super::storage::Storage;
use super::{Gap, Id, NEW, Queue, Queued};
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
    late: u32,
    /// An entry whose segment has to be read.
    pub(super) wanted: Option<u64>,
}

impl Cursors {
    /// Everything that is there now is old.
    pub(super) const fn start_behind(&mut self, next_id: u64) {
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
    pub fn next(&mut self, now: Instant) -> Option<Queued<'_>> {
        let live = (self.order == QueueOrder::LiveFirst).then(|| self.next_live()).flatten();
        let id = match live {
            Some(id) => {
                self.cursors.live = id + 1;
                id
            }
            None => self.next_late(now)?,
        };
        let held = self.ring.hand_out(id, now, id < self.cursors.live_from)?;
        self.cursors.late += u32::from(held.is_history);
        Some(Queued {
            id: Id::from_ticket(id),
            topic: held.topic,
            epoch: &held.epoch,
            seq: held.seq,
            history: held.is_history,
            entry: &held.entry,
        })
    }

    fn next_live(&mut self) -> Option<u64> {
        let in_memory = self.ring.first_waiting(self.cursors.live);
        // What did not stay in memory until now is backlog.
        if let Some(on_disk) = self.ring.first_paged(self.cursors.live)
            && in_memory.is_none_or(|id| on_disk < id)
        {
            self.cursors.live_from = in_memory.unwrap_or(self.ledger.next_id);
            self.cursors.live = self.cursors.live_from;
        }
        in_memory.filter(|id| self.may_be_sent(*id))
    }

    fn next_late(&mut self, now: Instant) -> Option<u64> {
        loop {
            let id = self.late_candidate()?;
            if self.pace.is_some_and(|pace| pace.rests(now).is_some()) {
                return None;
            }
            if self.ring.get(id).is_some() {
                let may = self.may_be_sent(id).then_some(id)?;
                self.cursors.backlog = may + 1;
                return Some(may);
            }
            let log = self.log.as_mut()?;
            let Some(found) = log.take(id, &self.ledger.topics) else {
                self.cursors.wanted = Some(id);
                return None;
            };
            self.cursors.backlog = id + 1;
            if self.take_in(found) {
                return Some(id);
            }
        }
    }

    /// An entry of the backlog took so long to encode; for a multiple of it nothing but what is new
    /// is handed out. Not so with the order `strict`.
    pub fn encoded(&mut self, took: Duration, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.encoded(took, now);
        }
    }

    /// Until when [`Queue::next`] has nothing only because what is new goes first.
    #[must_use]
    pub fn rests(&self, now: Instant) -> Option<Instant> {
        self.pace?.rests(now).filter(|_| self.late_candidate().is_some())
    }

    /// The lowest id of the backlog that waits, if the pace allows one more.
    fn late_candidate(&self) -> Option<u64> {
        let in_memory = self.ring.first_waiting(self.cursors.backlog);
        let on_disk = self.ring.first_paged(self.cursors.backlog);
        let id = in_memory.into_iter().chain(on_disk).min()?;
        let Some(pace) = self.pace else { return Some(id) };
        let is_late = id < self.cursors.live_from;
        (is_late && self.cursors.late < pace.most()).then_some(id)
    }

    /// Takes an entry from the disk into memory; whether there is anything to send.
    fn take_in(&mut self, found: Found) -> bool {
        let tally = Tally { entries: 1, samples: found.samples, bytes: found.bytes };
        let (homeless, nameless) =
            (found.gap(DropReason::Unconfigured), found.gap(DropReason::Corrupt));
        match found.content {
            Content::Whole(entry, lost) => {
                let held = Held {
                    topic: found.topic,
                    seq: found.seq,
                    epoch: found.epoch,
                    entry,
                    homeless: lost,
                    // What was read is there, and was durable or has survived without.
                    place: Place::Logged { bytes: found.bytes, position: 0 },
                    since: None,
                    sent: None,
                    is_history: true,
                };
                self.ring.insert(found.id, held);
                true
            }
            Content::Homeless => self.give_up_found(&homeless, found.id, tally),
            Content::Nameless => self.give_up_found(&nameless, found.id, tally),
        }
    }

    fn give_up_found(&mut self, gap: &Gap, id: u64, held: Tally) -> bool {
        self.metrics.count_dropped(gap.reason, held.samples);
        self.ring.forget_paged(id, id);
        self.ledger.gaps.add(gap.clone());
        if let Some(log) = &mut self.log {
            log.settle_lost(id, held);
        }
        self.show();
        false
    }

    /// Whether durability allows to send what is in memory under this id.
    fn may_be_sent(&self, id: u64) -> bool {
        let Some(log) = self.log.as_ref().filter(|log| log.is_writable()) else { return true };
        match (self.durability, self.ring.get(id).map(|held| held.place)) {
            (Durability::Strict, Some(Place::Logged { position, .. })) => position <= log.synced(),
            (Durability::Strict, Some(Place::Memory)) => false,
            (Durability::Balanced | Durability::LowWear, _) | (_, None) => true,
        }
    }

    /// Removes an entry that the broker took, in any order.
    ///
    /// Does nothing for an entry that is not handed out: after a rewind it is sent again, and the
    /// acknowledgement that counts is the one for that.
    pub fn acknowledge(&mut self, id: Id, now: Instant) {
        if let Some(held) = self.take(id, now) {
            if let Some((pace, sent)) = self.pace.as_mut().zip(held.sent) {
                pace.acknowledged(sent, now);
            }
            self.metrics.delivered.inc_by(held.entry.samples());
            self.metrics.count_dropped(DropReason::Unconfigured, held.homeless);
            self.show();
        }
    }

    /// Gives an entry up that was handed out. It is counted and becomes part of a [`super::Gap`].
    pub fn discard(&mut self, id: Id, reason: DropReason, now: Instant) {
        if let Some(held) = self.take(id, now) {
            self.lose(&held, reason);
            if let Some(log) = &mut self.log {
                log.settle_lost(id.ticket(), Tally::default());
            }
            self.show();
        }
    }

    fn take(&mut self, id: Id, now: Instant) -> Option<Held> {
        let held = self.ring.take_handed_out(id.ticket())?;
        self.cursors.late = self.cursors.late.saturating_sub(u32::from(held.is_history));
        self.stored_or_gone(&held);
        if matches!(held.place, Place::Logged { .. })
            && let Some(log) = &mut self.log
        {
            log.settle(id.ticket(), held.tally());
            self.deadlines.settled(now);
        }
        Some(held)
    }

    /// Hands everything open out again: a connection began, or the last one was lost.
    pub fn rewind(&mut self, now: Instant) {
        self.ring.rewind();
        self.pace = self.pace.map(|_| Pace::new());
        let newest = now.checked_sub(NEW).and_then(|oldest| self.ring.young_from(oldest));
        let live_from = newest.unwrap_or(self.ledger.next_id);
        self.cursors = Cursors { live_from, live: live_from, backlog: 0, late: 0, wanted: None };
        let synced = self.log.as_ref().map_or(0, Log::synced);
        self.ring.trim(super::CACHE, synced);
    }
}
