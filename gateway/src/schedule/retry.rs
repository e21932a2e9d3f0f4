//! When to retry what failed, and how often.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How the pauses between attempts grow: `first`, `second`, then doubled up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Pause after the first failure; zero retries at the next opportunity.
    pub first: Duration,
    /// Pause after the second failure; each further failure doubles it.
    pub second: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Random part of each pause, 0.0 (exact) to 1.0 (anything above zero up to the pause).
    pub jitter: f64,
}

/// Counts consecutive failures and computes when to retry.
///
/// Retries never end: after many failures there is one once every [`RetryPolicy::max`].
#[derive(Clone, Copy, Debug)]
pub struct RetryBackoff {
    policy: &'static RetryPolicy,
    failures: u32,
    /// Earliest time of the next attempt; absent before the first failure.
    next_try: Option<Instant>,
}

/// A limit for events in a sliding window: no window sees more than `max_events`.
#[derive(Clone, Debug)]
pub struct RateBudget {
    max_events: usize,
    window: Duration,
    taken_at: VecDeque<Instant>,
}

impl RetryPolicy {
    /// Pauses that double from `first` to `max`, with full jitter: each is anything above zero up
    /// to its maximum, so that a hundred gateways that lost the same peer do not return together.
    #[must_use]
    pub const fn full_jitter(first: Duration, max: Duration) -> Self {
        Self { first, second: first.saturating_mul(2), max, jitter: 1.0 }
    }

    /// Returns the longest pause after this number of consecutive failures.
    fn max_pause(&self, failures: u32) -> Duration {
        let pause = match failures {
            0 | 1 => self.first,
            _ => self.second.saturating_mul(2_u32.saturating_pow(failures - 2)),
        };
        pause.min(self.max)
    }
}

impl RetryBackoff {
    /// Creates a backoff without failures.
    #[must_use]
    pub const fn new(policy: &'static RetryPolicy) -> Self {
        Self { policy, failures: 0, next_try: None }
    }

    /// Records a failure and returns the pause before the next attempt. `random` is evenly
    /// distributed in `[0, 1)`.
    pub fn next_pause(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let max = self.policy.max_pause(self.failures);
        let pause = max.mul_f64(1.0 - self.policy.jitter * random.clamp(0.0, 1.0));
        // A pause that rounds to zero would retry in a tight loop.
        pause.max(max.min(Duration::from_nanos(1)))
    }

    /// Records a failure at `now`; [`RetryBackoff::next_try`] returns when to retry. `random` is
    /// evenly distributed in `[0, 1)`.
    pub fn on_failure(&mut self, now: Instant, random: f64) {
        self.next_try = Some(now + self.next_pause(random));
    }

    /// Forgets all failures.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.next_try = None;
    }

    /// Allows a retry from `now` on, without forgetting the failures.
    pub const fn retry_now(&mut self, now: Instant) {
        self.next_try = Some(now);
    }

    /// Returns the number of consecutive failures.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the earliest time of the next attempt, or `None` before the first failure.
    #[must_use]
    pub const fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// Returns whether an attempt is allowed at `now`.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_try.is_none_or(|next_try| next_try <= now)
    }
}

impl RateBudget {
    /// Creates a budget of `max_events` per minute, at least one.
    #[must_use]
    pub fn per_minute(max_events: usize) -> Self {
        Self::new(max_events, Duration::from_secs(60))
    }

    /// Creates a budget of `max_events` per second, at least one.
    #[must_use]
    pub fn per_second(max_events: usize) -> Self {
        Self::new(max_events, Duration::from_secs(1))
    }

    /// Creates a budget of `max_events` in each `window`, at least one.
    #[must_use]
    pub fn new(max_events: usize, window: Duration) -> Self {
        let max_events = max_events.max(1);
        Self { max_events, window, taken_at: VecDeque::with_capacity(max_events) }
    }

    /// Returns when the next event is allowed, or `None` if one is allowed now.
    pub fn next_free(&mut self, now: Instant) -> Option<Instant> {
        while self.taken_at.front().is_some_and(|&taken| taken + self.window <= now) {
            self.taken_at.pop_front();
        }
        let oldest = self.taken_at.front().filter(|_| self.taken_at.len() >= self.max_events)?;
        Some(*oldest + self.window)
    }

    /// Returns when this number of events is allowed at once, at most the whole budget, or `None`
    /// if it is now.
    pub fn next_free_for(&mut self, events: usize, now: Instant) -> Option<Instant> {
        self.next_free(now);
        let most = self.max_events - events.min(self.max_events);
        let excess = self.taken_at.len().checked_sub(most)?.checked_sub(1)?;
        Some(*self.taken_at.get(excess)? + self.window)
    }

    /// Takes one event from the budget.
    ///
    /// # Errors
    /// Returns when the next event is allowed if the budget is used up.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        match self.next_free(now) {
            Some(free) => Err(free),
            None => {
                self.taken_at.push_back(now);
                Ok(())
            }
        }
    }
}
