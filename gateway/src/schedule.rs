//! Decides when each job runs, and when to retry what failed. Pure: `now` and randomness are
//! arguments.

mod retry;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use retry::{RateBudget, RetryBackoff, RetryPolicy};

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScheduleStep<J> {
    /// Run this job now.
    Run {
        /// The job.
        job: J,
        /// Runs that were due since its last run, and are skipped.
        missed: u32,
    },
    /// Nothing is due before this time, or ever when there are no jobs.
    Wait(Option<Instant>),
}

/// A job that runs at a fixed rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeriodicJob<J> {
    /// What [`ScheduleStep::Run`] returns.
    pub job: J,
    /// Time between two runs, above zero.
    pub period: Duration,
    /// Position in its period at which it runs from the second time on, less than the period:
    /// spreads jobs of equal period.
    pub phase: Duration,
}

/// Fixed-rate schedule of the jobs of one connection, and a list of one-off jobs.
///
/// Every periodic job runs at the start, and then at `start + phase + n * period`, independent of
/// how long jobs take: no drift. The caller runs one job at a time, so that nothing overlaps. Runs
/// that are missed meanwhile are counted and skipped, never queued: a slow PLC is read less often,
/// not more.
#[derive(Debug)]
pub struct Schedule<J> {
    timers: Vec<JobTimer<J>>,
    /// One-off jobs, oldest first.
    once: VecDeque<J>,
}

/// When a periodic job is due.
#[derive(Debug)]
struct JobTimer<J> {
    job: J,
    period: Duration,
    next_due: Instant,
    /// The due time after `next_due`.
    following_due: Instant,
}

impl<J: Copy> Schedule<J> {
    /// Creates a schedule whose jobs are all due at `start`.
    pub fn new(jobs: impl IntoIterator<Item = PeriodicJob<J>>, start: Instant) -> Self {
        let timer = |PeriodicJob { job, period, phase }: PeriodicJob<J>| {
            let offset = if phase.is_zero() { period } else { phase };
            JobTimer { job, period, next_due: start, following_due: start + offset }
        };
        Self { timers: jobs.into_iter().map(timer).collect(), once: VecDeque::new() }
    }

    /// Returns the job that [`Schedule::next_step`] would run now.
    #[must_use]
    pub fn next_due_job(&self, now: Instant) -> Option<J> {
        if let Some(job) = self.once.front() {
            return Some(*job);
        }
        let timer = self.timers.iter().min_by_key(|timer| timer.next_due)?;
        (timer.next_due <= now).then_some(timer.job)
    }

    /// Adds a job that runs once, before the next periodic one. Such jobs run in the order in which
    /// they were added; the caller bounds their number.
    pub fn run_once(&mut self, job: J) {
        self.once.push_back(job);
    }

    /// Returns the oldest one-off job, else the job that has been due longest, else how long to
    /// wait.
    pub fn next_step(&mut self, now: Instant) -> ScheduleStep<J> {
        if let Some(job) = self.once.pop_front() {
            return ScheduleStep::Run { job, missed: 0 };
        }
        let Some(timer) = self.timers.iter_mut().min_by_key(|timer| timer.next_due) else {
            return ScheduleStep::Wait(None);
        };
        if timer.next_due > now {
            return ScheduleStep::Wait(Some(timer.next_due));
        }
        let missed = timer.advance(now);
        ScheduleStep::Run { job: timer.job, missed }
    }
}

impl<J> JobTimer<J> {
    /// Moves to the first due time after `now`. Returns how many were skipped.
    fn advance(&mut self, now: Instant) -> u32 {
        let period = self.period.as_nanos().max(1);
        // From the due time and not from `now`, so that late runs do not shift the grid.
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
