//! How a queue is, for whoever looks at it.

use std::sync::Arc;

use super::log::{self, EntryCounts, Log};
use super::storage::Storage;
use super::{EntryId, Health, Queue, index};
use crate::model::UnixTime;

/// What is open: waiting, or handed out and not acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Samples.
    pub samples: u64,
    /// Records and messages.
    pub entries: u64,
    /// Bytes on the disk, and estimated memory ([`Entry::bytes`](super::Entry::bytes)) of what is not there.
    pub bytes: u64,
    /// About when the first record in line was read: that or a little earlier.
    pub oldest: Option<UnixTime>,
}

/// Bytes that still fit before something has to be given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capacity {
    /// On the disk, as entries take them there.
    Disk(u64),
    /// In memory ([`Entry::bytes`](super::Entry::bytes)): there is no storage, or it fails.
    Memory(u64),
}

impl<S: Storage> Queue<S> {
    /// What is open.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = self.index.memory_only();
        let logged = self.log.as_ref().map(Log::waiting_counts).unwrap_or_default();
        all.add(logged);
        let EntryCounts { entries, samples, bytes } = all;
        let cached = self.index.oldest_record().and_then(|held| held.entry.at());
        let stored = self.log.as_ref().and_then(Log::oldest_record_at);
        let oldest = match (cached, stored) {
            (Some(cached), Some(stored)) if self.all_in_memory() => Some(cached.max(stored)),
            (cached, stored) => stored.or(cached),
        };
        Stats { samples, entries, bytes, oldest: oldest.filter(|_| samples > 0) }
    }

    /// What still fits: within `max_size` and above `min_free`, without what the log needs for itself.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        match self.log.as_ref().filter(|log| log.is_writable()) {
            Some(log) => Capacity::Disk(log.appendable_bytes()),
            None => {
                Capacity::Memory(self.max_memory.saturating_sub(self.index.memory_only().bytes))
            }
        }
    }

    /// Whether everything that is open is in memory.
    fn all_in_memory(&self) -> bool {
        self.index.first_disk_only(0).is_none()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stats().entries == 0
    }

    /// Whether nothing is handed out.
    #[must_use]
    pub fn nothing_in_flight(&self) -> bool {
        !self.index.has_handed_out(0..u64::MAX)
    }

    /// Whether what is left lies where a next run finds it.
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.index.memory_only().entries == 0
    }

    /// How the storage does.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The epoch under which numbers are given now.
    #[must_use]
    pub const fn epoch(&self) -> &Arc<str> {
        &self.ledger.epoch
    }

    /// The bytes that an open entry takes on the disk, or would take there.
    #[must_use]
    pub fn stored_bytes(&self, id: EntryId) -> u64 {
        self.index.get(id.ticket()).map_or(0, |held| match held.location {
            index::Location::Logged { bytes, .. } => bytes,
            index::Location::Memory => log::stored_entry_len(&held.entry),
        })
    }

    pub(super) fn update_gauges(&mut self) {
        let stats = self.stats();
        self.metrics.stored.set(i64::try_from(stats.samples).unwrap_or(i64::MAX));
        self.metrics.queued_bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        self.metrics.oldest_timestamp.set(stats.oldest.map_or(0.0, UnixTime::as_seconds));
        self.metrics.storage_failing.set(i64::from(self.health.is_memory_only()));
        let written = self.log.as_ref().map_or(0, |log| log.disk_counters().written);
        self.metrics.written_bytes.inc_by(written - self.reported_written);
        self.reported_written = written;
    }
}
