//! Promise 2: a sample is delivered, stored, or counted as dropped with a reason; a receiver can
//! check this by `seq`.
#![expect(clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{
    Capture, EVENT_TIMEOUT, Gateway, GatewayConfig, Message, Mosquitto, PlcConfig, Pymodbus,
    RECOVERY_TIMEOUT, STOP_TIMEOUT, SampleCounts, Subscriber,
};
use provisioning::plc::Table;
use serde_json::Value;

fn counter(name: &str, plc: &Pymodbus) -> PlcConfig {
    PlcConfig::new(name, "M241", plc.address()).tag("count", "%MW10", "UINT")
}

fn config(broker: &Mosquitto) -> GatewayConfig {
    GatewayConfig::with_broker("g", broker.url())
}

fn scanned(plc: &Pymodbus) -> PlcConfig {
    counter("p", plc).scan(Duration::from_millis(50))
}

/// The register that the tag `count` shows.
const COUNT: u16 = 10;

/// Returns whether produced = delivered + stored + dropped.
fn balanced(gateway: &Gateway) -> bool {
    let SampleCounts { produced, delivered, stored, dropped } = SampleCounts::of(gateway);
    produced == delivered + stored + dropped
}

/// Returns the number of samples in the gap events of these messages.
fn announced(messages: &[Message]) -> f64 {
    let gaps = messages.iter().map(Message::json).filter(|body| body["event"] == "gap");
    gaps.filter_map(|body| body["samples"].as_f64()).sum()
}

/// Collects messages up to the one with this value.
fn collect(subscriber: &Subscriber, value: u16) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = subscriber.next(RECOVERY_TIMEOUT);
        let is_last = message.json()["count"] == value;
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

fn survives_a_restart(mut broker: Mosquitto) {
    let mut plc = Pymodbus::start();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");
    let gateway = Gateway::start_ready(config(&broker).plc(scanned(&plc)));
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    gateway.feed(&mut plc, COUNT, 1..20);

    let mut messages = collect(&consumer, 19);
    broker.stop();
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up < 1.0);
    gateway.feed(&mut plc, COUNT, 20..40);
    drop(consumer);
    // A broker without persistence drops the first messages unless the consumer subscribes before
    // the gateway connects.
    gateway.pause();
    broker.start_again();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");
    gateway.resume();
    gateway.wait_for_metric("edge_mqtt_connected", RECOVERY_TIMEOUT, |up| up > 0.0);
    gateway.feed(&mut plc, COUNT, 40..60);
    messages.extend(collect(&consumer, 59));

    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    assert_eq!(gateway.metric("edge_samples_dropped_total{reason=\"full\"}"), Some(0.0));
    let mut values: Vec<u64> =
        messages.iter().filter_map(|message| message.json()["count"].as_u64()).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, (0..60).collect::<Vec<u64>>(), "every value arrived");
}

#[test]
fn a_restart_of_a_broker_without_persistence_loses_nothing_within_the_bound() {
    survives_a_restart(Mosquitto::start());
}

#[test]
fn a_restart_of_a_persistent_broker_loses_nothing_within_the_bound() {
    survives_a_restart(Mosquitto::builder().persistent().start());
}

#[test]
fn dropped_samples_are_counted_and_announced_and_the_audit_agrees() {
    let (mut plc, mut broker) = (Pymodbus::start(), Mosquitto::builder().persistent().start());
    let consumer = broker.subscribe_persistent("consumer", "edge/g/#");
    // A wide record fills the queue sooner than many narrow ones.
    let wide = scanned(&plc).words(100..300);
    let config = config(&broker).set("queue.max_size", "64KiB").plc(wide);
    let gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    gateway.feed(&mut plc, COUNT, 1..5);
    let mut messages = collect(&consumer, 4);

    broker.stop();
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up < 1.0);
    gateway.feed(&mut plc, COUNT, 5..60);
    let dropped = gateway.metric("edge_samples_dropped_total{reason=\"full\"}").expect("is there");
    assert!(dropped > 0.0, "the bound was too wide to test anything");
    broker.start_again();
    gateway.wait_for_metric("edge_mqtt_connected", RECOVERY_TIMEOUT, |up| up > 0.0);
    messages.extend(collect(&consumer, 59));
    // The last drops are announced after the last value.
    let dropped =
        || gateway.metric("edge_samples_dropped_total{reason=\"full\"}").expect("is there");
    while announced(&messages) < dropped() {
        messages.push(consumer.next(EVENT_TIMEOUT));
    }

    // What was no longer in memory comes after what was.
    let mut audit = Capture::of(&messages).audit();
    while !audit.0 {
        let next = consumer.try_next(EVENT_TIMEOUT);
        let is_last = next.is_none();
        messages.extend(next);
        audit = Capture::of(&messages).audit();
        assert!(!is_last, "{}", audit.1);
    }
    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    let data = messages.iter().filter(|message| message.topic.contains("/data/"));
    let (is_clean, report) = Capture::of(data).audit();
    assert!(!is_clean, "without the event the same loss is unaccounted for: {report}");
}

#[test]
fn stopping_delivers_every_sample() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let consumer = broker.subscribe("edge/g/data/#");
    let mut gateway = Gateway::start_ready(config(&broker).plc(scanned(&plc)));
    gateway.feed(&mut plc, COUNT, 1..30);

    let (status, log) = gateway.terminate(STOP_TIMEOUT);

    assert!(status.success(), "{}", log.text());
    collect(&consumer, 29);
}

#[test]
fn a_topic_that_the_broker_refuses_is_reported_and_blocks_no_other() {
    let mut plc = Pymodbus::start();
    plc.set_registers(Table::HoldingRegister, 10, &[1]);
    let broker = Mosquitto::builder()
        .user("g", "secret")
        .acl("user g\ntopic write edge/g/status\ntopic write edge/g/event\ntopic write allowed")
        .start();
    let dir = e2e::temp_dir();
    let password = dir.write_private("password", "secret\n");
    let events = broker.subscribe("edge/g/event");
    let allowed = broker.subscribe("allowed");
    let config = config(&broker)
        .set("mqtt.username", "g")
        .set("mqtt.password_file", password)
        .set("publish.heartbeat", "1s")
        .plc(counter("p", &plc))
        .plc(counter("q", &plc).set("publish.topic", "allowed"));
    let gateway = Gateway::start_ready(config);

    allowed.next(EVENT_TIMEOUT);
    gateway.wait_for_metric("edge_samples_dropped_total{reason=\"refused\"}", EVENT_TIMEOUT, |n| {
        n > 0.0
    });
    let event = events.next(EVENT_TIMEOUT).json();

    assert_eq!((&event["event"], &event["reason"]), (&Value::from("gap"), &Value::from("refused")));
    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    let status = gateway.get("/status").body.to_lowercase();
    assert!(status.contains("refuse") && status.contains("edge/g/data/p"), "{status}");
}

#[test]
fn a_wrong_password_is_reported_and_not_printed() {
    let plc = Pymodbus::start();
    let broker = Mosquitto::builder().user("g", "right").start();
    let dir = e2e::temp_dir();
    let config = config(&broker)
        .set("mqtt.username", "g")
        .set("mqtt.password_file", dir.write_private("password", "wrong"))
        .plc(scanned(&plc));
    let gateway = Gateway::start_ready(config);

    let line = gateway.log().wait_for_line("password", EVENT_TIMEOUT).expect("the log reports it");

    assert!(!line.contains("wrong\""), "the password is in the log: {line}");
    let status = gateway.get("/status").body;
    assert!(status.contains("password"), "{status}");
}
