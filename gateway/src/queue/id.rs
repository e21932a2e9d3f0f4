//! Ids of entries and topics.

/// Identifies an entry as long as the queue exists. Later entries have higher ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(u64);

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
