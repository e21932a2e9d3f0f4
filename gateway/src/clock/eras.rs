//! What became of the times that a wrong clock gave. Pure.
//!
//! A clock that is set while the gateway runs divides the run into eras. What was taken in one that
//! nobody vouches for can be dated again by a later, better one, because a second clock ran through
//! both: the monotonic one.

use std::collections::VecDeque;
use std::time::Instant;

use super::State;
use crate::model::UnixTime;

/// A clock is slewed slower than this between two looks, and set by more.
const STEP: i64 = 1_000_000;
/// A clock that is set again and again costs no more memory than this.
const MOST: usize = 16;

/// The eras of this run, oldest first.
#[derive(Debug)]
pub struct Eras {
    origin: Instant,
    eras: VecDeque<Era>,
}

#[derive(Debug)]
struct Era {
    /// The first entry that was taken in it.
    first: u64,
    /// What the clock shows at the origin, by its rate now, in microseconds.
    offset: i64,
    /// The best that was ever said of it.
    state: State,
}

/// What to think of an entry's times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dating {
    /// They are as good as the clock was when it was taken.
    AsTaken,
    /// They are right, although that was not known then.
    Right,
    /// This many microseconds have to be added.
    Shifted(i64),
}

impl Eras {
    /// Begins a run.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, eras: VecDeque::new() }
    }

    /// Notes what the clock shows now and how far it can be believed, when entry number `entry` was
    /// taken `at` a time by it, a moment ago. Numbers rise.
    pub fn note(&mut self, entry: u64, at: UnixTime, now: Instant, wall: UnixTime, state: State) {
        let mono = now.saturating_duration_since(self.origin).as_micros();
        let mono = i64::try_from(mono).unwrap_or(i64::MAX);
        let offset = wall.as_micros().saturating_sub(mono);
        match self.eras.back_mut() {
            Some(era) if era.offset.abs_diff(offset) <= STEP.unsigned_abs() => {
                era.offset = offset;
                era.state = era.state.max(state);
            }
            // Taken before the clock was set, and heard of after it.
            Some(era) if is_nearer(at, era.offset.saturating_add(mono), wall) => {}
            _ => {
                self.eras.push_back(Era { first: entry, offset, state });
                if self.eras.len() > MOST {
                    self.eras.pop_front();
                }
            }
        }
    }

    /// Entries have other numbers from now on, in the same order.
    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        self.eras.iter_mut().for_each(|era| era.first = number(era.first));
    }

    /// What to think of the times of entry number `entry` now.
    #[must_use]
    pub fn dating(&self, entry: u64) -> Dating {
        let era = self.eras.iter().rev().find(|era| era.first <= entry);
        let (Some(era), Some(now)) = (era, self.eras.back()) else { return Dating::AsTaken };
        if era.state < now.state {
            Dating::Shifted(now.offset.saturating_sub(era.offset))
        } else if era.state > State::Unset {
            Dating::Right
        } else {
            Dating::AsTaken
        }
    }
}

fn is_nearer(at: UnixTime, this: i64, that: UnixTime) -> bool {
    at.as_micros().abs_diff(this) < at.as_micros().abs_diff(that.as_micros())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A clock that somebody sets, beside one that runs.
    struct Site {
        eras: Eras,
        origin: Instant,
        mono: i64,
        offset: i64,
        state: State,
        taken: u64,
    }

    impl Site {
        fn new(offset: i64, state: State) -> Self {
            let origin = Instant::now();
            Self { eras: Eras::new(origin), origin, mono: 0, offset, state, taken: 0 }
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
            self.eras.note(self.taken, at, now, self.wall(), self.state);
            self.taken += 1;
            self.taken - 1
        }
    }

    const RIGHT: i64 = 1_800_000_000_000_000;

    #[test]
    fn what_was_taken_in_1970_is_dated_again_when_the_clock_is_set() {
        let mut site = Site::new(0, State::Unset);
        let early = site.take();
        assert_eq!(site.eras.dating(early), Dating::AsTaken);

        (site.offset, site.state) = (RIGHT, State::Floor);
        let late = site.take();

        assert_eq!(site.eras.dating(early), Dating::Shifted(RIGHT));
        assert_eq!(site.eras.dating(late), Dating::Right);
    }

    #[test]
    fn what_moves_is_dated_under_its_new_number() {
        let mut site = Site::new(0, State::Unset);
        site.taken = 3;
        let early = site.take();
        site.eras.renumber(|entry| entry + 40);
        (site.offset, site.state, site.taken) = (RIGHT, State::Synchronised, 44);
        site.take();

        assert_eq!(site.eras.dating(early), Dating::AsTaken, "it is somebody else's now");
        assert_eq!(site.eras.dating(early + 40), Dating::Shifted(RIGHT));
    }

    #[test]
    fn a_time_server_corrects_a_clock_that_was_only_plausible_and_nothing_corrects_a_right_one() {
        let mut site = Site::new(RIGHT - 7_200_000_000, State::Floor);
        let early = site.take();
        site.offset = RIGHT;
        let unnoticed = site.take();
        assert_eq!(site.eras.dating(early), Dating::Right);
        site.state = State::Synchronised;
        let right = site.take();
        assert_eq!(site.eras.dating(early), Dating::Shifted(7_200_000_000));
        assert_eq!(site.eras.dating(unnoticed), Dating::Right);

        (site.offset, site.state) = (0, State::Unset);
        let wrong = site.take();

        assert_eq!(site.eras.dating(right), Dating::Right);
        assert_eq!(site.eras.dating(wrong), Dating::AsTaken);
    }

    #[test]
    fn what_was_read_before_the_step_and_heard_of_after_it_belongs_before_it() {
        let mut site = Site::new(0, State::Unset);
        site.take();
        let read = site.wall();
        (site.offset, site.state) = (RIGHT, State::Synchronised);

        let on_the_way = site.hear(read);
        let first = site.take();

        assert_eq!(site.eras.dating(on_the_way), Dating::Shifted(RIGHT));
        assert_eq!(site.eras.dating(first), Dating::Right);
    }

    #[test]
    fn what_an_earlier_run_took_is_left_alone() {
        let mut site = Site::new(RIGHT, State::Synchronised);
        site.taken = 7;
        site.take();

        assert_eq!(site.eras.dating(6), Dating::AsTaken);
    }

    proptest! {
        /// Whatever happens to the clock: what is shifted shows the time that the best clock would
        /// have shown, and a clock that is slewed shifts nothing.
        #[test]
        fn a_shifted_time_is_the_time_of_the_clock_that_is_believed_now(
            steps in prop::collection::vec((-RIGHT..RIGHT, 0..3_u8, 1..5_u8), 1..30)
        ) {
            let mut site = Site::new(RIGHT, State::Floor);
            let mut taken = Vec::new();
            for (offset, state, count) in steps {
                if offset % 3 != 0 {
                    site.offset = offset;
                }
                site.state = [State::Unset, State::Floor, State::Synchronised][usize::from(state)];
                for _ in 0..count {
                    let entry = site.take();
                    taken.push((entry, site.wall().as_micros(), site.mono));
                }
            }
            prop_assert!(site.eras.eras.len() <= MOST);
            for (entry, at, mono) in taken {
                if let Dating::Shifted(shift) = site.eras.dating(entry) {
                    let believed = mono + site.offset;
                    prop_assert!((at + shift).abs_diff(believed) <= STEP.unsigned_abs());
                }
            }
        }
    }
}
