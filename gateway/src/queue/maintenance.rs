//! What has to happen now and then: making things durable, writing down what is settled or lost.

use std::io;
use std::time::{Duration, Instant};

use provisioning::config::Durability;

use super::Queue;
use super::index::Location;
use super::log::{AppendError, DiskJob, DiskJobDone, JobOutcome, Log};
use super::storage::Storage;
use crate::metrics::DropReason;

/// With `balanced`, what was appended is durable after this.
const MAX_SYNC_DELAY: Duration = Duration::from_secs(1);
/// What a card is expected to need for that, at first and at least.
const INITIAL_SYNC_TIME: Duration = Duration::from_millis(50);
const MIN_SYNC_TIME: Duration = Duration::from_millis(15);
/// So much is made durable at once.
const MAX_UNSYNCED_BYTES: u64 = 1 << 20;
/// With `low-wear`, what waits for so long is written.
const LOW_WEAR_WRITE_DELAY: Duration = Duration::from_secs(4);
/// What there is no room for is tried again after this.
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// With `low-wear`, the numbers that were given are written down after this.
const LOW_WEAR_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(75);
/// What is settled is written down after this when nothing else is.
const MAX_SETTLED_DELAY: Duration = Duration::from_secs(5);
/// What is lost is written down after this, or with the next entry: in a queue that is full every
/// entry is.
const MAX_LOSS_DELAY: Duration = Duration::from_secs(5);
/// A device that has not answered for so long is as good as one that fails. Cards that tidy up take
/// seconds.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// When the next of all this is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SyncState {
    /// Since when the first of what was appended and is not durable waits.
    appended: Option<Instant>,
    /// The same, of what is being made durable.
    syncing: Option<Instant>,
    /// Everything up to this position is written first, and then made durable.
    closing: Option<u64>,
    /// When that began.
    closed: Option<Instant>,
    /// What the device has needed for it lately, at most; nothing before the first time.
    takes: Option<Duration>,
    settled: Option<Instant>,
    lost: Option<Instant>,
    /// Whether a job that makes things durable has to follow.
    sync: bool,
    marked: Option<Instant>,
    marked_id: u64,
    write: Option<Instant>,
}

impl SyncState {
    pub(super) fn appended(&mut self, since: Instant) {
        self.appended.get_or_insert(since);
    }

    pub(super) fn settled(&mut self, now: Instant) {
        self.settled.get_or_insert(now);
    }

    /// Nothing that was appended is there any more.
    pub(super) const fn failed(&mut self) {
        (self.appended, self.syncing) = (None, None);
        (self.closing, self.closed) = (None, None);
    }

    /// The slowest time counts for minutes: a card that tidies up does so again.
    fn durable(&mut self, now: Instant) {
        let Some(closed) = self.closed.take() else { return };
        let fading = self.takes() - self.takes() / 64;
        let took = now.saturating_duration_since(closed);
        self.takes = Some(took.max(fading).max(MIN_SYNC_TIME));
    }

    fn takes(&self) -> Duration {
        self.takes.unwrap_or(INITIAL_SYNC_TIME)
    }

    pub(super) const fn request_sync(&mut self) {
        self.sync = true;
    }
}

impl<S: Storage> Queue<S> {
    /// Does what is due and returns a job to run elsewhere, whose end [`Queue::done`] wants to know.
    /// Ask again until there is none, after everything that happens and at [`Queue::due`].
    pub fn next_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.log.as_ref()?;
        self.check_timeout(now);
        self.retry_storage(now);
        self.append_due(now);
        self.check_disk_space();
        self.checkpoint_if_due(now);
        self.record_losses_if_due(now);
        let job = self.next_durability_job(now).or_else(|| self.next_read_or_prepare_job());
        self.update_gauges();
        job
    }

    /// The next job on the way to everything being written, and durable when that is due.
    pub(super) fn next_durability_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.log.as_mut()?.flush();
        self.next_sync_job(now).or_else(|| self.log.as_mut()?.write_job(now))
    }

    /// When [`Queue::turn`] has something to do although nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = &self.deadlines;
        let log = self.log.as_ref()?;
        if !log.is_writable() {
            return self.storage_retry.due.filter(|_| log.waiting_since().is_none());
        }
        let patience = log.waiting_since().map(|since| since + SYNC_TIMEOUT);
        if log.is_syncing() || due.closing.is_some() {
            return patience;
        }
        let appended = due.appended.map(|since| since + self.sync_delay());
        let settled =
            due.settled.filter(|_| log.has_settled()).map(|since| since + MAX_SETTLED_DELAY);
        let write = (self.durability == Durability::LowWear).then_some(due.write).flatten();
        let lost = due.lost.map(|since| since + MAX_LOSS_DELAY);
        appended.into_iter().chain(settled).chain(write).chain(lost).chain(patience).min()
    }

    /// Takes the end of a job.
    pub fn on_job_done(&mut self, done: DiskJobDone, now: Instant) {
        let Some(log) = &mut self.log else { return };
        match log.on_job_done(done, &mut self.ledger.topics) {
            JobOutcome::None => {}
            JobOutcome::Durable(took) => {
                self.metrics.sync_seconds.observe(took.as_secs_f64());
                let synced = log.synced();
                self.on_synced(synced);
                self.update_power_window(now);
                self.on_storage_works(now);
            }
            JobOutcome::Failed(error) => self.on_job_failed(error, now),
            JobOutcome::Read { gaps, ids, held, found } => {
                self.metrics.recovered.inc_by(found);
                self.metrics.count_dropped(DropReason::Corrupt, held.samples);
                gaps.into_iter().for_each(|gap| self.ledger.gaps.add(gap));
                let mut rest = held;
                // Samples of entries that are all there, by a count that did not survive.
                if ids.is_empty()
                    && let Some(log) = &mut self.log
                {
                    log.subtract_samples(rest);
                }
                for id in ids {
                    self.index.remove_disk_only(id, id);
                    if let Some(log) = &mut self.log {
                        log.settle_lost(id, std::mem::take(&mut rest));
                    }
                }
                self.deadlines.settled(now);
            }
        }
        self.update_gauges();
    }

    /// What is durable needs no copy in memory, and tells what it tells by itself.
    pub(super) fn on_synced(&mut self, synced: u64) {
        self.ledger.announced_by_last_run.clear();
        let ring = &self.index;
        self.ledger.announced_by.retain(|(id, _)| match ring.get(*id).map(|held| held.location) {
            None => false,
            Some(Location::Memory) => true,
            Some(Location::Logged { position, .. }) => position > synced,
        });
        self.index.trim_cache(super::CACHE_BYTES, synced);
    }

    /// What a power cut may take is what one would have taken until now, at most.
    fn update_power_window(&mut self, now: Instant) {
        self.deadlines.durable(now);
        let Some(since) = self.deadlines.syncing.take().filter(|_| !self.health.is_failing())
        else {
            return;
        };
        let age = now.saturating_duration_since(since);
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        self.log.iter_mut().for_each(|log| log.extend_loss_window(seconds));
    }

    /// How long what was appended may wait. What the device needs counts twice: next time it may need
    /// more.
    fn sync_delay(&self) -> Duration {
        match self.durability {
            Durability::Strict | Durability::LowWear => Duration::ZERO,
            Durability::Balanced => {
                MAX_SYNC_DELAY.saturating_sub(2 * self.deadlines.takes()).max(MAX_SYNC_DELAY / 2)
            }
        }
    }

    /// What is settled is written down first, then everything up to there is written, and then it is
    /// made durable.
    fn next_sync_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        self.start_due_sync(now);
        let log = self.log.as_mut()?;
        let is_written = |upto: &mut u64| *upto <= log.written();
        self.deadlines.closing.take_if(is_written)?;
        log.sync_job(now)
    }

    fn start_due_sync(&mut self, now: Instant) {
        let after = self.sync_delay();
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        let is_over =
            |since: Option<Instant>, after| since.is_some_and(|since| now >= since + after);
        let is_due = is_over(self.deadlines.appended, after)
            || log.has_settled() && is_over(self.deadlines.settled, MAX_SETTLED_DELAY)
            || log.unsynced_bytes() > MAX_UNSYNCED_BYTES
            || self.deadlines.sync;
        if !is_due || log.is_syncing() || self.deadlines.closing.is_some() {
            return;
        }
        if let Err(refusal) = log.append_settled(&self.ledger) {
            return self.on_append_error(refusal, now);
        }
        log.flush();
        self.deadlines.settled = None;
        self.deadlines.sync = false;
        let since = self.deadlines.appended.take();
        if !log.has_unsynced() {
            return log.recycle();
        }
        self.deadlines.syncing = since;
        self.deadlines.closing = Some(log.position());
        self.deadlines.closed = Some(now);
    }

    fn next_read_or_prepare_job(&mut self) -> Option<DiskJob<S>> {
        let log = self.log.as_mut()?;
        if let Some(id) = self.cursors.read_request
            && let Some(job) = log.read_job(id, &self.ledger)
        {
            self.cursors.read_request = None;
            return Some(job);
        }
        log.prepare_job()
    }

    /// With `low-wear`: what waits for too long is written after all.
    fn append_due(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            if self.index.first_memory_only().is_some() {
                self.append_up_to(u64::MAX, now);
            }
            return;
        }
        let since = self.index.first_memory_only().and_then(|id| self.index.get(id)?.pushed_at);
        let is_due = since.is_some_and(|since| now >= since + LOW_WEAR_WRITE_DELAY);
        if is_due {
            // Everything that will be due within a second goes along: one write instead of many.
            let before = now.checked_sub(LOW_WEAR_WRITE_DELAY - Duration::from_secs(1));
            let last = before.and_then(|before| self.index.last_memory_only_before(before));
            self.append_up_to(last.unwrap_or(0), now);
        }
        let since = self.index.first_memory_only().and_then(|id| self.index.get(id)?.pushed_at);
        let due = since.map(|since| since + LOW_WEAR_WRITE_DELAY);
        // Without room there is none a moment later either.
        self.deadlines.write = due.map(|due| if due > now { due } else { now + WRITE_RETRY_DELAY });
    }

    /// With `low-wear`: the numbers that were given are written down, so that an unclean start
    /// knows about them.
    fn checkpoint_if_due(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            return;
        }
        let marked = *self.deadlines.marked.get_or_insert(now);
        let is_news = self.ledger.next_id != self.deadlines.marked_id;
        if now < marked + LOW_WEAR_CHECKPOINT_INTERVAL || !is_news {
            return;
        }
        self.deadlines.marked = Some(now);
        self.deadlines.marked_id = self.ledger.next_id;
        self.deadlines.sync = true;
        self.append_control(now, |log, ledger| log.append_checkpoint(ledger));
    }

    /// Writes down what is lost and not told.
    fn record_losses_if_due(&mut self, now: Instant) {
        if !self.ledger.gaps.has_changed() {
            self.deadlines.lost = None;
            return;
        }
        if now < *self.deadlines.lost.get_or_insert(now) + MAX_LOSS_DELAY {
            return;
        }
        self.record_losses(now);
    }

    pub(super) fn record_losses(&mut self, now: Instant) {
        if !self.log.as_ref().is_some_and(Log::is_writable) {
            return;
        }
        self.deadlines.lost = None;
        let gaps = self.ledger.take_losses();
        if gaps.is_empty() {
            return;
        }
        self.deadlines.appended(now);
        self.append_control(now, |log, ledger| {
            gaps.iter().try_for_each(|gap| log.append_loss(ledger, gap))
        });
    }

    fn append_control(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut Log<S>, &super::Ledger) -> Result<(), AppendError>,
    ) {
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        if let Err(refusal) = write(log, &self.ledger) {
            self.on_append_error(refusal, now);
        }
    }

    /// Makes everything durable before it returns, unless a job is under way.
    pub(super) fn sync_now(&mut self, now: Instant) {
        self.deadlines.request_sync();
        while let Some(job) = self.next_durability_job(now) {
            self.on_job_done(job.run(), now);
        }
    }

    /// A device that does not answer: what waits for it is nowhere but in memory.
    fn check_timeout(&mut self, now: Instant) {
        let log = self.log.as_ref().filter(|log| log.is_writable());
        let since = log.and_then(Log::waiting_since);
        if since.is_some_and(|since| now >= since + SYNC_TIMEOUT) {
            self.on_storage_failed(stalled_error(), now);
        }
    }

    /// Hands what was appended to the operating system before it returns: after a kill it is there.
    #[cfg(test)]
    pub(super) fn flush(&mut self, now: Instant) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write_now() {
            self.on_job_failed(error, now);
        }
    }
}

/// The error of a device that owes an answer.
pub(super) fn stalled_error() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}
