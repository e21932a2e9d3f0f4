//! Promise 5: one failing tag, block or PLC never hides another.

use std::fmt::Display;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Port, Pymodbus, RECOVERY_TIMEOUT,
    Simulator,
};
use provisioning::plc::Table;
use serde_json::{Value, json};

fn plc(name: &str, address: impl Display) -> PlcConfig {
    PlcConfig::new(name, "M241", address).scan(Duration::from_millis(200)).tag(
        "temperature",
        "%MW10",
        "INT",
    )
}

fn config(broker: &Mosquitto) -> GatewayConfig {
    GatewayConfig::with_broker("g", broker.url()).set("publish.heartbeat", "1s")
}

#[test]
fn one_dead_plc_of_ten_delays_none_of_the_others() {
    let (live, broker) = (Simulator::start(), Mosquitto::start());
    let dead = Port::reserve();
    let live = live.plc_sections(9, Duration::from_millis(200));
    let config = config(&broker).plcs(live).plc(plc("dead", dead.address()));
    let messages = broker.subscribe("edge/g/data/#");
    let gateway = Gateway::start_ready(config);

    let first = messages
        .wait_for("the dead one", EVENT_TIMEOUT, |message| message.topic.ends_with("/dead"));
    assert_eq!(first.json()["temperature"], Value::Null);
    assert_eq!(first.json()["gateway"]["quality"], json!({"temperature": "unreachable"}));
    // A PLC is identified before its first message.
    let missed =
        |index| gateway.metric(&format!("edge_plc_cycles_missed_total{{plc=\"p{index}\"}}"));
    let wait_for_all = || {
        for index in 0..9 {
            let topic = format!("edge/g/data/p{index}");
            let message =
                messages.wait_for(&topic, EVENT_TIMEOUT, |message| message.topic == topic);
            assert_ne!(message.json()["life"], Value::Null);
        }
    };
    wait_for_all();
    let before: Vec<_> = (0..9).map(missed).collect();
    for _ in 0..5 {
        wait_for_all();
    }
    assert_eq!((0..9).map(missed).collect::<Vec<_>>(), before);
    assert_eq!(gateway.metric("edge_plc_up{plc=\"dead\"}"), Some(0.0));
    let status = gateway.get("/status").body;
    assert!(
        status.contains("Modbus server"),
        "the diagnosis does not name the Modbus server: {status}"
    );
}

#[test]
fn a_plc_that_disconnects_is_reported_and_recovers() {
    let (mut server, broker) = (Pymodbus::start(), Mosquitto::start());
    server.set_registers(Table::HoldingRegister, 10, &[7]);
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker).plc(plc("p", server.address())));
    messages.wait_for("a value", EVENT_TIMEOUT, |message| message.json()["temperature"] == 7);

    server.close();
    let gone = messages.wait_for("bad quality", EVENT_TIMEOUT, |message| {
        message.json()["temperature"] == Value::Null
    });
    assert_eq!(gone.json()["gateway"]["quality"]["temperature"], "unreachable");
    server.set_registers(Table::HoldingRegister, 10, &[8]);
    server.open();

    messages
        .wait_for("the new value", RECOVERY_TIMEOUT, |message| message.json()["temperature"] == 8);
    assert_eq!(gateway.metric("edge_plc_up{plc=\"p\"}"), Some(1.0));
    let connects = gateway.metric("edge_plc_connects_total{plc=\"p\"}").expect("is there");
    assert!(connects <= 12.0, "{connects} connects: no storm");
}

#[test]
fn a_refused_block_does_not_hide_the_others() {
    let (mut server, broker) = (Pymodbus::start(), Mosquitto::start());
    server.set_registers(Table::HoldingRegister, 10, &[7]);
    server.set_registers(Table::HoldingRegister, 5000, &[9]);
    server.refuse(Table::HoldingRegister, 3000..=3000, 2);
    let messages = broker.subscribe("edge/g/data/p");
    let plc =
        plc("p", server.address()).tag("hole", "%MW3000", "INT").tag("behind", "%MW5000", "INT");
    let _gateway = Gateway::start_ready(config(&broker).plc(plc));

    let payload = messages.next(EVENT_TIMEOUT).json();

    assert_eq!((&payload["temperature"], &payload["behind"]), (&json!(7), &json!(9)));
    assert_eq!(payload["hole"], Value::Null);
    assert_eq!(payload["gateway"]["quality"], json!({"hole": "refused"}));
}

#[test]
fn a_bad_register_in_the_middle_of_a_block_costs_only_its_own_tag() {
    let (mut server, broker) = (Pymodbus::start(), Mosquitto::start());
    let registers: Vec<u16> = (0..40).collect();
    server.set_registers(Table::HoldingRegister, 0, &registers);
    server.refuse(Table::HoldingRegister, 17..=17, 2);
    let messages = broker.subscribe("edge/g/data/p");
    let plc = (0..40)
        .filter(|register| *register != 10)
        .fold(plc("p", server.address()), |plc, register| {
            plc.tag(&format!("t{register}"), &format!("%MW{register}"), "INT")
        });
    let gateway = Gateway::start_ready(config(&broker).plc(plc));

    for _ in 0..5 {
        let payload = messages.next(EVENT_TIMEOUT).json();
        assert_eq!(payload["gateway"]["quality"], json!({"t17": "refused"}));
        for register in (0..40).filter(|register| ![10, 17].contains(register)) {
            assert_eq!(payload[format!("t{register}")], register);
        }
    }
    let quarantined = "edge_plc_tags_quarantined{plc=\"p\"}";
    gateway.wait_for_metric(quarantined, EVENT_TIMEOUT, |tags| tags > 0.5 && tags < 1.5);
    let status = gateway.get("/status").body;
    assert!(status.contains("The PLC refuses t17 (%MW17: exception 2)"), "{status}");
    let advice = gateway.command_output(&["plan", "--learned"]);
    assert!(advice.contains("remove or correct the tag t17:"), "{advice}");

    // A PLC closes and opens its port when a new program is downloaded.
    server.clear_refusals();
    server.close();
    server.open();
    messages.wait_for("the tag is back", RECOVERY_TIMEOUT, |message| message.json()["t17"] == 17);
    gateway.wait_for_metric(quarantined, EVENT_TIMEOUT, |tags| tags < 0.5);
}
