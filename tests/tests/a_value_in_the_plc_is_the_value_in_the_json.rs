//! Promise 1: a value at `%MW10` in the PLC is that value in the JSON, for every type and model.
#![expect(clippy::expect_used, clippy::string_slice, reason = "test code may stop on the spot")]

use std::fmt::Write;
use std::time::Duration;

use e2e::{Gateway, Mosquitto, Pymodbus};
use provisioning::plc::Table;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// Address, type, registers from the address on, value. The registers are those of a Modicon M2xx:
/// little-endian memory, so the low word comes first.
const VECTORS: &[(&str, &str, &[u16], &str)] = &[
    ("%MW10", "INT", &[0xFFFE], "-2"),
    ("%MW11", "UINT", &[0x1234], "4660"),
    ("%MW12", "WORD", &[0x1234], "4660"),
    ("%MW14", "DINT", &[0x5678, 0x1234], "305419896"),
    ("%MD8", "DINT", &[0xFFFE, 0xFFFF], "-2"),
    ("%MW18", "UDINT", &[0xBEEF, 0xDEAD], "3735928559"),
    ("%MD10", "DWORD", &[0xBEEF, 0xDEAD], "3735928559"),
    ("%ML6", "LINT", &[0xCDEF, 0x89AB, 0x4567, 0x0123], "81985529216486895"),
    ("%MW28", "ULINT", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], "18446744073709551615"),
    ("%MW32", "LWORD", &[0xCDEF, 0x89AB, 0x4567, 0x0123], "81985529216486895"),
    ("%MW36", "REAL", &[0xE979, 0x42F6], "123.456"),
    ("%MW38", "REAL", &[0xCCCD, 0xBDCC], "-0.1"),
    ("%MW40", "LREAL", &[0xBE77, 0x1A9F, 0xDD2F, 0x405E], "123.456"),
    ("%MW44", "TIME", &[0xCEFC, 0x0038], "3723004"),
    ("%MB92", "BYTE", &[0x2211], "17"),
    ("%MB93", "USINT", &[0x2211], "34"),
    ("%MB95", "SINT", &[0xFE00], "-2"),
    ("%MX96.3", "BOOL", &[0x0008], "true"),
    ("%MX97.0", "BOOL", &[0x0008], "false"),
    ("%MB99", "BOOL", &[0x0100], "true"),
    ("%MW50.15", "BOOL", &[0x8000], "true"),
];

fn first_register(at: &str) -> u16 {
    let digits = at[3..].split('.').next().expect("a number follows");
    let number: u16 = digits.parse().expect("a number follows");
    match &at[..3] {
        "%MX" | "%MB" => number / 2,
        "%MD" => number * 2,
        "%ML" => number * 4,
        _ => number,
    }
}

fn configuration(broker: &Mosquitto, plc: &Pymodbus, model: &str, tags: &str) -> String {
    format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n\
         [[plc]]\nname = \"p\"\nmodel = \"{model}\"\naddress = \"{}\"\nscan = \"200ms\"\n{tags}",
        broker.url(),
        plc.address()
    )
}

fn tag(name: &str, at: &str, iec: &str) -> String {
    format!("[[plc.tag]]\nname = \"{name}\"\nat = \"{at}\"\ntype = \"{iec}\"\n")
}

fn every_type_of_a_modicon(model: &str) {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let mut tags = String::new();
    for (index, (at, iec, registers, _)) in VECTORS.iter().enumerate() {
        plc.set_registers(Table::HoldingRegister, first_register(at), registers);
        tags += &tag(&format!("t{index}"), at, iec);
    }
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = Gateway::start(&configuration(&broker, &plc, model, &tags));

    let message = messages.next(SOON);

    for (index, (at, iec, _, value)) in VECTORS.iter().enumerate() {
        let member = format!("\"t{index}\":{value},");
        assert!(message.payload.contains(&member), "{iec} {at}: no {member} in {message:?}");
    }
}

#[test]
fn on_an_m241_for_every_type() {
    every_type_of_a_modicon("M241");
}

#[test]
fn on_an_m251_for_every_type() {
    every_type_of_a_modicon("M251");
}

#[test]
fn outputs_and_inputs_of_a_modicon_are_coils_and_discrete_inputs() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_bits(Table::Coil, 8, &[false, true]);
    plc.set_bits(Table::DiscreteInput, 3, &[true]);
    let tags =
        tag("q", "%QX1.1", "BOOL") + &tag("i", "%IX0.3", "BOOL") + &tag("off", "%IX0.4", "BOOL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = Gateway::start(&configuration(&broker, &plc, "M241", &tags));

    let payload = messages.next(SOON).json();

    let read = ["q", "i", "off"].map(|name| payload[name].clone());
    assert_eq!(read, [json!(true), json!(true), json!(false)]);
}

#[test]
fn on_a_generic_server_for_every_table_and_byte_order() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    // 305419896 = 16#12345678 in the four orders, and one value in each table.
    plc.set_registers(Table::HoldingRegister, 0, &[0x1234, 0x5678]);
    plc.set_registers(Table::HoldingRegister, 2, &[0x5678, 0x1234]);
    plc.set_registers(Table::HoldingRegister, 4, &[0x3412, 0x7856]);
    plc.set_registers(Table::HoldingRegister, 6, &[0x7856, 0x3412]);
    plc.set_registers(Table::InputRegister, 7, &[42]);
    plc.set_bits(Table::Coil, 5, &[true]);
    plc.set_bits(Table::DiscreteInput, 9, &[true]);
    let mut tags = String::new();
    for (register, order) in [(0, "ABCD"), (2, "CDAB"), (4, "BADC"), (6, "DCBA")] {
        tags += &tag(order, &format!("holding:{register}"), "DINT");
        writeln!(tags, "order = \"{order}\"").expect("a string takes text");
    }
    tags += &tag("input", "input:7", "INT");
    tags += &tag("coil", "coil:5", "BOOL");
    tags += &tag("discrete", "discrete:9", "BOOL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = Gateway::start(&configuration(&broker, &plc, "generic", &tags));

    let payload = messages.next(SOON).json();

    for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
        assert_eq!(payload[order], 305_419_896, "{order}");
    }
    let read = ["input", "coil", "discrete"].map(|name| payload[name].clone());
    assert_eq!(read, [json!(42), json!(true), json!(true)]);
}

#[test]
fn scaling_prints_the_digits_it_is_written_with_and_nan_is_null() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[3, 0, 0x0000, 0x7FC0, 0x0000, 0x7F80]);
    let tags = tag("scaled", "%MW10", "INT")
        + "scale = 0.1\n"
        + &tag("nan", "%MW12", "REAL")
        + &tag("inf", "%MW14", "REAL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = Gateway::start(&configuration(&broker, &plc, "M241", &tags));

    let message = messages.next(SOON);

    assert!(message.payload.contains("\"scaled\":0.3,"), "{}", message.payload);
    let payload = message.json();
    assert_eq!((&payload["nan"], &payload["inf"]), (&Value::Null, &Value::Null));
    assert_eq!(payload["gateway"]["quality"], json!({"nan": "invalid", "inf": "invalid"}));
}
