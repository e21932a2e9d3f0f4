//! Writes to a PLC: what is to be written, and what became of it.

use std::time::Instant;

use provisioning::plc::Table;

use super::{ProgramSignature, Registers, Sentence, UnixTime};

/// A checked command for one PLC: what to compare, then what to write.
#[derive(Clone, Debug, PartialEq)]
pub struct PlcOrder {
    /// Chosen by the sender; the report has the same.
    pub number: u64,
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Nothing is written unless the PLC holds all of these.
    pub expect: Vec<TagImage>,
    /// What to write; no two images have a bit in common.
    pub write: Vec<TagImage>,
    /// Whether the values are written, or only read.
    pub task: OrderTask,
    /// The only program with which it is carried out; absent for any.
    pub program: Option<ProgramSignature>,
    /// The first write is not sent after this time, and the others are sent at any time after the
    /// first; absent when all may wait.
    pub not_after: Option<Instant>,
}

/// What an order does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrderTask {
    /// Compares, writes, and reads back.
    Write,
    /// Reads all tags of the PLC, one cycle of each scan class: their [`super::Cycle`]s are
    /// reported before the order.
    ReadAll,
    /// Only reads what is at the place of the images: an earlier order with these may have been
    /// carried out.
    ReadBack,
}

/// The value of one tag as it lies in a Modbus table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TagImage {
    /// Index into `config::Plc::tags`; absent for the word `acknowledge` of `[plc.publish]`.
    pub tag: Option<u16>,
    /// Address space.
    pub table: Table,
    /// First register or bit, zero-based as on the wire.
    pub first: u16,
    /// The registers or bits from there on.
    pub content: ImageContent,
}

/// The registers or bits of a [`TagImage`], at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ImageContent {
    /// From a table of registers.
    Words(Vec<MaskedWord>),
    /// From a table of bits.
    Bits(Vec<bool>),
}

/// A register, or the part of it that belongs to a tag.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MaskedWord {
    /// The value; 0 outside of the mask.
    pub value: u16,
    /// The bits that belong to the tag.
    pub mask: u16,
}

/// What became of a [`PlcOrder`].
#[derive(Clone, Debug, PartialEq)]
pub struct OrderReport {
    /// That of the order.
    pub number: u64,
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// What became of the order as a whole.
    pub outcome: OrderOutcome,
    /// One for each image of `PlcOrder::expect`: what the PLC held before; empty when that was
    /// not read.
    pub found: Vec<Option<Registers>>,
    /// One for each image of `PlcOrder::write`.
    pub images: Vec<ImageReport>,
    /// When the last answer arrived, or the order ended without one.
    pub at: UnixTime,
}

/// What became of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageReport {
    /// Whether the PLC took it.
    pub state: ImageState,
    /// What the PLC held afterwards; absent when it was not read. All bits of its registers, also
    /// those of other tags.
    pub read: Option<Registers>,
}

/// Whether the PLC took an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ImageState {
    /// No request with it was sent.
    NotSent,
    /// The PLC acknowledged the write.
    Written,
    /// The PLC refused it with this exception code (Modbus Application Protocol V1.1b3, 7).
    Refused(u8),
    /// The request was sent, and no valid answer arrived.
    Unknown,
}

/// What became of an order as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderOutcome {
    /// The PLC acknowledged every write.
    Done,
    /// The PLC holds other values than expected; nothing was written.
    ExpectationFailed,
    /// The PLC refused a request with this exception code. Images of earlier requests were written,
    /// as their states say.
    Refused(u8),
    /// Nothing was written.
    NotSent(NotSentReason),
    /// Only the images that are [`ImageState::Written`] were written, before this happened.
    Partial(NotSentReason),
    /// An answer is missing: the PLC may have carried out the write. It is not repeated.
    Unknown,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq)]
pub enum NotSentReason {
    /// The PLC does not answer, for this reason.
    Unreachable(Sentence),
    /// [`PlcOrder::not_after`] is over.
    Expired,
    /// The program of the PLC is not [`PlcOrder::program`].
    ProgramChanged,
    /// The connection ended over the last such request to these registers or coils, and another
    /// loss now would stop the reads.
    LosesConnection,
    /// The gateway stops.
    Stopping,
}

impl MaskedWord {
    /// Returns a register that belongs to the tag as a whole.
    #[must_use]
    pub const fn whole(value: u16) -> Self {
        Self { value, mask: u16::MAX }
    }

    /// Returns the register after the write, if it holds `before`.
    #[must_use]
    pub const fn merged_into(self, before: u16) -> u16 {
        before & !self.mask | self.value & self.mask
    }
}

impl TagImage {
    /// Returns the number of registers or bits.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.content {
            ImageContent::Words(words) => words.len(),
            ImageContent::Bits(bits) => bits.len(),
        }
    }

    /// Returns the registers or bits as if the PLC held 0 in what does not belong to the tag.
    #[must_use]
    pub fn to_registers(&self) -> Registers {
        match &self.content {
            ImageContent::Words(words) => {
                Registers::Words(words.iter().map(|word| word.merged_into(0)).collect())
            }
            ImageContent::Bits(bits) => Registers::Bits(bits.clone()),
        }
    }

    /// Returns whether a write needs the present content of its registers, because a part of them
    /// does not belong to the tag.
    #[must_use]
    pub fn has_foreign_bits(&self) -> bool {
        match &self.content {
            ImageContent::Words(words) => words.iter().any(|word| word.mask != u16::MAX),
            ImageContent::Bits(_) => false,
        }
    }
}
