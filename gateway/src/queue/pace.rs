//! How much of the backlog may be under way beside the live lane. Pure.
//!
//! More while acknowledgements take in the mean what they do without a backlog, half as much as soon
//! as that is more than about twice as long: what is new must not wait for what is old. And never
//! all of the time: what is new has to pass the same processor, here and at the broker.
//!
//! The mean, because a line over the air takes 30 ms and then 200 for reasons of its own: measured by
//! the shortest of them hardly anything would be under way. Something always is, so a line that is
//! full of what is new alone makes that wait longer than twice as long.

use std::time::{Duration, Instant};

/// Most entries of the backlog under way. The window of the connection is 64; the rest is for what
/// is new.
const MOST: u32 = 56;
/// Where it begins, and begins again after a connection was lost.
const FIRST: u32 = 4;
/// Time that acknowledgements may take beyond twice the usual: the clock of a busy machine.
const SLACK: Duration = Duration::from_micros(500);
/// An acknowledgement counts as one in so many of the mean,
const RECENT: u32 = 32;
/// and as one in so many of what is usual, where that rises: a line that became slower is believed
/// in the end.
const USUAL: u32 = 64;

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
    /// What they took lately, in the mean; nothing before the first.
    takes: Option<Duration>,
    /// The lowest mean in this connection; it rises only while no more than one is under way.
    usual: Duration,
    /// What was sent before this says nothing about the pace now.
    since: Option<Instant>,
    /// Nothing is encoded before this.
    rests_until: Option<Instant>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            most: FIRST,
            in_time: 0,
            takes: None,
            usual: Duration::MAX,
            since: None,
            rests_until: None,
        }
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

    /// An acknowledgement came for what was sent at this time.
    pub(super) fn acknowledged(&mut self, sent: Instant, now: Instant) {
        if self.since.is_some_and(|since| sent < since) {
            return;
        }
        let took = now.saturating_duration_since(sent);
        let takes = self.takes.map_or(took, |takes| mean(takes, took, RECENT));
        self.takes = Some(takes);
        self.usual = self.usual.min(takes);
        // With one under way it is not the backlog that slows them down.
        if self.most == 1 {
            self.usual = mean(self.usual, took, USUAL);
        }
        if takes > self.usual * 2 + SLACK {
            self.most = (self.most / 2).max(1);
            self.in_time = 0;
            self.since = Some(now);
            return;
        }
        self.in_time += 1;
        if self.in_time >= self.most {
            self.in_time = 0;
            self.most = (self.most + 1).min(MOST);
        }
    }
}

/// The mean in which the next value has one part in so many.
fn mean(before: Duration, next: Duration, parts: u32) -> Duration {
    before - before / parts + next / parts
}

#[cfg(test)]
mod tests;
