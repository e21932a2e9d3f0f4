//! Promises 1 and 6 with servers that share no code with the gateway: a value in a command is that
//! value in pymodbus and libmodbus, for every type and both word orders, and no other register or
//! coil changes.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, PlcMemory, Pymodbus, Retain,
    STOP_TIMEOUT, ThirdPartyPlc,
};
use provisioning::plc::Table;
use serde_json::{Map, Value, json};

/// Type, value, and the registers of it with the most significant first.
const WORDS: &[(&str, &str, &[u16])] = &[
    ("INT", "-2", &[0xFFFE]),
    ("UINT", "4660", &[0x1234]),
    ("WORD", "65535", &[0xFFFF]),
    ("DINT", "305419896", &[0x1234, 0x5678]),
    ("UDINT", "3735928559", &[0xDEAD, 0xBEEF]),
    ("DWORD", "1", &[0, 1]),
    ("REAL", "123.456", &[0x42F6, 0xE979]),
    ("TIME", "3723004", &[0x0038, 0xCEFC]),
    ("DATE", "\"2024-02-29\"", &[0x65DF, 0xC900]),
    ("TOD", "\"12:34:56.789\"", &[0x02B3, 0x2C95]),
    ("DT", "\"2024-02-29T12:34:56Z\"", &[0x65E0, 0x79F0]),
    ("LINT", "-2", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE]),
    ("ULINT", "18446744073709551615", &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF]),
    ("LWORD", "81985529216486895", &[0x0123, 0x4567, 0x89AB, 0xCDEF]),
    ("LREAL", "123.456", &[0x405E, 0xDD2F, 0x1A9F, 0xBE77]),
    ("LTIME", "1", &[0, 0, 0, 1]),
];

/// What the registers hold before.
const FILLER: u16 = 0x5A5A;
const REGISTERS: u16 = 400;
const COILS: u16 = 64;

#[test]
fn in_pymodbus_for_every_type() {
    let mut plc = Pymodbus::start();
    let table = Table::HoldingRegister;
    plc.set_registers(table, 0, &[FILLER; REGISTERS as usize]);
    plc.set_bits(Table::Coil, 0, &[false; COILS as usize]);
    every_type(plc.address());
    assert!(!plc.request_counts().contains_key(&22), "an M241 does not know function 22");
}

#[test]
fn in_libmodbus_for_every_type() {
    let mut memory = PlcMemory::default();
    memory.set("holding", 0, &[FILLER; REGISTERS as usize]);
    let plc = ThirdPartyPlc::libmodbus(&memory);
    every_type(plc.address());
}

/// Writes a value of each type in one command, and compares the memory.
fn every_type(plc: SocketAddr) {
    let mut expected = vec![FILLER; usize::from(REGISTERS)];
    let mut coils = vec![false; usize::from(COILS)];
    let mut values = Map::new();
    let mut section = PlcConfig::new("p", "generic", plc).scan(Duration::from_millis(500));
    let mut register = 10;
    for (index, (iec, value, words)) in WORDS.iter().enumerate() {
        for order in ["ABCD", "CDAB"] {
            let name = format!("{order}{index}");
            let at = format!("holding:{register}");
            section = writable(section.tag(&name, &at, iec)).set_tag("order", order);
            values.insert(name, value.parse().expect("it is JSON"));
            let low_first = order == "CDAB";
            let place = expected[register..].iter_mut();
            for (place, index) in place.zip(0..words.len()) {
                *place = words[if low_first { words.len() - 1 - index } else { index }];
            }
            // Every third value adjoins the next: some requests carry several.
            register += words.len() + usize::from(index % 3 == 0);
        }
    }
    section = writable(section.tag("text", "holding:300", "STRING(5)")).set_tag("order", "CDAB");
    section = writable(section.tag("wide", "holding:310", "WSTRING(3)"));
    section = section.tag("bit", "holding:320.3", "BOOL").set_tag("write", whole_word());
    section = section.tag("byte", "holding:321", "SINT").set_tag("write", whole_word());
    section = writable(section.tag("list", "holding:330", "ARRAY[1..3] OF INT"));
    section = writable(section.tag("coil", "coil:3", "BOOL"));
    section = writable(section.tag("coils", "coil:14", "ARRAY[0..4] OF BOOL"));
    let others = [
        ("text", json!("ABC"), 300, vec![0x4241, 0x0043, 0]),
        ("wide", json!("A€B"), 310, vec![0x0041, 0x20AC, 0x0042, 0]),
        ("bit", json!(false), 320, vec![0x5A52]),
        ("byte", json!(-2), 321, vec![0x5AFE]),
        ("list", json!([1, -1, 7]), 330, vec![1, 0xFFFF, 7]),
    ];
    for (name, value, first, words) in others {
        values.insert(name.to_owned(), value);
        expected[first..first + words.len()].copy_from_slice(&words);
    }
    values.insert("coil".to_owned(), json!(true));
    values.insert("coils".to_owned(), json!([true, false, true, true, false]));
    [3, 14, 16, 17].into_iter().for_each(|coil: usize| coils[coil] = true);

    let reply = write(section, &values);

    assert_eq!(reply["state"], "done", "{reply}");
    for (name, value) in &values {
        assert_eq!(&reply["tags"][name]["read"], value, "{name}");
        assert_eq!(&reply["tags"][name]["wrote"], value, "{name}");
    }
    let mut client = RawClient::connect(plc);
    assert_eq!(client.registers(REGISTERS), expected);
    assert_eq!(client.coils(COILS), coils);
}

/// Writes through a gateway, which is stopped again, and returns the reply.
fn write(section: PlcConfig, values: &Map<String, Value>) -> Value {
    let broker = Mosquitto::start();
    let replies = broker.subscribe("edge/g/reply/p");
    let mut gateway =
        Gateway::start_ready(GatewayConfig::with_broker("g", broker.url()).plc(section));
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    gateway.wait_for_metric("edge_plc_up{plc=\"p\"}", EVENT_TIMEOUT, |up| up > 0.0);
    let command = json!({"id": "all", "write": values}).to_string();
    broker.publish("edge/g/set/p", &command, Retain::No);
    let reply = replies.next(EVENT_TIMEOUT).json();
    gateway.terminate(STOP_TIMEOUT);
    reply
}

fn writable(section: PlcConfig) -> PlcConfig {
    section.set_tag("write", toml::Table::new())
}

fn whole_word() -> toml::Table {
    "whole_word = true".parse().expect("it is TOML")
}

/// A client of Modbus TCP in a few lines.
struct RawClient(TcpStream);

impl RawClient {
    fn connect(plc: SocketAddr) -> Self {
        let stream = TcpStream::connect(plc).expect("it listens");
        stream.set_read_timeout(Some(EVENT_TIMEOUT)).expect("it can");
        Self(stream)
    }

    fn registers(&mut self, count: u16) -> Vec<u16> {
        let firsts = (0..count).step_by(100);
        let bytes = firsts.flat_map(|first| self.read(3, first, 100.min(count - first)));
        let bytes: Vec<u8> = bytes.collect();
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    fn coils(&mut self, count: u16) -> Vec<bool> {
        let bytes = self.read(1, 0, count);
        (0..usize::from(count)).map(|coil| bytes[coil / 8] >> (coil % 8) & 1 == 1).collect()
    }

    fn read(&mut self, function: u8, first: u16, count: u16) -> Vec<u8> {
        let ([f0, f1], [c0, c1]) = (first.to_be_bytes(), count.to_be_bytes());
        let request = [0, 1, 0, 0, 0, 6, 255, function, f0, f1, c0, c1];
        self.0.write_all(&request).expect("it reads");
        let mut header = [0; 9];
        self.0.read_exact(&mut header).expect("it answers");
        assert_eq!(header[7], function);
        let mut bytes = vec![0; header[8].into()];
        self.0.read_exact(&mut bytes).expect("it answers");
        bytes
    }
}
