//! Damaged, missing and foreign files: the queue starts, skips them, counts the loss and goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::super::storage::Storage;
use super::super::storage::simulated::{DiskFaults, SimulatedDisk};
use super::*;

/// Records, messages, settled ids, losses and checkpoints: only the damaged one is lost.
#[test]
fn any_damaged_byte_of_the_log_costs_one_entry_at_most() {
    for is_clean in [false, true] {
        let (disk, expected) = filled_with_everything(is_clean);
        let contents = disk.contents();
        for (name, bytes) in &contents {
            // Without the names of its PLC no record of a segment can be decoded.
            let names = bytes.windows(4).position(|text| text == b"plc0").unwrap_or(usize::MAX);
            let names = names.saturating_sub(24)..names.saturating_add(16);
            for (place, byte) in bytes.iter().enumerate() {
                let most = if names.contains(&place) { 3 } else { 1 };
                let what = format!("{name} at {place}, clean {is_clean}");
                let damages = DAMAGES.iter().map(|damage| damage(*byte));
                for damage in damages.filter(|damage| damage != byte) {
                    let mut damaged = contents.clone();
                    damaged.get_mut(name).unwrap()[place] = damage;
                    check(&drain(&SimulatedDisk::with_files(&damaged)), &expected, most, &what);
                }
            }
        }
    }
}

/// Checks that at most `most` entries are lost, and that the loss is announced.
fn check(drained: &DrainResult, expected: &SeqNumbers, most: usize, what: &str) {
    let missing: Vec<_> = expected.difference(&drained.accounted).collect();
    assert!(missing.is_empty(), "{what}: {missing:?}");
    let lost = expected.difference(&drained.arrived);
    let lost = lost.filter(|number| **number != refused_number()).count();
    assert!(lost <= most, "{what}: {lost} entries are lost");
    assert_eq!(drained.imbalance, 0, "{what}");
}

/// Ways to damage a byte.
const DAMAGES: [fn(u8) -> u8; 3] = [|_| 0, |_| 0xFF, |byte| byte ^ 1];

#[test]
fn a_file_of_a_newer_version_is_set_aside_and_reported() {
    let disk = SimulatedDisk::with_files(&of_a_newer_version(&disk_with_records(3)));

    let queue = open(&disk);

    assert!(queue.health().to_string().contains("newer version"));
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".unknown-version")));
}

/// The newest files are of a newer version: the rest arrives. The version that wrote them delivers
/// the files set aside, and nothing is missing in the end.
#[test]
fn files_of_two_versions_are_delivered_by_both_versions_together() {
    let mut contents = disk_with_records(120).contents();
    assert!(contents.len() >= 6, "{:?}", contents.keys());
    let ours = contents.len() - 3;
    contents.values_mut().skip(ours).for_each(|bytes| set_version(bytes, 99));
    let disk = SimulatedDisk::with_files(&contents);
    let older = drain(&disk);

    let mut aside = BTreeMap::new();
    for (name, mut bytes) in disk.contents() {
        if let Some(name) = name.strip_suffix(".unknown-version") {
            set_version(&mut bytes, 1);
            aside.insert(name.to_owned(), bytes);
        }
    }
    assert_eq!(aside.len(), 3);
    let newer = drain(&SimulatedDisk::with_files(&aside));

    assert_eq!((older.imbalance, newer.imbalance), (0, 0));
    assert!(older.arrived.len() > 20 && newer.arrived.len() > 20);
    let arrived: SeqNumbers = older.arrived.union(&newer.arrived).cloned().collect();
    assert_eq!(arrived, (0..120).map(|seq| (DATA.to_owned(), seq)).collect());
}

#[test]
fn files_that_are_removed_while_it_runs_are_written_again_from_memory() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    let start = now();
    queue.push(A, record(1, 3), start);
    queue.flush(start);
    disk.remove_all_files();

    let work = |queue: &mut Queue<SimulatedDisk>, seconds| {
        let at = start + Duration::from_secs(seconds);
        while let Some(job) = queue.next_job(at) {
            queue.on_job_done(job.run(), at);
        }
    };
    work(&mut queue, 1);
    assert!(queue.health().is_failing());
    work(&mut queue, 3);
    assert!(!queue.health().is_failing());
    drop(queue);

    assert_eq!(open(&disk).stats().samples, 3);
}

#[test]
fn a_queue_whose_storage_fails_goes_on_publishing_and_reports_it() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    disk.set_faults(DiskFaults { write: 1000, ..DiskFaults::NONE });

    queue.push(A, record(1, 3), now());
    queue.flush(now());

    assert!(queue.health().is_failing());
    assert_eq!(queue.next(now()).map(|queued| queued.seq), Some(0));
}

#[test]
fn entries_that_were_not_durable_when_a_sync_failed_are_written_again() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    let start = now();
    queue.push(A, record(1, 3), start);
    disk.set_faults(DiskFaults { sync: 1000, ..DiskFaults::NONE });
    let later = start + Duration::from_secs(1);
    while let Some(job) = queue.next_job(later) {
        queue.on_job_done(job.run(), later);
    }
    assert!(queue.health().is_failing());
    disk.set_faults(DiskFaults::NONE);
    for seconds in 3..6 {
        let later = start + Duration::from_secs(seconds);
        while let Some(job) = queue.next_job(later) {
            queue.on_job_done(job.run(), later);
        }
    }

    disk.cut_power();

    assert_eq!(open(&disk).stats().samples, 3);
}

#[test]
fn a_clean_restart_continues_the_epoch() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    queue.push(A, record(1, 3), now());
    assert_eq!(queue.close(now()), CloseOutcome::Stored);

    let mut queue =
        Queue::open(disk, &crate::testing::queue(), identity("other"), metrics().queue, now());
    queue.push(A, record(2, 1), now());

    assert_eq!(&**queue.epoch(), "e");
    let numbers: Vec<u64> = all(&mut queue).iter().map(|(_, seq)| *seq).collect();
    assert_eq!(numbers, [1, 0], "what is new goes first");
}

/// The last records are not part of the running sync: they do not wait for it.
#[test]
fn closing_during_a_sync_keeps_the_last_entries() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    let start = now();
    queue.push(A, record(1, 3), start);
    queue.flush(start);
    let job = queue.next_job(start + Duration::from_secs(1)).unwrap();
    queue.push(A, record(2, 3), start + Duration::from_secs(1));

    let left = queue.close(start + Duration::from_secs(1));

    assert_eq!(left, CloseOutcome::Written, "the disk has not confirmed it");
    drop(job);
    let config = crate::testing::queue();
    let queue = Queue::open(disk, &config, identity("other"), metrics().queue, now());
    assert_eq!((&**queue.epoch(), queue.stats().samples), ("e", 6));
}

#[test]
fn entries_find_their_tags_by_name_in_another_configuration() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk);
    queue.push(A, record(1, 1), now());
    queue.close(now());
    let mut other = identity("other");
    other.names.plcs.swap(0, 2);
    other.names.plcs[2].tags = ["u", "t"].into_iter().collect();
    other.names.topics.swap(0, 3);

    let mut queue = Queue::open(disk, &crate::testing::queue(), other, metrics().queue, now());

    work(&mut queue);
    let queued = queue.next(now()).unwrap();
    assert_eq!(queued.topic, TopicId::new(3));
    let Entry::Record(record) = queued.entry else { panic!("{queued:?}") };
    assert_eq!((record.plc, record.samples[0].tag), (2, 1));
}

#[test]
fn a_day_without_an_outage_writes_little_to_the_disk() {
    let costs = [Durability::Balanced, Durability::LowWear].map(|durability| {
        let disk = SimulatedDisk::new(1);
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
            while let Some(job) = queue.next_job(at) {
                queue.on_job_done(job.run(), at);
            }
        }
        (disk.written() - before) * 1000 / payload
    });
    println!("device bytes per thousand payload bytes: {costs:?}");
    assert!(costs[0] <= 1600 && costs[1] <= 20, "{costs:?}");
}

fn open(disk: &SimulatedDisk) -> Queue<SimulatedDisk> {
    Queue::open(disk.clone(), &crate::testing::queue(), identity("e"), metrics().queue, now())
}

/// Returns the files of a disk as if a newer version had written them.
pub(super) fn of_a_newer_version(disk: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let mut contents = disk.contents();
    contents.values_mut().for_each(|bytes| set_version(bytes, 99));
    contents
}

fn set_version(bytes: &mut [u8], version: u32) {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

/// Returns a disk with `records` records after a kill.
pub(super) fn disk_with_records(records: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let limits = LogLimits { segment_bytes: 1024, max_bytes: 1 << 20, min_free_bytes: 0 };
    let config = crate::testing::queue();
    let mut queue = Queue::open_with_limits(
        disk.clone(),
        limits,
        &config,
        identity("e"),
        metrics().queue,
        now(),
    );
    for _ in 0..records {
        queue.push(A, record(1, 2), now());
    }
    queue.flush(now());
    disk
}

/// Runs all jobs.
fn work(queue: &mut Queue<SimulatedDisk>) {
    queue.next(now());
    while let Some(job) = queue.next_job(now()) {
        queue.on_job_done(job.run(), now());
    }
    queue.rewind(now());
}

fn all(queue: &mut Queue<SimulatedDisk>) -> Vec<(TopicId, u64)> {
    let mut numbers = Vec::new();
    for _ in 0..20 {
        while let Some(queued) = queue.next(now()) {
            numbers.push((queued.topic, queued.seq));
            let id = queued.id;
            queue.acknowledge(id, now());
        }
        while let Some(job) = queue.next_job(now()) {
            queue.on_job_done(job.run(), now());
        }
    }
    numbers
}

/// Returns the number that the broker refused: it is announced as lost.
fn refused_number() -> (String, u64) {
    (DATA.to_owned(), 1)
}

/// Topic and number.
type SeqNumbers = BTreeSet<(String, u64)>;

const DATA: &str = "edge/a/data/0";

/// Returns a disk after a kill or a clean shutdown, and the numbers that are not delivered.
fn filled_with_everything(is_clean: bool) -> (SimulatedDisk, SeqNumbers) {
    let disk = SimulatedDisk::new(1);
    let limits = LogLimits { segment_bytes: 1024, max_bytes: 1 << 20, min_free_bytes: 0 };
    let config = crate::testing::queue();
    let identity = identity("e");
    let mut queue =
        Queue::open_with_limits(disk.clone(), limits, &config, identity, metrics().queue, now());
    for at in 0..3 {
        queue.push(A, record(at, 2), now());
    }
    queue.push(EVENTS, message(20), now());
    let ids: Vec<EntryId> =
        std::iter::from_fn(|| queue.next(now()).map(|queued| queued.id)).collect();
    queue.acknowledge(ids[0], now());
    let later = now() + Duration::from_secs(10);
    while let Some(job) = queue.next_job(later) {
        queue.on_job_done(job.run(), later);
    }
    queue.discard(ids[1], DropReason::Refused, later);
    queue.push(A, record(3, 2), later);
    while let Some(job) = queue.next_job(later + Duration::from_secs(10)) {
        queue.on_job_done(job.run(), later);
    }
    queue.push(EVENTS, message(20), later);
    if is_clean {
        assert_eq!(queue.close(later), CloseOutcome::Stored);
    } else {
        queue.flush(later);
    }
    let data = (1..4).map(|seq| (DATA.to_owned(), seq));
    (disk, data.chain((0..2).map(|seq| (EVENT.to_owned(), seq))).collect())
}

/// What a damaged disk delivers.
struct DrainResult {
    /// Numbers of epoch `e` that arrive.
    arrived: SeqNumbers,
    /// Those, and the ones that are announced as lost or may be missing.
    accounted: SeqNumbers,
    /// Samples recovered, less those delivered or dropped.
    imbalance: u64,
}

fn drain(disk: &SimulatedDisk) -> DrainResult {
    let series = SERIES.with(Clone::clone);
    let before = metrics_imbalance(&series);
    let config = crate::testing::queue();
    let mut queue = Queue::open(disk.clone(), &config, identity("f"), series.clone(), now());
    let (mut arrived, mut accounted) = (SeqNumbers::new(), SeqNumbers::new());
    let mut rounds = 0;
    while !is_done(&queue) {
        rounds += 1;
        assert!(rounds < 60, "{:?} are never delivered", queue.stats());
        queue.announce_losses(now());
        while let Some(queued) = queue.next(now()) {
            let (id, epoch) = (queued.id, queued.epoch.to_owned());
            let (topic, seq) = (queued.topic, queued.seq);
            if let Entry::Message(message) = queued.entry {
                accounted.extend(announced_numbers(message, &epoch));
            }
            if epoch == "e" {
                arrived.insert((queue.topic(topic).unwrap().to_string(), seq));
            }
            queue.acknowledge(id, now());
        }
        while let Some(job) = queue.next_job(now()) {
            queue.on_job_done(job.run(), now());
        }
    }
    accounted.extend(arrived.iter().cloned());
    DrainResult { arrived, accounted, imbalance: metrics_imbalance(&series).wrapping_sub(before) }
}

/// Returns whether everything is delivered and announced.
fn is_done(queue: &Queue<SimulatedDisk>) -> bool {
    let Ledger { gaps, uncleans, .. } = &queue.ledger;
    queue.is_empty() && gaps.iter().next().is_none() && uncleans.is_empty()
}

thread_local! {
    /// Registering them again for every byte would take most of the time.
    static SERIES: QueueMetrics = metrics().queue;
}

fn metrics_imbalance(series: &QueueMetrics) -> u64 {
    series.recovered.get().wrapping_sub(series.delivered.get() + series.dropped())
}

/// Returns the numbers of epoch `e` that a message announces as lost or missing.
fn announced_numbers(message: &Message, epoch: &str) -> SeqNumbers {
    let mut numbers = SeqNumbers::new();
    if let Some(gap) = GapEvent::parse(&message.body)
        && gap.epoch.as_deref().unwrap_or(epoch) == "e"
    {
        let lost = gap.first_seq..=gap.last_seq;
        numbers.extend(lost.map(|seq| (gap.topic.clone(), seq)));
    }
    if let Some(start) = UncleanShutdownEvent::parse(&message.body) {
        for topic in [DATA, EVENT] {
            let known = start.next_seq.get(topic).copied().unwrap_or(0);
            numbers.extend((known..9).map(|seq| (topic.to_owned(), seq)));
        }
    }
    numbers
}
