//! What has to happen now and then: making things durable, writing down what is settled or lost.

use std::io;
use std::time::{Duration, Instant};

use provisioning::config::Durability;

use super::Queue;
use super::log::{Done, Job, Log, News, Refusal};
use super::ring::Place;
use super::storage::Storage;
use crate::metrics::DropReason;

/// With `balanced`, what was appended is durable after this.
const DURABLE_AFTER: Duration = Duration::from_secs(1);
/// What a card is expected to need for that, at first and at least.
const TAKES_FIRST: Duration = Duration::from_millis(50);
const TAKES_LEAST: Duration = Duration::from_millis(15);
/// So much is made durable at once.
const SYNC_BYTES: u64 = 1 << 20;
/// With `low-wear`, what waits for so long is written.
const WRITE_AFTER: Duration = Duration::from_secs(4);
/// What there is no room for is tried again after this.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// With `low-wear`, the numbers that were given are written down after this.
const MARK_AFTER: Duration = Duration::from_secs(75);
/// What is settled is written down after this when nothing else is.
const SETTLE_AFTER: Duration = Duration::from_secs(5);
/// What is lost is written down after this, or with the next entry: in a queue that is full every
/// entry is.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// A device that has not answered for so long is as good as one that fails. Cards that tidy up take
/// seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the next of all this is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
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

impl Deadlines {
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
        self.takes = Some(took.max(fading).max(TAKES_LEAST));
    }

    fn takes(&self) -> Duration {
        self.takes.unwrap_or(TAKES_FIRST)
    }

    pub(super) const fn sync_at_once(&mut self) {
        self.sync = true;
    }
}

impl<S: Storage> Queue<S> {
    /// Does what is due and returns a job to run elsewhere, whose end [`Queue::done`] wants to know.
    /// Ask again until there is none, after everything that happens and at [`Queue::due`].
    pub fn turn(&mut self, now: Instant) -> Option<Job<S>> {
        self.log.as_ref()?;
        self.lose_patience(now);
        self.retry(now);
        self.write_old(now);
        self.look_for_room();
        self.mark(now);
        self.write_lost(now);
        let job = self.durable_job(now).or_else(|| self.other_job());
        self.show();
        job
    }

    /// The next job on the way to everything being written, and durable when that is due.
    pub(super) fn durable_job(&mut self, now: Instant) -> Option<Job<S>> {
        self.log.as_mut()?.flush();
        self.sync_job(now).or_else(|| self.log.as_mut()?.write(now))
    }

    /// When [`Queue::turn`] has something to do although nothing happens.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let due = &self.deadlines;
        let log = self.log.as_ref()?;
        if !log.is_writable() {
            return self.trials.due.filter(|_| log.waits_since().is_none());
        }
        let patience = log.waits_since().map(|since| since + PATIENCE);
        if log.is_syncing() || due.closing.is_some() {
            return patience;
        }
        let appended = due.appended.map(|since| since + self.sync_after());
        let settled = due.settled.filter(|_| log.has_settled()).map(|since| since + SETTLE_AFTER);
        let write = (self.durability == Durability::LowWear).then_some(due.write).flatten();
        let lost = due.lost.map(|since| since + LOST_AFTER);
        appended.into_iter().chain(settled).chain(write).chain(lost).chain(patience).min()
    }

    /// Takes the end of a job.
    pub fn done(&mut self, done: Done, now: Instant) {
        let Some(log) = &mut self.log else { return };
        match log.done(done, &mut self.ledger.topics) {
            News::None => {}
            News::Durable(took) => {
                self.metrics.sync_seconds.observe(took.as_secs_f64());
                let synced = log.synced();
                self.durable_to(synced);
                self.measure(now);
                self.works(now);
            }
            News::Failed(error) => self.failed(error, now),
            News::Read { gaps, ids, held, found } => {
                self.metrics.recovered.inc_by(found);
                self.metrics.count_dropped(DropReason::Corrupt, held.samples);
                gaps.into_iter().for_each(|gap| self.ledger.gaps.add(gap));
                let mut rest = held;
                // Samples of entries that are all there, by a count that did not survive.
                if ids.is_empty()
                    && let Some(log) = &mut self.log
                {
                    log.forget_samples(rest);
                }
                for id in ids {
                    self.ring.forget_paged(id, id);
                    if let Some(log) = &mut self.log {
                        log.settle_lost(id, std::mem::take(&mut rest));
                    }
                }
                self.deadlines.settled(now);
            }
        }
        self.show();
    }

    /// What is durable needs no copy in memory, and tells what it tells by itself.
    pub(super) fn durable_to(&mut self, synced: u64) {
        self.ledger.adopted.clear();
        let ring = &self.ring;
        self.ledger.pending.retain(|(id, _)| match ring.get(*id).map(|held| held.place) {
            None => false,
            Some(Place::Memory) => true,
            Some(Place::Logged { position, .. }) => position > synced,
        });
        self.ring.trim(super::CACHE, synced);
    }

    /// What a power cut may take is what one would have taken until now, at most.
    fn measure(&mut self, now: Instant) {
        self.deadlines.durable(now);
        let Some(since) = self.deadlines.syncing.take().filter(|_| !self.health.is_failing())
        else {
            return;
        };
        let age = now.saturating_duration_since(since);
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        self.log.iter_mut().for_each(|log| log.widen(seconds));
    }

    /// How long what was appended may wait. What the device needs counts twice: next time it may need
    /// more.
    fn sync_after(&self) -> Duration {
        match self.durability {
            Durability::Strict | Durability::LowWear => Duration::ZERO,
            Durability::Balanced => {
                DURABLE_AFTER.saturating_sub(2 * self.deadlines.takes()).max(DURABLE_AFTER / 2)
            }
        }
    }

    /// What is settled is written down first, then everything up to there is written, and then it is
    /// made durable.
    fn sync_job(&mut self, now: Instant) -> Option<Job<S>> {
        self.close_what_is_due(now);
        let log = self.log.as_mut()?;
        let is_written = |upto: &mut u64| *upto <= log.written();
        self.deadlines.closing.take_if(is_written)?;
        log.sync(now)
    }

    fn close_what_is_due(&mut self, now: Instant) {
        let after = self.sync_after();
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        let is_over =
            |since: Option<Instant>, after| since.is_some_and(|since| now >= since + after);
        let is_due = is_over(self.deadlines.appended, after)
            || log.has_settled() && is_over(self.deadlines.settled, SETTLE_AFTER)
            || log.unsynced() > SYNC_BYTES
            || self.deadlines.sync;
        if !is_due || log.is_syncing() || self.deadlines.closing.is_some() {
            return;
        }
        if let Err(refusal) = log.write_settled(&self.ledger) {
            return self.refused(refusal, now);
        }
        log.flush();
        self.deadlines.settled = None;
        self.deadlines.sync = false;
        let since = self.deadlines.appended.take();
        if !log.is_dirty() {
            return log.recycle();
        }
        self.deadlines.syncing = since;
        self.deadlines.closing = Some(log.position());
        self.deadlines.closed = Some(now);
    }

    fn other_job(&mut self) -> Option<Job<S>> {
        let log = self.log.as_mut()?;
        if let Some(id) = self.cursors.wanted
            && let Some(job) = log.load(id, &self.ledger)
        {
            self.cursors.wanted = None;
            return Some(job);
        }
        log.prepare()
    }

    /// With `low-wear`: what waits for too long is written after all.
    fn write_old(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            if self.ring.first_unstored().is_some() {
                self.write_up_to(u64::MAX, now);
            }
            return;
        }
        let since = self.ring.first_unstored().and_then(|id| self.ring.get(id)?.since);
        let is_due = since.is_some_and(|since| now >= since + WRITE_AFTER);
        if is_due {
            // Everything that will be due within a second goes along: one write instead of many.
            let before = now.checked_sub(WRITE_AFTER - Duration::from_secs(1));
            let last = before.and_then(|before| self.ring.unstored_since(before));
            self.write_up_to(last.unwrap_or(0), now);
        }
        let since = self.ring.first_unstored().and_then(|id| self.ring.get(id)?.since);
        let due = since.map(|since| since + WRITE_AFTER);
        // Without room there is none a moment later either.
        self.deadlines.write = due.map(|due| if due > now { due } else { now + WRITE_AGAIN });
    }

    /// With `low-wear`: the numbers that were given are written down, so that an unclean start
    /// knows about them.
    fn mark(&mut self, now: Instant) {
        if self.durability != Durability::LowWear {
            return;
        }
        let marked = *self.deadlines.marked.get_or_insert(now);
        let is_news = self.ledger.next_id != self.deadlines.marked_id;
        if now < marked + MARK_AFTER || !is_news {
            return;
        }
        self.deadlines.marked = Some(now);
        self.deadlines.marked_id = self.ledger.next_id;
        self.deadlines.sync = true;
        self.control(now, |log, ledger| log.checkpoint(ledger));
    }

    /// Writes down what is lost and not told.
    fn write_lost(&mut self, now: Instant) {
        if !self.ledger.gaps.has_changed() {
            self.deadlines.lost = None;
            return;
        }
        if now < *self.deadlines.lost.get_or_insert(now) + LOST_AFTER {
            return;
        }
        self.write_losses(now);
    }

    pub(super) fn write_losses(&mut self, now: Instant) {
        if !self.log.as_ref().is_some_and(Log::is_writable) {
            return;
        }
        self.deadlines.lost = None;
        let gaps = self.ledger.take_losses();
        if gaps.is_empty() {
            return;
        }
        self.deadlines.appended(now);
        self.control(now, |log, ledger| gaps.iter().try_for_each(|gap| log.lost(ledger, gap)));
    }

    fn control(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut Log<S>, &super::Ledger) -> Result<(), Refusal>,
    ) {
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        if let Err(refusal) = write(log, &self.ledger) {
            self.refused(refusal, now);
        }
    }

    /// Makes everything durable before it returns, unless a job is under way.
    pub(super) fn sync_now(&mut self, now: Instant) {
        self.deadlines.sync_at_once();
        while let Some(job) = self.durable_job(now) {
            self.done(job.run(), now);
        }
    }

    /// A device that does not answer: what waits for it is nowhere but in memory.
    fn lose_patience(&mut self, now: Instant) {
        let log = self.log.as_ref().filter(|log| log.is_writable());
        let since = log.and_then(Log::waits_since);
        if since.is_some_and(|since| now >= since + PATIENCE) {
            self.fail(hangs(), now);
        }
    }

    /// Hands what was appended to the operating system before it returns: after a kill it is there.
    #[cfg(test)]
    pub(super) fn flush(&mut self, now: Instant) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write_now() {
            self.failed(error, now);
        }
    }
}

/// The error of a device that owes an answer.
pub(super) fn hangs() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}
