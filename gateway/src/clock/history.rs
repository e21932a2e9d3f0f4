//! What became of the times that a wrong clock gave. Pure.
//!
//! A clock that is set while the gateway runs divides the run into eras. What was taken in one that
//! nobody vouches for can be dated again by a later, better one, because a second clock ran through
//! both: the monotonic one.

use std::collections::VecDeque;
use std::time::Instant;

use super::TrustLevel;
use crate::model::UnixTime;

/// A clock is slewed slower than this between two looks, and set by more.
const STEP_THRESHOLD_MICROS: i64 = 1_000_000;
/// A clock that is set again and again costs no more memory than this.
const MAX_PERIODS: usize = 16;

/// The eras of this run, oldest first.
#[derive(Debug)]
pub struct ClockHistory {
    origin: Instant,
    periods: VecDeque<ClockPeriod>,
}

#[derive(Debug)]
struct ClockPeriod {
    /// The first entry that was taken in it.
    first_entry: u64,
    /// What the clock shows at the origin, by its rate now, in microseconds.
    offset: i64,
    /// The best that was ever said of it.
    trust: TrustLevel,
}

/// What to think of an entry's times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Correction {
    /// They are as good as the clock was when it was taken.
    Unknown,
    /// They are right, although that was not known then.
    Confirmed,
    /// This many microseconds have to be added.
    Shift(i64),
}

impl ClockHistory {
    /// Begins a run.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, periods: VecDeque::new() }
    }

    /// Notes what the clock shows now and how far it can be believed, when entry number `entry` was
    /// taken `at` a time by it, a moment ago. Numbers rise.
    pub fn record(
        &mut self,
        entry: u64,
        at: UnixTime,
        now: Instant,
        wall: UnixTime,
        state: TrustLevel,
    ) {
        let mono = now.saturating_duration_since(self.origin).as_micros();
        let mono = i64::try_from(mono).unwrap_or(i64::MAX);
        let offset = wall.as_micros().saturating_sub(mono);
        match self.periods.back_mut() {
            Some(era) if era.offset.abs_diff(offset) <= STEP_THRESHOLD_MICROS.unsigned_abs() => {
                era.offset = offset;
                era.trust = era.trust.max(state);
            }
            // Taken before the clock was set, and heard of after it.
            Some(era) if is_closer(at, era.offset.saturating_add(mono), wall) => {}
            _ => {
                self.periods.push_back(ClockPeriod { first_entry: entry, offset, trust: state });
                if self.periods.len() > MAX_PERIODS {
                    self.periods.pop_front();
                }
            }
        }
    }

    /// Entries have other numbers from now on, in the same order.
    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        self.periods.iter_mut().for_each(|era| era.first_entry = number(era.first_entry));
    }

    /// What to think of the times of entry number `entry` now.
    #[must_use]
    pub fn correction(&self, entry: u64) -> Correction {
        let era = self.periods.iter().rev().find(|era| era.first_entry <= entry);
        let (Some(era), Some(now)) = (era, self.periods.back()) else { return Correction::Unknown };
        if era.trust < now.trust {
            Correction::Shift(now.offset.saturating_sub(era.offset))
        } else if era.trust > TrustLevel::Unset {
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

    /// A clock that somebody sets, beside one that runs.
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
    fn what_was_taken_in_1970_is_dated_again_when_the_clock_is_set() {
        let mut site = SettableClock::new(0, TrustLevel::Unset);
        let early = site.take();
        assert_eq!(site.history.correction(early), Correction::Unknown);

        (site.offset, site.trust) = (RIGHT, TrustLevel::Floor);
        let late = site.take();

        assert_eq!(site.history.correction(early), Correction::Shift(RIGHT));
        assert_eq!(site.history.correction(late), Correction::Confirmed);
    }

    #[test]
    fn what_moves_is_dated_under_its_new_number() {
        let mut site = SettableClock::new(0, TrustLevel::Unset);
        site.taken = 3;
        let early = site.take();
        site.history.renumber(|entry| entry + 40);
        (site.offset, site.trust, site.taken) = (RIGHT, TrustLevel::Synchronised, 44);
        site.take();

        assert_eq!(
            site.history.correction(early),
            Correction::Unknown,
            "it is somebody else's now"
        );
        assert_eq!(site.history.correction(early + 40), Correction::Shift(RIGHT));
    }

    #[test]
    fn a_time_server_corrects_a_clock_that_was_only_plausible_and_nothing_corrects_a_right_one() {
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
    fn what_was_read_before_the_step_and_heard_of_after_it_belongs_before_it() {
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
    fn what_an_earlier_run_took_is_left_alone() {
        let mut site = SettableClock::new(RIGHT, TrustLevel::Synchronised);
        site.taken = 7;
        site.take();

        assert_eq!(site.history.correction(6), Correction::Unknown);
    }

    proptest! {
        /// Whatever happens to the clock: what is shifted shows the time that the best clock would
        /// have shown, and a clock that is slewed shifts nothing.
        #[test]
        fn a_shifted_time_is_the_time_of_the_clock_that_is_believed_now(
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
