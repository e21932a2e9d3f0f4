//! Finds the message that makes the broker close the connection. Pure.
//!
//! A broker without a word for "too large" or "not allowed" closes the connection instead (MQTT
//! 3.1.1 has none). The message would be sent again in every session, and nothing behind it would
//! ever arrive. So after a session that brought nothing, messages are sent one at a time, and
//! the one that was alone under way when the connection was closed again is given up.

/// Sessions in a row without an acknowledgement after which messages are sent one at a time. Going
/// one at a time costs a round trip each until the first acknowledgement, so it may begin early.
const SESSIONS_BEFORE_PROBING: u32 = 1;
/// Sessions in a row that one message may cost when it was sent alone.
const SESSIONS_BEFORE_DROP: u32 = 2;

/// How the broker has treated us so far.
#[derive(Debug, Default)]
pub(super) struct PoisonDetector {
    /// Sessions in a row that the broker closed before it acknowledged anything that counts.
    unanswered_sessions: u32,
    /// The last message that was alone, and how many sessions it cost in a row.
    suspect: Option<(u64, u32)>,
}

impl PoisonDetector {
    /// Whether messages have to be sent one at a time.
    pub(super) const fn is_probing(&self) -> bool {
        self.unanswered_sessions >= SESSIONS_BEFORE_PROBING
    }

    /// The broker took or refused a message and kept the connection.
    pub(super) const fn on_answered(&mut self) {
        *self = Self { unanswered_sessions: 0, suspect: None };
    }

    /// The broker closed the connection with messages under way and none answered. `alone` is the
    /// ticket of the message if it was the only one. Gives the ticket of the message to give up.
    pub(super) fn on_closed(&mut self, alone: Option<u64>) -> Option<u64> {
        let was_on = self.is_probing();
        self.unanswered_sessions = self.unanswered_sessions.saturating_add(1);
        let ticket = alone.filter(|_| was_on)?;
        let cost = match self.suspect {
            Some((blamed, cost)) if blamed == ticket => cost + 1,
            Some(_) | None => 1,
        };
        let convicted = cost >= SESSIONS_BEFORE_DROP;
        self.suspect = (!convicted).then_some((ticket, cost));
        convicted.then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_that_is_alone_twice_is_given_up() {
        let mut suspicion = PoisonDetector::default();
        assert_eq!(suspicion.on_closed(None), None);
        assert!(suspicion.is_probing());
        assert_eq!([suspicion.on_closed(Some(7)), suspicion.on_closed(Some(7))], [None, Some(7)]);
        assert!(suspicion.is_probing(), "the next one may be as bad");
        assert_eq!([suspicion.on_closed(Some(8)), suspicion.on_closed(Some(8))], [None, Some(8)]);
    }

    #[test]
    fn a_message_that_happens_to_be_alone_is_not_blamed() {
        let mut suspicion = PoisonDetector::default();
        assert_eq!([suspicion.on_closed(Some(7)), suspicion.on_closed(Some(7))], [None, None]);
    }

    #[test]
    fn another_message_starts_another_count() {
        let mut suspicion =
            PoisonDetector { unanswered_sessions: SESSIONS_BEFORE_PROBING, suspect: None };
        let verdicts = [7, 8, 7].map(|ticket| suspicion.on_closed(Some(ticket)));
        assert_eq!(verdicts, [None; 3]);
    }

    #[test]
    fn an_answer_ends_it() {
        let mut suspicion =
            PoisonDetector { unanswered_sessions: SESSIONS_BEFORE_PROBING, suspect: Some((7, 1)) };
        suspicion.on_answered();
        assert!(!suspicion.is_probing());
        assert_eq!(suspicion.on_closed(Some(7)), None);
    }
}
