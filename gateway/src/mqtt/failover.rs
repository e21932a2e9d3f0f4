//! Selects the next broker to try, and the pause before. Pure.

use std::time::Duration;

use crate::schedule::{RetryBackoff, RetryPolicy};

/// Upper bound of the random pause after the first failure.
const FIRST_MAX_PAUSE: Duration = Duration::from_secs(1);
/// Upper bound of any random pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Full jitter, so that gateways that lost the same broker do not all reconnect at once.
pub const RECONNECT: RetryPolicy = RetryPolicy::full_jitter(FIRST_MAX_PAUSE, MAX_PAUSE);
/// A session of at least this length clears the failures before it.
const STABLE_SESSION: Duration = Duration::from_secs(60);
/// Minimum pause after a refused login: a password is not corrected within seconds, and a fleet of
/// gateways that retries faster is an attack on the broker.
const LOGIN_REFUSED_MIN_PAUSE: Duration = Duration::from_secs(60);

/// Kind of connection failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FailureKind {
    /// May be over soon.
    Transient,
    /// The broker rejected the credentials.
    LoginRefused,
}

/// Selects among the brokers, in the order of the configuration.
///
/// One round tries every broker once, without a pause in between; a pause follows a round in which
/// all failed. After a stable session the order starts at the first broker again; a shorter one
/// counts as a failed attempt, so the next broker follows.
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

    /// Returns the index of the broker to try.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Records a failed attempt and returns the pause before the next. `random` is in `[0, 1)`.
    pub(super) fn on_failed(&mut self, setback: FailureKind, random: f64) -> Duration {
        self.advance();
        self.tried += 1;
        self.login_refused |= setback == FailureKind::LoginRefused;
        if self.tried < self.brokers {
            return Duration::ZERO;
        }
        self.next_pause(random)
    }

    /// Records the end of an established session and returns the pause before the next attempt.
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

    /// Starts again at the first broker, with all failures forgotten: another hub may reach other
    /// brokers.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.brokers);
    }

    fn advance(&mut self) {
        self.current = (self.current + 1) % self.brokers.max(1);
    }

    /// Ends the round. Returns the pause after it: random, plus [`LOGIN_REFUSED_MIN_PAUSE`] if a
    /// login was refused in it.
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
    use proptest::prelude::*;

    use super::*;

    const HALF: f64 = 0.5;

    #[test]
    fn a_round_tries_every_broker_before_the_pause() {
        let mut failover = BrokerFailover::new(3);
        assert_eq!(failover.current(), 0);
        assert_eq!(failover.on_failed(FailureKind::Transient, HALF), Duration::ZERO);
        assert_eq!(failover.current(), 1);
        assert_eq!(failover.on_failed(FailureKind::Transient, HALF), Duration::ZERO);
        assert_eq!(failover.current(), 2);
        assert_eq!(failover.on_failed(FailureKind::Transient, HALF), Duration::from_millis(500));
        assert_eq!(failover.current(), 0);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut failover = BrokerFailover::new(1);
        let pauses: Vec<_> =
            (0..8).map(|_| failover.on_failed(FailureKind::Transient, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_a_stable_session_clears_the_failures() {
        let mut failover = BrokerFailover::new(1);
        for _ in 0..7 {
            failover.on_failed(FailureKind::Transient, 0.0);
        }
        assert_eq!(
            failover.on_lost(FailureKind::Transient, Duration::from_secs(59), 0.0),
            Duration::from_secs(60)
        );
        assert_eq!(
            failover.on_lost(FailureKind::Transient, Duration::from_secs(60), 0.0),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_stable_session_returns_to_the_first_broker_and_a_short_one_moves_to_the_next() {
        let mut failover = BrokerFailover::new(3);
        failover.on_lost(FailureKind::Transient, Duration::from_secs(1), HALF);
        assert_eq!(failover.current(), 1);
        failover.on_lost(FailureKind::Transient, Duration::from_secs(3600), HALF);
        assert_eq!(failover.current(), 0);
    }

    #[test]
    fn another_hub_starts_at_the_first_broker() {
        let mut failover = BrokerFailover::new(2);
        failover.on_failed(FailureKind::Transient, 0.0);
        failover.reset();
        assert_eq!(failover.current(), 0);
        assert_eq!(failover.on_failed(FailureKind::Transient, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_refused_login_in_a_round_adds_a_minute_to_the_random_pause() {
        let mut failover = BrokerFailover::new(2);
        assert_eq!(failover.on_failed(FailureKind::LoginRefused, HALF), Duration::ZERO);
        assert_eq!(failover.on_failed(FailureKind::Transient, HALF), Duration::from_millis(60_500));
        failover.on_failed(FailureKind::Transient, HALF);
        assert_eq!(failover.on_failed(FailureKind::Transient, HALF), Duration::from_secs(1));
        let disconnected =
            failover.on_lost(FailureKind::LoginRefused, Duration::from_secs(90), HALF);
        assert_eq!(disconnected, Duration::from_millis(60_500));
    }

    /// Returns how many of a fleet connect in each tenth of a second from the moment in which all
    /// lose the broker, if it does not return within `seconds`.
    fn attempts(fleet: u32, seconds: usize, seed: u64) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut counts = vec![0; seconds * 10];
        for _ in 0..fleet {
            let mut failover = BrokerFailover::new(1);
            let lasted = STABLE_SESSION;
            let mut at = failover.on_lost(FailureKind::Transient, lasted, random.f64());
            while let Some(count) = counts.get_mut(usize::try_from(at.as_millis() / 100).unwrap()) {
                *count += 1;
                at += failover.on_failed(FailureKind::Transient, random.f64());
            }
        }
        counts
    }

    /// Returns the largest sum of ten neighbours.
    fn most_in_a_second(counts: &[u32]) -> u32 {
        counts.windows(10).map(|second| second.iter().sum()).max().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn gateways_that_lose_their_broker_together_do_not_return_together(seed: u64) {
            const FLEET: u32 = 2_000;
            let counts = attempts(FLEET, 600, seed);
            // From seconds after the loss on: the share of the fleet that one second sees.
            for (from, percent) in [(2, 60), (10, 25), (30, 10), (120, 8)] {
                let most = most_in_a_second(&counts[from * 10..]);
                prop_assert!(most * 100 < FLEET * percent, "{most} of {FLEET} from {from} s on");
            }
            // At once, too, they are spread over a second.
            let most = counts.iter().copied().max().unwrap();
            prop_assert!(most * 100 < FLEET * 25, "{most} of {FLEET} in a tenth of a second");
        }
    }
}
