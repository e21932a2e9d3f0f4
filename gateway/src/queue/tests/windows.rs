//! What a power cut would cost at any moment, in simulated time: never more than the queue
//! announces.

use super::super::storage::simulated::SimulatedDisk;
use super::*;

const LIMITS: LogLimits = LogLimits { segment_bytes: 2048, max_bytes: 32 << 10, min_free_bytes: 0 };
const PUSH_INTERVAL: Duration = Duration::from_millis(100);
/// A busy SD card.
const SYNC_TIME: Duration = Duration::from_millis(50);
const WRITE_TIME: Duration = Duration::from_millis(5);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_at_risk_for_longer_than_the_announced_window() {
    for durability in DURABILITIES {
        for on_full in [OnFull::DropOldest, OnFull::DropNewest] {
            let mut world = PowerLossTest::new(durability, on_full);
            world.run(MINUTE, BrokerBehavior::Absent);
            assert!(world.queue.metrics.dropped() > 0, "{durability:?} {on_full:?} is not full");
            world.run(MINUTE, BrokerBehavior::Answers);
            world.run(MINUTE, BrokerBehavior::Absent);
        }
    }
}

#[test]
fn strict_hands_out_durable_entries_only() {
    let mut world = PowerLossTest::new(Durability::Strict, OnFull::DropOldest);
    for _ in 0..3 {
        world.run(MINUTE, BrokerBehavior::Answers);
        world.run(MINUTE, BrokerBehavior::Absent);
    }
    assert!(world.queue.metrics.delivered.get() > 0);
}

/// The log is full and everything is handed out, so that nothing can be evicted.
#[test]
fn a_queue_that_cannot_write_is_not_busy() {
    for durability in DURABILITIES {
        let mut world = PowerLossTest::new(durability, OnFull::DropOldest);
        world.run(2 * MINUTE, BrokerBehavior::Silent);
        assert!(!world.queue.is_all_stored(), "{durability:?} is not full");
    }
}

/// An SD card that was slow before may be as slow again.
#[test]
fn a_slow_card_extends_the_announced_window() {
    for durability in DURABILITIES {
        for more in 0..10 {
            let mut world = PowerLossTest::new(durability, OnFull::DropOldest);
            world.sync_time = Duration::from_secs(3);
            world.run(MINUTE + Duration::from_millis(700 * more), BrokerBehavior::Absent);
            let age = world.oldest_at_risk();

            let seconds = world.after_a_power_cut();

            assert!(seconds.is_some_and(|seconds| age <= Duration::from_secs(seconds)));
            assert!(seconds <= Some(12), "{durability:?}: {seconds:?}");
        }
    }
}

#[test]
fn an_event_that_is_moved_stays_history() {
    let mut world = PowerLossTest::new(Durability::LowWear, OnFull::DropOldest);
    world.run(2 * MINUTE, BrokerBehavior::Absent);
    world.queue.rewind(world.now);
    let mut moved = Vec::new();
    while let Some(queued) = world.queue.next(world.now) {
        if queued.topic == EVENTS && queued.seq == 0 {
            moved.push(queued.history);
        }
        let id = queued.id;
        world.queue.acknowledge(id, world.now);
        while let Some(job) = world.queue.next_job(world.now) {
            world.queue.on_job_done(job.run(), world.now);
        }
    }
    assert_eq!(moved, [true]);
}

const DURABILITIES: [Durability; 3] =
    [Durability::Strict, Durability::Balanced, Durability::LowWear];

#[derive(Clone, Copy, Debug, PartialEq)]
enum BrokerBehavior {
    Absent,
    Answers,
    /// Accepts everything and acknowledges nothing.
    Silent,
}

/// A queue driven as by the event loop: by pushes, ends of jobs, and deadlines.
struct PowerLossTest {
    queue: Queue<SimulatedDisk>,
    durability: Durability,
    now: Instant,
    push_at: Instant,
    pushed: i64,
    running_jobs: Vec<(Instant, DiskJob<SimulatedDisk>)>,
    disk: SimulatedDisk,
    sync_time: Duration,
}

impl PowerLossTest {
    fn new(durability: Durability, on_full: OnFull) -> Self {
        let config = config::Queue { durability, on_full, ..crate::testing::queue() };
        let (disk, now) = (SimulatedDisk::new(1), now());
        let queue = Queue::open_with_limits(
            disk.clone(),
            LIMITS,
            &config,
            identity("e"),
            metrics().queue,
            now,
        );
        let under_way = Vec::new();
        Self {
            queue,
            durability,
            now,
            push_at: now,
            pushed: 0,
            running_jobs: under_way,
            disk,
            sync_time: SYNC_TIME,
        }
    }

    fn run(&mut self, time: Duration, broker: BrokerBehavior) {
        self.queue.rewind(self.now);
        let end = self.now + time;
        while self.now < end {
            self.run_queue();
            self.send(broker);
            self.run_queue();
            let ends = self.running_jobs.iter().map(|(end, _)| *end).min();
            let next =
                [Some(self.push_at), self.queue.next_deadline(), ends].into_iter().flatten().min();
            self.now = next.unwrap();
            if broker != BrokerBehavior::Silent && self.sync_time == SYNC_TIME {
                self.check();
            }
            self.run_events();
        }
    }

    fn run_events(&mut self) {
        let now = self.now;
        if self.push_at <= now {
            self.push_at += PUSH_INTERVAL;
            self.pushed += 1;
            if self.pushed % 30 == 1 {
                self.queue.push(EVENTS, message(20), now);
            }
            self.queue.push(A, record(self.pushed, 20), now);
        }
        for (_, job) in self.running_jobs.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>()
        {
            self.queue.on_job_done(job.run(), now);
        }
    }

    fn run_queue(&mut self) {
        while let Some(job) = self.queue.next_job(self.now) {
            let takes = if job.is_short() { WRITE_TIME } else { self.sync_time };
            self.running_jobs.push((self.now + takes, job));
        }
        let due = self.queue.next_deadline();
        assert!(due.is_none_or(|due| due > self.now), "{:?} is busy", self.durability);
    }

    fn send(&mut self, broker: BrokerBehavior) {
        while broker != BrokerBehavior::Absent
            && let Some(id) = self.queue.next(self.now).map(|queued| queued.id)
        {
            let is_durable = self.is_durable(id.ticket());
            assert!(is_durable || self.durability != Durability::Strict);
            if broker == BrokerBehavior::Answers {
                self.queue.acknowledge(id, self.now);
            }
        }
    }

    fn is_durable(&self, id: u64) -> bool {
        let synced = self.queue.log.as_ref().unwrap().durability().synced();
        let place = self.queue.index.get(id).unwrap().location;
        place.is_durable(synced)
    }

    fn check(&self) {
        let (power, _) = loss_windows(self.durability);
        let age = self.oldest_at_risk();
        assert!(age <= Duration::from_secs(power), "{:?}: {age:?}", self.durability);
    }

    /// Returns the age of the oldest entry that a power cut would cost.
    fn oldest_at_risk(&self) -> Duration {
        let ids = self.queue.index.ids().into_iter().filter(|id| !self.is_durable(*id));
        let ages = ids.map(|id| self.now - self.queue.index.get(id).unwrap().pushed_at.unwrap());
        ages.max().unwrap_or_default()
    }

    /// Returns the seconds that the next start announces.
    fn after_a_power_cut(self) -> Option<u64> {
        self.disk.cut_power();
        let config = config::Queue { durability: self.durability, ..crate::testing::queue() };
        let identity = QueueIdentity { boot: "another".to_owned(), ..identity("f") };
        let queue = Queue::open_with_limits(
            self.disk,
            LIMITS,
            &config,
            identity,
            metrics().queue,
            self.now,
        );
        let held = queue.index.ids().into_iter().filter_map(|id| queue.index.get(id));
        let mut starts = held.filter_map(|held| match &held.entry {
            Entry::Message(message) => UncleanShutdownEvent::parse(&message.body),
            Entry::Record(_) => None,
        });
        starts.next_back()?.seconds
    }
}
