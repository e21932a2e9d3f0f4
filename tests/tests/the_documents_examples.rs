//! The messages of the M262 document, from an M241.

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus, STOP_TIMEOUT};
use provisioning::plc::Table;
use serde_json::Value;

#[test]
fn the_example_of_the_m262_on_topic1_with_qos_1() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[220]);
    let messages = broker.subscribe("topic1");
    let plc = PlcConfig::new("p", "M241", plc.address())
        .set("publish.payload", "nested")
        .set("publish.stamp", false)
        .set("publish.extra.id", 0)
        .tag("temp", "%MW10", "INT");
    let config = GatewayConfig::with_broker("g", broker.url())
        .set("publish.topic", "topic1")
        .set("publish.qos", 1)
        .plc(plc);
    let _gateway = Gateway::start_ready(config);

    let message = messages.next(EVENT_TIMEOUT);

    assert_eq!(message.payload, r#"{"M241":{"id":0,"temp":220}}"#);
    assert_eq!(message.qos, 1);
}

#[test]
fn the_datagram_with_its_own_date_format() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[12, 6]);
    let messages = broker.subscribe("edge/g/data/pump6");
    let plc = PlcConfig::new("pump6", "M241", plc.address())
        .tag("temperature", "%MW10", "INT")
        .tag("pressure", "%MW11", "INT");
    let config = GatewayConfig::with_broker("g", broker.url())
        .set("gateway.location", "amsterdam")
        .set("gateway.timezone", "Europe/Amsterdam")
        .set("publish.datetime", "plain")
        .set("publish.stamp", false)
        .plc(plc);
    let _gateway = Gateway::start_ready(config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    let members: Vec<&str> =
        payload.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, ["location", "datetime", "device", "machine", "temperature", "pressure"]);
    let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("location"), "amsterdam");
    assert_eq!((text("device"), text("machine")), ("M241".to_owned(), "pump6".to_owned()));
    assert_eq!(
        (&payload["temperature"], &payload["pressure"]),
        (&Value::from(12), &Value::from(6))
    );
    let shape: String =
        text("datetime").chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99 99:99:99");
}

#[test]
fn the_will_of_the_document_and_a_keep_alive_of_zero() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let will = broker.subscribe("M262");
    let config = GatewayConfig::with_broker("g", broker.url())
        .set("mqtt.version", "3.1.1")
        .set("mqtt.keep_alive", "0s")
        .set("mqtt.client_id", "M262")
        .set("mqtt.will.topic", "M262")
        .set("mqtt.will.payload", "Disconnected")
        .set("mqtt.will.qos", 1)
        .set("mqtt.will.retain", true)
        .plc(PlcConfig::new("p", "M241", plc.address()).tag("temp", "%MW10", "INT"));
    let mut gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    // Mosquitto logs: New client connected from .. as M262 (p2, c1, k0): version, clean, keep
    // alive.
    let line = broker.log().wait_for_line(" as M262 (", EVENT_TIMEOUT).expect("it has connected");
    assert!(line.contains("c1, k0"), "{line}");

    gateway.kill();

    let message = will.next(EVENT_TIMEOUT);
    assert_eq!(message.payload, "Disconnected");
    let late = broker.subscribe("M262").next(EVENT_TIMEOUT);
    assert!(late.retained, "a will with retain is kept");
}

#[test]
fn a_graceful_stop_leaves_offline_and_no_will() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let everything = broker.subscribe("#");
    let config = GatewayConfig::with_broker("g", broker.url())
        .set("mqtt.will.topic", "will")
        .set("mqtt.will.payload", "Disconnected")
        .plc(PlcConfig::new("p", "M241", plc.address()).tag("temp", "%MW10", "INT"));
    let mut gateway = Gateway::start_ready(config);
    everything.wait_for("data", EVENT_TIMEOUT, |message| message.topic == "edge/g/data/p");

    let (status, log) = gateway.terminate(STOP_TIMEOUT);

    assert!(status.success(), "{}", log.text());
    let last = everything
        .wait_for("offline", EVENT_TIMEOUT, |message| message.payload.contains("offline"));
    assert_eq!(last.topic, "edge/g/status");
    broker.publish("end", "1", e2e::Retain::No);
    let next = everything.next(EVENT_TIMEOUT);
    let logs = (log.text(), broker.log().text());
    assert_eq!(next.topic, "end", "no will after a graceful stop: {next:?}\n{logs:?}");
}
