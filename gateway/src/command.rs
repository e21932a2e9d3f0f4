//! Commands from the broker and from this machine: from a payload to a checked [`PlcOrder`], and
//! from the report of the PLC to the one reply. Pure: the caller receives, stores, sends.
//!
//! A command is refused at once, or accepted. An accepted one is recorded in the ledger first; when
//! the record is durable, its order goes to the PLC; its report becomes the reply. So a write has a
//! record at every moment, and a command whose id was used before is never carried out again.

mod allow_list;
mod ledger;
mod message;
mod plc;
mod processor;
mod reason;
mod reply;
mod report;
mod strict_json;
#[cfg(test)]
pub(crate) mod tests;
mod trail;

pub use ledger::LedgerBatch;
pub use processor::{CommandEffect, CommandProcessor, CommandTime, IncomingCommand};
pub use reason::{CommandReason, MessageFault};
pub use reply::{CommandReply, CommandState};

pub use crate::model::PlcOrder;

/// Longest payload of a command.
pub const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Most tags in one command, in `write` and `expect` together.
pub const MAX_TAGS: usize = 64;
/// Most commands of one PLC that are not over.
pub const MAX_WAITING: usize = 16;
/// Most ids of one PLC that are kept.
pub const MAX_IDS: usize = 10_000;
/// Most ids of all PLCs together that are kept.
pub const MAX_ALL_IDS: usize = 50_000;
/// Who sends the commands of `edge-gateway write`, in events.
pub const LOCAL_SENDER: &str = "local";
/// Who writes the word `acknowledge` of an event of a PLC, in events.
const ACKNOWLEDGE_SENDER: &str = "acknowledge";
/// Longest text of the sender that is kept, such as an id, in characters.
const MAX_TEXT_CHARS: usize = 128;
