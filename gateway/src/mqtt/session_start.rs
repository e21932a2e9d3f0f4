//! How the next session begins: with what the broker kept or clean, with subscriptions or without.
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use provisioning::config::MqttVersion;
use tokio::time::Instant;

use super::SessionPersistence;
use super::failure::SessionFailure;

/// A persistent session ends after this number of violations of the protocol in a row: what the
/// broker stores in it may be the cause, and would come again for ever.
const MAX_VIOLATIONS: u8 = 2;

/// Pause before subscribing again where the subscription ends sessions.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(600);
/// Sessions in a row that end over the subscription before it pauses: once, the broker may have
/// been stopped at that moment.
const MAX_SUBSCRIPTION_FAILURES: u8 = 2;

/// How a session begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SessionOpening {
    /// With what the broker kept.
    Resume,
    /// Clean: the broker forgets what it kept.
    Clean,
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SessionRequest {
    pub(super) opening: SessionOpening,
    /// What becomes of the session after its end.
    pub(super) persistence: SessionPersistence,
}

/// What is known about the session that each broker keeps, by its number in the configuration.
#[derive(Debug)]
pub(super) struct PersistentSessions {
    persistence: SessionPersistence,
    brokers: BTreeMap<usize, PersistentSession>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PersistentSession {
    begins_clean: bool,
    violations: u8,
    /// Whether it was ended over an unknown subscription in this run.
    was_unsolicited: bool,
}

impl PersistentSessions {
    pub(super) const fn new(persistence: SessionPersistence) -> Self {
        Self { persistence, brokers: BTreeMap::new() }
    }

    /// Returns how to begin the next session with this broker. A session without subscriptions
    /// begins clean: a kept one would bring back what the broker stores in it.
    pub(super) fn request(
        &self,
        broker: usize,
        version: MqttVersion,
        subscribes: bool,
    ) -> SessionRequest {
        let begins_clean = self.brokers.get(&broker).is_some_and(|kept| kept.begins_clean);
        match self.persistence {
            SessionPersistence::Persistent { .. } if subscribes && !begins_clean => {
                SessionRequest { opening: SessionOpening::Resume, persistence: self.persistence }
            }
            // 3.1.1 has one flag for both: what begins clean is not kept (3.1.2.4).
            SessionPersistence::Persistent { .. } if subscribes && version == MqttVersion::V5 => {
                SessionRequest { opening: SessionOpening::Clean, persistence: self.persistence }
            }
            SessionPersistence::Persistent { .. } | SessionPersistence::Clean => SessionRequest {
                opening: SessionOpening::Clean,
                persistence: SessionPersistence::Clean,
            },
        }
    }

    /// Returns whether a session that began like this only ends the one that the broker had kept,
    /// and a kept one is to follow at once.
    pub(super) fn is_discard_session(&self, request: SessionRequest, subscribes: bool) -> bool {
        subscribes
            && self.persistence != SessionPersistence::Clean
            && request.persistence == SessionPersistence::Clean
    }

    /// Returns whether a session that began like this may be ended over an unknown subscription:
    /// once, because a broker that subscribes for its clients would do so again.
    pub(super) fn may_begin_clean(&self, broker: usize, request: SessionRequest) -> bool {
        request.persistence != SessionPersistence::Clean
            && self.brokers.get(&broker).is_none_or(|kept| !kept.was_unsolicited)
    }

    /// Records that a session with this broker was established.
    pub(super) fn on_connected(&mut self, broker: usize, request: SessionRequest) {
        let kept = self.brokers.entry(broker).or_default();
        if request.opening == SessionOpening::Clean {
            kept.begins_clean = false;
        }
    }

    /// Records why a session with this broker ended. Returns whether the next one begins clean
    /// because of that.
    pub(super) fn on_failed(&mut self, broker: usize, failure: &SessionFailure) -> bool {
        if self.persistence == SessionPersistence::Clean {
            return false;
        }
        let kept = self.brokers.entry(broker).or_default();
        let is_violation = matches!(failure, SessionFailure::Protocol(_));
        kept.violations = if is_violation { kept.violations.saturating_add(1) } else { 0 };
        let is_unsolicited =
            matches!(failure, SessionFailure::UnknownSubscription) && !kept.was_unsolicited;
        kept.was_unsolicited |= is_unsolicited;
        // What is too large, the broker would send again at once.
        let is_due = matches!(failure, SessionFailure::TooLarge { .. })
            || is_unsolicited
            || kept.violations >= MAX_VIOLATIONS;
        if is_due {
            kept.violations = 0;
            kept.begins_clean = true;
        }
        is_due
    }
}

/// The times in which sessions begin without subscriptions, for each broker by its number in the
/// configuration: with subscriptions, that broker would end every session, and nothing could be
/// published there. Another broker may accept them, and keep a session that is not to be lost.
#[derive(Debug, Default)]
pub(super) struct SubscriptionPauses {
    brokers: BTreeMap<usize, SubscriptionPause>,
}

#[derive(Debug, Default)]
struct SubscriptionPause {
    until: Option<(Instant, PauseCause)>,
    /// Ends of sessions in a row over the subscription.
    failures: u8,
}

/// Why subscriptions pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PauseCause {
    /// The broker closes the connection instead of answering.
    Closed,
    /// The broker does not answer.
    Silent,
    /// The broker sends a message that is too large, and would send it again after every SUBSCRIBE
    /// if it has retained it.
    TooLarge,
}

impl SubscriptionPauses {
    /// Records the end of a session with this broker, or of an attempt at one. Returns whether a
    /// pause begins.
    pub(super) fn on_failed(
        &mut self,
        broker: usize,
        failure: &SessionFailure,
        now: Instant,
    ) -> bool {
        self.brokers.entry(broker).or_default().on_failed(failure, now)
    }

    /// Returns the end of the pause at this broker, and its cause; `None` when there is none.
    pub(super) fn current(&self, broker: usize, now: Instant) -> Option<(Instant, PauseCause)> {
        self.brokers.get(&broker)?.until.filter(|(until, _)| now < *until)
    }
}

impl SubscriptionPause {
    fn on_failed(&mut self, failure: &SessionFailure, now: Instant) -> bool {
        let is_over_subscription = failure.is_over_subscription();
        self.failures = if is_over_subscription { self.failures + 1 } else { 0 };
        let cause = if matches!(failure, SessionFailure::TooLarge { .. }) {
            PauseCause::TooLarge
        } else if self.failures < MAX_SUBSCRIPTION_FAILURES {
            return false;
        } else if matches!(failure, SessionFailure::NoSuback) {
            PauseCause::Silent
        } else {
            PauseCause::Closed
        };
        self.failures = 0;
        self.until = Some((now + SUBSCRIBE_RETRY, cause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: SessionPersistence =
        SessionPersistence::Persistent { expiry: Duration::from_secs(86_400) };
    const CLEAN: SessionPersistence = SessionPersistence::Clean;

    fn asked(sessions: &PersistentSessions, broker: usize, version: MqttVersion) -> SessionRequest {
        sessions.request(broker, version, true)
    }

    #[test]
    fn only_a_persistent_session_with_subscriptions_is_resumed() {
        for version in [MqttVersion::V311, MqttVersion::V5] {
            let sessions = PersistentSessions::new(KEPT);
            let resumed = SessionRequest { opening: SessionOpening::Resume, persistence: KEPT };
            assert_eq!(asked(&sessions, 0, version), resumed);
            let clean = SessionRequest { opening: SessionOpening::Clean, persistence: CLEAN };
            assert_eq!(sessions.request(0, version, false), clean);
            assert_eq!(asked(&PersistentSessions::new(CLEAN), 0, version), clean);
        }
    }

    #[test]
    fn a_session_that_cannot_be_used_begins_clean_once_at_that_broker() {
        let mut sessions = PersistentSessions::new(KEPT);
        assert!(sessions.on_failed(1, &SessionFailure::TooLarge { size: 2 << 20 }));
        assert_eq!(asked(&sessions, 0, MqttVersion::V5).opening, SessionOpening::Resume);

        let clean = asked(&sessions, 1, MqttVersion::V5);
        assert_eq!(clean, SessionRequest { opening: SessionOpening::Clean, persistence: KEPT });
        assert!(!sessions.is_discard_session(clean, true), "version 5 keeps it from now on");
        let discard_session = asked(&sessions, 1, MqttVersion::V311);
        assert_eq!(discard_session.persistence, CLEAN);
        assert!(
            sessions.is_discard_session(discard_session, true),
            "3.1.1 keeps only the next one"
        );

        sessions.on_connected(1, discard_session);
        assert_eq!(asked(&sessions, 1, MqttVersion::V311).opening, SessionOpening::Resume);
    }

    #[test]
    fn two_violations_in_a_row_end_a_persistent_session() {
        let mut sessions = PersistentSessions::new(KEPT);
        let violation = || SessionFailure::Protocol("Unsolicited(3)".into());
        assert!(!sessions.on_failed(0, &violation()));
        assert!(!sessions.on_failed(0, &SessionFailure::Closed));
        assert!(!sessions.on_failed(0, &violation()));
        assert!(sessions.on_failed(0, &violation()));
        assert!(!PersistentSessions::new(CLEAN).on_failed(0, &violation()));
    }

    #[test]
    fn a_broker_that_subscribes_by_itself_does_not_end_sessions_for_ever() {
        let mut sessions = PersistentSessions::new(KEPT);
        assert!(sessions.on_failed(0, &SessionFailure::UnknownSubscription));
        let clean = asked(&sessions, 0, MqttVersion::V5);
        assert!(!sessions.may_begin_clean(0, clean));
        assert!(sessions.may_begin_clean(1, clean), "another broker");
        sessions.on_connected(0, clean);
        assert!(!sessions.on_failed(0, &SessionFailure::UnknownSubscription));
        let resumed = asked(&sessions, 0, MqttVersion::V5);
        assert_eq!(resumed.opening, SessionOpening::Resume);
        assert!(!sessions.may_begin_clean(0, resumed));
    }

    #[test]
    fn only_an_unknown_subscription_uses_up_the_clean_begin_for_one() {
        let mut sessions = PersistentSessions::new(KEPT);
        assert!(sessions.on_failed(0, &SessionFailure::TooLarge { size: 2 << 20 }));
        let clean = asked(&sessions, 0, MqttVersion::V5);
        sessions.on_connected(0, clean);
        let resumed = asked(&sessions, 0, MqttVersion::V5);
        assert!(sessions.may_begin_clean(0, resumed));
        assert!(sessions.on_failed(0, &SessionFailure::UnknownSubscription));
        let not_kept = SessionRequest { persistence: CLEAN, ..resumed };
        assert!(!PersistentSessions::new(KEPT).may_begin_clean(0, not_kept), "nothing comes again");
    }

    #[test]
    fn the_subscription_pauses_after_two_ends_over_it_in_a_row() {
        let (mut pauses, now) = (SubscriptionPauses::default(), Instant::now());
        for failure in
            [SessionFailure::SubscriptionClosed, SessionFailure::Closed, SessionFailure::NoSuback]
        {
            assert!(!pauses.on_failed(0, &failure, now), "{failure:?}");
            assert_eq!(pauses.current(0, now), None, "{failure:?}");
        }
        assert!(pauses.on_failed(0, &SessionFailure::SubscriptionClosed, now));
        let until = now + SUBSCRIBE_RETRY;
        assert!(!pauses.on_failed(0, &SessionFailure::Closed, now));
        assert_eq!(pauses.current(0, now), Some((until, PauseCause::Closed)));
        assert_eq!(pauses.current(0, until), None);
    }

    #[test]
    fn a_broker_that_does_not_answer_is_told_from_one_that_closes() {
        let (mut pauses, now) = (SubscriptionPauses::default(), Instant::now());
        assert!(!pauses.on_failed(0, &SessionFailure::NoSuback, now));
        assert!(pauses.on_failed(0, &SessionFailure::NoSuback, now));
        assert_eq!(pauses.current(0, now).map(|(_, cause)| cause), Some(PauseCause::Silent));
        assert!(pauses.on_failed(0, &SessionFailure::TooLarge { size: 2 << 20 }, now));
        assert_eq!(pauses.current(0, now).map(|(_, cause)| cause), Some(PauseCause::TooLarge));
    }
    #[test]
    fn a_pause_concerns_one_broker_and_its_ends_in_a_row() {
        let (mut pauses, now) = (SubscriptionPauses::default(), Instant::now());
        let closed = SessionFailure::SubscriptionClosed;
        assert!(!pauses.on_failed(0, &closed, now));
        assert!(!pauses.on_failed(1, &closed, now), "each one may have been stopped");
        assert!(!pauses.on_failed(2, &SessionFailure::Closed, now));
        assert!(pauses.on_failed(0, &closed, now), "what others do changes nothing");
        assert!(pauses.current(0, now).is_some());
        assert_eq!((pauses.current(1, now), pauses.current(2, now)), (None, None));
    }
}
