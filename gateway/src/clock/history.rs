//! Corrections for times that a wrong clock gave. Pure.
//!
//! Each time the clock is set while the gateway runs, a new period begins. Times from a period with
//! a wrong clock can be corrected by a later period with a better one, because the monotonic clock
//! runs through both.

use std::collections::VecDeque;
use std::time::Instant;

use super::TrustLevel;
use crate::model::UnixTime;

/// A jump by more than this, in microseconds, means that the clock was set. Slewing between two
/// records is slower (adjtimex(2): at most 500 ppm).
const STEP_THRESHOLD_MICROS: i64 = 1_000_000;
/// Number of periods that are kept; the oldest is forgotten first. Bounds the memory for a clock
/// that is set again and again.
const MAX_PERIODS: usize = 16;

/// The periods of this run, oldest first.
#[derive(Debug)]
pub struct ClockHistory {
    origin: Instant,
    periods: VecDeque<ClockPeriod>,
}

#[derive(Debug)]
struct ClockPeriod {
    /// Number of the first entry taken in this period.
    first_entry: u64,
    /// Wall time at `origin` as this period's clock counts back to it, in microseconds.
    offset: i64,
    /// The highest trust in the clock within the period.
    trust: TrustLevel,
}

/// How to correct the times of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Correction {
    /// Nothing better is known: the times stay as they were taken.
    Unknown,
    /// The times are right, which may not have been known when they were taken.
    Confirmed,
    /// Add this many microseconds.
    Shift(i64),
}

impl ClockHistory {
    /// Returns an empty history; `origin` is the present moment.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, periods: VecDeque::new() }
    }

    /// Records that entry number `entry` was taken `at` this time, a moment before `now`, when the
    /// clock shows `wall` and can be trusted this far. Numbers ascend.
    pub fn record(
        &mut self,
        entry: u64,
        at: UnixTime,
        now: Instant,
        wall: UnixTime,
        trust: TrustLevel,
    ) {
        let mono = now.saturating_duration_since(self.origin).as_micros();
        let mono = i64::try_from(mono).unwrap_or(i64::MAX);
        let offset = wall.as_micros().saturating_sub(mono);
        match self.periods.back_mut() {
            Some(period)
                if period.offset.abs_diff(offset) <= STEP_THRESHOLD_MICROS.unsigned_abs() =>
            {
                period.offset = offset;
                period.trust = period.trust.max(trust);
            }
            // The entry was taken before the clock was set, and arrives after it.
            Some(period) if is_closer(at, period.offset.saturating_add(mono), wall) => {}
            _ => {
                self.periods.push_back(ClockPeriod { first_entry: entry, offset, trust });
                if self.periods.len() > MAX_PERIODS {
                    self.periods.pop_front();
                }
            }
        }
    }

    /// Applies new numbers to the entries; their order stays the same.
    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        self.periods.iter_mut().for_each(|period| period.first_entry = number(period.first_entry));
    }

    /// Returns the correction for the times of entry number `entry`, as known now.
    #[must_use]
    pub fn correction(&self, entry: u64) -> Correction {
        let period = self.periods.iter().rev().find(|period| period.first_entry <= entry);
        let (Some(period), Some(now)) = (period, self.periods.back()) else {
            return Correction::Unknown;
        };
        if period.trust < now.trust {
            Correction::Shift(now.offset.saturating_sub(period.offset))
        } else if period.trust > TrustLevel::Unset {
            Correction::Confirmed
        } else {
            Correction::Unknown
        }
    }
}

fn is_closer(at: UnixTime, this: i64, that: UnixTime) -> bool {
    at.as_micros().abs_diff(this) < at.as_micros().abs_diff(that.as_micros())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A wall clock that can be set, and a monotonic one.
    struct SettableClock {
        history: ClockHistory,
        origin: Instant,
        mono: i64,
        offset: i64,
        trust: TrustLevel,
        taken: u64,
    }

    impl SettableClock {
        fn new(offset: i64, state: TrustLevel) -> Self {
            let origin = Instant::now();
            Self {
                history: ClockHistory::new(origin),
                origin,
                mono: 0,
                offset,
                trust: state,
                taken: 0,
            }
        }

        fn wall(&self) -> UnixTime {
            UnixTime::from_micros(self.mono + self.offset)
        }

        fn take(&mut self) -> u64 {
            self.mono += 100_000;
            let at = self.wall();
            self.hear(at)
        }

        fn hear(&mut self, at: UnixTime) -> u64 {
            let now = self.origin + Duration::from_micros(self.mono.unsigned_abs());
            self.history.record(self.taken, at, now, self.wall(), self.trust);
            self.taken += 1;
            self.taken - 1
        }
    }

    const RIGHT: i64 = 1_800_000_000_000_000;

    #[test]
    fn times_from_1970_are_corrected_when_the_clock_is_set() {
        let mut site = SettableClock::new(0, TrustLevel::Unset);
        let early = site.take();
        assert_eq!(site.history.correction(early), Correction::Unknown);

        (site.offset, site.trust) = (RIGHT, TrustLevel::Floor);
        let late = site.take();

        assert_eq!(site.history.correction(early), Correction::Shift(RIGHT));
        assert_eq!(site.history.correction(late), Correction::Confirmed);
    }

    #[test]
    fn a_renumbered_entry_keeps_its_correction() {
        let mut site = SettableClock::new(0, TrustLevel::Unset);
        site.taken = 3;
        let early = site.take();
        site.history.renumber(|entry| entry + 40);
        (site.offset, site.trust, site.taken) = (RIGHT, TrustLevel::Synchronised, 44);
        site.take();

        assert_eq!(
            site.history.correction(early),
            Correction::Unknown,
            "another entry has this number now"
        );
        assert_eq!(site.history.correction(early + 40), Correction::Shift(RIGHT));
    }

    #[test]
    fn a_time_server_corrects_a_plausible_clock_and_nothing_corrects_a_right_one() {
        let mut site = SettableClock::new(RIGHT - 7_200_000_000, TrustLevel::Floor);
        let early = site.take();
        site.offset = RIGHT;
        let unnoticed = site.take();
        assert_eq!(site.history.correction(early), Correction::Confirmed);
        site.trust = TrustLevel::Synchronised;
        let right = site.take();
        assert_eq!(site.history.correction(early), Correction::Shift(7_200_000_000));
        assert_eq!(site.history.correction(unnoticed), Correction::Confirmed);

        (site.offset, site.trust) = (0, TrustLevel::Unset);
        let wrong = site.take();

        assert_eq!(site.history.correction(right), Correction::Confirmed);
        assert_eq!(site.history.correction(wrong), Correction::Unknown);
    }

    #[test]
    fn an_entry_read_before_the_jump_and_recorded_after_it_is_corrected() {
        let mut site = SettableClock::new(0, TrustLevel::Unset);
        site.take();
        let read = site.wall();
        (site.offset, site.trust) = (RIGHT, TrustLevel::Synchronised);

        let on_the_way = site.hear(read);
        let first = site.take();

        assert_eq!(site.history.correction(on_the_way), Correction::Shift(RIGHT));
        assert_eq!(site.history.correction(first), Correction::Confirmed);
    }

    #[test]
    fn entries_of_an_earlier_run_are_not_corrected() {
        let mut site = SettableClock::new(RIGHT, TrustLevel::Synchronised);
        site.taken = 7;
        site.take();

        assert_eq!(site.history.correction(6), Correction::Unknown);
    }

    proptest! {
        /// Corrected times show what the most trusted clock would have shown, and a clock that is
        /// slewed corrects nothing.
        #[test]
        fn a_corrected_time_is_that_of_the_most_trusted_clock(
            steps in prop::collection::vec((-RIGHT..RIGHT, 0..3_u8, 1..5_u8), 1..30)
        ) {
            let mut site = SettableClock::new(RIGHT, TrustLevel::Floor);
            let mut taken = Vec::new();
            for (offset, state, count) in steps {
                if offset % 3 != 0 {
                    site.offset = offset;
                }
                site.trust = [TrustLevel::Unset, TrustLevel::Floor, TrustLevel::Synchronised][usize::from(state)];
                for _ in 0..count {
                    let entry = site.take();
                    taken.push((entry, site.wall().as_micros(), site.mono));
                }
            }
            prop_assert!(site.history.periods.len() <= MAX_PERIODS);
            for (entry, at, mono) in taken {
                if let Correction::Shift(shift) = site.history.correction(entry) {
                    let believed = mono + site.offset;
                    prop_assert!((at + shift).abs_diff(believed) <= STEP_THRESHOLD_MICROS.unsigned_abs());
                }
            }
        }
    }
}
