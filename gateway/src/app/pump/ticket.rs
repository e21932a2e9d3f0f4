//! The numbers by which the MQTT task tells what became of a message.

use crate::queue::EntryId;

/// What a ticket that the MQTT task returns stands for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Ticket {
    /// The status, which is not in the queue.
    Status,
    /// A reply on a response topic, by its number; it is not in the queue either.
    Reply(u32),
    Entry(EntryId),
}

impl Ticket {
    /// Ids of entries count from 0 and never come this far.
    pub(super) const STATUS_NUMBER: u64 = u64::MAX;
    /// Numbers of replies from here on.
    const FIRST_REPLY: u64 = u64::MAX - u32::MAX as u64 - 1;

    pub(super) fn number(self) -> u64 {
        match self {
            Self::Status => Self::STATUS_NUMBER,
            Self::Reply(number) => Self::FIRST_REPLY + u64::from(number),
            Self::Entry(id) => id.ticket(),
        }
    }

    pub(super) fn from_number(number: u64) -> Self {
        match number.checked_sub(Self::FIRST_REPLY).map(u32::try_from) {
            Some(Ok(reply)) => Self::Reply(reply),
            Some(Err(_)) => Self::Status,
            None => Self::Entry(EntryId::from_ticket(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ticket_reads_back_from_its_number() {
        for ticket in [
            Ticket::Status,
            Ticket::Reply(0),
            Ticket::Reply(1),
            Ticket::Reply(u32::MAX),
            Ticket::Entry(EntryId::from_ticket(0)),
            Ticket::Entry(EntryId::from_ticket(u64::MAX - (1 << 33))),
        ] {
            assert_eq!(Ticket::from_number(ticket.number()), ticket);
        }
    }
}
