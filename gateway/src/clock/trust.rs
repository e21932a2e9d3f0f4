//! How far the clock can be trusted. Pure.
//!
//! A handshake with a time in the far future blocks the tunnel's key at the hub until that time has
//! come (WireGuard, 5.1: the hub rejects timestamps that are not later than the last). So a wrong
//! time must not be trusted at once, whether it was set by hand, by GPS or by a bad time server.
//!
//! What is certain is the floor: the time at which this version was written, or a later time that a
//! trusted clock has shown. A clock is wrong if it is before the floor, or further after it than
//! the battery of a clock lasts. A device that was off for longer than that has to be synchronised
//! by a time server for a day. A device that is never synchronised is trusted all the same: the
//! time for which the gateway runs moves the floor too, so only years of being off count.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::model::UnixTime;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const YEAR: i64 = 31_557_600 * SECOND;

/// When this version was written, 2026-11-01: no gateway runs it earlier.
const BUILD_TIME_FLOOR: UnixTime = UnixTime::from_micros(1_793_491_200 * SECOND);
/// A clock that is this far after the floor is wrong: 8 years, the life of a clock's battery.
const MAX_PLAUSIBLE_AHEAD: i64 = 8 * YEAR;
/// Such a clock is trusted after the kernel has reported it as synchronised for this long without a
/// break.
const SUSTAINED_SYNC: Duration = Duration::from_secs(86_400);
/// Running moves the floor no closer than this to a clock that is not synchronised: one that loses
/// a minute a month has to stay after the floor.
const FLOOR_MARGIN: i64 = 30 * DAY;
/// The floor on disk is at most this much older: six small writes per hour, for the sake of flash.
const FLOOR_STORE_INTERVAL: i64 = 600 * SECOND;

/// How far the clock can be trusted, worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum TrustLevel {
    /// The time is before the floor, or implausibly far after it.
    Unset,
    /// The time is after the floor, and no time server has confirmed it.
    Floor,
    /// The kernel reports that the clock follows a time server.
    Synchronised,
}

/// The result of one assessment of the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockAssessment {
    /// How far the clock can be trusted.
    pub trust: TrustLevel,
    /// The right time is later than this.
    pub floor: UnixTime,
    /// The right time is earlier than this.
    pub ceiling: UnixTime,
}

/// Assesses the clock against the floor, which it moves.
#[derive(Debug)]
pub struct ClockTrust {
    floor: UnixTime,
    stored_floor: UnixTime,
    is_store_due: bool,
    /// When the clock was assessed last.
    last_assessed_at: Option<Instant>,
    /// Since when the kernel has reported an implausible clock as synchronised.
    sustained_since: Option<Instant>,
}

impl ClockTrust {
    /// Starts with the floor that an earlier run stored.
    #[must_use]
    pub fn new(stored: Option<UnixTime>) -> Self {
        let floor = stored.unwrap_or(BUILD_TIME_FLOOR).max(BUILD_TIME_FLOOR);
        Self {
            floor,
            stored_floor: floor,
            is_store_due: false,
            last_assessed_at: None,
            sustained_since: None,
        }
    }

    /// Assesses the time that the clock shows. A synchronised time moves the floor in either
    /// direction: a clock that was wrong once must not make the right time look wrong.
    pub fn assess(
        &mut self,
        now: Instant,
        wall: UnixTime,
        is_synchronised: bool,
    ) -> ClockAssessment {
        let before = self.last_assessed_at.replace(now);
        let passed = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        let is_plausible = wall < add_micros(self.floor, MAX_PLAUSIBLE_AHEAD);
        let is_confirmed = is_synchronised && wall >= BUILD_TIME_FLOOR;
        let state = if is_confirmed && (is_plausible || self.is_sustained(now)) {
            self.floor = wall;
            TrustLevel::Synchronised
        } else if is_plausible && wall >= self.floor {
            let grown =
                add_micros(self.floor, i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
            self.floor = self.floor.max(grown.min(add_micros(wall, -FLOOR_MARGIN)));
            TrustLevel::Floor
        } else {
            TrustLevel::Unset
        };
        if !is_synchronised || is_plausible {
            self.sustained_since = None;
        }
        let away = self.floor.as_micros().abs_diff(self.stored_floor.as_micros());
        self.is_store_due |= away >= FLOOR_STORE_INTERVAL.unsigned_abs();
        // The stored floor, so that the result does not change with every assessment.
        ClockAssessment {
            trust: state,
            floor: self.stored_floor,
            ceiling: add_micros(self.stored_floor, MAX_PLAUSIBLE_AHEAD),
        }
    }

    fn is_sustained(&mut self, now: Instant) -> bool {
        let since = *self.sustained_since.get_or_insert(now);
        now.saturating_duration_since(since) >= SUSTAINED_SYNC
    }

    /// Returns the floor when it is due to be stored.
    pub fn take_floor_to_store(&mut self) -> Option<UnixTime> {
        std::mem::take(&mut self.is_store_due).then(|| {
            self.stored_floor = self.floor;
            self.floor
        })
    }
}

const fn add_micros(time: UnixTime, by: i64) -> UnixTime {
    UnixTime::from_micros(time.as_micros().saturating_add(by))
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
                "The clock of this gateway is wrong: set it, or give it access to a time server \
                 (NTP)."
            }
            Self::Floor => {
                "The clock has not been compared with a time server yet; times may be off. This is \
                 normal in the first minutes; otherwise give it access to a time server (NTP)."
            }
            Self::Synchronised => "The clock follows a time server.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(years: i64) -> UnixTime {
        add_micros(BUILD_TIME_FLOOR, years * YEAR)
    }

    /// Returns the trust at an assessment this long after the start.
    fn look(
        trust: &mut ClockTrust,
        after: Duration,
        wall: UnixTime,
        is_synchronised: bool,
    ) -> TrustLevel {
        // One start for all assessments of a test.
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        trust.assess(start + after, wall, is_synchronised).trust
    }

    /// Returns the trust at the start.
    fn first(trust: &mut ClockTrust, wall: UnixTime, is_synchronised: bool) -> TrustLevel {
        look(trust, Duration::ZERO, wall, is_synchronised)
    }

    #[test]
    fn a_device_that_starts_in_1970_has_an_unset_clock() {
        let mut trust = ClockTrust::new(None);
        assert_eq!(first(&mut trust, UnixTime::from_micros(0), false), TrustLevel::Unset);
        assert_eq!(first(&mut trust, UnixTime::from_micros(0), true), TrustLevel::Unset);
        assert_eq!(first(&mut trust, after(1), false), TrustLevel::Floor);
        assert_eq!(first(&mut trust, after(1), true), TrustLevel::Synchronised);
    }

    #[test]
    fn a_time_before_the_stored_floor_is_not_trusted() {
        let mut trust = ClockTrust::new(Some(after(3)));
        assert_eq!(first(&mut trust, after(2), false), TrustLevel::Unset);
        assert_eq!(first(&mut trust, after(3), false), TrustLevel::Floor);
    }

    #[test]
    fn a_clock_ten_years_ahead_is_not_trusted() {
        for kept in [after(0), after(7)] {
            for is_synchronised in [false, true] {
                let mut trust = ClockTrust::new(Some(kept));
                let ahead = add_micros(kept, 10 * YEAR);
                assert_eq!(first(&mut trust, ahead, is_synchronised), TrustLevel::Unset);
                let assessment = trust.assess(Instant::now(), ahead, is_synchronised);
                assert!(assessment.ceiling < ahead && assessment.floor == kept);
                assert_eq!(trust.take_floor_to_store(), None);
                // Once the time server is right it is trusted at once.
                assert_eq!(first(&mut trust, kept, true), TrustLevel::Synchronised);
            }
        }
    }

    #[test]
    fn a_device_that_was_off_for_seven_years_is_trusted() {
        let mut trust = ClockTrust::new(None);
        assert_eq!(first(&mut trust, after(7), false), TrustLevel::Floor);
        assert_eq!(first(&mut trust, after(7), true), TrustLevel::Synchronised);
    }

    #[test]
    fn an_implausible_time_is_trusted_after_a_day_of_synchronisation_only() {
        for is_synchronised in [false, true] {
            let mut trust = ClockTrust::new(None);
            for hour in 0..24 {
                let after_start = Duration::from_secs(3600 * hour);
                assert_eq!(
                    look(&mut trust, after_start, after(12), is_synchronised),
                    TrustLevel::Unset
                );
            }
            let state = look(&mut trust, SUSTAINED_SYNC, after(12), is_synchronised);
            let then = if is_synchronised { TrustLevel::Synchronised } else { TrustLevel::Unset };
            assert_eq!(state, then);
            assert_eq!(trust.take_floor_to_store(), is_synchronised.then(|| after(12)));
        }
        let mut trust = ClockTrust::new(None);
        first(&mut trust, after(12), true);
        look(&mut trust, SUSTAINED_SYNC / 2, after(1), true);
        assert_eq!(look(&mut trust, SUSTAINED_SYNC, after(12), true), TrustLevel::Unset);
    }

    #[test]
    fn a_device_without_time_server_is_trusted_for_decades_of_running() {
        let (mut kept, mut age) = (None, 0);
        // It is off for the second half of each of ten years.
        for _ in 0..10 {
            let mut trust = ClockTrust::new(kept);
            for week in 0..26 {
                let wall = add_micros(BUILD_TIME_FLOOR, age * YEAR / 2 + week * 7 * DAY);
                let running = Duration::from_secs(7 * 86_400) * u32::try_from(week).unwrap();
                assert_eq!(
                    look(&mut trust, running, wall, false),
                    TrustLevel::Floor,
                    "{age} {week}"
                );
                // A clock that is set back a little by hand is still trusted.
                assert!(trust.floor <= add_micros(wall, -FLOOR_MARGIN).max(BUILD_TIME_FLOOR));
            }
            kept = trust.take_floor_to_store();
            assert!(kept.is_some());
            age += 2;
        }
    }

    #[test]
    fn a_synchronised_clock_lowers_a_wrong_floor() {
        let mut trust = ClockTrust::new(Some(after(20)));
        assert_eq!(first(&mut trust, after(1), true), TrustLevel::Synchronised);
        assert_eq!(trust.take_floor_to_store(), Some(after(1)));
        assert_eq!(first(&mut trust, after(1), false), TrustLevel::Floor);
    }

    #[test]
    fn the_floor_is_stored_every_ten_minutes_of_a_synchronised_clock() {
        let mut trust = ClockTrust::new(None);
        let at = |seconds: i64| add_micros(after(1), seconds * SECOND);
        first(&mut trust, at(0), false);
        assert_eq!(trust.take_floor_to_store(), None);
        first(&mut trust, at(0), true);
        assert_eq!(trust.take_floor_to_store(), Some(at(0)));
        first(&mut trust, at(599), true);
        assert_eq!(trust.take_floor_to_store(), None);
        first(&mut trust, at(600), true);
        assert_eq!(trust.take_floor_to_store(), Some(at(600)));
    }

    #[test]
    fn no_time_of_a_clock_causes_an_overflow() {
        for kept in [None, Some(i64::MIN), Some(i64::MAX), Some(0)] {
            let mut trust = ClockTrust::new(kept.map(UnixTime::from_micros));
            for wall in [i64::MIN, -1, 0, i64::MAX] {
                first(&mut trust, UnixTime::from_micros(wall), false);
                first(&mut trust, UnixTime::from_micros(wall), true);
            }
        }
    }
}
