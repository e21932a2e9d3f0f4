//! Bounds the connections that the search for rejected tags costs. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use crate::schedule::RateBudget;

/// Losses in ten minutes that follow each other without a pause: enough to find a few tags at once.
const MAX_BURST: usize = 12;
const BURST_WINDOW: Duration = Duration::from_secs(600);
/// Pause after each further loss: two connections a minute.
const MIN_PAUSE: Duration = Duration::from_secs(30);
/// A further loss is followed by a pause of this many times its length: the search takes at most a
/// tenth of the time.
const REST_FACTOR: u32 = 9;

/// The connections that may be lost over requests that are suspected. They are counted apart from
/// those of the server: a rejected tag must not use up the connects that the others need.
#[derive(Debug)]
pub(super) struct SearchBudget {
    burst: RateBudget,
    paused_until: Option<Instant>,
}

impl SearchBudget {
    pub(super) fn new() -> Self {
        Self { burst: RateBudget::new(MAX_BURST, BURST_WINDOW), paused_until: None }
    }

    /// Returns whether a session may be lost now.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        self.burst.next_free(now).is_none() || self.paused_until.is_none_or(|until| until <= now)
    }

    /// Records a session that ended over a request of this length.
    pub(super) fn on_loss(&mut self, took: Duration, now: Instant) {
        if self.burst.take(now).is_err() {
            self.paused_until = Some(now + MIN_PAUSE.max(took * REST_FACTOR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_followed_by_two_losses_a_minute_and_a_tenth_of_the_time() {
        for (took, in_an_hour) in [(SECOND / 100, 119 + 84), (SECOND * 5, 79 + 84)] {
            let start = Instant::now();
            let (mut budget, mut now, mut losses) = (SearchBudget::new(), start, Vec::new());
            while now < start + SECOND * 3600 {
                if budget.has_room(now) {
                    now += took;
                    budget.on_loss(took, now);
                    losses.push(now);
                }
                now += SECOND / 10;
            }
            assert!(losses[11] <= start + took * 12 + SECOND * 2, "twelve at once");
            assert!(losses.len() <= in_an_hour, "{} losses of {took:?}", losses.len());
            for window in losses.windows(34) {
                assert!(window[33] - window[0] >= SECOND * 600);
            }
        }
    }
}
