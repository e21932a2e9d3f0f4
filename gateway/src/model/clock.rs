//! The wall clock as the gateway has seen it: how far it can be trusted, and since when.

use std::fmt;

use serde::Serialize;

use super::UnixTime;

/// A wall clock that moves by more than this, in microseconds, against the time since the boot was
/// set. Slewing moves both (adjtimex(2)); a leap second is not a new setting.
const STEP_THRESHOLD_MICROS: u64 = 1_000_000;

/// How far the clock can be trusted, worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum TrustLevel {
    /// The time is before the floor, or implausibly far after the last known time.
    Unset,
    /// The time is after the floor, and no time server has confirmed it.
    Floor,
    /// The kernel reports that the clock follows a time server.
    Synchronised,
}

/// The wall clock between two times at which it was set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockPeriod {
    /// When the machine booted, by the clock of this period. The time since the boot is known to
    /// every process of that boot, so two values tell how far the clock was set.
    pub booted_at: UnixTime,
    /// The highest trust in the clock within the period.
    pub trust: TrustLevel,
}

impl ClockPeriod {
    /// Returns whether the clock has not been set between this period and a time at which it said
    /// that the machine booted at `booted_at`.
    #[must_use]
    pub const fn has(&self, booted_at: UnixTime) -> bool {
        self.booted_at.0.abs_diff(booted_at.0) <= STEP_THRESHOLD_MICROS
    }
}

impl TrustLevel {
    /// Returns its word in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Floor => "floor",
            Self::Synchronised => "synchronised",
        }
    }
}

/// The sentence of the status.
impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => {
                "The clock of this gateway is wrong, or more than a year ahead of its last run: \
                 set it, or give it access to a time server (NTP)."
            }
            Self::Floor => {
                "The clock has not been compared with a time server yet; times may be off. This is \
                 normal in the first minutes; otherwise give it access to a time server (NTP)."
            }
            Self::Synchronised => "The clock follows a time server.",
        })
    }
}
