//! The messages of the M262 document, from an M241.

use std::time::Duration;

use e2e::{Gateway, Mosquitto, Pymodbus};
use provisioning::plc::Table;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_example_of_the_m262_on_topic1_with_qos_1() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[220]);
    let messages = broker.subscribe("topic1");
    let _gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n\
         [publish]\ntopic = \"topic1\"\nqos = 1\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\n\
         [plc.publish]\npayload = \"nested\"\nstamp = false\nextra = {{ id = 0 }}\n\
         [[plc.tag]]\nname = \"temp\"\nat = \"%MW10\"\ntype = \"INT\"\n",
        broker.url(),
        plc.address()
    ));

    let message = messages.next(SOON);

    assert_eq!(message.payload, r#"{"M241":{"id":0,"temp":220}}"#);
    assert_eq!(message.qos, 1);
}

#[test]
fn the_datagram_in_its_own_form_of_dates() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[12, 6]);
    let messages = broker.subscribe("edge/g/data/pump6");
    let _gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\nlocation = \"amsterdam\"\ntimezone = \"Europe/Amsterdam\"\n\
         [mqtt]\nbrokers = [\"{}\"]\n[publish]\ndatetime = \"plain\"\nstamp = false\n\
         [[plc]]\nname = \"pump6\"\nmodel = \"M241\"\naddress = \"{}\"\n\
         [[plc.tag]]\nname = \"temperature\"\nat = \"%MW10\"\ntype = \"INT\"\n\
         [[plc.tag]]\nname = \"pressure\"\nat = \"%MW11\"\ntype = \"INT\"\n",
        broker.url(),
        plc.address()
    ));

    let payload = messages.next(SOON).json();

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
    let mut gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n\
         [mqtt]\nbrokers = [\"{}\"]\nversion = \"3.1.1\"\nkeep_alive = \"0s\"\nclient_id = \"M262\"\n\
         [mqtt.will]\ntopic = \"M262\"\npayload = \"Disconnected\"\nqos = 1\nretain = true\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\n\
         [[plc.tag]]\nname = \"temp\"\nat = \"%MW10\"\ntype = \"INT\"\n",
        broker.url(),
        plc.address()
    ));
    gateway.wait_for_metric("edge_mqtt_connected", SOON, |up| up > 0.0);
    // Mosquitto logs: New client connected from .. as M262 (p2, c1, k0): version, clean, keep alive.
    let line = broker.log().wait_for_line(" as M262 (", SOON).expect("it has connected");
    assert!(line.contains("c1, k0"), "{line}");

    gateway.kill();

    let message = will.next(SOON);
    assert_eq!(message.payload, "Disconnected");
    let late = broker.subscribe("M262").next(SOON);
    assert!(late.retained, "a will with retain is kept");
}

#[test]
fn a_graceful_stop_leaves_offline_and_no_will() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let everything = broker.subscribe("#");
    let mut gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n\
         [mqtt.will]\ntopic = \"will\"\npayload = \"Disconnected\"\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\n\
         [[plc.tag]]\nname = \"temp\"\nat = \"%MW10\"\ntype = \"INT\"\n",
        broker.url(),
        plc.address()
    ));
    everything.wait_for("data", SOON, |message| message.topic == "edge/g/data/p");

    let (status, log) = gateway.terminate(SOON);

    assert!(status.success(), "{}", log.text());
    let last = everything.wait_for("offline", SOON, |message| message.payload.contains("offline"));
    assert_eq!(last.topic, "edge/g/status");
    broker.publish("end", "1", e2e::Retain::No);
    let next = everything.next(SOON);
    assert_eq!(next.topic, "end", "no will after a graceful stop: {next:?}");
}
