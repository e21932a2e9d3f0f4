//! Faulty brokers.

use super::*;
use crate::mock_broker::{Acks, DisconnectKind, Ending, OnConnect, Pings};

const ACKNOWLEDGED_QOS: [Qos; 2] = [Qos::AtLeastOnce, Qos::ExactlyOnce];

#[tokio::test]
async fn messages_are_sent_again_after_the_broker_closes_the_connection() {
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
async fn acknowledgements_that_arrive_with_the_close_are_not_lost() {
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
async fn a_broker_that_claims_to_resume_the_session_changes_nothing() {
    for version in BOTH {
        let claiming = |ending| Script { session_present: true, ending, ..Script::default() };
        let scripts = vec![claiming(Some((20, Ending::Close))), claiming(None)];
        let mut world = BrokerWorld::start(version, scripts).await;

        assert_eq!(world.deliver_all(100, Qos::AtLeastOnce).await, vec![1; 100]);
    }
}

#[tokio::test]
async fn a_duplicate_acknowledgement_ends_the_session_but_loses_no_message() {
    for version in BOTH {
        for qos in ACKNOWLEDGED_QOS {
            let twice = Script { acks: Acks::Twice, ..Script::default() };
            let mut world = BrokerWorld::start(version, vec![twice, Script::default()]).await;
            world.connected().await;

            world.publish(0, qos).await;
            let (reason, sentence, _) = world.disconnected().await;

            assert_eq!(reason, DisconnectReason::Protocol, "{version:?} {qos:?}");
            assert!(sentence.text.contains("violates the MQTT protocol"), "{sentence}");
            world.session = 0;
            assert!(world.deliver_all(20, qos).await.iter().all(|&times| times == 1));
        }
    }
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_is_disconnected_after_30_s() {
    for version in BOTH {
        for qos in ACKNOWLEDGED_QOS {
            let script = Script { acks: Acks::Never, ..Script::default() };
            let mut world = BrokerWorld::start(version, vec![script]).await;
            world.connected().await;
            world.publish(1, qos).await;
            world.next_message().await;
            advance_clock(Duration::from_secs(20)).await;
            world.yield_to_tasks().await;
            assert!(world.events.try_recv().is_err(), "20 s are below the time-out");

            advance_clock(Duration::from_secs(11)).await;

            let (reason, sentence, _) = world.disconnected().await;
            assert_eq!(reason, DisconnectReason::Silent);
            let text = &sentence.text;
            assert!(text.starts_with("Nothing has come back from the broker"), "{text}");
            assert!(text.ends_with("for 30 s."), "{text}");
            assert_eq!(world.count("interrupted"), 1);
        }
    }
}

#[tokio::test]
async fn a_missing_acknowledgement_is_detected_when_its_packet_id_comes_up_again() {
    for version in BOTH {
        let script = Script { acks: Acks::NotTheFirst, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![script, Script::default()]).await;

        let acknowledged = world.deliver_all(400, Qos::AtLeastOnce).await;

        assert_eq!(acknowledged, vec![1; 400], "{version:?}");
        assert!(world.count("interrupted") >= 1);
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_ping_is_disconnected() {
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
async fn after_a_refused_login_the_client_waits_a_minute() {
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
        assert!(sentence.text.contains("refuses"), "{sentence}");
        assert!(sentence.text.contains("user name"), "{sentence}");
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        world.connected().await;
    }
}

#[tokio::test]
async fn a_broker_for_3_1_1_only_is_recognised_under_5() {
    let script = Script { connect: OnConnect::RefuseVersion, ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;

    let (reason, sentence, _) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::Refused);
    assert!(sentence.text.ends_with("try version = \"3.1.1\"."), "{sentence}");
}

#[tokio::test]
async fn a_broker_that_closes_and_one_that_does_not_answer_are_told_apart() {
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
async fn a_second_client_with_the_same_id_is_named_as_the_cause() {
    let script = Script { ending: Some((1, Ending::Disconnect(0x8E))), ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;
    world.publish(1, Qos::AtLeastOnce).await;

    let (reason, sentence, _) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::TakenOver);
    assert!(
        sentence.text.starts_with("Another client uses the client id amsterdam-01"),
        "{sentence}"
    );
}

#[tokio::test]
async fn refused_messages_of_qos_2_exhaust_a_session_and_a_new_one_starts() {
    let refusing = Script { refused_topics: vec![("topic1".into(), 0x87)], ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![refusing, Script::default()]).await;
    world.connected().await;

    for ticket in 0..65 {
        world.publish(ticket, Qos::ExactlyOnce).await;
        let event = world.event().await;
        assert!(matches!(event, MqttEvent::Refused { code: 0x87, .. }), "{event:?}");
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
async fn an_oversized_incoming_message_does_not_return_for_ever() {
    for version in BOTH {
        let huge = PublishedMessage {
            topic: "a/b".into(),
            payload: vec![b'x'; 2 << 20].into(),
            retain: true,
            ..PublishedMessage::default()
        };
        let script =
            Script { subscription: Some(1), after_subscribe: vec![huge], ..Script::default() };
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
        assert!(sentence.text.contains("subscriptions pause for 10 minutes"), "{sentence}");
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
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn after_a_disconnect_for_missing_rights_the_client_waits_a_minute() {
    let script = Script { ending: Some((1, Ending::Disconnect(0x87))), ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;
    world.publish(1, Qos::AtLeastOnce).await;

    let (reason, _, retry_in) = world.disconnected().await;

    assert_eq!(reason, DisconnectReason::Unauthorized);
    assert!(retry_in >= Duration::from_secs(60), "{retry_in:?}");
}

/// A code that may be different the next time is no refusal.
#[tokio::test]
async fn only_codes_that_stay_refuse_a_message() {
    for qos in ACKNOWLEDGED_QOS {
        for (code, is_final) in [
            (0x80, false),
            (0x83, false),
            (0x87, true),
            (0x90, true),
            (0x91, false),
            (0x97, false),
            (0x99, true),
        ] {
            let refused_topics = vec![("topic1".into(), code)];
            let script = Script { refused_topics, ..Script::default() };
            let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
            world.connected().await;
            world.publish(7, qos).await;
            match world.event().await {
                MqttEvent::Refused { ticket: Some(7), .. } => assert!(is_final, "{code:#x}"),
                MqttEvent::Deferred { ticket: Some(7), .. } => assert!(!is_final, "{code:#x}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_end_that_concerns_no_message_is_told_apart() {
    for (code, reason) in [
        (0x81, DisconnectReason::Closed),
        (0x89, DisconnectReason::Unavailable),
        (0x8B, DisconnectReason::Unavailable),
        (0x8E, DisconnectReason::TakenOver),
        (0x93, DisconnectReason::Unavailable),
        (0x95, DisconnectReason::Closed),
        (0x96, DisconnectReason::Unavailable),
        (0x97, DisconnectReason::Unavailable),
        (0x98, DisconnectReason::Unavailable),
        (0x9C, DisconnectReason::Unavailable),
        (0x9D, DisconnectReason::Unavailable),
        (0x9F, DisconnectReason::Unavailable),
        (0xA0, DisconnectReason::Unavailable),
    ] {
        let script = Script { ending: Some((1, Ending::Disconnect(code))), ..Script::default() };
        let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
        world.connected().await;
        world.publish(1, Qos::AtLeastOnce).await;
        let found = world.disconnected().await.0;
        assert_eq!(found, reason, "{code:#x}");
        assert_eq!(found.may_concern_message(), reason == DisconnectReason::Closed);
    }
}
