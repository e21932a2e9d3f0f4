//! How far the clock can be believed. Pure.
//!
//! A handshake with a time of the far future locks the tunnel's key out at the hub until that time
//! has come, so whoever sets a clock wrong, by hand, by GPS or by a bad time server, must not be
//! believed at once. What is known for certain is the floor: the moment at which this version was
//! written, or a later one that a clock has shown which was believed. A clock is wrong when it is
//! further beyond the floor than the battery of a clock lasts: nobody has kept the time for so long.
//! A box that has lain in a store for longer, or has been off, has to hear the same of a time server
//! for a day. Whoever is never told the time by one grows old all the same: time that passes while the
//! gateway runs moves the floor too, so that it is years of being off that count, not of running.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::model::UnixTime;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const YEAR: i64 = 31_557_600 * SECOND;

/// No gateway runs before this version was written: 2026-11-01.
const BUILD_TIME_FLOOR: UnixTime = UnixTime::from_micros(1_793_491_200 * SECOND);
/// A clock so far beyond the floor is wrong.
const MAX_PLAUSIBLE_AHEAD: i64 = 8 * YEAR;
/// Unless the kernel vouches for it for so long without a break.
const SUSTAINED_SYNC: Duration = Duration::from_secs(86_400);
/// Running moves the floor no closer than this to a clock that nobody vouches for: one that loses a
/// minute a month has to stay beyond it.
const FLOOR_MARGIN: i64 = 30 * DAY;
/// The floor on disk lags behind by this at most: six small writes an hour.
const FLOOR_STORE_INTERVAL: i64 = 600 * SECOND;

/// How far the clock can be trusted, worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum TrustLevel {
    /// It shows a time that is long past, or one that cannot be.
    Unset,
    /// It is past the floor; nobody has compared it with another clock.
    Floor,
    /// The kernel says that it follows a time server.
    Synchronised,
}

/// A look at the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockAssessment {
    /// How far it can be believed.
    pub trust: TrustLevel,
    /// It is later than this.
    pub floor: UnixTime,
    /// It is earlier than this.
    pub ceiling: UnixTime,
}

/// Remembers what the clock has passed.
#[derive(Debug)]
pub struct ClockTrust {
    floor: UnixTime,
    stored_floor: UnixTime,
    is_store_due: bool,
    /// When the clock was looked at last.
    last_assessed_at: Option<Instant>,
    /// Since when the kernel vouches for a clock that is beyond belief.
    sustained_since: Option<Instant>,
}

impl ClockTrust {
    /// Begins with the floor that an earlier run has kept.
    #[must_use]
    pub fn new(kept: Option<UnixTime>) -> Self {
        let floor = kept.unwrap_or(BUILD_TIME_FLOOR).max(BUILD_TIME_FLOOR);
        Self {
            floor,
            stored_floor: floor,
            is_store_due: false,
            last_assessed_at: None,
            sustained_since: None,
        }
    }

    /// Judges what the clock shows. A time that the kernel vouches for moves the floor in either
    /// direction: a clock that was wrong once must not make a right one look wrong.
    pub fn assess(
        &mut self,
        now: Instant,
        wall: UnixTime,
        is_synchronised: bool,
    ) -> ClockAssessment {
        let before = self.last_assessed_at.replace(now);
        let passed = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        let is_credible = wall < add_micros(self.floor, MAX_PLAUSIBLE_AHEAD);
        let is_vouched_for = is_synchronised && wall >= BUILD_TIME_FLOOR;
        let state = if is_vouched_for && (is_credible || self.is_sustained(now)) {
            self.floor = wall;
            TrustLevel::Synchronised
        } else if is_credible && wall >= self.floor {
            let grown =
                add_micros(self.floor, i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
            self.floor = self.floor.max(grown.min(add_micros(wall, -FLOOR_MARGIN)));
            TrustLevel::Floor
        } else {
            TrustLevel::Unset
        };
        if !is_synchronised || is_credible {
            self.sustained_since = None;
        }
        let away = self.floor.as_micros().abs_diff(self.stored_floor.as_micros());
        self.is_store_due |= away >= FLOOR_STORE_INTERVAL.unsigned_abs();
        // The floor is told as it was kept, so that a judgement does not change with every look.
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

    /// The floor, when it is time to write it down.
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

    /// What a look tells that comes this long after the start.
    fn look(
        judge: &mut ClockTrust,
        after: Duration,
        wall: UnixTime,
        is_synchronised: bool,
    ) -> TrustLevel {
        // One start for all looks of a test.
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        judge.assess(start + after, wall, is_synchronised).trust
    }

    /// The same at the start.
    fn first(judge: &mut ClockTrust, wall: UnixTime, is_synchronised: bool) -> TrustLevel {
        look(judge, Duration::ZERO, wall, is_synchronised)
    }

    #[test]
    fn a_box_that_wakes_up_in_1970_has_no_time() {
        let mut judge = ClockTrust::new(None);
        assert_eq!(first(&mut judge, UnixTime::from_micros(0), false), TrustLevel::Unset);
        assert_eq!(first(&mut judge, UnixTime::from_micros(0), true), TrustLevel::Unset);
        assert_eq!(first(&mut judge, after(1), false), TrustLevel::Floor);
        assert_eq!(first(&mut judge, after(1), true), TrustLevel::Synchronised);
    }

    #[test]
    fn a_time_before_the_kept_one_is_not_believed() {
        let mut judge = ClockTrust::new(Some(after(3)));
        assert_eq!(first(&mut judge, after(2), false), TrustLevel::Unset);
        assert_eq!(first(&mut judge, after(3), false), TrustLevel::Floor);
    }

    #[test]
    fn a_clock_ten_years_ahead_is_not_believed() {
        for kept in [after(0), after(7)] {
            for is_synchronised in [false, true] {
                let mut judge = ClockTrust::new(Some(kept));
                let ahead = add_micros(kept, 10 * YEAR);
                assert_eq!(first(&mut judge, ahead, is_synchronised), TrustLevel::Unset);
                let judgement = judge.assess(Instant::now(), ahead, is_synchronised);
                assert!(judgement.ceiling < ahead && judgement.floor == kept);
                assert_eq!(judge.take_floor_to_store(), None);
                // A time server that has come to its senses is believed at once.
                assert_eq!(first(&mut judge, kept, true), TrustLevel::Synchronised);
            }
        }
    }

    #[test]
    fn a_box_that_was_off_for_years_is_right() {
        let mut judge = ClockTrust::new(None);
        assert_eq!(first(&mut judge, after(7), false), TrustLevel::Floor);
        assert_eq!(first(&mut judge, after(7), true), TrustLevel::Synchronised);
    }

    #[test]
    fn a_time_server_that_says_the_same_for_a_day_is_believed_and_a_hand_never() {
        for is_synchronised in [false, true] {
            let mut judge = ClockTrust::new(None);
            for hour in 0..24 {
                let after_start = Duration::from_secs(3600 * hour);
                assert_eq!(
                    look(&mut judge, after_start, after(12), is_synchronised),
                    TrustLevel::Unset
                );
            }
            let state = look(&mut judge, SUSTAINED_SYNC, after(12), is_synchronised);
            let then = if is_synchronised { TrustLevel::Synchronised } else { TrustLevel::Unset };
            assert_eq!(state, then);
            assert_eq!(judge.take_floor_to_store(), is_synchronised.then(|| after(12)));
        }
        let mut judge = ClockTrust::new(None);
        first(&mut judge, after(12), true);
        look(&mut judge, SUSTAINED_SYNC / 2, after(1), true);
        assert_eq!(look(&mut judge, SUSTAINED_SYNC, after(12), true), TrustLevel::Unset);
    }

    #[test]
    fn a_box_that_never_meets_a_time_server_grows_old_without_being_doubted() {
        let (mut kept, mut age) = (None, 0);
        // It is off for every second half of ten years.
        for _ in 0..10 {
            let mut judge = ClockTrust::new(kept);
            for week in 0..26 {
                let wall = add_micros(BUILD_TIME_FLOOR, age * YEAR / 2 + week * 7 * DAY);
                let running = Duration::from_secs(7 * 86_400) * u32::try_from(week).unwrap();
                assert_eq!(
                    look(&mut judge, running, wall, false),
                    TrustLevel::Floor,
                    "{age} {week}"
                );
                // A clock that is corrected by hand is still right.
                assert!(judge.floor <= add_micros(wall, -FLOOR_MARGIN).max(BUILD_TIME_FLOOR));
            }
            kept = judge.take_floor_to_store();
            assert!(kept.is_some());
            age += 2;
        }
    }

    #[test]
    fn a_floor_that_was_wrong_is_lowered_by_a_synchronised_clock() {
        let mut judge = ClockTrust::new(Some(after(20)));
        assert_eq!(first(&mut judge, after(1), true), TrustLevel::Synchronised);
        assert_eq!(judge.take_floor_to_store(), Some(after(1)));
        assert_eq!(first(&mut judge, after(1), false), TrustLevel::Floor);
    }

    #[test]
    fn the_floor_is_kept_every_ten_minutes_and_not_from_a_clock_that_was_only_set() {
        let mut judge = ClockTrust::new(None);
        let at = |seconds: i64| add_micros(after(1), seconds * SECOND);
        first(&mut judge, at(0), false);
        assert_eq!(judge.take_floor_to_store(), None);
        first(&mut judge, at(0), true);
        assert_eq!(judge.take_floor_to_store(), Some(at(0)));
        first(&mut judge, at(599), true);
        assert_eq!(judge.take_floor_to_store(), None);
        first(&mut judge, at(600), true);
        assert_eq!(judge.take_floor_to_store(), Some(at(600)));
    }

    #[test]
    fn nothing_that_a_clock_can_show_breaks_the_judge() {
        for kept in [None, Some(i64::MIN), Some(i64::MAX), Some(0)] {
            let mut judge = ClockTrust::new(kept.map(UnixTime::from_micros));
            for wall in [i64::MIN, -1, 0, i64::MAX] {
                first(&mut judge, UnixTime::from_micros(wall), false);
                first(&mut judge, UnixTime::from_micros(wall), true);
            }
        }
    }
}
