//! The gateway beside its floor, under the load of the published comparisons, in one run.
//!
//! `cargo xtask bench` builds both in release and runs this. Each is measured in turns, so that a
//! busy neighbour hits both. Prints a table and the ratio; docs/performance.md keeps the result.
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
    reason = "a measurement may stop on the spot and prints its result"
)]

mod load {
    pub(crate) mod plc;
    pub(crate) mod process;
    pub(crate) mod subscriber;

    /// Wall time in microseconds since 1970: producer and consumer are on one machine.
    pub(crate) fn now_micros() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_micros() as u64
    }

    /// The moment as a positive DINT, in 100 µs.
    pub(crate) fn stamp(micros: u64) -> u32 {
        ((micros / 100) & 0x7fff_ffff) as u32
    }
}

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::Mosquitto;
use load::process::Process;
use load::subscriber::Subscriber;

/// One workload of the comparison.
#[derive(Debug)]
struct Workload {
    name: &'static str,
    plcs: usize,
    tags: usize,
    period: Duration,
}

const W2: Workload = Workload { name: "W2", plcs: 10, tags: 200, period: Duration::from_secs(1) };
const W3: Workload = Workload { name: "W3", plcs: 50, tags: 500, period: Duration::from_secs(1) };
const WINDOW: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(3);
const TURNS: usize = 3;

/// What one turn of one program gave.
#[derive(Debug)]
struct Turn {
    cpu_per_million: f64,
    on_time: f64,
    p50: f64,
    p99: f64,
    peak: f64,
    first_message: Duration,
}

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("load: run by `cargo xtask bench`, which builds what it measures");
        return;
    }
    let this = std::env::current_exe().expect("this program has a path");
    let deps = this.parent().expect("it lies in a directory");
    let gateway = deps.with_file_name("edge-gateway");
    let floor = newest(deps, "floor-");
    let wanted: Vec<String> = std::env::args().filter(|arg| arg.starts_with('W')).collect();
    for workload in [W2, W3] {
        if wanted.is_empty() || wanted.iter().any(|name| name == workload.name) {
            compare(&workload, &floor, &gateway);
        }
    }
}

/// The program that was built last among those whose name begins so.
fn newest(directory: &Path, prefix: &str) -> PathBuf {
    let files = std::fs::read_dir(directory).expect("it is our own");
    let programs = files.flatten().filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(prefix) && !name.contains('.')
    });
    let newest = programs.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok());
    newest.expect("`cargo xtask bench` has built it").path()
}

fn compare(workload: &Workload, floor: &Path, gateway: &Path) {
    let ports = load::plc::start(workload.plcs, Duration::ZERO).expect("ports are free");
    let broker = Mosquitto::start();
    let config = configuration(workload, &ports, broker.port());
    println!("\n{}: {} PLCs x {} tags", workload.name, workload.plcs, workload.tags);
    println!("program  turn  CPU-s/10^6 values  on time %  p50 ms  p99 ms  peak MB  first ms");
    let mut cpu = [Vec::new(), Vec::new()];
    for turn in 1..=TURNS {
        let mut floor_args = vec![
            broker.port().to_string(),
            workload.tags.to_string(),
            workload.period.as_millis().to_string(),
        ];
        floor_args.extend(ports.iter().map(u16::to_string));
        let gateway_args = ["run".to_owned(), config.display().to_string()];
        for (index, (name, program, args)) in
            [("floor", floor, &floor_args[..]), ("gateway", gateway, &gateway_args[..])]
                .into_iter()
                .enumerate()
        {
            let result = measure(workload, broker.port(), program, args);
            println!(
                "{name:8} {turn:4}  {:17.2}  {:9.1}  {:6.1}  {:6.1}  {:7.1}  {:8}",
                result.cpu_per_million,
                result.on_time,
                result.p50,
                result.p99,
                result.peak,
                result.first_message.as_millis()
            );
            cpu[index].push(result.cpu_per_million);
        }
    }
    let [floor, gateway] = cpu.map(median);
    println!("{}: gateway / floor = {:.2} of its CPU (medians)", workload.name, gateway / floor);
}

fn measure(workload: &Workload, broker: u16, program: &Path, args: &[String]) -> Turn {
    let subscriber = Subscriber::start(broker);
    let started = Instant::now();
    let process = Process::start(program, args);
    let first = subscriber.first(Duration::from_secs(10)).expect("a message arrives");
    std::thread::sleep(SETTLE);
    let before = process.cpu_seconds();
    let mut arrived = subscriber.measure(WINDOW);
    let cpu = process.cpu_seconds() - before;
    let expected = (workload.plcs * workload.tags) as f64 * WINDOW.as_secs_f64()
        / workload.period.as_secs_f64();
    Turn {
        cpu_per_million: cpu / arrived.values as f64 * 1e6,
        on_time: 100.0 * arrived.values as f64 / expected,
        p50: arrived.percentile(0.5),
        p99: arrived.percentile(0.99),
        peak: process.peak_megabytes(),
        first_message: first - started,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes the gateway.toml of a workload: INT, UINT, DINT, REAL repeated from `%MW0`.
fn configuration(workload: &Workload, ports: &[u16], broker: u16) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("edge-load-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory takes files");
    let mut toml = format!(
        "[gateway]\nid = \"load\"\nstate_dir = \"{}\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1:{broker}\"]\n[metrics]\nlisten = []\n",
        dir.display()
    );
    for (plc, port) in ports.iter().enumerate() {
        let period = workload.period.as_millis();
        write!(
            toml,
            "[[plc]]\nname = \"plc{plc}\"\nmodel = \"M241\"\naddress = \"127.0.0.1:{port}\"\nscan = \"{period}ms\"\n"
        )
        .expect("a string takes text");
        for quad in 0..workload.tags / 4 {
            for (offset, kind, iec) in
                [(0, "i16", "INT"), (1, "u16", "UINT"), (2, "i32", "DINT"), (4, "f32", "REAL")]
            {
                let word = quad * 6 + offset;
                writeln!(
                    toml,
                    "[[plc.tag]]\nname = \"t{quad}_{kind}\"\nat = \"%MW{word}\"\ntype = \"{iec}\""
                )
                .expect("a string takes text");
            }
        }
    }
    let file = dir.join(format!("{}.toml", workload.name));
    std::fs::write(&file, toml).expect("the temporary directory takes files");
    file
}
