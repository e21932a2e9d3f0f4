//! What still fits is told before it is needed.

use super::super::storage::simulated::{Faults, Simulated};
use super::*;

const LIMITS: Limits = Limits { segment: 4096, max: 128 << 10, min_free: 16 << 10 };

#[test]
fn what_is_told_to_fit_fits_and_little_more() {
    // Where others fill the file system, the reserve is what they are left.
    for (capacity, most) in [(u64::MAX, 128 << 10), (64 << 10, 56 << 10)] {
        let disk = Simulated::new(1);
        disk.set_faults(Faults { capacity, ..Faults::NONE });
        let mut queue = open(disk);
        let Room::Disk(told) = queue.room() else { panic!("{:?}", queue.health()) };
        assert!(told < most - 2 * LIMITS.segment, "the log's own reserve is told as room");

        let mut taken = 0;
        while queue.metrics.dropped() == 0 {
            let id = queue.push(A, record(1, 20), now()).unwrap();
            taken += queue.size_of(id);
            while let Some(job) = queue.turn(now()) {
                queue.done(job.run(), now());
            }
        }

        assert!(taken <= told + LIMITS.segment, "{taken} of {told}");
        assert!(taken >= told * 3 / 4, "{taken} of {told}");
        let Room::Disk(left) = queue.room() else { panic!("{:?}", queue.health()) };
        assert!(left <= 2 * LIMITS.segment, "{left}");
    }
}

#[test]
fn what_fits_without_a_storage_is_memory() {
    let disk = Simulated::new(1);
    let mut queue = open(disk.clone());
    disk.set_faults(Faults { write: 1000, ..Faults::NONE });
    queue.push(A, record(1, 20), now());
    queue.flush(now());

    assert_eq!(queue.room(), Room::Memory(MEMORY - record(1, 20).bytes()));
}

fn open(disk: Simulated) -> Queue<Simulated> {
    let config = crate::testing::queue();
    Queue::open_within(disk, LIMITS, &config, identity("e"), metrics().queue, now())
}
