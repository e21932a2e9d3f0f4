//! Promise 3: an outage of hours at 1,000 samples a second, in simulated time on real files: memory
//! stays bounded, and everything arrives or is announced.
//!
//! An hour by default (`E2E_OUTAGE_HOURS`); `cargo xtask long` simulates a day.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code may stop on the spot, and prints what it has measured"
)]

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gateway::metrics::{Metrics, QueueMetrics};
use gateway::model::{Quality, Record, Sample, UnixTime, Value};
use gateway::queue::storage::DirStorage;
use gateway::queue::{
    ConfigNames, Entry, EntryId, GapEvent, PlcNames, Queue, QueueIdentity, TopicId,
};
use provisioning::config::{self, LoadedConfig};

/// Ten PLCs with 100 tags each, once a second.
const PLCS: u16 = 10;
const TAGS: u16 = 100;
const EVERY: Duration = Duration::from_millis(100);
/// Topic of events; those of the PLCs come before it.
const EVENTS: TopicId = TopicId::new(PLCS);
/// Messages that may be in flight to the broker.
const WINDOW: usize = 64;
/// Allowed growth of the process: the cache, a segment that is read with its index, entries in
/// flight, and memory retained by the allocator.
const MEMORY_KIB: u64 = 24 << 10;
/// Serialises the tests, because they measure the memory of their common process.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

#[test]
fn everything_arrives_and_new_messages_are_hardly_delayed() {
    let _exclusive = EXCLUSIVE.lock();
    let mut world = World::new("2GiB");
    let memory = memory();
    let usual = world.run(Duration::from_secs(20), true);
    world.run(outage(), false);
    let taken = world.taken();

    let beside = world.catch_up();

    assert_eq!(world.missing(), Vec::new());
    assert_eq!(world.metrics.dropped(), 0);
    assert!(world.taken() > taken, "no new samples while it caught up");
    println!("99 of 100 acknowledged after: usually {usual:?}, beside the backlog {beside:?}");
    assert!(beside <= usual * 2, "{beside:?} beside the backlog, usually {usual:?}");
    world.check_memory(memory);
}

#[test]
fn dropped_samples_are_announced_exactly() {
    let _exclusive = EXCLUSIVE.lock();
    let mut world = World::new("8MiB");
    let memory = memory();
    world.run(outage(), false);
    // A segment is an eighth of it, and the next one is prepared while one fills.
    let most = world.most_files >> 10;
    assert!((6 << 10..=9 << 10).contains(&most), "{most} KiB of files, and 8 MiB were allowed");

    world.catch_up();

    let dropped = world.metrics.dropped();
    assert_eq!(world.missing(), Vec::new());
    assert!(dropped > world.metrics.produced.get() / 4, "too little was dropped: {dropped}");
    assert_eq!(world.announced_samples, dropped);
    world.check_memory(memory);
}

fn outage() -> Duration {
    Duration::from_secs(3600 * test_settings::OUTAGE_HOURS.number())
}

/// A queue between simulated PLCs and a broker, with simulated time.
struct World {
    queue: Queue,
    metrics: QueueMetrics,
    now: Instant,
    due: Instant,
    /// When the broker connected or disconnected.
    since: Instant,
    broker: Broker,
    /// For each topic and number: when it was read, and how often it arrived and was announced.
    numbers: Vec<Vec<Fate>>,
    announced_samples: u64,
    most_memory: u64,
    most_files: u64,
    dir: e2e::TempDir,
}

#[derive(Clone, Copy)]
struct Fate {
    taken: Instant,
    arrived: u8,
    announced: u8,
}

struct UnderWay {
    acknowledged: Instant,
    id: EntryId,
    /// PLC and number of a record.
    record: Option<(usize, usize)>,
}

/// A broker that takes messages one after the other, at the end of a slow link.
#[derive(Default)]
struct Broker {
    under_way: VecDeque<UnderWay>,
    busy_until: Option<Instant>,
}

impl Broker {
    const SERVICE: Duration = Duration::from_micros(500);
    const ROUND_TRIP: Duration = Duration::from_millis(20);

    /// Returns when a message that is sent now is acknowledged.
    fn take(&mut self, now: Instant) -> Instant {
        let done = self.busy_until.map_or(now, |until| until.max(now)) + Self::SERVICE;
        self.busy_until = Some(done);
        done + Self::ROUND_TRIP
    }
}

impl World {
    fn new(max_size: &str) -> Self {
        let dir = e2e::temp_dir();
        let loaded = load(&dir, max_size);
        let metrics = Metrics::new(&loaded.config, &loaded.hash).expect("its own registry").queue;
        let plc = |plc| PlcNames {
            name: format!("p{plc}"),
            tags: (0..TAGS).map(|tag| format!("t{tag}")).collect(),
        };
        let topics = (0..PLCS).map(|plc| format!("edge/g/data/p{plc}").into());
        let identity = QueueIdentity {
            names: ConfigNames {
                topics: topics.chain(["edge/g/event".into()]).collect(),
                plcs: (0..PLCS).map(plc).collect(),
            },
            events: EVENTS,
            epoch: "abcdef".into(),
            boot: String::new(),
        };
        let files =
            DirStorage::open(&dir.path().join("queue")).expect("no other queue uses the directory");
        let now = Instant::now();
        let queue = Queue::open(files, &loaded.config.queue, identity, metrics.clone(), now);
        Self {
            queue,
            metrics,
            now,
            due: now,
            since: now,
            broker: Broker::default(),
            numbers: (0..PLCS).map(|_| notes()).collect(),
            announced_samples: 0,
            most_memory: 0,
            most_files: 0,
            dir,
        }
    }

    /// Simulates this time, with a broker or without one. Returns the age that 99 of 100 new
    /// messages did not exceed when they were acknowledged.
    fn run(&mut self, time: Duration, has_broker: bool) -> Duration {
        let (end, mut ages) = (self.now + time, Vec::new());
        self.begin();
        while self.now < end {
            self.step(has_broker, &mut ages);
        }
        ninety_nine(ages)
    }

    /// A broker comes, and gets everything; as [`World::run`].
    fn catch_up(&mut self) -> Duration {
        let mut ages = Vec::new();
        self.begin();
        // What is new goes on coming: at last there is nothing else.
        while self.queue.stats().entries > 20 {
            self.step(true, &mut ages);
        }
        self.due = self.now + Duration::from_secs(3600);
        let beside = ninety_nine(ages);
        while !self.queue.is_empty() {
            self.step(true, &mut Vec::new());
        }
        beside
    }

    fn begin(&mut self) {
        self.since = self.now;
        self.broker = Broker::default();
        self.queue.rewind(self.now);
    }

    fn step(&mut self, has_broker: bool, ages: &mut Vec<Duration>) {
        self.now += if has_broker { Duration::from_millis(1) } else { EVERY };
        let now = self.now;
        while self.due <= now {
            self.push();
            self.due += EVERY;
        }
        if has_broker {
            self.queue.announce_losses(now);
            self.acknowledge(ages);
            self.send();
        }
        while let Some(job) = self.queue.next_job(now) {
            self.queue.on_job_done(job.run(), now);
        }
    }

    fn acknowledge(&mut self, ages: &mut Vec<Duration>) {
        while let Some(first) = self.broker.under_way.front()
            && first.acknowledged <= self.now
        {
            if let Some((plc, number)) = first.record {
                let fate = &mut self.numbers[plc][number];
                fate.arrived += 1;
                let age = first.acknowledged.saturating_duration_since(fate.taken);
                ages.extend((fate.taken >= self.since).then_some(age));
            }
            self.queue.acknowledge(first.id, self.now);
            self.broker.under_way.pop_front();
        }
    }

    fn push(&mut self) {
        let turn = u64::try_from(self.numbers.iter().map(Vec::len).sum::<usize>());
        let turn = turn.expect("the number fits");
        if turn.is_multiple_of(1000) {
            self.most_memory = self.most_memory.max(memory());
            self.most_files = self.most_files.max(files(&self.dir.path().join("queue")));
        }
        let plc = u16::try_from(turn % u64::from(PLCS)).expect("it is small");
        let numbers = &mut self.numbers[usize::from(plc)];
        let entry = Entry::Record(taken(plc, numbers.len()));
        numbers.push(Fate { taken: self.now, arrived: 0, announced: 0 });
        self.queue.push(TopicId::new(plc), entry, self.now);
    }

    fn send(&mut self) {
        while self.broker.under_way.len() < WINDOW && self.send_one() {}
    }

    fn send_one(&mut self) -> bool {
        let sent = self.queue.hand_out(self.now, |queued| {
            let id = queued.id;
            let mut record = None;
            match queued.entry {
                Entry::Record(arrived) => {
                    let number = usize::try_from(queued.seq).expect("the number fits");
                    assert_eq!(*arrived, taken(arrived.plc, number));
                    record = Some((queued.topic.index(), number));
                }
                Entry::Message(message) => {
                    let gap = GapEvent::parse(&message.body).expect("only gaps are announced");
                    self.announced_samples += gap.samples;
                    let plc = gap.topic.trim_start_matches("edge/g/data/p").parse::<usize>();
                    let numbers = &mut self.numbers[plc.expect("a topic of a PLC")];
                    for number in gap.first_seq..=gap.last_seq {
                        numbers[usize::try_from(number).expect("the number fits")].announced += 1;
                    }
                }
            }
            let acknowledged = self.broker.take(self.now);
            self.broker.under_way.push_back(UnderWay { acknowledged, id, record });
            Ok(())
        });
        sent.is_some()
    }

    fn taken(&self) -> usize {
        self.numbers.iter().map(Vec::len).sum()
    }

    /// What neither arrived once nor was announced once: the first few, with their PLC.
    fn missing(&self) -> Vec<(usize, usize)> {
        let all = self.numbers.iter().enumerate();
        let wrong = all.flat_map(|(plc, numbers)| {
            let of_plc = numbers.iter().enumerate();
            let wrong = of_plc.filter(|(_, fate)| fate.arrived + fate.announced != 1);
            wrong.map(move |(number, _)| (plc, number))
        });
        wrong.take(5).collect()
    }

    fn check_memory(&self, before: u64) {
        let more = self.most_memory.saturating_sub(before);
        let files = self.most_files >> 10;
        println!("{} records, {more} KiB of memory, {files} KiB of files", self.taken());
        assert!(more < MEMORY_KIB, "{more} KiB more than before");
    }
}

fn ninety_nine(mut ages: Vec<Duration>) -> Duration {
    ages.sort_unstable();
    ages.get(ages.len() * 99 / 100).copied().unwrap_or_default()
}

fn taken(plc: u16, number: usize) -> Record {
    let number = i64::try_from(number).expect("the number fits");
    let at = UnixTime::from_micros(1_600_000_000_000_000 + number * 1_000_000);
    let sample = |tag: u16| Sample {
        tag,
        value: Some(Value::Int(number % 1000 + i64::from(tag))),
        quality: Quality::Good,
        at,
    };
    Record { plc, at, clock: None, samples: (0..TAGS).map(sample).collect() }
}

fn load(dir: &e2e::TempDir, max_size: &str) -> LoadedConfig {
    let toml = format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n[queue]\n\
         max_size = \"{max_size}\"\n[[plc]]\nname = \"p0\"\nmodel = \"M241\"\n\
         address = \"127.0.0.1\"\n[[plc.tag]]\nname = \"t\"\nat = \"%MW0\"\ntype = \"INT\"\n"
    );
    config::load(&dir.write("gateway.toml", &toml)).expect("the configuration holds")
}

/// Memory for what the test itself notes of the numbers of a PLC, in use from the beginning: it is
/// not the queue's.
fn notes() -> Vec<Fate> {
    let seconds = usize::try_from(outage().as_secs()).expect("the number fits");
    // The catching up takes less than a quarter of the outage.
    let mut notes =
        vec![Fate { taken: Instant::now(), arrived: 0, announced: 0 }; seconds * 5 / 4 + 600];
    notes.clear();
    notes
}

/// Bytes of all files in a directory.
fn files(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("the queue made it");
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Resident memory in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux provides the file");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|kib| kib.parse().ok()).expect("a number")
}
