//! A file system that others fill: nothing is dropped while a file of the queue or memory has room,
//! and a start costs nothing that is stored.

use proptest::prelude::*;

use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

const SEGMENT: u64 = 8192;
/// Samples of a record.
const SAMPLES: usize = 20;
/// Size of the file system, and `max_size`.
const DISK: u64 = 40 * SEGMENT;
/// Memory in the model, so that it fills up as well.
const SMALL_MEMORY: u64 = 192 << 10;

#[test]
fn a_small_backlog_survives_a_start_on_a_full_disk_and_so_do_new_samples() {
    for min_free in [0, 2 * DISK] {
        let mut world = ScarceDisk::new(min_free, OnFull::DropOldest);
        world.push_all(10);
        world.fill(0);
        world.push_all(5);
        world.restart(RunEnd::Stop);
        assert_eq!(world.recovered(), 15 * 20, "min_free {min_free}");

        world.push_all(10);

        assert_eq!((world.dropped(), world.queue.stats().samples), (0, 25 * 20));
        assert!(world.queue.is_all_stored(), "the end of the last run's file was not used");
        assert_eq!(*world.queue.health(), Health::Healthy);
        world.wait(2);
        world.restart(RunEnd::PowerCut);
        assert!(world.recovered() >= 25 * 20, "{}", world.recovered());
    }
}

#[test]
fn a_first_start_on_a_nearly_full_disk_stores_what_fits_and_keeps_the_rest_in_memory() {
    for min_free in [0, 2 * DISK] {
        let disk = SimulatedDisk::new(1);
        disk.set_faults(DiskFaults { capacity: 3 * SEGMENT / 2, ..DiskFaults::NONE });
        let mut world = ScarceDisk::on(disk, min_free, OnFull::DropOldest);

        world.push_all(10);
        assert!(world.queue.is_all_stored());
        world.push_all(190);

        assert_eq!((world.dropped(), world.queue.stats().samples), (0, 200 * 20));
        assert!(world.queue.health().to_string().contains("the file system is full"));
        world.queue.update_gauges();
        assert_eq!(world.queue.metrics.storage_failing.get(), 1);
        world.free_all();
        assert_eq!(*world.queue.health(), Health::Healthy);
        assert!(world.queue.is_all_stored());
        world.queue.update_gauges();
        assert_eq!(world.queue.metrics.storage_failing.get(), 0);
    }
}

#[test]
fn a_large_backlog_is_evicted_only_when_memory_is_full_too() {
    let mut world = ScarceDisk::new(0, OnFull::DropOldest);
    world.push_all(300);
    world.fill(0);
    world.restart(RunEnd::Kill);
    let stored = world.recovered();
    (world.memory, world.queue.max_memory) = (SMALL_MEMORY, SMALL_MEMORY);
    while !world.is_memory_short() {
        world.push_all(1);
        assert_eq!(world.dropped(), 0);
    }

    world.push_all(200);

    let dropped = world.dropped();
    assert!(dropped > 0 && dropped < stored, "{dropped} of {stored}");
    let oldest = world.deliver(20).first().copied();
    assert!(oldest.is_some_and(|seq| seq > 0), "the oldest are dropped first");
}

/// A reader of the log would otherwise find a line for each sample.
#[test]
fn a_full_disk_is_not_reported_as_full_and_not_full_by_turns() {
    let mut world = ScarceDisk::new(2 * DISK, OnFull::DropOldest);
    world.fill(0);
    let mut healths = vec![world.queue.health().clone()];
    for _ in 0..400 {
        world.push_all(1);
        world.deliver(5);
        healths.push(world.queue.health().clone());
        healths.dedup();
    }
    assert!(healths.len() <= 2, "{healths:?}");
    assert_eq!(world.dropped(), 0);
}

#[test]
fn a_message_that_is_stored_stays_stored_on_a_full_disk() {
    let mut world = ScarceDisk::new(0, OnFull::DropOldest);
    world.queue.push(EVENTS, message(20), world.now);
    world.push_all(300);
    world.fill(0);
    world.push_all(100);
    world.restart(RunEnd::PowerCut);

    let (events, _) = world.deliver_everything();
    assert!(events.contains(&0), "{events:?}");
}

#[test]
fn at_a_stop_messages_are_stored_where_the_samples_before_them_do_not_fit() {
    let mut world = ScarceDisk::new(2 * DISK, OnFull::DropOldest);
    world.fill(0);
    while world.queue.is_all_stored() {
        world.push_all(1);
    }
    world.queue.push(EVENTS, message(20), world.now);
    world.run_jobs();

    world.restart(RunEnd::Stop);

    let (events, _) = world.deliver_everything();
    assert!(events.contains(&0), "{events:?}");
}

#[test]
fn with_strict_what_fits_nowhere_else_is_sent_from_memory() {
    let mut world = ScarceDisk::new(2 * DISK, OnFull::DropOldest);
    world.durability = Durability::Strict;
    world.fill(0);
    world.restart(RunEnd::Stop);
    for _ in 0..200 {
        world.push_all(1);
    }
    assert!(!world.queue.is_all_stored());

    for _ in 0..200 {
        world.deliver(50);
    }

    assert!(world.queue.is_empty(), "{:?}", world.queue.stats());
    assert_eq!(world.dropped(), 0);
}

#[test]
fn what_a_full_disk_kept_in_memory_is_announced_without_seconds_after_a_kill() {
    let mut world = ScarceDisk::new(2 * DISK, OnFull::DropOldest);
    world.fill(0);
    while world.queue.is_all_stored() {
        world.push_all(1);
    }
    world.wait(600);
    world.restart(RunEnd::Kill);
    assert_eq!(world.announced_seconds(), [Value::Null]);

    world.free_all();
    world.push_all(10);
    world.wait(2);
    world.restart(RunEnd::Kill);
    assert_eq!(world.announced_seconds(), [Value::from(0)], "it could write again");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_dropped_while_there_is_room(
        min_free in prop_oneof![Just(0), Just(4 * SEGMENT), Just(2 * DISK)],
        drop_oldest: bool,
        memory in prop_oneof![Just(SMALL_MEMORY), Just(MAX_MEMORY_BYTES)],
        low_wear: bool,
        live_first: bool,
        backlog in prop_oneof![Just(0), Just(3), 0..700_u32],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let on_full = if drop_oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let mut world = ScarceDisk::new(min_free, on_full);
        world.memory = memory;
        world.durability = if low_wear { Durability::LowWear } else { Durability::Balanced };
        world.order = if live_first { QueueOrder::LiveFirst } else { QueueOrder::Strict };
        world.restart(RunEnd::Stop);
        world.push_all(backlog);
        for step in steps {
            world.apply(&step);
        }
        world.check_end();
    }
}

#[derive(Clone, Debug)]
enum DiskEvent {
    Push(u32),
    Message,
    /// Others take all but these bytes.
    Fill(u64),
    /// Others give back these bytes.
    Free(u64),
    DiskLimit(DiskLimit),
    Restart(RunEnd),
    Deliver(u32),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum RunEnd {
    Stop,
    Kill,
    PowerCut,
}

/// What refuses more bytes although there is free space.
#[derive(Clone, Copy, Debug)]
enum DiskLimit {
    None,
    Quota,
    Files,
    FileLength,
    ReadOnly,
    /// EIO.
    Broken,
}

fn step() -> impl Strategy<Value = DiskEvent> {
    let ending = prop_oneof![Just(RunEnd::Stop), Just(RunEnd::Kill), Just(RunEnd::PowerCut)];
    let limit = prop_oneof![
        2 => Just(DiskLimit::None),
        1 => Just(DiskLimit::Quota),
        1 => Just(DiskLimit::Files),
        1 => Just(DiskLimit::FileLength),
        1 => Just(DiskLimit::ReadOnly),
        1 => Just(DiskLimit::Broken),
    ];
    prop_oneof![
        8 => (1..80_u32).prop_map(DiskEvent::Push),
        2 => Just(DiskEvent::Message),
        3 => prop_oneof![Just(0), 0..6 * SEGMENT].prop_map(DiskEvent::Fill),
        2 => (0..8 * SEGMENT).prop_map(DiskEvent::Free),
        2 => limit.prop_map(DiskEvent::DiskLimit),
        4 => ending.prop_map(DiskEvent::Restart),
        3 => (1..120_u32).prop_map(DiskEvent::Deliver),
        1 => (1..70_u64).prop_map(DiskEvent::Wait),
    ]
}

/// A queue on a file system that others fill and that has limits of its own.
struct ScarceDisk {
    disk: SimulatedDisk,
    queue: Queue<SimulatedDisk>,
    min_free: u64,
    on_full: OnFull,
    durability: Durability,
    order: QueueOrder,
    memory: u64,
    now: Instant,
    starts: u32,
    pushed: u64,
    faults: DiskFaults,
}

impl ScarceDisk {
    fn new(min_free: u64, on_full: OnFull) -> Self {
        let disk = SimulatedDisk::new(1);
        disk.set_faults(DiskFaults { capacity: DISK, ..DiskFaults::NONE });
        Self::on(disk, min_free, on_full)
    }

    fn on(disk: SimulatedDisk, min_free: u64, on_full: OnFull) -> Self {
        let (now, durability) = (now(), Durability::Balanced);
        let order = QueueOrder::Strict;
        let queue = open(&disk, min_free, on_full, (durability, order), "e0", now);
        let faults = DiskFaults { capacity: DISK, ..DiskFaults::NONE };
        let memory = MAX_MEMORY_BYTES;
        let (starts, pushed) = (0, 0);
        Self {
            disk,
            queue,
            min_free,
            on_full,
            durability,
            order,
            memory,
            now,
            starts,
            pushed,
            faults,
        }
    }

    /// Pushes records and checks that nothing is dropped for them while there is room.
    fn push_all(&mut self, count: u32) {
        for _ in 0..count {
            let before = self.dropped();
            let may_drop = self.is_memory_short() || self.is_at_max_size();
            let at = i64::try_from(self.pushed).unwrap();
            self.pushed += 1;
            self.now += Duration::from_millis(20);
            self.queue.push(A, record(at, SAMPLES), self.now);
            self.run_jobs();
            assert!(may_drop || self.dropped() == before, "{}", self.describe());
        }
    }

    fn run_jobs(&mut self) {
        while let Some(job) = self.queue.next_job(self.now) {
            self.queue.on_job_done(job.run(), self.now);
        }
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.run_jobs();
        }
    }

    /// Returns whether an eviction may begin, with the next record and what returns to memory when
    /// the storage fails.
    fn is_memory_short(&self) -> bool {
        let index = &self.queue.index;
        let synced = self.queue.log.as_ref().unwrap().durability().synced();
        let unsynced = index.logged_after(synced).into_iter().filter_map(|id| index.get(id));
        let unsynced: u64 = unsynced.map(|held| held.entry.memory_bytes()).sum();
        let waiting = index.memory_only().bytes + unsynced + 2 * record(0, SAMPLES).memory_bytes();
        waiting > self.memory - self.memory / 8
    }

    /// Returns what is announced about the length of the time that the last run may have lost.
    fn announced_seconds(&mut self) -> Vec<Value> {
        let mut seconds = Vec::new();
        for _ in 0..50 {
            while let Some(queued) = self.queue.next(self.now) {
                let id = queued.id;
                if let Entry::Message(message) = queued.entry
                    && UncleanShutdownEvent::parse(&message.body).is_some()
                {
                    seconds.extend(message.body.get("seconds").cloned());
                }
                self.queue.acknowledge(id, self.now);
            }
            self.run_jobs();
        }
        seconds
    }

    /// Returns whether `max_size` is what limits the queue: the reserve of two segments, the one
    /// that is begun, and one that a start or a failure takes.
    fn is_at_max_size(&self) -> bool {
        self.disk.used() + 5 * SEGMENT > DISK
    }

    /// Lets others take everything but `left` bytes.
    fn fill(&mut self, left: u64) {
        self.set_faults(DiskFaults { capacity: self.disk.used() + left, ..self.faults });
    }

    fn free_all(&mut self) {
        self.set_faults(DiskFaults::NONE);
        // Past the longest pause between two trials of a failed storage.
        self.wait(70);
    }

    fn set_faults(&mut self, faults: DiskFaults) {
        self.faults = faults;
        self.disk.set_faults(faults);
        self.wait(1);
    }

    fn set_limit(&mut self, limit: DiskLimit) {
        let none = DiskFaults { capacity: self.faults.capacity, ..DiskFaults::NONE };
        self.set_faults(match limit {
            DiskLimit::None => none,
            DiskLimit::Quota => DiskFaults { quota: self.disk.used(), ..none },
            DiskLimit::Files => DiskFaults { max_files: self.disk.file_count(), ..none },
            DiskLimit::FileLength => DiskFaults { max_file_bytes: SEGMENT / 2, ..none },
            DiskLimit::ReadOnly => DiskFaults { is_read_only: true, ..none },
            DiskLimit::Broken => DiskFaults { write: 1000, sync: 1000, ..none },
        });
    }

    /// Ends the process and starts another one, which loses nothing that is on the disk.
    fn restart(&mut self, ending: RunEnd) {
        let old = std::mem::replace(&mut self.queue, in_memory());
        let log = old.log.as_ref().unwrap();
        let (in_log, is_durable) = (log.index().total().samples, !log.has_unsynced());
        match ending {
            RunEnd::Stop => drop(old.close(self.now)),
            RunEnd::Kill => drop(old),
            RunEnd::PowerCut => {
                drop(old);
                self.disk.cut_power();
            }
        }
        self.starts += 1;
        let epoch = format!("e{}", self.starts);
        let Self { min_free, on_full, durability, order, now, .. } = *self;
        self.queue = open(&self.disk, min_free, on_full, (durability, order), &epoch, now);
        self.queue.max_memory = self.memory;
        if matches!(ending, RunEnd::PowerCut) && !is_durable || self.faults.write > 0 {
            return;
        }
        // What was delivered and could not be recorded may be announced as lost: the file in which
        // nothing else waited is overwritten (docs/how/queue.md, rare cases).
        let kept = self.recovered() - self.dropped();
        let is_kept = self.is_at_max_size() || kept >= in_log;
        assert!(is_kept, "{in_log} were stored: {}", self.describe());
    }

    fn apply(&mut self, step: &DiskEvent) {
        match *step {
            DiskEvent::Push(count) => self.push_all(count),
            DiskEvent::Message => drop(self.queue.push(EVENTS, message(30), self.now)),
            DiskEvent::Fill(left) => self.fill(left),
            DiskEvent::Free(bytes) => {
                let capacity = (self.faults.capacity + bytes).min(DISK);
                self.set_faults(DiskFaults { capacity, ..self.faults });
            }
            DiskEvent::DiskLimit(limit) => self.set_limit(limit),
            DiskEvent::Restart(ending) => self.restart(ending),
            DiskEvent::Deliver(count) => drop(self.deliver(count)),
            DiskEvent::Wait(seconds) => self.wait(seconds),
        }
        // `low-wear` writes after 4 s.
        self.wait(if self.durability == Durability::LowWear { 6 } else { 2 });
        // What has to wait for files that syncs free is tried again once a second.
        for _ in 0..10 {
            if self.queue.is_all_stored() || self.queue.health().is_memory_only() {
                break;
            }
            self.wait(1);
        }
        self.check();
    }

    /// What cannot be stored is reported, and what is reported is true.
    fn check(&mut self) {
        self.queue.update_gauges();
        let is_reported = self.queue.health().is_memory_only();
        assert!(self.queue.is_all_stored() || is_reported, "{}", self.describe());
        let metrics = &self.queue.metrics;
        assert_eq!(metrics.storage_failing.get(), i64::from(is_reported));
        let taken = metrics.produced.get() + metrics.recovered.get();
        let left = metrics.delivered.get() + metrics.dropped() + self.queue.stats().samples;
        assert_eq!(taken, left, "{}", self.describe());
    }

    /// With room again, everything is stored.
    fn check_end(&mut self) {
        self.free_all();
        self.check();
        assert!(self.queue.is_all_stored(), "{}", self.describe());
        assert!(!self.queue.health().is_memory_only(), "{}", self.describe());
    }

    /// Delivers up to `count` entries and returns the numbers of records.
    fn deliver(&mut self, count: u32) -> Vec<u64> {
        let mut delivered = Vec::new();
        for _ in 0..count {
            let Some(queued) = self.queue.next(self.now) else {
                self.run_jobs();
                continue;
            };
            let id = queued.id;
            delivered.extend(matches!(queued.entry, Entry::Record(_)).then_some(queued.seq));
            self.queue.acknowledge(id, self.now);
        }
        self.run_jobs();
        delivered
    }

    /// Returns the numbers of the messages of the first epoch, and of the records.
    fn deliver_everything(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut events, mut records) = (Vec::new(), Vec::new());
        for _ in 0..2_000 {
            while let Some(queued) = self.queue.next(self.now) {
                let id = queued.id;
                match queued.entry {
                    Entry::Record(_) => records.push(queued.seq),
                    Entry::Message(_) if queued.epoch == "e0" => events.push(queued.seq),
                    Entry::Message(_) => {}
                }
                self.queue.acknowledge(id, self.now);
            }
            self.run_jobs();
        }
        assert!(self.queue.is_empty());
        (events, records)
    }

    fn dropped(&self) -> u64 {
        self.queue.metrics.dropped()
    }

    fn recovered(&self) -> u64 {
        self.queue.metrics.recovered.get()
    }

    fn describe(&self) -> String {
        let (stats, health) = (self.queue.stats(), self.queue.health());
        let (dropped, used) = (self.dropped(), self.disk.used());
        let memory = self.queue.index.memory_only().bytes;
        let gaps: Vec<&Gap> = self.queue.ledger.gaps.iter().collect();
        format!(
            "{stats:?} {health:?} dropped {dropped} used {used} memory {memory} {:?} {gaps:?}",
            self.faults
        )
    }
}

fn in_memory() -> Queue<SimulatedDisk> {
    Queue::in_memory(&crate::testing::queue(), identity("none"), metrics().queue)
}

fn open(
    disk: &SimulatedDisk,
    min_free: u64,
    on_full: OnFull,
    (durability, order): (Durability, QueueOrder),
    epoch: &str,
    now: Instant,
) -> Queue<SimulatedDisk> {
    let config = config::Queue { on_full, order, durability, ..crate::testing::queue() };
    let limits = LogLimits { segment_bytes: SEGMENT, max_bytes: DISK, min_free_bytes: min_free };
    Queue::open_with_limits(disk.clone(), limits, &config, identity(epoch), metrics().queue, now)
}
