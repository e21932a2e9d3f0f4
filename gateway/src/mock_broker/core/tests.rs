//! Times, limits and take-overs, which a comparison with Mosquitto would take too long to show.

use std::time::Duration;

use provisioning::config::{MqttVersion, Will};

use super::*;
use crate::mock_broker::{Access, AccessRule, MessageProperties};

const SECOND: Duration = Duration::from_secs(1);

fn connect(client: &str, start: SessionStart, session_expiry: u32) -> ConnectInfo {
    ConnectInfo {
        client_id: client.to_owned(),
        version: MqttVersion::V5,
        keep_alive: 30,
        start,
        session_expiry,
        receive_max: None,
        username: Some(client.to_owned()),
        password: None,
        will: None,
    }
}

fn message(topic: &str, qos: Qos) -> PublishedMessage {
    PublishedMessage {
        topic: topic.to_owned(),
        payload: "x".into(),
        qos,
        ..PublishedMessage::default()
    }
}

/// Returns the messages that a connection is to send, with their DUP flag.
fn sent(core: &mut BrokerCore, connection: ConnectionId) -> Vec<(PublishedMessage, bool)> {
    let mut messages = Vec::new();
    for output in core.take_outputs(connection, Instant::now()) {
        if let Output::Send(Reply::Publish { message, dup, .. }) = output {
            messages.push((message, dup));
        }
    }
    messages
}

/// Connects `a` as 1 and `b` as 2; `b` subscribes to everything at QoS 1 in a persistent session.
fn publisher_and_subscriber(now: Instant) -> BrokerCore {
    let mut core = BrokerCore::default();
    core.on_connect(1, &connect("a", SessionStart::Clean, 0), now);
    core.on_connect(2, &connect("b", SessionStart::Resume, 60), now);
    assert_eq!(core.on_subscribe(2, &[("#".to_owned(), Qos::AtLeastOnce)]), [1]);
    core
}

#[test]
fn a_persistent_session_stores_messages_until_it_expires() {
    let start = Instant::now();
    for (away, is_kept) in [(59 * SECOND, true), (60 * SECOND, false)] {
        let mut core = publisher_and_subscriber(start);
        core.on_closed(2, DisconnectKind::Clean, start);
        core.on_publish(1, 1, &message("t", Qos::AtLeastOnce), start);
        core.on_publish(1, 0, &message("t", Qos::AtMostOnce), start);

        let back = start + away;
        let is_present = core.on_connect(3, &connect("b", SessionStart::Resume, 60), back);
        core.resume(3, back);

        assert_eq!(is_present, is_kept);
        assert_eq!(sent(&mut core, 3).len(), usize::from(is_kept), "QoS 0 is not stored");
    }
}

#[test]
fn a_message_expires_and_carries_the_rest_of_its_time() {
    let start = Instant::now();
    for (away, left) in [(SECOND, Some(9)), (10 * SECOND, None)] {
        let mut core = publisher_and_subscriber(start);
        core.on_closed(2, DisconnectKind::Clean, start);
        let properties =
            MessageProperties { expiry_seconds: Some(10), ..MessageProperties::default() };
        let expiring = PublishedMessage { properties, ..message("t", Qos::AtLeastOnce) };
        core.on_publish(1, 1, &expiring, start);

        core.on_connect(3, &connect("b", SessionStart::Resume, 60), start + away);
        core.resume(3, start + away);

        let found = sent(&mut core, 3);
        let found = found.first().map(|(message, _)| message.properties.expiry_seconds);
        assert_eq!(found, left.map(Some));
    }
}

#[test]
fn what_was_not_acknowledged_is_marked_when_sent_again() {
    let now = Instant::now();
    let mut core = publisher_and_subscriber(now);
    core.on_publish(1, 1, &message("t", Qos::AtLeastOnce), now);
    assert!(!sent(&mut core, 2)[0].1);
    core.on_closed(2, DisconnectKind::Unclean, now);
    core.on_connect(3, &connect("b", SessionStart::Resume, 60), now);
    core.resume(3, now);
    assert!(sent(&mut core, 3)[0].1);
    core.on_acked(3, 1, now);
    core.on_closed(3, DisconnectKind::Unclean, now);
    core.on_connect(4, &connect("b", SessionStart::Resume, 60), now);
    core.resume(4, now);
    assert!(sent(&mut core, 4).is_empty());
}

#[test]
fn a_second_client_with_the_same_id_takes_over_and_the_will_is_published() {
    let now = Instant::now();
    let mut core = publisher_and_subscriber(now);
    let will =
        Will { topic: "will".into(), payload: "gone".into(), qos: Qos::AtLeastOnce, retain: false };
    let with_will = ConnectInfo { will: Some(will), ..connect("c", SessionStart::Clean, 0) };
    core.on_connect(3, &with_will, now);
    core.on_connect(4, &connect("c", SessionStart::Clean, 0), now);

    let outputs = core.take_outputs(3, now);
    assert!(matches!(outputs[0], Output::Send(Reply::Disconnect(SESSION_TAKEN_OVER))));
    assert!(matches!(outputs[1], Output::Close));
    assert_eq!(sent(&mut core, 2)[0].0.topic, "will");
    core.on_closed(3, DisconnectKind::Unclean, now);
    assert_eq!(
        core.on_publish(4, 1, &message("t", Qos::AtLeastOnce), now),
        PublishOutcome::Accepted
    );
}

#[test]
fn few_messages_are_unacknowledged_and_many_are_dropped() {
    let now = Instant::now();
    let mut core = publisher_and_subscriber(now);
    for packet_id in 1..=5_000 {
        core.on_publish(1, packet_id, &message("t", Qos::AtLeastOnce), now);
    }
    assert_eq!(sent(&mut core, 2).len(), 20);
    let mut received = 20;
    for packet_id in 1..=u16::MAX {
        core.on_acked(2, packet_id, now);
        received += sent(&mut core, 2).len();
    }
    assert_eq!(received, 1_020);
}

#[test]
fn messages_for_a_client_that_does_not_read_are_dropped_and_the_others_arrive_in_order() {
    let now = Instant::now();
    let mut core = publisher_and_subscriber(now);
    core.on_subscribe(2, &[("#".to_owned(), Qos::AtMostOnce)]);
    for number in 0..5_000 {
        core.on_publish(1, 0, &message(&format!("t/{number}"), Qos::AtMostOnce), now);
    }
    let first = sent(&mut core, 2);
    assert_eq!(first.len(), MAX_WAITING, "the connection holds no more");
    let rest = sent(&mut core, 2);
    assert_eq!(rest.len(), MAX_WAITING, "as many had waited");
    let topics = first.iter().chain(&rest).map(|(message, _)| message.topic.clone());
    assert!(topics.eq((0..2_000).map(|number| format!("t/{number}"))));
    assert!(sent(&mut core, 2).is_empty());
    core.on_publish(1, 0, &message("next", Qos::AtMostOnce), now);
    assert_eq!(sent(&mut core, 2)[0].0.topic, "next", "it reads again");
}

#[test]
fn the_access_list_holds_for_publishing_receiving_and_retained_messages() {
    let now = Instant::now();
    let rule = |user: &str, access, filter: &str| AccessRule {
        user: Some(user.to_owned()),
        access,
        filter: filter.to_owned(),
    };
    let mut core = BrokerCore::new(AccessList(vec![
        rule("a", Access::Write, "data/#"),
        rule("b", Access::ReadWrite, "data/#"),
        rule("b", Access::Deny, "data/secret"),
    ]));
    core.on_connect(1, &connect("a", SessionStart::Clean, 0), now);
    core.on_connect(2, &connect("b", SessionStart::Clean, 0), now);
    let filter = [("#".to_owned(), Qos::AtMostOnce)];
    core.on_subscribe(1, &filter);
    core.on_subscribe(2, &filter);
    let publish = |core: &mut BrokerCore, connection, topic: &str| {
        let retained = PublishedMessage { retain: true, ..message(topic, Qos::AtMostOnce) };
        core.on_publish(connection, 0, &retained, now)
    };
    assert_eq!(publish(&mut core, 1, "other"), PublishOutcome::Refused(NOT_AUTHORIZED));
    assert_eq!(publish(&mut core, 2, "data/secret"), PublishOutcome::Refused(NOT_AUTHORIZED));
    assert_eq!(publish(&mut core, 1, "data/secret"), PublishOutcome::Accepted);
    assert_eq!(publish(&mut core, 1, "data/x"), PublishOutcome::Accepted);
    assert_eq!(sent(&mut core, 1).len(), 0);
    assert_eq!(sent(&mut core, 2).len(), 1);
    core.send_retained(2, &filter, now);
    let retained = sent(&mut core, 2);
    assert_eq!(retained.len(), 1);
    assert!(retained[0].0.retain && retained[0].0.topic == "data/x");
}

#[test]
fn sessions_and_retained_messages_have_a_limit() {
    let now = Instant::now();
    let mut core = BrokerCore::default();
    for number in 0..1_000 {
        let client = format!("c{number}");
        core.on_connect(number, &connect(&client, SessionStart::Resume, 3_600), now);
        core.on_closed(number, DisconnectKind::Clean, now + Duration::from_millis(number));
    }
    assert_eq!(core.sessions.len(), MAX_SESSIONS);
    assert!(core.sessions.contains_key("c999") && !core.sessions.contains_key("c0"));
    core.on_connect(5_000, &connect("p", SessionStart::Clean, 0), now);
    for number in 0..MAX_RETAINED + 10 {
        let retained =
            PublishedMessage { retain: true, ..message(&format!("t/{number}"), Qos::AtMostOnce) };
        core.on_publish(5_000, 0, &retained, now);
    }
    assert_eq!(core.retained.len(), MAX_RETAINED);
    let cleared = PublishedMessage {
        payload: Default::default(),
        retain: true,
        ..message("t/1", Qos::AtMostOnce)
    };
    core.on_publish(5_000, 0, &cleared, now);
    assert_eq!(core.retained.len(), MAX_RETAINED - 1);
}
