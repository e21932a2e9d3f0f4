//! What has to happen now and then: making things durable, writing down what is settled or lost.

use std::time::{Duration, Instant};

use provisioning::config::Durability;

use super::Queue;
use super::log::{Done, Job, Log, News, Refusal, Sync};
use super::ring::Place;
use super::storage::Storage;
use crate::metrics::DropReason;

/// With `balanced`, what was appended is made durable after this: with the time that a card takes,
/// about a second.
const SYNC_AFTER: Duration = Duration::from_millis(900);
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

/// When the next of all this is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    /// When the first of what is not durable was appended.
    appended: Option<Instant>,
    /// The same, of what a job is making durable.
    syncing: Option<Instant>,
    settled: Option<Instant>,
    lost: Option<Instant>,
    /// Whether a job that makes things durable has to follow.
    sync: bool,
    marked: Option<Instant>,
    marked_id: u64,
    write: Option<Instant>,
}

impl Deadlines {
    pub(super) fn appended(&mut self, now: Instant) {
        self.appended.get_or_insert(now);
    }

    pub(super) fn settled(&mut self, now: Instant) {
        self.settled.get_or_insert(now);
    }

    /// Nothing that was appended is there any more.
    pub(super) const fn failed(&mut self) {
        (self.appended, self.syncing) = (None, None);
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
        self.retry(now);
        self.write_old(now);
        self.look_for_room();
        self.mark(now);
        self.look(now);
        self.write_lost(now);
        self.flush(now);
        let job = self.sync_job(now).or_else(|| self.other_job());
        self.show();
        job
    }

    /// When [`Queue::turn`] has something to do although nothing happens.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let due = &self.deadlines;
        let log = self.log.as_ref()?;
        if !log.is_writable() {
            return self.trials.due;
        }
        if log.is_syncing() {
            return None;
        }
        let appended = due.appended.map(|since| since + self.sync_after());
        let settled = due.settled.filter(|_| log.has_settled()).map(|since| since + SETTLE_AFTER);
        let write = (self.durability == Durability::LowWear).then_some(due.write).flatten();
        let lost = due.lost.map(|since| since + LOST_AFTER);
        appended.into_iter().chain(settled).chain(write).chain(lost).min()
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
            News::Failed(error) => self.fail(error, now),
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
        let Some(since) = self.deadlines.syncing.take().filter(|_| !self.health.is_failing())
        else {
            return;
        };
        let waited =
            if self.durability == Durability::LowWear { WRITE_AFTER } else { Duration::ZERO };
        let age = waited + now.saturating_duration_since(since);
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        self.log.iter_mut().for_each(|log| log.widen(seconds));
    }

    const fn sync_after(&self) -> Duration {
        match self.durability {
            Durability::Strict | Durability::LowWear => Duration::ZERO,
            Durability::Balanced => SYNC_AFTER,
        }
    }

    pub(super) fn sync_job(&mut self, now: Instant) -> Option<Job<S>> {
        let after = self.sync_after();
        let log = self.log.as_mut()?;
        let is_over =
            |since: Option<Instant>, after| since.is_some_and(|since| now >= since + after);
        let is_due = is_over(self.deadlines.appended, after)
            || log.has_settled() && is_over(self.deadlines.settled, SETTLE_AFTER)
            || log.unsynced() > SYNC_BYTES
            || self.deadlines.sync;
        if !is_due {
            return None;
        }
        match log.sync(&self.ledger) {
            Ok(Sync::Job(job)) => {
                self.deadlines.syncing = self.deadlines.appended.take();
                self.deadlines.settled = None;
                self.deadlines.sync = false;
                Some(job)
            }
            Ok(Sync::Durable) => {
                self.deadlines.appended = None;
                self.deadlines.sync = false;
                None
            }
            Ok(Sync::Later) => None,
            Err(refusal) => {
                self.refused(refusal, now);
                None
            }
        }
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

    /// Hands what was appended to the operating system, so that it outlives this process.
    pub fn flush(&mut self, now: Instant) {
        self.control(now, |log, _| log.flush());
    }

    /// Makes everything durable before it returns.
    pub(super) fn sync_now(&mut self, now: Instant) {
        let Some(log) = self.log.as_mut().filter(|log| log.is_writable()) else { return };
        match log.sync_now(&mut self.ledger) {
            Ok(true) => {
                let synced = log.synced();
                self.durable_to(synced);
                self.works(now);
            }
            Ok(false) => self.deadlines.sync = true,
            Err(refusal) => self.refused(refusal, now),
        }
    }
}
