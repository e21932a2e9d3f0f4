//! A storage that fails, for any length of time.

use super::super::storage::Storage;
use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::damage::{disk_with_records, of_a_newer_version};
use super::*;

const NEVER_SYNCS: DiskFaults = DiskFaults { sync: 1000, ..DiskFaults::NONE };

/// Writes succeed and syncs fail: that must not count as working from time to time.
#[test]
fn a_disk_that_never_syncs_is_reported_once_and_leaves_few_files() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    world.disk.set_faults(NEVER_SYNCS);

    world.run(Duration::from_secs(600));

    assert!(
        matches!(&*world.healths, [Health::Healthy, Health::StorageFailed { .. }]),
        "{:?}",
        world.healths
    );
    assert!(world.most_files <= 4, "{} files", world.most_files);
    world.disk.set_faults(DiskFaults::NONE);
    world.run(Duration::from_secs(61));
    assert_eq!(world.healths.get(2..), Some(&[Health::Healthy][..]));
    world.disk.cut_power();
    let stored = open(&world.disk).stats().samples;
    assert!(stored > 3 * 6_000, "{stored} samples outlived a power cut");
}

#[test]
fn a_disk_that_works_for_moments_only_is_retried_less_and_less() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    for _ in 0..100 {
        world.disk.set_faults(NEVER_SYNCS);
        world.run(Duration::from_secs(3));
        world.disk.set_faults(DiskFaults::NONE);
        world.run(Duration::from_secs(3));
    }
    assert!(world.healths.len() < 30, "{} changes", world.healths.len());
}

#[test]
fn a_disk_that_stalls_is_reported_and_loses_nothing_when_it_answers_again() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    for _ in 0..3 {
        world.run(Duration::from_secs(5));
        world.is_stalled = true;
        world.run(Duration::from_secs(60));
        assert!(world.queue.health().to_string().contains("does not answer"));
        assert!(world.running.len() <= 3, "{} threads are waiting", world.running.len());

        world.is_stalled = false;
        world.run(Duration::from_secs(90));

        assert_eq!(*world.queue.health(), Health::Healthy);
    }
    assert_eq!(world.healths.len(), 7, "{:?}", world.healths);
    let pushed = world.queue.metrics.produced.get();
    assert_eq!((world.queue.metrics.dropped(), world.queue.stats().samples), (0, pushed));
    world.disk.cut_power();
    let stored = open(&world.disk).stats().samples;
    assert!(stored > pushed - 40, "{stored} of {pushed} samples outlived a power cut");
}

#[test]
fn closing_while_the_disk_stalls_counts_what_could_not_be_written() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    world.run(Duration::from_secs(5));
    world.is_stalled = true;
    world.run(Duration::from_secs(2));
    let metrics = world.queue.metrics.clone();

    let left = world.queue.begin_close(world.now).finish(world.now);

    assert_eq!(left, CloseOutcome::Lost);
    let dropped = metrics.dropped();
    assert!((54..=90).contains(&dropped), "{dropped} samples");
}

#[test]
fn a_job_that_dies_counts_as_a_storage_failure() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    world.queue.push(A, record(1, 3), world.now);
    let job = world.queue.next_job(world.now + Duration::from_secs(1)).unwrap();
    drop(job);

    world.queue.on_job_died(world.now);

    assert!(world.queue.health().is_failing());
    world.run(Duration::from_secs(5));
    assert_eq!(*world.queue.health(), Health::Healthy);
    assert!(!world.queue.log.as_ref().unwrap().durability().is_syncing());
}

#[test]
fn files_set_aside_are_reported_again_after_a_failure() {
    let newer = of_a_newer_version(&disk_with_records(3));
    let mut world = FailingDiskTest::new(SimulatedDisk::with_files(&newer));
    world.disk.set_faults(NEVER_SYNCS);
    world.run(Duration::from_secs(5));
    assert!(world.queue.health().is_failing());
    world.disk.set_faults(DiskFaults::NONE);

    world.run(Duration::from_secs(20));

    assert!(world.queue.health().to_string().contains("newer version"));
}

/// The numbers are correct in any case; the number of seconds would not be.
#[test]
fn a_run_that_could_not_write_is_announced_without_seconds() {
    let mut world = FailingDiskTest::new(SimulatedDisk::new(1));
    world.disk.set_faults(NEVER_SYNCS);
    world.run(Duration::from_secs(600));
    let disk = world.disk.clone();
    drop(world);
    disk.set_faults(DiskFaults::NONE);

    let unknown = [("seconds", Value::Null), ("reason", "storage".into())];
    assert_eq!(announced(&disk, "e", "f"), unknown);

    assert_eq!(announced(&disk, "f", "g"), [("seconds", 0.into())], "the second run could write");
}

#[test]
fn a_start_that_cannot_write_announces_the_last_run_without_seconds() {
    let disk = disk_with_records(3);
    disk.set_faults(DiskFaults { write: 1000, ..DiskFaults::NONE });

    let unknown = [("seconds", Value::Null), ("reason", "storage".into())];
    assert_eq!(announced(&disk, "e", "f"), unknown);
}

/// Returns what a start announces about the run `before`; then the process is killed.
fn announced(disk: &SimulatedDisk, before: &str, epoch: &str) -> Vec<(&'static str, Value)> {
    let config = crate::testing::queue();
    let mut queue = Queue::open(disk.clone(), &config, identity(epoch), metrics().queue, now());
    let mut bodies = Vec::new();
    for _ in 0..3 {
        queue.announce_losses(now());
        while let Some(queued) = queue.next(now()) {
            if let Entry::Message(message) = queued.entry {
                let start = UncleanShutdownEvent::parse(&message.body);
                let is_it = start.is_some_and(|start| start.epoch == before);
                bodies.extend(is_it.then(|| message.body.clone()));
            }
        }
        while let Some(job) = queue.next_job(now()) {
            queue.on_job_done(job.run(), now());
        }
    }
    let body = bodies.pop().unwrap();
    let reported = ["seconds", "reason"].into_iter();
    reported.filter_map(|key| Some((key, body.get(key)?.clone()))).collect()
}

/// A queue with ten pushes a second, whose jobs run at once.
struct FailingDiskTest {
    disk: SimulatedDisk,
    queue: Queue<SimulatedDisk>,
    now: Instant,
    /// Whether jobs do not end, and those that are running.
    is_stalled: bool,
    running: Vec<DiskJob<SimulatedDisk>>,
    /// Every change of the health.
    healths: Vec<Health>,
    most_files: usize,
}

impl FailingDiskTest {
    fn new(disk: SimulatedDisk) -> Self {
        let queue = open(&disk);
        let reported = vec![queue.health().clone()];
        Self {
            disk,
            queue,
            now: now(),
            is_stalled: false,
            running: Vec::new(),
            healths: reported,
            most_files: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(100);
            self.queue.push(A, record(1, 3), self.now);
            loop {
                self.running.extend(self.queue.next_job(self.now));
                if self.is_stalled || self.running.is_empty() {
                    break;
                }
                self.queue.on_job_done(self.running.remove(0).run(), self.now);
            }
            assert!(self.queue.next_deadline().is_none_or(|due| due > self.now), "it is busy");
            self.healths.push(self.queue.health().clone());
            self.healths.dedup();
            self.most_files = self.most_files.max(self.disk.list().unwrap().len());
        }
    }
}

fn open(disk: &SimulatedDisk) -> Queue<SimulatedDisk> {
    Queue::open(disk.clone(), &crate::testing::queue(), identity("e"), metrics().queue, now())
}
