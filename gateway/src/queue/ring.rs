//! The entries that are in memory, by id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::OnFull;

use super::log::Tally;
use super::runs::Runs;
use super::{Entry, TopicId};

/// An entry with everything that was decided about it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) topic: TopicId,
    pub(super) seq: u64,
    pub(super) epoch: Arc<str>,
    pub(super) entry: Entry,
    /// Samples that it was stored with and that have no place in today's configuration.
    pub(super) homeless: u64,
    pub(super) place: Place,
    /// When it was pushed, or moved here to make room; nothing for a copy of what lies on the disk.
    /// INVARIANT: what lies in memory alone has one.
    pub(super) since: Option<Instant>,
    /// When it was handed out; nothing while it waits.
    pub(super) sent: Option<Instant>,
    pub(super) is_history: bool,
}

/// Where an entry lies beside here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Nowhere.
    Memory,
    /// In the log, where it takes so many bytes and is durable when the log is up to a position.
    Logged { bytes: u64, position: u64 },
}

/// Entries in memory. What waits in memory alone, what can be forgotten because it lies in the log,
/// and what is handed out are kept apart.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: BTreeMap<u64, Held>,
    /// Estimated memory of all of them.
    memory: u64,
    /// In memory alone and waiting, by kind.
    records: Waiting,
    messages: Waiting,
    /// In the log and waiting.
    cached: BTreeSet<u64>,
    handed_out: BTreeSet<u64>,
    /// In memory alone, waiting or not.
    unstored: BTreeSet<u64>,
    /// What waits in the log and is not here.
    paged: Runs,
    /// What those hold; their bytes are memory.
    unstored_tally: Tally,
}

#[derive(Debug, Default)]
struct Waiting {
    ids: BTreeSet<u64>,
    bytes: u64,
}

impl Held {
    /// What it holds, with the bytes that it takes where it lies.
    pub(super) fn tally(&self) -> Tally {
        let bytes = match self.place {
            Place::Memory => self.entry.bytes(),
            Place::Logged { bytes, .. } => bytes,
        };
        Tally { entries: 1, samples: self.entry.samples() + self.homeless, bytes }
    }

    pub(super) const fn is_record(&self) -> bool {
        matches!(self.entry, Entry::Record(_))
    }
}

impl Ring {
    pub(super) fn insert(&mut self, id: u64, held: Held) {
        self.memory += held.entry.bytes();
        self.paged.remove(id);
        self.index(id, &held);
        self.entries.insert(id, held);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Held> {
        self.entries.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.entries.remove(&id)?;
        self.memory -= held.entry.bytes();
        self.unindex(id, &held);
        Some(held)
    }

    /// Takes out everything, in the order of the ids.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (u64, Held)> + use<> {
        std::mem::take(self).entries.into_iter()
    }

    /// Takes out an entry that is handed out.
    pub(super) fn take_handed_out(&mut self, id: u64) -> Option<Held> {
        if self.handed_out.contains(&id) { self.remove(id) } else { None }
    }

    pub(super) fn hand_out(&mut self, id: u64, now: Instant, is_history: bool) -> Option<&Held> {
        self.change(id, |held| {
            held.sent = Some(now);
            // What is late once stays so, also what moved behind newer entries.
            held.is_history |= is_history;
        })
    }

    pub(super) fn place(&mut self, id: u64, place: Place) {
        self.change(id, |held| held.place = place);
    }

    /// Everything handed out waits again.
    pub(super) fn rewind(&mut self) {
        for id in std::mem::take(&mut self.handed_out) {
            self.handed_out.insert(id);
            self.change(id, |held| held.sent = None);
        }
    }

    /// The first entry from this id on that waits.
    pub(super) fn first_waiting(&self, from: u64) -> Option<u64> {
        let first = |ids: &BTreeSet<u64>| ids.range(from..).next().copied();
        let all = [first(&self.records.ids), first(&self.messages.ids), first(&self.cached)];
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
    pub(super) fn first_unstored(&self) -> Option<u64> {
        self.unstored.first().copied()
    }

    /// The highest id that lies in memory alone and was pushed before this.
    pub(super) fn unstored_since(&self, before: Instant) -> Option<u64> {
        let is_old = |id: &&u64| {
            self.entries.get(id).is_some_and(|held| held.since.is_none_or(|since| since <= before))
        };
        self.unstored.iter().take_while(is_old).last().copied()
    }

    /// What lies in memory alone.
    pub(super) const fn unstored(&self) -> Tally {
        self.unstored_tally
    }

    /// Those in the log behind this position.
    pub(super) fn logged_behind(&self, synced: u64) -> Vec<u64> {
        let is_behind =
            |held: &Held| matches!(held.place, Place::Logged { position, .. } if position > synced);
        self.entries.iter().filter(|(_, held)| is_behind(held)).map(|(id, _)| *id).collect()
    }

    /// The lowest id from which on everything is younger than this and in memory.
    pub(super) fn young_from(&self, oldest: Instant) -> Option<u64> {
        let young = self.entries.iter().rev();
        young
            .take_while(|(_, held)| held.since.is_some_and(|since| since >= oldest))
            .last()
            .map(|(id, _)| *id)
    }

    /// Forgets waiting entries that lie durably in the log until no more than `most` bytes are here.
    pub(super) fn trim(&mut self, most: u64, synced: u64) {
        while self.memory > most
            && let Some(id) = self.cached.first().copied()
        {
            let place = self.entries.get(&id).map(|held| held.place);
            let is_durable =
                matches!(place, Some(Place::Logged { position, .. }) if position <= synced);
            if !is_durable {
                return;
            }
            self.remove(id);
            self.paged.insert(id);
        }
    }

    /// What waits in the log when a run begins.
    pub(super) fn start_with(&mut self, paged: Runs) {
        self.paged = paged;
    }

    /// The first entry from this id on that waits in the log alone.
    pub(super) fn first_paged(&self, from: u64) -> Option<u64> {
        self.paged.first_from(from)
    }

    /// These do not wait in the log any more.
    pub(super) fn forget_paged(&mut self, first: u64, last: u64) {
        self.paged.remove_run((first, last));
    }

    /// Memory that is in use.
    pub(super) const fn memory(&self) -> u64 {
        self.memory
    }

    /// Memory of records, and of messages, that wait here alone.
    pub(super) const fn waiting(&self) -> (u64, u64) {
        (self.records.bytes, self.messages.bytes)
    }

    /// Takes out a waiting entry that lies here alone: a record if there is one.
    pub(super) fn evict(&mut self, on_full: OnFull) -> Option<(u64, Held)> {
        let end = |ids: &BTreeSet<u64>| match on_full {
            OnFull::DropOldest => ids.first().copied(),
            OnFull::DropNewest => ids.last().copied(),
        };
        let id = end(&self.records.ids).or_else(|| end(&self.messages.ids))?;
        Some((id, self.remove(id)?))
    }

    /// The first record in line.
    pub(super) fn oldest(&self) -> Option<&Held> {
        self.entries.values().find(|held| held.is_record())
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Held)) -> Option<&Held> {
        let mut held = self.entries.remove(&id)?;
        self.unindex(id, &held);
        change(&mut held);
        self.index(id, &held);
        Some(self.entries.entry(id).or_insert(held))
    }

    fn index(&mut self, id: u64, held: &Held) {
        if held.place == Place::Memory {
            self.unstored.insert(id);
            self.unstored_tally.add(held.tally());
        }
        match (held.sent.is_some(), held.place) {
            (true, _) => drop(self.handed_out.insert(id)),
            (false, Place::Logged { .. }) => drop(self.cached.insert(id)),
            (false, Place::Memory) => {
                let waiting = self.waiting_mut(held);
                waiting.ids.insert(id);
                waiting.bytes += held.entry.bytes();
            }
        }
    }

    fn unindex(&mut self, id: u64, held: &Held) {
        if self.unstored.remove(&id) {
            self.unstored_tally.subtract(held.tally());
        }
        self.handed_out.remove(&id);
        self.cached.remove(&id);
        let waiting = self.waiting_mut(held);
        if waiting.ids.remove(&id) {
            waiting.bytes -= held.entry.bytes();
        }
    }

    const fn waiting_mut(&mut self, held: &Held) -> &mut Waiting {
        if held.is_record() { &mut self.records } else { &mut self.messages }
    }
}
