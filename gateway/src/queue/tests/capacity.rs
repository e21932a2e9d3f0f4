//! The reported capacity is what really fits.

use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

const LIMITS: LogLimits =
    LogLimits { segment_bytes: 4096, max_bytes: 128 << 10, min_free_bytes: 16 << 10 };

#[test]
fn the_reported_capacity_fits_and_little_more() {
    // Where other programs fill the file system, the reserve lies in what they leave.
    for (capacity, most) in [(u64::MAX, 128 << 10), (64 << 10, 56 << 10)] {
        let disk = SimulatedDisk::new(1);
        disk.set_faults(DiskFaults { capacity, ..DiskFaults::NONE });
        let mut queue = open(disk);
        let Capacity::Disk(stated) = queue.capacity() else { panic!("{:?}", queue.health()) };
        assert!(
            stated < most - 2 * LIMITS.segment_bytes,
            "the log's own reserve is reported as capacity"
        );

        let mut taken = 0;
        while queue.metrics.dropped() == 0 && queue.is_all_stored() {
            let id = queue.push(A, record(1, 20), now()).unwrap();
            taken += queue.stored_bytes(id);
            while let Some(job) = queue.next_job(now()) {
                queue.on_job_done(job.run(), now());
            }
        }

        assert!(taken <= stated + LIMITS.segment_bytes, "{taken} of {stated}");
        assert!(taken >= stated * 3 / 4, "{taken} of {stated}");
        if let Capacity::Disk(left) = queue.capacity() {
            assert!(left <= 2 * LIMITS.segment_bytes, "{left}");
        }
    }
}

#[test]
fn without_a_storage_the_capacity_is_memory() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(disk.clone());
    disk.set_faults(DiskFaults { write: 1000, ..DiskFaults::NONE });
    queue.push(A, record(1, 20), now());
    queue.flush(now());

    assert_eq!(queue.capacity(), Capacity::Memory(MAX_MEMORY_BYTES - record(1, 20).memory_bytes()));
}

fn open(disk: SimulatedDisk) -> Queue<SimulatedDisk> {
    let config = crate::testing::queue();
    Queue::open_with_limits(disk, LIMITS, &config, identity("e"), metrics().queue, now())
}
