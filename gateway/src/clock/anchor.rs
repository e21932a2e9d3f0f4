//! Moments that belong together, dated by one clock.

use std::time::Instant;

use super::now;
use crate::model::UnixTime;

/// A moment on both clocks. Later ones are dated from it by the monotonic one: somebody may set the
/// wall clock between two requests of a cycle, and half a cycle from 1970 is worse than all of it.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    wall: UnixTime,
    instant: Instant,
}

impl Anchor {
    /// Reads the wall clock; `instant` was just read.
    #[must_use]
    pub fn new(instant: Instant) -> Self {
        Self { wall: now(), instant }
    }

    /// What the wall clock shows at `instant`, or would if nobody had set it. An earlier moment is
    /// dated like the anchor.
    #[must_use]
    pub fn wall_time_at(&self, instant: Instant) -> UnixTime {
        let passed = instant.saturating_duration_since(self.instant).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        UnixTime::from_micros(self.wall.as_micros().saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_as_far_apart_as_the_monotonic_clock_says() {
        let start = Instant::now();
        let anchor = Anchor::new(start);
        let [first, later] =
            [0, 1500].map(|ms| anchor.wall_time_at(start + Duration::from_millis(ms)));
        assert_eq!(later.as_micros() - first.as_micros(), 1_500_000);
        assert_eq!(anchor.wall_time_at(start - Duration::from_millis(1)), first);
    }
}
