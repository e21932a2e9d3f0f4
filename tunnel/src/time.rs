//! The clocks of the drivers.

use std::time::{Duration, Instant};

use crate::core::Now;

/// How long a reading of the wall clock is reused. A step of the clock is noticed that much later,
/// and a packet costs one system call less.
const WALL_CLOCK_REFRESH: Duration = Duration::from_millis(250);

/// Returns the runtime's current time, which tests can pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The moments of a driver on both clocks. Between two readings the wall clock is extrapolated from
/// the monotonic one.
#[derive(Debug)]
pub(crate) struct ClockCache {
    read: fn(Instant) -> Now,
    last_read: Now,
    last: Now,
}

impl ClockCache {
    /// Creates a cache that reads the wall clock with `read`.
    pub(crate) fn new(read: fn(Instant) -> Now) -> Self {
        let now = read(now());
        Self { read, last_read: now, last: now }
    }

    /// Returns the current moment.
    pub(crate) fn now(&mut self) -> Now {
        self.at(now())
    }

    /// Returns the moment at `instant`, which must not lie before the last one.
    pub(crate) fn at(&mut self, instant: Instant) -> Now {
        // All packets of a batch have the same instant.
        if instant == self.last.instant {
            return self.last;
        }
        if instant.saturating_duration_since(self.last_read.instant) >= WALL_CLOCK_REFRESH {
            self.last_read = (self.read)(instant);
        }
        let passed = instant.saturating_duration_since(self.last_read.instant);
        self.last = Now { instant, wall: self.last_read.wall + passed };
        self.last
    }
}
