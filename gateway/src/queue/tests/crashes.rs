//! Random histories on a disk that loses what is not durable. After every crash each promise is
//! checked: what the consumer did not get is stored, announced, or in the window of an unclean
//! shutdown.

mod consumer;
mod ends;
mod steps;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use self::consumer::{Consumer, EntryNumber};
use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

/// Runs in one history.
const LIVES_PER_HISTORY: u64 = 8;
/// Histories that have found bugs.
const REGRESSION_SEEDS: [u64; 12] =
    [224, 992, 1639, 1710, 2133, 2854, 4208, 4554, 4933, 6432, 6929, 10396];
const TOPICS: u16 = 3;
/// In one history of seven, starts find no storage at first.
const LATE_STORAGE_EVERY: u64 = 7;
const SEGMENT: u64 = 2048;
/// Longest segment: it grows with the checkpoint at its beginning.
const MAX_SEGMENT: u64 = 4096;

#[test]
fn after_thousands_of_crashes_everything_is_accounted_for() {
    let metrics = metrics();
    if let Some(seed) = test_settings::SEED.get() {
        CrashTest::new(seed, &metrics).run_history();
        return;
    }
    let most = test_settings::CRASHES.number();
    let found =
        REGRESSION_SEEDS.into_iter().map(|seed| CrashTest::new(seed, &metrics).run_history());
    let mut crashes: u64 = found.sum();
    let mut seeds = 0..;
    while crashes < most {
        crashes += CrashTest::new(seeds.next().unwrap(), &metrics).run_history();
    }
    println!("{crashes} crashes");
}

/// One history: the queue, its disk, and everything that happened so far.
struct CrashTest {
    seed: u64,
    rng: Rng,
    disk: SimulatedDisk,
    config: config::Queue,
    queue: Option<Queue<SimulatedDisk>>,
    metrics: Metrics,
    now: Instant,
    starts: u32,
    boot: u32,
    crashes: u64,
    faulty: bool,
    /// Whether other programs fill the file system from time to time.
    crowded: bool,
    is_tracing: bool,
    /// Imbalance that earlier processes left: they ended in the middle of something.
    base_imbalance: u64,
    /// Ids of this run that must not be lost.
    safe_ids: BTreeSet<u64>,
    jobs: Vec<DiskJob<SimulatedDisk>>,
    in_flight: Vec<EntryId>,
    pushed: BTreeMap<EntryNumber, Entry>,
    /// Numbers that must not be lost, as promised.
    safe: BTreeSet<EntryNumber>,
    /// Epochs of which a later run may know nothing: nothing was durable, or it cannot be read.
    unreported_epochs: BTreeSet<u32>,
    consumer: Consumer,
}

impl CrashTest {
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
            disk: SimulatedDisk::new(seed),
            faulty: rng.u8(..4) == 0,
            crowded: rng.bool(),
            rng,
            config,
            queue: None,
            metrics: metrics.clone(),
            is_tracing: test_settings::SEED.get().is_some(),
            base_imbalance: 0,
            safe_ids: BTreeSet::new(),
            now: Instant::now(),
            starts: 0,
            boot: 0,
            crashes: 0,
            jobs: Vec::new(),
            in_flight: Vec::new(),
            pushed: BTreeMap::new(),
            safe: BTreeSet::new(),
            unreported_epochs: BTreeSet::new(),
            consumer: Consumer::default(),
        }
    }

    /// Runs the history and returns the number of crashes.
    fn run_history(mut self) -> u64 {
        for life in 0..LIVES_PER_HISTORY {
            let faults = self.draw_faults();
            self.start_process(DiskFaults { write: 0, sync: 0, ..faults });
            if self.seed % LATE_STORAGE_EVERY == 3 {
                self.wait_for_storage();
            }
            self.attach_storage();
            let faults = self.draw_faults();
            self.disk.set_faults(faults);
            for _ in 0..self.rng.u32(..24) {
                self.step();
                self.check_balance();
            }
            self.end_process();
            // Not every time: it takes as long as the life before.
            if (self.seed + life).is_multiple_of(4) || life + 1 == LIVES_PER_HISTORY {
                self.check_recovery();
            }
        }
        self.crashes
    }

    fn draw_faults(&mut self) -> DiskFaults {
        let is_crowded = self.crowded && self.rng.bool();
        let capacity = if is_crowded { self.rng.u64(8_000..32_000) } else { u64::MAX };
        let mut one_of = |most| if self.faulty { self.rng.u32(..most) } else { 0 };
        let (write, sync, read) = (one_of(30), one_of(60), one_of(30));
        DiskFaults { write, sync, read, capacity, ..DiskFaults::NONE }
    }

    /// Starts a process, without storage.
    fn start_process(&mut self, faults: DiskFaults) {
        self.disk.set_faults(faults);
        self.starts += 1;
        self.safe_ids.clear();
        self.metrics.queue.stored.set(0);
        self.base_imbalance = self.imbalance();
        let identity = QueueIdentity {
            boot: format!("{}", self.boot),
            ..identity(&format!("e{}", self.starts))
        };
        let series = self.metrics.queue.clone();
        let config = &self.config;
        let limits = LogLimits {
            segment_bytes: SEGMENT,
            max_bytes: config.max_size,
            min_free_bytes: config.min_free,
        };
        self.queue = Some(Queue::awaiting_storage(limits, config, identity, series));
    }

    /// Attaches the storage.
    fn attach_storage(&mut self) {
        while self.queue().lacks_storage() {
            let (disk, now) = (self.disk.clone(), self.now);
            self.queue().attach_storage(disk, now);
            self.check_balance();
        }
        // The content of a file that is set aside is unknown.
        if self.queue().log.as_ref().unwrap().disk_counters().unreadable_files > 0 {
            self.unreported_epochs.extend(0..self.starts);
        }
        self.trace("start");
    }

    /// Runs for a while without a storage.
    fn wait_for_storage(&mut self) {
        for _ in 0..self.rng.u32(..12) {
            self.now += Duration::from_millis(self.rng.u64(..700));
            let now = self.now;
            match self.rng.u8(..8) {
                0..4 => self.push(),
                4..6 => self.send(),
                6 => self.acknowledge(),
                _ => drop(self.queue().announce_losses(now)),
            }
            self.check_balance();
        }
        self.in_flight.clear();
        let now = self.now;
        self.queue().rewind(now);
    }

    fn queue(&mut self) -> &mut Queue<SimulatedDisk> {
        self.queue.as_mut().unwrap()
    }
}
