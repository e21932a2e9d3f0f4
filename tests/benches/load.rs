//! Compares the gateway with its floor and other gateways, under the load of the published comparisons,
//! in one run.
//!
//! `cargo xtask bench` builds the programs in release, installs the peers and runs this. The programs
//! take turns, so that other load on the machine affects all of them. Prints a table of medians and
//! writes one JSON line per cell; docs/performance.md keeps the results.
//!
//! `load [WORKLOAD].. [--only NAME].. [--peers DIR] [--turns N] [--seconds N] [--json FILE]`
#![expect(
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
    clippy::unnecessary_wraps,
    reason = "a measurement may stop on the spot and prints its result"
)]

mod load {
    pub(crate) mod clock;
    pub(crate) mod contender;
    pub(crate) mod hub;
    pub(crate) mod plc;
    pub(crate) mod process;
    pub(crate) mod report;
    pub(crate) mod subscriber;
    pub(crate) mod workload;
}

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::Mosquitto;
use load::contender::{Contender, OWN_PROGRAMS, PEERS, ProgramPaths, Task};
use load::hub::Hub;
use load::plc::Plcs;
use load::process::Processes;
use load::report::{Cell, Turn};
use load::subscriber::Subscriber;
use load::workload::{self, Workload};

/// Before the measured window: connections, first messages, and the warm-up of interpreters.
const SETTLE: Duration = Duration::from_secs(3);
/// Added for each process, since starting fifty interpreters takes time.
const SETTLE_PER_PROCESS: Duration = Duration::from_millis(200);
/// A program that has published nothing by then has failed.
const FIRST_VALUE_TIMEOUT: Duration = Duration::from_secs(60);

/// Options of a run.
#[derive(Debug)]
struct LoadOptions {
    workloads: Vec<Workload>,
    contenders: Vec<Contender>,
    places: ProgramPaths,
    turns: usize,
    window: Duration,
    json: Option<PathBuf>,
}

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("load: run by `cargo xtask bench`, which builds what it measures");
        return;
    }
    let options = options();
    for workload in &options.workloads {
        let cells = compare(workload, &options);
        load::report::print(workload, &cells);
        if let Some(path) = &options.json {
            load::report::append(path, workload, &cells, options.window);
        }
    }
}

fn options() -> LoadOptions {
    let this = std::env::current_exe().expect("this program has a path");
    let deps = this.parent().expect("it lies in a directory");
    let mut args = std::env::args().skip(1).peekable();
    let (mut names, mut only) = (Vec::new(), Vec::new());
    let (mut peers, mut json) = (None, None);
    let (mut turns, mut seconds) = (3, 20);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("`cargo xtask bench` gives a value");
        match arg.as_str() {
            "--bench" => {}
            "--only" => only.push(value()),
            "--peers" => peers = Some(PathBuf::from(value())),
            "--turns" => turns = value().parse().expect("a number"),
            "--seconds" => seconds = value().parse().expect("a number"),
            "--json" => json = Some(PathBuf::from(value())),
            _ => names.push(arg),
        }
    }
    let contenders = OWN_PROGRAMS.into_iter().chain(PEERS.into_iter().filter(|_| peers.is_some()));
    let is_wanted = |list: &[String], name| list.is_empty() || list.iter().any(|n| n == name);
    LoadOptions {
        workloads: workload::ALL.into_iter().filter(|w| is_wanted(&names, w.name)).collect(),
        contenders: contenders.filter(|c| is_wanted(&only, c.name)).collect(),
        places: ProgramPaths {
            floor: newest(deps, "floor-"),
            gateway: deps.with_file_name("edge-gateway"),
            peers: peers.unwrap_or_default(),
        },
        turns,
        window: Duration::from_secs(seconds),
        json,
    }
}

/// Returns the newest program whose name has this prefix.
fn newest(directory: &Path, prefix: &str) -> PathBuf {
    let files = std::fs::read_dir(directory).expect("it is our own");
    let programs = files.flatten().filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(prefix) && !name.contains('.')
    });
    let newest = programs.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok());
    newest.expect("`cargo xtask bench` has built it").path()
}

/// Measures all programs, in turns.
fn compare(workload: &Workload, options: &LoadOptions) -> Vec<Cell> {
    let plcs = load::plc::start(workload.plcs, workload.delay).expect("ports are free");
    let mut cells: Vec<Cell> = options.contenders.iter().map(|c| Cell::new(c.name)).collect();
    for turn in 1..=options.turns {
        for (contender, cell) in options.contenders.iter().zip(&mut cells) {
            if cell.failure.is_some() {
                continue;
            }
            match measure(workload, &plcs, contender, options) {
                Ok(result) => {
                    println!("{} turn {turn} {}: {result}", workload.name, contender.name);
                    cell.turns.push(result);
                }
                Err(reason) => {
                    println!("{} {}: {reason}", workload.name, contender.name);
                    cell.failure = Some(reason);
                }
            }
        }
    }
    cells
}

/// Measures one turn, with a new broker and directory: nothing of an earlier turn remains.
fn measure(
    workload: &Workload,
    plcs: &Plcs,
    contender: &Contender,
    options: &LoadOptions,
) -> Result<Turn, String> {
    // Without it Mosquitto delays a message until the previous one is acknowledged: 40 ms.
    let broker = Mosquitto::builder().line("set_tcp_nodelay true").start();
    let dir = e2e::temp_dir();
    let hub = Hub::start(broker.port());
    let task =
        Task { workload, plcs: &plcs.ports, broker: broker.port(), hub: &hub, dir: dir.path() };
    let commands = (contender.prepare)(&task, &options.places)?;
    let subscriber = Subscriber::start(broker.port());
    let started = Instant::now();
    let processes = Processes::start(commands);
    let Some(first) = subscriber.first(FIRST_VALUE_TIMEOUT) else {
        return Err(format!("no value within {} s", FIRST_VALUE_TIMEOUT.as_secs()));
    };
    std::thread::sleep(SETTLE + SETTLE_PER_PROCESS * processes.len() as u32);
    let (cpu, requests) = (processes.cpu_seconds(), plcs.requests());
    let mut arrived = subscriber.measure(options.window);
    let (cpu, requests) = (processes.cpu_seconds() - cpu, plcs.requests() - requests);
    if arrived.values == 0 {
        return Err("it has stopped publishing".to_owned());
    }
    let values = arrived.values as f64;
    let seconds = options.window.as_secs_f64();
    let memory = processes.memory();
    Ok(Turn {
        cpu_per_million: cpu / values * 1e6,
        cpu_percent: 100.0 * cpu / seconds,
        values_per_second: values / seconds,
        on_time: workload.expected().map(|expected| 100.0 * values / seconds / expected),
        p50_ms: arrived.percentile(0.5),
        p99_ms: arrived.percentile(0.99),
        peak_mb: memory.peak,
        proportional_mb: memory.proportional,
        processes: processes.len() as f64,
        requests_per_cycle: requests as f64 / (values / workload.tags as f64),
        bytes_per_value: arrived.bytes as f64 / values,
        wrong: arrived.wrong as f64,
        first_ms: (first - started).as_secs_f64() * 1e3,
        load: load_average(),
    })
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").expect("there is a /proc");
    text.split_whitespace().next().and_then(|one| one.parse().ok()).expect("a number")
}
