//! A storage that fails: what was not durable waits in memory, and a new file is tried now and then.
//! It works again when something became durable in it: what is only written may still be refused.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::OnFull;

use super::log::{Log, Refusal};
use super::ring::Place;
use super::storage::Storage;
use super::{Health, Queue};

/// A storage that failed is tried again after this, doubled each time up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// When a storage that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    /// Nothing while one is under way, and while the storage works.
    pub(super) due: Option<Instant>,
    wait: Duration,
    /// When it began to work again.
    worked: Option<Instant>,
}

impl Trials {
    /// One that works for moments only is tried as rarely as one that never does.
    fn failed(&mut self, now: Instant) {
        if self.worked.take().is_some_and(|since| now >= since + RETRY_LONGEST) {
            self.wait = Duration::ZERO;
        }
        self.wait = (self.wait * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        self.due = Some(now + self.wait);
    }
}

impl<S: Storage> Queue<S> {
    pub(super) fn refused(&mut self, refusal: Refusal, now: Instant) {
        match refusal {
            Refusal::Failed(error) => self.fail(error, now),
            // The log's own records go beyond every bound: only the file system refuses them.
            Refusal::Full | Refusal::Soon => self.fail(io::ErrorKind::StorageFull.into(), now),
        }
    }

    /// A job had this error. Where a storage that fails is tried again and not a byte is free, what is
    /// there makes room for the next trial.
    pub(super) fn failed(&mut self, error: io::Error, now: Instant) {
        let refusal = Refusal::from(error);
        let makes_room = self.health.is_failing() && refusal.is_no_space();
        self.refused(refusal, now);
        let Some(log) = self.log.as_mut().filter(|_| makes_room) else { return };
        if log.take_back() {
            self.trials.due = Some(now);
        } else if !log.can_take_back() && self.on_full == OnFull::DropOldest {
            self.give_up_telemetry(now);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the end of the error's way")]
    pub(super) fn fail(&mut self, error: io::Error, now: Instant) {
        let before = self.health.clone();
        self.health.fail(&error);
        if self.health != before {
            tracing::error!("{}", self.health.sentence().unwrap_or_default());
        }
        self.trials.failed(now);
        self.deadlines.failed();
        for told in std::mem::take(&mut self.ledger.adopted) {
            self.ledger.tell_again(told);
        }
        let Some(log) = &mut self.log else { return };
        let synced = log.synced();
        log.fail(&self.ledger);
        for id in self.ring.logged_behind(synced) {
            if let Some(held) = self.ring.get(id) {
                log.withdraw(id, held.tally());
                if *held.epoch == *self.ledger.epoch {
                    self.ledger.unstored.insert((held.topic, held.seq));
                }
            }
            self.ring.place(id, Place::Memory);
        }
    }

    /// Begins a new file after a failure, with everything that was not durable: a storage that takes
    /// a few bytes and not the rest does not work.
    pub(super) fn retry(&mut self, now: Instant) {
        let Some(log) = self.log.as_mut().filter(|log| log.waits_since().is_none()) else { return };
        if self.trials.due.take_if(|due| *due <= now).is_none() {
            return;
        }
        match log.resume(&self.ledger) {
            Ok(()) => {
                self.deadlines.sync_at_once();
                self.write_up_to(u64::MAX, now);
            }
            Err(refusal) => self.refused(refusal, now),
        }
    }

    /// After a clean end numbers go on under the old epoch. Where this run cannot write down that it
    /// gives any, the next one would give them again: it takes its own epoch instead.
    pub(super) fn start_anew(&mut self, own: Arc<str>) {
        let log = self.log.as_mut().filter(|log| !log.is_writable());
        if let Some(log) = log.filter(|_| self.ledger.epoch != own) {
            log.start_anew(Arc::clone(&own));
            self.ledger.epoch = own;
            self.ledger.next_seq.clear();
        }
    }

    /// Something became durable.
    pub(super) fn works(&mut self, now: Instant) {
        if !self.health.is_failing() {
            return;
        }
        tracing::warn!("the storage works again");
        self.trials.worked = Some(now);
        self.health = self.sound();
    }

    /// How a storage does that works.
    pub(super) fn sound(&self) -> Health {
        let counts = self.log.as_ref().map(|log| log.counts()).unwrap_or_default();
        Health::set_aside(counts.set_aside, counts.unreadable)
    }

    /// A job came to no end: what it was to make durable is not.
    pub fn died(&mut self, now: Instant) {
        self.log.iter_mut().for_each(Log::forget_jobs);
        self.fail(io::Error::other("a job of the queue died"), now);
    }
}
