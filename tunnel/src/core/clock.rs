//! What the wall clock may do to a tunnel.
//!
//! A handshake carries a stamp of the wall clock, and a hub ignores one that is not later than the
//! last it has seen. boringtun reads the clock once, when a peer's state is made.

use std::time::{Duration, Instant, SystemTime};

/// A jump of the wall clock against the monotonic one that is more than drift. Time asleep looks
/// the same, and ends sessions as well.
const STEP_THRESHOLD: Duration = Duration::from_secs(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// The monotonic clock: all deadlines.
    pub instant: Instant,
    /// The wall clock: the stamps of handshakes.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self::at(Instant::now())
    }

    /// Reads the wall clock; `instant` was just read.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the tunnel's only look at the wall clock")]
    pub fn at(instant: Instant) -> Self {
        Self { instant, wall: SystemTime::now() }
    }
}

/// What is known about the right time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockBounds {
    /// It is certainly later than this: the moment of the build, or the last that was seen.
    pub floor: Option<SystemTime>,
    /// It is certainly earlier than this.
    pub ceiling: Option<SystemTime>,
}

/// What to think of the wall clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ClockVerdict {
    /// Before the floor: worth a try, since a hub only ignores a stamp that is too old.
    Behind,
    Plausible,
    /// Beyond the ceiling. A hub that sees such a stamp ignores every right one afterwards: this
    /// must not be tried.
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
    /// The last moment: a batch has one for all of its packets.
    last: Now,
    pub(super) bounds: ClockBounds,
}

impl ClockWatch {
    pub(super) const fn new(now: Now, bounds: ClockBounds) -> Self {
        Self { reference: now, last: now, bounds }
    }

    pub(super) fn verdict(&self, wall: SystemTime) -> ClockVerdict {
        // boringtun cannot be made before 1970; a clock beyond reason is treated alike.
        if wall < SystemTime::UNIX_EPOCH || self.bounds.ceiling.is_some_and(|end| wall > end) {
            ClockVerdict::Ahead
        } else if self.bounds.floor.is_some_and(|start| wall < start) {
            ClockVerdict::Behind
        } else {
            ClockVerdict::Plausible
        }
    }

    /// Whether the wall clock has jumped since the last jump.
    pub(super) fn detect_step(&mut self, now: Now) -> Option<ClockStep> {
        if now == self.last {
            return None;
        }
        self.last = now;
        let passed = now.instant.saturating_duration_since(self.reference.instant);
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
