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
const MAX_IN_FLIGHT: u32 = 56;
/// Where it begins, and begins again after a connection was lost.
const INITIAL_IN_FLIGHT: u32 = 4;
/// Time that acknowledgements may take beyond twice the usual: the clock of a busy machine.
const JITTER_ALLOWANCE: Duration = Duration::from_micros(500);
/// An acknowledgement counts as one in so many of the mean,
const RECENT_WEIGHT: u32 = 32;
/// and as one in so many of what is usual, where that rises: a line that became slower is believed
/// in the end.
const BASELINE_WEIGHT: u32 = 64;

/// Encoding the backlog takes one part in so many of the time, and the rest of its way through this
/// thread several times as much: about two thirds of the speed that were possible
/// (docs/performance.md).
const ENCODE_PAUSE_FACTOR: u32 = 8;
/// So far it may get ahead: timers are no finer.
const MAX_ENCODE_LEAD: Duration = Duration::from_millis(1);

/// The pace of the backlog.
#[derive(Clone, Copy, Debug)]
pub(super) struct CongestionWindow {
    max_in_flight: u32,
    /// Acknowledgements in time since `most` rose.
    timely_acks: u32,
    /// What they took lately, in the mean; nothing before the first.
    recent_ack_time: Option<Duration>,
    /// The lowest mean in this connection; it rises only while no more than one is under way.
    baseline_ack_time: Duration,
    /// What was sent before this says nothing about the pace now.
    ignore_sent_before: Option<Instant>,
    /// Nothing is encoded before this.
    throttled_until: Option<Instant>,
}

impl CongestionWindow {
    pub(super) const fn new() -> Self {
        Self {
            max_in_flight: INITIAL_IN_FLIGHT,
            timely_acks: 0,
            recent_ack_time: None,
            baseline_ack_time: Duration::MAX,
            ignore_sent_before: None,
            throttled_until: None,
        }
    }

    /// An entry of the backlog took so long to encode.
    pub(super) fn on_encoded(&mut self, took: Duration, now: Instant) {
        let ahead = now.checked_sub(MAX_ENCODE_LEAD).unwrap_or(now);
        let from = self.throttled_until.map_or(ahead, |until| until.max(ahead));
        self.throttled_until = Some(from + took * ENCODE_PAUSE_FACTOR);
    }

    /// Until when the backlog rests, if it does.
    pub(super) fn throttled_until(&self, now: Instant) -> Option<Instant> {
        self.throttled_until.filter(|until| now < *until)
    }

    /// Entries of the backlog that may be under way.
    pub(super) const fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }

    /// An acknowledgement came for what was sent at this time.
    pub(super) fn on_acknowledged(&mut self, sent: Instant, now: Instant) {
        if self.ignore_sent_before.is_some_and(|since| sent < since) {
            return;
        }
        let took = now.saturating_duration_since(sent);
        let takes =
            self.recent_ack_time.map_or(took, |takes| moving_average(takes, took, RECENT_WEIGHT));
        self.recent_ack_time = Some(takes);
        self.baseline_ack_time = self.baseline_ack_time.min(takes);
        // With one under way it is not the backlog that slows them down.
        if self.max_in_flight == 1 {
            self.baseline_ack_time = moving_average(self.baseline_ack_time, took, BASELINE_WEIGHT);
        }
        if takes > self.baseline_ack_time * 2 + JITTER_ALLOWANCE {
            self.max_in_flight = (self.max_in_flight / 2).max(1);
            self.timely_acks = 0;
            self.ignore_sent_before = Some(now);
            return;
        }
        self.timely_acks += 1;
        if self.timely_acks >= self.max_in_flight {
            self.timely_acks = 0;
            self.max_in_flight = (self.max_in_flight + 1).min(MAX_IN_FLIGHT);
        }
    }
}

/// The mean in which the next value has one part in so many.
fn moving_average(before: Duration, next: Duration, parts: u32) -> Duration {
    before - before / parts + next / parts
}

#[cfg(test)]
mod tests;
