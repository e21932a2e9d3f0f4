//! Store-and-forward of records: keeps what the broker has not acknowledged, in memory and in a log
//! on disk.
//!
//! Two things hold at every moment: the samples produced and recovered are those delivered, stored
//! and dropped together, and every sequence number that will not be delivered is in a [`Gap`] or in
//! the window of an [`Unclean`] start.

mod backlog_window;
mod dispatch;
mod entry;
mod eviction;
mod failure;
mod gap;
mod health;
mod id;
mod index;
mod intake;
mod ledger;
mod log;
mod maintenance;
mod range_set;
mod shutdown;
mod stats;
pub mod storage;
mod topics;
mod unclean;

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{self, Durability, OnFull, QueueOrder};

use self::backlog_window::CongestionWindow;
use self::dispatch::Cursors;
pub use self::entry::Entry;
use self::failure::StorageRetryTimer;
pub use self::gap::{Gap, GapEvent};
pub use self::health::Health;
pub use self::id::{EntryId, IdRemap, TopicId};
use self::index::EntryIndex;
use self::ledger::Ledger;
pub use self::log::{DiskJob, DiskJobDone};
use self::log::{Log, LogLimits, OpenedLog, RunSettings};
use self::maintenance::SyncState;
pub use self::shutdown::{CloseOutcome, ClosingQueue};
pub use self::stats::{Capacity, Stats};
use self::storage::{DirStorage, DirStorageError, Storage};
pub use self::topics::{ConfigNames, PlcNames, TagNames, TopicTable};
pub use self::unclean::{UncleanShutdown, UncleanShutdownEvent};
use crate::metrics::{DropReason, QueueMetrics};

/// Longest segment. A multiple of what flash memory erases at once, and small enough to be read at
/// once.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;
/// Shortest segment, for a bound that is very small.
const MIN_SEGMENT_BYTES: u64 = 8 << 10;
/// Segments that the bound is divided into at least.
const MIN_SEGMENT_COUNT: u64 = 8;
/// Memory in which entries stay that lie on the disk as well: the next outage is often short.
const CACHE_BYTES: u64 = 2 << 20;
/// Memory for entries that lie nowhere else: five seconds of low wear, or a storage that fails.
const MAX_MEMORY_BYTES: u64 = 16 << 20;

/// An entry that is handed out for sending.
#[derive(Clone, Copy, Debug)]
pub struct QueuedEntry<'a> {
    /// What [`Queue::acknowledge`] and [`Queue::discard`] want back.
    pub id: EntryId,
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
pub struct QueueIdentity {
    /// The names behind the numbers in its entries.
    pub names: ConfigNames,
    /// The topic of events.
    pub events: TopicId,
    /// A new epoch, which is taken unless the last run ended cleanly: random letters.
    pub epoch: Arc<str>,
    /// Which start of the machine this is, if the machine tells.
    pub boot: String,
}

/// How a log is begun.
#[derive(Debug)]
struct PendingStorage {
    limits: LogLimits,
    names: ConfigNames,
    settings: RunSettings,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<S: Storage = DirStorage> {
    durability: Durability,
    on_full: OnFull,
    order: QueueOrder,
    events: TopicId,
    ledger: Ledger,
    index: EntryIndex,
    /// Most memory for what lies nowhere else.
    max_memory: u64,
    log: Option<Log<S>>,
    /// What it takes to begin a log, as long as there is no storage for one.
    pending_storage: Option<PendingStorage>,
    health: Health,
    cursors: Cursors,
    /// How fast what is old goes beside what is new; nothing with the order `strict`.
    backlog_window: Option<CongestionWindow>,
    deadlines: SyncState,
    storage_retry: StorageRetryTimer,
    /// What the log had written when it was last asked.
    reported_written: u64,
    metrics: QueueMetrics,
}

impl<S: Storage> Queue<S> {
    /// A queue that lies in memory alone, with `config.max_size` bytes of it.
    #[must_use]
    pub fn in_memory(
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
    ) -> Self {
        let ledger = Ledger {
            topics: TopicTable::new(identity.names.topics),
            epoch: identity.epoch,
            ..Ledger::default()
        };
        Self {
            durability: config.durability,
            on_full: config.on_full,
            order: config.order,
            events: identity.events,
            ledger,
            index: EntryIndex::default(),
            max_memory: config.max_size.min(MAX_MEMORY_BYTES),
            log: None,
            pending_storage: None,
            health: Health::Healthy,
            cursors: Cursors::default(),
            backlog_window: (config.order == QueueOrder::LiveFirst).then(CongestionWindow::new),
            deadlines: SyncState::default(),
            storage_retry: StorageRetryTimer::default(),
            reported_written: 0,
            metrics,
        }
    }

    /// A queue in memory until [`Queue::take_up`]; [`Queue::health`] says so.
    #[must_use]
    pub fn without_storage(
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
        error: &DirStorageError,
    ) -> Self {
        let mut queue = Self::awaiting_storage(log_limits(config), config, identity, metrics);
        queue.on_storage_unavailable(error);
        queue.update_gauges();
        queue
    }

    /// Takes up what lies in a storage. A storage that cannot be read or written is told by
    /// [`Queue::health`] and lived with: the machines must be read all the same.
    #[must_use]
    pub fn open(
        storage: S,
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
        now: Instant,
    ) -> Self {
        Self::open_with_limits(storage, log_limits(config), config, identity, metrics, now)
    }

    fn open_with_limits(
        storage: S,
        limits: LogLimits,
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
        now: Instant,
    ) -> Self {
        let mut queue = Self::awaiting_storage(limits, config, identity, metrics);
        queue.attach_storage(storage, now);
        queue
    }

    fn awaiting_storage(
        limits: LogLimits,
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
    ) -> Self {
        let (power_window, kill_window) = loss_windows(config.durability);
        let boot = identity.boot.clone();
        let start = RunSettings { boot, power_window, kill_window, attempt: 0 };
        let home = PendingStorage { limits, names: identity.names.clone(), settings: start };
        Self { pending_storage: Some(home), ..Self::in_memory(config, identity, metrics) }
    }

    /// Whether there is no storage, and [`Queue::take_up`] would be welcome.
    #[must_use]
    pub const fn lacks_storage(&self) -> bool {
        self.pending_storage.is_some()
    }

    /// There is still no storage, for this reason.
    pub fn on_storage_unavailable(&mut self, error: &DirStorageError) {
        let before = self.health.clone();
        self.health.miss(error);
        if self.health != before {
            tracing::error!("{}", self.health.sentence().unwrap_or_default());
        }
    }

    /// Takes up what lies in a storage that has become usable. What waits in memory moves there,
    /// with its numbers, and counts as late; returns the new ids. Does nothing while anything is
    /// handed out ([`Queue::is_idle`]): an acknowledgement would find another entry.
    pub fn attach_storage(&mut self, storage: S, now: Instant) -> Option<IdRemap> {
        if !self.nothing_in_flight() {
            return None;
        }
        let PendingStorage { limits, names, settings: start } = self.pending_storage.take()?;
        let mut moved = None;
        let own = Arc::clone(&self.ledger.epoch);
        match Log::open(storage, limits, names.clone(), &start, &mut self.ledger) {
            Ok(opened) => {
                self.max_memory = MAX_MEMORY_BYTES;
                self.storage_retry = StorageRetryTimer::default();
                moved = Some(self.renumber());
                self.start_with_log(opened, own, now);
            }
            Err(error) => {
                let start = RunSettings { attempt: start.attempt + 1, ..start };
                self.pending_storage = Some(PendingStorage { limits, names, settings: start });
                self.on_storage_failed(error, now);
            }
        }
        self.update_gauges();
        moved
    }

    /// Ids rise along the log: what waits in memory comes behind what lies there.
    fn renumber(&mut self) -> IdRemap {
        let mut moved = IdRemap { first_new: self.ledger.next_id, old_ids: Vec::new() };
        for (old, held) in self.index.drain_all() {
            let id = self.ledger.next_id;
            self.ledger.next_id += 1;
            self.index.insert(id, held);
            let told = self.ledger.announced_by.iter_mut().filter(|(told, _)| *told == old);
            told.for_each(|(told, _)| *told = id);
            moved.old_ids.push(old);
        }
        moved
    }

    fn start_with_log(&mut self, opened: OpenedLog<S>, own: Arc<str>, now: Instant) {
        let OpenedLog { log, last_run: end, first_segment: began, lost_samples: lost } = opened;
        let open = log.waiting_counts();
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
        self.index.set_disk_only(log.waiting_ids().clone());
        self.log = Some(log);
        self.health = self.working_health();
        self.cursors = Cursors::default();
        self.cursors.start_after(self.ledger.next_id);
        if let Err(refusal) = began {
            self.on_append_error(refusal, now);
        }
        self.sync_now(now);
        self.use_new_epoch(own);
        self.announce_uncleans(now);
        self.evict_excess(now);
        self.append_up_to(u64::MAX, now);
        self.sync_now(now);
        self.write_all(now);
    }

    /// The name of a topic, also of one that only an older configuration had.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> Option<&Arc<str>> {
        self.ledger.topics.name(topic)
    }
}

fn log_limits(config: &config::Queue) -> LogLimits {
    let segment = (config.max_size / MIN_SEGMENT_COUNT).next_multiple_of(4096);
    LogLimits {
        segment_bytes: segment.clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES),
        max_bytes: config.max_size,
        min_free_bytes: config.min_free,
    }
}

/// Seconds of data that a power cut may take, and that the death of the process may take.
const fn loss_windows(durability: Durability) -> (u64, u64) {
    match durability {
        Durability::Strict | Durability::Balanced => (1, 0),
        Durability::LowWear => (5, 5),
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How long an entry is new enough for the live lane when a connection begins.
const LIVE_MAX_AGE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
