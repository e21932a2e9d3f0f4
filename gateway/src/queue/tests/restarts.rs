//! A killed process, a start, and a power cut during that start.

use std::collections::BTreeSet;

use super::super::storage::Storage;
use super::super::storage::simulated::SimulatedDisk;
use super::*;
use crate::model::{ClockPeriod, TrustLevel};
use crate::queue::log::{Log, RunSettings};

/// What a killed process had settled may be in the memory of the operating system only. A start
/// that overwrites a file because of it must not lose the file together with the reason.
#[test]
fn a_file_is_overwritten_only_after_it_is_durable_that_nothing_waits_in_it() {
    for seed in 0..60 {
        let disk = SimulatedDisk::new(seed);
        let delivered = killed_after_a_delivery(&disk);

        let mut ledger =
            Ledger { topics: TopicTable::new(identity("b").names.topics), ..Ledger::default() };
        let names = identity("b").names;
        let opened = Log::open(disk.clone(), LIMITS, names, &start(), &mut ledger, now());
        opened.unwrap().log.begin_run(&ledger).unwrap();
        disk.cut_power();

        let queue = open(&disk, "c");
        let gaps: Vec<Gap> = queue.ledger.pending_announcements().0;
        assert_eq!(gaps, [], "seed {seed}: nothing was damaged, {delivered} were delivered");
        assert_eq!(queue.metrics.dropped(), 0, "seed {seed}");
    }
}

const LIMITS: LogLimits = LogLimits { segment_bytes: 2048, max_bytes: 64 << 10, min_free_bytes: 0 };

/// Fills several segments durably, delivers the first ones, and dies before that is durable.
fn killed_after_a_delivery(disk: &SimulatedDisk) -> usize {
    let mut queue = open(disk, "a");
    let start = now();
    for at in 0..120 {
        queue.push(A, record(at, 3), start);
        run_jobs(&mut queue, start + Duration::from_secs(1));
    }
    let ids: Vec<EntryId> =
        std::iter::from_fn(|| queue.next(start).map(|queued| queued.id)).collect();
    let delivered = ids.len() * 3 / 4;
    for id in ids.iter().take(delivered) {
        queue.acknowledge(*id, start);
    }
    // It is written, and the sync never runs.
    let later = start + Duration::from_secs(10);
    let write = queue.next_job(later).unwrap();
    queue.on_job_done(write.run(), later);
    drop(queue.next_job(later).unwrap());
    // A prepared file would be used first.
    let spares = disk.list().unwrap().into_iter().filter(|name| name.starts_with("spare"));
    spares.for_each(|name| disk.remove(&name).unwrap());
    disk.sync_dir().unwrap();
    delivered
}

fn run_jobs(queue: &mut Queue<SimulatedDisk>, at: Instant) {
    while let Some(job) = queue.next_job(at) {
        queue.on_job_done(job.run(), at);
    }
}

fn open(disk: &SimulatedDisk, epoch: &str) -> Queue<SimulatedDisk> {
    let config = config::Queue { order: QueueOrder::Strict, ..crate::testing::queue() };
    Queue::open_with_limits(disk.clone(), LIMITS, &config, identity(epoch), metrics().queue, now())
}

fn start() -> RunSettings {
    RunSettings { boot: "boot".to_owned(), power_window: 1, kill_window: 0, attempt: 0 }
}

/// The first checkpoint of a run states how the last one ended. A power cut in the middle of it
/// must not hide that.
#[test]
fn a_torn_first_checkpoint_hides_no_unclean_shutdown_before_it() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk, "a");
    queue.push(A, record(1, 3), now());
    queue.flush(now());
    drop(queue);
    drop(open(&disk, "b"));
    let whole = disk.contents();
    let newest = whole.keys().rfind(|name| name.starts_with("seg-")).unwrap();
    let written = whole[newest].iter().rposition(|byte| *byte != 0).unwrap();
    let mut reported = BTreeSet::new();
    for len in 0..=written {
        let mut torn = whole.clone();
        torn.get_mut(newest).unwrap().truncate(len);
        let uncleans = unclean_starts(&mut open(&SimulatedDisk::with_files(&torn), "c"));
        let a = uncleans.iter().find(|start| start.epoch == "a").unwrap();
        assert_eq!(a.next_seq.get("edge/a/data/0"), Some(&1), "{len}");
        if let Some(b) = uncleans.iter().find(|start| start.epoch == "b") {
            assert!(!b.next_seq.contains_key("edge/a/data/0"), "{len}: {b:?}");
        }
        reported.insert(uncleans.len());
    }
    assert_eq!(reported, BTreeSet::from([1, 2]), "of some starts only the file name is left");
}

#[test]
fn a_start_after_an_orderly_end_and_one_after_a_kill_differ_in_a_metric() {
    let disk = SimulatedDisk::new(1);
    let first = open(&disk, "a");
    assert_eq!(first.metrics.unclean_start.get(), 0, "there was no run before");
    drop(first);
    let second = open(&disk, "b");
    assert_eq!(second.metrics.unclean_start.get(), 1);
    second.close(now());
    assert_eq!(open(&disk, "c").metrics.unclean_start.get(), 0);
}

/// Returns what a queue announces about the runs before it.
fn unclean_starts(queue: &mut Queue<SimulatedDisk>) -> Vec<UncleanShutdownEvent> {
    let mut all = Vec::new();
    for _ in 0..3 {
        while let Some(queued) = queue.next(now()) {
            if let Entry::Message(message) = queued.entry {
                all.extend(UncleanShutdownEvent::parse(&message.body));
            }
        }
        run_jobs(queue, now());
    }
    all
}

/// Another boot of the machine counts its time from another moment.
#[test]
fn the_clock_of_a_record_is_known_in_the_same_boot_only() {
    let clock = ClockPeriod { booted_at: UnixTime::from_micros(-7), trust: TrustLevel::Unset };
    let Entry::Record(record) = record(0, 1) else { panic!("it is a record") };
    let known = Entry::Record(Record { clock: Some(clock), ..record });
    for (written, read, expected) in
        [("a", "a", Some(clock)), ("a", "b", None), ("", "", None), ("", "a", None)]
    {
        let disk = SimulatedDisk::new(1);
        let open = |boot: &str| {
            let identity = QueueIdentity { boot: boot.to_owned(), ..identity("e") };
            let config = crate::testing::queue();
            Queue::open(disk.clone(), &config, identity, metrics().queue, now())
        };
        let mut queue = open(written);
        queue.push(A, known.clone(), now());
        queue.close(now());
        let mut queue = open(read);
        let mut clocks = Vec::new();
        for _ in 0..2 {
            while let Some(queued) = queue.next(now()) {
                let Entry::Record(record) = queued.entry else { continue };
                clocks.push(record.clock);
            }
            while let Some(job) = queue.next_job(now()) {
                queue.on_job_done(job.run(), now());
            }
        }
        assert_eq!(clocks, [expected], "{written} {read}");
    }
}

#[test]
fn the_messages_of_earlier_runs_are_in_the_queue_until_each_is_settled() {
    let disk = SimulatedDisk::new(1);
    let mut queue = open(&disk, "old");
    assert!(!queue.holds_before(queue.next_entry_id()));
    for at in 0..3 {
        queue.push(A, record(at, 1), now());
    }
    queue.close(now());
    let mut queue = open(&disk, "new");
    let start = queue.next_entry_id();
    assert!(queue.holds_before(start), "on disk only");
    let own = queue.push(A, record(3, 1), now()).unwrap();
    assert_eq!(own, start);
    let mut earlier = BTreeSet::new();
    while earlier.len() < 3 {
        while let Some(queued) = queue.next(now()) {
            earlier.extend(Some(queued.id).filter(|id| *id != own));
        }
        run_jobs(&mut queue, now());
    }
    for id in earlier {
        assert!(queue.holds_before(start), "in flight");
        queue.acknowledge(id, now());
    }
    assert!(queue.holds(own) && !queue.holds_before(start));
    assert!(queue.holds_before(queue.next_entry_id()));
}
