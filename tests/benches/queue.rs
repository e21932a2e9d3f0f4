//! Speed of the queue on disk, and the start of the program with a backlog: `cargo xtask bench queue`.
//! Uses a new directory on the file system of temporary files.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement stops on the spot and prints"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Gateway, Port};
use gateway::metrics::{Metrics, QueueMetrics};
use gateway::model::{Quality, Record, Sample, UnixTime, Value};
use gateway::queue::storage::DirStorage;
use gateway::queue::{ConfigNames, Entry, PlcNames, Queue, QueueIdentity, QueuedEntry, TopicId};
use provisioning::config::{self, LoadedConfig};

fn main() {
    let dir = e2e::temp_dir();
    let nobody = (Port::reserve(), Port::reserve());
    let (broker, plc) = (nobody.0.address(), nobody.1.address());
    let toml = format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://{broker}\"]\n[queue]\n\
         max_size = \"2GiB\"\nmin_free = \"64MiB\"\n[[plc]]\nname = \"p\"\nmodel = \"M241\"\n\
         address = \"{plc}\"\n[[plc.tag]]\nname = \"t\"\nat = \"%MW0\"\ntype = \"INT\"\n"
    );
    let loaded = config::load(&dir.write("gateway.toml", &toml)).expect("the configuration holds");
    let state = dir.path().join("state");
    let place = state.join("queue");
    fs::create_dir(&state).expect("its own directory is writable");
    fill(&loaded, &place, test_settings::BACKLOG.number() << 20);
    forget_peak();
    let start = Instant::now();
    let mut queue = open(&loaded, &place);
    println!("start with a backlog: {:?}, {} KiB of memory at most", start.elapsed(), memory());
    let (took, samples) = replay(&mut queue, 5_000_000);
    println!("replay: {:.0} samples/s, {} KiB of memory at most", rate(samples, took), memory());
    drop(queue);
    for _ in 0..3 {
        start_program(&state, &toml);
    }
}

/// Starts the program with the backlog; as root, with an empty page cache.
fn start_program(state: &Path, toml: &str) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let synced = Command::new("sync").status().expect("it exists");
    let is_cold = synced.success() && fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    let start = Instant::now();
    let mut gateway = Gateway::start_on(state, toml);
    gateway.wait_until_ready(PATIENCE);
    println!(
        "start of the program, files {}: {:?}, {} KiB of memory at most, {:.0} MiB stored",
        if is_cold { "on the disk only" } else { "in the memory of the system" },
        start.elapsed(),
        gateway.peak_memory() >> 10,
        gateway.metric("edge_queue_bytes").expect("it tells") / 1_048_576.0,
    );
    gateway.kill();
}

fn fill(loaded: &LoadedConfig, place: &Path, bytes: u64) {
    let mut queue = open(loaded, place);
    let tags = u16::try_from(test_settings::SAMPLES.number()).expect("a PLC has not as many tags");
    let (start, mut samples) = (Instant::now(), 0);
    while queue.stats().bytes < bytes {
        for number in 0..100 {
            queue.push(TopicId::new(1), record(number, tags), Instant::now());
            samples += u64::from(tags);
        }
        turn(&mut queue);
    }
    println!("append: {:.0} samples/s, {:?}", rate(samples, start.elapsed()), queue.stats());
    println!("bytes per sample: {:.2}", ratio(queue.stats().bytes, samples));
    drop(queue);
}

fn replay(queue: &mut Queue, most: u64) -> (Duration, u64) {
    queue.rewind(Instant::now());
    let (start, mut samples) = (Instant::now(), 0);
    while samples < most && !queue.is_empty() {
        let mut ids = Vec::new();
        let mut send = |queued: QueuedEntry<'_>| {
            if let Entry::Record(record) = queued.entry {
                samples += u64::try_from(record.samples.len()).expect("it is small");
            }
            ids.push(queued.id);
            Ok(())
        };
        while queue.hand_out(Instant::now(), &mut send).is_some() {}
        for id in ids {
            queue.acknowledge(id, Instant::now());
        }
        turn(queue);
    }
    (start.elapsed(), samples)
}

fn turn(queue: &mut Queue) {
    while let Some(job) = queue.next_job(Instant::now()) {
        queue.on_job_done(job.run(), Instant::now());
    }
}

fn record(number: i64, tags: u16) -> Entry {
    let at = UnixTime::from_micros(1_600_000_000_000_000 + number);
    let sample = |tag: u16| Sample {
        tag: 0,
        value: Some(Value::Int(number * 100 + i64::from(tag))),
        quality: Quality::Good,
        at,
    };
    Entry::Record(Record { plc: 0, at, clock: None, samples: (0..tags).map(sample).collect() })
}

fn open(loaded: &LoadedConfig, place: &Path) -> Queue {
    let identity = QueueIdentity {
        names: ConfigNames {
            topics: vec!["edge/g/event".into(), "edge/g/data/p".into()],
            plcs: vec![PlcNames { name: "p".to_owned(), tags: ["t"].into_iter().collect() }],
        },
        events: TopicId::new(0),
        epoch: "abcdef".into(),
        boot: String::new(),
    };
    let files = DirStorage::open(place).expect("no other queue uses the directory");
    Queue::open(files, &loaded.config.queue, identity, metrics(loaded), Instant::now())
}

fn metrics(loaded: &LoadedConfig) -> QueueMetrics {
    Metrics::new(&loaded.config, &loaded.hash).expect("a registry of its own").queue
}

/// Resets the peak of [`memory`].
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux knows it (proc(5))");
}

/// Returns the peak of the resident memory, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux provides the file");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}
