//! How many entries of the backlog may be in flight together with live entries. Pure.
//!
//! Delay-based congestion control, as in TCP Vegas: the window grows by one while acknowledgements
//! take about as long as without a backlog, and is halved when they take more than twice as long,
//! so that live entries do not wait for old ones. Encoding the backlog is limited too, since live
//! entries need the same processor, here and at the broker.
//!
//! It compares averages, because a cellular link takes 30 ms for one message and 200 for the next:
//! compared with the shortest time, hardly anything would be in flight. One entry always is. So
//! where live entries alone fill the link, they may wait more than twice as long.

use std::time::{Duration, Instant};

/// Largest window. The connection allows 64 messages in flight; the rest is for live entries.
const MAX_IN_FLIGHT: u32 = 56;
/// Window at the beginning of a connection.
const INITIAL_IN_FLIGHT: u32 = 4;
/// Time that acknowledgements may take beyond twice the baseline: timers of a busy machine are
/// late.
const JITTER_ALLOWANCE: Duration = Duration::from_micros(500);
/// Weight of a new sample in the short-term average: 1/32.
const RECENT_WEIGHT: u32 = 32;
/// Weight of a new sample in the baseline, where that rises: 1/64. A link that became slower is
/// accepted after a while.
const BASELINE_WEIGHT: u32 = 64;

/// After encoding an entry of the backlog, the pause is eight times as long as the encoding. With
/// the rest of its way through this thread, that is about two thirds of the possible speed
/// (docs/performance.md).
const ENCODE_PAUSE_FACTOR: u32 = 8;
/// Pauses of up to 1 ms may be made up for: timers are no finer.
const MAX_ENCODE_LEAD: Duration = Duration::from_millis(1);

/// The window of the backlog, and its pause for encoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct CongestionWindow {
    max_in_flight: u32,
    /// Acknowledgements in time since the window last changed.
    timely_acks: u32,
    /// Short-term average of the time to an acknowledgement; `None` before the first.
    recent_ack_time: Option<Duration>,
    /// Lowest average in this connection; it rises only while the window is 1.
    baseline_ack_time: Duration,
    /// Acknowledgements of entries sent before this say nothing about the window now.
    ignore_sent_before: Option<Instant>,
    /// No entry of the backlog is encoded before this.
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

    /// Records how long an entry of the backlog took to encode.
    pub(super) fn on_encoded(&mut self, took: Duration, now: Instant) {
        let ahead = now.checked_sub(MAX_ENCODE_LEAD).unwrap_or(now);
        let from = self.throttled_until.map_or(ahead, |until| until.max(ahead));
        self.throttled_until = Some(from + took * ENCODE_PAUSE_FACTOR);
    }

    /// Returns when the backlog may send again, or `None` if it may now.
    pub(super) fn throttled_until(&self, now: Instant) -> Option<Instant> {
        self.throttled_until.filter(|until| now < *until)
    }

    /// Returns how many entries of the backlog may be in flight.
    pub(super) const fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }

    /// Records an acknowledgement of an entry sent at this time.
    pub(super) fn on_acknowledged(&mut self, sent: Instant, now: Instant) {
        if self.ignore_sent_before.is_some_and(|since| sent < since) {
            return;
        }
        let took = now.saturating_duration_since(sent);
        let recent =
            self.recent_ack_time.map_or(took, |recent| moving_average(recent, took, RECENT_WEIGHT));
        self.recent_ack_time = Some(recent);
        self.baseline_ack_time = self.baseline_ack_time.min(recent);
        // With one entry in flight it is not the backlog that makes them slow.
        if self.max_in_flight == 1 {
            self.baseline_ack_time = moving_average(self.baseline_ack_time, took, BASELINE_WEIGHT);
        }
        if recent > self.baseline_ack_time * 2 + JITTER_ALLOWANCE {
            self.max_in_flight = (self.max_in_flight / 2).max(1);
            self.timely_acks = 0;
            // All that is in flight now was sent with the larger window: it is halved once for all.
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

/// Returns the average in which the next value has the weight `1 / parts`.
fn moving_average(before: Duration, next: Duration, parts: u32) -> Duration {
    before - before / parts + next / parts
}

#[cfg(test)]
mod tests;
