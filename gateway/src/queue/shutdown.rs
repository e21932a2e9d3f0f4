//! The end of a run: everything is written down for the next one.

use std::time::Instant;

use super::maintenance::stalled_error;
use super::storage::{DirStorage, Storage};
use super::{DiskJob, DiskJobDone, Queue};
use crate::metrics::DropReason;

/// A queue that takes nothing more and hands nothing out.
#[derive(Debug)]
pub struct ClosingQueue<S: Storage = DirStorage> {
    queue: Queue<S>,
    has_lost: bool,
}

/// What became of what was left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseOutcome {
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
    pub fn begin_close(mut self, now: Instant) -> ClosingQueue<S> {
        self.rewind(now);
        self.append_up_to(u64::MAX, now);
        // The last word says what was lost, so it comes after the loss.
        let has_lost = self.drop_memory_only();
        if let Some(log) = self.log.as_mut().filter(|log| log.is_writable())
            && let Err(refusal) = log.append_stop(&self.ledger)
        {
            self.on_append_error(refusal, now);
        }
        self.deadlines.request_sync();
        self.update_gauges();
        ClosingQueue { queue: self, has_lost }
    }

    /// As [`Queue::end`], and waits for the disk.
    pub fn close(self, now: Instant) -> CloseOutcome {
        let mut ended = self.begin_close(now);
        while let Some(job) = ended.next_job(now) {
            ended.on_job_done(job.run(), now);
        }
        ended.finish(now)
    }

    /// What lies in memory alone goes with the process; whether there was anything.
    fn drop_memory_only(&mut self) -> bool {
        let mut has_lost = false;
        while let Some(id) = self.index.first_memory_only() {
            let Some(held) = self.index.remove(id) else { break };
            self.drop_entry(&held, DropReason::Shutdown);
            has_lost = true;
        }
        has_lost
    }
}

impl<S: Storage> ClosingQueue<S> {
    /// The next job that makes durable what is left; nothing when it is, or while one is under way.
    pub fn next_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.queue.next_durability_job(now)
    }

    /// Takes the end of a job.
    pub fn on_job_done(&mut self, done: DiskJobDone, now: Instant) {
        self.queue.on_job_done(done, now);
    }

    /// What became of what was left.
    #[must_use]
    pub fn finish(mut self, now: Instant) -> CloseOutcome {
        if self.queue.log.as_ref().is_some_and(|log| log.is_writable() && !log.is_all_written()) {
            self.queue.on_storage_failed(stalled_error(), now);
        }
        // What the storage refused at last is in memory again.
        self.has_lost |= self.queue.drop_memory_only();
        self.queue.update_gauges();
        let is_durable = self.queue.log.as_ref().is_none_or(|log| !log.has_unsynced());
        match (self.has_lost, is_durable) {
            (true, _) => CloseOutcome::Lost,
            (false, true) => CloseOutcome::Stored,
            (false, false) => CloseOutcome::Written,
        }
    }
}
