//! The compared stores for messages that wait for a broker.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use gateway::metrics::Metrics;
use gateway::model::{Quality, Record, Sample, UnixTime, Value};
use gateway::queue::storage::DirStorage;
use gateway::queue::{ConfigNames, Entry, PlcNames, Queue, QueueIdentity, TopicId};
use provisioning::config::{self, Durability, LoadedConfig};
use redb::{Database, TableDefinition};

use crate::{PER_SECOND, RECORD, database, tick};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queue");

/// A store, with its durability.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Contender {
    Queue(Durability),
    Sqlite,
    Redb,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Queue(Durability::Strict),
        Self::Queue(Durability::Balanced),
        Self::Queue(Durability::LowWear),
        Self::Sqlite,
        Self::Redb,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Queue(Durability::Strict) => "edge-gateway, strict",
            Self::Queue(Durability::Balanced) => "edge-gateway, balanced",
            Self::Queue(Durability::LowWear) => "edge-gateway, low-wear",
            Self::Sqlite => "SQLite, WAL, synchronous=FULL, one commit a second",
            Self::Redb => "redb, one commit a second",
        }
    }

    /// Opens a store that has been used before: work that is done once is not measured.
    pub(crate) fn open(self, directory: &Path) -> Store {
        match self {
            Self::Queue(durability) => Store::Queue(Box::new(used(open(directory, durability)))),
            Self::Sqlite => {
                sqlite(directory, 1);
                Store::Sqlite
            }
            Self::Redb => {
                Store::Redb(Database::create(database(directory)).expect("the place is empty"))
            }
        }
    }
}

/// An open store.
#[derive(Debug)]
pub(crate) enum Store {
    Queue(Box<Queue>),
    Sqlite,
    Redb(Database),
}

impl Store {
    pub(crate) fn run(self, directory: &Path, seconds: u32) {
        match self {
            Self::Queue(queue) => run(*queue, seconds),
            Self::Sqlite => sqlite(directory, seconds),
            Self::Redb(database) => redb(&database, seconds),
        }
    }
}

/// Uses a queue until it has preallocated its files and recycled each of them.
fn used(mut queue: Queue) -> Queue {
    const FILES: u32 = 16 << 20;
    queue.rewind(Instant::now());
    for number in 0..FILES / u32::from(RECORD) {
        queue.push(TopicId::new(1), record(number), Instant::now());
        if number % 100 == 0 {
            settle(&mut queue);
        }
    }
    settle(&mut queue);
    queue
}

/// Drives the queue like the gateway: jobs that are due run after every event.
fn run(mut queue: Queue, seconds: u32) {
    for number in 0..seconds * PER_SECOND {
        queue.push(TopicId::new(1), record(number), Instant::now());
        tick();
        settle(&mut queue);
    }
}

/// Sends and acknowledges everything in the queue.
fn settle(queue: &mut Queue) {
    while let Some(sent) = queue.hand_out(Instant::now(), |queued| Ok(queued.id)) {
        queue.acknowledge(sent.expect("it is accepted"), Instant::now());
    }
    while let Some(job) = queue.next_job(Instant::now()) {
        queue.on_job_done(job.run(), Instant::now());
    }
}

fn record(number: u32) -> Entry {
    let at = UnixTime::from_micros(1_600_000_000_000_000 + i64::from(number));
    let value = Some(Value::Text(Arc::new("x".repeat(RECORD.into()))));
    let sample = Sample { tag: 0, value, quality: Quality::Good, at };
    Entry::Record(Record { plc: 0, at, clock: None, samples: vec![sample] })
}

fn open(directory: &Path, durability: Durability) -> Queue {
    let toml = "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n[[plc]]\n\
                name = \"p\"\nmodel = \"M241\"\naddress = \"127.0.0.1\"\n[[plc.tag]]\nname = \"t\"\n\
                at = \"%MW0\"\ntype = \"STRING(200)\"\n";
    let written = e2e::temp_dir();
    let loaded = config::load(&written.write("gateway.toml", toml));
    let LoadedConfig { mut config, hash, .. } = loaded.expect("the configuration holds");
    config.queue.durability = durability;
    let metrics = Metrics::new(&config, &hash).expect("a registry of its own").queue;
    let identity = QueueIdentity {
        names: ConfigNames {
            topics: vec!["edge/g/event".into(), "edge/g/data/p".into()],
            plcs: vec![PlcNames { name: "p".to_owned(), tags: ["t"].into_iter().collect() }],
        },
        events: TopicId::new(0),
        epoch: "abcdef".into(),
        boot: String::new(),
    };
    let files =
        DirStorage::open(&directory.join("queue")).expect("no other queue uses the directory");
    Queue::open(files, &config.queue, identity, metrics, Instant::now())
}

fn sqlite(directory: &Path, seconds: u32) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/sqlite/queue.py");
    let numbers = [seconds.to_string(), PER_SECOND.to_string(), RECORD.to_string()];
    let mut python = Command::new("python3");
    let status = python.arg(script).arg(database(directory)).args(numbers).status();
    assert!(status.expect("python3 is installed").success(), "it ends well");
}

fn redb(database: &Database, seconds: u32) {
    let record = [b'x'; RECORD as usize];
    for second in 0..u64::from(seconds) {
        let transaction = database.begin_write().expect("it can be written");
        {
            let mut table = transaction.open_table(TABLE).expect("it can be opened");
            table.retain(|_, _| false).expect("what the broker has taken goes");
            for number in 0..u64::from(PER_SECOND) {
                let key = second * u64::from(PER_SECOND) + number;
                table.insert(key, record.as_slice()).expect("it takes it");
                tick();
            }
        }
        transaction.commit().expect("it is durable");
    }
}
