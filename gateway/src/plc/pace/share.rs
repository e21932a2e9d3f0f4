//! The share of a PLC's time that reading takes. Pure.

use std::time::{Duration, Instant};

/// No stretch of time of this length sees more waiting than the share of it.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The window, and the slot of now, which has just begun.
const SLOTS: usize = 41;
const SLOT: Duration = Duration::from_millis(250);
/// Longest pause for one answer that alone took more than the share of a window.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Time spent waiting for answers, within the window and in slots.
///
/// What is to come is let in when the window at its end has room for it, so the bound holds over
/// every window, with one exception: the part of a wait by which it takes longer than was expected,
/// since an answer came later than others or not at all.
#[derive(Debug)]
pub(super) struct Share {
    percent: u16,
    most: Duration,
    start: Instant,
    /// Number of the slot of now; its place and those of the slots before go round.
    newest: u64,
    slots: [Slot; SLOTS],
    total: Duration,
    /// What one answer took that alone was more than the share is made up for until then.
    rests_until: Option<Instant>,
}

/// Whether there was an answer: what the next one takes is guessed by those that came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::plc) enum Came {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    spent: Duration,
    /// Of the answers that came in it.
    longest: Duration,
}

impl Share {
    pub(super) fn new(percent: u16, now: Instant) -> Self {
        Self {
            percent,
            most: WINDOW * u32::from(percent) / 100,
            start: now,
            newest: 0,
            slots: [Slot::default(); SLOTS],
            total: Duration::ZERO,
            rests_until: None,
        }
    }

    /// An answer was waited for, and came or did not.
    pub(super) fn add(&mut self, from: Instant, to: Instant, came: Came) {
        self.advance(to);
        let took = to.saturating_duration_since(from);
        if let (Came::Yes, Some(slot)) = (came, self.slots.get_mut(place(self.newest))) {
            slot.longest = slot.longest.max(took);
        }
        if took > self.most {
            let whole = took.saturating_mul(100) / u32::from(self.percent.max(1));
            self.rests_until = Some((from + whole).min(to + LONGEST_REST));
        }
        let mut from = from.max(self.begin(self.oldest()));
        while from < to {
            let slot = self.number(from);
            let end = to.min(self.begin(slot + 1));
            let spent = end.saturating_duration_since(from);
            if let Some(place) = self.slots.get_mut(place(slot)) {
                place.spent += spent;
                self.total += spent;
            }
            from = end;
        }
    }

    /// When there is room for one more answer, expected to take as long as the longest within the
    /// window; nothing when it is now.
    pub(super) fn free_for_an_answer(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let longest = self.slots.iter().map(|slot| slot.longest).max();
        self.free_at(longest.unwrap_or_default(), now)
    }

    /// When there is room for what is expected to take so long; nothing when it is now. What takes
    /// more than may be taken at all begins when nothing was.
    pub(super) fn free_at(&mut self, expected: Duration, now: Instant) -> Option<Instant> {
        self.advance(now);
        let expected = expected.min(self.most);
        let room = self.most - expected;
        let rests_until = self.rests_until.filter(|until| now < *until);
        if self.total <= room {
            return rests_until;
        }
        // The window ends with what is to come: its beginning has to be this late.
        let mut left = self.total;
        let mut begin = self.start;
        for number in self.oldest()..=self.newest {
            let spent = self.slots.get(place(number)).map_or(Duration::ZERO, |slot| slot.spent);
            left -= spent.min(left);
            if left <= room {
                begin = self.begin(number + 1) - (room - left).min(spent);
                break;
            }
        }
        let until = begin + WINDOW - expected;
        rests_until.into_iter().chain((now < until).then_some(until)).max()
    }

    fn advance(&mut self, now: Instant) {
        let number = self.number(now);
        let passed = number.saturating_sub(self.newest).min(to_u64(SLOTS));
        for slot in number + 1 - passed..=number {
            if let Some(place) = self.slots.get_mut(place(slot)) {
                self.total -= std::mem::take(place).spent.min(self.total);
            }
        }
        self.newest = self.newest.max(number);
    }

    fn oldest(&self) -> u64 {
        (self.newest + 1).saturating_sub(to_u64(SLOTS))
    }

    fn number(&self, now: Instant) -> u64 {
        let slots = now.saturating_duration_since(self.start).as_nanos() / SLOT.as_nanos();
        u64::try_from(slots).unwrap_or(u64::MAX)
    }

    fn begin(&self, slot: u64) -> Instant {
        let millis = slot.saturating_mul(250);
        self.start + Duration::from_millis(millis)
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % to_u64(SLOTS)).unwrap_or_default()
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// What was spent within the window that ends then.
    fn within(spent: &[(Instant, Instant)], end: Instant, start: Instant) -> Duration {
        let begin = end.checked_sub(WINDOW).unwrap_or(start).max(start);
        let part = |&(from, to): &(Instant, Instant)| {
            to.min(end).saturating_duration_since(from.max(begin))
        };
        spent.iter().map(part).sum()
    }

    #[test]
    fn what_fits_exactly_is_not_held() {
        let start = Instant::now();
        let mut share = Share::new(40, start);
        let mut now = start;
        for _ in 0..100 {
            assert_eq!(share.free_at(SECOND * 4, now), None);
            share.add(now, now + SECOND * 4, Came::Yes);
            now += WINDOW;
        }
        assert_eq!(share.free_at(SECOND * 4, now - SECOND), Some(now));
    }

    #[test]
    fn an_answer_beyond_the_share_is_made_up_for_but_not_for_ever() {
        let start = Instant::now();
        let mut share = Share::new(5, start);
        share.add(start, start + SECOND * 2, Came::Yes);
        assert_eq!(share.free_for_an_answer(start + SECOND * 2), Some(start + SECOND * 40));
        assert_eq!(share.free_for_an_answer(start + SECOND * 40), None);
        let mut share = Share::new(1, start);
        share.add(start, start + SECOND * 60, Came::No);
        assert_eq!(share.free_for_an_answer(start + SECOND * 60), Some(start + SECOND * 120));
        assert_eq!(share.free_for_an_answer(start + SECOND * 120), None);
    }

    proptest! {
        /// Whoever sends a request only when there is room for an answer waits for no more than the
        /// share in any window, but for what one answer takes longer than all of the window before.
        #[test]
        fn no_window_sees_more_than_the_share(
            percent in 1_u16..100,
            steps in proptest::collection::vec(
                (0_u32..400, prop_oneof![1_u32..20, 1_u32..600], prop_oneof![9 => Just(Came::Yes), 1 => Just(Came::No)]),
                1..300,
            ),
        ) {
            let start = Instant::now();
            let mut share = Share::new(percent, start);
            let most = WINDOW * u32::from(percent) / 100;
            let (mut now, mut spent, mut answers) = (start, Vec::new(), Vec::new());
            for (pause, took, came) in steps {
                now += MILLI * pause;
                while let Some(until) = share.free_for_an_answer(now) {
                    prop_assert!(until > now);
                    now = until;
                }
                let end = now + MILLI * took;
                let known = answers.iter().filter(|(_, to): &&(Instant, Instant)| *to + WINDOW > now);
                let known = known.map(|(from, to)| *to - *from).max();
                let surprise = (end - now).saturating_sub(known.unwrap_or_default());
                share.add(now, end, came);
                spent.push((now, end));
                answers.extend((came == Came::Yes).then_some((now, end)));
                let total = within(&spent, end, start);
                let bound = most.max(end - now).max(most + surprise);
                prop_assert!(total <= bound, "{total:?} > {bound:?}");
                now = end;
            }
        }

        /// Turns whose lengths are known keep the bound exactly, however long and short ones
        /// alternate, and none that fits is held back.
        #[test]
        fn turns_of_known_length_never_exceed_it(
            percent in 5_u16..100,
            steps in proptest::collection::vec((0_u32..3_000, prop_oneof![1_u32..20, 100_u32..4_000]), 1..200),
        ) {
            let start = Instant::now();
            let mut share = Share::new(percent, start);
            let most = WINDOW * u32::from(percent) / 100;
            let (mut now, mut spent) = (start, Vec::new());
            for (pause, took) in steps {
                now += MILLI * pause;
                let took = (MILLI * took).min(most);
                let before = now;
                while let Some(until) = share.free_at(took, now) {
                    prop_assert!(until > now);
                    now = until;
                }
                if now >= before + MILLI * 251 {
                    // A slot is as exact as it gets: earlier than that there was no room.
                    let end = now - MILLI * 251 + took;
                    let total = within(&spent, end, start) + took;
                    prop_assert!(total > most, "held although {total:?} <= {most:?}");
                }
                share.add(now, now + took, Came::Yes);
                spent.push((now, now + took));
                now += took;
                let total = within(&spent, now, start);
                prop_assert!(total <= most, "{total:?} > {most:?}");
            }
        }
    }
}
