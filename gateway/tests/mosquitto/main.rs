//! The client against Mosquitto, a broker from another project. Needs the Debian packages
//! `mosquitto` and `mosquitto-clients`.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "test code may stop on the spot"
)]

mod broker;
mod client;
mod same_messages;
mod wire;

use broker::{Mosquitto, Subscriber};
use client::{Client, settings};
use gateway::mqtt::{DisconnectReason, MqttEvent};
use provisioning::config::{MqttVersion, Qos};

const BOTH: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];
const ACKNOWLEDGED: [Qos; 2] = [Qos::AtLeastOnce, Qos::ExactlyOnce];

#[tokio::test]
async fn two_thousand_messages_are_acknowledged_once_and_arrive_once() {
    let broker = Mosquitto::start("");
    for version in BOTH {
        for qos in ACKNOWLEDGED {
            let mut subscriber = Subscriber::start(&broker, "topic1");
            let mut client = Client::start(settings(version, broker.port));

            let acknowledged = client.deliver(2000, qos, |_| ()).await;

            assert_eq!(acknowledged, vec![1; 2000], "{version:?} {qos:?}");
            let expected: Vec<_> = (0..2000).map(|ticket| ticket.to_string()).collect();
            assert_eq!(subscriber.take(2000), expected, "{version:?} {qos:?}");
        }
    }
}

#[tokio::test]
async fn a_broker_killed_in_between_gets_every_unacknowledged_message_again() {
    for version in BOTH {
        for qos in ACKNOWLEDGED {
            let mut broker = Mosquitto::start("");
            let mut client = Client::start(settings(version, broker.port));

            let acknowledged = client
                .deliver(2000, qos, |count| {
                    if count == 700 || count == 1400 {
                        broker.kill();
                        broker.restart();
                    }
                })
                .await;

            assert!(acknowledged.iter().all(|&times| times >= 1), "{version:?} {qos:?}");
            assert_eq!(client.sessions, 3);
        }
    }
}

#[tokio::test]
async fn a_topic_refused_by_the_acl_is_reported_under_mqtt_5_only() {
    let broker = Mosquitto::start("acl_file ACL");
    for qos in ACKNOWLEDGED {
        let mut client = Client::start(settings(MqttVersion::V5, broker.port));
        client.connected().await;
        client.publish(1, "forbidden/topic", qos).await;
        let refused = MqttEvent::Refused {
            ticket: Some(1),
            topic: "forbidden/topic".into(),
            code: 0x87,
            reason: "not authorized".into(),
        };
        assert_eq!(client.event().await, refused);
        client.publish(2, "topic1", qos).await;
        assert_eq!(client.event().await, MqttEvent::Acknowledged { ticket: 2 });
    }

    let mut client = Client::start(settings(MqttVersion::V311, broker.port));
    client.connected().await;
    client.publish(1, "forbidden/topic", Qos::AtLeastOnce).await;
    assert_eq!(client.event().await, MqttEvent::Acknowledged { ticket: 1 }, "why 5 is the default");
}

#[tokio::test]
async fn a_second_gateway_with_the_same_id_is_named_as_a_possible_cause() {
    let broker = Mosquitto::start("");
    let mut first = Client::start(settings(MqttVersion::V5, broker.port));
    first.connected().await;
    let mut second = Client::start(settings(MqttVersion::V5, broker.port));
    second.connected().await;

    let (reason, sentence) = first.disconnected().await;

    // Mosquitto 2.0.11 closes the first connection without a DISCONNECT; others send one with 0x8E.
    assert!(matches!(reason, DisconnectReason::Closed | DisconnectReason::TakenOver), "{reason:?}");
    assert!(sentence.contains("uses the client id amsterdam-01"), "{sentence}");
}

#[tokio::test]
async fn a_wrong_password_is_reported() {
    let broker = Mosquitto::start("allow_anonymous false");
    for version in BOTH {
        let mut client = Client::start(settings(version, broker.port));
        let (reason, sentence) = client.disconnected().await;
        assert_eq!(reason, DisconnectReason::Unauthorized, "{sentence}");
    }
}

#[tokio::test]
async fn the_brokers_packet_limit_is_observed() {
    let broker = Mosquitto::start("max_packet_size 1000");
    let mut client = Client::start(settings(MqttVersion::V5, broker.port));
    assert_eq!(client.connected().await, Some(990));

    client.publish_payload(1, "topic1", vec![b'x'; 985]).await;
    client.publish_payload(2, "topic1", vec![b'x'; 984]).await;

    let event = client.event().await;
    assert!(matches!(event, MqttEvent::Refused { ticket: Some(1), code: 0x95, .. }), "{event:?}");
    assert_eq!(client.event().await, MqttEvent::Acknowledged { ticket: 2 });
}

#[tokio::test]
async fn the_will_is_published_after_a_stop_and_not_after_a_disconnect() {
    let broker = Mosquitto::start("");
    for version in BOTH {
        let mut subscriber = Subscriber::start(&broker, "#");
        let mut client = Client::start(settings(version, broker.port));
        client.connected().await;
        client.disconnect().await;

        let mut client = Client::start(settings(version, broker.port));
        client.connected().await;
        client.publish(1, "topic1", Qos::AtLeastOnce).await;
        client.event().await;
        client.stop().await;

        assert_eq!(subscriber.take(2), ["1", "Disconnected"]);
    }
}

#[tokio::test]
async fn messages_for_the_client_arrive() {
    let broker = Mosquitto::start("");
    for version in BOTH {
        let mut listening = settings(version, broker.port);
        listening.mqtt.client_id = "listener".into();
        listening.subscriptions = vec!["topic1".into()];
        let mut listener = Client::start(listening);
        listener.connected().await;
        let mut client = Client::start(settings(version, broker.port));

        client.deliver(200, Qos::AtLeastOnce, |_| ()).await;

        for ticket in 0..200 {
            match listener.event().await {
                MqttEvent::Received(message) => {
                    assert_eq!(message.payload, ticket.to_string().into_bytes());
                }
                other => panic!("{other:?} instead of a message"),
            }
        }
    }
}
