//! How sessions start and end without faults.

use super::*;
use crate::logging::CapturedLog;
use crate::mock_broker::{Acks, ConnackProperties, DisconnectKind, OnConnect, SessionStart};

#[tokio::test]
async fn connect_carries_the_configured_values() {
    for version in BOTH {
        let mut world = BrokerWorld::start(version, vec![]).await;

        let connect = world.next_connect().await;

        let expected = ConnectInfo {
            client_id: "amsterdam-01".into(),
            version,
            keep_alive: 30,
            start: SessionStart::Clean,
            session_expiry: 0,
            receive_max: (version == MqttVersion::V5).then_some(16),
            username: Some("user".into()),
            password: Some("secret".into()),
            will: Some(will()),
        };
        assert_eq!(connect, expected);
        let (broker, _) = world.connected().await;
        assert!(broker.starts_with("127.0.0.1:"));
        assert_eq!(world.metrics.mqtt.connected.get(), 1);
    }
}

#[tokio::test]
async fn a_corrected_password_is_used_at_the_next_attempt() {
    for version in BOTH {
        let path = std::env::temp_dir().join(format!("edge-corrected-{}", fastrand::u64(..)));
        let write = |password: &str| {
            std::fs::write(&path, password).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("wrong\n");
        let refuse = OnConnect::Refuse(reason_code::BAD_USER_NAME_OR_PASSWORD);
        let refusing = Script { connect: refuse, ..Script::default() };
        let scripts = vec![refusing, Script::default()];
        let mut world = BrokerWorld::start_with(version, scripts, |settings| {
            let file = PasswordFile::from_argument(&path).unwrap();
            settings.mqtt.credentials.as_mut().unwrap().password = Some(file);
        })
        .await;
        let (reason, sentence, retry_in) = world.disconnected().await;
        assert_eq!(reason, DisconnectReason::Unauthorized, "{sentence}");

        std::fs::remove_file(&path).unwrap();
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        let (_, sentence, retry_in) = world.disconnected().await;
        assert!(sentence.text.contains("there is no such file"), "{sentence}");

        write("right\n");
        world.yield_to_tasks().await;
        advance_clock(retry_in).await;
        world.connected().await;
        let connect = loop {
            if let MockBrokerEvent::Connected(connect) = world.broker_events.recv().await.unwrap() {
                break connect;
            }
        };
        assert_eq!(connect.password.as_deref(), Some("right"));
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn keep_alive_zero_is_sent_as_zero() {
    let mut world = BrokerWorld::start_with(MqttVersion::V311, vec![], |settings| {
        settings.mqtt.keep_alive = Duration::ZERO;
    })
    .await;

    assert_eq!(world.next_connect().await.keep_alive, 0);

    world.connected().await;
    advance_clock(Duration::from_secs(3600)).await;
    world.publish(1, Qos::AtLeastOnce).await;
    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    assert!(
        matches!(world.broker_events.recv().await, Some(MockBrokerEvent::Message(_))),
        "not even a ping"
    );
}

#[tokio::test]
async fn a_keep_alive_below_rumqttcs_minimum_is_raised() {
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.mqtt.keep_alive = Duration::from_secs(1);
    })
    .await;

    assert_eq!(world.next_connect().await.keep_alive, 5);
}

#[tokio::test]
async fn a_broker_without_keep_alive_gets_no_flood_of_pings() {
    let limits = ConnackProperties { keep_alive: Some(0), ..ConnackProperties::default() };
    let mut world =
        BrokerWorld::start(MqttVersion::V5, vec![Script { connack: limits, ..Script::default() }])
            .await;

    assert_eq!(world.deliver_all(200, Qos::AtLeastOnce).await, vec![1; 200]);
    world.finish().await;

    let mut pings = 0;
    while let Some(event) = world.broker_events.recv().await {
        match event {
            MockBrokerEvent::Pinged => pings += 1,
            MockBrokerEvent::Ended { .. } => break,
            _ => {}
        }
    }
    assert!(pings <= 1, "{pings} pings");
}

#[tokio::test]
async fn the_brokers_keep_alive_is_used() {
    let limits = ConnackProperties { keep_alive: Some(7), ..ConnackProperties::default() };
    let mut world =
        BrokerWorld::start(MqttVersion::V5, vec![Script { connack: limits, ..Script::default() }])
            .await;
    world.next_connect().await;
    world.connected().await;

    advance_clock(Duration::from_secs(8)).await;

    assert!(matches!(world.broker_events.recv().await, Some(MockBrokerEvent::Pinged)));
}

#[tokio::test]
async fn a_closed_outbox_waits_for_acknowledgements_and_sends_disconnect() {
    for version in BOTH {
        for qos in ALL_QOS {
            let acks = Acks::Late(Duration::from_millis(30));
            let mut world =
                BrokerWorld::start(version, vec![Script { acks, ..Script::default() }]).await;
            world.connected().await;

            for ticket in 0..10 {
                world.publish(ticket, qos).await;
            }
            world.finish().await;

            for ticket in 0..10 {
                assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket });
            }
            assert_eq!(world.next_disconnect().await, DisconnectKind::Clean, "{version:?} {qos:?}");
            assert_eq!(world.metrics.mqtt.connected.get(), 0);
        }
    }
}

#[tokio::test]
async fn a_drain_without_acknowledgements_times_out_and_sends_disconnect() {
    for version in BOTH {
        let script = Script { acks: Acks::Never, ..Script::default() };
        let mut world = BrokerWorld::start(version, vec![script]).await;
        world.connected().await;
        world.publish(1, Qos::AtLeastOnce).await;
        world.next_message().await;

        world.outbox = None;
        world.yield_to_tasks().await;
        advance_clock(Duration::from_secs(6)).await;
        world.finish().await;

        assert_eq!(world.next_disconnect().await, DisconnectKind::Clean);
        assert_eq!(world.count("interrupted"), 1);
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_disconnect_is_reported() {
    let log = CapturedLog::default();
    let _captured = log.capture();
    let script = Script { acks: Acks::Never, ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.connected().await;
    world.publish(1, Qos::AtLeastOnce).await;
    world.next_message().await;
    world.outbox = None;
    world.yield_to_tasks().await;

    world.stop.cancel();
    world.finish().await;

    let said = "ended before DISCONNECT was sent: the broker will publish the will";
    assert_eq!(log.text().matches(said).count(), 1, "{}", log.text());
}

#[tokio::test]
async fn a_stop_closes_at_once_without_a_disconnect() {
    for version in BOTH {
        let mut world = BrokerWorld::start(version, vec![]).await;
        world.next_connect().await;
        world.connected().await;

        world.publish(1, Qos::AtLeastOnce).await;
        world.next_message().await;

        world.stop_client.cancel();
        (&mut world.client).await.unwrap();

        assert_eq!(world.next_disconnect().await, DisconnectKind::Unclean);
        assert_eq!(world.metrics.mqtt.connected.get(), 0);
        assert_eq!(world.count("interrupted") + world.count("delivered"), 1);
    }
}

#[tokio::test]
async fn a_closed_outbox_ends_the_wait_for_the_next_attempt() {
    let script = Script { connect: OnConnect::Refuse(0x86), ..Script::default() };
    let mut world = BrokerWorld::start(MqttVersion::V5, vec![script]).await;
    world.disconnected().await;

    world.finish().await;
}

#[tokio::test]
async fn the_next_broker_is_tried_without_a_pause() {
    let dead = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        let address = HostPort { host: dead.ip().to_string(), port: dead.port() };
        settings.mqtt.brokers.insert(0, Broker { scheme: Scheme::Mqtt, address });
    })
    .await;

    let (reason, sentence, retry_in) = world.disconnected().await;

    assert_eq!((reason, retry_in), (DisconnectReason::Unreachable, Duration::ZERO));
    assert!(sentence.text.contains(&format!("{dead} refuses the connection")), "{sentence}");
    assert_ne!(world.connected().await.0, dead.to_string());
}

#[tokio::test]
async fn subscriptions_are_made_before_the_session_is_reported() {
    for version in BOTH {
        let message = PublishedMessage {
            topic: "edge/a/set/p".into(),
            payload: "{}".into(),
            retain: true,
            ..PublishedMessage::default()
        };
        let script =
            Script { subscription: Some(1), after_subscribe: vec![message], ..Script::default() };
        let mut world = BrokerWorld::start_with(version, vec![script], |settings| {
            settings.subscriptions = vec!["edge/a/set/#".into(), "edge/b/#".into()];
        })
        .await;

        world.connected().await;

        world.next_connect().await;
        let Some(MockBrokerEvent::Subscribed { filters }) = world.broker_events.recv().await else {
            panic!("no subscription")
        };
        assert_eq!(filters, ["edge/a/set/#", "edge/b/#"]);
        let received = IncomingMessage {
            topic: "edge/a/set/p".into(),
            payload: b"{}".to_vec(),
            retain: true,
            ..IncomingMessage::default()
        };
        assert_eq!(world.event().await, MqttEvent::Received(received));
    }
}

#[tokio::test]
async fn a_refused_subscription_is_reported_and_the_session_continues() {
    for (version, code, name) in
        [(MqttVersion::V311, 0x80, "unspecified error"), (MqttVersion::V5, 0x87, "not authorized")]
    {
        let script = Script { subscription: Some(code), ..Script::default() };
        let mut world = BrokerWorld::start_with(version, vec![script], |settings| {
            settings.subscriptions = vec!["a/#".into()];
        })
        .await;

        let event =
            MqttEvent::SubscriptionRefused { filter: "a/#".into(), code, reason: name.into() };
        world.connected().await;
        assert_eq!(world.event().await, event);
        world.publish(1, Qos::AtLeastOnce).await;
        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    }
}
