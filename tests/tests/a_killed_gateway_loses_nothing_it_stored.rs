//! Promise 3: `kill -9` at any moment, with a broker that restarts now and then: everything that was
//! taken is delivered, stored, or within the window that is announced.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::{Capture, Gateway, Mosquitto, Process, Random};

const LONG: Duration = Duration::from_secs(60);
/// `E2E_KILLS` makes it more.
const KILLS: usize = 200;
/// The broker goes away and comes back with every one of these.
const RESTART_EVERY: usize = 25;

#[test]
fn two_hundred_kills_leave_nothing_unaccounted_for() {
    let kills = std::env::var("E2E_KILLS").ok().map(|kills| kills.parse().expect("a number"));
    let (_plc, address) = simulate();
    let mut broker = Mosquitto::builder().persistent().start();
    let consumer = broker.subscribe_for_good("consumer", "edge/g/#");
    let mut random = Random(7);
    let mut gateway = Gateway::start(&config(&broker.url(), &address));
    let mut messages = Vec::new();
    for kill in 0..kills.unwrap_or(KILLS) {
        // No event is waited for: any moment is as good as any other, the start included.
        thread::sleep(random.millis(500));
        if kill % RESTART_EVERY == RESTART_EVERY - 1 {
            broker.stop();
            thread::sleep(random.millis(400));
            gateway.kill();
            gateway.start_again();
            broker.start_again();
        } else {
            gateway.kill();
            gateway.start_again();
        }
        messages.extend(consumer.drain(Duration::ZERO));
    }
    gateway.wait_until_ready(LONG);
    gateway.wait_for_metric("edge_mqtt_connected", LONG, |up| up > 0.0);
    let (status, log) = gateway.terminate(LONG);
    assert!(status.success(), "{}", log.text());
    messages.extend(consumer.drain(Duration::from_secs(3)));

    let events = messages.iter().filter(|message| message.json()["event"] == "unclean_start");
    assert!(events.count() > 20, "hardly any start was an unclean one");
    let mut capture = Capture::default();
    let stamped = messages.iter().filter(|message| !message.topic.ends_with("/status"));
    stamped.for_each(|message| capture.take(message));
    let (is_clean, report) = capture.audit();
    assert!(is_clean, "{report}");
}

/// A gateway that reads so much that something is always under way.
fn config(broker: &str, address: &str) -> String {
    let plcs: String = (0..4)
        .map(|n| {
            format!(
                "[[plc]]\nname = \"p{n}\"\nmodel = \"M241\"\naddress = \"{address}\"\nscan = \"50ms\"\n\
                 [[plc.tag]]\nname = \"life\"\nat = \"%MW0\"\ntype = \"WORD\"\n"
            )
        })
        .collect();
    format!("[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{broker}\"]\n{plcs}")
}

/// A PLC in a process of its own, and its address.
fn simulate() -> (Process, String) {
    let mut simulate = Command::new(Gateway::program());
    simulate.args(["simulate", "--listen", "127.0.0.1:0"]);
    let mut process = Process::start(&mut simulate);
    let mut line = String::new();
    BufReader::new(process.stdout()).read_line(&mut line).expect("it says where it listens");
    let mut words = line.split_whitespace();
    let address: Option<SocketAddr> =
        words.find_map(|word| word.trim_end_matches(',').parse().ok());
    (process, address.expect("it says where it listens").to_string())
}
