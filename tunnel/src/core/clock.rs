//! Steps and bounds of the wall clock.
//!
//! A handshake carries a timestamp of the wall clock, and a hub ignores one that is not later than
//! the last one it accepted (WireGuard whitepaper, 5.1). boringtun reads the clock once, when a
//! peer is made.

use std::time::{Duration, Instant, SystemTime};

/// Difference between the wall clock and the monotonic clock from which on it counts as a step and
/// not as drift. Suspend looks the same, and ends sessions too.
const STEP_THRESHOLD: Duration = Duration::from_secs(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// The monotonic clock, for all deadlines.
    pub instant: Instant,
    /// The wall clock, for the timestamps of handshakes.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self::at(Instant::now())
    }

    /// Reads the wall clock; `instant` must just have been read.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place where the tunnel reads the wall clock"
    )]
    pub fn at(instant: Instant) -> Self {
        Self { instant, wall: SystemTime::now() }
    }
}

/// Bounds of the true time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockBounds {
    /// The true time is later than this: the time of the build, or the latest time on record.
    pub floor: Option<SystemTime>,
    /// The true time is earlier than this.
    pub ceiling: Option<SystemTime>,
}

/// Whether the wall clock is within its bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ClockVerdict {
    /// Before the floor. A handshake is tried: a hub only ignores a timestamp that is too old.
    Behind,
    Plausible,
    /// Beyond the ceiling. No handshake is sent: a hub that accepts such a timestamp ignores every
    /// correct one afterwards.
    Ahead,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ClockStep {
    Forward,
    Backward,
}

#[derive(Debug)]
pub(super) struct ClockWatch {
    reference: Now,
    /// The last moment, which all packets of a batch share.
    last: Now,
    pub(super) bounds: ClockBounds,
}

impl ClockWatch {
    pub(super) const fn new(now: Now, bounds: ClockBounds) -> Self {
        Self { reference: now, last: now, bounds }
    }

    pub(super) fn verdict(&self, wall: SystemTime) -> ClockVerdict {
        // boringtun panics before 1970, so such a clock must not be used either.
        if wall < SystemTime::UNIX_EPOCH || self.bounds.ceiling.is_some_and(|end| wall > end) {
            ClockVerdict::Ahead
        } else if self.bounds.floor.is_some_and(|start| wall < start) {
            ClockVerdict::Behind
        } else {
            ClockVerdict::Plausible
        }
    }

    /// Returns the step of the wall clock since the last one, if there is one.
    pub(super) fn detect_step(&mut self, now: Now) -> Option<ClockStep> {
        if now == self.last {
            return None;
        }
        self.last = now;
        let passed = now.instant.saturating_duration_since(self.reference.instant);
        // Measured from the last step, so that slow drift adds up and is noticed too.
        let expected = self.reference.wall + passed;
        let (step, by) = match now.wall.duration_since(expected) {
            Ok(by) => (ClockStep::Forward, by),
            Err(error) => (ClockStep::Backward, error.duration()),
        };
        (by > STEP_THRESHOLD).then(|| {
            self.reference = now;
            step
        })
    }
}
