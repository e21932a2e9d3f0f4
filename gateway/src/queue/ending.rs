//! The end of a run: everything is written down for the next one.

use std::time::Instant;

use super::storage::{Files, Storage};
use super::upkeep::hangs;
use super::{Done, Job, Queue};
use crate::metrics::DropReason;

/// A queue that takes nothing more and hands nothing out.
#[derive(Debug)]
pub struct Ended<S: Storage = Files> {
    queue: Queue<S>,
    has_lost: bool,
}

/// What became of what was left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// It is on the disk, whatever happens now.
    Stored,
    /// The operating system has it, and the disk has not confirmed it: a power cut may take it.
    Written,
    /// Some of it was nowhere but in memory, and is counted as dropped.
    Lost,
}

impl<S: Storage> Queue<S> {
    /// Writes everything down for the next run, and that this one ended cleanly;
    /// [`Ended::job`] does the rest.
    pub fn end(mut self, now: Instant) -> Ended<S> {
        self.rewind(now);
        self.write_up_to(u64::MAX, now);
        // The last word says what was lost, so it comes after the loss.
        let has_lost = self.give_up_unstored();
        if let Some(log) = self.log.as_mut().filter(|log| log.is_writable())
            && let Err(refusal) = log.stop(&self.ledger)
        {
            self.refused(refusal, now);
        }
        self.deadlines.sync_at_once();
        self.show();
        Ended { queue: self, has_lost }
    }

    /// As [`Queue::end`], and waits for the disk.
    pub fn close(self, now: Instant) -> Left {
        let mut ended = self.end(now);
        while let Some(job) = ended.job(now) {
            ended.done(job.run(), now);
        }
        ended.left(now)
    }

    /// What lies in memory alone goes with the process; whether there was anything.
    fn give_up_unstored(&mut self) -> bool {
        let mut has_lost = false;
        while let Some(id) = self.ring.first_unstored() {
            let Some(held) = self.ring.remove(id) else { break };
            self.lose(&held, DropReason::Shutdown);
            has_lost = true;
        }
        has_lost
    }
}

impl<S: Storage> Ended<S> {
    /// The next job that makes durable what is left; nothing when it is, or while one is under way.
    pub fn job(&mut self, now: Instant) -> Option<Job<S>> {
        self.queue.durable_job(now)
    }

    /// Takes the end of a job.
    pub fn done(&mut self, done: Done, now: Instant) {
        self.queue.done(done, now);
    }

    /// What became of what was left.
    #[must_use]
    pub fn left(mut self, now: Instant) -> Left {
        if self.queue.log.as_ref().is_some_and(|log| log.is_writable() && !log.is_all_written()) {
            self.queue.fail(hangs(), now);
        }
        // What the storage refused at last is in memory again.
        self.has_lost |= self.queue.give_up_unstored();
        self.queue.show();
        let is_durable = self.queue.log.as_ref().is_none_or(|log| !log.is_dirty());
        match (self.has_lost, is_durable) {
            (true, _) => Left::Lost,
            (false, true) => Left::Stored,
            (false, false) => Left::Written,
        }
    }
}
