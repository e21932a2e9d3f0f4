//! Promise 3: `kill -9` at any moment, with a broker that restarts now and then: everything that was
//! taken is delivered, stored, or within the window that is announced.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use e2e::{Gateway, Message, Mosquitto, Process};

const LONG: Duration = Duration::from_secs(60);
/// `E2E_KILLS` makes it more.
const KILLS: u64 = 200;
/// The broker goes away and comes back with every one of these.
const RESTART_EVERY: u64 = 25;

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
        thread::sleep(Duration::from_millis(random.below(500)));
        if kill % RESTART_EVERY == RESTART_EVERY - 1 {
            broker.stop();
            thread::sleep(Duration::from_millis(random.below(400)));
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
    let verdict = audit(&messages);
    let report = String::from_utf8_lossy(&verdict.stdout).into_owned();
    assert!(verdict.status.success(), "{report}");
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

/// Runs `edge-gateway audit` over what arrived.
fn audit(messages: &[Message]) -> Output {
    let mut audit = Command::new(Gateway::program())
        .args(["audit", "--capture", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is there");
    let mut input = audit.stdin.take().expect("it is piped");
    for message in messages {
        if message.topic.ends_with("/status") {
            continue;
        }
        let line = serde_json::json!({"topic": message.topic, "payload": message.json()});
        writeln!(input, "{line}").expect("it reads");
    }
    drop(input);
    audit.wait_with_output().expect("it ends")
}

/// Moments that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
