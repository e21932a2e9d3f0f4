//! What has to happen from time to time: making entries durable, recording what is settled or lost.

use std::io;
use std::time::{Duration, Instant};

use provisioning::config::Durability;

use super::Queue;
use super::index::Location;
use super::log::{AppendError, DiskJob, DiskJobDone, EntryCounts, JobOutcome, Log};
use super::storage::Storage;
use crate::metrics::DropReason;

/// With `balanced`, an entry is durable this long after it was pushed.
const MAX_SYNC_DELAY: Duration = Duration::from_secs(1);
/// More bytes than this are made durable without delay.
const MAX_UNSYNCED_BYTES: u64 = 1 << 20;
/// With `low-wear`, an entry is written this long after it was pushed.
const LOW_WEAR_WRITE_DELAY: Duration = Duration::from_secs(4);
/// With `low-wear`, the pause before writing is tried again when there was no room.
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// With `low-wear`, the interval in which the numbers given are recorded.
const LOW_WEAR_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(75);
/// What is settled is recorded after this time, or with the next sync.
const MAX_SETTLED_DELAY: Duration = Duration::from_secs(5);
/// What is lost is recorded after this time, or with the next entry: in a full queue every entry
/// costs another one.
const MAX_LOSS_DELAY: Duration = Duration::from_secs(5);
/// A device that has not answered for this long counts as failing. SD cards that reorganise their
/// flash take seconds.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// When records of the log are due that no entry brings along.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecordDeadlines {
    /// When the first entry was settled that no record states.
    settled_since: Option<Instant>,
    /// When the first loss happened that no record states.
    lost_since: Option<Instant>,
    /// With `low-wear`, when the next entries are written.
    write_at: Option<Instant>,
    /// With `low-wear`, when the numbers given were recorded, and the next id at that time.
    checkpointed: Option<(Instant, u64)>,
}

impl<S: Storage> Queue<S> {
    /// Does what is due, and returns a job to run on another thread; [`Queue::on_job_done`] takes
    /// its result. Call it until there is none, after everything that happens and at
    /// [`Queue::next_deadline`].
    pub fn next_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let job = self.log.is_some().then(|| self.maintain(now)).flatten();
        // The only place that updates the gauges: it is passed after everything that happens,
        // before anything else runs on this thread.
        self.update_gauges();
        job
    }

    fn maintain(&mut self, now: Instant) -> Option<DiskJob<S>> {
        // Before the rest, which must not append to a device that has just timed out.
        self.check_timeout(now);
        self.retry_storage(now);
        self.append_due(now);
        self.check_disk_space();
        self.checkpoint_if_due(now);
        self.record_losses_if_due(now);
        self.next_durability_job(now).or_else(|| self.next_other_job(now))
    }

    /// Returns the next job on the way to everything being written, and durable when that is due.
    pub(super) fn next_durability_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.log.as_mut()?.flush();
        // In this order: a due sync first appends what is settled, which is then written as well.
        self.next_sync_job(now).or_else(|| self.log.as_mut()?.write_job(now))
    }

    /// Returns when [`Queue::next_job`] has something to do even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let log = self.log.as_ref()?;
        if !log.is_writable() {
            return self.storage_retry.due().filter(|_| log.durability().waiting_since().is_none());
        }
        let timeout = log.durability().waiting_since().map(|since| since + SYNC_TIMEOUT);
        if log.durability().is_syncing() || !self.sync.is_idle() {
            return timeout;
        }
        let RecordDeadlines { settled_since, lost_since, write_at, .. } = self.deadlines;
        let sync = self.sync.oldest_unsynced().map(|since| since + self.sync_delay());
        let settled = settled_since.filter(|_| log.has_settled());
        let settled = settled.map(|since| since + MAX_SETTLED_DELAY);
        let write = write_at.filter(|_| self.durability == Durability::LowWear);
        let loss = lost_since.map(|since| since + MAX_LOSS_DELAY);
        [sync, settled, write, loss, timeout].into_iter().flatten().min()
    }

    /// Records the end of a job.
    pub fn on_job_done(&mut self, done: DiskJobDone, now: Instant) {
        let Some(log) = &mut self.log else { return };
        match log.on_job_done(done, &mut self.ledger.topics, now) {
            JobOutcome::None => {}
            JobOutcome::Durable(took) => {
                self.metrics.sync_seconds.observe(took.as_secs_f64());
                self.on_synced();
                self.update_power_window(now);
                self.on_storage_works(now);
                if !self.health.is_memory_only()
                    && let Some(log) = &mut self.log
                {
                    log.remove_failing_marker();
                }
            }
            JobOutcome::Failed(error) => self.on_job_failed(error, now),
            JobOutcome::Read { gaps, missing, lost, recovered } => {
                self.metrics.recovered.inc_by(recovered);
                gaps.into_iter().for_each(|gap| self.ledger.gaps.add(gap));
                self.on_missing(&missing, lost, now);
            }
        }
    }

    /// Records that these ids are not where they should be, and what they held.
    fn on_missing(&mut self, missing: &[u64], lost: EntryCounts, now: Instant) {
        self.metrics.count_dropped(DropReason::Corrupt, lost.samples);
        self.deadlines.settled_since.get_or_insert(now);
        let Some(log) = &mut self.log else { return };
        if missing.is_empty() {
            // All entries are there, and a count of their samples did not survive.
            log.subtract_samples(lost.samples);
        }
        let mut rest = lost;
        for id in missing {
            self.index.remove_disk_only(*id, *id);
            log.settle_lost(*id, std::mem::take(&mut rest));
        }
    }

    /// Drops what became durable from memory, and what it announces from the ledger.
    fn on_synced(&mut self) {
        let synced = self.log.as_ref().map_or(0, |log| log.durability().synced());
        self.ledger.announced_by_last_run.clear();
        let index = &self.index;
        self.ledger.announced_by.retain(|(id, _)| match index.get(*id).map(|held| held.location) {
            None | Some(Location::Stored { .. }) => false,
            Some(Location::Memory) => true,
            Some(Location::Appended { position, .. }) => position > synced,
        });
        self.index.trim_cache(super::CACHE_BYTES, synced);
    }

    /// Extends the seconds that a power cut may cost to those that one would have cost until now.
    fn update_power_window(&mut self, now: Instant) {
        let oldest = self.sync.on_durable(now).filter(|_| !self.health.is_memory_only());
        let (Some(oldest), Some(log)) = (oldest, &mut self.log) else { return };
        let age = now.saturating_duration_since(oldest);
        log.extend_loss_window(age.as_secs() + u64::from(age.subsec_nanos() > 0));
    }

    /// Returns how long an appended entry may wait for a sync. The time of a sync counts twice: the
    /// next one may take longer.
    fn sync_delay(&self) -> Duration {
        match self.durability {
            Durability::Strict | Durability::LowWear => Duration::ZERO,
            Durability::Balanced => {
                MAX_SYNC_DELAY.saturating_sub(2 * self.sync.sync_time()).max(MAX_SYNC_DELAY / 2)
            }
        }
    }

    /// Returns a job that makes durable what is due: what is settled is recorded first, then
    /// everything up to there is written, and then it is synced.
    fn next_sync_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.start_due_sync(now);
        let log = self.log.as_mut()?;
        if !self.sync.is_ready_to_sync(log.durability().written()) {
            return None;
        }
        let job = log.sync_job(now)?;
        self.sync.on_sync_began();
        Some(job)
    }

    fn start_due_sync(&mut self, now: Instant) {
        let delay = self.sync_delay();
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        let is_over =
            |since: Option<Instant>, delay| since.is_some_and(|since| now >= since + delay);
        let is_due = is_over(self.sync.oldest_unsynced(), delay)
            || log.has_settled() && is_over(self.deadlines.settled_since, MAX_SETTLED_DELAY)
            || log.unsynced_bytes() > MAX_UNSYNCED_BYTES
            || self.sync.is_requested();
        if !is_due || log.durability().is_syncing() || !self.sync.is_idle() {
            return;
        }
        if let Err(error) = log.append_settled(&self.ledger) {
            return self.on_append_error(error, now);
        }
        log.flush();
        self.deadlines.settled_since = None;
        if log.has_unsynced() {
            self.sync.begin(log.position(), now);
        } else {
            self.sync.on_nothing_unsynced();
            log.recycle();
        }
    }

    /// Returns a job that reads, prepares or measures.
    fn next_other_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let log = self.log.as_mut()?;
        if let Some(id) = self.cursors.read_request
            && let Some(job) = log.read_job(id, &self.ledger)
        {
            self.cursors.read_request = None;
            return Some(job);
        }
        log.prepare_job().or_else(|| log.measure_job(now))
    }

    /// Appends what waits in memory only: all of it, or with `low-wear` what has waited long
    /// enough.
    fn append_due(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            return self.append_all(now);
        }
        let is_due = |since: Instant| now >= since + LOW_WEAR_WRITE_DELAY;
        if self.oldest_in_memory().is_some_and(is_due) {
            // Together with what will be due within a second: one write instead of many.
            let before = now.checked_sub(LOW_WEAR_WRITE_DELAY - Duration::from_secs(1));
            let last = before.and_then(|before| self.index.last_memory_only_before(before));
            if last.is_some() {
                self.append_up_to(last, now);
            }
        }
        let due = self.oldest_in_memory().map(|since| since + LOW_WEAR_WRITE_DELAY);
        // Without room now there is none a moment later either.
        self.deadlines.write_at =
            due.map(|due| if due > now { due } else { now + WRITE_RETRY_DELAY });
    }

    /// Returns when the oldest entry was pushed that is in memory only.
    fn oldest_in_memory(&self) -> Option<Instant> {
        self.index.get(self.index.first_memory_only()?)?.pushed_at
    }

    /// Records the numbers given, with `low-wear` only, so that the start after a crash knows them.
    fn checkpoint_if_due(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            return;
        }
        let (at, next_id) = *self.deadlines.checkpointed.get_or_insert((now, 0));
        if now < at + LOW_WEAR_CHECKPOINT_INTERVAL || next_id == self.ledger.next_id {
            return;
        }
        self.deadlines.checkpointed = Some((now, self.ledger.next_id));
        self.sync.request();
        self.append_control(now, |log, ledger| log.append_checkpoint(ledger));
    }

    fn record_losses_if_due(&mut self, now: Instant) {
        if !self.ledger.gaps.has_changed() {
            self.deadlines.lost_since = None;
        } else if now >= *self.deadlines.lost_since.get_or_insert(now) + MAX_LOSS_DELAY {
            self.record_losses(now);
        }
    }

    /// Records what is lost and not announced.
    pub(super) fn record_losses(&mut self, now: Instant) {
        if !self.log.as_ref().is_some_and(Log::is_writable) {
            return;
        }
        self.deadlines.lost_since = None;
        let gaps = self.ledger.take_losses();
        if gaps.is_empty() {
            return;
        }
        self.sync.on_appended(now);
        self.append_control(now, |log, ledger| {
            gaps.iter().try_for_each(|gap| log.append_loss(ledger, gap))
        });
    }

    /// Records that an entry in the log was settled.
    pub(super) fn on_settled(&mut self, now: Instant) {
        self.deadlines.settled_since.get_or_insert(now);
    }

    fn append_control(
        &mut self,
        now: Instant,
        append: impl FnOnce(&mut Log<S>, &super::Ledger) -> Result<(), AppendError>,
    ) {
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        if let Err(error) = append(log, &self.ledger) {
            self.on_append_error(error, now);
        }
    }

    /// Makes everything durable before it returns, unless a job is running.
    pub(super) fn sync_now(&mut self, now: Instant) {
        self.sync.request();
        while let Some(job) = self.next_durability_job(now) {
            self.on_job_done(job.run(), now);
        }
    }

    /// Takes a device that does not answer for a storage that fails.
    fn check_timeout(&mut self, now: Instant) {
        let log = self.log.as_ref().filter(|log| log.is_writable());
        let since = log.and_then(|log| log.durability().waiting_since());
        if since.is_some_and(|since| now >= since + SYNC_TIMEOUT) {
            self.on_storage_failed(stalled_error(), now);
        }
    }

    /// Hands what was appended to the operating system before it returns: a kill does not lose it.
    #[cfg(test)]
    pub(super) fn flush(&mut self, now: Instant) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write_now() {
            self.on_job_failed(error, now);
        }
    }
}

/// Returns the error of a device that does not answer.
pub(super) fn stalled_error() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}
