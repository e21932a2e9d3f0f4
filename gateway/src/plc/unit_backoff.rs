//! When a unit that does not answer is tried again, so that the others on its connection keep
//! their rate. Pure: `now` and randomness are arguments.

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

/// Whether a unit is polled, or only tried now and then.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitBackoff {
    /// Consecutive failures; a complete cycle resets them.
    backoff: RetryBackoff,
    retry: Option<PendingRetry>,
}

#[derive(Clone, Copy, Debug)]
struct PendingRetry {
    /// When it was tried last.
    last_try: Instant,
    /// When it is tried again at the earliest.
    next_try: Instant,
    cost: FailureCost,
}

/// What it costs to try a unit that is still silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FailureCost {
    /// The connection: it must be closed after a request without an answer.
    Connection,
    /// Nothing but the wait: something in between answers in place of the unit.
    WaitOnly,
}

impl UnitBackoff {
    pub(super) const fn new() -> Self {
        Self { backoff: RetryBackoff::new(&UNIT_RETRY), retry: None }
    }

    pub(super) const fn is_silent(&self) -> bool {
        self.retry.is_some()
    }

    /// It failed; `least` is the shortest pause, `random` is evenly spread in `[0, 1)`.
    pub(super) fn on_failure(
        &mut self,
        cost: FailureCost,
        least: Duration,
        now: Instant,
        random: f64,
    ) {
        let pause = self.backoff.next_pause(random);
        self.retry = Some(PendingRetry { last_try: now, next_try: now + pause.max(least), cost });
    }

    /// It answered: it is polled again.
    pub(super) const fn on_answer(&mut self) {
        self.retry = None;
    }

    /// A whole cycle was answered: what was before is forgotten.
    pub(super) const fn on_complete_cycle(&mut self) {
        if self.retry.is_none() {
            self.backoff.reset();
        }
    }

    /// The connection itself had been away, which explains the silence.
    pub(super) const fn retry_now(&mut self, now: Instant) {
        if let Some(silence) = &mut self.retry {
            silence.next_try = now;
        }
    }

    /// What it costs to try it now, if that is due.
    pub(super) fn due_cost(&self, now: Instant) -> Option<FailureCost> {
        self.retry.filter(|silence| silence.next_try <= now).map(|silence| silence.cost)
    }

    /// Whether it failed for the first time since a whole cycle.
    pub(super) const fn is_first_failure(&self) -> bool {
        self.backoff.failures() <= 1
    }

    /// When it was tried last, if it is silent.
    pub(super) fn last_try(&self) -> Option<Instant> {
        self.retry.map(|silence| silence.last_try)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pauses_grow_to_the_cap_and_are_never_shorter_than_a_scan() {
        let start = Instant::now();
        let mut standing = UnitBackoff::new();
        let pause = |standing: &mut UnitBackoff, least, random| {
            standing.on_failure(FailureCost::Connection, least, start, random);
            standing.retry.unwrap().next_try - start
        };
        let pauses: Vec<_> = (0..5).map(|_| pause(&mut standing, SECOND / 10, 1.0)).collect();
        let tenths: Vec<_> = pauses.iter().map(|pause| pause.as_millis() / 100).collect();
        assert_eq!(tenths, [8, 96, 192, 240, 240]);
        assert_eq!(pause(&mut standing, SECOND / 10, 0.0), SECOND * 30);
        assert_eq!(pause(&mut standing, SECOND * 60, 0.5), SECOND * 60);
    }

    #[test]
    fn an_answer_ends_the_silence_and_a_whole_cycle_the_grudge() {
        let start = Instant::now();
        let mut standing = UnitBackoff::new();
        for _ in 0..4 {
            standing.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        }
        assert_eq!(
            (standing.due_cost(start), standing.due_cost(start + SECOND * 24)),
            (None, Some(FailureCost::WaitOnly))
        );
        standing.on_complete_cycle();
        assert!(standing.is_silent(), "a cycle of which nothing was read forgives nothing");
        standing.on_answer();
        standing.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        assert_eq!(standing.due_cost(start + SECOND * 23), None, "one answer is not enough");
        standing.on_answer();
        standing.on_complete_cycle();
        standing.on_failure(FailureCost::WaitOnly, SECOND, start, 1.0);
        assert_eq!(standing.due_cost(start + SECOND), Some(FailureCost::WaitOnly));
    }
}
