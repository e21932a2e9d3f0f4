//! What is damaged, gone or not for us: the queue starts, skips, counts and goes on.

use super::super::storage::Storage;
use super::super::storage::simulated::{Faults, Simulated};
use super::*;

#[test]
fn whatever_byte_of_the_log_is_damaged_it_starts_and_accounts_for_everything() {
    let contents = filled(4).contents();
    for (name, bytes) in &contents {
        for place in 0..bytes.len() {
            let mut damaged = contents.clone();
            damaged.get_mut(name).unwrap()[place] ^= 0x55;
            let (seen, lost) = drained(&Simulated::holding(&damaged));
            assert!(seen + lost >= 4, "{name} at {place}: {seen} arrived, {lost} are told");
        }
    }
}

#[test]
fn a_part_that_a_newer_version_wrote_is_set_aside_and_told() {
    let mut contents = filled(3).contents();
    for bytes in contents.values_mut() {
        bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }
    let disk = Simulated::holding(&contents);

    let queue = open(&disk);

    assert!(queue.health().sentence().unwrap().contains("newer version"));
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".unknown-version")));
}

#[test]
fn files_that_are_removed_while_it_runs_are_written_again_from_memory() {
    let disk = Simulated::new(1);
    let mut queue = open(&disk);
    let start = now();
    queue.push(A, record(1, 3), start);
    queue.turn(start);
    disk.remove_everything();

    queue.turn(start + Duration::from_secs(11));
    assert!(queue.health().is_failing());
    queue.turn(start + Duration::from_secs(13));
    assert!(!queue.health().is_failing());
    drop(queue);

    assert_eq!(open(&disk).stats().samples, 3);
}

#[test]
fn a_storage_that_fails_leaves_a_queue_that_publishes_and_says_so() {
    let disk = Simulated::new(1);
    let mut queue = open(&disk);
    disk.set_faults(Faults { write: 1000, ..Faults::NONE });

    queue.push(A, record(1, 3), now());
    queue.flush(now());

    assert!(queue.health().is_failing());
    assert_eq!(queue.next(now()).map(|queued| queued.seq), Some(0));
}

#[test]
fn what_was_not_durable_when_a_sync_failed_is_written_again() {
    let disk = Simulated::new(1);
    let mut queue = open(&disk);
    let start = now();
    queue.push(A, record(1, 3), start);
    disk.set_faults(Faults { sync: 1000, ..Faults::NONE });
    let job = queue.turn(start + Duration::from_secs(1)).unwrap();
    queue.done(job.run(), start);
    assert!(queue.health().is_failing());
    disk.set_faults(Faults::NONE);
    for seconds in 3..6 {
        let later = start + Duration::from_secs(seconds);
        while let Some(job) = queue.turn(later) {
            queue.done(job.run(), later);
        }
    }

    disk.cut_power();

    assert_eq!(open(&disk).stats().samples, 3);
}

#[test]
fn a_clean_restart_counts_on_under_the_same_epoch() {
    let disk = Simulated::new(1);
    let mut queue = open(&disk);
    queue.push(A, record(1, 3), now());
    assert!(queue.close(now()));

    let mut queue =
        Queue::open(disk, &crate::testing::queue(), identity("other"), metrics().queue, now());
    queue.push(A, record(2, 1), now());

    assert_eq!(&**queue.epoch(), "e");
    let numbers: Vec<u64> = all(&mut queue).iter().map(|(_, seq)| *seq).collect();
    assert_eq!(numbers, [1, 0], "what is new goes first");
}

#[test]
fn names_find_their_tags_again_in_another_configuration() {
    let disk = Simulated::new(1);
    let mut queue = open(&disk);
    queue.push(A, record(1, 1), now());
    queue.close(now());
    let mut other = identity("other");
    other.names.plcs.swap(0, 2);
    other.names.plcs[2].tags.swap(0, 1);
    other.names.topics.swap(0, 3);

    let mut queue = Queue::open(disk, &crate::testing::queue(), other, metrics().queue, now());

    work(&mut queue);
    let queued = queue.next(now()).unwrap();
    assert_eq!(queued.topic, TopicId::new(3));
    let Entry::Record(record) = queued.entry else { panic!("{queued:?}") };
    assert_eq!((record.plc, record.samples[0].tag), (2, 1));
}

#[test]
fn a_healthy_day_costs_little() {
    let costs = [Durability::Balanced, Durability::LowWear].map(|durability| {
        let disk = Simulated::new(1);
        let config = config::Queue { durability, max_size: 256 << 20, ..crate::testing::queue() };
        let mut queue = Queue::open(disk.clone(), &config, identity("e"), metrics().queue, now());
        let start = now();
        let before = disk.written();
        let mut payload = 0;
        for step in 0..6000_u64 {
            let at = start + Duration::from_millis(20 * step);
            // 300 bytes as JSON.
            payload += 300;
            queue.push(A, record(1, 20), at);
            let id = queue.next(at).unwrap().id;
            queue.acknowledge(id, at);
            while let Some(job) = queue.turn(at) {
                queue.done(job.run(), at);
            }
        }
        (disk.written() - before) * 1000 / payload
    });
    println!("device bytes per thousand payload bytes: {costs:?}");
    assert!(costs[0] <= 1600 && costs[1] <= 20, "{costs:?}");
}

fn open(disk: &Simulated) -> Queue<Simulated> {
    Queue::open(disk.clone(), &crate::testing::queue(), identity("e"), metrics().queue, now())
}

/// A disk with so many records, left in the middle.
fn filled(records: u64) -> Simulated {
    let disk = Simulated::new(1);
    let limits = Limits { segment: 1024, max: 1 << 20, min_free: 0 };
    let config = crate::testing::queue();
    let mut queue =
        Queue::open_within(disk.clone(), limits, &config, identity("e"), metrics().queue, now());
    for _ in 0..records {
        queue.push(A, record(1, 2), now());
    }
    queue.flush(now());
    disk
}

/// Runs what the queue has others do.
fn work(queue: &mut Queue<Simulated>) {
    queue.next(now());
    while let Some(job) = queue.turn(now()) {
        queue.done(job.run(), now());
    }
    queue.rewind(now());
}

fn all(queue: &mut Queue<Simulated>) -> Vec<(TopicId, u64)> {
    let mut numbers = Vec::new();
    for _ in 0..20 {
        while let Some(queued) = queue.next(now()) {
            numbers.push((queued.topic, queued.seq));
            let id = queued.id;
            queue.acknowledge(id, now());
        }
        while let Some(job) = queue.turn(now()) {
            queue.done(job.run(), now());
        }
    }
    numbers
}

/// How many records arrive from a damaged disk, and how many are told as lost or may be missing.
fn drained(disk: &Simulated) -> (usize, usize) {
    let mut queue =
        Queue::open(disk.clone(), &crate::testing::queue(), identity("f"), metrics().queue, now());
    let (mut arrived, mut told) = (0, 0);
    for _ in 0..6 {
        queue.tell(now());
        while let Some(queued) = queue.next(now()) {
            let id = queued.id;
            match queued.entry {
                Entry::Record(_) => arrived += 1,
                Entry::Message(message) => {
                    if let Some(gap) = Announcement::parse(&message.body) {
                        told += usize::try_from(gap.last_seq - gap.first_seq + 1).unwrap();
                    }
                    if let Some(start) = UncleanStart::parse(&message.body) {
                        let known = start.next_seq.get("edge/a/data/0").copied().unwrap_or(0);
                        told += 4_usize.saturating_sub(usize::try_from(known).unwrap());
                    }
                }
            }
            queue.acknowledge(id, now());
        }
        while let Some(job) = queue.turn(now()) {
            queue.done(job.run(), now());
        }
    }
    (arrived, told)
}
