//! One line of waiting entries: in at the back, out at the front, back to the front on a rewind.

use std::collections::{BTreeMap, VecDeque};

use super::{Entry, Id, TopicId};

/// An entry with everything that was decided about it when it was pushed.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: Id,
    pub(super) topic: TopicId,
    pub(super) seq: u64,
    pub(super) bytes: u64,
    pub(super) entry: Entry,
}

/// Entries of one kind, oldest first. Ids rise along the line.
///
/// INVARIANT: every id in `handed_out` is below every id in `waiting`.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Stored>,
    waiting_bytes: u64,
    /// As many as the caller lets be open at once: the window of the connection.
    handed_out: BTreeMap<Id, Stored>,
}

/// The end of the line from which an entry is taken to make room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Oldest,
    Newest,
}

impl Lane {
    pub(super) fn push(&mut self, stored: Stored) {
        self.waiting_bytes += stored.bytes;
        self.waiting.push_back(stored);
    }

    /// Id of the entry that [`Lane::hand_out`] would give.
    pub(super) fn next_id(&self) -> Option<Id> {
        self.waiting.front().map(|stored| stored.id)
    }

    pub(super) fn hand_out(&mut self) -> Option<&Stored> {
        let stored = self.waiting.pop_front()?;
        self.waiting_bytes -= stored.bytes;
        Some(self.handed_out.entry(stored.id).or_insert(stored))
    }

    /// Takes out an entry that was handed out.
    pub(super) fn take(&mut self, id: Id) -> Option<Stored> {
        self.handed_out.remove(&id)
    }

    /// Puts everything handed out back to the front, in its old order.
    pub(super) fn rewind(&mut self) {
        while let Some((_, stored)) = self.handed_out.pop_last() {
            self.waiting_bytes += stored.bytes;
            self.waiting.push_front(stored);
        }
    }

    /// Takes out a waiting entry; what was handed out may already be with the broker and stays.
    pub(super) fn evict(&mut self, end: End) -> Option<Stored> {
        let stored = match end {
            End::Oldest => self.waiting.pop_front(),
            End::Newest => self.waiting.pop_back(),
        }?;
        self.waiting_bytes -= stored.bytes;
        Some(stored)
    }

    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.handed_out.len()
    }

    pub(super) fn oldest(&self) -> Option<&Stored> {
        self.handed_out.values().next().or_else(|| self.waiting.front())
    }
}
