//! Which commands may have waited at the broker. Pure.

use std::time::{Duration, Instant};

/// After this time without a command the broker has sent its stored messages.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// A command that waited no longer than this, while the connection was lost, is not old.
const SHORT_ABSENCE: Duration = Duration::from_secs(10);

/// Tells the commands that the broker stored while the gateway was away from those that are sent
/// now: nothing in a message does.
///
/// The absence begins with the last packet from the broker: a connection over a dead path
/// ends only when an acknowledgement is overdue.
#[derive(Debug, Default)]
pub(super) struct BacklogWatch {
    /// `None` before the first session of this process.
    last_packet_at: Option<Instant>,
    /// While the broker sends its stored messages: when the last command arrived, or the session
    /// began.
    last_arrival: Option<Instant>,
}

impl BacklogWatch {
    /// Records that a session began, and whether the broker had stored it.
    pub(super) fn on_connected(&mut self, session_present: bool, now: Instant) {
        let was_away = self.last_packet_at.is_none_or(|packet_at| now >= packet_at + SHORT_ABSENCE);
        // The last session may have been too short for the messages that the broker had stored.
        let is_unfinished = self.last_arrival.zip(self.last_packet_at);
        let is_unfinished =
            is_unfinished.is_some_and(|(last, packet_at)| packet_at < last + QUIET_TIME);
        self.last_arrival = (session_present && (was_away || is_unfinished)).then_some(now);
        self.last_packet_at = Some(now);
    }

    /// Records that a packet arrived from the broker.
    pub(super) const fn on_broker_packet(&mut self, now: Instant) {
        self.last_packet_at = Some(now);
    }

    /// Records that a command arrived. Returns whether it may have waited at the broker.
    pub(super) fn on_message(&mut self, now: Instant) -> bool {
        self.last_arrival =
            self.last_arrival.filter(|last| now < *last + QUIET_TIME).and(Some(now));
        self.last_arrival.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_arrives_soon_after_a_start_with_a_persistent_session_may_be_old() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(true, start);
        assert!(watch.on_message(start + SECOND));
        // A long backlog, with pauses of the line.
        assert!(watch.on_message(start + 5 * SECOND));
        assert!(!watch.on_message(start + 10 * SECOND));
        assert!(!watch.on_message(start + 11 * SECOND));
    }

    /// A long backlog over a slow line looks the same.
    #[test]
    fn a_sender_without_a_pause_is_not_told_from_a_long_backlog() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(true, start);
        assert!((0..4_000).all(|second| watch.on_message(start + SECOND * second)));
        assert!(!watch.on_message(start + SECOND * 4_004));
    }

    #[test]
    fn a_clean_session_and_a_short_absence_bring_nothing_old() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(false, start);
        assert!(!watch.on_message(start));
        watch.on_broker_packet(start + SECOND);
        watch.on_connected(true, start + 10 * SECOND);
        assert!(!watch.on_message(start + 10 * SECOND));
        watch.on_connected(true, start + 20 * SECOND);
        assert!(watch.on_message(start + 20 * SECOND));
    }

    #[test]
    fn a_backlog_that_the_end_of_a_session_interrupted_goes_on_in_the_next() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(true, start);
        assert!(watch.on_message(start + SECOND));
        watch.on_broker_packet(start + 2 * SECOND);
        watch.on_connected(true, start + 4 * SECOND);
        assert!(watch.on_message(start + 5 * SECOND));
        // Quiet while the broker was there: it has sent everything.
        watch.on_broker_packet(start + 10 * SECOND);
        watch.on_connected(true, start + 11 * SECOND);
        assert!(!watch.on_message(start + 11 * SECOND));
    }

    /// The path is dead for 25 s before the connection ends; a command was published meanwhile.
    #[test]
    fn an_absence_begins_when_the_broker_was_heard_last() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(true, start);
        watch.on_broker_packet(start + 60 * SECOND);
        watch.on_connected(true, start + 86 * SECOND);
        assert!(watch.on_message(start + 86 * SECOND));
    }
}
