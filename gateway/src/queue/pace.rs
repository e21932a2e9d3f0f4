//! How much of the backlog may be under way beside the live lane. Pure.
//!
//! More while acknowledgements come as fast as they ever did, half as much as soon as they take
//! more than about twice as long: what is new must not wait for what is old. And never all of the
//! time: what is new has to pass the same processor, here and at the broker.

use std::time::{Duration, Instant};

/// Most entries of the backlog under way. The window of the connection is 64; the rest is for what
/// is new.
const MOST: u32 = 56;
/// Where it begins, and begins again after a connection was lost.
const FIRST: u32 = 4;
/// Time that an acknowledgement may take beyond twice the shortest: the clock of a busy machine.
const SLACK: Duration = Duration::from_micros(500);
/// The shortest time is forgotten by this share with each acknowledgement, so that a line that
/// became slower is believed in the end.
const FORGET: u32 = 1024;

/// Encoding the backlog takes one part in so many of the time, and the rest of its way through this
/// thread several times as much: about two thirds of the speed that were possible
/// (docs/performance.md).
const PARTS: u32 = 8;
/// So far it may get ahead: timers are no finer.
const AHEAD: Duration = Duration::from_millis(1);

/// The pace of the backlog.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    most: u32,
    /// Acknowledgements in time since `most` rose.
    in_time: u32,
    shortest: Option<Duration>,
    /// What was sent before this says nothing about the pace now.
    since: Option<Instant>,
    /// Nothing is encoded before this.
    rests_until: Option<Instant>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { most: FIRST, in_time: 0, shortest: None, since: None, rests_until: None }
    }

    /// An entry of the backlog took so long to encode.
    pub(super) fn encoded(&mut self, took: Duration, now: Instant) {
        let ahead = now.checked_sub(AHEAD).unwrap_or(now);
        let from = self.rests_until.map_or(ahead, |until| until.max(ahead));
        self.rests_until = Some(from + took * PARTS);
    }

    /// Until when the backlog rests, if it does.
    pub(super) fn rests(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| now < *until)
    }

    /// Entries of the backlog that may be under way.
    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// A connection began.
    pub(super) const fn restart(&mut self) {
        *self = Self::new();
    }

    /// An acknowledgement came for what was sent at this time.
    pub(super) fn acknowledged(&mut self, sent: Instant, now: Instant) {
        let took = now.saturating_duration_since(sent);
        let shortest =
            self.shortest.map_or(took, |shortest| (shortest + shortest / FORGET).min(took));
        self.shortest = Some(shortest);
        if took <= shortest * 2 + SLACK {
            self.in_time += 1;
            if self.in_time >= self.most {
                self.in_time = 0;
                self.most = (self.most + 1).min(MOST);
            }
        } else if self.since.is_none_or(|since| sent >= since) {
            self.most = (self.most / 2).max(1);
            self.in_time = 0;
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: Duration = Duration::from_millis(20);

    fn after(pace: &mut Pace, start: Instant, count: u32, took: Duration) {
        for n in 0..count {
            let sent = start + TAKES * n;
            pace.acknowledged(sent, sent + took);
        }
    }

    #[test]
    fn it_rises_while_acknowledgements_are_quick_and_never_takes_the_whole_window() {
        let mut pace = Pace::new();
        after(&mut pace, Instant::now(), 100, TAKES);
        assert!((10..20).contains(&pace.most()), "{pace:?}");
        after(&mut pace, Instant::now(), 10_000, TAKES);
        assert_eq!(pace.most(), MOST);
    }

    #[test]
    fn it_falls_to_half_once_for_all_that_was_under_way_when_they_became_slow() {
        let mut pace = Pace::new();
        let start = Instant::now();
        after(&mut pace, start, 10_000, TAKES);
        let sent = start + TAKES * 10_000;
        for _ in 0..MOST {
            pace.acknowledged(sent, sent + TAKES * 4);
        }
        assert_eq!(pace.most(), MOST / 2);
        pace.acknowledged(sent + TAKES * 4, sent + TAKES * 8);
        assert_eq!(pace.most(), MOST / 4);
    }

    #[test]
    fn a_line_that_stays_slow_is_believed_in_the_end() {
        let mut pace = Pace::new();
        after(&mut pace, Instant::now(), 100, TAKES);
        after(&mut pace, Instant::now(), 10_000, TAKES * 5);
        assert!(pace.most() > FIRST, "{pace:?}");
    }

    #[test]
    fn encoding_takes_its_share_of_the_time_and_no_more() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let (mut now, mut encoded) = (start, Duration::ZERO);
        while now < start + Duration::from_secs(1) {
            let took = Duration::from_micros(200);
            now += took;
            encoded += took;
            pace.encoded(took, now);
            // As a timer of whole milliseconds wakes one up.
            if let Some(until) = pace.rests(now) {
                let millis = (until - start).as_micros().div_ceil(1000);
                now = start + Duration::from_millis(millis.try_into().unwrap());
            }
        }
        assert!((120..=130).contains(&encoded.as_millis()), "{encoded:?}");
    }

    #[test]
    fn something_is_always_under_way() {
        let mut pace = Pace::new();
        let mut sent = Instant::now();
        pace.acknowledged(sent, sent);
        for n in 1..20 {
            sent += Duration::from_secs(n);
            pace.acknowledged(sent, sent + Duration::from_secs(n));
        }
        assert_eq!(pace.most(), 1);
    }
}
