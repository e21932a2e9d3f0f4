//! How many entries of the backlog may be in flight together with live entries. Pure.
//!
//! Delay-based congestion control, as in TCP Vegas: the window grows by one while acknowledgements
//! take about as long as without a backlog, and is halved when they take more than twice as long,
//! so that live entries do not wait for old ones. Encoding the backlog is limited too, since live
//! entries need the same processor, here and at the broker.
//!
//! It compares averages, because a cellular link takes 30 ms for one message and 200 for the next:
//! compared with the shortest time, hardly anything would be in flight.
//!
//! On a slow link even one entry in flight makes live entries wait, so the backlog then rests
//! between two of its entries. What is sent at the end of a rest shows how long acknowledgements
//! take without the backlog, as in a `ProbeRTT` of BBR.

use std::time::{Duration, Instant};

/// Largest window. The connection allows 64 messages in flight; the rest is for live entries.
const MAX_IN_FLIGHT: u32 = 56;
/// Window at the beginning of a connection.
const INITIAL_IN_FLIGHT: u32 = 4;
/// Time that acknowledgements may take beyond twice the baseline: timers of a busy machine are
/// late.
const JITTER_ALLOWANCE: Duration = Duration::from_micros(500);
/// Weight of a new sample in the short-term average: 1/16.
const RECENT_WEIGHT: u32 = 16;
/// Weight of a new sample in the baseline, where that rises: 1/64. A link that became slower is
/// accepted after a while.
const BASELINE_WEIGHT: u32 = 64;
/// Weight in the baseline of an entry that was sent during a rest of the backlog: 1/16.
const UNDISTURBED_WEIGHT: u32 = 16;
/// The backlog rests only on links whose acknowledgements take this long.
const MIN_RESTED_ACK_TIME: Duration = Duration::from_millis(50);
/// Longest rest between two entries, in times of an acknowledgement.
const MAX_REST: u32 = 16;
/// Acknowledgements in time after which a rest is halved.
const ACKS_PER_REST: u32 = 32;

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
    /// Lowest average in this connection; it rises with what is sent during a rest and, on a fast
    /// link, while the window is 1.
    baseline_ack_time: Duration,
    /// Pause between two entries, in times of an acknowledgement; only while the window is 1.
    rest: u32,
    /// When what is sent no longer waits for an entry of the backlog; `None` outside of a rest.
    undisturbed_from: Option<Instant>,
    /// When the rest ended with the next entry.
    undisturbed_until: Option<Instant>,
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
            rest: 0,
            undisturbed_from: None,
            undisturbed_until: None,
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

    /// Records that an entry of the backlog is sent.
    pub(super) fn on_sent(&mut self, now: Instant) {
        if self.undisturbed_from.is_some() && self.undisturbed_until.is_none() {
            self.undisturbed_until = Some(now);
        }
    }

    /// Records an acknowledgement of an entry sent at this time.
    pub(super) fn on_acknowledged(&mut self, sent: Instant, is_backlog: bool, now: Instant) {
        let took = now.saturating_duration_since(sent);
        if self.was_undisturbed(sent) {
            self.baseline_ack_time =
                moving_average(self.baseline_ack_time, took, UNDISTURBED_WEIGHT);
        }
        if self.ignore_sent_before.is_none_or(|since| sent >= since) {
            self.adjust(took, now);
        }
        if is_backlog {
            self.begin_rest(now);
        }
    }

    /// Returns whether an entry that was sent at this time had the link without the backlog.
    fn was_undisturbed(&self, sent: Instant) -> bool {
        self.undisturbed_from.is_some_and(|from| from <= sent)
            && self.undisturbed_until.is_none_or(|until| sent <= until)
    }

    /// Sets window and rest by the time that an acknowledgement took.
    fn adjust(&mut self, took: Duration, now: Instant) {
        let recent =
            self.recent_ack_time.map_or(took, |recent| moving_average(recent, took, RECENT_WEIGHT));
        self.recent_ack_time = Some(recent);
        self.baseline_ack_time = self.baseline_ack_time.min(recent);
        let is_fast = recent < MIN_RESTED_ACK_TIME;
        // With one entry in flight on a fast link it is not the backlog that makes them slow.
        if self.max_in_flight == 1 && is_fast {
            self.baseline_ack_time = moving_average(self.baseline_ack_time, took, BASELINE_WEIGHT);
        }
        if recent > self.baseline_ack_time * 2 + JITTER_ALLOWANCE {
            self.timely_acks = 0;
            // All that is in flight now was sent with the larger window: it is halved once for all.
            self.ignore_sent_before = Some(now);
            if self.max_in_flight > 1 {
                self.max_in_flight /= 2;
            } else if !is_fast {
                self.rest = (self.rest * 2).clamp(1, MAX_REST);
            }
            return;
        }
        self.timely_acks += 1;
        if self.rest > 0 && self.timely_acks >= ACKS_PER_REST {
            self.timely_acks = 0;
            self.rest /= 2;
        } else if self.rest == 0 && self.timely_acks >= self.max_in_flight {
            self.timely_acks = 0;
            self.max_in_flight = (self.max_in_flight + 1).min(MAX_IN_FLIGHT);
        }
    }

    /// Lets the backlog rest after one of its entries was acknowledged.
    fn begin_rest(&mut self, now: Instant) {
        (self.undisturbed_from, self.undisturbed_until) = (None, None);
        if let Some(recent) = self.recent_ack_time.filter(|_| self.rest > 0) {
            self.undisturbed_from = Some(now + recent);
            let until = now + recent * self.rest;
            self.throttled_until = Some(self.throttled_until.map_or(until, |at| at.max(until)));
        }
    }
}

/// Returns the average in which the next value has the weight `1 / parts`.
fn moving_average(before: Duration, next: Duration, parts: u32) -> Duration {
    before - before / parts + next / parts
}

#[cfg(test)]
mod tests;
