//! What the client learned about the broker that it connects to: how to ask so that the broker
//! accepts. Pure.

use std::time::Duration;

use provisioning::config::{Lower, MqttVersion, Qos, Will};
use tokio::time::Instant;

use super::failure::SessionFailure;
use super::reason_code;

/// A broker that does not support MQTT 5 is asked again after this time: it may have been updated.
const VERSION_RETRY: Duration = Duration::from_hours(24);

/// What a CONNECT asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ConnectRequest {
    /// Protocol version.
    pub(super) version: MqttVersion,
    /// The will.
    pub(super) will: Option<Will>,
}

/// What the broker has said that it does not support. Forgotten when another broker is tried.
#[derive(Debug)]
pub(super) struct BrokerTraits {
    policy: ConnectPolicy,
    /// Number of the broker in the configuration.
    broker: usize,
    /// When it said that it does not support MQTT 5.
    only_v3_since: Option<Instant>,
    refuses_retain: bool,
    refuses_qos: bool,
}

/// What the configuration allows to ask for.
#[derive(Clone, Debug)]
pub(super) struct ConnectPolicy {
    /// The only version; `None` for 5 or what the broker supports.
    pub(super) version: Option<MqttVersion>,
    pub(super) will: Option<Will>,
    /// What of the will may be lowered.
    pub(super) lower_will: Lower,
}

impl BrokerTraits {
    pub(super) const fn new(policy: ConnectPolicy) -> Self {
        Self { policy, broker: 0, only_v3_since: None, refuses_retain: false, refuses_qos: false }
    }

    /// Returns what to ask this broker for.
    pub(super) fn request(&mut self, broker: usize, now: Instant) -> ConnectRequest {
        if broker != self.broker {
            *self = Self { broker, ..Self::new(self.policy.clone()) };
        }
        if self.version_retry_at().is_some_and(|at| at <= now) {
            self.only_v3_since = None;
        }
        let automatic =
            if self.only_v3_since.is_some() { MqttVersion::V311 } else { MqttVersion::V5 };
        let will = self.policy.will.clone().map(|will| Will {
            retain: will.retain && !self.refuses_retain,
            qos: if self.refuses_qos { Qos::AtMostOnce } else { will.qos },
            ..will
        });
        ConnectRequest { version: self.policy.version.unwrap_or(automatic), will }
    }

    /// Learns from a refused request. Returns whether the broker can be asked for less at once.
    pub(super) fn on_refused(
        &mut self,
        request: &ConnectRequest,
        failure: &SessionFailure,
        now: Instant,
    ) -> bool {
        if failure.is_version_refused() && self.policy.version.is_none() {
            let was_v5 = request.version == MqttVersion::V5;
            self.only_v3_since = was_v5.then_some(now);
            return was_v5;
        }
        let (SessionFailure::Connack(said), Some(will)) = (failure, &request.will) else {
            return false;
        };
        let lower = self.policy.lower_will;
        match said.code {
            reason_code::RETAIN_NOT_SUPPORTED if will.retain && lower.retain => {
                self.refuses_retain = true;
            }
            reason_code::QOS_NOT_SUPPORTED if will.qos != Qos::AtMostOnce && lower.qos => {
                self.refuses_qos = true;
            }
            _ => return false,
        }
        true
    }

    /// Returns when MQTT 5 is to be tried again; `None` unless the broker refused it.
    pub(super) fn version_retry_at(&self) -> Option<Instant> {
        self.only_v3_since.map(|since| since + VERSION_RETRY)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::mqtt::reason_code::BrokerReason;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn only_the_brokers_own_word_leads_to_3_1_1() {
        let now = Instant::now();
        let refused = || SessionFailure::Connack(BrokerReason::bare(0x84));
        for (failure, expected) in [
            (SessionFailure::AnswersV3, MqttVersion::V311),
            (refused(), MqttVersion::V311),
            (SessionFailure::ClosedBeforeConnack, MqttVersion::V5),
            (SessionFailure::NoConnack, MqttVersion::V5),
            (SessionFailure::Broken(io::ErrorKind::ConnectionReset.into()), MqttVersion::V5),
            (SessionFailure::Connack(BrokerReason::bare(0x82)), MqttVersion::V5),
        ] {
            let mut traits = BrokerTraits::new(rules(None, Lower::default()));
            let request = traits.request(0, now);
            assert_eq!(request.version, MqttVersion::V5);
            let is_retried = traits.on_refused(&request, &failure, now);
            assert_eq!(is_retried, expected == MqttVersion::V311, "{failure:?}");
            assert_eq!(traits.request(0, now).version, expected, "{failure:?}");
        }
        let mut fixed = BrokerTraits::new(rules(Some(MqttVersion::V5), Lower::default()));
        let request = fixed.request(0, now);
        assert!(!fixed.on_refused(&request, &refused(), now));
        assert_eq!(fixed.request(0, now).version, MqttVersion::V5);
    }

    #[test]
    fn version_5_is_tried_again_after_a_day_and_after_another_broker() {
        let start = Instant::now();
        let learned = || {
            let mut traits = BrokerTraits::new(rules(None, Lower::default()));
            let request = traits.request(0, start);
            assert!(traits.on_refused(&request, &SessionFailure::AnswersV3, start));
            traits
        };
        let mut traits = learned();
        assert_eq!(traits.version_retry_at(), Some(start + 24 * HOUR));
        assert_eq!(traits.request(0, start + 23 * HOUR).version, MqttVersion::V311);
        assert_eq!(traits.request(0, start + 24 * HOUR).version, MqttVersion::V5);
        let mut traits = learned();
        assert_eq!(traits.request(1, start).version, MqttVersion::V5);
        assert_eq!(traits.request(0, start).version, MqttVersion::V5);
    }

    #[test]
    fn a_broker_that_refuses_both_versions_is_not_asked_without_end() {
        let now = Instant::now();
        let mut traits = BrokerTraits::new(rules(None, Lower::default()));
        let refused = SessionFailure::Connack(BrokerReason::bare(0x84));
        let first = traits.request(0, now);
        assert!(traits.on_refused(&first, &refused, now));
        let second = traits.request(0, now);
        assert_eq!(second.version, MqttVersion::V311);
        assert!(!traits.on_refused(&second, &refused, now));
        assert_eq!(traits.request(0, now).version, MqttVersion::V5);
    }

    #[test]
    fn a_will_is_lowered_only_where_that_is_allowed() {
        let now = Instant::now();
        for (code, lower) in
            [(0x9A, Lower { qos: false, retain: true }), (0x9B, Lower { qos: true, retain: false })]
        {
            let refused = SessionFailure::Connack(BrokerReason::bare(code));
            let mut traits = BrokerTraits::new(rules(None, lower));
            let request = traits.request(0, now);
            assert!(traits.on_refused(&request, &refused, now));
            let lowered = traits.request(0, now);
            let will = lowered.will.clone().unwrap();
            assert_eq!((will.retain, will.qos != Qos::AtMostOnce), (code == 0x9B, code == 0x9A));
            assert!(!traits.on_refused(&lowered, &refused, now), "asked for less only once");

            let mut strict = BrokerTraits::new(rules(None, Lower::default()));
            let request = strict.request(0, now);
            assert!(!strict.on_refused(&request, &refused, now));
            assert_eq!(strict.request(0, now), request);
        }
    }

    fn rules(version: Option<MqttVersion>, lower_will: Lower) -> ConnectPolicy {
        let will = Will {
            topic: "t".to_owned(),
            payload: "offline".to_owned(),
            qos: Qos::AtLeastOnce,
            retain: true,
        };
        ConnectPolicy { version, will: Some(will), lower_will }
    }
}
