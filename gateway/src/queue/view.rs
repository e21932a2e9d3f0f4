//! How a queue is, for whoever looks at it.

use std::sync::Arc;

use super::log::{self, Log, Tally};
use super::storage::Storage;
use super::{Health, Id, Queue, ring};
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
pub enum Room {
    /// On the disk, as entries take them there.
    Disk(u64),
    /// In memory ([`Entry::bytes`](super::Entry::bytes)): there is no storage, or it fails.
    Memory(u64),
}

impl<S: Storage> Queue<S> {
    /// What is open.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = self.ring.unstored();
        let logged = self.log.as_ref().map(Log::waiting).unwrap_or_default();
        all.add(logged);
        let Tally { entries, samples, bytes } = all;
        let cached = self.ring.oldest().and_then(|held| held.entry.at());
        let stored = self.log.as_ref().and_then(Log::oldest);
        let oldest = match (cached, stored) {
            (Some(cached), Some(stored)) if self.is_whole() => Some(cached.max(stored)),
            (cached, stored) => stored.or(cached),
        };
        Stats { samples, entries, bytes, oldest: oldest.filter(|_| samples > 0) }
    }

    /// What still fits: within `max_size` and above `min_free`, without what the log needs for itself.
    #[must_use]
    pub fn room(&self) -> Room {
        match self.log.as_ref().filter(|log| log.is_writable()) {
            Some(log) => Room::Disk(log.free()),
            None => Room::Memory(self.memory.saturating_sub(self.ring.unstored().bytes)),
        }
    }

    /// Whether everything that is open is in memory.
    fn is_whole(&self) -> bool {
        self.ring.first_paged(0).is_none()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stats().entries == 0
    }

    /// Whether nothing is handed out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.ring.has_handed_out(0..u64::MAX)
    }

    /// Whether what is left lies where a next run finds it.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.ring.unstored().entries == 0
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
    pub fn size_of(&self, id: Id) -> u64 {
        self.ring.get(id.ticket()).map_or(0, |held| match held.place {
            ring::Place::Logged { bytes, .. } => bytes,
            ring::Place::Memory => log::stored_len(&held.entry),
        })
    }

    pub(super) fn show(&mut self) {
        let stats = self.stats();
        self.metrics.stored.set(i64::try_from(stats.samples).unwrap_or(i64::MAX));
        self.metrics.bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        self.metrics.oldest.set(stats.oldest.map_or(0.0, UnixTime::as_seconds));
        self.metrics.failing.set(i64::from(self.health.is_memory_only()));
        let written = self.log.as_ref().map_or(0, |log| log.counts().written);
        self.metrics.written.inc_by(written - self.written);
        self.written = written;
    }
}
