//! The time from a command to its reply under load, and that of fdatasync on the same disk.
//!
//! 50 PLCs with 500 tags are read once a second (W3), and one more PLC that takes 2 ms for each answer
//! is written to: one REAL, one command after the other, through Mosquitto. A command waits for its
//! record on disk (one fdatasync), a write and a read-back. Between the commands, the bench writes and
//! syncs a file of its own in the same directory. `cargo xtask bench write` builds the programs.
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
mod plc;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use e2e::Mosquitto;
use load::contender::{OWN_PROGRAMS, ProgramPaths, Task};
use load::hub::Hub;
use load::plc::Plcs;
use load::process::Processes;
use load::subscriber::Subscriber;
use load::workload;
use rumqttc::{Client, Event, MqttOptions, NetworkOptions, Packet, QoS};

/// Time for connections and first messages.
const SETTLE: Duration = Duration::from_secs(3);
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that the written PLC takes for an answer.
const ANSWER_TIME: Duration = Duration::from_millis(2);
/// Pause between two commands, so that they fall into all parts of a cycle.
const PAUSE: Duration = Duration::from_millis(23);
/// Length of a record of a command, roughly.
const RECORD: [u8; 200] = [b'x'; 200];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("write: run by `cargo xtask bench write`, which builds what it measures");
        return;
    }
    let number = |name: &str, default: u64| -> u64 {
        let at = arguments.iter().position(|word| word == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let (turns, seconds) = (number("--turns", 3), number("--seconds", 20));
    let workload = workload::ALL.iter().find(|w| w.name == "W3").expect("it is one of them");
    let plcs = load::plc::start(workload.plcs, workload.delay).expect("ports are free");
    println!("| what | p50 ms | p99 ms | max ms | number |");
    println!("|---|---|---|---|---|");
    for _ in 0..turns {
        let (replies, syncs) = measure(workload, &plcs, Duration::from_secs(seconds));
        print("command to reply", replies);
        print("fdatasync of the same disk", syncs);
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[index].as_secs_f64() * 1e3
    };
    println!("| {what} | {:.1} | {:.1} | {:.1} | {} |", at(0.5), at(0.99), at(1.0), times.len());
}

/// Returns the times from command to reply, and those of fdatasync.
fn measure(
    workload: &workload::Workload,
    plcs: &Plcs,
    window: Duration,
) -> (Vec<Duration>, Vec<Duration>) {
    // Without it Mosquitto delays a message until the previous one is acknowledged: 40 ms.
    let broker = Mosquitto::builder().line("set_tcp_nodelay true").start();
    let hub = Hub::start(broker.port());
    let dir = e2e::temp_dir();
    let task =
        Task { workload, plcs: &plcs.ports, broker: broker.port(), hub: &hub, dir: dir.path() };
    let this = std::env::current_exe().expect("this program has a path");
    let deps = this.parent().expect("it lies in a directory");
    let gateway = deps.with_file_name("edge-gateway");
    let places = ProgramPaths { floor: PathBuf::new(), gateway, peers: PathBuf::new() };
    let contender =
        OWN_PROGRAMS.iter().find(|contender| contender.name == "gateway").expect("it is ours");
    let commands = (contender.prepare)(&task, &places).expect("there is nothing to fail");
    add_writable_plc(&dir.path().join("gateway.toml"), plc::start(ANSWER_TIME));
    let subscriber = Subscriber::start(broker.port());
    let (client, replies) = connect(broker.port());
    let _gateway = Processes::start(commands);
    subscriber.first(MESSAGE_TIMEOUT).expect("values come");
    thread::sleep(SETTLE);
    drop(subscriber);
    let mut synced = File::create(dir.path().join("synced")).expect("the directory takes files");
    let (mut took, mut syncs) = (Vec::new(), Vec::new());
    let end = Instant::now() + window;
    while Instant::now() < end {
        let number = took.len();
        let value = f64::from(u32::try_from(number).expect("few")) / 2.0;
        let command = format!("{{\"id\":\"{number}\",\"write\":{{\"setpoint\":{value}}}}}");
        let sent = Instant::now();
        client.publish("edge/load/set/written", QoS::AtLeastOnce, false, command).expect("room");
        let (arrived, reply) = replies.recv_timeout(MESSAGE_TIMEOUT).expect("a reply");
        assert!(reply.contains("\"state\":\"done\""), "{reply}");
        took.push(arrived - sent);
        syncs.push(sync(&mut synced));
        thread::sleep(PAUSE);
    }
    (took, syncs)
}

/// Appends a record and returns the time until it is on disk.
fn sync(file: &mut File) -> Duration {
    let start = Instant::now();
    file.write_all(&RECORD).expect("the disk has room");
    file.sync_data().expect("the disk works");
    start.elapsed()
}

fn add_writable_plc(config: &Path, port: u16) {
    let mut file = OpenOptions::new().append(true).open(config).expect("it was written");
    write!(
        file,
        "[[plc]]\nname = \"written\"\nmodel = \"M241\"\naddress = \"127.0.0.1:{port}\"\n\
         [[plc.tag]]\nname = \"setpoint\"\nat = \"%MW20\"\ntype = \"REAL\"\nwrite = {{}}\n"
    )
    .expect("the disk has room");
}

/// Connects and subscribes to the replies; returns them with the times of their arrival.
fn connect(port: u16) -> (Client, Receiver<(Instant, String)>) {
    let mut options = MqttOptions::new("commander", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 10);
    // Without it a command waits until the broker's kernel acknowledges the one before: 40 ms.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    connection.eventloop.set_network_options(network);
    client.subscribe("edge/load/reply/written", QoS::AtLeastOnce).expect("the queue has room");
    let (sender, replies) = mpsc::channel();
    let (confirmed, wait) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let _ = confirmed.try_send(());
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let text = String::from_utf8_lossy(&publish.payload).into_owned();
                    if sender.send((Instant::now(), text)).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    wait.recv().expect("the broker confirms");
    (client, replies)
}
