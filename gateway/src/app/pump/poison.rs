//! Detects a message over which the broker closes the connection each time. Pure.
//!
//! MQTT 3.1.1 has no reason code for "too large" or "not allowed", so a broker closes the
//! connection instead. The message would be sent again in every session, and no later one would
//! ever arrive. So after a session without any acknowledgement, messages are sent one at a time,
//! and one that was the only message in flight when the connection was closed again is dropped.

use super::Ticket;

/// Consecutive sessions without an acknowledgement after which messages are sent one at a time.
/// One: it costs a round trip for each message until the first acknowledgement, and no more.
const SESSIONS_BEFORE_PROBING: u32 = 1;
/// Consecutive sessions that a message may end while it is alone in flight; at the last of them it
/// is dropped. Two, since a broker that restarts closes the connection once over no message at all.
const SESSIONS_BEFORE_DROP: u32 = 2;

/// Counts the sessions that ended without an acknowledgement, and the message they ended over.
#[derive(Debug, Default)]
pub(super) struct PoisonDetector {
    /// Consecutive sessions that the broker closed before it acknowledged a message of the queue.
    unanswered_sessions: u32,
    /// The last message that was alone in flight, and the consecutive sessions that ended over it.
    suspect: Option<(Ticket, u32)>,
}

impl PoisonDetector {
    /// Returns whether messages have to be sent one at a time.
    pub(super) const fn is_probing(&self) -> bool {
        self.unanswered_sessions >= SESSIONS_BEFORE_PROBING
    }

    /// Records that the broker acknowledged or refused a message and kept the connection.
    pub(super) const fn on_answered(&mut self) {
        *self = Self { unanswered_sessions: 0, suspect: None };
    }

    /// Records that the broker closed the connection with messages in flight and none answered;
    /// `alone` is the message in flight if it was the only one. Returns the message to drop,
    /// once [`SESSIONS_BEFORE_DROP`] such sessions ended over the same one while probing.
    pub(super) fn on_closed(&mut self, alone: Option<Ticket>) -> Option<Ticket> {
        let was_probing = self.is_probing();
        self.unanswered_sessions = self.unanswered_sessions.saturating_add(1);
        let ticket = alone.filter(|_| was_probing)?;
        let sessions = match self.suspect {
            Some((suspect, sessions)) if suspect == ticket => sessions + 1,
            Some(_) | None => 1,
        };
        let is_poison = sessions >= SESSIONS_BEFORE_DROP;
        self.suspect = (!is_poison).then_some((ticket, sessions));
        is_poison.then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::EntryId;

    const fn entry(number: u64) -> Option<Ticket> {
        Some(Ticket::Entry(EntryId::from_ticket(number)))
    }

    fn probing() -> PoisonDetector {
        PoisonDetector { unanswered_sessions: SESSIONS_BEFORE_PROBING, suspect: None }
    }

    #[test]
    fn a_message_that_ends_two_sessions_alone_is_dropped() {
        let mut detector = PoisonDetector::default();
        assert_eq!(detector.on_closed(None), None);
        assert!(detector.is_probing());
        assert_eq!([detector.on_closed(entry(7)), detector.on_closed(entry(7))], [None, entry(7)]);
        assert!(detector.is_probing(), "the next message may be as bad");
        assert_eq!([detector.on_closed(entry(8)), detector.on_closed(entry(8))], [None, entry(8)]);
    }

    #[test]
    fn a_message_that_is_alone_before_probing_is_not_suspected() {
        let mut detector = PoisonDetector::default();
        assert_eq!([detector.on_closed(entry(7)), detector.on_closed(entry(7))], [None, None]);
    }

    #[test]
    fn another_message_restarts_the_count() {
        let mut detector = probing();
        let dropped = [7, 8, 7].map(|number| detector.on_closed(entry(number)));
        assert_eq!(dropped, [None; 3]);
    }

    #[test]
    fn an_answer_ends_the_probing() {
        let mut detector = probing();
        assert_eq!(detector.on_closed(entry(7)), None);
        detector.on_answered();
        assert!(!detector.is_probing());
        assert_eq!(detector.on_closed(entry(7)), None);
    }
}
