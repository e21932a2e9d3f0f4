//! A storage that fails: what was not durable waits in memory, and a new file is tried now and then.
//! It works again when something became durable in it: what is only written may still be refused.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::OnFull;

use super::index::Location;
use super::log::{AppendError, Log};
use super::storage::Storage;
use super::{Health, Queue};

/// A storage that failed is tried again after this, doubled each time up to the longest.
const RETRY_MIN_PAUSE: Duration = Duration::from_secs(1);
const RETRY_MAX_PAUSE: Duration = Duration::from_secs(60);

/// When a storage that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StorageRetryTimer {
    /// Nothing while one is under way, and while the storage works.
    pub(super) due: Option<Instant>,
    pause: Duration,
    /// When it began to work again.
    works_since: Option<Instant>,
}

impl StorageRetryTimer {
    /// One that works for moments only is tried as rarely as one that never does.
    fn failed(&mut self, now: Instant) {
        if self.works_since.take().is_some_and(|since| now >= since + RETRY_MAX_PAUSE) {
            self.pause = Duration::ZERO;
        }
        self.pause = (self.pause * 2).clamp(RETRY_MIN_PAUSE, RETRY_MAX_PAUSE);
        self.due = Some(now + self.pause);
    }
}

impl<S: Storage> Queue<S> {
    pub(super) fn on_append_error(&mut self, refusal: AppendError, now: Instant) {
        match refusal {
            AppendError::Failed(error) => self.on_storage_failed(error, now),
            // The log's own records go beyond every bound: only the file system refuses them.
            AppendError::Full | AppendError::FullForNow => {
                self.on_storage_failed(io::ErrorKind::StorageFull.into(), now)
            }
        }
    }

    /// A job had this error. Where a storage that fails is tried again and not a byte is free, what is
    /// there makes room for the next trial.
    pub(super) fn on_job_failed(&mut self, error: io::Error, now: Instant) {
        let refusal = AppendError::from(error);
        let makes_room = self.health.is_failing() && refusal.is_disk_full();
        self.on_append_error(refusal, now);
        let Some(log) = self.log.as_mut().filter(|_| makes_room) else { return };
        if log.reclaim_file() {
            self.storage_retry.due = Some(now);
        } else if !log.has_reclaimable_file() && self.on_full == OnFull::DropOldest {
            self.evict_telemetry(now);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the end of the error's way")]
    pub(super) fn on_storage_failed(&mut self, error: io::Error, now: Instant) {
        let before = self.health.clone();
        self.health.fail(&error);
        if self.health != before {
            tracing::error!("{}", self.health.sentence().unwrap_or_default());
        }
        self.storage_retry.failed(now);
        self.deadlines.failed();
        for told in std::mem::take(&mut self.ledger.announced_by_last_run) {
            self.ledger.requeue(told);
        }
        let Some(log) = &mut self.log else { return };
        let synced = log.synced();
        log.on_storage_failed(&self.ledger);
        for id in self.index.logged_after(synced) {
            if let Some(held) = self.index.get(id) {
                log.withdraw(id, held.counts());
                if *held.epoch == *self.ledger.epoch {
                    self.ledger.memory_only_seqs.insert((held.topic, held.seq));
                }
            }
            self.index.set_location(id, Location::Memory);
        }
    }

    /// Begins a new file after a failure, with everything that was not durable: a storage that takes
    /// a few bytes and not the rest does not work.
    pub(super) fn retry_storage(&mut self, now: Instant) {
        let Some(log) = self.log.as_mut().filter(|log| log.waiting_since().is_none()) else {
            return;
        };
        if self.storage_retry.due.take_if(|due| *due <= now).is_none() {
            return;
        }
        match log.begin_after_failure(&self.ledger) {
            Ok(()) => {
                self.deadlines.request_sync();
                self.append_up_to(u64::MAX, now);
            }
            Err(refusal) => self.on_append_error(refusal, now),
        }
    }

    /// After a clean end numbers go on under the old epoch. Where this run cannot write down that it
    /// gives any, the next one would give them again: it takes its own epoch instead.
    pub(super) fn use_new_epoch(&mut self, own: Arc<str>) {
        let log = self.log.as_mut().filter(|log| !log.is_writable());
        if let Some(log) = log.filter(|_| self.ledger.epoch != own) {
            log.change_epoch(Arc::clone(&own));
            self.ledger.epoch = own;
            self.ledger.next_seq.clear();
        }
    }

    /// Something became durable.
    pub(super) fn on_storage_works(&mut self, now: Instant) {
        if !self.health.is_failing() {
            return;
        }
        tracing::warn!("the storage works again");
        self.storage_retry.works_since = Some(now);
        self.health = self.working_health();
    }

    /// How a storage does that works.
    pub(super) fn working_health(&self) -> Health {
        let counts = self.log.as_ref().map(|log| log.disk_counters()).unwrap_or_default();
        Health::set_aside(counts.set_aside, counts.unreadable)
    }

    /// A job came to no end: what it was to make durable is not.
    pub fn on_job_died(&mut self, now: Instant) {
        self.log.iter_mut().for_each(Log::on_jobs_lost);
        self.on_storage_failed(io::Error::other("a job of the queue died"), now);
    }
}
