//! `[plc.publish] on` and `acknowledge`: one message for each event, and the PLC is told when the
//! broker has it.

use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus, STOP_TIMEOUT, eventually,
};
use provisioning::plc::Table;
use serde_json::json;

const WORDS: Table = Table::HoldingRegister;

fn section(plc: &Pymodbus, on: &str) -> PlcConfig {
    PlcConfig::new("p", "M241", plc.address())
        .scan(Duration::from_secs(2))
        .set("publish.on", on)
        .set("publish.acknowledge", "%MW90")
        .tag("count", "%MW10", "UINT")
        .set_tag("scan", "100ms")
        .tag("ready", "%MX22.0", "BOOL")
        .set_tag("scan", "100ms")
        .tag("weight", "%MW500", "INT")
}

/// Waits until the gateway has written this word to `acknowledge`.
fn wait_for_word(plc: &mut Pymodbus, word: u16) {
    eventually("the word is written", EVENT_TIMEOUT, || {
        (plc.registers(WORDS, 90, 1) == [word]).then_some(())
    });
}

#[test]
fn each_change_of_a_counter_is_one_message_and_one_word() {
    let mut plc = Pymodbus::start();
    plc.set_registers(WORDS, 0, &[0; 600]);
    plc.set_registers(WORDS, 10, &[5]);
    let broker = Mosquitto::start();
    let (messages, events) = (broker.subscribe("edge/g/data/p"), broker.subscribe("edge/g/event"));
    let config = GatewayConfig::with_broker("g", broker.url()).plc(section(&plc, "count"));
    let mut gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    gateway.wait_for_metric("edge_plc_up{plc=\"p\"}", EVENT_TIMEOUT, |up| up > 0.0);
    let ok = "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}";
    gateway.wait_for_metric(ok, EVENT_TIMEOUT, |requests| requests >= 8.0);
    let mut seq = None;
    for count in 6..9 {
        plc.set_registers(WORDS, 500, &[count * 10]);
        plc.set_registers(WORDS, 10, &[count]);
        let message = messages.next(EVENT_TIMEOUT).json();
        assert_eq!((&message["count"], &message["weight"]), (&json!(count), &json!(count * 10)));
        seq = message["gateway"]["seq"].as_u64();
        wait_for_word(&mut plc, count);
        let event = events.next(EVENT_TIMEOUT).json();
        assert_eq!((&event["by"], &event["state"]), (&json!("acknowledge"), &json!("done")));
        assert_eq!(event["write"], json!({"%MW90": count}));
    }
    // A change while the gateway is away is an event, and only that.
    gateway.terminate(STOP_TIMEOUT);
    plc.set_registers(WORDS, 10, &[9]);
    gateway.start_again();
    let message = messages.next(EVENT_TIMEOUT).json();
    assert_eq!((&message["count"], &message["weight"]), (&json!(9), &json!(80)));
    let next = message["gateway"]["seq"].as_u64();
    assert_eq!(next, seq.map(|seq| seq + 1), "nothing else was published: {message}");
    wait_for_word(&mut plc, 9);
}

#[test]
fn no_word_is_written_before_the_broker_has_the_message() {
    const WRITE_SINGLE_REGISTER: u8 = 6;
    let mut plc = Pymodbus::start();
    plc.set_registers(WORDS, 0, &[0; 600]);
    plc.set_registers(WORDS, 10, &[5]);
    let mut broker = Mosquitto::builder().persistent().start();
    let events = broker.subscribe_persistent("consumer", "edge/g/event");
    let config = GatewayConfig::with_broker("g", broker.url()).plc(section(&plc, "count"));
    let gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    let ok = "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}";
    gateway.wait_for_metric(ok, EVENT_TIMEOUT, |requests| requests >= 8.0);
    broker.stop();
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up == 0.0);
    let stored = "edge_samples_stored";
    for count in 6..9 {
        let before = gateway.wait_for_metric(stored, EVENT_TIMEOUT, |_| true);
        plc.set_registers(WORDS, 10, &[count]);
        gateway.wait_for_metric(stored, EVENT_TIMEOUT, |now| now > before);
        let read = gateway.wait_for_metric(ok, EVENT_TIMEOUT, |_| true);
        gateway.wait_for_metric(ok, EVENT_TIMEOUT, |now| now >= read + 8.0);
        assert_eq!(plc.registers(WORDS, 90, 1), [0], "the broker does not have the message");
        assert_eq!(plc.request_counts().get(&WRITE_SINGLE_REGISTER), None);
    }
    broker.start_again();
    let is_write = |event: &serde_json::Value| event["by"] == json!("acknowledge");
    for count in 6..9 {
        let mut event = events.next(EVENT_TIMEOUT).json();
        while !is_write(&event) {
            event = events.next(EVENT_TIMEOUT).json();
        }
        assert_eq!((&event["state"], &event["write"]), (&json!("done"), &json!({"%MW90": count})));
    }
    wait_for_word(&mut plc, 8);
    assert_eq!(plc.request_counts().get(&WRITE_SINGLE_REGISTER), Some(&3));
}

#[test]
fn a_bool_is_acknowledged_until_it_is_false() {
    let mut plc = Pymodbus::start();
    plc.set_registers(WORDS, 0, &[0; 600]);
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let config = GatewayConfig::with_broker("g", broker.url()).plc(section(&plc, "ready"));
    let gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    let ok = "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}";
    gateway.wait_for_metric(ok, EVENT_TIMEOUT, |requests| requests >= 8.0);
    for weight in [1, 2] {
        plc.set_registers(WORDS, 500, &[weight]);
        plc.set_registers(WORDS, 11, &[1]);
        let message = messages.next(EVENT_TIMEOUT).json();
        assert_eq!((&message["ready"], &message["weight"]), (&json!(true), &json!(weight)));
        wait_for_word(&mut plc, 1);
        plc.set_registers(WORDS, 11, &[0]);
        wait_for_word(&mut plc, 0);
    }
}
