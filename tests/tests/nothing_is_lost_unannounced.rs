//! Promise 2: a sample that was taken is delivered, stored, or counted as dropped with a reason; a
//! receiver can check it by `seq`.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::fmt::Write as _;
use std::time::Duration;

use e2e::{Capture, Gateway, Message, Mosquitto, Pymodbus, Subscriber};
use provisioning::plc::Table;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(40);

fn config(broker: &str, plc: &Pymodbus, more: &str) -> String {
    format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{broker}\"]\n{more}\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\nscan = \"50ms\"\n\
         [[plc.tag]]\nname = \"count\"\nat = \"%MW10\"\ntype = \"UINT\"\n",
        plc.address()
    )
}

/// Lets the value change, so that every one of these cycles has something to publish.
fn count(plc: &mut Pymodbus, gateway: &Gateway, from: u16, to: u16) {
    for value in from..to {
        let before = gateway.metric("edge_samples_produced_total").expect("is there");
        plc.set_registers(Table::HoldingRegister, 10, &[value]);
        gateway.wait_for_metric("edge_samples_produced_total", SOON, |now| now > before);
    }
}

fn balanced(gateway: &Gateway) -> bool {
    // One scrape, so that the figures belong together.
    let text = gateway.get("/metrics").body;
    let sum = |name: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let kept = sum("edge_samples_delivered_total") + sum("edge_samples_stored");
    sum("edge_samples_produced_total") == kept + sum("edge_samples_dropped_total")
}

/// Samples that the gap events among these messages name.
fn announced(messages: &[Message]) -> f64 {
    let gaps = messages.iter().map(Message::json).filter(|body| body["event"] == "gap");
    gaps.filter_map(|body| body["samples"].as_f64()).sum()
}

/// Collects data and events until the data message with this value.
fn collect(subscriber: &Subscriber, value: u16) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = subscriber.next(LONG);
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
    let gateway = Gateway::start_ready(&config(&broker.url(), &plc, ""));
    gateway.wait_for_metric("edge_mqtt_connected", SOON, |up| up > 0.0);
    count(&mut plc, &gateway, 1, 20);

    let mut messages = collect(&consumer, 19);
    broker.stop();
    gateway.wait_for_metric("edge_mqtt_connected", SOON, |up| up < 1.0);
    count(&mut plc, &gateway, 20, 40);
    drop(consumer);
    // A broker that forgets has nobody to give the first messages to, unless the consumer is there
    // before the gateway.
    gateway.pause();
    broker.start_again();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");
    gateway.resume();
    gateway.wait_for_metric("edge_mqtt_connected", LONG, |up| up > 0.0);
    count(&mut plc, &gateway, 40, 60);
    messages.extend(collect(&consumer, 59));

    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    assert_eq!(gateway.metric("edge_samples_dropped_total{reason=\"full\"}"), Some(0.0));
    let mut values: Vec<u64> =
        messages.iter().filter_map(|message| message.json()["count"].as_u64()).collect();
    values.dedup();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, (0..60).collect::<Vec<u64>>(), "every value arrived");
}

#[test]
fn a_restart_of_a_broker_that_forgets_loses_nothing_within_the_bound() {
    survives_a_restart(Mosquitto::start());
}

#[test]
fn a_restart_of_a_broker_that_remembers_loses_nothing_within_the_bound() {
    survives_a_restart(Mosquitto::builder().persistent().start());
}

#[test]
fn what_does_not_fit_is_counted_and_announced_and_the_audit_agrees() {
    let (mut plc, mut broker) = (Pymodbus::start(), Mosquitto::builder().persistent().start());
    let consumer = broker.subscribe_persistent("consumer", "edge/g/#");
    let mut config = config(&broker.url(), &plc, "[queue]\nmax_size = \"64KiB\"");
    // A wide record fills the queue sooner than many narrow ones.
    for word in 100..300 {
        let _ =
            write!(config, "[[plc.tag]]\nname = \"w{word}\"\nat = \"%MW{word}\"\ntype = \"INT\"\n");
    }
    let gateway = Gateway::start_ready(&config);
    gateway.wait_for_metric("edge_mqtt_connected", SOON, |up| up > 0.0);
    count(&mut plc, &gateway, 1, 5);
    let mut messages = collect(&consumer, 4);

    broker.stop();
    gateway.wait_for_metric("edge_mqtt_connected", SOON, |up| up < 1.0);
    count(&mut plc, &gateway, 5, 60);
    let dropped = gateway.metric("edge_samples_dropped_total{reason=\"full\"}").expect("is there");
    assert!(dropped > 0.0, "the bound was too wide to test anything");
    broker.start_again();
    gateway.wait_for_metric("edge_mqtt_connected", LONG, |up| up > 0.0);
    messages.extend(collect(&consumer, 59));
    // The last drops are announced after the last value: until every one of them is.
    let dropped =
        || gateway.metric("edge_samples_dropped_total{reason=\"full\"}").expect("is there");
    while announced(&messages) < dropped() {
        messages.push(consumer.next(SOON));
    }

    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    let (is_clean, report) = Capture::of(&messages).audit();
    assert!(is_clean, "{report}");
    let data = messages.iter().filter(|message| message.topic.contains("/data/"));
    let (is_clean, report) = Capture::of(data).audit();
    assert!(!is_clean, "without the event the same loss is unaccounted for: {report}");
}

#[test]
fn stopping_delivers_what_was_taken() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let consumer = broker.subscribe("edge/g/data/#");
    let mut gateway = Gateway::start_ready(&config(&broker.url(), &plc, ""));
    count(&mut plc, &gateway, 1, 30);

    let (status, log) = gateway.terminate(SOON);

    assert!(status.success(), "{}", log.text());
    collect(&consumer, 29);
}

#[test]
fn a_broker_that_refuses_a_topic_is_told_and_does_not_stop_the_others() {
    let mut plc = Pymodbus::start();
    plc.set_registers(Table::HoldingRegister, 10, &[1]);
    let broker = Mosquitto::builder()
        .user("g", "secret")
        .acl("user g\ntopic write edge/g/status\ntopic write edge/g/event\ntopic write allowed")
        .start();
    let dir = e2e::temp_dir();
    let password = dir.write("password", "secret\n");
    make_private(&password);
    let events = broker.subscribe("edge/g/event");
    let allowed = broker.subscribe("allowed");
    let gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\nusername = \"g\"\npassword_file = \"{}\"\n\
         [publish]\nheartbeat = \"1s\"\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{address}\"\n\
         [[plc.tag]]\nname = \"count\"\nat = \"%MW10\"\ntype = \"UINT\"\n\
         [[plc]]\nname = \"q\"\nmodel = \"M241\"\naddress = \"{address}\"\n\
         [plc.publish]\ntopic = \"allowed\"\n\
         [[plc.tag]]\nname = \"count\"\nat = \"%MW10\"\ntype = \"UINT\"\n",
        broker.url(),
        password.display(),
        address = plc.address()
    ));

    allowed.next(SOON);
    gateway.wait_for_metric("edge_samples_dropped_total{reason=\"refused\"}", SOON, |n| n > 0.0);
    let event = events.next(SOON).json();

    assert_eq!((&event["event"], &event["reason"]), (&Value::from("gap"), &Value::from("refused")));
    assert!(balanced(&gateway), "{}", gateway.get("/metrics").body);
    let status = gateway.get("/status").body.to_lowercase();
    assert!(status.contains("refuse") && status.contains("edge/g/data/p"), "{status}");
}

#[test]
fn a_wrong_password_is_told_and_not_tried_in_a_storm() {
    let plc = Pymodbus::start();
    let broker = Mosquitto::builder().user("g", "right").start();
    let dir = e2e::temp_dir();
    let password = dir.write("password", "wrong");
    make_private(&password);
    let gateway = Gateway::start_ready(&config(
        &broker.url(),
        &plc,
        &format!("username = \"g\"\npassword_file = \"{}\"", password.display()),
    ));

    let line = gateway.log().wait_for_line("password", SOON).expect("it is told in the log");

    assert!(!line.contains("wrong\""), "the password itself is not: {line}");
    let status = gateway.get("/status").body;
    assert!(status.contains("password"), "{status}");
}

fn make_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}
