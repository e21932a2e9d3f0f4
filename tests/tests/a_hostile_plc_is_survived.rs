//! The shipped programs: a simulated PLC that corrupts every third answer, and a healthy one.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Process};
use serde_json::{Value, json};

/// Constant registers of PLC_R in the simulator, from %MW60000 on.
const VENDOR: u16 = 0x101A;
const SERIAL_NUMBER: u32 = 80_201_001;

#[test]
fn its_published_values_are_correct_or_null_and_its_neighbour_is_on_time() {
    const MESSAGES: u32 = 60;
    let broker = Mosquitto::start();
    let spoiled = ["--faults", "all", "--rate", "0.33", "--seed", "7"];
    let (_hostile, hostile) = simulate(&spoiled);
    let (_faithful, faithful) = simulate(&[]);
    let messages = broker.subscribe("edge/g/data/+");
    let plcs = [plc("hostile", hostile), plc("faithful", faithful)];
    let gateway = Gateway::start_ready(GatewayConfig::with_broker("g", broker.url()).plcs(plcs));
    let (mut of_faithful, mut of_hostile) = (0, [0, 0]);
    while of_faithful < MESSAGES || of_hostile.contains(&0) {
        let message = messages.next(EVENT_TIMEOUT);
        let payload = message.json();
        let vendor = &payload["vendor"];
        assert!([json!(VENDOR), Value::Null].contains(vendor), "{payload}");
        let number = &payload["number"];
        assert!([json!(SERIAL_NUMBER), Value::Null].contains(number), "{payload}");
        if message.topic.ends_with("faithful") {
            assert!(!vendor.is_null() && !number.is_null(), "{payload}");
            of_faithful += 1;
        } else {
            of_hostile[usize::from(vendor.is_null())] += 1;
        }
    }
    let missed = gateway.metric(r#"edge_plc_cycles_missed_total{plc="faithful"}"#);
    // If it had to wait for the other PLC, it would miss a dozen at the first time-out.
    assert!(missed.is_some_and(|missed| missed < 10.0), "{missed:?}");
}

/// `life` changes all the time, so that every cycle is published.
fn plc(name: &str, address: SocketAddr) -> PlcConfig {
    PlcConfig::new(name, "M241", address)
        .scan(Duration::from_millis(80))
        .tag("life", "%MW0", "WORD")
        .tag("vendor", "%MW60000", "WORD")
        .tag("number", "%MW60002", "UDINT")
}

fn simulate(options: &[&str]) -> (Process, SocketAddr) {
    let mut simulate = Command::new(Gateway::program());
    simulate.args(["simulate", "--listen", "127.0.0.1:0"]).args(options);
    let mut process = Process::start(&mut simulate);
    let mut line = String::new();
    BufReader::new(process.stdout())
        .read_line(&mut line)
        .expect("the simulator prints its address");
    let address = line.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
    (process, address.expect("the simulator prints its address"))
}
