//! Random histories over a disk that forgets. After every crash each promise is checked: what the
//! far end did not get is stored, announced, or within the window of an unclean start.

mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::super::storage::simulated::{Faults, Simulated};
use super::*;

/// `E2E_CRASHES` makes it more, as `cargo xtask test` does, and `E2E_SEED` follows one history.
const CRASHES: u64 = 4_000;
const PER_HISTORY: u64 = 8;
/// Histories that have found faults.
const FOUND: [u64; 8] = [224, 992, 1639, 1710, 2133, 4208, 4933, 6432];
const TOPICS: u16 = 3;
/// In one history of so many, starts find no storage at first.
const HOMELESS: u64 = 7;

/// Topic name, epoch, number.
type Number = (String, String, u64);

#[test]
fn after_thousands_of_crashes_everything_is_accounted_for() {
    let crashes = std::env::var("E2E_CRASHES").ok().map(|count| count.parse().unwrap());
    let only = std::env::var("E2E_SEED").ok().map(|seed| seed.parse().unwrap());
    let metrics = metrics();
    let histories = crashes.unwrap_or(CRASHES).div_ceil(PER_HISTORY);
    let seeds = only.map_or(0..histories, |seed| seed..seed + 1);
    for seed in seeds.chain(FOUND.into_iter().filter(|_| only.is_none())) {
        World::new(seed, &metrics).live();
    }
}

/// What happened so far, as somebody sees it who sees everything.
struct World {
    seed: u64,
    rng: Rng,
    disk: Simulated,
    config: config::Queue,
    queue: Option<Queue<Simulated>>,
    metrics: Metrics,
    now: Instant,
    starts: u32,
    boot: u32,
    faulty: bool,
    traces: bool,
    /// What earlier processes left unbalanced: they ended in the middle.
    base: u64,
    /// Ids of this run that are known to be safe.
    safe_ids: BTreeSet<u64>,
    jobs: Vec<Job<Simulated>>,
    in_flight: Vec<Id>,
    pushed: BTreeMap<Number, Entry>,
    /// Numbers that must not be lost: by what was promised.
    safe: BTreeSet<Number>,
    received: BTreeSet<Number>,
    announced: BTreeSet<Number>,
    /// By epoch and topic, from where on numbers may be missing.
    windows: BTreeMap<String, BTreeMap<String, u64>>,
}

impl World {
    fn new(seed: u64, metrics: &Metrics) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = config::Queue {
            durability: [Durability::Strict, Durability::Balanced, Durability::LowWear]
                [rng.usize(..3)],
            max_size: 16 << 10,
            min_free: 0,
            on_full: if rng.bool() { OnFull::DropOldest } else { OnFull::DropNewest },
            order: if rng.bool() { QueueOrder::LiveFirst } else { QueueOrder::Strict },
        };
        Self {
            seed,
            disk: Simulated::new(seed),
            faulty: rng.u8(..4) == 0,
            rng,
            config,
            queue: None,
            metrics: metrics.clone(),
            traces: std::env::var("E2E_SEED").is_ok(),
            base: 0,
            safe_ids: BTreeSet::new(),
            now: Instant::now(),
            starts: 0,
            boot: 0,
            jobs: Vec::new(),
            in_flight: Vec::new(),
            pushed: BTreeMap::new(),
            safe: BTreeSet::new(),
            received: BTreeSet::new(),
            announced: BTreeSet::new(),
            windows: BTreeMap::new(),
        }
    }

    fn live(mut self) {
        for _ in 0..PER_HISTORY {
            self.start();
            self.choose_faults();
            for _ in 0..self.rng.u32(..24) {
                self.step();
                self.balance();
            }
            self.end();
        }
        self.start();
        self.drain();
        self.check();
    }

    fn start(&mut self) {
        self.disk.set_faults(Faults::NONE);
        self.starts += 1;
        self.safe_ids.clear();
        self.metrics.queue.stored.set(0);
        self.base = self.imbalance();
        let identity =
            Identity { boot: format!("{}", self.boot), ..identity(&format!("e{}", self.starts)) };
        let series = self.metrics.queue.clone();
        let disk = self.disk.clone();
        let limits = Limits { segment: 2048, max: self.config.max_size, min_free: 0 };
        let config = &self.config;
        let mut queue = Queue::homeless(limits, config, identity, series);
        if self.seed % HOMELESS == 3 {
            queue = self.without_storage(queue);
        }
        queue.take_up(disk, self.now);
        self.queue = Some(queue);
        self.balance();
        if self.traces {
            let queue = self.queue.as_ref().unwrap();
            println!(
                "start {:?} gaps {:?} {}",
                queue.stats(),
                queue.ledger.untold(),
                describe(queue)
            );
        }
    }

    /// A directory that cannot be used at first.
    fn without_storage(&mut self, queue: Queue<Simulated>) -> Queue<Simulated> {
        self.queue = Some(queue);
        for _ in 0..self.rng.u32(..12) {
            self.now += Duration::from_millis(self.rng.u64(..700));
            let now = self.now;
            match self.rng.u8(..8) {
                0..4 => self.push(),
                4..6 => self.send(),
                6 => self.acknowledge(),
                _ => drop(self.queue().tell(now)),
            }
            self.balance();
        }
        self.in_flight.clear();
        let now = self.now;
        self.queue().rewind(now);
        self.queue.take().unwrap()
    }

    fn choose_faults(&mut self) {
        if self.faulty {
            let capacity = if self.rng.bool() { u64::MAX } else { self.rng.u64(8_000..24_000) };
            let faults =
                Faults { write: self.rng.u32(..30), sync: self.rng.u32(..60), read: 0, capacity };
            self.disk.set_faults(faults);
        }
    }

    fn queue(&mut self) -> &mut Queue<Simulated> {
        self.queue.as_mut().unwrap()
    }

    fn step(&mut self) {
        if self.traces {
            let queue = self.queue.as_ref().unwrap();
            println!(
                "{:?} gaps {:?} pending {:?} {}",
                queue.stats(),
                queue
                    .ledger
                    .gaps
                    .iter()
                    .map(|g| (g.topic, g.epoch.clone(), g.first_seq, g.last_seq, g.reason))
                    .collect::<Vec<_>>(),
                queue.ledger.pending,
                describe(queue)
            );
        }
        self.now += Duration::from_millis(self.rng.u64(..700));
        let now = self.now;
        let what = self.rng.u8(..20);
        if self.traces {
            println!("op {what}");
        }
        match what {
            0..6 => {
                for _ in 0..self.rng.usize(1..8) {
                    self.push();
                }
            }
            6..11 => self.send(),
            11..14 => self.acknowledge(),
            14 => {
                if let Some(id) = self.pick_in_flight() {
                    self.queue().discard(id, DropReason::Refused, now);
                }
            }
            15 => {
                self.in_flight.clear();
                self.queue().rewind(now);
            }
            16 => drop(self.queue().tell(now)),
            17 => self.run_jobs(),
            _ => self.turn(),
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some(job) = self.queue.as_mut().unwrap().turn(now) {
            self.jobs.push(job);
        }
        if self.rng.bool() {
            self.run_jobs();
        }
    }

    fn run_jobs(&mut self) {
        let now = self.now;
        for job in std::mem::take(&mut self.jobs) {
            self.queue().done(job.run(), now);
        }
        // A device that fails may have lost what it had promised.
        if !self.faulty {
            let synced = self.queue().log.as_ref().unwrap().synced();
            self.note_safe(synced);
        }
    }

    /// What is open and lies in the log up to here must not be lost.
    fn note_safe(&mut self, position: u64) {
        let queue = self.queue.as_ref().unwrap();
        for id in queue.ring.ids() {
            if self.safe_ids.contains(&id) {
                continue;
            }
            let held = queue.ring.get(id).unwrap();
            if matches!(held.place, ring::Place::Logged { position: at, .. } if at <= position) {
                let topic = queue.topic(held.topic).unwrap().to_string();
                self.safe_ids.insert(id);
                self.safe.insert((topic, held.epoch.to_string(), held.seq));
            }
        }
    }

    fn end(&mut self) {
        let now = self.now;
        if self.traces {
            println!("---- end");
        }
        match self.rng.u8(..5) {
            0 => {
                self.disk.set_faults(Faults::NONE);
                self.run_jobs();
                self.queue.take().unwrap().close(now);
            }
            1 | 2 => {
                // Whatever was handed to the operating system outlives the process.
                self.queue().flush(now);
                let is_sound = !self.queue().health().is_failing();
                if !self.faulty && is_sound {
                    self.note_safe(u64::MAX);
                }
            }
            _ => {
                if self.rng.bool() {
                    self.queue().flush(now);
                }
                if self.rng.bool() {
                    for job in std::mem::take(&mut self.jobs) {
                        drop(job.run());
                    }
                }
                self.disk.cut_power();
                self.boot += 1;
            }
        }
        self.queue = None;
        self.jobs.clear();
        self.in_flight.clear();
    }

    /// The broker takes everything, and every gap and every unclean start is told: telling one may
    /// give up the event that told another.
    fn drain(&mut self) {
        let now = self.now;
        self.queue().rewind(now);
        for _ in 0..2_000 {
            self.now += Duration::from_secs(1);
            let now = self.now;
            self.queue().tell(now);
            while let Some(id) = self.queue.as_mut().unwrap().next(now).map(|queued| queued.id) {
                self.arrive(id);
                self.queue().acknowledge(id, now);
            }
            while let Some(job) = self.queue().turn(now) {
                self.queue().done(job.run(), now);
            }
            if self.imbalance() != self.base {
                let queue = self.queue.as_ref().unwrap();
                panic!("seed {} now: {:?} {}", self.seed, queue.stats(), describe(queue));
            }
            if self.traces {
                let queue = self.queue.as_ref().unwrap();
                println!("drain {:?} {}", queue.stats(), describe(queue));
            }
            let queue = self.queue();
            let is_told =
                queue.ledger.gaps.iter().next().is_none() && queue.ledger.uncleans.is_empty();
            if queue.is_empty() && is_told {
                return;
            }
        }
        let left = self.queue().stats();
        let queue = self.queue.as_ref().unwrap();
        let log = describe(queue);
        panic!(
            "seed {}: never empty: {left:?}, {log}, {:?} {:?}",
            self.seed, queue.cursors, queue.ring
        );
    }

    /// Produced and recovered, less what became of them.
    fn imbalance(&self) -> u64 {
        let metrics = &self.metrics.queue;
        let stored = u64::try_from(metrics.stored.get()).unwrap();
        let taken = metrics.produced.get() + metrics.recovered.get();
        taken.wrapping_sub(metrics.delivered.get() + metrics.dropped() + stored)
    }

    fn balance(&self) {
        assert_eq!(self.imbalance(), self.base, "seed {}", self.seed);
    }

    fn check(&self) {
        for number in self.pushed.keys() {
            let (topic, epoch, seq) = number;
            let is_here = self.received.contains(number) || self.announced.contains(number);
            let is_in_window = self
                .windows
                .get(epoch)
                .is_some_and(|window| *seq >= window.get(topic).copied().unwrap_or(0));
            assert!(
                is_here || is_in_window && !self.safe.contains(number),
                "seed {}: {number:?} is missing, safe {}, window {:?}, {:?}",
                self.seed,
                self.safe.contains(number),
                self.windows.get(epoch),
                self.config
            );
        }
        let most = self.config.max_size + 4096;
        assert!(self.disk.used() <= most, "seed {}: {}", self.seed, self.disk.used());
    }
}

/// What the queue is, for a history that is followed.
fn describe(queue: &Queue<Simulated>) -> String {
    let held = queue.ring.ids().into_iter().filter_map(|id| Some((id, queue.ring.get(id)?)));
    let held: Vec<String> = held
        .map(|(id, held)| {
            let place = match held.place {
                ring::Place::Memory => "memory".to_owned(),
                ring::Place::Logged { position, .. } => position.to_string(),
            };
            let sent = if held.sent.is_some() { " sent" } else { "" };
            format!("{id}:{}/{}/{}@{place}{sent}", held.topic.index(), held.epoch, held.seq)
        })
        .collect();
    let log = &queue.log;
    format!("held {held:?} failing {} {log:?}", queue.health.is_failing())
}
