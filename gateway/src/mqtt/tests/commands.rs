//! What arrives on subscriptions: acknowledgements, and the session that the broker keeps.

use super::*;
use crate::mock_broker::{Ending, MessageProperties, SessionStart};

const FILTER: &str = "edge/amsterdam-01/set/+";
const TOPIC: &str = "edge/amsterdam-01/set/pump6";

fn kept(settings: &mut ClientSettings) {
    settings.subscriptions = vec![FILTER.to_owned()];
    settings.persistence = SessionPersistence::Persistent { expiry: Duration::from_hours(24) };
}

fn command(payload: &str) -> PublishedMessage {
    PublishedMessage {
        topic: TOPIC.to_owned(),
        payload: payload.to_owned().into(),
        qos: Qos::AtLeastOnce,
        ..PublishedMessage::default()
    }
}

/// Returns a script that closes the connection over the first message of the client.
fn closing() -> Script {
    Script { ending: Some((1, Ending::Close)), ..Script::default() }
}

impl BrokerWorld {
    /// Waits for a session and returns whether the broker had kept it.
    async fn session_present(&mut self) -> bool {
        match self.event().await {
            MqttEvent::Connected { session_present, .. } => session_present,
            other => panic!("{other:?} instead of a session"),
        }
    }

    async fn received(&mut self) -> IncomingMessage {
        match self.event().await {
            MqttEvent::Received(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Ends the session over a message, and advances to the next attempt.
    async fn lose_session(&mut self) {
        self.publish(99, Qos::AtLeastOnce).await;
        let (_, _, retry_in) = self.disconnected().await;
        self.yield_to_tasks().await;
        advance_clock(retry_in).await;
    }

    async fn next_broker_event(&mut self, matches: impl Fn(&MockBrokerEvent) -> bool) {
        while !matches(&self.broker_events.recv().await.expect("the broker runs")) {}
    }

    /// Waits until the client has received everything that the broker had sent before.
    async fn settle(&mut self) {
        self.publish(7, Qos::AtLeastOnce).await;
        assert_eq!(self.event().await, MqttEvent::Acknowledged { ticket: 7 });
    }
}

#[tokio::test]
async fn a_persistent_session_is_requested_only_with_subscriptions() {
    for version in BOTH {
        let mut world = BrokerWorld::start_with(version, vec![], kept).await;
        let connect = world.next_connect().await;
        assert_eq!(connect.start, SessionStart::Resume);
        let is_v5 = version == MqttVersion::V5;
        assert_eq!(connect.session_expiry, if is_v5 { 86_400 } else { 0 });
        assert_eq!(connect.receive_max, is_v5.then_some(16));
        assert!(!world.session_present().await);

        // A configuration in which nothing may be written any more.
        world
            .restart(version, |settings| {
                kept(settings);
                settings.subscriptions.clear();
            })
            .await;
        assert!(!world.session_present().await);
        world.restart(version, kept).await;
        assert!(!world.session_present().await, "the broker has forgotten the session");
    }
}

#[tokio::test]
async fn a_command_comes_again_until_the_caller_acknowledges_it() {
    for version in BOTH {
        let scripts = vec![closing(), closing(), Script::default()];
        let mut world = BrokerWorld::start_with(version, scripts, kept).await;
        assert!(!world.session_present().await);
        world.broker.publish(command("1"));
        let first = world.received().await;
        assert!(!first.dup && first.delivery.is_some());

        world.lose_session().await;
        assert!(world.session_present().await);
        let second = world.received().await;
        assert!(second.dup, "{version:?}");
        assert_eq!(second.payload, b"1");
        world.acknowledge(first.delivery.unwrap()).await;
        world.acknowledge(second.delivery.unwrap()).await;
        world.acknowledge(second.delivery.unwrap()).await;
        world.next_broker_event(|event| matches!(event, MockBrokerEvent::Acknowledged)).await;

        world.lose_session().await;
        assert!(world.session_present().await);
        world.settle().await;
    }
}

#[tokio::test]
async fn commands_that_waited_at_the_broker_arrive_in_order_with_the_word_that_they_may_be_old() {
    for version in BOTH {
        let mut world = BrokerWorld::start_with(version, vec![closing()], kept).await;
        world.session_present().await;
        world.publish(99, Qos::AtLeastOnce).await;
        let (_, _, retry_in) = world.disconnected().await;
        for number in 0..30 {
            world.broker.publish(command(&number.to_string()));
        }
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;

        assert!(world.session_present().await);
        for number in 0..30 {
            let message = world.received().await;
            assert_eq!(message.payload, number.to_string().into_bytes(), "{version:?}");
            world.acknowledge(message.delivery.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn without_acknowledgements_the_broker_stops_at_the_receive_maximum() {
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], kept).await;
    world.session_present().await;
    for number in 0..40 {
        world.broker.publish(command(&number.to_string()));
    }
    let mut unacknowledged = Vec::new();
    for _ in 0..16 {
        unacknowledged.extend(world.received().await.delivery);
    }
    world.settle().await;
    for tag in unacknowledged {
        world.acknowledge(tag).await;
    }
    assert_eq!(world.received().await.payload, b"16");
}

/// rumqttc would send what was in flight again if the broker had kept the session, in addition to
/// the caller.
#[tokio::test]
async fn a_persistent_session_does_not_double_the_messages_of_the_gateway() {
    for version in BOTH {
        let closing = Script { ending: Some((50, Ending::Close)), ..Script::default() };
        let scripts = vec![closing.clone(), closing, Script::default()];
        let mut world = BrokerWorld::start_with(version, scripts, kept).await;

        let acknowledged = world.deliver_all(200, Qos::AtLeastOnce).await;
        world.finish().await;

        assert_eq!(acknowledged, vec![1; 200], "{version:?}");
        let mut arrived = 0;
        while let Ok(event) = world.broker_events.try_recv() {
            arrived += u64::from(matches!(event, MockBrokerEvent::Message(_)));
        }
        assert!(arrived <= 200 + world.count("interrupted"), "{arrived}");
    }
}

#[tokio::test]
async fn with_acknowledgement_on_receipt_nothing_comes_again() {
    for version in BOTH {
        let mut world = BrokerWorld::start_with(version, vec![closing()], |settings| {
            kept(settings);
            settings.acknowledgements = Acknowledgements::OnReceipt;
        })
        .await;
        world.session_present().await;
        world.broker.publish(command("1"));
        assert_eq!(world.received().await.delivery, None);
        world.next_broker_event(|event| matches!(event, MockBrokerEvent::Acknowledged)).await;
    }
}

#[tokio::test]
async fn properties_of_a_command_arrive_and_a_reply_carries_its_correlation_data() {
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], kept).await;
    world.session_present().await;
    let properties = MessageProperties {
        expiry_seconds: Some(20),
        response_topic: Some("replies/7".to_owned()),
        correlation_data: Some(vec![0, 1, 255].into()),
    };
    world.broker.publish(PublishedMessage { properties, ..command("{}") });

    let message = world.received().await;

    assert_eq!(message.response_topic.as_deref(), Some("replies/7"));
    assert_eq!(message.correlation_data.as_deref(), Some(&[0, 1, 255][..]));
    assert!(message.expires_in.is_some_and(|left| left <= Duration::from_secs(20)));
    let reply = OutgoingMessage {
        session: world.session,
        correlation_data: message.correlation_data,
        ..outgoing(1, Qos::AtLeastOnce)
    };
    world.send(reply).await;
    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    let arrived = world.next_message().await;
    assert_eq!(arrived.properties.correlation_data.as_deref(), Some(&[0, 1, 255][..]));
}

#[tokio::test]
async fn an_old_subscription_of_a_persistent_session_is_removed_and_loses_no_command() {
    for version in BOTH {
        for old in ["edge/old-name/set/+", "edge/#", "#"] {
            let mut world = BrokerWorld::start_with(version, vec![], |settings| {
                kept(settings);
                settings.subscriptions = vec![old.to_owned()];
            })
            .await;
            world.session_present().await;
            world.restart(version, kept).await;
            assert!(world.session_present().await);

            world.broker.publish(PublishedMessage {
                topic: "edge/old-name/set/pump6".to_owned(),
                ..command("foreign")
            });
            world
                .next_broker_event(|event| {
                    matches!(event, MockBrokerEvent::Unsubscribed { filters } if filters == &[old])
                })
                .await;
            world.broker.publish(PublishedMessage {
                topic: "edge/old-name/set/pump6".to_owned(),
                ..command("foreign")
            });
            world.broker.publish(command("own"));

            let message = world.received().await;
            assert_eq!((message.topic.as_str(), &*message.payload), (TOPIC, &b"own"[..]), "{old}");
        }
    }
}

#[tokio::test]
async fn a_subscription_that_cannot_be_unsubscribed_ends_the_persistent_session_once() {
    for version in BOTH {
        let script = Script {
            keeps_subscriptions: true,
            auto_subscriptions: vec!["old/#".to_owned()],
            ..Script::default()
        };
        let mut world = BrokerWorld::start_with(version, vec![script], kept).await;
        world.session_present().await;
        let unsolicited = || PublishedMessage { topic: "old/x".to_owned(), ..command("foreign") };
        world.broker.publish(unsolicited());
        world
            .next_broker_event(
                |event| matches!(event, MockBrokerEvent::Unsubscribed { filters } if filters == &["#"]),
            )
            .await;
        world.settle().await;
        advance_clock(Duration::from_secs(31)).await;
        world.broker.publish(unsolicited());

        let (reason, sentence, retry_in) = world.disconnected().await;
        assert_eq!(
            (reason, sentence.detail.code.as_str()),
            (DisconnectReason::Renewed, "foreign_subscription")
        );
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        assert!(!world.session_present().await, "{version:?}");
        if version == MqttVersion::V311 {
            let (_, sentence, _) = world.disconnected().await;
            assert_eq!(sentence.detail.code, "kept_session_ended");
            assert!(!world.session_present().await);
        }
        world.broker.publish(unsolicited());
        world.broker.publish(command("own"));
        let own = world.received().await;
        assert_eq!(own.payload, b"own");
        world.acknowledge(own.delivery.unwrap()).await;
        world.settle().await;
        advance_clock(Duration::from_secs(31)).await;
        world.broker.publish(unsolicited());
        // The first one may be answered before a disconnect, the second one is not.
        world.settle().await;
        world.settle().await;
    }
}

/// Without its acknowledgement, the broker would send the command again, and the PLC might be
/// written to twice.
#[tokio::test]
async fn an_orderly_renewal_waits_until_the_caller_has_acknowledged() {
    for version in BOTH {
        let mut uplink = None;
        let mut world = BrokerWorld::start_with(version, vec![], |settings| {
            kept(settings);
            uplink = Some(settings.uplink.clone());
        })
        .await;
        let uplink = uplink.unwrap();
        world.session_present().await;
        world.broker.publish(command("1"));
        let held = world.received().await;

        uplink.request_renewal();
        world.yield_to_tasks().await;
        world.acknowledge(held.delivery.unwrap()).await;

        let (reason, _, retry_in) = world.disconnected().await;
        assert_eq!(reason, DisconnectReason::Renewed);
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        assert!(world.session_present().await);
        world.settle().await;

        world.broker.publish(command("2"));
        world.received().await;
        uplink.request_renewal();
        world.yield_to_tasks().await;
        advance_clock(Duration::from_secs(5)).await;
        let (reason, _, retry_in) = world.disconnected().await;
        assert_eq!(reason, DisconnectReason::Renewed, "it does not wait for ever");
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        assert!(world.session_present().await);
        let again = world.received().await;
        assert_eq!((again.payload.as_slice(), again.dup), (&b"2"[..], true));
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_does_not_come_back_with_a_persistent_session() {
    for version in BOTH {
        let mut world = BrokerWorld::start_with(version, vec![], kept).await;
        assert_eq!(world.next_connect().await.start, SessionStart::Resume);
        world.session_present().await;
        world
            .broker
            .publish(PublishedMessage { payload: vec![b'x'; 2 << 20].into(), ..command("") });
        let (reason, _, retry_in) = world.disconnected().await;
        assert_eq!(reason, DisconnectReason::TooLarge);
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;

        assert!(!world.session_present().await);
        world.settle().await;
    }
}
