//! Decides when a unit that does not answer is retried, so that the other units of its connection
//! keep their rate. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

use crate::schedule::{RetryBackoff, RetryPolicy};

/// Pauses after consecutive failures: 1 s, 12 s, 24 s, then 30 s, each shortened by up to a fifth.
///
/// The first is short, since a single answer may be lost; with the others a unit that is gone for
/// good costs about two time-outs a minute.
const UNIT_RETRY: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(1),
    second: Duration::from_secs(12),
    max: Duration::from_secs(30),
    jitter: 0.2,
};

/// Whether a unit is polled, or silent: only probed with growing pauses.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitBackoff {
    /// Consecutive failures; a complete cycle resets them.
    backoff: RetryBackoff,
    /// Absent while the unit is polled.
    retry: Option<PendingRetry>,
}

#[derive(Clone, Copy, Debug)]
struct PendingRetry {
    /// Time of the last attempt.
    last_try: Instant,
    /// Earliest time of the next attempt.
    next_try: Instant,
    cost: FailureCost,
}

/// What a failed attempt costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FailureCost {
    /// The connection: it is dropped after a request without an answer.
    Connection,
    /// Time only: a device between the gateway and the unit answers in its place.
    WaitOnly,
}

impl UnitBackoff {
    pub(super) const fn new() -> Self {
        Self { backoff: RetryBackoff::new(&UNIT_RETRY), retry: None }
    }

    /// Returns whether its last attempt failed.
    pub(super) const fn is_silent(&self) -> bool {
        self.retry.is_some()
    }

    /// Records a failure. The pause is at least `min_pause`; `random` is evenly distributed in
    /// `[0, 1)`.
    pub(super) fn on_failure(
        &mut self,
        cost: FailureCost,
        min_pause: Duration,
        now: Instant,
        random: f64,
    ) {
        let pause = self.backoff.next_pause(random);
        self.retry =
            Some(PendingRetry { last_try: now, next_try: now + pause.max(min_pause), cost });
    }

    /// Records an answer: the unit is polled again.
    pub(super) const fn on_answer(&mut self) {
        self.retry = None;
    }

    /// Records a complete cycle: resets the failures.
    pub(super) const fn on_complete_cycle(&mut self) {
        if self.retry.is_none() {
            self.backoff.reset();
        }
    }

    /// Allows a retry now: the server itself had failed, which explains the silence.
    pub(super) const fn retry_now(&mut self, now: Instant) {
        if let Some(retry) = &mut self.retry {
            retry.next_try = now;
        }
    }

    /// Returns what a failed attempt costs, if an attempt is due.
    pub(super) fn due_cost(&self, now: Instant) -> Option<FailureCost> {
        self.retry.filter(|retry| retry.next_try <= now).map(|retry| retry.cost)
    }

    /// Returns whether it failed at most once since the last complete cycle.
    pub(super) const fn is_first_failure(&self) -> bool {
        self.backoff.failures() <= 1
    }

    /// Returns the time of the last attempt, if the unit is silent.
    pub(super) fn last_try(&self) -> Option<Instant> {
        self.retry.map(|retry| retry.last_try)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_to_30_seconds_and_are_never_shorter_than_a_scan() {
        let start = Instant::now();
        let mut unit = UnitBackoff::new();
        let pause = |unit: &mut UnitBackoff, least, random| {
            unit.on_failure(FailureCost::Connection, least, start, random);
            unit.retry.unwrap().next_try - start
        };
        let pauses: Vec<_> = (0..5).map(|_| pause(&mut unit, SECOND / 10, 1.0)).collect();
        let tenths: Vec<_> = pauses.iter().map(|pause| pause.as_millis() / 100).collect();
        assert_eq!(tenths, [8, 96, 192, 240, 240]);
        assert_eq!(pause(&mut unit, SECOND / 10, 0.0), SECOND * 30);
        assert_eq!(pause(&mut unit, SECOND * 60, 0.5), SECOND * 60);
    }

    #[test]
    fn an_answer_ends_the_silence_and_a_complete_cycle_resets_the_failures() {
        let start = Instant::now();
        let mut unit = UnitBackoff::new();
        for _ in 0..4 {
            unit.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        }
        assert_eq!(
            (unit.due_cost(start), unit.due_cost(start + SECOND * 24)),
            (None, Some(FailureCost::WaitOnly))
        );
        unit.on_complete_cycle();
        assert!(unit.is_silent(), "a cycle without an answer resets nothing");
        unit.on_answer();
        unit.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        assert_eq!(unit.due_cost(start + SECOND * 23), None, "one answer is not enough");
        unit.on_answer();
        unit.on_complete_cycle();
        unit.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        assert_eq!(unit.due_cost(start + SECOND), Some(FailureCost::WaitOnly));
    }
}
