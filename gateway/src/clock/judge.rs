//! How far the clock can be believed. Pure.

use crate::model::UnixTime;

const SECOND: i64 = 1_000_000;
const YEAR: i64 = 31_557_600 * SECOND;

/// No gateway runs before this version was written: 2026-11-01.
const WRITTEN: UnixTime = UnixTime::from_micros(1_793_491_200 * SECOND);
/// A clock so far beyond the floor is wrong, unless the kernel vouches for it. Longer than a box
/// lies in a store.
const CREDIBLE: i64 = 15 * YEAR;
/// The floor on disk lags behind by this at most: six small writes an hour.
const KEEP_EVERY: i64 = 600 * SECOND;

/// How far the clock can be believed, worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// It shows a time that is long past, or one that cannot be.
    Unset,
    /// It is past the floor; nobody has compared it with another clock.
    Floor,
    /// The kernel says that it follows a time server.
    Synchronised,
}

/// A look at the clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// How far it can be believed.
    pub state: State,
    /// It is later than this.
    pub floor: UnixTime,
    /// It is earlier than this.
    pub ceiling: UnixTime,
}

/// Remembers what the clock has passed.
#[derive(Debug)]
pub(super) struct Judge {
    floor: UnixTime,
    kept: UnixTime,
    is_due: bool,
}

impl Judge {
    /// Begins with the floor that an earlier run has kept.
    pub(super) fn new(kept: Option<UnixTime>) -> Self {
        let floor = kept.unwrap_or(WRITTEN).max(WRITTEN);
        Self { floor, kept: floor, is_due: false }
    }

    /// Judges what the clock shows. Only a time that the kernel vouches for moves the floor, in
    /// either direction: a clock that was wrong once must not make a right one look wrong.
    pub(super) fn look(&mut self, wall: UnixTime, is_synchronised: bool) -> Judgement {
        if is_synchronised && wall >= WRITTEN {
            self.floor = wall;
            let away = wall.as_micros().abs_diff(self.kept.as_micros());
            self.is_due |= away >= KEEP_EVERY.unsigned_abs();
            return self.judgement(State::Synchronised, i64::MAX);
        }
        let ceiling = self.floor.as_micros().saturating_add(CREDIBLE);
        let is_credible = (self.floor.as_micros()..ceiling).contains(&wall.as_micros());
        self.judgement(if is_credible { State::Floor } else { State::Unset }, ceiling)
    }

    /// The floor, when it is time to write it down.
    pub(super) fn take_floor_to_keep(&mut self) -> Option<UnixTime> {
        std::mem::take(&mut self.is_due).then(|| {
            self.kept = self.floor;
            self.floor
        })
    }

    /// The floor is told as it was kept, so that a judgement does not change with every look.
    const fn judgement(&self, state: State, ceiling: i64) -> Judgement {
        Judgement { state, floor: self.kept, ceiling: UnixTime::from_micros(ceiling) }
    }
}

impl State {
    /// What it means, for an installer.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unset => {
                "The clock of this gateway is wrong: set it, or let it reach a time server (NTP)."
            }
            Self::Floor => "The clock has not been compared with a time server yet.",
            Self::Synchronised => "The clock follows a time server.",
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Floor => "floor",
            Self::Synchronised => "synchronised",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(years: i64) -> UnixTime {
        UnixTime::from_micros(WRITTEN.as_micros() + years * YEAR)
    }

    #[test]
    fn a_box_that_wakes_up_in_1970_has_no_time() {
        let mut judge = Judge::new(None);
        assert_eq!(judge.look(UnixTime::from_micros(0), false).state, State::Unset);
        assert_eq!(judge.look(after(1), false).state, State::Floor);
        assert_eq!(judge.look(after(1), true).state, State::Synchronised);
    }

    #[test]
    fn a_time_before_the_kept_one_is_not_believed() {
        let mut judge = Judge::new(Some(after(3)));
        assert_eq!(judge.look(after(2), false).state, State::Unset);
        assert_eq!(judge.look(after(3), false).state, State::Floor);
    }

    #[test]
    fn a_far_future_is_believed_only_when_the_kernel_vouches_for_it() {
        let mut judge = Judge::new(None);
        assert_eq!(judge.look(after(16), false).state, State::Unset);
        assert_eq!(judge.look(after(14), false).state, State::Floor);
        assert_eq!(judge.look(after(16), true).state, State::Synchronised);
    }

    #[test]
    fn a_floor_that_was_wrong_is_lowered_by_a_synchronised_clock() {
        let mut judge = Judge::new(Some(after(20)));
        assert_eq!(judge.look(after(1), true).state, State::Synchronised);
        assert_eq!(judge.take_floor_to_keep(), Some(after(1)));
        assert_eq!(judge.look(after(1), false).state, State::Floor);
    }

    #[test]
    fn the_floor_is_kept_every_ten_minutes_and_only_from_a_synchronised_clock() {
        let mut judge = Judge::new(None);
        let at = |seconds: i64| UnixTime::from_micros(after(1).as_micros() + seconds * SECOND);
        judge.look(at(0), false);
        assert_eq!(judge.take_floor_to_keep(), None);
        judge.look(at(0), true);
        assert_eq!(judge.take_floor_to_keep(), Some(at(0)));
        judge.look(at(599), true);
        assert_eq!(judge.take_floor_to_keep(), None);
        judge.look(at(600), true);
        assert_eq!(judge.take_floor_to_keep(), Some(at(600)));
    }

    #[test]
    fn nothing_that_a_clock_can_show_breaks_the_judge() {
        for kept in [None, Some(i64::MIN), Some(i64::MAX), Some(0)] {
            let mut judge = Judge::new(kept.map(UnixTime::from_micros));
            for wall in [i64::MIN, -1, 0, i64::MAX] {
                judge.look(UnixTime::from_micros(wall), false);
                judge.look(UnixTime::from_micros(wall), true);
            }
        }
    }
}
