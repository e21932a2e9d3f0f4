//! Limits the share of time during which a request is under way (`max_share`). Pure.

use std::time::{Duration, Instant};

/// The share holds for every window of this length.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The slots of a window, and the current one, which has just started.
const SLOT_COUNT: usize = 41;
const SLOT_LEN: Duration = Duration::from_millis(250);
/// Longest pause after an answer that alone took more than the share of a window.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The time spent waiting for answers within the last window, in slots.
///
/// A request is allowed when the window that ends with its answer has room for it. So the bound
/// holds for every window, with one exception: the time by which an answer takes longer than
/// expected.
#[derive(Debug)]
pub(super) struct DutyCycle {
    percent: u16,
    /// Most busy time in a window.
    max_busy: Duration,
    start: Instant,
    /// Number of the current slot since `start`; `slots` is a ring.
    newest_slot: u64,
    slots: [TimeSlot; SLOT_COUNT],
    /// Sum of all slots.
    busy_time: Duration,
    /// End of the pause after an answer that alone took more than the share.
    paused_until: Option<Instant>,
}

/// Whether a request was answered: the next answer is expected to take as long as the longest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::plc) enum AnswerReceived {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, Default)]
struct TimeSlot {
    /// Time spent waiting.
    busy_time: Duration,
    /// Longest of the answers received in it.
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

    /// Records that an answer was waited for in this time.
    pub(super) fn record(&mut self, from: Instant, to: Instant, answered: AnswerReceived) {
        self.advance(to);
        let took = to.saturating_duration_since(from);
        if let (AnswerReceived::Yes, Some(slot)) =
            (answered, self.slots.get_mut(slot_index(self.newest_slot)))
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
            let busy = end.saturating_duration_since(from);
            if let Some(slot) = self.slots.get_mut(slot_index(slot)) {
                slot.busy_time += busy;
                self.busy_time += busy;
            }
            from = end;
        }
    }

    /// Returns when one more request may be sent, expected to take as long as the longest answer of
    /// the window, or `None` if it may be sent now.
    pub(super) fn next_free_for_answer(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let longest = self.slots.iter().map(|slot| slot.longest_answer).max();
        self.next_free(longest.unwrap_or_default(), now)
    }

    /// Returns when a job that is expected to take this long may start, or `None` if it may start
    /// now. A job longer than the share of a window starts when the window is empty.
    pub(super) fn next_free(&mut self, expected: Duration, now: Instant) -> Option<Instant> {
        self.advance(now);
        let expected = expected.min(self.max_busy);
        let room = self.max_busy - expected;
        let paused_until = self.paused_until.filter(|until| now < *until);
        if self.busy_time <= room {
            return paused_until;
        }
        // The window that ends with the job must start so late that enough busy time has left it.
        let mut left = self.busy_time;
        let mut begin = self.start;
        for number in self.oldest_slot()..=self.newest_slot {
            let busy =
                self.slots.get(slot_index(number)).map_or(Duration::ZERO, |slot| slot.busy_time);
            left -= busy.min(left);
            if left <= room {
                begin = self.slot_start(number + 1) - (room - left).min(busy);
                break;
            }
        }
        let until = begin + WINDOW - expected;
        paused_until.into_iter().chain((now < until).then_some(until)).max()
    }

    /// Clears the slots that have left the window.
    fn advance(&mut self, now: Instant) {
        let number = self.slot_number(now);
        let passed = number.saturating_sub(self.newest_slot).min(to_u64(SLOT_COUNT));
        for slot in number + 1 - passed..=number {
            if let Some(slot) = self.slots.get_mut(slot_index(slot)) {
                self.busy_time -= std::mem::take(slot).busy_time.min(self.busy_time);
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

    /// Returns the busy time within the window that ends at `end`.
    fn within(spent: &[(Instant, Instant)], end: Instant, start: Instant) -> Duration {
        let begin = end.checked_sub(WINDOW).unwrap_or(start).max(start);
        let part = |&(from, to): &(Instant, Instant)| {
            to.min(end).saturating_duration_since(from.max(begin))
        };
        spent.iter().map(part).sum()
    }

    #[test]
    fn a_job_that_fits_exactly_is_not_delayed() {
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
    fn a_pause_makes_up_for_an_answer_beyond_the_share_for_at_most_a_minute() {
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
        /// Requests that are sent only when they are allowed take no more than the share of any
        /// window, but for the time by which one answer takes longer than all of the window before.
        #[test]
        fn no_window_exceeds_the_share(
            percent in 1_u16..100,
            steps in proptest::collection::vec(
                (
                    0_u32..400,
                    prop_oneof![1_u32..20, 1_u32..600],
                    prop_oneof![9 => Just(AnswerReceived::Yes), 1 => Just(AnswerReceived::No)],
                ),
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
                let is_recent = |(_, to): &&(Instant, Instant)| *to + WINDOW > now;
                let known = answers.iter().filter(is_recent);
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

        /// Jobs of known length keep the bound exactly, also when long and short ones alternate,
        /// and none that fits is delayed.
        #[test]
        fn jobs_of_known_length_never_exceed_the_share(
            percent in 5_u16..100,
            steps in proptest::collection::vec(
                (0_u32..3_000, prop_oneof![1_u32..20, 100_u32..4_000]),
                1..200,
            ),
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
                    // Times are rounded to slots: one slot earlier the job did not fit.
                    let end = now - MILLI * 251 + took;
                    let total = within(&spent, end, start) + took;
                    prop_assert!(total > most, "delayed although {total:?} <= {most:?}");
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
