//! Store-and-forward of records: keeps what the broker has not acknowledged, in memory and in a log
//! on disk.
//!
//! Two things hold at every moment: the samples produced and recovered are those delivered, stored
//! and dropped together, and every sequence number that will not be delivered is in a [`Gap`] or in
//! the window of an [`Unclean`] start.

mod ending;
mod entry;
mod failure;
mod full;
mod gap;
mod health;
mod id;
mod intake;
mod ledger;
mod log;
mod outlet;
mod pace;
mod ring;
mod runs;
pub mod storage;
mod topics;
mod unclean;
mod upkeep;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{self, Durability, OnFull, QueueOrder};

pub use self::ending::{Ended, Left};
pub use self::entry::Entry;
use self::failure::Trials;
pub use self::gap::{Announcement, Gap};
pub use self::health::Health;
pub use self::id::{Id, Renumbered, TopicId};
use self::ledger::Ledger;
pub use self::log::{Done, Job};
use self::log::{Limits, Log, Opened, Start};
use self::outlet::Cursors;
use self::pace::Pace;
use self::ring::Ring;
use self::storage::{Files, FilesError, Storage};
pub use self::topics::{Names, PlcNames, TagNames, Topics};
pub use self::unclean::{Unclean, UncleanStart};
use self::upkeep::Deadlines;
pub use self::view::{Room, Stats};
use crate::metrics::{DropReason, QueueMetrics};

/// Longest segment. A multiple of what flash memory erases at once, and small enough to be read at
/// once.
const LONGEST_SEGMENT: u64 = 4 << 20;
/// Shortest segment, for a bound that is very small.
const SHORTEST_SEGMENT: u64 = 8 << 10;
/// Segments that the bound is divided into at least.
const SEGMENTS: u64 = 8;
/// Memory in which entries stay that lie on the disk as well: the next outage is often short.
const CACHE: u64 = 2 << 20;
/// Memory for entries that lie nowhere else: five seconds of low wear, or a storage that fails.
const MEMORY: u64 = 16 << 20;

/// An entry that is handed out for sending.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// What [`Queue::acknowledge`] and [`Queue::discard`] want back.
    pub id: Id,
    /// Where it goes.
    pub topic: TopicId,
    /// The epoch under which it got its number.
    pub epoch: &'a str,
    /// Its number among the entries of its topic, from 0.
    pub seq: u64,
    /// Whether it comes late: it was taken before this connection, and newer ones may be there.
    pub history: bool,
    /// What is sent.
    pub entry: &'a Entry,
}

/// What a queue needs to know beside its configuration.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The names behind the numbers in its entries.
    pub names: Names,
    /// The topic of events.
    pub events: TopicId,
    /// A new epoch, which is taken unless the last run ended cleanly: random letters.
    pub epoch: Arc<str>,
    /// Which start of the machine this is, if the machine tells.
    pub boot: String,
}

/// How a log is begun.
#[derive(Debug)]
struct Home {
    limits: Limits,
    names: Names,
    start: Start,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<S: Storage = Files> {
    durability: Durability,
    on_full: OnFull,
    order: QueueOrder,
    events: TopicId,
    ledger: Ledger,
    ring: Ring,
    /// Most memory for what lies nowhere else.
    memory: u64,
    log: Option<Log<S>>,
    /// What it takes to begin a log, as long as there is no storage for one.
    home: Option<Home>,
    health: Health,
    cursors: Cursors,
    /// How fast what is old goes beside what is new; nothing with the order `strict`.
    pace: Option<Pace>,
    deadlines: Deadlines,
    trials: Trials,
    /// What the log had written when it was last asked.
    written: u64,
    metrics: QueueMetrics,
}

impl<S: Storage> Queue<S> {
    /// A queue that lies in memory alone, with `config.max_size` bytes of it.
    #[must_use]
    pub fn in_memory(config: &config::Queue, identity: Identity, metrics: QueueMetrics) -> Self {
        let ledger = Ledger {
            topics: Topics::new(identity.names.topics),
            epoch: identity.epoch,
            ..Ledger::default()
        };
        Self {
            durability: config.durability,
            on_full: config.on_full,
            order: config.order,
            events: identity.events,
            ledger,
            ring: Ring::default(),
            memory: config.max_size.min(MEMORY),
            log: None,
            home: None,
            health: Health::Sound,
            cursors: Cursors::default(),
            pace: (config.order == QueueOrder::LiveFirst).then(Pace::new),
            deadlines: Deadlines::default(),
            trials: Trials::default(),
            written: 0,
            metrics,
        }
    }

    /// A queue in memory until [`Queue::take_up`]; [`Queue::health`] says so.
    #[must_use]
    pub fn without_storage(
        config: &config::Queue,
        identity: Identity,
        metrics: QueueMetrics,
        error: &FilesError,
    ) -> Self {
        let mut queue = Self::homeless(limits(config), config, identity, metrics);
        queue.miss(error);
        queue.show();
        queue
    }

    /// Takes up what lies in a storage. A storage that cannot be read or written is told by
    /// [`Queue::health`] and lived with: the machines must be read all the same.
    #[must_use]
    pub fn open(
        storage: S,
        config: &config::Queue,
        identity: Identity,
        metrics: QueueMetrics,
        now: Instant,
    ) -> Self {
        Self::open_within(storage, limits(config), config, identity, metrics, now)
    }

    fn open_within(
        storage: S,
        limits: Limits,
        config: &config::Queue,
        identity: Identity,
        metrics: QueueMetrics,
        now: Instant,
    ) -> Self {
        let mut queue = Self::homeless(limits, config, identity, metrics);
        queue.take_up(storage, now);
        queue
    }

    fn homeless(
        limits: Limits,
        config: &config::Queue,
        identity: Identity,
        metrics: QueueMetrics,
    ) -> Self {
        let (power_window, kill_window) = windows(config.durability);
        let boot = identity.boot.clone();
        let start = Start { boot, power_window, kill_window, attempt: 0 };
        let home = Home { limits, names: identity.names.clone(), start };
        Self { home: Some(home), ..Self::in_memory(config, identity, metrics) }
    }

    /// Whether there is no storage, and [`Queue::take_up`] would be welcome.
    #[must_use]
    pub const fn is_homeless(&self) -> bool {
        self.home.is_some()
    }

    /// There is still no storage, for this reason.
    pub fn miss(&mut self, error: &FilesError) {
        let before = self.health.clone();
        self.health.miss(error);
        if self.health != before {
            tracing::error!("{}", self.health.sentence().unwrap_or_default());
        }
    }

    /// Takes up what lies in a storage that has become usable. What waits in memory moves there,
    /// with its numbers, and counts as late; returns the new ids. Does nothing while anything is
    /// handed out ([`Queue::is_idle`]): an acknowledgement would find another entry.
    pub fn take_up(&mut self, storage: S, now: Instant) -> Option<Renumbered> {
        if !self.is_idle() {
            return None;
        }
        let Home { limits, names, start } = self.home.take()?;
        let mut moved = None;
        let own = Arc::clone(&self.ledger.epoch);
        match Log::open(storage, limits, names.clone(), &start, &mut self.ledger) {
            Ok(opened) => {
                self.memory = MEMORY;
                self.trials = Trials::default();
                moved = Some(self.move_in());
                self.begin(opened, own, now);
            }
            Err(error) => {
                let start = Start { attempt: start.attempt + 1, ..start };
                self.home = Some(Home { limits, names, start });
                self.fail(error, now);
            }
        }
        self.show();
        moved
    }

    /// Ids rise along the log: what waits in memory comes behind what lies there.
    fn move_in(&mut self) -> Renumbered {
        let mut moved = Renumbered { first: self.ledger.next_id, olds: Vec::new() };
        for (old, held) in self.ring.take_all() {
            let id = self.ledger.next_id;
            self.ledger.next_id += 1;
            self.ring.insert(id, held);
            let told = self.ledger.pending.iter_mut().filter(|(told, _)| *told == old);
            told.for_each(|(told, _)| *told = id);
            moved.olds.push(old);
        }
        moved
    }

    fn begin(&mut self, opened: Opened<S>, own: Arc<str>, now: Instant) {
        let Opened { log, end, began, lost } = opened;
        let open = log.waiting();
        self.metrics.recovered.inc_by(open.samples + lost);
        self.metrics.count_dropped(DropReason::Corrupt, lost);
        let epoch = &*self.ledger.epoch;
        tracing::debug!(
            ?end,
            epoch,
            entries = open.entries,
            samples = open.samples,
            "queue opened"
        );
        self.ring.start_with(log.open_ids().clone());
        self.log = Some(log);
        self.health = self.sound();
        self.cursors = Cursors::default();
        self.cursors.start_behind(self.ledger.next_id);
        if let Err(refusal) = began {
            self.refused(refusal, now);
        }
        self.sync_now(now);
        self.start_anew(own);
        self.tell_uncleans(now);
        self.give_up_what_is_too_much(now);
        self.write_up_to(u64::MAX, now);
        self.sync_now(now);
        self.write_out(now);
    }

    /// The name of a topic, also of one that only an older configuration had.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> Option<&Arc<str>> {
        self.ledger.topics.name(topic)
    }
}

fn limits(config: &config::Queue) -> Limits {
    let segment = (config.max_size / SEGMENTS).next_multiple_of(4096);
    Limits {
        segment: segment.clamp(SHORTEST_SEGMENT, LONGEST_SEGMENT),
        max: config.max_size,
        min_free: config.min_free,
    }
}

/// Seconds of data that a power cut may take, and that the death of the process may take.
const fn windows(durability: Durability) -> (u64, u64) {
    match durability {
        Durability::Strict | Durability::Balanced => (1, 0),
        Durability::LowWear => (5, 5),
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How long an entry is new enough for the live lane when a connection begins.
const NEW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
