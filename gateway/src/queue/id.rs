//! Names of entries and topics.

/// Names one entry for as long as the queue lives. Later entries have higher ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id(u64);

/// Names one topic: the number that the caller gave it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicId(u16);

impl Id {
    /// The entry that a ticket stands for.
    #[must_use]
    pub const fn from_ticket(ticket: u64) -> Self {
        Self(ticket)
    }

    /// A number that travels with the message and comes back with its acknowledgement.
    #[must_use]
    pub const fn ticket(self) -> u64 {
        self.0
    }
}

impl TopicId {
    /// The topic with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }

    /// Its number, as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
