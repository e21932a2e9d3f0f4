//! Finds out whether a server closes the connection after each answer, or after a short pause, and
//! how often it can be read then. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use super::RateLimit;

/// Cycles in a row that needed a new connection before the server is taken for one that closes: it
/// may have been restarted once.
const MIN_CYCLES: u8 = 2;

/// Answers in a row after each of which the connection was closed, before a job waits for its next
/// connection: a server that fails now and then is not read later for it.
const MIN_CLOSES_IN_A_ROW: u16 = 5;

/// The connects that each cycle costs although no request failed.
#[derive(Debug)]
pub(super) struct CloseTracker {
    /// Seconds between two connects that the budget allows.
    interval: Duration,
    /// Consecutive jobs during which the server closed the connection after an answer.
    cycles: u8,
    /// Closes during the current job.
    closes: u16,
    /// Closes without an answer on a kept connection in between.
    closes_in_a_row: u16,
    /// Closes during the last job with any.
    last_closes: u16,
    last_start: Option<Instant>,
    /// Time since the last answer at the start of the current job.
    idle: Duration,
    /// The same of the last job with a close: a connection that survives a shorter time proves
    /// nothing.
    closed_idle: Duration,
}

impl CloseTracker {
    /// Starts without a close. The connection may be opened once in each `interval`.
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            cycles: 0,
            closes: 0,
            closes_in_a_row: 0,
            last_closes: 0,
            last_start: None,
            idle: Duration::ZERO,
            closed_idle: Duration::ZERO,
        }
    }

    /// Returns whether the server closes the connection after its answers, as far as is known.
    pub(super) const fn is_closing(&self) -> bool {
        self.cycles >= MIN_CYCLES
    }

    /// Returns whether the current job may wait for its next connection: it needs more of them than
    /// the budget has at once.
    pub(super) const fn may_wait(&self) -> bool {
        self.closes_in_a_row >= MIN_CLOSES_IN_A_ROW
    }

    /// Records the start of a job that reads; the last answer arrived the time `idle` ago.
    pub(super) const fn on_job(&mut self, idle: Duration, now: Instant) {
        self.last_start = Some(now);
        self.closes = 0;
        self.idle = idle;
    }

    /// Records that a connection that had answered was closed, and that the request over which this
    /// was noticed is answered on a new one.
    pub(super) const fn on_orderly_close(&mut self) {
        self.closes = self.closes.saturating_add(1);
        self.closes_in_a_row = self.closes_in_a_row.saturating_add(1);
    }

    /// Records an answer on a connection that had answered before.
    pub(super) const fn on_kept(&mut self) {
        self.closes_in_a_row = 0;
    }

    /// Records the end of a job whose requests were answered.
    pub(super) fn on_job_done(&mut self) {
        if self.closes > 0 {
            self.cycles = self.cycles.saturating_add(1);
            self.last_closes = self.closes;
            self.closed_idle = self.idle;
        } else if self.idle >= self.closed_idle {
            self.cycles = 0;
        }
    }

    /// Returns the connects that a job needs, as far as is known.
    pub(super) const fn connects(&self) -> u16 {
        self.last_closes
    }

    /// Returns when the next job may start, and the limit that delays it; `None` when it may start
    /// now. Jobs are spread evenly over the time, so that each has the connects that it needs; they
    /// are available from `budget` on.
    pub(super) fn throttled_until(
        &self,
        budget: Option<Instant>,
        now: Instant,
    ) -> Option<(RateLimit, Instant)> {
        let period = self.interval * u32::from(self.last_closes);
        let until = self.last_start.filter(|_| self.is_closing())? + period;
        let until = budget.map_or(until, |budget| budget.max(until));
        let seconds = u16::try_from(period.as_secs()).unwrap_or(u16::MAX);
        (now < until).then_some((RateLimit::ServerCloses(seconds), until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn jobs_are_as_far_apart_as_their_connects_need_and_no_longer_when_the_server_stops_closing() {
        let start = Instant::now();
        let mut tracker = CloseTracker::new(SECOND * 10);
        let job = |tracker: &mut CloseTracker, closes, at| {
            tracker.on_job(SECOND, at);
            (0..closes).for_each(|_| tracker.on_orderly_close());
            tracker.on_job_done();
        };
        job(&mut tracker, 1, start);
        assert_eq!(
            tracker.throttled_until(None, start),
            None,
            "the server may have been restarted"
        );
        job(&mut tracker, 3, start + SECOND);
        let until = start + SECOND * 31;
        let limit = (RateLimit::ServerCloses(30), until);
        assert_eq!(tracker.throttled_until(None, start + SECOND * 2), Some(limit));
        assert_eq!(tracker.throttled_until(None, until), None);
        let later = (RateLimit::ServerCloses(30), until + SECOND);
        assert_eq!(tracker.throttled_until(Some(until + SECOND), until), Some(later));
        tracker.on_job(SECOND / 10, until);
        tracker.on_job_done();
        assert!(tracker.is_closing(), "so soon after an answer no connection is closed");
        assert!(!tracker.may_wait());
        tracker.on_orderly_close();
        assert!(tracker.may_wait(), "five answers, and a close after each");
        tracker.on_kept();
        assert!(!tracker.may_wait());
        job(&mut tracker, 0, until);
        assert!(!tracker.is_closing() && tracker.throttled_until(None, until).is_none());
    }
}
