//! Where a copy of the reply to a command goes: the Response Topic of MQTT 5.

use std::collections::BTreeSet;

use thiserror::Error;

/// A Response Topic that a reply may be published on, with the Correlation Data of the command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyTo {
    topic: String,
    correlation_data: Option<Vec<u8>>,
}

/// The topics on which a gateway publishes, other than those of replies: a reply must not imitate
/// its messages.
#[derive(Clone, Debug)]
pub struct OwnTopics {
    gateway_id: String,
    others: BTreeSet<String>,
}

impl OwnTopics {
    /// Returns the topics of the gateway with this id: those below `edge/{gateway}`, and `others`
    /// from its configuration.
    pub fn new(gateway_id: &str, others: impl IntoIterator<Item = String>) -> Self {
        Self { gateway_id: gateway_id.to_owned(), others: others.into_iter().collect() }
    }

    /// Returns whether a topic is one of them: one of the configuration, `edge/{gateway}` itself,
    /// or below it and not below `reply`.
    fn contains(&self, topic: &str) -> bool {
        let mut levels = topic.split('/');
        let is_below = levels.next() == Some("edge") && levels.next() == Some(&self.gateway_id);
        let is_reply = levels.next() == Some("reply") && levels.next().is_some();
        self.others.contains(topic) || is_below && !is_reply
    }
}

/// Why a reply goes to `reply/{plc}` alone.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ReplyToError {
    /// It has no byte, a wildcard, or a control character (MQTT 5.0, 4.7.1 and 1.5.4).
    #[error("no copy of this reply: the Response Topic is not a topic name")]
    NotATopicName,
    /// It is longer than [`ReplyTo::MAX_TOPIC_LEN`].
    #[error("no copy of this reply: the Response Topic has more than 256 bytes")]
    TopicTooLong,
    /// It begins with `$`: a topic of the broker itself (MQTT 5.0, 4.7.2).
    #[error("no copy of this reply: the Response Topic begins with $")]
    BrokerTopic,
    /// It is one of [`OwnTopics`].
    #[error(
        "no copy of this reply: the Response Topic is one of this gateway, and not below reply"
    )]
    OwnTopic,
    /// It is longer than [`ReplyTo::MAX_CORRELATION_LEN`].
    #[error("no copy of this reply: the Correlation Data has more than 256 bytes")]
    CorrelationTooLong,
}

impl ReplyTo {
    /// Longest Response Topic, in bytes.
    pub const MAX_TOPIC_LEN: usize = 256;
    /// Longest Correlation Data, in bytes.
    pub const MAX_CORRELATION_LEN: usize = 256;

    /// Checks what a command states (MQTT 5.0, 3.3.2.3.5 and 3.3.2.3.6).
    ///
    /// # Errors
    /// When no reply may be published there.
    pub fn new(
        own: &OwnTopics,
        topic: String,
        correlation_data: Option<Vec<u8>>,
    ) -> Result<Self, ReplyToError> {
        if topic.len() > Self::MAX_TOPIC_LEN {
            return Err(ReplyToError::TopicTooLong);
        }
        if topic.is_empty() || topic.chars().any(|c| c == '+' || c == '#' || c.is_control()) {
            return Err(ReplyToError::NotATopicName);
        }
        if topic.starts_with('$') {
            return Err(ReplyToError::BrokerTopic);
        }
        if own.contains(&topic) {
            return Err(ReplyToError::OwnTopic);
        }
        if correlation_data.as_ref().is_some_and(|data| data.len() > Self::MAX_CORRELATION_LEN) {
            return Err(ReplyToError::CorrelationTooLong);
        }
        Ok(Self { topic, correlation_data })
    }

    /// Returns the topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the Correlation Data.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.correlation_data.as_deref()
    }

    /// Returns topic name and Correlation Data.
    #[must_use]
    pub fn into_parts(self) -> (String, Option<Vec<u8>>) {
        (self.topic, self.correlation_data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The topics of a gateway `a` that publishes on `topic1`, with a will on `M262`.
    fn own() -> OwnTopics {
        OwnTopics::new("a", ["topic1", "M262"].map(str::to_owned))
    }

    #[test]
    fn a_reply_never_goes_to_a_topic_of_the_gateway() {
        for own_level in
            ["", "/set/pump6", "/data/pump6", "/event", "/status", "/offer", "/", "/reply"]
        {
            let topic = format!("edge/a{own_level}");
            assert_eq!(ReplyTo::new(&own(), topic.clone(), None), Err(ReplyToError::OwnTopic));
        }
        for configured in ["topic1", "M262"] {
            let found = ReplyTo::new(&own(), configured.to_owned(), None);
            assert_eq!(found, Err(ReplyToError::OwnTopic), "{configured}");
        }
        for other in [
            "edge/a/reply/x",
            "edge/a/reply/",
            "edge/ab/set/x",
            "edge",
            "/edge/a/set/x",
            "topic1/x",
            "topic",
        ] {
            assert_eq!(ReplyTo::new(&own(), other.to_owned(), None).unwrap().topic(), other);
        }
    }

    #[test]
    fn what_is_no_topic_name_is_refused() {
        for (topic, error) in [
            ("", ReplyToError::NotATopicName),
            ("a/+/b", ReplyToError::NotATopicName),
            ("a/#", ReplyToError::NotATopicName),
            ("a\0b", ReplyToError::NotATopicName),
            ("a\nb", ReplyToError::NotATopicName),
            ("$SYS/x", ReplyToError::BrokerTopic),
            ("$share/g/x", ReplyToError::BrokerTopic),
        ] {
            assert_eq!(ReplyTo::new(&own(), topic.to_owned(), None), Err(error), "{topic:?}");
        }
    }

    #[test]
    fn both_lengths_have_a_limit() {
        let new = |topic: usize, data: usize| {
            ReplyTo::new(&own(), "x".repeat(topic), Some(vec![0; data])).map(|_| ())
        };
        assert_eq!(new(256, 256), Ok(()));
        assert_eq!(new(257, 0), Err(ReplyToError::TopicTooLong));
        assert_eq!(new(1, 257), Err(ReplyToError::CorrelationTooLong));
    }

    proptest! {
        /// Topics of few levels from few words, so that each case comes up often.
        #[test]
        fn a_topic_is_accepted_exactly_if_it_keeps_every_rule(
            levels in prop::collection::vec(
                prop::sample::select(vec![
                    "edge", "a", "b", "reply", "set", "topic1", "+", "#", "$", "",
                ]),
                1..7,
            ),
            data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) {
            let topic = levels.join("/");
            let below_own = topic == "edge/a" || topic.starts_with("edge/a/");
            let is_fine = !topic.is_empty()
                && !topic.contains(['+', '#'])
                && !topic.starts_with('$')
                && topic != "topic1"
                && (!below_own || topic.starts_with("edge/a/reply/"))
                && data.as_ref().is_none_or(|data| data.len() <= 256);
            let found = ReplyTo::new(&own(), topic.clone(), data.clone());
            prop_assert_eq!(found.is_ok(), is_fine, "{}", topic);
            if let Ok(found) = found {
                prop_assert_eq!(found.into_parts(), (topic, data));
            }
        }

        #[test]
        fn any_text_is_judged_without_a_panic(gateway in ".*", topic in ".*") {
            if let Ok(found) = ReplyTo::new(&OwnTopics::new(&gateway, []), topic, None) {
                prop_assert!((1..=256).contains(&found.topic().len()));
            }
        }
    }
}
