//! How far the queue is on the way to making entries durable. Pure.

use std::time::{Duration, Instant};

/// Time expected for a sync before the first one.
const INITIAL_SYNC_TIME: Duration = Duration::from_millis(50);
/// Least time expected for a sync.
const MIN_SYNC_TIME: Duration = Duration::from_millis(15);

/// What has to become durable, and how far that is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SyncState {
    stage: SyncStage,
    /// When the oldest entry was pushed that is in the log, not durable, and not part of `stage`.
    oldest_unsynced: Option<Instant>,
    /// Whether a sync has to follow without delay.
    is_requested: bool,
    /// The longest time that a sync took lately; `None` before the first.
    slowest_sync: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
enum SyncStage {
    /// No sync is under way.
    #[default]
    Idle,
    /// Everything up to the position `upto` is being written; then it is synced.
    Writing { upto: u64, cycle: SyncCycle },
    /// It is being synced.
    Syncing(SyncCycle),
}

#[derive(Clone, Copy, Debug)]
struct SyncCycle {
    began: Instant,
    /// When the oldest entry in it was pushed.
    oldest: Option<Instant>,
}

impl SyncState {
    /// Records an entry in the log that was pushed at this time.
    pub(super) fn on_appended(&mut self, pushed_at: Instant) {
        self.oldest_unsynced.get_or_insert(pushed_at);
    }

    /// Requests a sync without delay.
    pub(super) const fn request(&mut self) {
        self.is_requested = true;
    }

    pub(super) const fn is_requested(&self) -> bool {
        self.is_requested
    }

    /// Returns when the oldest entry was pushed that waits for a sync to begin.
    pub(super) const fn oldest_unsynced(&self) -> Option<Instant> {
        self.oldest_unsynced
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.stage, SyncStage::Idle)
    }

    /// Records that nothing remains to be made durable.
    pub(super) const fn on_nothing_unsynced(&mut self) {
        (self.oldest_unsynced, self.is_requested) = (None, false);
    }

    /// Begins to make everything durable up to this position.
    pub(super) const fn begin(&mut self, upto: u64, now: Instant) {
        let cycle = SyncCycle { began: now, oldest: self.oldest_unsynced };
        self.on_nothing_unsynced();
        self.stage = SyncStage::Writing { upto, cycle };
    }

    /// Returns whether everything is written that the next sync makes durable.
    pub(super) const fn is_ready_to_sync(&self, written: u64) -> bool {
        matches!(self.stage, SyncStage::Writing { upto, .. } if upto <= written)
    }

    /// Records that the sync began.
    pub(super) const fn on_sync_began(&mut self) {
        if let SyncStage::Writing { cycle, .. } = self.stage {
            self.stage = SyncStage::Syncing(cycle);
        }
    }

    /// Records that the sync is done. Returns when the oldest entry in it was pushed.
    pub(super) fn on_durable(&mut self, now: Instant) -> Option<Instant> {
        let SyncStage::Syncing(SyncCycle { began, oldest }) = self.stage else { return None };
        self.stage = SyncStage::Idle;
        // A slow sync counts for minutes: an SD card that reorganises its flash does so again.
        let fading = self.sync_time() - self.sync_time() / 64;
        let took = now.saturating_duration_since(began);
        self.slowest_sync = Some(took.max(fading).max(MIN_SYNC_TIME));
        oldest
    }

    /// Returns the time that a sync is expected to take, writing included.
    pub(super) fn sync_time(&self) -> Duration {
        self.slowest_sync.unwrap_or(INITIAL_SYNC_TIME)
    }

    /// Records that the storage failed: nothing is in the log that is not durable.
    pub(super) const fn on_storage_failed(&mut self) {
        self.stage = SyncStage::Idle;
        self.oldest_unsynced = None;
    }
}
