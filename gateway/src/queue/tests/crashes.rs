//! Random histories over a disk that forgets. After every crash each promise is checked: what the
//! far end did not get is stored, announced, or within the window of an unclean start.

mod end;
mod far_end;
mod steps;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use self::far_end::{FarEnd, Number};
use super::super::storage::simulated::{Faults, Simulated};
use super::*;

/// `E2E_CRASHES` makes it more, as `cargo xtask test` does, and `E2E_SEED` follows one history.
const CRASHES: u64 = 4_000;
/// Lives in one history.
const LIVES: u64 = 8;
/// Histories that have found faults.
const FOUND: [u64; 11] = [224, 992, 1639, 1710, 2133, 2854, 4208, 4933, 6432, 6929, 10396];
const TOPICS: u16 = 3;
/// In one history of so many, starts find no storage at first.
const HOMELESS: u64 = 7;
const SEGMENT: u64 = 2048;
/// What one segment takes at most: it grows with the state of the log that it begins with.
const LONGEST: u64 = 4096;

#[test]
fn after_thousands_of_crashes_everything_is_accounted_for() {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let metrics = metrics();
    if let Some(seed) = number("E2E_SEED") {
        World::new(seed, &metrics).live();
        return;
    }
    let most = number("E2E_CRASHES").unwrap_or(CRASHES);
    let found = FOUND.into_iter().map(|seed| World::new(seed, &metrics).live());
    let mut crashes: u64 = found.sum();
    let mut seeds = 0..;
    while crashes < most {
        crashes += World::new(seeds.next().unwrap(), &metrics).live();
    }
    println!("{crashes} crashes");
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
    crashes: u64,
    faulty: bool,
    /// Whether others fill the file system now and then.
    crowded: bool,
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
    /// Epochs of which a later run may know nothing: nothing was written, or it cannot be read.
    mute: BTreeSet<u32>,
    far_end: FarEnd,
}

impl World {
    fn new(seed: u64, metrics: &Metrics) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = config::Queue {
            durability: [Durability::Strict, Durability::Balanced, Durability::LowWear]
                [rng.usize(..3)],
            max_size: 16 << 10,
            min_free: if rng.bool() { 0 } else { rng.u64(..6 * SEGMENT) },
            on_full: if rng.bool() { OnFull::DropOldest } else { OnFull::DropNewest },
            order: if rng.bool() { QueueOrder::LiveFirst } else { QueueOrder::Strict },
        };
        Self {
            seed,
            disk: Simulated::new(seed),
            faulty: rng.u8(..4) == 0,
            crowded: rng.bool(),
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
            crashes: 0,
            jobs: Vec::new(),
            in_flight: Vec::new(),
            pushed: BTreeMap::new(),
            safe: BTreeSet::new(),
            mute: BTreeSet::new(),
            far_end: FarEnd::default(),
        }
    }

    /// How often it crashed.
    fn live(mut self) -> u64 {
        for life in 0..LIVES {
            let faults = self.draw_faults();
            self.begin(Faults { write: 0, sync: 0, ..faults });
            if self.seed % HOMELESS == 3 {
                self.wait_for_storage();
            }
            self.take_up();
            let faults = self.draw_faults();
            self.disk.set_faults(faults);
            for _ in 0..self.rng.u32(..24) {
                self.step();
                self.balance();
            }
            self.end();
            // Not every time: it takes as long as the life before.
            if (self.seed + life).is_multiple_of(4) || life + 1 == LIVES {
                self.look_ahead();
            }
        }
        self.crashes
    }

    fn draw_faults(&mut self) -> Faults {
        let is_crowded = self.crowded && self.rng.bool();
        let capacity = if is_crowded { self.rng.u64(8_000..32_000) } else { u64::MAX };
        let mut one_of = |most| if self.faulty { self.rng.u32(..most) } else { 0 };
        Faults { write: one_of(30), sync: one_of(60), read: one_of(30), capacity }
    }

    /// A process, without storage.
    fn begin(&mut self, faults: Faults) {
        self.disk.set_faults(faults);
        self.starts += 1;
        self.safe_ids.clear();
        self.metrics.queue.stored.set(0);
        self.base = self.imbalance();
        let identity =
            Identity { boot: format!("{}", self.boot), ..identity(&format!("e{}", self.starts)) };
        let series = self.metrics.queue.clone();
        let config = &self.config;
        let limits = Limits { segment: SEGMENT, max: config.max_size, min_free: config.min_free };
        self.queue = Some(Queue::homeless(limits, config, identity, series));
    }

    /// The storage is there.
    fn take_up(&mut self) {
        while self.queue().is_homeless() {
            let (disk, now) = (self.disk.clone(), self.now);
            self.queue().take_up(disk, now);
            self.balance();
        }
        // Nobody knows what was in a file that is set aside.
        if self.queue().log.as_ref().unwrap().counts().unreadable > 0 {
            self.mute.extend(0..self.starts);
        }
        self.trace("start");
    }

    /// A directory that cannot be used at first.
    fn wait_for_storage(&mut self) {
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
    }

    fn queue(&mut self) -> &mut Queue<Simulated> {
        self.queue.as_mut().unwrap()
    }
}
