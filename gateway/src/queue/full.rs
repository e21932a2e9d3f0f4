//! A log that is full: who has to go. One segment for one segment: what was given up has to become
//! durable before its file can be used, and nothing more is given up as long as that takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::OnFull;

use super::ledger::Untold;
use super::log::Holds;
use super::ring::{Held, Place};
use super::storage::Storage;
use super::{Entry, Log, Queue, TopicId};
use crate::metrics::DropReason;
use crate::model::Message;

/// A device that owes an answer for so long is not asked to read what is given up.
const STALLS: Duration = Duration::from_millis(100);
/// So often a start and a stop wait for files to become free: more often than memory has segments.
const ROUNDS: u32 = 8;

/// Topic, number and epoch of a message that has to move, and the message.
type Moved = (TopicId, u64, Arc<str>, Message);

/// What happens to the messages of a segment that is given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Messages {
    /// They move to the end of the log.
    Move,
    /// They go: nothing else is there.
    Go,
}

impl<S: Storage> Queue<S> {
    /// The log is full. Makes room for the entry with this id or gives it up; whether it makes
    /// sense to go on.
    pub(super) fn make_room_on_disk(&mut self, id: u64, now: Instant) -> bool {
        let since = self.log.as_ref().and_then(Log::waits_since);
        if since.is_some_and(|since| now >= since + STALLS) {
            return false;
        }
        let Some(held) = self.ring.get(id) else { return false };
        let (is_record, is_sent) = (held.is_record(), held.sent.is_some());
        if self.move_together(now) {
            return true;
        }
        let is_refused = is_record && self.on_full == OnFull::DropNewest;
        if !is_refused && self.give_up_telemetry(now) {
            self.is_cramped(false);
            return true;
        }
        let has_telemetry = self.log.as_ref().is_some_and(Log::has_telemetry);
        if is_refused || is_record && !has_telemetry {
            // What is under way may already be with the broker: it waits in memory.
            if !is_sent && let Some(held) = self.ring.remove(id) {
                self.lose(&held, DropReason::Full);
            }
            self.is_cramped(is_sent);
            return !is_sent;
        }
        let can_go = !is_record && !has_telemetry && self.on_full == OnFull::DropOldest;
        let has_room = can_go && self.give_up_oldest(Messages::Go, now);
        self.is_cramped(!has_room);
        has_room
    }

    /// Gives up the telemetry of a segment that has any: of the oldest, or of the newest where what is
    /// new has to go. Its messages move to the end of the log.
    pub(super) fn give_up_telemetry(&mut self, now: Instant) -> bool {
        let victim = self.victim(self.on_full, |holds| holds == Holds::Telemetry);
        victim.is_some_and(|number| self.give_up(number, Messages::Move, now))
    }

    /// Frees a segment in which a few messages have outlived everything else: they move.
    fn move_together(&mut self, now: Instant) -> bool {
        let victim = self.victim(OnFull::DropOldest, |holds| holds == Holds::FewMessages);
        victim.is_some_and(|number| self.give_up(number, Messages::Move, now))
    }

    /// The first full segment from this end of which nothing is under way.
    fn victim(&self, end: OnFull, is_wanted: impl Fn(Holds) -> bool) -> Option<u64> {
        let log = self.log.as_ref()?;
        let is_free = |(number, holds): &(u64, Holds)| {
            is_wanted(*holds) && !self.ring.has_handed_out(log.ids(*number))
        };
        let mut segments = log.full_segments();
        let victim = match end {
            OnFull::DropOldest => segments.find(is_free),
            OnFull::DropNewest => segments.rfind(is_free),
        };
        victim.map(|(number, _)| number)
    }

    /// Writes everything that lies in memory alone, and waits for the files that it takes.
    pub(super) fn write_out(&mut self, now: Instant) {
        self.write_up_to(u64::MAX, now);
        for _ in 0..ROUNDS {
            if self.is_stored() {
                return;
            }
            self.sync_now(now);
            self.write_up_to(u64::MAX, now);
        }
    }

    /// Gives up what waits in a segment until what is left is within the bound.
    pub(super) fn give_up_what_is_too_much(&mut self, now: Instant) {
        while self.log.as_ref().is_some_and(Log::is_too_large)
            && (self.move_together(now)
                || self.give_up_telemetry(now)
                || self.give_up_oldest(Messages::Go, now))
        {}
    }

    fn give_up_oldest(&mut self, messages: Messages, now: Instant) -> bool {
        let victim = self.victim(OnFull::DropOldest, |_| true);
        victim.is_some_and(|number| self.give_up(number, messages, now))
    }

    fn give_up(&mut self, number: u64, messages: Messages, now: Instant) -> bool {
        let Some(log) = &mut self.log else { return false };
        let Some((loaded, held)) = log.read(number, &mut self.ledger.topics) else { return false };
        if !loaded.missing.is_empty() {
            log.unreadable(&loaded).into_iter().for_each(|gap| self.ledger.gaps.add(gap));
        }
        if let Some((first, last)) = log.forget(number) {
            self.ring.forget_paged(first, last);
        }
        let (mut found_samples, mut outlive) = (0, Vec::new());
        for found in loaded.all(&self.ledger.topics) {
            self.ring.remove(found.id);
            found_samples += found.samples;
            if let Some(message) = found.content {
                outlive.push((found.topic, found.seq, found.epoch, message));
            } else {
                self.metrics.count_dropped(DropReason::Full, found.samples);
                self.ledger.gaps.add(found.gap(DropReason::Full));
            }
        }
        for message in outlive {
            self.give_up_message(message, messages, now);
            self.log.iter_mut().for_each(|log| log.note_moved(number));
        }
        let unreadable = held.samples.saturating_sub(found_samples);
        self.metrics.recovered.inc_by(found_samples.saturating_sub(held.samples));
        self.metrics.count_dropped(DropReason::Corrupt, unreadable);
        self.deadlines.sync_at_once();
        true
    }

    /// A message of a segment that is given up gets a new place; its number stays.
    fn give_up_message(&mut self, moved: Moved, messages: Messages, now: Instant) {
        let (topic, seq, epoch, message) = moved;
        let told = Untold::told_by(&message, &epoch, &mut self.ledger.topics);
        let held = Held {
            topic,
            seq,
            epoch,
            entry: Entry::Message(message),
            homeless: 0,
            place: Place::Memory,
            since: Some(now),
            sent: None,
            is_history: true,
        };
        match messages {
            Messages::Go => self.lose(&held, DropReason::Full),
            Messages::Move => {
                let id = self.ledger.next_id;
                self.ledger.next_id += 1;
                let gap = held.gap(DropReason::Full);
                self.ledger.pending.push((id, Untold::Gap(gap)));
                self.ledger.pending.extend(told.map(|told| (id, told)));
                self.ring.insert(id, held);
            }
        }
    }

    /// Where it is the file system that leaves no room, people have to know: the bound was not reached,
    /// and what waits in memory alone goes with the process.
    fn is_cramped(&mut self, is_stuck: bool) {
        let is_cramped = self.log.as_ref().is_some_and(Log::is_cramped);
        if is_cramped && self.health.be_full(self.on_full, is_stuck) {
            tracing::warn!("{}", self.health.sentence().unwrap_or_default());
        }
    }

    /// Whether there is room on the file system again.
    pub(super) fn look_for_room(&mut self) {
        if !self.health.is_full() {
            return;
        }
        if !self.log.as_ref().is_some_and(Log::is_cramped) {
            tracing::info!("there is room on the file system again");
            self.health = self.sound();
        } else if self.is_stored() {
            self.health.be_full(self.on_full, false);
        }
    }
}
