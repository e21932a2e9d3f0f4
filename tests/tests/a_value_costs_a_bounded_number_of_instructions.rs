//! Speed, measured independently of the load of the machine: valgrind counts the instructions per
//! value from registers to JSON.
//!
//! The bound is for the development profile, in which tests are built. It is as repeatable as in a
//! release build and as sensitive to an extra copy or allocation, but about fifteen times as high.
//! docs/performance.md says how to profile.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{GatewayConfig, PlcConfig, TempDir, temp_dir};
use gateway::metrics::Metrics;
use gateway::model::{Cycle, ReadFailure, ReadResult, Registers, TagLocation, UnixTime};
use gateway::payload::{Encoder, MessageStamp};
use gateway::queue::storage::DirStorage;
use gateway::queue::{ConfigNames, Entry, PlcNames, Queue, QueueIdentity, TopicId};
use gateway::sampling::Sampler;
use provisioning::config::{self, LoadedConfig};
use provisioning::plan::{ReadRequest, plan};

/// Most instructions for one value: the measured number plus 5 %. Lower it with every improvement.
const BOUND: f64 = 3_702.0;
const TAGS: u16 = 200;
const CYCLES: u16 = 50;

/// Test that runs [`pass`], which is counted, in a process of its own.
const COUNTED: &str = "two_hundred_tags_arrive_in_every_message";

/// The stages of one PLC between its task and that of the broker.
struct Pipeline {
    /// Requests of a cycle.
    requests: Arc<[ReadRequest]>,
    /// Where the value of each tag lies in the answers.
    locations: Arc<[Result<TagLocation, ReadFailure>]>,
    sampler: Sampler,
    queue: Queue,
    encoder: Encoder,
    /// Directory of the queue.
    _dir: TempDir,
}

#[test]
fn a_value_costs_no_more_instructions_than_its_bound() {
    let dir = temp_dir();
    let counts = dir.path().join("callgrind.out");
    let run = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--collect-atstart=no")
        .arg("--toggle-collect=*::pass")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe().expect("a test knows its own path"))
        .args(["--exact", COUNTED, "--test-threads=1"])
        .output()
        .expect("valgrind is installed; `cargo xtask test` does it");
    assert!(run.status.success(), "{run:?}");
    let counts = std::fs::read_to_string(counts).expect("callgrind has written its counts");
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u32 = total.and_then(|total| total.parse().ok()).expect("one number");

    let per_value = f64::from(total) / f64::from(TAGS) / f64::from(CYCLES);
    println!("{per_value:.0} instructions per value, at most {BOUND:.0}");
    assert!(
        per_value > BOUND / 10.0,
        "{per_value:.0}: not everything was counted; is it stripped?"
    );
    assert!(per_value <= BOUND, "{per_value:.0} instructions per value, at most {BOUND:.0}");
}

#[test]
fn two_hundred_tags_arrive_in_every_message() {
    let mut pipeline = pipeline();
    let start = Instant::now();
    // Results are checked afterwards: memory freed by a check would be consolidated by the next
    // allocation, which would be counted.
    let passes = (0..CYCLES).map(|number| {
        let cycle = cycle(&pipeline, number);
        (number, pass(&mut pipeline, &cycle, start + Duration::from_secs(number.into())))
    });
    for (number, message) in passes.collect::<Vec<_>>() {
        let message: serde_json::Value = serde_json::from_slice(&message).expect("it is JSON");
        let members = message.as_object().expect("a flat message is an object");
        assert_eq!(members.keys().filter(|key| key.starts_with('t')).count(), usize::from(TAGS));
        assert_eq!(message["t49_i32"], i32::from(number) * 0x1_0001);
        assert_eq!(message["gateway"]["seq"], number);
    }
}

/// Passes one cycle through: sampled, queued, encoded, acknowledged.
#[inline(never)]
fn pass(pipeline: &mut Pipeline, cycle: &Cycle, now: Instant) -> Vec<u8> {
    let record = pipeline.sampler.on_cycle(cycle, now).expect("the DINTs change in every cycle");
    pipeline.queue.push(TopicId::new(1), Entry::Record(record), now).expect("there is room");
    let encoder = &pipeline.encoder;
    let sent = pipeline.queue.hand_out(now, |queued| {
        let Entry::Record(record) = queued.entry else { unreachable!("nothing else was pushed") };
        let seq = queued.seq;
        let stamp = MessageStamp { epoch: "abcdef", seq, history: false, corrected: false };
        Ok((queued.id, encoder.encode(record, &stamp)))
    });
    let (id, message) = sent.expect("it has just been pushed").expect("it is accepted");
    pipeline.queue.acknowledge(id, now);
    message
}

/// A PLC of the workload W2: INT, UINT, DINT, REAL in turn.
fn pipeline() -> Pipeline {
    let mut plc = PlcConfig::new("plc0", "M241", "127.0.0.1");
    for quad in 0..TAGS / 4 {
        for (offset, kind, iec) in
            [(0, "i16", "INT"), (1, "u16", "UINT"), (2, "i32", "DINT"), (4, "f32", "REAL")]
        {
            let at = format!("%MW{}", quad * 6 + offset);
            plc = plc.tag(&format!("t{quad}_{kind}"), &at, iec);
        }
    }
    let toml = GatewayConfig::with_broker("g", "mqtt://127.0.0.1").plc(plc).to_string();
    let file = temp_dir();
    let loaded = config::load(&file.write("gateway.toml", &toml));
    let LoadedConfig { config, hash, .. } = loaded.expect("the configuration holds");
    let metrics = Metrics::new(&config, &hash).expect("a registry of its own");
    let plc = &config.plcs[0];
    let plan = plan(plc);
    let tags = plc.tags.iter().map(|tag| tag.name.clone()).collect();
    let identity = QueueIdentity {
        names: ConfigNames {
            topics: vec!["edge/g/event".into(), "edge/g/data/plc0".into()],
            plcs: vec![PlcNames { name: plc.name.clone(), tags }],
        },
        events: TopicId::new(0),
        epoch: "abcdef".into(),
        boot: String::new(),
    };
    let requests: Arc<[_]> = plan.classes[0].requests.clone().into();
    let location = |tag: u16| {
        let result = requests.iter().position(|request| request.tags.contains(&tag))?;
        let offset = plc.tags[usize::from(tag)].location.first - requests[result].first;
        Some(TagLocation { result: result.try_into().ok()?, offset })
    };
    let files =
        DirStorage::open(&file.path().join("queue")).expect("no other queue uses the directory");
    Pipeline {
        sampler: Sampler::new(0, plc, &plan),
        locations: (0_u16..)
            .take(plc.tags.len())
            .map(|tag| location(tag).ok_or(ReadFailure::Pending))
            .collect(),
        requests,
        queue: Queue::open(files, &config.queue, identity, metrics.queue, Instant::now()),
        encoder: Encoder::new(&config.gateway, plc),
        _dir: file,
    }
}

/// Returns a read cycle in which every register holds the number of the cycle.
fn cycle(pipeline: &Pipeline, number: u16) -> Cycle {
    let at = UnixTime::from_micros(1_600_000_000_000_000 + i64::from(number) * 1_000_000);
    let words = |count: u16| Registers::Words(vec![number; count.into()]);
    let reads = pipeline
        .requests
        .iter()
        .map(|request| ReadResult { at, outcome: Ok(words(request.count)) });
    Cycle {
        plc: 0,
        class: 0,
        at,
        booted_at: UnixTime::default(),
        took: Duration::from_millis(2),
        is_stopped: false,
        requests: Arc::clone(&pipeline.requests),
        locations: Arc::clone(&pipeline.locations),
        results: reads.collect(),
    }
}
