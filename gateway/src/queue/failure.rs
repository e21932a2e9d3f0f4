//! A storage that fails: what was not durable waits in memory, and a new file is tried from time to
//! time. The storage works again once something became durable: what is only written may still
//! fail.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::OnFull;

use super::index::Location;
use super::log::{AppendError, Log};
use super::storage::{DirStorageError, Storage};
use super::{Health, LOG_TARGET, Queue};

/// Pause before the first retry; it doubles up to [`RETRY_MAX_PAUSE`].
const RETRY_MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between retries, and the time that a storage must work for the pause to start
/// over.
const RETRY_MAX_PAUSE: Duration = Duration::from_secs(60);

/// When a failed storage is tried again.
///
/// Not a `schedule::RetryBackoff`: a success does not reset the pause before the storage has worked
/// for a minute, and no retry is due while one is running.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StorageRetryTimer {
    /// `None` while an attempt is running, and while the storage works.
    due: Option<Instant>,
    pause: Duration,
    is_retrying: bool,
    works_since: Option<Instant>,
}

impl StorageRetryTimer {
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Records a failure. A storage that works for moments only is retried as rarely as one that
    /// never works.
    fn on_failure(&mut self, now: Instant) {
        if self.works_since.take().is_some_and(|since| now >= since + RETRY_MAX_PAUSE) {
            self.pause = Duration::ZERO;
        }
        self.pause = (self.pause * 2).clamp(RETRY_MIN_PAUSE, RETRY_MAX_PAUSE);
        self.is_retrying = true;
        self.due = Some(now + self.pause);
    }

    /// Records that something became durable. Returns whether that is the first success after a
    /// failure.
    const fn on_success(&mut self, now: Instant) -> bool {
        let is_first = std::mem::replace(&mut self.is_retrying, false);
        if is_first {
            self.works_since = Some(now);
        }
        is_first
    }

    /// Returns whether nothing became durable since the last failure.
    pub(super) const fn is_retrying(&self) -> bool {
        self.is_retrying
    }

    const fn retry_now(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Returns whether a retry is due, and records that it is running.
    fn begin(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

impl<S: Storage> Queue<S> {
    pub(super) fn on_append_error(&mut self, error: AppendError, now: Instant) {
        match error {
            AppendError::Failed(error) => self.on_storage_failed(error, now),
            // The log's own records exceed every limit: only the file system refuses them.
            AppendError::Full | AppendError::DiskFull | AppendError::FullForNow => {
                self.on_storage_failed(io::ErrorKind::StorageFull.into(), now);
            }
        }
    }

    /// Records the error of a job. Where a failed storage is retried and not a byte is free, files
    /// of the queue make room for the next attempt: those in which nothing waits, and when memory
    /// is full too, the oldest.
    pub(super) fn on_job_failed(&mut self, error: io::Error, now: Instant) {
        let error = AppendError::from(error);
        let needs_room = self.storage_retry.is_retrying() && error.is_disk_full();
        self.on_append_error(error, now);
        let may_evict = self.on_full == OnFull::DropOldest && self.is_memory_short();
        let Some(log) = self.log.as_mut().filter(|_| needs_room) else { return };
        if log.reclaim_file() {
            self.storage_retry.retry_now(now);
        } else if !log.has_reclaimable_file() && may_evict {
            self.evict_telemetry(now);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the error ends here")]
    pub(super) fn on_storage_failed(&mut self, error: io::Error, now: Instant) {
        self.set_health(Health::failed(&error));
        self.storage_retry.on_failure(now);
        self.sync.on_storage_failed();
        for announced in std::mem::take(&mut self.ledger.announced_by_last_run) {
            self.ledger.requeue(announced);
        }
        let Some(log) = &mut self.log else { return };
        let synced = log.durability().synced();
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

    /// Sets the state of the storage. Logs one line when it begins or ends to keep samples in
    /// memory only, or does so for another reason.
    pub(super) fn set_health(&mut self, health: Health) {
        if self.health == health {
            return;
        }
        if health.is_memory_only() {
            tracing::error!(target: LOG_TARGET, "{health}");
        } else if self.health.is_memory_only() {
            tracing::warn!(target: LOG_TARGET, "samples are stored on disk again");
        }
        self.health = health;
    }

    /// Begins a new file after a failure, with everything that was not durable: a storage that
    /// takes a few bytes and not the rest does not work.
    pub(super) fn retry_storage(&mut self, now: Instant) {
        let Some(log) = self.log.as_mut().filter(|log| log.durability().waiting_since().is_none())
        else {
            return;
        };
        if !self.storage_retry.begin(now) {
            return;
        }
        match log.begin_after_failure(&self.ledger) {
            Ok(()) => {
                self.sync.request();
                self.append_all(now);
            }
            Err(error) => self.on_append_error(error, now),
        }
    }

    /// Switches to the run's own epoch when the log cannot be written. After a clean shutdown
    /// numbers continue under the old epoch; a run that cannot record the numbers that it gives
    /// would let the next run give them again.
    pub(super) fn use_new_epoch(&mut self, own_epoch: Arc<str>) {
        let log = self.log.as_mut().filter(|log| !log.is_writable());
        if let Some(log) = log.filter(|_| self.ledger.epoch != own_epoch) {
            log.change_epoch(Arc::clone(&own_epoch));
            self.ledger.epoch = own_epoch;
            self.ledger.next_seq.clear();
        }
    }

    /// Records that something became durable.
    pub(super) fn on_storage_works(&mut self, now: Instant) {
        if self.storage_retry.on_success(now) && self.health.is_failing() {
            self.set_health(self.working_health());
        }
    }

    /// Returns the health of a storage that works.
    pub(super) fn working_health(&self) -> Health {
        let counters = self.log.as_ref().map(Log::disk_counters).unwrap_or_default();
        Health::working(counters.newer_version_files, counters.unreadable_files)
    }

    /// Records that there is still no storage, and why.
    pub fn on_storage_unavailable(&mut self, error: &DirStorageError) {
        self.set_health(Health::unavailable(error));
    }

    /// Records that a job ended without a result: what it was to make durable is not.
    pub fn on_job_died(&mut self, now: Instant) {
        if let Some(log) = &mut self.log {
            log.on_jobs_lost();
        }
        self.on_storage_failed(io::Error::other("a job of the queue ended without a result"), now);
    }
}
