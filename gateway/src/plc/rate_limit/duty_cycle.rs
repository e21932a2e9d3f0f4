//! The share of a PLC's time that reading takes. Pure.

use std::time::{Duration, Instant};

/// No stretch of time of this length sees more waiting than the share of it.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The window, and the slot of now, which has just begun.
const SLOT_COUNT: usize = 41;
const SLOT_LEN: Duration = Duration::from_millis(250);
/// Longest pause for one answer that alone took more than the share of a window.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Time spent waiting for answers, within the window and in slots.
///
/// What is to come is let in when the window at its end has room for it, so the bound holds over
/// every window, with one exception: the part of a wait by which it takes longer than was expected,
/// since an answer came later than others or not at all.
#[derive(Debug)]
pub(super) struct DutyCycle {
    percent: u16,
    max_busy: Duration,
    start: Instant,
    /// Number of the slot of now; its place and those of the slots before go round.
    newest_slot: u64,
    slots: [TimeSlot; SLOT_COUNT],
    busy_time: Duration,
    /// What one answer took that alone was more than the share is made up for until then.
    paused_until: Option<Instant>,
}

/// Whether there was an answer: what the next one takes is guessed by those that came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::plc) enum AnswerReceived {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, Default)]
struct TimeSlot {
    busy_time: Duration,
    /// Of the answers that came in it.
    longest_answer: Duration,
}

impl DutyCycle {
    pub(super) fn new(percent: u16, now: Instant) -> Self {
        Self {
            percent,
            max_busy: WINDOW * u32::from(percent) / 100,
            start: now,
            newest_slot: 0,
            slots: [TimeSlot::default(); SLOT_COUNT],
            busy_time: Duration::ZERO,
            paused_until: None,
        }
    }

    /// An answer was waited for, and came or did not.
    pub(super) fn record(&mut self, from: Instant, to: Instant, came: AnswerReceived) {
        self.advance(to);
        let took = to.saturating_duration_since(from);
        if let (AnswerReceived::Yes, Some(slot)) =
            (came, self.slots.get_mut(slot_index(self.newest_slot)))
        {
            slot.longest_answer = slot.longest_answer.max(took);
        }
        if took > self.max_busy {
            let whole = took.saturating_mul(100) / u32::from(self.percent.max(1));
            self.paused_until = Some((from + whole).min(to + MAX_PAUSE));
        }
        let mut from = from.max(self.slot_start(self.oldest_slot()));
        while from < to {
            let slot = self.slot_number(from);
            let end = to.min(self.slot_start(slot + 1));
            let spent = end.saturating_duration_since(from);
            if let Some(place) = self.slots.get_mut(slot_index(slot)) {
                place.busy_time += spent;
                self.busy_time += spent;
            }
            from = end;
        }
    }

    /// When there is room for one more answer, expected to take as long as the longest within the
    /// window; nothing when it is now.
    pub(super) fn next_free_for_answer(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let longest = self.slots.iter().map(|slot| slot.longest_answer).max();
        self.next_free(longest.unwrap_or_default(), now)
    }

    /// When there is room for what is expected to take so long; nothing when it is now. What takes
    /// more than may be taken at all begins when nothing was.
    pub(super) fn next_free(&mut self, expected: Duration, now: Instant) -> Option<Instant> {
        self.advance(now);
        let expected = expected.min(self.max_busy);
        let room = self.max_busy - expected;
        let rests_until = self.paused_until.filter(|until| now < *until);
        if self.busy_time <= room {
            return rests_until;
        }
        // The window ends with what is to come: its beginning has to be this late.
        let mut left = self.busy_time;
        let mut begin = self.start;
        for number in self.oldest_slot()..=self.newest_slot {
            let spent =
                self.slots.get(slot_index(number)).map_or(Duration::ZERO, |slot| slot.busy_time);
            left -= spent.min(left);
            if left <= room {
                begin = self.slot_start(number + 1) - (room - left).min(spent);
                break;
            }
        }
        let until = begin + WINDOW - expected;
        rests_until.into_iter().chain((now < until).then_some(until)).max()
    }

    fn advance(&mut self, now: Instant) {
        let number = self.slot_number(now);
        let passed = number.saturating_sub(self.newest_slot).min(to_u64(SLOT_COUNT));
        for slot in number + 1 - passed..=number {
            if let Some(place) = self.slots.get_mut(slot_index(slot)) {
                self.busy_time -= std::mem::take(place).busy_time.min(self.busy_time);
            }
        }
        self.newest_slot = self.newest_slot.max(number);
    }

    fn oldest_slot(&self) -> u64 {
        (self.newest_slot + 1).saturating_sub(to_u64(SLOT_COUNT))
    }

    fn slot_number(&self, now: Instant) -> u64 {
        let slots = now.saturating_duration_since(self.start).as_nanos() / SLOT_LEN.as_nanos();
        u64::try_from(slots).unwrap_or(u64::MAX)
    }

    fn slot_start(&self, slot: u64) -> Instant {
        let millis = slot.saturating_mul(250);
        self.start + Duration::from_millis(millis)
    }
}

fn slot_index(slot: u64) -> usize {
    usize::try_from(slot % to_u64(SLOT_COUNT)).unwrap_or_default()
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
        let mut share = DutyCycle::new(40, start);
        let mut now = start;
        for _ in 0..100 {
            assert_eq!(share.next_free(SECOND * 4, now), None);
            share.record(now, now + SECOND * 4, AnswerReceived::Yes);
            now += WINDOW;
        }
        assert_eq!(share.next_free(SECOND * 4, now - SECOND), Some(now));
    }

    #[test]
    fn an_answer_beyond_the_share_is_made_up_for_but_not_for_ever() {
        let start = Instant::now();
        let mut share = DutyCycle::new(5, start);
        share.record(start, start + SECOND * 2, AnswerReceived::Yes);
        assert_eq!(share.next_free_for_answer(start + SECOND * 2), Some(start + SECOND * 40));
        assert_eq!(share.next_free_for_answer(start + SECOND * 40), None);
        let mut share = DutyCycle::new(1, start);
        share.record(start, start + SECOND * 60, AnswerReceived::No);
        assert_eq!(share.next_free_for_answer(start + SECOND * 60), Some(start + SECOND * 120));
        assert_eq!(share.next_free_for_answer(start + SECOND * 120), None);
    }

    proptest! {
        /// Whoever sends a request only when there is room for an answer waits for no more than the
        /// share in any window, but for what one answer takes longer than all of the window before.
        #[test]
        fn no_window_sees_more_than_the_share(
            percent in 1_u16..100,
            steps in proptest::collection::vec(
                (0_u32..400, prop_oneof![1_u32..20, 1_u32..600], prop_oneof![9 => Just(AnswerReceived::Yes), 1 => Just(AnswerReceived::No)]),
                1..300,
            ),
        ) {
            let start = Instant::now();
            let mut share = DutyCycle::new(percent, start);
            let most = WINDOW * u32::from(percent) / 100;
            let (mut now, mut spent, mut answers) = (start, Vec::new(), Vec::new());
            for (pause, took, came) in steps {
                now += MILLI * pause;
                while let Some(until) = share.next_free_for_answer(now) {
                    prop_assert!(until > now);
                    now = until;
                }
                let end = now + MILLI * took;
                let known = answers.iter().filter(|(_, to): &&(Instant, Instant)| *to + WINDOW > now);
                let known = known.map(|(from, to)| *to - *from).max();
                let surprise = (end - now).saturating_sub(known.unwrap_or_default());
                share.record(now, end, came);
                spent.push((now, end));
                answers.extend((came == AnswerReceived::Yes).then_some((now, end)));
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
            let mut share = DutyCycle::new(percent, start);
            let most = WINDOW * u32::from(percent) / 100;
            let (mut now, mut spent) = (start, Vec::new());
            for (pause, took) in steps {
                now += MILLI * pause;
                let took = (MILLI * took).min(most);
                let before = now;
                while let Some(until) = share.next_free(took, now) {
                    prop_assert!(until > now);
                    now = until;
                }
                if now >= before + MILLI * 251 {
                    // A slot is as exact as it gets: earlier than that there was no room.
                    let end = now - MILLI * 251 + took;
                    let total = within(&spent, end, start) + took;
                    prop_assert!(total > most, "held although {total:?} <= {most:?}");
                }
                share.record(now, now + took, AnswerReceived::Yes);
                spent.push((now, now + took));
                now += took;
                let total = within(&spent, now, start);
                prop_assert!(total <= most, "{total:?} > {most:?}");
            }
        }
    }
}
