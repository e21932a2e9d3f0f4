//! Consistent wall times for the requests of one cycle.

use std::time::Instant;

use super::ClockReading;
use crate::model::UnixTime;

/// A moment on the wall clock and on the monotonic one. Later moments get their wall time from the
/// monotonic clock: the wall clock may be set between two requests of a cycle, and a cycle of which
/// only half is from 1970 is worse than one that is wholly.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    reading: ClockReading,
    instant: Instant,
}

impl Anchor {
    /// Reads the wall clock; `instant` is the present moment.
    #[must_use]
    pub fn new(instant: Instant) -> Self {
        Self { reading: ClockReading::now(), instant }
    }

    /// Returns when the machine booted, by the wall clock of the anchor.
    #[must_use]
    pub const fn booted_at(&self) -> UnixTime {
        self.reading.booted_at
    }

    /// Returns the wall time at `instant`, as if the wall clock had not been set since the anchor.
    /// A moment before the anchor gets the time of the anchor.
    #[must_use]
    pub fn wall_time_at(&self, instant: Instant) -> UnixTime {
        let passed = instant.saturating_duration_since(self.instant).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        UnixTime::from_micros(self.reading.wall.as_micros().saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_as_far_apart_as_on_the_monotonic_clock() {
        let start = Instant::now();
        let anchor = Anchor::new(start);
        let [first, later] =
            [0, 1500].map(|ms| anchor.wall_time_at(start + Duration::from_millis(ms)));
        assert_eq!(later.as_micros() - first.as_micros(), 1_500_000);
        assert_eq!(anchor.wall_time_at(start - Duration::from_millis(1)), first);
        let booted_at = ClockReading::now().booted_at.as_micros();
        assert!(anchor.booted_at().as_micros().abs_diff(booted_at) < 10_000_000);
    }
}
