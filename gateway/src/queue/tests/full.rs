//! A full log: by `max_size`, or because other programs fill the file system.

use std::collections::BTreeSet;

use super::super::storage::Storage;
use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

const SEGMENT: u64 = 2048;
const LIMITS: LogLimits =
    LogLimits { segment_bytes: SEGMENT, max_bytes: 32 * SEGMENT, min_free_bytes: 4 * SEGMENT };
const POLICIES: [OnFull; 2] = [OnFull::DropOldest, OnFull::DropNewest];

/// A sync takes long on a slow SD card: meanwhile nothing is freed, no matter what is evicted.
#[test]
fn a_disk_that_other_programs_fill_costs_one_segment_at_a_time_when_memory_is_full() {
    let mut world = FullDiskTest::new(OnFull::DropOldest);
    world.push_segments(12);
    world.leave_free(3 * SEGMENT);
    while world.queue.is_all_stored() {
        world.push();
        world.run_jobs();
    }
    assert_eq!(world.dropped(), 0);
    world.queue.max_memory = 64 * SEGMENT;
    while world.dropped() == 0 {
        world.push();
        world.run_jobs();
    }
    assert!(world.dropped() <= SEGMENT, "{}", world.dropped());

    // Nothing is freed until the eviction is durable, no matter what is evicted.
    world.push_segments_without_jobs(1);

    assert!(world.dropped() <= 2 * SEGMENT, "{}", world.dropped());
}

#[test]
fn a_completely_full_disk_costs_nothing_while_memory_has_room() {
    for on_full in POLICIES {
        let mut world = FullDiskTest::new(on_full);
        world.push_segments(12);
        world.leave_free(0);

        world.push_segments(10);

        assert!(!world.queue.health().is_failing(), "{:?}", world.queue.health());
        assert_eq!(world.dropped(), 0);
    }
}

#[test]
fn a_sync_that_never_ends_creates_no_files_beyond_max_size() {
    for on_full in POLICIES {
        let mut world = FullDiskTest::new(on_full);
        world.push_segments(40);
        // A loss is recorded as well.
        let sync = loop {
            world.push();
            world.advance(Duration::from_secs(1));
            if let Some(job) = world.next_long_job() {
                break job;
            }
        };

        world.push_segments_without_jobs(40);

        assert!(
            world.disk.used() <= LIMITS.max_bytes + SEGMENT,
            "{on_full:?} {}",
            world.disk.used()
        );
        world.held.push(sync);
        world.run_jobs();
        assert!(world.queue.is_all_stored(), "{on_full:?}");
    }
}

/// Nothing can be written, not even that something was delivered.
#[test]
fn delivered_entries_are_freed_on_a_full_disk() {
    let mut world = FullDiskTest::on(&completely_full_disk(), OnFull::DropNewest);
    assert!(world.queue.health().is_memory_only());

    world.deliver();
    world.advance(Duration::from_secs(60));
    world.run_jobs();

    assert_eq!(*world.queue.health(), Health::Healthy);
    assert!(world.disk.used() <= 5 * SEGMENT, "{} bytes", world.disk.used());
    world.push();
    world.run_jobs();
    assert!(world.queue.is_all_stored());
}

#[test]
fn a_disk_that_is_full_at_the_start_costs_the_oldest_only_when_memory_is_full_too() {
    let disk = completely_full_disk();
    let before = disk.used();
    let mut world = FullDiskTest::on(&disk, OnFull::DropOldest);
    world.push_segments(1);
    assert!(world.queue.health().is_memory_only());
    assert_eq!(world.dropped(), 0);
    world.queue.max_memory = world.queue.index.memory_only().bytes;
    for _ in 0..60 {
        world.advance(Duration::from_secs(1));
        world.push();
        world.run_jobs();
    }

    assert!(!world.queue.health().is_failing(), "{:?}", world.queue.health());
    assert!(world.dropped() <= 5 * SEGMENT, "{}", world.dropped());
    assert!(disk.used() <= before);
}

#[test]
fn events_outlive_telemetry_on_disk() {
    for on_full in POLICIES {
        let mut world = FullDiskTest::new(on_full);
        // Segments that hold events only.
        world.push_events(80);
        for _ in 0..40 {
            world.push_segments(2);
            world.push_events(1);
        }
        assert!(world.dropped() > 20 * SEGMENT);

        let (events, records) = world.numbers_after_restart();

        assert!(events.iter().copied().eq(0..120), "{on_full:?}: {events:?}");
        let (first, last) = (records.first().unwrap(), records.last().unwrap());
        let is_whole = last - first + 1 == to_u64(records.len());
        assert!(is_whole || on_full == OnFull::DropNewest);
        match on_full {
            OnFull::DropOldest => assert_eq!(*last, world.pushed - 1),
            OnFull::DropNewest => assert_eq!(*first, 0),
        }
    }
}

#[test]
fn an_event_costs_no_telemetry_while_the_reserve_lasts() {
    for on_full in POLICIES {
        let mut world = FullDiskTest::new(on_full);
        while world.dropped() == 0 {
            world.push();
            world.run_jobs();
        }
        let before = (world.dropped(), world.queue.stats().samples);

        world.push_events(8);

        let after = (world.dropped(), world.queue.stats().samples);
        assert_eq!(after, before, "{on_full:?}");
        assert!(world.queue.is_all_stored());
    }
}

#[test]
fn a_full_file_system_is_reported_until_it_has_room() {
    for on_full in POLICIES {
        let mut world = FullDiskTest::new(on_full);
        world.leave_free(SEGMENT);

        world.push_segments(3);
        let health = world.queue.health().clone();
        assert!(health.to_string().contains("the file system is full"), "{health:?}");
        assert!(health.is_memory_only(), "{health:?}");

        world.disk.set_faults(DiskFaults::NONE);
        // The free space is measured every second.
        world.advance(Duration::from_secs(1));
        world.run_jobs();
        assert_eq!(*world.queue.health(), Health::Healthy);
        assert!(world.queue.is_all_stored());
    }
}

/// Without room for files, or without permission, every call would try it again.
#[test]
fn a_file_that_cannot_be_prepared_is_not_retried_at_once() {
    let mut world = FullDiskTest::new(OnFull::DropOldest);
    let job = loop {
        world.push();
        if let Some(job) = world.next_long_job() {
            break job;
        }
    };
    world.disk.set_faults(DiskFaults { write: 1000, ..DiskFaults::NONE });
    let done = job.run();
    world.disk.set_faults(DiskFaults::NONE);
    world.queue.on_job_done(done, world.now);

    assert!(world.next_long_job().is_none());
    assert!(!world.disk.list().unwrap().iter().any(|name| name.starts_with("spare")));
}

/// A queue on a disk that fills up.
struct FullDiskTest {
    disk: SimulatedDisk,
    queue: Queue<SimulatedDisk>,
    on_full: OnFull,
    now: Instant,
    pushed: u64,
    /// Bytes of one record on disk.
    size: u64,
    /// Jobs that take long.
    held: Vec<DiskJob<SimulatedDisk>>,
}

impl FullDiskTest {
    fn new(on_full: OnFull) -> Self {
        Self::on(&SimulatedDisk::new(1), on_full)
    }

    fn on(disk: &SimulatedDisk, on_full: OnFull) -> Self {
        let (now, disk) = (now(), disk.clone());
        let queue = open(&disk, on_full, "e", now);
        let size = log::stored_entry_len(&record(0, 3));
        Self { disk, queue, on_full, now, pushed: 0, size, held: Vec::new() }
    }

    fn push(&mut self) {
        let at = i64::try_from(self.pushed).unwrap();
        self.pushed += 1;
        self.queue.push(A, record(at, 3), self.now);
    }

    fn push_events(&mut self, count: u32) {
        for _ in 0..count {
            self.queue.push(EVENTS, message(20), self.now);
            self.run_jobs();
        }
    }

    /// Pushes as many records as fit into `count` segments.
    fn push_segments(&mut self, count: u64) {
        for _ in 0..count * SEGMENT / self.size {
            self.push();
            self.run_jobs();
        }
    }

    fn push_segments_without_jobs(&mut self, count: u64) {
        for _ in 0..count * SEGMENT / self.size {
            self.push();
            while let Some(job) = self.next_long_job() {
                self.held.push(job);
            }
        }
    }

    /// Runs short jobs until there is another one.
    fn next_long_job(&mut self) -> Option<DiskJob<SimulatedDisk>> {
        while let Some(job) = self.queue.next_job(self.now) {
            if !job.is_short() {
                return Some(job);
            }
            self.queue.on_job_done(job.run(), self.now);
        }
        None
    }

    fn run_jobs(&mut self) {
        self.advance(Duration::from_millis(1));
        for job in std::mem::take(&mut self.held) {
            self.queue.on_job_done(job.run(), self.now);
        }
        while let Some(job) = self.queue.next_job(self.now) {
            self.queue.on_job_done(job.run(), self.now);
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets other programs take everything else.
    fn leave_free(&self, free: u64) {
        let capacity = self.disk.used() + free;
        self.disk.set_faults(DiskFaults { capacity, ..DiskFaults::NONE });
    }

    /// Bytes of records that were dropped.
    fn dropped(&self) -> u64 {
        self.queue.metrics.dropped() / 3 * self.size
    }

    fn deliver(&mut self) {
        self.queue.rewind(self.now);
        for _ in 0..2_000 {
            while let Some(id) = self.queue.next(self.now).map(|queued| queued.id) {
                self.queue.acknowledge(id, self.now);
            }
            self.run_jobs();
        }
        assert!(self.queue.is_empty());
    }

    /// Numbers of events and of records after a restart.
    fn numbers_after_restart(&mut self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        self.queue.flush(self.now);
        self.queue = open(&self.disk, self.on_full, "f", self.now);
        let (mut events, mut records) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..2_000 {
            while let Some(queued) = self.queue.next(self.now) {
                let (id, seq) = (queued.id, queued.seq);
                match queued.entry {
                    Entry::Record(_) => records.insert(seq),
                    Entry::Message(_) if queued.epoch == "e" => events.insert(seq),
                    Entry::Message(_) => false,
                };
                self.queue.acknowledge(id, self.now);
            }
            self.run_jobs();
        }
        assert!(self.queue.is_empty());
        (events, records)
    }
}

/// Returns a disk without a free byte, full of entries that wait.
fn completely_full_disk() -> SimulatedDisk {
    let mut world = FullDiskTest::new(OnFull::DropOldest);
    world.push_segments(10);
    world.queue.close(world.now);
    let mut contents = world.disk.contents();
    contents.retain(|name, _| name.starts_with("seg-"));
    let disk = SimulatedDisk::with_files(&contents);
    // A start cuts off the unused end of the last segment.
    disk.set_faults(DiskFaults { capacity: disk.used() - SEGMENT, ..DiskFaults::NONE });
    disk
}

fn open(disk: &SimulatedDisk, on_full: OnFull, epoch: &str, now: Instant) -> Queue<SimulatedDisk> {
    let config = config::Queue { on_full, order: QueueOrder::Strict, ..crate::testing::queue() };
    Queue::open_with_limits(disk.clone(), LIMITS, &config, identity(epoch), metrics().queue, now)
}
