//! The age of live values during the replay of a backlog, and without one.
//!
//! 50 PLCs with 500 tags, once a second (W3). Mosquitto is on loopback, 10 ms away in each direction, or
//! over a simulated mobile link: 15 ms in each direction plus a random delay with a mean of 30 ms. The
//! link is closed for some seconds and opened again. From the first message of the backlog to the last,
//! the bench counts its values per second and the age of every value read meanwhile.
//! `cargo xtask bench replay` builds the programs.
#![expect(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::unwrap_in_result,
    reason = "a measurement may stop on the spot, prints its result, and shares parts with `load`"
)]

#[path = "../load"]
mod load {
    pub(crate) mod clock;
    pub(crate) mod contender;
    pub(crate) mod hub;
    pub(crate) mod plc;
    pub(crate) mod process;
    pub(crate) mod subscriber;
    pub(crate) mod workload;
}
mod relay;

use std::path::PathBuf;
use std::time::Duration;

use e2e::Mosquitto;
use load::contender::{OWN_PROGRAMS, ProgramPaths, Task};
use load::hub::Hub;
use load::plc::Plcs;
use load::process::Processes;
use load::subscriber::{Arrived, Subscriber};
use load::workload;
use relay::Relay;

/// Time for connections and first messages.
const SETTLE: Duration = Duration::from_secs(3);
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// The backlog ends when none of its messages has arrived for this time.
const QUIET: Duration = Duration::from_secs(2);
/// Name, delay of each direction and mean random delay of each link.
const LINKS: [(&str, Duration, Duration); 3] = [
    ("loopback", Duration::ZERO, Duration::ZERO),
    ("20 ms away", Duration::from_millis(10), Duration::ZERO),
    ("over the air", Duration::from_millis(15), Duration::from_millis(30)),
];

/// Result of one turn.
#[derive(Debug)]
struct Turn {
    before: Arrived,
    beside: Arrived,
    backlog: u64,
    took: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("replay: run by `cargo xtask bench replay`, which builds what it measures");
        return;
    }
    let number = |name: &str, default: u64| -> u64 {
        let at = arguments.iter().position(|word| word == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let (turns, seconds) = (number("--turns", 3), number("--seconds", 20));
    let workload = workload::ALL.iter().find(|w| w.name == "W3").expect("it is one of them");
    let plcs = load::plc::start(workload.plcs, workload.delay).expect("ports are free");
    println!(
        "| way | live p50 ms, before | beside | live p99 ms, before | beside | backlog | values/s |"
    );
    println!("|{}", "---|".repeat(7));
    for _ in 0..turns {
        for (way, delay, jitter) in LINKS {
            let relay = |port| Relay::start(port, delay, jitter);
            let mut turn = measure(workload, &plcs, relay, Duration::from_secs(seconds));
            println!(
                "| {way} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.0} |",
                turn.before.percentile(0.5),
                turn.beside.percentile(0.5),
                turn.before.percentile(0.99),
                turn.beside.percentile(0.99),
                turn.backlog,
                turn.backlog as f64 / turn.took.as_secs_f64(),
            );
        }
    }
}

fn measure(
    workload: &workload::Workload,
    plcs: &Plcs,
    relay: impl Fn(u16) -> Relay,
    outage: Duration,
) -> Turn {
    // Without it Mosquitto delays a message until the previous one is acknowledged: 40 ms.
    let broker = Mosquitto::builder().line("set_tcp_nodelay true").start();
    let (relay, hub) = (relay(broker.port()), Hub::start(broker.port()));
    let dir = e2e::temp_dir();
    let task = Task { workload, plcs: &plcs.ports, broker: relay.port, hub: &hub, dir: dir.path() };
    let this = std::env::current_exe().expect("this program has a path");
    let deps = this.parent().expect("it lies in a directory");
    let gateway = deps.with_file_name("edge-gateway");
    let places = ProgramPaths { floor: PathBuf::new(), gateway, peers: PathBuf::new() };
    let contender =
        OWN_PROGRAMS.iter().find(|contender| contender.name == "gateway").expect("it is ours");
    let subscriber = Subscriber::start(broker.port());
    let commands = (contender.prepare)(&task, &places).expect("there is nothing to fail");
    let _gateway = Processes::start(commands);
    subscriber.first(MESSAGE_TIMEOUT).expect("values come");
    std::thread::sleep(SETTLE);
    let before = subscriber.measure(outage);
    relay.shut();
    std::thread::sleep(outage);
    relay.open();
    let (beside, messages, took) = catch_up(&subscriber);
    Turn { before, beside, backlog: messages * workload.tags as u64, took }
}

/// Returns the live values that were read and arrived during the backlog, the number of its messages
/// and its duration.
fn catch_up(subscriber: &Subscriber) -> (Arrived, u64, Duration) {
    let (mut messages, mut from, mut to) = (0, 0, 0);
    let mut live = Vec::new();
    let mut patience = MESSAGE_TIMEOUT;
    while let Some((at, publish)) = subscriber.next(patience) {
        if messages > 0 && at > to + QUIET.as_micros() as u64 {
            break;
        }
        let payload = str::from_utf8(&publish.payload).expect("it is JSON");
        if payload.contains("\"history\":true") {
            from = if messages == 0 { at } else { from };
            (messages, to, patience) = (messages + 1, at, QUIET);
        } else if messages > 0 {
            live.push((at, publish));
        }
    }
    let mut beside = Arrived::default();
    for (at, publish) in live.iter().filter(|(at, _)| *at <= to) {
        beside.count(&publish.topic, &publish.payload, *at);
        // Values read before are old because the link was closed.
        while beside.ages.last().is_some_and(|age| at - u64::from(*age) * 100 < from) {
            beside.ages.pop();
        }
    }
    (beside, messages, Duration::from_micros(to - from))
}
