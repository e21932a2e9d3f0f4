//! Ids of entries and topics.

/// Identifies an entry as long as the queue exists. Later entries have higher ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(u64);

/// Maps the ids of entries that were in memory before there was a storage to their ids in the log.
#[derive(Clone, Debug, Default)]
pub struct IdRemap {
    /// New id of the first of them; the others follow.
    pub(super) first_new: u64,
    /// Old ids, in order.
    pub(super) old_ids: Vec<u64>,
}

/// Identifies a topic by the number that the caller gave it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicId(u16);

impl EntryId {
    /// Returns the id that a ticket stands for.
    #[must_use]
    pub const fn from_ticket(ticket: u64) -> Self {
        Self(ticket)
    }

    /// Returns the number that travels with the message and comes back with its acknowledgement.
    #[must_use]
    pub const fn ticket(self) -> u64 {
        self.0
    }
}

impl IdRemap {
    /// Returns the new ticket of the first entry whose old ticket is not below this one.
    #[must_use]
    pub fn new_ticket(&self, old: u64) -> u64 {
        let before = self.old_ids.partition_point(|id| *id < old);
        self.first_new.saturating_add(super::to_u64(before))
    }
}

impl TopicId {
    /// Returns the topic with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }

    /// Returns the number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
