//! Promise 1 with servers that share no code with the gateway or each other: a value in libmodbus
//! or modbus-serial is that value in the JSON, from every table. pymodbus is the PLC of
//! `a_value_in_the_plc_is_the_value_in_the_json.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, PlcMemory, ThirdPartyPlc};

/// Type, registers with the most significant first, value.
const WORDS: &[(&str, &[u16], &str)] = &[
    ("SINT", &[0x00FE], "-2"),
    ("USINT", &[0x00FE], "254"),
    ("BYTE", &[0x0011], "17"),
    ("INT", &[0xFFFE], "-2"),
    ("UINT", &[0x1234], "4660"),
    ("WORD", &[0xFFFF], "65535"),
    ("DINT", &[0x1234, 0x5678], "305419896"),
    ("DINT", &[0xFFFF, 0xFFFE], "-2"),
    ("UDINT", &[0xDEAD, 0xBEEF], "3735928559"),
    ("DWORD", &[0xDEAD, 0xBEEF], "3735928559"),
    ("REAL", &[0x42F6, 0xE979], "123.456"),
    ("TIME", &[0x0038, 0xCEFC], "3723004"),
    ("LINT", &[0x0123, 0x4567, 0x89AB, 0xCDEF], "81985529216486895"),
    ("LINT", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], "-2"),
    ("ULINT", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], "18446744073709551615"),
    ("LWORD", &[0x0123, 0x4567, 0x89AB, 0xCDEF], "81985529216486895"),
    ("LREAL", &[0x405E, 0xDD2F, 0x1A9F, 0xBE77], "123.456"),
];

/// Bits of both tables, from bit 6 on: across a byte boundary.
const BITS: [u16; 5] = [1, 0, 1, 1, 0];
const FIRST_BIT: u16 = 6;

#[test]
fn libmodbus_for_every_type_and_table() {
    every_type_and_table(ThirdPartyPlc::libmodbus);
}

#[test]
fn modbus_serial_for_every_type_and_table() {
    every_type_and_table(ThirdPartyPlc::modbus_serial);
}

/// Each value is in the holding registers with the high word first, in the input registers with the
/// low word first, and once more in the order of a Modicon.
fn every_type_and_table(server: impl Fn(&PlcMemory) -> ThirdPartyPlc) {
    let (mut memory, mut expected) = (PlcMemory::default(), Vec::new());
    // Name, address, type and byte order of each tag.
    let (mut tags, mut modicon) = (Vec::new(), Vec::new());
    let mut register = 10;
    for (index, (iec, registers, value)) in WORDS.iter().enumerate() {
        let low_first: Vec<u16> = registers.iter().rev().copied().collect();
        memory.set("holding", register, registers);
        memory.set("input", register, &low_first);
        memory.set("holding", 1000 + register, &low_first);
        tags.push((format!("holding{index}"), format!("holding:{register}"), *iec, None));
        tags.push((format!("input{index}"), format!("input:{register}"), *iec, Some("CDAB")));
        modicon.push((format!("modicon{index}"), format!("%MW{}", 1000 + register), *iec, None));
        expected.extend(["holding", "input"].map(|t| format!("\"{t}{index}\":{value},")));
        expected.push(format!("\"modicon{index}\":{value},"));
        // A Modicon aligns its variables; unused registers between them are harmless.
        register += 4;
    }
    for table in ["coil", "discrete"] {
        memory.set(table, FIRST_BIT, &BITS);
        for (address, bit) in (FIRST_BIT..).zip(BITS) {
            tags.push((format!("{table}{address}"), format!("{table}:{address}"), "BOOL", None));
            expected.push(format!("\"{table}{address}\":{},", bit == 1));
        }
    }
    let (plc, same_plc) = (server(&memory), server(&memory));
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/+");
    let plcs = [
        section("other", "generic", plc.address(), &tags),
        section("modicon", "M241", same_plc.address(), &modicon),
    ];
    let _gateway = Gateway::start(GatewayConfig::with_broker("g", broker.url()).plcs(plcs));

    let (one, other) = (messages.next(EVENT_TIMEOUT), messages.next(EVENT_TIMEOUT));

    assert_ne!(one.topic, other.topic);
    let payload = one.payload + &other.payload;
    for member in expected {
        assert!(payload.contains(&member), "no {member} in {payload}");
    }
}

type Tag = (String, String, &'static str, Option<&'static str>);

fn section(name: &str, model: &str, address: SocketAddr, tags: &[Tag]) -> PlcConfig {
    let plc = PlcConfig::new(name, model, address).scan(Duration::from_millis(200));
    tags.iter().fold(plc, |plc, (name, at, iec, order)| {
        let plc = plc.tag(name, at, iec);
        match order {
            Some(order) => plc.set_tag("order", *order),
            None => plc,
        }
    })
}
