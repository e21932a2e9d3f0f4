//! Brokers that do wrong.

use super::*;
use crate::mock_broker::{Acks, DisconnectKind, Ending, OnConnect, Pings};

const ACKNOWLEDGED_QOS: [Qos; 2] = [Qos::AtLeastOnce, Qos::ExactlyOnce];

#[tokio::test]
async fn a_broker_that_closes_in_the_middle_gets_the_rest_again() {
    for version in BOTH {
        for qos in ACKNOWLEDGED_QOS {
            let closing = Script { ending: Some((50, Ending::Close)), ..Script::default() };
            let mut world = BrokerWorld::start(version, vec![closing, Script::default()]).await;

            let acknowledged = world.deliver_all(200, qos).await;

            assert!(acknowledged.iter().all(|&times| times == 1), "{acknowledged:?}");
            assert_eq!(world.count("delivered"), 200);
            assert!(world.count("interrupted") >= 1);
        }
    }
}

#[tokio::test]
async fn acknowledgements_that_come_with_the_end_are_not_lost() {
    for version in BOTH {
        let closing = Script { ending: Some((6, Ending::Close)), ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![closing, Script::default()]).await;
        world.connected().await;

        for ticket in 1..=6 {
            world.publish(ticket, Qos::AtLeastOnce).await;
        }

        for ticket in 1..=5 {
            assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket }, "{version:?}");
        }
        assert_eq!(world.disconnected().await.0, DisconnectReason::Closed);
        assert_eq!(world.count("interrupted"), 1);
    }
}

#[tokio::test]
async fn a_session_that_the_broker_claims_to_remember_changes_nothing() {
    for version in BOTH {
        let claiming = |ending| Script { session_present: true, ending, ..Script::default() };
        let scripts = vec![claiming(Some((20, Ending::Close))), claiming(None)];
        let mut world = BrokerWorld::start(version, scripts).await;

        assert_eq!(world.deliver_all(100, Qos::AtLeastOnce).await, vec![1; 100]);
    }
}

#[tokio::test]
async fn an_acknowledgement_too_many_costs_the_session_but_no_message() {
    for version in BOTH {
        for qos in ACKNOWLEDGED_QOS {
            let twice = Script { acks: Acks::Twice, ..Script::default() };
            let mut world = BrokerWorld::start(version, vec![twice, Script::default()]).await;
            world.connected().await;

            world.publish(0, qos).await;
            let (reason, sentence, _) = world.disconnected().await;

            assert_eq!(reason, DisconnectReason::Protocol, "{version:?} {qos:?}");
            assert!(sentence.contains("does not keep to MQTT"), "{sentence}");
            world.session = 0;
            assert!(world.deliver_all(20, qos).await.iter().all(|&times| times == 1));
        }
    }
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_is_left_after_half_a_minute() {
    for version in BOTH {
        for qos in ACKNOWLEDGED_QOS {
            let script = Script { acks: Acks::Never, ..Script::default() };
            let mut world = BrokerWorld::start(version, vec![script]).await;
            world.connected().await;
            world.publish(1, qos).await;
            world.next_message().await;
            advance_clock(Duration::from_secs(20)).await;
            assert!(world.events.try_recv().is_err(), "patience lasts longer than this");

            advance_clock(Duration::from_secs(11)).await;

            let (reason, sentence, _) = world.disconnected().await;
            assert_eq!(reason, DisconnectReason::Silent);
            assert!(sentence.ends_with("takes messages but does not acknowledge them"));
            assert_eq!(world.count("interrupted"), 1);
        }
    }
}

#[tokio::test]
async fn a_broker_that_leaves_one_message_out_is_found_out_when_its_number_comes_again() {
    for version in BOTH {
        let script = Script { acks: Acks::NotTheFirst, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![script, Script::default()]).await;

        let acknowledged = world.deliver_all(400, Qos::AtLeastOnce).await;

        assert_eq!(acknowledged, vec![1; 400], "{version:?}");
        assert!(world.count("interrupted") >= 1);
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_ping_is_left() {
    for version in BOTH {
        let script = Script { pings: Pings::Ignore, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![script]).await;
        world.next_connect().await;
        world.connected().await;

        advance_clock(Duration::from_secs(31)).await;
        assert!(matches!(world.broker_events.recv().await, Some(MockBrokerEvent::Pinged)));
        advance_clock(Duration::from_secs(31)).await;

        assert_eq!(world.disconnected().await.0, DisconnectReason::Silent);
    }
}

#[tokio::test]
async fn a_refused_login_waits_a_minute_and_says_so() {
    for (version, code) in [
        (MqttVersion::V311, 0x86),
        (MqttVersion::V311, 0x87),
        (MqttVersion::V5, 0x86),
        (MqttVersion::V5, 0x87),
    ] {
        let refusing = Script { connect: OnConnect::Refuse(code), ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![refusing, Script::default()]).await;

        let (reason, sentence, retry_in) = world.disconnected().await;

        assert_eq!(reason, DisconnectReason::Unauthorized);
        assert!(retry_in >= Duration::from_secs(60), "{retry_in:?}");
        assert!(sentence.contains("refuses"), "{sentence}");
        assert!(sentence.contains("user name"), "{sentence}");
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        world.connected().await;
    }
}

#[tokio::test]
async fn a_broker_of_3_1_1_is_recognised_under_5() {
    let script = Script { connect: OnConnect::RefuseVersion, ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;

    let (reason, sentence, _) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::Refused);
    assert!(sentence.ends_with("try version = \"3.1.1\""), "{sentence}");
}

#[tokio::test]
async fn a_broker_that_hangs_up_or_says_nothing_is_told_apart() {
    for version in BOTH {
        let close = Script { connect: OnConnect::Close, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![close]).await;
        assert_eq!(world.disconnected().await.0, DisconnectReason::Closed);

        let ignore = Script { connect: OnConnect::Ignore, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![ignore]).await;
        world.next_connect().await;
        advance_clock(Duration::from_secs(16)).await;
        assert_eq!(world.disconnected().await.0, DisconnectReason::Silent);
    }
}

#[tokio::test]
async fn a_second_client_with_our_id_is_named_as_the_cause() {
    let script = Script { ending: Some((1, Ending::Disconnect(0x8E))), ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;
    world.publish(1, Qos::AtLeastOnce).await;

    let (reason, sentence, _) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::TakenOver);
    assert!(sentence.starts_with("another client uses the id amsterdam-01"), "{sentence}");
}

#[tokio::test]
async fn refused_messages_of_qos_2_wear_a_session_out_and_a_new_one_starts() {
    let refusing = Script { refused_topics: vec![("topic1".into(), 0x97)], ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![refusing, Script::default()]).await;
    world.connected().await;

    for ticket in 0..65 {
        world.publish(ticket, Qos::ExactlyOnce).await;
        let event = world.event().await;
        assert!(matches!(event, MqttEvent::Refused { code: 0x97, .. }), "{event:?}");
    }
    let (reason, _, retry_in) = world.disconnected().await;

    assert_eq!((reason, retry_in), (DisconnectReason::Renewed, Duration::from_secs(1)));
    assert_eq!(
        world.next_disconnect().await,
        DisconnectKind::Clean,
        "the will must not be published"
    );
    world.session = 0;
    assert_eq!(world.deliver_all(200, Qos::ExactlyOnce).await, vec![1; 200]);
}

#[tokio::test]
async fn a_message_to_us_that_is_too_large_does_not_come_back_for_ever() {
    for version in BOTH {
        let huge = PublishedMessage {
            topic: "a/b".into(),
            payload: vec![b'x'; 2 << 20].into(),
            qos: Qos::AtMostOnce,
            retain: true,
        };
        let script = Script { subscription: 1, after_subscribe: vec![huge], ..Script::default() };
        let mut world = BrokerWorld::start_with(version, vec![script], |settings| {
            settings.subscriptions = vec!["a/#".into()];
        })
        .await;

        let (reason, sentence) = loop {
            match world.event().await {
                MqttEvent::Connected { .. } => {}
                MqttEvent::Disconnected { reason, sentence, .. } => break (reason, sentence),
                other => panic!("{other:?}"),
            }
        };

        assert_eq!(reason, DisconnectReason::TooLarge);
        assert!(sentence.contains("subscriptions pause for 10 minutes"), "{sentence}");
        world.connected().await;
        world.publish(1, Qos::AtLeastOnce).await;
        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });

        world.yield_to_tasks().await;
        advance_clock(Duration::from_secs(601)).await;
        assert_eq!(world.disconnected().await.0, DisconnectReason::Renewed);
        let mut subscriptions = 0;
        while subscriptions < 2 {
            match world.broker_events.recv().await.unwrap() {
                MockBrokerEvent::Subscribed { .. } => subscriptions += 1,
                MockBrokerEvent::Ended { .. } | MockBrokerEvent::Connected(_) => {}
                MockBrokerEvent::Message(_) | MockBrokerEvent::Pinged => {}
            }
        }
    }
}

#[tokio::test]
async fn a_broker_that_throws_us_out_for_lack_of_rights_is_left_alone_for_a_minute() {
    let script = Script { ending: Some((1, Ending::Disconnect(0x87))), ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;
    world.publish(1, Qos::AtLeastOnce).await;

    let (reason, _, retry_in) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::Unauthorized);
    assert!(retry_in >= Duration::from_secs(60), "{retry_in:?}");
}

#[test]
fn a_broker_with_tls_that_closes_at_once_may_want_a_certificate() {
    let mut mqtt = settings(MqttVersion::V5, 8883).mqtt;
    let sentence =
        |mqtt: &Mqtt| SessionFailure::ClosedBeforeConnack.sentence("127.0.0.1:8883", mqtt);
    assert!(sentence(&mqtt).contains("without TLS"));
    mqtt.brokers[0].scheme = Scheme::Mqtts;
    assert!(sentence(&mqtt).contains("this gateway's certificate"), "{}", sentence(&mqtt));
}
