//! The end of a run: everything is written down for the next one.

use std::time::Instant;

use super::index::MemoryEntry;
use super::maintenance::stalled_error;
use super::storage::{DirStorage, Storage};
use super::{DiskJob, DiskJobDone, Queue};
use crate::metrics::DropReason;

/// A queue that takes no more entries and hands none out.
#[derive(Debug)]
pub struct ClosingQueue<S: Storage = DirStorage> {
    queue: Queue<S>,
    has_lost: bool,
}

/// What became of the entries that were open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseOutcome {
    /// They are durable.
    Stored,
    /// The operating system has them, and the disk has not confirmed it: a power cut may lose them.
    Written,
    /// Some of them were in memory only, and are counted as dropped.
    Lost,
}

impl<S: Storage> Queue<S> {
    /// Appends everything for the next run, and the record of a clean shutdown;
    /// [`ClosingQueue::next_job`] does the rest.
    pub fn begin_close(mut self, now: Instant) -> ClosingQueue<S> {
        // What is in flight may not have arrived: it waits for the next run.
        self.rewind(now);
        self.append_all(now);
        // The shutdown record states what was lost, so the loss comes first. Messages may have room
        // where the samples before them have none.
        let mut has_lost = self.drop_memory_only(MemoryEntry::is_record);
        self.append_all(now);
        has_lost |= self.drop_memory_only(|_| true);
        if let Some(log) = self.log.as_mut().filter(|log| log.is_writable())
            && let Err(error) = log.append_stop(&self.ledger)
        {
            self.on_append_error(error, now);
        }
        self.sync.request();
        ClosingQueue { queue: self, has_lost }
    }

    /// Closes the queue like [`Queue::begin_close`], and waits for the disk.
    pub fn close(self, now: Instant) -> CloseOutcome {
        let mut closing = self.begin_close(now);
        while let Some(job) = closing.next_job(now) {
            closing.on_job_done(job.run(), now);
        }
        closing.finish(now)
    }

    /// Drops what is in memory only and lost with the process. Returns whether there was anything.
    fn drop_memory_only(&mut self, is_lost: impl Fn(&MemoryEntry) -> bool) -> bool {
        let lost: Vec<u64> = self.index.memory_only_ids(is_lost);
        for id in &lost {
            if let Some(held) = self.index.remove(*id) {
                self.drop_entry(&held, DropReason::Shutdown);
            }
        }
        !lost.is_empty()
    }
}

impl<S: Storage> ClosingQueue<S> {
    /// Returns the next job that makes the open entries durable; `None` when they are, or while one
    /// is running.
    pub fn next_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let job = self.queue.next_durability_job(now);
        self.queue.update_gauges();
        job
    }

    /// Records the end of a job.
    pub fn on_job_done(&mut self, done: DiskJobDone, now: Instant) {
        self.queue.on_job_done(done, now);
    }

    /// Ends the queue, whether all jobs are done or not.
    #[must_use]
    pub fn finish(mut self, now: Instant) -> CloseOutcome {
        let log = self.queue.log.as_ref();
        if log.is_some_and(|log| log.is_writable() && !log.is_all_written()) {
            self.queue.on_storage_failed(stalled_error(), now);
        }
        // What a failed storage refused is in memory only again.
        self.has_lost |= self.queue.drop_memory_only(|_| true);
        self.queue.update_gauges();
        let is_durable = self.queue.log.as_ref().is_none_or(|log| !log.has_unsynced());
        match (self.has_lost, is_durable) {
            (true, _) => CloseOutcome::Lost,
            (false, true) => CloseOutcome::Stored,
            (false, false) => CloseOutcome::Written,
        }
    }
}
