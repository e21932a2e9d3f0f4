//! How a PLC is spared: pauses, and ceilings for requests and for the time they take. Pure.

use std::time::{Duration, Instant};

use provisioning::config::Pacing;

use crate::schedule::Budget;

/// The share of a PLC's time is measured over this.
const WINDOW: Duration = Duration::from_secs(10);
const SLOTS: usize = 40;
const SLOT: Duration = Duration::from_millis(250);

/// What keeps cycles from being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ceiling {
    /// `max_share`, in percent.
    Share(u16),
    /// `max_requests`, per second.
    Requests(u16),
}

/// Paces the requests of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    pacing: Pacing,
    /// The pause after a connect or an answer ends here.
    rests_until: Option<Instant>,
    requests: Budget,
    /// Absent where all of the PLC's time may be taken.
    share: Option<Share>,
}

/// Time spent waiting for answers, within the window and in slots.
#[derive(Debug)]
struct Share {
    most: Duration,
    start: Instant,
    /// Number of the slot of now; its place and those of the slots before go round.
    newest: u64,
    slots: [Duration; SLOTS],
    total: Duration,
    /// Spent since reading was allowed last, and before that: the next cycle takes as long.
    cycle: Duration,
    last_cycle: Duration,
}

impl Pace {
    pub(super) fn new(pacing: Pacing, now: Instant) -> Self {
        Self {
            pacing,
            rests_until: None,
            requests: Budget::per_second(pacing.max_requests.into()),
            share: (pacing.max_share < 100).then(|| Share::new(pacing.max_share, now)),
        }
    }

    /// A connection was opened.
    pub(super) fn connected(&mut self, now: Instant) {
        self.rest(now, self.pacing.connect_pause);
    }

    /// A request was waited for, from when it was sent until now.
    pub(super) fn waited(&mut self, sent: Instant, now: Instant) {
        self.rest(now, self.pacing.request_pause);
        if let Some(share) = &mut self.share {
            share.add(sent, now);
        }
    }

    fn rest(&mut self, now: Instant, pause: Duration) {
        self.rests_until = (!pause.is_zero()).then(|| now + pause);
    }

    /// What stands against the next cycle, and until when.
    pub(super) fn holds(&mut self, now: Instant) -> Option<(Ceiling, Instant)> {
        let Pacing { max_share, max_requests, .. } = self.pacing;
        let share = self.share.as_mut().and_then(|share| share.free_at(now));
        let requests = self.requests.free_at(now);
        let share = share.map(|until| (Ceiling::Share(max_share), until));
        let requests = requests.map(|until| (Ceiling::Requests(max_requests), until));
        share.into_iter().chain(requests).max_by_key(|(_, until)| *until)
    }

    /// Takes the next request; it may go now, or be asked for again at an instant.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        match self.rests_until.filter(|until| now < *until) {
            Some(until) => Err(until),
            None => self.requests.take(now),
        }
    }
}

impl Share {
    fn new(percent: u16, now: Instant) -> Self {
        Self {
            most: WINDOW * u32::from(percent) / 100,
            start: now,
            newest: 0,
            slots: [Duration::ZERO; SLOTS],
            total: Duration::ZERO,
            cycle: Duration::ZERO,
            last_cycle: Duration::ZERO,
        }
    }

    fn add(&mut self, from: Instant, to: Instant) {
        self.advance(to);
        self.cycle += to.saturating_duration_since(from);
        let oldest = (self.newest + 1).saturating_sub(to_u64(SLOTS));
        let mut from = from.max(self.begin(oldest));
        while from < to {
            let slot = self.number(from);
            let end = to.min(self.begin(slot + 1));
            let spent = end.saturating_duration_since(from);
            if let Some(place) = self.slots.get_mut(place(slot)) {
                *place += spent;
                self.total += spent;
            }
            from = end;
        }
    }

    /// When enough of what was spent is out of the window for one more cycle; nothing when it is
    /// now.
    fn free_at(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let expected = if self.cycle.is_zero() { self.last_cycle } else { self.cycle };
        // A cycle longer than what may be taken at all begins when nothing was.
        let most = self.most - expected.min(self.most);
        let mut left = self.total;
        let mut slot = (self.newest + 1).saturating_sub(to_u64(SLOTS));
        let mut free = None;
        while left > most && slot <= self.newest {
            left -= self.slots.get(place(slot)).copied().unwrap_or_default().min(left);
            free = Some(self.begin(slot + to_u64(SLOTS)));
            slot += 1;
        }
        if free.is_none() {
            (self.last_cycle, self.cycle) = (expected, Duration::ZERO);
        }
        free
    }

    fn advance(&mut self, now: Instant) {
        let number = self.number(now);
        let passed = number.saturating_sub(self.newest).min(to_u64(SLOTS));
        for slot in number + 1 - passed..=number {
            if let Some(place) = self.slots.get_mut(place(slot)) {
                self.total -= std::mem::take(place).min(self.total);
            }
        }
        self.newest = self.newest.max(number);
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

    fn pacing() -> Pacing {
        Pacing::default()
    }

    #[test]
    fn a_pause_follows_a_connect_and_every_answer() {
        let (start, at) = (Instant::now(), |millis| MILLI * millis);
        let pauses = Pacing { connect_pause: MILLI * 200, request_pause: MILLI * 5, ..pacing() };
        let mut pace = Pace::new(pauses, start);
        assert_eq!(pace.take(start), Ok(()), "nothing to rest from yet");
        pace.connected(start);
        assert_eq!(pace.take(start), Err(start + at(200)));
        assert_eq!(pace.take(start + at(200)), Ok(()));
        pace.waited(start + at(200), start + at(203));
        assert_eq!(pace.take(start + at(203)), Err(start + at(208)));
        assert_eq!(pace.take(start + at(208)), Ok(()));
    }

    #[test]
    fn requests_beyond_the_ceiling_of_a_second_wait_for_the_next() {
        let start = Instant::now();
        let mut pace = Pace::new(Pacing { max_requests: 2, ..pacing() }, start);
        assert_eq!(pace.holds(start), None);
        assert_eq!([pace.take(start), pace.take(start)], [Ok(()), Ok(())]);
        let free = start + MILLI * 1000;
        assert_eq!(pace.holds(start), Some((Ceiling::Requests(2), free)));
        assert_eq!(pace.take(start), Err(free));
        assert_eq!(pace.take(free), Ok(()));
    }

    #[test]
    fn a_wait_longer_than_the_window_fills_it_and_no_more() {
        let start = Instant::now();
        let mut pace = Pace::new(pacing(), start);
        let end = start + Duration::from_secs(60);
        pace.waited(start, end);
        let (ceiling, free) = pace.holds(end).unwrap();
        assert_eq!(ceiling, Ceiling::Share(50));
        assert!((free - end).abs_diff(WINDOW) <= SLOT, "{:?}", free - end);
        assert_eq!(pace.holds(free), None);
    }

    #[test]
    fn all_of_the_time_may_be_taken_where_the_file_says_so() {
        let start = Instant::now();
        let mut pace = Pace::new(Pacing { max_share: 100, ..pacing() }, start);
        pace.waited(start, start + WINDOW * 2);
        assert_eq!(pace.holds(start + WINDOW * 2), None);
    }

    proptest! {
        /// Whoever begins a request only when nothing holds it waits for no more than the share of
        /// any window, and for one answer that takes longer than the one before.
        #[test]
        fn no_window_sees_more_than_the_share(
            percent in 1_u16..100,
            steps in proptest::collection::vec((0_u32..400, 1_u32..600), 1..200),
        ) {
            let start = Instant::now();
            let mut pace = Pace::new(Pacing { max_share: percent, ..pacing() }, start);
            let (mut now, mut spent) = (start, Vec::new());
            for (pause, took) in steps {
                now += MILLI * pause;
                while let Some((_, until)) = pace.holds(now) {
                    prop_assert!(until > now);
                    now = until;
                }
                pace.waited(now, now + MILLI * took);
                spent.push((now, now + MILLI * took));
                now += MILLI * took;
                let begin = now.checked_sub(WINDOW - SLOT).unwrap_or(start);
                let within = |&(from, to): &(Instant, Instant)| to.saturating_duration_since(from.max(begin));
                let total: Duration = spent.iter().map(within).sum();
                let most = WINDOW * u32::from(percent) / 100 + MILLI * took;
                prop_assert!(total <= most, "{total:?} > {most:?}");
            }
        }
    }
}
