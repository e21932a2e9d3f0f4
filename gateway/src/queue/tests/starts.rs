//! What a start may find: files of any length and name, and a device that cannot be read at first.

use std::fs::{self, File};

use super::super::storage::Storage;
use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

const NEVER_READS: DiskFaults = DiskFaults { read: 1000, ..DiskFaults::NONE };

/// A sparse file takes no space on disk, and would take all memory.
#[test]
fn a_file_of_any_length_is_read_in_bounded_memory() {
    let dir = std::env::temp_dir().join(format!("edge-queue-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("seg-00000000000000ff.log");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let config = config::Queue { max_size: 64 << 10, ..crate::testing::queue() };
    let files = DirStorage::open(&dir).unwrap();

    let mut queue = Queue::open(files, &config, identity("e"), metrics().queue, now());

    queue.push(A, record(1, 3), now());
    assert!(queue.is_all_stored() && *queue.health() == Health::Healthy, "{:?}", queue.health());
    assert!(!path.exists());
    drop(queue);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_with_a_number_that_no_log_reaches_is_ignored() {
    let disk = SimulatedDisk::new(1);
    disk.create("seg-ffffffffffffffff.log").unwrap();

    for seconds in 0..3 {
        let mut queue = open(&disk);
        queue.push(A, record(1, 3), now());
        queue.flush(now());
        assert!(queue.is_all_stored(), "{:?}", queue.health());
        assert_eq!(queue.stats().samples, 3 * (seconds + 1));
    }
}

#[test]
fn a_read_error_at_a_start_loses_nothing() {
    let disk = damage::disk_with_records(100);
    disk.set_faults(NEVER_READS);
    let mut queue = open(&disk);
    assert!(queue.health().is_failing() && queue.lacks_storage());
    disk.set_faults(DiskFaults::NONE);

    queue.attach_storage(disk, now());

    assert_eq!((queue.stats().samples, queue.metrics.dropped()), (200, 0));
}

#[test]
fn a_file_that_cannot_be_read_three_times_is_set_aside_and_reported() {
    let disk = damage::disk_with_records(3);
    disk.set_faults(NEVER_READS);
    let mut queue = open(&disk);
    queue.attach_storage(disk.clone(), now());
    assert!(queue.lacks_storage());
    queue.attach_storage(disk.clone(), now());
    assert!(!queue.lacks_storage());
    disk.set_faults(DiskFaults::NONE);

    for seconds in 0..5 {
        let at = now() + Duration::from_secs(seconds);
        while let Some(job) = queue.next_job(at) {
            queue.on_job_done(job.run(), at);
        }
    }

    let health = queue.health();
    assert!(health.to_string().contains("could not be read"), "{health:?}");
    assert!(!health.is_memory_only());
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".unreadable")));
}

/// Numbers that a run gave and could not record must not be given again.
#[test]
fn a_start_that_cannot_write_uses_an_epoch_of_its_own() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    queue.push(A, record(1, 3), now());
    queue.close(now());
    disk.set_faults(DiskFaults { write: 1000, ..DiskFaults::NONE });
    let config = crate::testing::queue();
    let start = |epoch| Queue::open(disk.clone(), &config, identity(epoch), metrics().queue, now());

    assert_eq!(&**start("f").epoch(), "f");

    disk.set_faults(DiskFaults::NONE);
    assert_eq!(&**start("g").epoch(), "e");
}

/// A log of 4 GiB has as many files as a process may have open at once.
#[test]
fn a_start_has_few_files_open() {
    let disk = damage::disk_with_records(1000);
    assert!(disk.list().unwrap().len() > 40);
    disk.take_max_open();

    drop(open(&disk));

    assert!(disk.take_max_open() < 5);
}

fn open(disk: &SimulatedDisk) -> Queue<SimulatedDisk> {
    Queue::open(disk.clone(), &crate::testing::queue(), identity("e"), metrics().queue, now())
}
