//! Corrections for times that a wrong clock gave. Pure.
//!
//! Each time the clock is set, a new period begins. A record keeps the period in which it was read,
//! on disk too. Its times can be corrected by a period with a better clock, because the time since
//! the boot runs through both, and through every restart of the gateway.

use std::collections::VecDeque;

use super::ClockAssessment;
use crate::model::{ClockPeriod, TrustLevel, UnixTime};

/// Number of periods that are kept; the oldest is forgotten first. Bounds the memory for a clock
/// that is set again and again.
const MAX_PERIODS: usize = 16;

/// The periods of this run.
#[derive(Debug)]
pub struct ClockHistory {
    /// How the clock was assessed last.
    assessment: ClockAssessment,
    /// The present period last. No two are of the same clock.
    periods: VecDeque<ClockPeriod>,
}

/// How to correct the times of a record.
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
    /// Starts with the present period.
    #[must_use]
    pub fn new(assessment: ClockAssessment) -> Self {
        Self { assessment, periods: VecDeque::from([assessment.period]) }
    }

    /// Records how the clock is assessed now.
    pub fn on_assessed(&mut self, assessment: ClockAssessment) {
        let mut period = assessment.period;
        let known = self.periods.iter().position(|known| known.has(period.booted_at));
        if let Some(known) = known.and_then(|known| self.periods.remove(known)) {
            period = ClockPeriod { trust: period.trust.max(known.trust), ..known };
        } else if self.periods.len() == MAX_PERIODS {
            self.periods.pop_front();
        }
        self.periods.push_back(period);
        self.assessment = assessment;
    }

    /// Returns the period of a clock that said `at` when a record was read, and that the machine
    /// booted at `booted_at`.
    #[must_use]
    pub fn period_of(&self, at: UnixTime, booted_at: UnixTime) -> ClockPeriod {
        let known = self.periods.iter().find(|known| known.has(booted_at));
        known.copied().unwrap_or_else(|| {
            // The clock was set since it was assessed last.
            ClockPeriod { booted_at, trust: self.assessment.plausibility(at) }
        })
    }

    /// Returns the correction for the times of a record that was read in `period`, as known now:
    /// by the latest of the most trusted periods.
    #[must_use]
    pub fn correction(&self, period: ClockPeriod) -> Correction {
        let known = self.periods.iter().find(|known| known.has(period.booted_at));
        let trust = known.map_or(period.trust, |known| known.trust.max(period.trust));
        let best = self.periods.iter().max_by_key(|period| period.trust);
        if let Some(best) = best.filter(|best| best.trust > trust) {
            let shift = best.booted_at.as_micros().wrapping_sub(period.booted_at.as_micros());
            Correction::Shift(shift)
        } else if trust > TrustLevel::Unset {
            Correction::Confirmed
        } else {
            Correction::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RIGHT: i64 = 1_800_000_000_000_000;
    const HOUR: i64 = 3_600_000_000;

    fn assessed(booted_at: i64, trust: TrustLevel) -> ClockAssessment {
        ClockAssessment {
            period: period(booted_at, trust),
            floor: UnixTime::from_micros(RIGHT - HOUR),
            ceiling: UnixTime::from_micros(RIGHT + 100 * HOUR),
        }
    }

    fn period(booted_at: i64, trust: TrustLevel) -> ClockPeriod {
        ClockPeriod { booted_at: UnixTime::from_micros(booted_at), trust }
    }

    #[test]
    fn times_from_1970_are_corrected_as_soon_as_the_clock_is_set() {
        let wrong = assessed(0, TrustLevel::Unset);
        let mut history = ClockHistory::new(wrong);
        assert_eq!(history.correction(wrong.period), Correction::Unknown);

        let right = assessed(RIGHT, TrustLevel::Floor);
        history.on_assessed(right);

        assert_eq!(history.correction(wrong.period), Correction::Shift(RIGHT));
        assert_eq!(history.correction(right.period), Correction::Confirmed);
    }

    /// The process that read the record knew the wrong clock only.
    #[test]
    fn times_of_an_earlier_process_are_corrected_by_the_clock_of_this_one() {
        let early = period(0, TrustLevel::Unset);
        let mut history = ClockHistory::new(assessed(RIGHT, TrustLevel::Floor));
        assert_eq!(history.correction(early), Correction::Shift(RIGHT));
        history.on_assessed(assessed(RIGHT + HOUR, TrustLevel::Synchronised));
        assert_eq!(history.correction(early), Correction::Shift(RIGHT + HOUR));
    }

    #[test]
    fn a_time_server_corrects_a_plausible_clock_and_nothing_corrects_a_right_one() {
        let early = period(RIGHT - 2 * HOUR, TrustLevel::Floor);
        let mut history = ClockHistory::new(assessed(RIGHT - 2 * HOUR, TrustLevel::Floor));
        history.on_assessed(assessed(RIGHT, TrustLevel::Floor));
        assert_eq!(history.correction(early), Correction::Confirmed);
        history.on_assessed(assessed(RIGHT, TrustLevel::Synchronised));
        assert_eq!(history.correction(early), Correction::Shift(2 * HOUR));
        // Taken before the time server had confirmed the clock.
        let unnoticed = period(RIGHT, TrustLevel::Floor);
        assert_eq!(history.correction(unnoticed), Correction::Confirmed);

        history.on_assessed(assessed(0, TrustLevel::Unset));

        let right = period(RIGHT, TrustLevel::Synchronised);
        assert_eq!(history.correction(right), Correction::Confirmed);
        let wrong = period(0, TrustLevel::Unset);
        assert_eq!(history.correction(wrong), Correction::Shift(RIGHT));
    }

    #[test]
    fn a_record_of_a_clock_that_was_set_a_moment_ago_is_judged_by_the_bounds() {
        let history = ClockHistory::new(assessed(RIGHT, TrustLevel::Synchronised));
        let trust = |at, booted_at| {
            let (at, booted_at) = (UnixTime::from_micros(at), UnixTime::from_micros(booted_at));
            history.period_of(at, booted_at).trust
        };
        assert_eq!(trust(RIGHT + HOUR, RIGHT + 500_000), TrustLevel::Synchronised);
        assert_eq!(trust(RIGHT + 2 * HOUR, RIGHT + HOUR), TrustLevel::Floor);
        assert_eq!(trust(HOUR, 0), TrustLevel::Unset);
        assert_eq!(trust(RIGHT + 101 * HOUR, RIGHT + 100 * HOUR), TrustLevel::Unset);
    }

    const LEVELS: [TrustLevel; 3] =
        [TrustLevel::Unset, TrustLevel::Floor, TrustLevel::Synchronised];

    proptest! {
        /// However often the clock is set and the gateway restarts: a corrected time shows what the
        /// latest of the most trusted clocks would have shown, and a time stays as it is when no
        /// clock is more trusted than its own.
        #[test]
        fn a_corrected_time_is_that_of_the_most_trusted_clock(
            steps in prop::collection::vec((0_i64..6, 0..3_usize, any::<bool>()), 1..40)
        ) {
            let mut history = ClockHistory::new(assessed(0, TrustLevel::Unset));
            let mut assessed_now = vec![period(0, TrustLevel::Unset)];
            let mut taken = Vec::new();
            for (clock, level, restarts) in steps {
                let now = assessed(clock * RIGHT / 6, LEVELS[level]);
                if restarts {
                    history = ClockHistory::new(now);
                    assessed_now.clear();
                } else {
                    history.on_assessed(now);
                }
                assessed_now.push(now.period);
                let booted_at = now.period.booted_at;
                // The record is stored and read back.
                taken.push(history.period_of(booted_at, booted_at));
            }
            prop_assert!(history.periods.len() <= MAX_PERIODS);
            let most = assessed_now.iter().map(|period| period.trust).max().unwrap();
            let latest = |booted_at| {
                let seen = assessed_now.iter().rposition(|p: &ClockPeriod| p.has(booted_at));
                (seen, booted_at)
            };
            let best = assessed_now.iter().filter(|period| period.trust == most);
            let (_, best) = best.map(|period| latest(period.booted_at)).max().unwrap();
            for period in taken {
                let known = assessed_now.iter().filter(|known| known.has(period.booted_at));
                let trust = known.map(|known| known.trust).max().max(Some(period.trust)).unwrap();
                let expected = if trust < most {
                    Correction::Shift(best.as_micros() - period.booted_at.as_micros())
                } else if trust > TrustLevel::Unset {
                    Correction::Confirmed
                } else {
                    Correction::Unknown
                };
                prop_assert_eq!(history.correction(period), expected);
            }
        }

        #[test]
        fn a_correction_exists_for_every_clock(
            clocks in prop::collection::vec(any::<i64>(), 1..20),
            taken in any::<i64>(),
        ) {
            let mut history = ClockHistory::new(assessed(i64::MIN, TrustLevel::Unset));
            for booted_at in clocks {
                history.on_assessed(assessed(booted_at, TrustLevel::Floor));
                let corrected = history.correction(period(taken, TrustLevel::Unset));
                prop_assert_ne!(corrected, Correction::Unknown);
            }
        }
    }
}
