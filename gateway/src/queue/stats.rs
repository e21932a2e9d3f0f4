//! Figures of a queue.

use std::sync::Arc;

use super::log::{self, EntryCounts};
use super::storage::Storage;
use super::{EntryId, Health, Queue};
use crate::model::UnixTime;

/// What is open: waiting, or handed out and not acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Samples.
    pub samples: u64,
    /// Records and messages.
    pub entries: u64,
    /// Bytes on disk, and estimated memory ([`Entry::memory_bytes`](super::Entry::memory_bytes)) of
    /// entries that are not there.
    pub bytes: u64,
    /// When the oldest record was read, or a little earlier.
    pub oldest: Option<UnixTime>,
}

/// Bytes that still fit before something has to be evicted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capacity {
    /// On disk, in the length that entries have there.
    Disk(u64),
    /// In memory ([`Entry::memory_bytes`](super::Entry::memory_bytes)): there is no storage, or it
    /// fails.
    Memory(u64),
}

impl<S: Storage> Queue<S> {
    /// Returns what is open.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = self.index.memory_only();
        all.add(self.log.as_ref().map(|log| log.index().total()).unwrap_or_default());
        let EntryCounts { entries, samples, bytes } = all;
        let in_memory = self.index.oldest_record().and_then(|held| held.entry.at());
        let on_disk = self.log.as_ref().and_then(|log| log.index().oldest_record_at());
        // The log knows the first record of a segment, which may be acknowledged already.
        let oldest = match (in_memory, on_disk) {
            (Some(in_memory), Some(on_disk)) if self.all_in_memory() => {
                Some(in_memory.max(on_disk))
            }
            (in_memory, on_disk) => on_disk.or(in_memory),
        };
        Stats { samples, entries, bytes, oldest: oldest.filter(|_| samples > 0) }
    }

    /// Returns what still fits: within `max_size` and above `min_free`, without what the log needs
    /// for its own records. The free space of the file system is at most a second old.
    /// Without a usable log it is what fits into memory.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let is_stored = !self.health.is_memory_only();
        match self.log.as_ref().filter(|log| log.is_writable() && is_stored) {
            Some(log) => Capacity::Disk(log.appendable_bytes()),
            None => {
                Capacity::Memory(self.max_memory.saturating_sub(self.index.memory_only().bytes))
            }
        }
    }

    /// Returns whether everything that is open is in memory.
    fn all_in_memory(&self) -> bool {
        self.index.first_disk_only(0).is_none()
    }

    /// Returns whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stats().entries == 0
    }

    /// Returns whether nothing is handed out.
    #[must_use]
    pub fn nothing_in_flight(&self) -> bool {
        !self.index.has_handed_out(0..u64::MAX)
    }

    /// Returns whether everything that is open is where the next run finds it.
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.index.memory_only().entries == 0
    }

    /// Returns the state of the storage.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Returns the epoch under which numbers are given now.
    #[must_use]
    pub const fn epoch(&self) -> &Arc<str> {
        &self.ledger.epoch
    }

    /// Returns the bytes that an open entry takes on disk, or would take there.
    #[must_use]
    pub fn stored_bytes(&self, id: EntryId) -> u64 {
        self.index.get(id.ticket()).map_or(0, |held| {
            held.location.bytes().unwrap_or_else(|| log::stored_entry_len(&held.entry))
        })
    }

    /// Updates the gauges and the counter of bytes written.
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
