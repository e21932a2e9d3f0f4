//! The programs as a customer has them: a PLC that spoils every third answer, and its neighbour.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use e2e::{Gateway, Mosquitto, Process};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// What the registers of PLC_R from %MW60000 on always hold in the simulator.
const VENDOR: u16 = 0x101A;
const SERIAL_NUMBER: u32 = 80_201_001;

#[test]
fn what_it_publishes_is_right_or_null_and_its_neighbour_is_on_time() {
    const MESSAGES: u32 = 60;
    let broker = Mosquitto::start();
    let spoiled = ["--faults", "all", "--rate", "0.33", "--seed", "7"];
    let (_hostile, hostile) = simulate(&spoiled);
    let (_faithful, faithful) = simulate(&[]);
    let messages = broker.subscribe("edge/g/data/+");
    let gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n{}{}",
        broker.url(),
        plc("hostile", hostile),
        plc("faithful", faithful)
    ));
    let (mut of_faithful, mut of_hostile) = (0, [0, 0]);
    while of_faithful < MESSAGES || of_hostile.contains(&0) {
        let message = messages.next(SOON);
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
    // One that had to wait for the other would miss a dozen at the first silence.
    assert!(missed.is_some_and(|missed| missed < 10.0), "{missed:?}");
}

/// `life` changes all the time, so that every cycle is published.
fn plc(name: &str, address: SocketAddr) -> String {
    let tag = |name: &str, at: &str, iec: &str| {
        format!("[[plc.tag]]\nname = \"{name}\"\nat = \"{at}\"\ntype = \"{iec}\"\n")
    };
    format!(
        "[[plc]]\nname = \"{name}\"\nmodel = \"M241\"\naddress = \"{address}\"\nscan = \"80ms\"\n"
    ) + &tag("life", "%MW0", "WORD")
        + &tag("vendor", "%MW60000", "WORD")
        + &tag("number", "%MW60002", "UDINT")
}

fn simulate(options: &[&str]) -> (Process, SocketAddr) {
    let mut simulate = Command::new(Gateway::program());
    simulate.args(["simulate", "--listen", "127.0.0.1:0"]).args(options);
    let mut process = Process::start(&mut simulate);
    let mut line = String::new();
    BufReader::new(process.stdout()).read_line(&mut line).expect("it says where it listens");
    let address = line.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
    (process, address.expect("it says where it listens"))
}
