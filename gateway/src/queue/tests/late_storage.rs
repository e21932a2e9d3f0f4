//! No storage at the start, and one that appears later.

use super::super::storage::simulated::SimulatedDisk;
use super::*;

#[test]
fn entries_in_memory_move_to_the_storage_with_their_numbers() {
    let disk = SimulatedDisk::new(1);
    let mut queue = without_storage("e");
    queue.push(A, record(0, 1), now());
    queue.push(A, record(1, 2), now());
    let first = queue.next(now()).unwrap().id;
    queue.acknowledge(first, now());

    queue.attach_storage(disk.clone(), now());

    assert!(!queue.lacks_storage() && *queue.health() == Health::Healthy);
    assert_eq!((&**queue.epoch(), queue.stats().samples), ("e", 2));
    drop(queue);
    assert_eq!(open(&disk, "f").stats().samples, 2);
}

#[test]
fn entries_in_memory_come_after_those_in_the_storage() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk, "old");
    queue.push(A, record(0, 1), now());
    queue.close(now());
    let mut queue = without_storage("new");
    for at in 1..5 {
        queue.push(A, record(at, 1), now());
    }
    for _ in 0..2 {
        let id = queue.next(now()).unwrap().id;
        queue.acknowledge(id, now());
    }

    queue.attach_storage(disk, now());

    let mut taken = Vec::new();
    for _ in 0..3 {
        while let Some(queued) = queue.next(now()) {
            taken.extend(queued.entry.at().map(|at| (queued.id, at.as_micros())));
        }
        while let Some(job) = queue.next_job(now()) {
            queue.on_job_done(job.run(), now());
        }
    }
    assert!(taken.is_sorted(), "{taken:?}");
    let times: Vec<i64> = taken.into_iter().map(|(_, at)| at).collect();
    assert_eq!(times, [0, 3, 4]);
}

#[test]
fn numbers_given_before_there_was_a_storage_keep_their_epoch() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk, "old");
    queue.push(A, record(0, 1), now());
    queue.close(now());
    let mut queue = without_storage("new");
    queue.push(A, record(1, 1), now());

    queue.attach_storage(disk, now());

    let mut numbers = Vec::new();
    for _ in 0..3 {
        while let Some(queued) = queue.next(now()) {
            numbers.push((queued.epoch.to_owned(), queued.seq));
        }
        while let Some(job) = queue.next_job(now()) {
            queue.on_job_done(job.run(), now());
        }
    }
    assert_eq!(numbers, [("old".to_owned(), 0), ("new".to_owned(), 0)]);
}

#[test]
fn nothing_moves_while_an_entry_is_in_flight() {
    let disk = SimulatedDisk::new(1);
    let mut queue = without_storage("e");
    queue.push(A, record(0, 1), now());
    let id = queue.next(now()).unwrap().id;

    queue.attach_storage(disk.clone(), now());
    assert!(queue.lacks_storage());

    queue.acknowledge(id, now());
    queue.attach_storage(disk, now());
    assert!(!queue.lacks_storage());
}

fn without_storage(epoch: &str) -> Queue<SimulatedDisk> {
    let error = DirStorageError::InUse("somewhere".into());
    Queue::without_storage(&crate::testing::queue(), identity(epoch), metrics().queue, &error)
}

fn open(disk: &SimulatedDisk, epoch: &str) -> Queue<SimulatedDisk> {
    Queue::open(disk.clone(), &crate::testing::queue(), identity(epoch), metrics().queue, now())
}
