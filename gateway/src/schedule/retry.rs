//! How long to leave a peer alone that did not answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Growing random pauses between attempts.
///
/// Full jitter: attempt `n` waits anything up to `base * 2^n`, so that a hundred gateways that lost
/// the same peer do not come back as one.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
}

/// At most so many connects in any 60 seconds, however short the sessions are.
#[derive(Clone, Debug)]
pub struct Budget {
    most: usize,
    taken: VecDeque<Instant>,
}

impl Backoff {
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

impl Budget {
    const WINDOW: Duration = Duration::from_secs(60);

    /// A budget of `most` connects per minute, at least one.
    #[must_use]
    pub fn per_minute(most: usize) -> Self {
        let most = most.max(1);
        Self { most, taken: VecDeque::with_capacity(most) }
    }

    /// Takes one connect.
    ///
    /// # Errors
    /// Tells when the next one is free if all of this minute's are used.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.taken.retain(|&taken| now < taken + Self::WINDOW);
        match self.taken.front() {
            Some(&oldest) if self.taken.len() >= self.most => Err(oldest + Self::WINDOW),
            _ => {
                self.taken.push_back(now);
                Ok(())
            }
        }
    }
}
