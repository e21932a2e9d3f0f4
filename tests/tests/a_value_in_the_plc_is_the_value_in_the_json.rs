//! Promise 1: a value at `%MW10` in the PLC is that value in the JSON, for every type and model.
#![expect(clippy::expect_used, clippy::string_slice, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus};
use provisioning::plc::Table;
use serde_json::{Value, json};

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
    ("%MW52", "LTIME", &[0x0002, 0x0000, 0x0000, 0x8000], "9223372036854775810"),
    ("%MW56", "DATE", &[0xC900, 0x65DF], "\"2024-02-29\""),
    ("%MW58", "TOD", &[0x2C95, 0x02B3], "\"12:34:56.789\""),
    ("%MW60", "DT", &[0x79F0, 0x65E0], "\"2024-02-29T12:34:56+01:00\""),
    ("%MW64", "LDATE", &[0x0000, 0x7E9A, 0x2C54, 0x17B8], "\"2024-02-29\""),
    ("%MW68", "LTOD", &[0x8F41, 0x7B04, 0x2932, 0x0000], "\"12:34:56.789000001\""),
    ("%MW72", "LDT", &[0x61F4, 0x0A3D, 0xC854, 0x17DD], "\"2024-06-30T12:34:56.000000500+02:00\""),
    ("%MW100", "STRING(5)", &[0x4241, 0x4443, 0x0045], "\"ABCDE\""),
    ("%MW104", "STRING(7)", &[0x6948, 0x5800, 0x5A59, 0x0000], "\"Hi\""),
    ("%MW108", "STRING(6)", &[0xFC5A, 0x6972, 0x6863, 0x0000], "\"Zürich\""),
    ("%MB225", "STRING(2)", &[0x4100, 0x0042], "\"AB\""),
    ("%MW116", "WSTRING(3)", &[0x0041, 0x20AC, 0x0042, 0x0000], "\"A€B\""),
    ("%MW120", "ARRAY[1..2] OF REAL", &[0xE979, 0x42F6, 0xCCCD, 0xBDCC], "[123.456,-0.1]"),
    ("%MB249", "ARRAY[0..2] OF BYTE", &[0x2200, 0x4433], "[34,51,68]"),
    ("%MX252.6", "ARRAY[0..2] OF BOOL", &[0x0140], "[true,false,true]"),
    ("%MW128", "ARRAY[0..1] OF BOOL", &[0x0100], "[false,true]"),
    ("%MW130", "ARRAY[0..1] OF DATE", &[0xC900, 0x65DF, 0, 0], "[\"2024-02-29\",\"1970-01-01\"]"),
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

fn section(plc: &Pymodbus, model: &str) -> PlcConfig {
    PlcConfig::new("p", model, plc.address()).scan(Duration::from_millis(200))
}

fn start(broker: &Mosquitto, plc: PlcConfig) -> Gateway {
    let config = GatewayConfig::with_broker("g", broker.url());
    Gateway::start(config.set("gateway.timezone", "Europe/Amsterdam").plc(plc))
}

fn every_type_of_a_modicon(model: &str) {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let mut config = section(&plc, model);
    for (index, (at, iec, registers, _)) in VECTORS.iter().enumerate() {
        plc.set_registers(Table::HoldingRegister, first_register(at), registers);
        config = config.tag(&format!("t{index}"), at, iec);
    }
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let message = messages.next(EVENT_TIMEOUT);

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
fn on_an_m262_for_every_type() {
    every_type_of_a_modicon("M262");
}

#[test]
fn an_m221_counts_words_and_its_memory_bits_are_coils() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[0xFFFE, 0x0008]);
    plc.set_registers(Table::HoldingRegister, 12, &[0xE979, 0x42F6, 0x5678, 0x1234]);
    plc.set_bits(Table::Coil, 163, &[true]);
    let config = section(&plc, "M221")
        .tag("int", "%MW10", "INT")
        .tag("bit", "%MW11:X3", "BOOL")
        .tag("real", "%MF12", "REAL")
        .tag("dint", "%MD14", "DINT")
        .tag("coil", "%M163", "BOOL")
        .tag("off", "%M164", "BOOL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    let read = ["int", "bit", "real", "dint", "coil", "off"].map(|name| payload[name].clone());
    let set = [json!(-2), json!(true), json!(123.456), json!(305_419_896), json!(true)];
    assert_eq!(read[..5], set);
    assert_eq!(read[5], json!(false));
}

#[test]
fn outputs_and_inputs_of_a_modicon_are_coils_and_discrete_inputs() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_bits(Table::Coil, 8, &[false, true]);
    plc.set_bits(Table::DiscreteInput, 3, &[true]);
    let config = section(&plc, "M241")
        .tag("q", "%QX1.1", "BOOL")
        .tag("i", "%IX0.3", "BOOL")
        .tag("off", "%IX0.4", "BOOL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    let read = ["q", "i", "off"].map(|name| payload[name].clone());
    assert_eq!(read, [json!(true), json!(true), json!(false)]);
}

#[test]
fn a_bad_array_element_is_null_and_so_is_an_invalid_string() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[0x0000, 0x3FC0, 0x0000, 0x7FC0]);
    plc.set_registers(Table::HoldingRegister, 14, &[0xFC5A, 0x6972, 0x6863, 0x0000]);
    plc.set_bits(Table::Coil, 3, &[true, false, true]);
    let config = section(&plc, "M241")
        .tag("reals", "%MW10", "ARRAY[0..1] OF REAL")
        .tag("broken", "%MW14", "STRING(6)")
        .set_tag("encoding", "utf-8")
        .tag("coils", "%QX0.3", "ARRAY[0..2] OF BOOL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    assert_eq!(payload["reals"], json!([1.5, null]));
    assert_eq!(payload["broken"], Value::Null);
    assert_eq!(payload["coils"], json!([true, false, true]));
    assert_eq!(payload["gateway"]["quality"], json!({"reals": "invalid", "broken": "invalid"}));
}

#[test]
fn an_enumeration_publishes_names_and_an_unknown_number_as_it_is() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[1, 7, 0xFFFF, 1]);
    let tags = [
        ("known", "%MW10", "INT"),
        ("unknown", "%MW11", "INT"),
        ("several", "%MW12", "ARRAY[0..1] OF INT"),
    ];
    let config = tags.into_iter().fold(section(&plc, "M241"), |plc, (name, at, iec)| {
        let tag = plc.tag(name, at, iec).set_tag("enum.0", "stop");
        tag.set_tag("enum.1", "run").set_tag("enum.-1", "fault")
    });
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    assert_eq!((&payload["known"], &payload["unknown"]), (&json!("run"), &json!(7)));
    assert_eq!(payload["several"], json!(["fault", "run"]));
    assert_eq!(payload["gateway"]["quality"], json!({"unknown": "invalid"}));
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
    let orders = [(0, "ABCD"), (2, "CDAB"), (4, "BADC"), (6, "DCBA")];
    let config = orders.into_iter().fold(section(&plc, "generic"), |plc, (register, order)| {
        plc.tag(order, &format!("holding:{register}"), "DINT").set_tag("order", order)
    });
    let config = config.tag("input", "input:7", "INT").tag("coil", "coil:5", "BOOL").tag(
        "discrete",
        "discrete:9",
        "BOOL",
    );
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let payload = messages.next(EVENT_TIMEOUT).json();

    for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
        assert_eq!(payload[order], 305_419_896, "{order}");
    }
    let read = ["input", "coil", "discrete"].map(|name| payload[name].clone());
    assert_eq!(read, [json!(42), json!(true), json!(true)]);
}

#[test]
fn a_scaled_value_has_the_decimals_of_its_factor_and_nan_is_null() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[3, 0, 0x0000, 0x7FC0, 0x0000, 0x7F80]);
    let config = section(&plc, "M241")
        .tag("scaled", "%MW10", "INT")
        .set_tag("scale", 0.1)
        .tag("nan", "%MW12", "REAL")
        .tag("inf", "%MW14", "REAL");
    let messages = broker.subscribe("edge/g/data/p");
    let _gateway = start(&broker, config);

    let message = messages.next(EVENT_TIMEOUT);

    assert!(message.payload.contains("\"scaled\":0.3,"), "{}", message.payload);
    let payload = message.json();
    assert_eq!((&payload["nan"], &payload["inf"]), (&Value::Null, &Value::Null));
    assert_eq!(payload["gateway"]["quality"], json!({"nan": "invalid", "inf": "invalid"}));
}
