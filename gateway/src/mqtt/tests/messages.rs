//! Delivery of messages.

use super::*;
use crate::mock_broker::{Acks, ConnackProperties};

#[tokio::test]
async fn every_quality_of_service_is_acknowledged_once_and_arrives_once() {
    for version in BOTH {
        for qos in ALL_QOS {
            let mut world = BrokerWorld::start(version, vec![]).await;

            let acknowledged = world.deliver_all(300, qos).await;

            assert_eq!(acknowledged, vec![1; 300], "{version:?} {qos:?}");
            for ticket in 0..300 {
                let message = world.next_message().await;
                assert_eq!(message.payload, ticket.to_string());
                assert_eq!((message.qos, message.topic.as_str()), (qos, "topic1"));
            }
            assert_eq!(world.count("delivered"), 300);
        }
    }
}

#[tokio::test]
async fn acknowledgements_may_arrive_late_and_in_reverse_order() {
    for version in BOTH {
        for acks in [Acks::Late(Duration::from_millis(20)), Acks::Reversed(8)] {
            for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let script = Script { acks, ..Script::default() };
                let mut world = BrokerWorld::start(version, vec![script]).await;
                assert_eq!(world.deliver_all(256, qos).await, vec![1; 256], "{version:?} {acks:?}");
                assert_eq!(world.count("interrupted"), 0);
            }
        }
    }
}

#[tokio::test]
async fn a_message_for_an_old_session_is_discarded() {
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![]).await;
    world.connected().await;

    world.send(OutgoingMessage { session: 7, ..outgoing(1, Qos::AtLeastOnce) }).await;
    world.publish(2, Qos::AtLeastOnce).await;

    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 2 });
    assert_eq!(world.next_message().await.payload, "2");
}

#[tokio::test]
async fn a_refused_topic_is_reported_with_the_standards_name() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let script = Script { refused_topics: vec![("topic1".into(), 0x87)], ..Script::default() };
        let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
        world.connected().await;

        world.publish(1, qos).await;

        let refused = MqttEvent::Refused {
            ticket: Some(1),
            topic: "topic1".into(),
            code: 0x87,
            reason: "not authorized".into(),
        };
        assert_eq!(world.event().await, refused);
        assert_eq!((world.count("refused"), world.count("delivered")), (1, 0));
    }
}

#[tokio::test]
async fn an_invalid_topic_is_refused_by_the_client() {
    for version in BOTH {
        for topic in ["", "a/#", "a/+/b"] {
            let mut world = BrokerWorld::start(version, vec![]).await;
            world.connected().await;

            world
                .send(OutgoingMessage { topic: topic.into(), ..outgoing(1, Qos::AtLeastOnce) })
                .await;

            let event = world.event().await;
            assert!(matches!(event, MqttEvent::Refused { code: 0x90, .. }), "{event:?}");
        }
    }
}

#[tokio::test]
async fn the_client_refuses_a_message_above_the_brokers_limit_and_sends_one_at_the_limit() {
    let limits = ConnackProperties { max_packet: Some(200), ..ConnackProperties::default() };
    let mut world =
        BrokerWorld::start(MqttVersion::V5, vec![Script { connack: limits, ..Script::default() }])
            .await;
    let (_, max_payload) = world.connected().await;
    let capacity = max_payload.unwrap() - "topic1".len();

    for (ticket, length) in [(1, capacity + 1), (2, capacity)] {
        let message = outgoing(ticket, Qos::AtLeastOnce);
        world.send(OutgoingMessage { payload: vec![b'x'; length], ..message }).await;
    }

    let event = world.event().await;
    assert!(matches!(event, MqttEvent::Refused { ticket: Some(1), code: 0x95, .. }), "{event:?}");
    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 2 });
    assert_eq!(world.next_message().await.payload.len(), capacity);
}

#[tokio::test]
async fn a_large_message_is_sent_to_a_broker_without_a_limit() {
    for version in BOTH {
        let mut world = BrokerWorld::start(version, vec![]).await;
        assert_eq!(world.connected().await.1, None);

        let message = outgoing(1, Qos::AtLeastOnce);
        world.send(OutgoingMessage { payload: vec![b'x'; 3 << 20], ..message }).await;

        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
        assert_eq!(world.next_message().await.payload.len(), 3 << 20);
    }
}

#[tokio::test]
async fn features_that_the_broker_lacks_are_not_requested() {
    let limits = ConnackProperties {
        max_qos: Some(1),
        retain_available: Some(0),
        ..ConnackProperties::default()
    };
    let mut world =
        BrokerWorld::start(MqttVersion::V5, vec![Script { connack: limits, ..Script::default() }])
            .await;
    world.connected().await;

    world.send(OutgoingMessage { retain: true, ..outgoing(1, Qos::ExactlyOnce) }).await;

    let message = world.next_message().await;
    assert_eq!((message.qos, message.retain), (Qos::AtLeastOnce, false));
    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
}

#[tokio::test]
async fn retain_and_untracked_messages_arrive() {
    for version in BOTH {
        let mut world = BrokerWorld::start(version, vec![]).await;
        world.connected().await;

        let message = outgoing(1, Qos::AtLeastOnce);
        world.send(OutgoingMessage { ticket: None, retain: true, ..message }).await;
        world.publish(2, Qos::AtLeastOnce).await;

        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 2 });
        assert!(world.next_message().await.retain);
        assert!(!world.next_message().await.retain);
        assert_eq!(world.count("delivered"), 2);
    }
}

#[tokio::test]
async fn at_most_half_of_the_brokers_receive_maximum_is_in_flight() {
    let limits = ConnackProperties { receive_max: Some(8), ..ConnackProperties::default() };
    let script = Script { connack: limits, acks: Acks::Never, ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;

    for ticket in 0..20 {
        world.publish(ticket, Qos::AtLeastOnce).await;
    }
    for _ in 0..4 {
        world.next_message().await;
    }
    advance_clock(Duration::from_secs(31)).await;

    assert_eq!(world.disconnected().await.0, DisconnectReason::Silent);
    assert_eq!(world.count("interrupted"), 4);
}

#[tokio::test]
async fn an_acknowledgement_of_another_session_changes_nothing() {
    for version in BOTH {
        let mut world = BrokerWorld::start(version, vec![]).await;
        world.connected().await;

        world.acknowledge(DeliveryTag::unknown(7)).await;
        world.publish(1, Qos::AtLeastOnce).await;

        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    }
}
