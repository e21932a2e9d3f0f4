//! The entries that are in memory, by id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::OnFull;

use super::log::EntryCounts;
use super::range_set::RangeSet;
use super::{Entry, TopicId};

/// An entry with everything that was decided about it.
#[derive(Debug)]
pub(super) struct MemoryEntry {
    pub(super) topic: TopicId,
    pub(super) seq: u64,
    pub(super) epoch: Arc<str>,
    pub(super) entry: Entry,
    /// Samples that it was stored with and that have no place in today's configuration.
    pub(super) unmapped_samples: u64,
    pub(super) location: Location,
    /// When it was pushed, or moved here to make room; nothing for a copy of what lies on the disk.
    /// INVARIANT: what lies in memory alone has one.
    pub(super) pushed_at: Option<Instant>,
    /// When it was handed out; nothing while it waits.
    pub(super) handed_out_at: Option<Instant>,
    pub(super) is_history: bool,
}

/// Where an entry lies beside here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Location {
    /// Nowhere.
    Memory,
    /// In the log, where it takes so many bytes and is durable when the log is up to a position.
    Logged { bytes: u64, position: u64 },
}

/// Entries in memory. What waits in memory alone, what can be forgotten because it lies in the log,
/// and what is handed out are kept apart.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    entries: BTreeMap<u64, MemoryEntry>,
    /// Estimated memory of all of them.
    memory: u64,
    /// In memory alone and waiting, by kind.
    waiting_records: WaitingEntries,
    waiting_messages: WaitingEntries,
    /// In the log and waiting.
    cached: BTreeSet<u64>,
    handed_out: BTreeSet<u64>,
    /// In memory alone, waiting or not.
    memory_only: BTreeSet<u64>,
    /// What waits in the log and is not here.
    disk_only: RangeSet,
    /// What those hold; their bytes are memory.
    memory_only_counts: EntryCounts,
}

#[derive(Debug, Default)]
struct WaitingEntries {
    ids: BTreeSet<u64>,
    bytes: u64,
}

impl MemoryEntry {
    /// What it holds, with the bytes that it takes where it lies.
    pub(super) fn counts(&self) -> EntryCounts {
        let bytes = match self.location {
            Location::Memory => self.entry.memory_bytes(),
            Location::Logged { bytes, .. } => bytes,
        };
        EntryCounts {
            entries: 1,
            samples: self.entry.sample_count() + self.unmapped_samples,
            bytes,
        }
    }

    pub(super) const fn is_record(&self) -> bool {
        matches!(self.entry, Entry::Record(_))
    }
}

impl EntryIndex {
    pub(super) fn insert(&mut self, id: u64, held: MemoryEntry) {
        self.memory += held.entry.memory_bytes();
        self.disk_only.remove(id);
        self.add_to_sets(id, &held);
        self.entries.insert(id, held);
    }

    pub(super) fn get(&self, id: u64) -> Option<&MemoryEntry> {
        self.entries.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<MemoryEntry> {
        let held = self.entries.remove(&id)?;
        self.memory -= held.entry.memory_bytes();
        self.remove_from_sets(id, &held);
        Some(held)
    }

    /// Takes out everything, in the order of the ids.
    pub(super) fn drain_all(&mut self) -> impl Iterator<Item = (u64, MemoryEntry)> + use<> {
        std::mem::take(self).entries.into_iter()
    }

    /// Takes out an entry that is handed out.
    pub(super) fn take_handed_out(&mut self, id: u64) -> Option<MemoryEntry> {
        if self.handed_out.contains(&id) { self.remove(id) } else { None }
    }

    pub(super) fn mark_handed_out(
        &mut self,
        id: u64,
        now: Instant,
        is_history: bool,
    ) -> Option<&MemoryEntry> {
        self.update(id, |held| {
            held.handed_out_at = Some(now);
            // What is late once stays so, also what moved behind newer entries.
            held.is_history |= is_history;
        })
    }

    pub(super) fn set_location(&mut self, id: u64, place: Location) {
        self.update(id, |held| held.location = place);
    }

    /// Everything handed out waits again.
    pub(super) fn return_handed_out(&mut self) {
        for id in std::mem::take(&mut self.handed_out) {
            self.handed_out.insert(id);
            self.update(id, |held| held.handed_out_at = None);
        }
    }

    /// The first entry from this id on that waits.
    pub(super) fn first_waiting(&self, from: u64) -> Option<u64> {
        let first = |ids: &BTreeSet<u64>| ids.range(from..).next().copied();
        let all = [
            first(&self.waiting_records.ids),
            first(&self.waiting_messages.ids),
            first(&self.cached),
        ];
        all.into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn has_handed_out(&self, ids: std::ops::Range<u64>) -> bool {
        self.handed_out.range(ids).next().is_some()
    }

    /// The lowest id that lies in memory alone.
    pub(super) fn first_memory_only(&self) -> Option<u64> {
        self.memory_only.first().copied()
    }

    /// The highest id that lies in memory alone and was pushed before this.
    pub(super) fn last_memory_only_before(&self, before: Instant) -> Option<u64> {
        let is_old = |id: &&u64| {
            self.entries
                .get(id)
                .is_some_and(|held| held.pushed_at.is_none_or(|since| since <= before))
        };
        self.memory_only.iter().take_while(is_old).last().copied()
    }

    /// What lies in memory alone.
    pub(super) const fn memory_only(&self) -> EntryCounts {
        self.memory_only_counts
    }

    /// Those in the log behind this position.
    pub(super) fn logged_after(&self, synced: u64) -> Vec<u64> {
        let is_behind = |held: &MemoryEntry| matches!(held.location, Location::Logged { position, .. } if position > synced);
        self.entries.iter().filter(|(_, held)| is_behind(held)).map(|(id, _)| *id).collect()
    }

    /// The lowest id from which on everything is younger than this and in memory.
    pub(super) fn first_young_id(&self, oldest: Instant) -> Option<u64> {
        let young = self.entries.iter().rev();
        young
            .take_while(|(_, held)| held.pushed_at.is_some_and(|since| since >= oldest))
            .last()
            .map(|(id, _)| *id)
    }

    /// Forgets waiting entries that lie durably in the log until no more than `most` bytes are here.
    pub(super) fn trim_cache(&mut self, most: u64, synced: u64) {
        while self.memory > most
            && let Some(id) = self.cached.first().copied()
        {
            let place = self.entries.get(&id).map(|held| held.location);
            let is_durable =
                matches!(place, Some(Location::Logged { position, .. }) if position <= synced);
            if !is_durable {
                return;
            }
            self.remove(id);
            self.disk_only.insert(id);
        }
    }

    /// What waits in the log when a run begins.
    pub(super) fn set_disk_only(&mut self, paged: RangeSet) {
        self.disk_only = paged;
    }

    /// The first entry from this id on that waits in the log alone.
    pub(super) fn first_disk_only(&self, from: u64) -> Option<u64> {
        self.disk_only.first_from(from)
    }

    /// These do not wait in the log any more.
    pub(super) fn remove_disk_only(&mut self, first: u64, last: u64) {
        self.disk_only.remove_range((first, last));
    }

    /// Memory that is in use.
    pub(super) const fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Memory of records, and of messages, that wait here alone.
    pub(super) const fn waiting_bytes(&self) -> (u64, u64) {
        (self.waiting_records.bytes, self.waiting_messages.bytes)
    }

    /// Takes out a waiting entry that lies here alone: a record if there is one.
    pub(super) fn evict(&mut self, on_full: OnFull) -> Option<(u64, MemoryEntry)> {
        let end = |ids: &BTreeSet<u64>| match on_full {
            OnFull::DropOldest => ids.first().copied(),
            OnFull::DropNewest => ids.last().copied(),
        };
        let id = end(&self.waiting_records.ids).or_else(|| end(&self.waiting_messages.ids))?;
        Some((id, self.remove(id)?))
    }

    /// The first record in line.
    pub(super) fn oldest_record(&self) -> Option<&MemoryEntry> {
        self.entries.values().find(|held| held.is_record())
    }

    fn update(&mut self, id: u64, change: impl FnOnce(&mut MemoryEntry)) -> Option<&MemoryEntry> {
        let mut held = self.entries.remove(&id)?;
        self.remove_from_sets(id, &held);
        change(&mut held);
        self.add_to_sets(id, &held);
        Some(self.entries.entry(id).or_insert(held))
    }

    fn add_to_sets(&mut self, id: u64, held: &MemoryEntry) {
        if held.location == Location::Memory {
            self.memory_only.insert(id);
            self.memory_only_counts.add(held.counts());
        }
        match (held.handed_out_at.is_some(), held.location) {
            (true, _) => drop(self.handed_out.insert(id)),
            (false, Location::Logged { .. }) => drop(self.cached.insert(id)),
            (false, Location::Memory) => {
                let waiting = self.waiting_mut(held);
                waiting.ids.insert(id);
                waiting.bytes += held.entry.memory_bytes();
            }
        }
    }

    fn remove_from_sets(&mut self, id: u64, held: &MemoryEntry) {
        if self.memory_only.remove(&id) {
            self.memory_only_counts.subtract(held.counts());
        }
        self.handed_out.remove(&id);
        self.cached.remove(&id);
        let waiting = self.waiting_mut(held);
        if waiting.ids.remove(&id) {
            waiting.bytes -= held.entry.memory_bytes();
        }
    }

    const fn waiting_mut(&mut self, held: &MemoryEntry) -> &mut WaitingEntries {
        if held.is_record() { &mut self.waiting_records } else { &mut self.waiting_messages }
    }
}
