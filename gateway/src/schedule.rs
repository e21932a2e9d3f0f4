//! When to read what, and when to try again. Pure: `now` and randomness are arguments.

mod retry;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use retry::{RateBudget, RetryBackoff, RetryPolicy};

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScheduleStep<G> {
    /// Read this group now. `missed` cycles went by unread since its last turn.
    Run {
        /// What to read.
        job: G,
        /// Cycles that were due and are skipped.
        missed: u32,
    },
    /// Nothing is due before this instant, or ever when there are no groups.
    Wait(Option<Instant>),
}

/// What is read at a fixed rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeriodicJob<G> {
    /// What the driver gets back when it is due.
    pub job: G,
    /// Time between two reads, above zero.
    pub period: Duration,
    /// Where in its period it is read from the second time on, less than the period: keeps groups
    /// of equal period apart.
    pub phase: Duration,
}

/// Fixed-rate schedule over the groups of one PLC.
///
/// Every group is read at the start and then at `start + phase + n * period`, whatever the reads
/// take: no drift. The caller reads one group at a time, so nothing overlaps. Cycles that pass
/// meanwhile are counted and skipped, never queued: a slow PLC is read less often, not more.
#[derive(Debug)]
pub struct Schedule<G> {
    timers: Vec<JobTimer<G>>,
}

#[derive(Debug)]
struct JobTimer<G> {
    job: G,
    period: Duration,
    next_due: Instant,
    /// The first due time after `due`.
    following_due: Instant,
}

impl<G: Copy> Schedule<G> {
    /// Makes every group due at `start`.
    pub fn new(groups: impl IntoIterator<Item = PeriodicJob<G>>, start: Instant) -> Self {
        let turn = |PeriodicJob { job: group, period, phase }: PeriodicJob<G>| {
            let offset = if phase.is_zero() { period } else { phase };
            JobTimer { job: group, period, next_due: start, following_due: start + offset }
        };
        Self { timers: groups.into_iter().map(turn).collect() }
    }

    /// The group that has been due longest, which [`Schedule::next`] would pick now.
    #[must_use]
    pub fn next_due_job(&self, now: Instant) -> Option<G> {
        let turn = self.timers.iter().min_by_key(|turn| turn.next_due)?;
        (turn.next_due <= now).then_some(turn.job)
    }

    /// Picks the group that has been due longest, or tells how long to wait.
    pub fn next_step(&mut self, now: Instant) -> ScheduleStep<G> {
        let Some(turn) = self.timers.iter_mut().min_by_key(|turn| turn.next_due) else {
            return ScheduleStep::Wait(None);
        };
        if turn.next_due > now {
            return ScheduleStep::Wait(Some(turn.next_due));
        }
        let missed = turn.advance(now);
        ScheduleStep::Run { job: turn.job, missed }
    }
}

impl<G> JobTimer<G> {
    /// Moves to the first due time after `now`; returns how many were passed over.
    fn advance(&mut self, now: Instant) -> u32 {
        let period = self.period.as_nanos().max(1);
        let (due, missed) = match now.checked_duration_since(self.following_due) {
            None => (self.following_due, 0),
            Some(late) => {
                let into_cycle = u64::try_from(late.as_nanos() % period).unwrap_or(u64::MAX);
                let due = now - Duration::from_nanos(into_cycle) + self.period;
                (due, late.as_nanos() / period + 1)
            }
        };
        self.next_due = due;
        self.following_due = due + self.period;
        u32::try_from(missed).unwrap_or(u32::MAX)
    }
}
