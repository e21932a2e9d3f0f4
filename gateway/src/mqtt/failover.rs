//! Which broker is tried next, and how long we wait before. Pure.

use std::time::Duration;

use crate::schedule::{RetryBackoff, RetryPolicy};

/// Longest jitter of the first pause, and of any pause.
const FIRST_MAX_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
const RECONNECT: RetryPolicy = RetryPolicy::full_jitter(FIRST_MAX_PAUSE, MAX_PAUSE);
/// A session that lasted so long proves the broker good.
const STABLE_SESSION: Duration = Duration::from_secs(60);
/// Least pause after a refused login: nobody mends a password within seconds, and a fleet that
/// keeps asking is an attack on the broker.
const LOGIN_REFUSED_MIN_PAUSE: Duration = Duration::from_secs(60);

/// Why we have to try again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FailureKind {
    /// Anything that may be over soon.
    Transient,
    /// The broker does not let us in as who we say we are.
    LoginRefused,
}

/// The brokers in the order of the configuration, and who is next.
///
/// One round tries every broker once, without a pause in between. After a round we wait. After a
/// session that was stable the order starts at its top again; one that was not counts as a failed
/// attempt, so the next broker gets its turn.
#[derive(Debug)]
pub(super) struct BrokerFailover {
    brokers: usize,
    current: usize,
    tried: usize,
    login_refused: bool,
    backoff: RetryBackoff,
}

impl BrokerFailover {
    pub(super) fn new(brokers: usize) -> Self {
        let backoff = RetryBackoff::new(&RECONNECT);
        Self { brokers, current: 0, tried: 0, login_refused: false, backoff }
    }

    /// Index of the broker to try.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Takes a failed attempt, gives the pause before the next. `random` is in `[0, 1)`.
    pub(super) fn on_failed(&mut self, setback: FailureKind, random: f64) -> Duration {
        self.advance();
        self.tried += 1;
        self.login_refused |= setback == FailureKind::LoginRefused;
        if self.tried < self.brokers {
            return Duration::ZERO;
        }
        self.next_pause(random)
    }

    /// Takes the end of a session that had come about, gives the pause before the next attempt.
    pub(super) fn on_lost(
        &mut self,
        setback: FailureKind,
        lasted: Duration,
        random: f64,
    ) -> Duration {
        self.login_refused |= setback == FailureKind::LoginRefused;
        if lasted >= STABLE_SESSION {
            self.backoff.reset();
            self.current = 0;
        } else {
            self.advance();
        }
        self.next_pause(random)
    }

    /// Another hub leads to other brokers: begins at the top, with all failures forgotten.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.brokers);
    }

    fn advance(&mut self) {
        self.current = (self.current + 1) % self.brokers.max(1);
    }

    fn next_pause(&mut self, random: f64) -> Duration {
        self.tried = 0;
        let jitter = self.backoff.next_pause(random);
        if std::mem::take(&mut self.login_refused) {
            LOGIN_REFUSED_MIN_PAUSE + jitter
        } else {
            jitter
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: f64 = 0.5;

    #[test]
    fn a_round_tries_every_broker_before_it_waits() {
        let mut rota = BrokerFailover::new(3);
        assert_eq!(rota.current(), 0);
        assert_eq!(rota.on_failed(FailureKind::Transient, HALF), Duration::ZERO);
        assert_eq!(rota.current(), 1);
        assert_eq!(rota.on_failed(FailureKind::Transient, HALF), Duration::ZERO);
        assert_eq!(rota.current(), 2);
        assert_eq!(rota.on_failed(FailureKind::Transient, HALF), Duration::from_millis(500));
        assert_eq!(rota.current(), 0);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut rota = BrokerFailover::new(1);
        let pauses: Vec<_> =
            (0..8).map(|_| rota.on_failed(FailureKind::Transient, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_a_stable_session_forgets_the_failures() {
        let mut rota = BrokerFailover::new(1);
        for _ in 0..7 {
            rota.on_failed(FailureKind::Transient, 0.0);
        }
        assert_eq!(
            rota.on_lost(FailureKind::Transient, Duration::from_secs(59), 0.0),
            Duration::from_secs(60)
        );
        assert_eq!(
            rota.on_lost(FailureKind::Transient, Duration::from_secs(60), 0.0),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_stable_session_leads_back_to_the_preferred_broker_and_a_short_one_to_the_next() {
        let mut rota = BrokerFailover::new(3);
        rota.on_lost(FailureKind::Transient, Duration::from_secs(1), HALF);
        assert_eq!(rota.current(), 1);
        rota.on_lost(FailureKind::Transient, Duration::from_secs(3600), HALF);
        assert_eq!(rota.current(), 0);
    }

    #[test]
    fn another_hub_begins_the_choice_at_its_top() {
        let mut rota = BrokerFailover::new(2);
        rota.on_failed(FailureKind::Transient, 0.0);
        rota.reset();
        assert_eq!(rota.current(), 0);
        assert_eq!(rota.on_failed(FailureKind::Transient, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_refused_login_anywhere_in_the_round_waits_a_minute_and_jitter() {
        let mut rota = BrokerFailover::new(2);
        assert_eq!(rota.on_failed(FailureKind::LoginRefused, HALF), Duration::ZERO);
        assert_eq!(rota.on_failed(FailureKind::Transient, HALF), Duration::from_millis(60_500));
        rota.on_failed(FailureKind::Transient, HALF);
        assert_eq!(rota.on_failed(FailureKind::Transient, HALF), Duration::from_secs(1));
        let thrown_out = rota.on_lost(FailureKind::LoginRefused, Duration::from_secs(90), HALF);
        assert_eq!(thrown_out, Duration::from_millis(60_500));
    }
}
