//! Store-and-forward of records: keeps what the broker has not acknowledged, in memory and in a log
//! on disk.
//!
//! Two things hold at every moment: the samples produced and recovered are those delivered, stored
//! and dropped together, and every sequence number that will not be delivered is in a [`Gap`] or in
//! the window of an [`UncleanShutdown`].

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
mod sync_state;
mod topics;
mod unclean;

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{self, Durability, OnFull, QueueOrder};

use self::backlog_window::CongestionWindow;
use self::dispatch::Cursors;
pub use self::dispatch::{NotSent, QueuedEntry};
pub use self::entry::Entry;
use self::failure::StorageRetryTimer;
pub use self::gap::{Gap, GapEvent};
pub use self::health::Health;
pub use self::id::{EntryId, TopicId};
use self::index::EntryIndex;
use self::ledger::Ledger;
pub use self::log::{DiskJob, DiskJobDone};
use self::log::{LastRun, Log, LogLimits, OpenedLog, RunSettings};
use self::maintenance::RecordDeadlines;
pub(crate) use self::range_set::{NumberRange, RangeSet};
pub use self::shutdown::{CloseOutcome, ClosingQueue};
pub use self::stats::{Capacity, Stats};
use self::storage::{DirStorage, DirStorageError, Storage};
use self::sync_state::SyncState;
pub use self::topics::{ConfigNames, PlcNames, TagNames, TopicTable};
pub use self::unclean::{UncleanShutdown, UncleanShutdownEvent};
use crate::metrics::{DropReason, QueueMetrics};

/// Longest segment. A multiple of the erase block of flash memory, and small enough to be read as a
/// whole.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;
/// Shortest segment, for a very small `max_size`.
const MIN_SEGMENT_BYTES: u64 = 8 << 10;
/// `max_size` holds at least this many segments.
const MIN_SEGMENT_COUNT: u64 = 8;
/// Memory for copies of entries that are on disk: the next outage is often short.
const CACHE_BYTES: u64 = 2 << 20;
/// Memory for entries that are nowhere else: five seconds of `low-wear`, or a storage that fails.
const MAX_MEMORY_BYTES: u64 = 16 << 20;
/// When a connection begins, entries up to this age are live; older ones are backlog.
const LIVE_MAX_AGE: Duration = Duration::from_secs(5);

/// Target of the lines about the storage that fails and works again.
pub const LOG_TARGET: &str = "gateway::storage";

/// What a queue needs to know in addition to its configuration.
#[derive(Clone, Debug)]
pub struct QueueIdentity {
    /// The names behind the numbers in its entries.
    pub names: ConfigNames,
    /// The topic of events.
    pub events: TopicId,
    /// A new epoch, random letters. It is used unless the last run ended cleanly.
    pub epoch: Arc<str>,
    /// Id of the boot of this machine; empty when it is not known.
    pub boot: String,
}

/// What it takes to open the log of a queue.
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
    /// Bytes of memory for entries that are nowhere else.
    max_memory: u64,
    log: Option<Log<S>>,
    /// Present as long as there is no storage.
    pending_storage: Option<PendingStorage>,
    health: Health,
    cursors: Cursors,
    /// How much of the backlog may be in flight; `None` with the order `strict`.
    backlog_window: Option<CongestionWindow>,
    sync: SyncState,
    deadlines: RecordDeadlines,
    storage_retry: StorageRetryTimer,
    /// Bytes written by the log that the metrics contain.
    reported_written: u64,
    metrics: QueueMetrics,
}

impl<S: Storage> Queue<S> {
    /// Returns a queue in `config.max_size` bytes of memory, 16 MiB at most, without a log.
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
            sync: SyncState::default(),
            deadlines: RecordDeadlines::default(),
            storage_retry: StorageRetryTimer::default(),
            reported_written: 0,
            metrics,
        }
    }

    /// Returns a queue in memory until [`Queue::attach_storage`]; [`Queue::health`] reports it.
    #[must_use]
    pub fn without_storage(
        config: &config::Queue,
        identity: QueueIdentity,
        metrics: QueueMetrics,
        error: &DirStorageError,
    ) -> Self {
        let mut queue = Self::awaiting_storage(log_limits(config), config, identity, metrics);
        queue.on_storage_unavailable(error);
        queue
    }

    /// Opens the queue in a storage. If that cannot be read or written, [`Queue::health`] reports
    /// it and the queue works in memory: PLCs must be read all the same.
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
        let settings = RunSettings { boot, power_window, kill_window, attempt: 0 };
        let names = identity.names.clone();
        let pending_storage = Some(PendingStorage { limits, names, settings });
        Self { pending_storage, ..Self::in_memory(config, identity, metrics) }
    }

    /// Returns whether there is no storage, so that [`Queue::attach_storage`] is needed.
    #[must_use]
    pub const fn lacks_storage(&self) -> bool {
        self.pending_storage.is_some()
    }

    /// Opens the log in a storage that has become usable. What waits in memory moves there, with
    /// its numbers, and counts as late.
    ///
    /// Does nothing while any entry is handed out ([`Queue::nothing_in_flight`]): its
    /// acknowledgement would find another entry under its id.
    pub fn attach_storage(&mut self, storage: S, now: Instant) {
        if !self.nothing_in_flight() {
            return;
        }
        let Some(pending) = self.pending_storage.take() else { return };
        let PendingStorage { limits, names, mut settings } = pending;
        let own_epoch = Arc::clone(&self.ledger.epoch);
        let opened = Log::open(storage, limits, names.clone(), &settings, &mut self.ledger, now);
        match opened {
            Ok(opened) => {
                self.max_memory = MAX_MEMORY_BYTES;
                self.storage_retry = StorageRetryTimer::default();
                self.renumber();
                self.start_with_log(opened, own_epoch, now);
            }
            Err(error) => {
                settings.attempt += 1;
                self.pending_storage = Some(PendingStorage { limits, names, settings });
                self.on_storage_failed(error, now);
            }
        }
    }

    /// Gives the entries in memory ids behind those in the log: ids rise along the log.
    fn renumber(&mut self) {
        for (old, held) in self.index.drain_all() {
            let new = self.ledger.next_id;
            self.ledger.next_id += 1;
            self.index.insert(new, held);
            let announced = self.ledger.announced_by.iter_mut();
            announced.filter(|(id, _)| *id == old).for_each(|(id, _)| *id = new);
        }
    }

    fn start_with_log(&mut self, opened: OpenedLog<S>, own_epoch: Arc<str>, now: Instant) {
        let OpenedLog { mut log, last_run, lost_samples } = opened;
        let waiting = log.index().total();
        self.metrics.recovered.inc_by(waiting.samples + lost_samples);
        self.metrics.count_dropped(DropReason::Corrupt, lost_samples);
        self.metrics.unclean_start.set(matches!(last_run, LastRun::Unclean { .. }).into());
        let (epoch, entries, samples) = (&*self.ledger.epoch, waiting.entries, waiting.samples);
        tracing::debug!(epoch, ?last_run, entries, samples, "queue opened");
        let began = log.begin_run(&self.ledger);
        self.index.set_disk_only(log.index().waiting_ids().clone());
        self.log = Some(log);
        self.health = self.working_health();
        self.cursors = Cursors::starting_at(self.ledger.next_id);
        if let Err(error) = began {
            // The last run may have had the same failure, for an unknown time.
            if let LastRun::Unclean { epoch } = &last_run {
                self.ledger.clear_loss_window(epoch);
            }
            self.on_append_error(error, now);
        }
        self.sync_now(now);
        self.use_new_epoch(own_epoch);
        self.announce_uncleans(now);
        self.evict_excess(now);
        self.append_all(now);
        self.sync_now(now);
        self.write_all(now);
    }

    /// Returns the name of a topic, also of one that only an older configuration had.
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

/// Returns the seconds of data that a power cut may cost, and those that a killed process may cost.
const fn loss_windows(durability: Durability) -> (u64, u64) {
    match durability {
        Durability::Strict | Durability::Balanced => (1, 0),
        Durability::LowWear => (5, 5),
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
