//! How a PLC is spared: pauses, and ceilings for requests and for the time they take. Pure.

mod share;

use std::time::{Duration, Instant};

use provisioning::config::Pacing;

use crate::schedule::Budget;
pub(super) use share::Came;
use share::Share;

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
    /// Waited for answers, all in all.
    spent: Duration,
}

impl Pace {
    pub(super) fn new(pacing: Pacing, now: Instant) -> Self {
        Self {
            pacing,
            rests_until: None,
            requests: Budget::per_second(pacing.max_requests.into()),
            share: (pacing.max_share < 100).then(|| Share::new(pacing.max_share, now)),
            spent: Duration::ZERO,
        }
    }

    /// A connection was opened.
    pub(super) fn connected(&mut self, now: Instant) {
        self.rest(now, self.pacing.connect_pause);
    }

    /// An answer was waited for, from when the request was sent until now.
    pub(super) fn waited(&mut self, sent: Instant, now: Instant, came: Came) {
        self.rest(now, self.pacing.request_pause);
        self.spent += now.saturating_duration_since(sent);
        if let Some(share) = &mut self.share {
            share.add(sent, now, came);
        }
    }

    fn rest(&mut self, now: Instant, pause: Duration) {
        self.rests_until = (!pause.is_zero()).then(|| now + pause);
    }

    /// How long answers were waited for, all in all.
    pub(super) const fn spent(&self) -> Duration {
        self.spent
    }

    /// What stands against a turn that waits so long for answers, and until when.
    pub(super) fn holds(&mut self, turn: Duration, now: Instant) -> Option<(Ceiling, Instant)> {
        let Pacing { max_share, max_requests, .. } = self.pacing;
        let share = self.share.as_mut().and_then(|share| share.free_at(turn, now));
        let requests = self.requests.free_at(now);
        let share = share.map(|until| (Ceiling::Share(max_share), until));
        let requests = requests.map(|until| (Ceiling::Requests(max_requests), until));
        share.into_iter().chain(requests).max_by_key(|(_, until)| *until)
    }

    /// Takes the next request; it may go now, or be asked for again at an instant. A turn that takes
    /// longer than was expected is spread by this.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let rests_until = self.rests_until.filter(|until| now < *until);
        let share = self.share.as_mut().and_then(|share| share.free_for_an_answer(now));
        match rests_until.max(share) {
            Some(until) => Err(until),
            None => self.requests.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
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
        pace.waited(start + at(200), start + at(203), Came::Yes);
        assert_eq!(pace.take(start + at(203)), Err(start + at(208)));
        assert_eq!(pace.take(start + at(208)), Ok(()));
    }

    #[test]
    fn requests_beyond_the_ceiling_of_a_second_wait_for_the_next() {
        let start = Instant::now();
        let mut pace = Pace::new(Pacing { max_requests: 2, ..pacing() }, start);
        assert_eq!(pace.holds(MILLI, start), None);
        assert_eq!([pace.take(start), pace.take(start)], [Ok(()), Ok(())]);
        let free = start + MILLI * 1000;
        assert_eq!(pace.holds(MILLI, start), Some((Ceiling::Requests(2), free)));
        assert_eq!(pace.take(start), Err(free));
        assert_eq!(pace.take(free), Ok(()));
    }

    #[test]
    fn a_turn_and_each_of_its_requests_wait_until_the_share_has_room() {
        let start = Instant::now();
        let (second, at) = (MILLI * 1000, |seconds| start + MILLI * 1000 * seconds);
        let mut pace = Pace::new(pacing(), start);
        assert_eq!(pace.holds(second * 4, start), None);
        pace.waited(start, at(4), Came::Yes);
        assert_eq!(pace.spent(), second * 4);
        // Five seconds in ten: one more second, or four when three of the first are out of sight.
        assert_eq!(pace.holds(second, at(4)), None);
        assert_eq!(pace.holds(second * 4, at(4)), Some((Ceiling::Share(50), at(9))));
        assert_eq!(pace.take(at(4)), Err(at(9)), "as long as the one before");
        assert_eq!(pace.take(at(9)), Ok(()));
    }

    #[test]
    fn all_of_the_time_may_be_taken_where_the_file_says_so() {
        let start = Instant::now();
        let mut pace = Pace::new(Pacing { max_share: 100, ..pacing() }, start);
        pace.waited(start, start + MILLI * 20_000, Came::No);
        assert_eq!(pace.holds(MILLI, start + MILLI * 20_000), None);
    }
}
