//! How long to leave a peer alone that did not answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Growing random pauses between attempts.
///
/// Full jitter: attempt `n` waits anything up to `base * 2^n`, so that a hundred gateways that lost
/// the same peer do not come back as one.
#[derive(Clone, Debug)]
pub struct RetryBackoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
}

/// At most so many of something in any stretch of a fixed length, however they come.
#[derive(Clone, Debug)]
pub struct RateBudget {
    max_events: usize,
    window: Duration,
    taken_at: VecDeque<Instant>,
}

impl RetryBackoff {
    /// Pauses that grow from at most `base` to at most `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, ceiling: base.min(cap) }
    }

    /// Gives the pause after one more failure, above zero. `random` is evenly spread in `[0, 1)`.
    pub fn next(&mut self, random: f64) -> Duration {
        let pause = self.ceiling.mul_f64(1.0 - random.clamp(0.0, 1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        pause.max(Duration::from_nanos(1))
    }

    /// Starts over: the peer has answered.
    pub fn reset(&mut self) {
        self.ceiling = self.base.min(self.cap);
    }
}

impl RateBudget {
    /// A budget of `most` per minute, at least one.
    #[must_use]
    pub fn per_minute(most: usize) -> Self {
        Self::new(most, Duration::from_secs(60))
    }

    /// A budget of `most` per second, at least one.
    #[must_use]
    pub fn per_second(most: usize) -> Self {
        Self::new(most, Duration::from_secs(1))
    }

    fn new(most: usize, window: Duration) -> Self {
        let most = most.max(1);
        Self { max_events: most, window, taken_at: VecDeque::with_capacity(most) }
    }

    /// Tells when the next one is free, if none is free now.
    pub fn next_free(&mut self, now: Instant) -> Option<Instant> {
        while self.taken_at.front().is_some_and(|&taken| taken + self.window <= now) {
            self.taken_at.pop_front();
        }
        let oldest = self.taken_at.front().filter(|_| self.taken_at.len() >= self.max_events)?;
        Some(*oldest + self.window)
    }

    /// Takes one.
    ///
    /// # Errors
    /// Tells when the next one is free if all are used.
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
