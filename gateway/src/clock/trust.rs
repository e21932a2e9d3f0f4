//! How far the clock can be trusted. Pure.
//!
//! A handshake with a time in the far future blocks the tunnel's key at the hub until that time has
//! come (WireGuard, 5.1: the hub rejects timestamps that are not later than the last). So a wrong
//! time must not be trusted at once, whether it was set by hand, by GPS or by a bad time server.
//!
//! What is certain is the floor: the time at which this version was written, or a later time that a
//! synchronised clock has shown. The other bound is a year after the latest time that a trusted
//! clock has shown. A clock beyond it is trusted when the kernel has vouched for it for an hour. A
//! device that is never synchronised is trusted all the same: its clock moves both bounds too.

use std::time::{Duration, Instant};

use super::{ClockReading, KnownTimes};
use provisioning::certificates::WRITTEN_AT;

use crate::model::{ClockPeriod, TrustLevel, UnixTime};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const YEAR: i64 = 31_557_600 * SECOND;

/// When this version was written: no gateway runs it earlier.
const BUILD_TIME_FLOOR: UnixTime = UnixTime::from_whole_seconds(WRITTEN_AT);
/// A clock that is this far after the time seen last has to be vouched for.
const MAX_PLAUSIBLE_AHEAD: i64 = YEAR;
/// For this long without a break: a time server that is wrong is noticed by then, or loses its
/// majority.
const VOUCHING_TIME: Duration = Duration::from_secs(3600);
/// A device that has never run only knows when this version was written, which says little about
/// the day of its installation. So its clock is trusted after this time, vouched for or not; a time
/// server has mostly set it by then.
const FIRST_RUN_PATIENCE: Duration = Duration::from_secs(300);
/// This far after the build, a device that has never run is no exception: 8 years, the life of a
/// clock's battery.
const FIRST_RUN_MAX_AHEAD: i64 = 8 * YEAR;
/// Running moves the floor no closer than this to a clock that is not synchronised: one that loses
/// a minute a month has to stay after the floor.
const FLOOR_MARGIN: i64 = 30 * DAY;
/// The times on disk are at most this much older: six small writes per hour, for the sake of flash.
const STORE_INTERVAL: i64 = 600 * SECOND;

/// The result of one assessment of the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockAssessment {
    /// The present period of the clock.
    pub period: ClockPeriod,
    /// The right time is later than this.
    pub floor: UnixTime,
    /// A time after this is not trusted.
    pub ceiling: UnixTime,
}

impl ClockAssessment {
    /// Returns how far a time can be trusted that nothing but these bounds confirms.
    #[must_use]
    pub fn plausibility(&self, time: UnixTime) -> TrustLevel {
        if (self.floor..self.ceiling).contains(&time) {
            TrustLevel::Floor
        } else {
            TrustLevel::Unset
        }
    }
}

/// Assesses the clock against the known times, which it moves.
#[derive(Debug)]
pub struct ClockTrust {
    known: KnownTimes,
    /// What the last run knew, or what is to be stored.
    stored: KnownTimes,
    is_store_due: bool,
    /// Whether no run before this one knew the time, and this one has not been synchronised.
    is_first_run: bool,
    /// When the clock was assessed last, and when the machine booted by that clock.
    last: Option<(Instant, UnixTime)>,
    /// Since when the clock has been beyond the ceiling, without having been set or, where that is
    /// needed, without a break in the kernel's vouching.
    beyond_since: Option<Instant>,
}

impl ClockTrust {
    /// Starts with what an earlier run stored.
    #[must_use]
    pub fn new(stored: Option<KnownTimes>) -> Self {
        let floor = stored.map_or(BUILD_TIME_FLOOR, |known| known.floor.max(BUILD_TIME_FLOOR));
        let seen = stored.map_or(floor, |known| known.seen.max(floor));
        let known = KnownTimes { floor, seen };
        Self {
            known,
            stored: known,
            is_store_due: false,
            is_first_run: stored.is_none(),
            last: None,
            beyond_since: None,
        }
    }

    /// Assesses the time that the clock shows. A synchronised time moves the known times in either
    /// direction: a clock that was wrong once must not make the right time look wrong.
    pub fn assess(
        &mut self,
        now: Instant,
        reading: ClockReading,
        is_synchronised: bool,
    ) -> ClockAssessment {
        let wall = reading.wall;
        let (passed, booted_at) = self.advance(now, reading.booted_at);
        let is_trusted = self.is_trusted(now, wall, is_synchronised);
        let trust = if is_trusted && is_synchronised && wall >= BUILD_TIME_FLOOR {
            self.known = KnownTimes { floor: wall, seen: wall };
            self.is_first_run = false;
            TrustLevel::Synchronised
        } else if is_trusted && wall >= self.known.floor {
            let grown =
                add_micros(self.known.floor, i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
            let floor = self.known.floor.max(grown.min(add_micros(wall, -FLOOR_MARGIN)));
            self.known = KnownTimes { floor, seen: wall };
            TrustLevel::Floor
        } else {
            TrustLevel::Unset
        };
        self.update_stored();
        // The stored times, so that the result does not change with every assessment.
        ClockAssessment {
            period: ClockPeriod { booted_at, trust },
            floor: self.stored.floor,
            ceiling: add_micros(self.stored.seen, MAX_PLAUSIBLE_AHEAD),
        }
    }

    /// Returns the time since the last assessment, and when the machine booted by the clock of this
    /// period: the difference of two clocks is never read twice with the same microsecond.
    fn advance(&mut self, now: Instant, booted_at: UnixTime) -> (Duration, UnixTime) {
        let Some((before, known)) = self.last.replace((now, booted_at)) else {
            return (Duration::ZERO, booted_at);
        };
        let period = ClockPeriod { booted_at: known, trust: TrustLevel::Unset };
        let booted_at = if period.has(booted_at) { known } else { booted_at };
        if booted_at != known {
            self.beyond_since = None;
        }
        self.last = Some((now, booted_at));
        (now.saturating_duration_since(before), booted_at)
    }

    /// Returns whether a time is not too far ahead, or has been shown for long enough.
    fn is_trusted(&mut self, now: Instant, wall: UnixTime, is_synchronised: bool) -> bool {
        if wall < add_micros(self.known.seen, MAX_PLAUSIBLE_AHEAD) {
            self.beyond_since = None;
            return true;
        }
        let is_installed =
            self.is_first_run && wall < add_micros(BUILD_TIME_FLOOR, FIRST_RUN_MAX_AHEAD);
        if !is_installed && !is_synchronised {
            self.beyond_since = None;
            return false;
        }
        let needed = if is_installed { FIRST_RUN_PATIENCE } else { VOUCHING_TIME };
        let since = *self.beyond_since.get_or_insert(now);
        now.saturating_duration_since(since) >= needed
    }

    fn update_stored(&mut self) {
        let is_far = |known: UnixTime, stored: UnixTime| {
            known.as_micros().abs_diff(stored.as_micros()) >= STORE_INTERVAL.unsigned_abs()
        };
        if is_far(self.known.floor, self.stored.floor) || is_far(self.known.seen, self.stored.seen)
        {
            self.stored = self.known;
            self.is_store_due = true;
        }
    }

    /// Returns the known times when they are due to be stored.
    pub fn take_times_to_store(&mut self) -> Option<KnownTimes> {
        std::mem::take(&mut self.is_store_due).then_some(self.stored)
    }
}

const fn add_micros(time: UnixTime, by: i64) -> UnixTime {
    UnixTime::from_micros(time.as_micros().saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(years: i64) -> UnixTime {
        add_micros(BUILD_TIME_FLOOR, years * YEAR)
    }

    fn known(floor: UnixTime) -> Option<KnownTimes> {
        Some(KnownTimes { floor, seen: floor })
    }

    /// A device with a clock, and the kernel's word for it.
    struct TestDevice {
        trust: ClockTrust,
        start: Instant,
        /// Time since the boot, in seconds.
        uptime: u64,
        booted_at: UnixTime,
        is_synchronised: bool,
    }

    impl TestDevice {
        fn new(stored: Option<KnownTimes>, wall: UnixTime, is_synchronised: bool) -> Self {
            let trust = ClockTrust::new(stored);
            Self { trust, start: Instant::now(), uptime: 0, booted_at: wall, is_synchronised }
        }

        fn set_clock(&mut self, wall: UnixTime) {
            self.booted_at = add_micros(wall, -self.micros());
        }

        fn micros(&self) -> i64 {
            i64::try_from(self.uptime).unwrap() * SECOND
        }

        fn assess(&mut self) -> ClockAssessment {
            let now = self.start + Duration::from_secs(self.uptime);
            let wall = add_micros(self.booted_at, self.micros());
            let reading = ClockReading { wall, booted_at: self.booted_at };
            self.trust.assess(now, reading, self.is_synchronised)
        }

        fn trust(&mut self) -> TrustLevel {
            self.assess().period.trust
        }

        /// Assesses the clock every second; returns after how many it is trusted this far.
        fn seconds_until(&mut self, trust: TrustLevel, most: u64) -> Option<u64> {
            (0..=most).find(|_| {
                let is_trusted = self.trust() >= trust;
                self.uptime += u64::from(!is_trusted);
                is_trusted
            })
        }
    }

    #[test]
    fn a_device_that_starts_in_1970_has_an_unset_clock() {
        let mut device = TestDevice::new(None, UnixTime::from_micros(0), false);
        assert_eq!(device.trust(), TrustLevel::Unset);
        device.is_synchronised = true;
        assert_eq!(device.trust(), TrustLevel::Unset);
        device.set_clock(add_micros(BUILD_TIME_FLOOR, 300 * DAY));
        assert_eq!(device.trust(), TrustLevel::Synchronised);
        device.is_synchronised = false;
        assert_eq!(device.trust(), TrustLevel::Floor);
    }

    #[test]
    fn no_device_trusts_a_time_before_this_version_was_written() {
        let written = UnixTime::from_whole_seconds(WRITTEN_AT);
        for stored in [None, known(UnixTime::from_micros(0)), known(written)] {
            for is_synchronised in [false, true] {
                let early = add_micros(written, -1);
                let mut device = TestDevice::new(stored, early, is_synchronised);
                assert_eq!(device.trust(), TrustLevel::Unset);
                device.uptime = 1;
                assert!(device.trust() >= TrustLevel::Floor);
            }
        }
    }

    #[test]
    fn a_time_before_the_stored_floor_is_not_trusted() {
        assert_eq!(TestDevice::new(known(after(3)), after(2), false).trust(), TrustLevel::Unset);
        assert_eq!(TestDevice::new(known(after(3)), after(3), false).trust(), TrustLevel::Floor);
    }

    #[test]
    fn a_clock_more_than_a_year_after_the_last_run_waits_for_an_hour_of_vouching() {
        for years in [1, 2, 7, 12, 60] {
            let stored = after(1);
            let wall = add_micros(stored, years * YEAR);
            let mut device = TestDevice::new(known(stored), wall, true);
            let assessment = device.assess();
            assert!(assessment.ceiling <= wall && assessment.floor == stored);
            assert_eq!(device.seconds_until(TrustLevel::Floor, 3600), Some(3600), "{years}");
            assert_eq!(device.trust(), TrustLevel::Synchronised);
            let assessment = device.assess();
            assert!(assessment.ceiling > wall && assessment.floor >= wall);

            let mut device = TestDevice::new(known(stored), wall, false);
            assert_eq!(device.seconds_until(TrustLevel::Floor, 100_000), None, "{years}");
            // Once the clock is right it is trusted at once.
            device.set_clock(add_micros(stored, DAY));
            assert_eq!(device.trust(), TrustLevel::Floor);
        }
        let almost = add_micros(after(1), YEAR - SECOND);
        assert_eq!(TestDevice::new(known(after(1)), almost, false).trust(), TrustLevel::Floor);
    }

    #[test]
    fn any_break_in_the_vouching_starts_the_hour_again() {
        let breaks: [fn(&mut TestDevice); 3] = [
            |device| device.is_synchronised = false,
            |device| device.set_clock(after(2)),
            |device| device.booted_at = add_micros(device.booted_at, YEAR),
        ];
        for break_off in breaks {
            let mut device = TestDevice::new(known(after(1)), after(5), true);
            assert_eq!(device.seconds_until(TrustLevel::Floor, 3598), None);
            let (booted_at, known) = (device.booted_at, device.trust.known);
            break_off(&mut device);
            device.trust();
            (device.booted_at, device.is_synchronised) = (booted_at, true);
            device.trust.known = known;
            assert_eq!(device.seconds_until(TrustLevel::Floor, 3600), Some(3600));
        }
    }

    #[test]
    fn a_device_that_has_never_run_waits_for_five_minutes() {
        for years in [1, 3, 7] {
            for is_synchronised in [false, true] {
                let mut device = TestDevice::new(None, after(years), is_synchronised);
                assert_eq!(device.seconds_until(TrustLevel::Floor, 300), Some(300), "{years}");
                // What it believed is what the next run compares with.
                let stored = device.trust.take_times_to_store();
                assert_eq!(
                    stored.map(|known| known.seen),
                    Some(add_micros(after(years), 300 * SECOND))
                );
                assert!(
                    TestDevice::new(stored, after(years), false).trust.stored.seen > after(years)
                );
            }
        }
        let mut ahead = TestDevice::new(None, after(9), true);
        assert_eq!(ahead.seconds_until(TrustLevel::Floor, 3600), Some(3600));
    }

    #[test]
    fn eight_years_after_the_build_a_first_run_is_no_exception() {
        // Five minutes later it is a second before the eight years are over, or no longer.
        for (before, expected) in [(301, Some(300)), (300, None)] {
            let start = add_micros(after(8), -before * SECOND);
            let mut device = TestDevice::new(None, start, false);
            assert_eq!(device.seconds_until(TrustLevel::Floor, 4000), expected, "{before}");
        }
    }

    #[test]
    fn the_floor_follows_a_running_clock_and_stays_a_month_behind_it() {
        let mut device = TestDevice::new(known(after(1)), after(1), false);
        for day in 0..100 {
            device.uptime = day * 86_400;
            let floor = device.assess().floor;
            let behind = device.micros() - 2_592_000_000_000;
            assert_eq!(floor, add_micros(after(1), behind.max(0)), "day {day}");
        }
    }

    /// Images start at the time of their build, until a time server sets the clock.
    #[test]
    fn a_device_without_a_battery_starts_at_a_build_time_and_is_set_years_later() {
        for start in [add_micros(BUILD_TIME_FLOOR, -YEAR), add_micros(BUILD_TIME_FLOOR, DAY)] {
            let mut device = TestDevice::new(None, start, false);
            device.trust();
            (device.uptime, device.is_synchronised) = (60, true);
            device.set_clock(after(3));
            assert_eq!(device.seconds_until(TrustLevel::Synchronised, 300), Some(300));
            let stored = device.trust.take_times_to_store();

            let mut second_run = TestDevice::new(stored, start, false);
            assert_eq!(second_run.trust(), TrustLevel::Unset);
            second_run.is_synchronised = true;
            second_run.set_clock(add_micros(after(3), 300 * DAY));
            assert_eq!(second_run.trust(), TrustLevel::Synchronised);
        }
    }

    #[test]
    fn a_first_run_that_was_synchronised_is_a_run_like_any_other() {
        let mut device = TestDevice::new(None, BUILD_TIME_FLOOR, true);
        assert_eq!(device.trust(), TrustLevel::Synchronised);
        device.set_clock(after(3));
        assert_eq!(device.seconds_until(TrustLevel::Floor, 3600), Some(3600));
    }

    #[test]
    fn a_device_without_time_server_is_trusted_for_decades_of_running() {
        let mut stored = known(BUILD_TIME_FLOOR);
        // It is off for the second half of each of ten years.
        for half_year in (0..20).step_by(2) {
            let start = add_micros(BUILD_TIME_FLOOR, half_year * YEAR / 2);
            let mut device = TestDevice::new(stored, start, false);
            for week in 0..26 {
                device.uptime = week * 7 * 86_400;
                assert_eq!(device.trust(), TrustLevel::Floor, "{half_year} {week}");
                // A clock that is set back a little by hand is still trusted.
                let wall = add_micros(start, device.micros());
                let highest = add_micros(wall, -FLOOR_MARGIN).max(BUILD_TIME_FLOOR);
                assert!(device.trust.known.floor <= highest);
            }
            stored = device.trust.take_times_to_store();
            assert!(stored.is_some());
        }
    }

    #[test]
    fn a_wrong_year_that_was_set_by_hand_can_be_set_right_by_hand() {
        let mut device = TestDevice::new(known(after(1)), after(1), false);
        device.set_clock(add_micros(after(1), 360 * DAY));
        assert_eq!(device.trust(), TrustLevel::Floor);
        device.uptime += 3600;
        device.set_clock(add_micros(after(1), 3600 * SECOND));
        assert_eq!(device.trust(), TrustLevel::Floor);
        assert!(device.assess().ceiling < add_micros(after(2), DAY));
    }

    #[test]
    fn a_synchronised_clock_lowers_a_wrong_floor_at_once() {
        let mut device = TestDevice::new(known(after(20)), after(1), true);
        let assessment = device.assess();
        assert_eq!(assessment.period.trust, TrustLevel::Synchronised);
        assert_eq!((assessment.floor, assessment.ceiling), (after(1), after(2)));
        assert_eq!(device.trust.take_times_to_store(), known(after(1)));
        device.is_synchronised = false;
        assert_eq!(device.trust(), TrustLevel::Floor);
    }

    #[test]
    fn the_times_are_stored_every_ten_minutes() {
        let mut device = TestDevice::new(None, BUILD_TIME_FLOOR, true);
        let stored_at = |device: &mut TestDevice, uptime| {
            device.uptime = uptime;
            device.trust();
            device.trust.take_times_to_store()
        };
        assert_eq!(stored_at(&mut device, 0), None);
        assert_eq!(stored_at(&mut device, 599), None);
        let at = add_micros(BUILD_TIME_FLOOR, 600 * SECOND);
        assert_eq!(stored_at(&mut device, 600), known(at));
        assert_eq!(stored_at(&mut device, 1199), None);
    }

    #[test]
    fn the_result_changes_when_the_clock_is_set_and_not_with_every_reading() {
        let mut device = TestDevice::new(known(after(1)), after(1), true);
        let first = device.assess();
        for micros in [3, -2, 999_999] {
            device.booted_at = add_micros(after(1), micros);
            device.uptime += 1;
            assert_eq!(device.assess(), first);
        }
        device.booted_at = add_micros(after(1), 2 * SECOND);
        assert_eq!(device.assess().period.booted_at, device.booted_at);
    }

    #[test]
    fn no_time_of_a_clock_causes_an_overflow() {
        for stored in [None, Some(i64::MIN), Some(i64::MAX), Some(0)] {
            let stored = stored.map(UnixTime::from_micros);
            let mut trust = ClockTrust::new(stored.and_then(known));
            for time in [i64::MIN, -1, 0, i64::MAX] {
                let time = UnixTime::from_micros(time);
                let reading = ClockReading { wall: time, booted_at: time };
                trust.assess(Instant::now(), reading, false);
                trust.assess(Instant::now(), reading, true);
            }
        }
    }
}
