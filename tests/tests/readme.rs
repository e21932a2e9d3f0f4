//! The gateway.toml of the README shows the values of a PLC of another make. Its commands are played
//! in the_book.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::{Gateway, Mosquitto, Pymodbus};
use provisioning::plc::Table;

const SOON: Duration = Duration::from_secs(10);

fn configuration(plc: &str, broker: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(path).expect("the README is there");
    let (_, toml) = text.split_once("```toml\n").expect("the README has a gateway.toml");
    let (toml, _) = toml.split_once("```").expect("it ends");
    toml.replace("127.0.0.1:1502", plc).replace("mqtt://127.0.0.1:1883", broker)
}

#[test]
fn its_gateway_toml_shows_the_values_that_pymodbus_holds() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[0x0000, 0x41AC, 0xA3D7, 0x40C0]);
    plc.set_registers(Table::HoldingRegister, 28, &[0x0001]);
    let messages = broker.subscribe("edge/amsterdam-01/data/pump6");
    let toml = configuration(&plc.address().to_string(), &broker.url());
    let _gateway = Gateway::start(&toml);

    let slow = messages.wait_for("the tags of 1 s", SOON, |m| m.payload.contains("temperature"));
    assert!(slow.payload.contains("\"temperature\":21.5,\"pressure\":6.02,"), "{slow:?}");
    assert_eq!(slow.json()["location"], "amsterdam");
    plc.set_registers(Table::HoldingRegister, 28, &[0x0000]);
    let off = messages.wait_for("the bit goes off", SOON, |m| m.json()["running"] == false);
    assert_eq!(off.json()["machine"], "pump6");
}
