//! The entries in memory, by id, and which of the others wait on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::OnFull;

use super::log::EntryCounts;
use super::range_set::RangeSet;
use super::{Entry, Gap, TopicId};
use crate::metrics::DropReason;

/// An entry in memory, with everything that was decided about it.
#[derive(Debug)]
pub(super) struct MemoryEntry {
    pub(super) topic: TopicId,
    pub(super) seq: u64,
    pub(super) epoch: Arc<str>,
    pub(super) entry: Entry,
    /// [`Entry::memory_bytes`], which visits every sample.
    pub(super) memory_bytes: u64,
    /// Samples it was stored with whose tag is not in the configuration any more.
    pub(super) unmapped_samples: u64,
    pub(super) location: Location,
    /// When it was pushed, or moved here by an eviction; `None` for an entry read back from disk.
    /// INVARIANT: an entry in memory only has one.
    pub(super) pushed_at: Option<Instant>,
    /// When it was handed out; `None` while it waits.
    pub(super) handed_out_at: Option<Instant>,
    pub(super) is_history: bool,
}

/// Where an entry is in addition to memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Location {
    /// Nowhere.
    Memory,
    /// Appended to the log in this run; durable when the log is durable up to `position`.
    Appended { bytes: u64, position: u64 },
    /// Read back from the log.
    Stored { bytes: u64 },
}

/// Entries in memory, and the ids of those that wait on disk only.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    entries: BTreeMap<u64, MemoryEntry>,
    /// Estimated memory of all of them.
    memory_bytes: u64,
    states: EntryStates,
    /// Waiting in the log and not in memory.
    disk_only: RangeSet,
}

/// The entries in memory by state: those that are in memory only, those that can be dropped from
/// memory because they are on disk as well, and those that are handed out.
#[derive(Debug, Default)]
struct EntryStates {
    /// In memory only and waiting, by kind.
    waiting_records: WaitingEntries,
    waiting_messages: WaitingEntries,
    /// In the log and waiting.
    cached: BTreeSet<u64>,
    handed_out: BTreeSet<u64>,
    /// In memory only, waiting or handed out.
    memory_only: BTreeSet<u64>,
    /// The sum of those; their bytes are memory.
    memory_only_counts: EntryCounts,
}

#[derive(Debug, Default)]
struct WaitingEntries {
    ids: BTreeSet<u64>,
    bytes: u64,
}

impl Location {
    /// Returns the bytes that it takes on disk.
    pub(super) const fn bytes(self) -> Option<u64> {
        match self {
            Self::Memory => None,
            Self::Appended { bytes, .. } | Self::Stored { bytes } => Some(bytes),
        }
    }

    /// Returns whether it is durable when the log is durable up to `synced`. What was read back was
    /// durable, or has survived without.
    pub(super) const fn is_durable(self, synced: u64) -> bool {
        match self {
            Self::Memory => false,
            Self::Appended { position, .. } => position <= synced,
            Self::Stored { .. } => true,
        }
    }
}

impl MemoryEntry {
    /// Returns what it holds, with the bytes that it takes on disk, or in memory if it is there
    /// only.
    pub(super) fn counts(&self) -> EntryCounts {
        let bytes = self.location.bytes().unwrap_or(self.memory_bytes);
        let samples = self.entry.sample_count() + self.unmapped_samples;
        EntryCounts { entries: 1, samples, bytes }
    }

    pub(super) const fn is_record(&self) -> bool {
        matches!(self.entry, Entry::Record(_))
    }

    /// Returns the gap that this entry leaves when it is dropped.
    pub(super) fn to_gap(&self, reason: DropReason) -> Gap {
        let samples = self.entry.sample_count() + self.unmapped_samples;
        Gap::single((self.topic, &self.epoch, self.seq), samples, reason)
    }
}

impl EntryIndex {
    pub(super) fn insert(&mut self, id: u64, held: MemoryEntry) {
        self.memory_bytes += held.memory_bytes;
        self.disk_only.remove(id);
        self.states.add(id, &held);
        self.entries.insert(id, held);
    }

    pub(super) fn get(&self, id: u64) -> Option<&MemoryEntry> {
        self.entries.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<MemoryEntry> {
        let held = self.entries.remove(&id)?;
        self.memory_bytes -= held.memory_bytes;
        self.states.remove(id, &held);
        Some(held)
    }

    /// Removes everything and returns it in the order of the ids.
    pub(super) fn drain_all(&mut self) -> impl Iterator<Item = (u64, MemoryEntry)> + use<> {
        std::mem::take(self).entries.into_iter()
    }

    /// Removes an entry that is handed out and returns it.
    pub(super) fn take_handed_out(&mut self, id: u64) -> Option<MemoryEntry> {
        if self.states.handed_out.contains(&id) { self.remove(id) } else { None }
    }

    pub(super) fn mark_handed_out(
        &mut self,
        id: u64,
        now: Instant,
        is_history: bool,
    ) -> Option<&MemoryEntry> {
        self.update(id, |held| {
            held.handed_out_at = Some(now);
            // An entry that came late once stays history, also one that was moved behind newer
            // ones.
            held.is_history |= is_history;
        })
    }

    pub(super) fn set_location(&mut self, id: u64, location: Location) {
        self.update(id, |held| held.location = location);
    }

    /// Makes everything that is handed out wait again.
    pub(super) fn return_handed_out(&mut self) {
        for id in std::mem::take(&mut self.states.handed_out) {
            self.update(id, |held| held.handed_out_at = None);
        }
    }

    /// Makes one entry that is handed out wait again. Returns whether it is history, or `None` if
    /// it is not handed out.
    pub(super) fn return_one(&mut self, id: u64) -> Option<bool> {
        if !self.states.handed_out.contains(&id) {
            return None;
        }
        self.update(id, |held| held.handed_out_at = None).map(|held| held.is_history)
    }

    /// Returns the first entry from this id on that waits in memory.
    pub(super) fn first_waiting(&self, from: u64) -> Option<u64> {
        let first = |ids: &BTreeSet<u64>| ids.range(from..).next().copied();
        let EntryStates { waiting_records, waiting_messages, cached, .. } = &self.states;
        let waiting = [&waiting_records.ids, &waiting_messages.ids, cached];
        waiting.into_iter().filter_map(first).min()
    }

    /// Returns the lowest id in memory.
    pub(super) fn lowest_id(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(id, _)| *id)
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn has_handed_out(&self, ids: std::ops::Range<u64>) -> bool {
        self.states.handed_out.range(ids).next().is_some()
    }

    /// Returns the lowest id that is in memory only.
    pub(super) fn first_memory_only(&self) -> Option<u64> {
        self.states.memory_only.first().copied()
    }

    /// Returns the ids of these entries, as far as they are in memory only.
    pub(super) fn memory_only_ids(&self, is_wanted: impl Fn(&MemoryEntry) -> bool) -> Vec<u64> {
        let is_wanted = |id: &&u64| self.entries.get(id).is_some_and(&is_wanted);
        self.states.memory_only.iter().filter(is_wanted).copied().collect()
    }

    /// Returns the highest id that is in memory only and was pushed before `before`, as were all
    /// below.
    pub(super) fn last_memory_only_before(&self, before: Instant) -> Option<u64> {
        let is_old = |id: &&u64| {
            self.entries.get(id).is_some_and(|held| held.pushed_at.is_none_or(|at| at <= before))
        };
        self.states.memory_only.iter().take_while(is_old).last().copied()
    }

    /// Returns how much is in memory only.
    pub(super) const fn memory_only(&self) -> EntryCounts {
        self.states.memory_only_counts
    }

    /// Returns the ids of entries in the log that are not durable when the log is up to `synced`.
    pub(super) fn logged_after(&self, synced: u64) -> Vec<u64> {
        let is_after = |held: &MemoryEntry| {
            held.location != Location::Memory && !held.location.is_durable(synced)
        };
        self.entries.iter().filter(|(_, held)| is_after(held)).map(|(id, _)| *id).collect()
    }

    /// Returns the lowest id from which on everything was pushed after `oldest` and is in memory.
    pub(super) fn first_young_id(&self, oldest: Instant) -> Option<u64> {
        let is_young = |held: &MemoryEntry| held.pushed_at.is_some_and(|at| at >= oldest);
        let young = self.entries.iter().rev().take_while(|(_, held)| is_young(held));
        young.last().map(|(id, _)| *id)
    }

    /// Drops waiting entries from memory that are durable in the log, oldest first, until at most
    /// `max_bytes` are in use.
    pub(super) fn trim_cache(&mut self, max_bytes: u64, synced: u64) {
        while self.memory_bytes > max_bytes
            && let Some(id) = self.states.cached.first().copied()
        {
            if !self.entries.get(&id).is_some_and(|held| held.location.is_durable(synced)) {
                return;
            }
            self.remove(id);
            self.disk_only.insert(id);
        }
    }

    /// Sets what waits in the log when a run starts.
    pub(super) fn set_disk_only(&mut self, waiting: RangeSet) {
        self.disk_only = waiting;
    }

    /// Returns the first entry from this id on that waits in the log and is not in memory.
    pub(super) fn first_disk_only(&self, from: u64) -> Option<u64> {
        self.disk_only.first_from(from)
    }

    /// Records that these ids do not wait in the log any more.
    pub(super) fn remove_disk_only(&mut self, first: u64, last: u64) {
        self.disk_only.remove_range((first, last));
    }

    /// Returns the memory in use.
    pub(super) const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Returns the memory of records, and of messages, that wait in memory only.
    pub(super) const fn waiting_bytes(&self) -> (u64, u64) {
        (self.states.waiting_records.bytes, self.states.waiting_messages.bytes)
    }

    /// Removes a waiting entry that is in memory only, a record if there is one, and returns it.
    pub(super) fn evict(&mut self, on_full: OnFull) -> Option<(u64, MemoryEntry)> {
        let end = |ids: &BTreeSet<u64>| match on_full {
            OnFull::DropOldest => ids.first().copied(),
            OnFull::DropNewest => ids.last().copied(),
        };
        let EntryStates { waiting_records, waiting_messages, .. } = &self.states;
        let id = end(&waiting_records.ids).or_else(|| end(&waiting_messages.ids))?;
        Some((id, self.remove(id)?))
    }

    /// Returns the record with the lowest id.
    pub(super) fn oldest_record(&self) -> Option<&MemoryEntry> {
        self.entries.values().find(|held| held.is_record())
    }

    fn update(&mut self, id: u64, change: impl FnOnce(&mut MemoryEntry)) -> Option<&MemoryEntry> {
        let held = self.entries.get_mut(&id)?;
        self.states.remove(id, held);
        change(held);
        self.states.add(id, held);
        Some(held)
    }
}

impl EntryStates {
    fn add(&mut self, id: u64, held: &MemoryEntry) {
        if held.location == Location::Memory {
            self.memory_only.insert(id);
            self.memory_only_counts.add(held.counts());
        }
        if held.handed_out_at.is_some() {
            self.handed_out.insert(id);
        } else if held.location == Location::Memory {
            let waiting = self.waiting_mut(held);
            waiting.ids.insert(id);
            waiting.bytes += held.memory_bytes;
        } else {
            self.cached.insert(id);
        }
    }

    fn remove(&mut self, id: u64, held: &MemoryEntry) {
        if self.memory_only.remove(&id) {
            self.memory_only_counts.subtract(held.counts());
        }
        self.handed_out.remove(&id);
        self.cached.remove(&id);
        let waiting = self.waiting_mut(held);
        if waiting.ids.remove(&id) {
            waiting.bytes -= held.memory_bytes;
        }
    }

    const fn waiting_mut(&mut self, held: &MemoryEntry) -> &mut WaitingEntries {
        if held.is_record() { &mut self.waiting_records } else { &mut self.waiting_messages }
    }
}
