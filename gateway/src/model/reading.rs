//! What polling brings: raw registers, not yet values.

use std::sync::Arc;
use std::time::Duration;

use provisioning::plan::ReadRequest;

use super::UnixTime;

/// What one cycle of one scan class brought, good or bad.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Index into `Plan::classes`.
    pub class: u16,
    /// When it began.
    pub at: UnixTime,
    /// How long it took, with the connecting that it needed.
    pub took: Duration,
    /// Whether the PLC's program is known not to run, so that what is read stands still.
    pub is_stopped: bool,
    /// What was asked: the requests of the plan, or what is left of them after those that the PLC
    /// refused were taken apart. A tag of the class that none of them serves is in quarantine:
    /// refused, and not asked for in this cycle. Shared by cycles that ask the same.
    pub requests: Arc<[ReadRequest]>,
    /// Where the value of each tag of the class lies, in the order of the configuration; absent for
    /// a tag that no request reads. Shared by cycles with the same requests.
    pub locations: Arc<[Option<TagLocation>]>,
    /// One for each of the requests, in their order.
    pub results: Vec<ReadResult>,
}

/// Where the value of a tag lies in the results of a cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TagLocation {
    /// Index of the result.
    pub result: u16,
    /// Index of its first register or bit in the result.
    pub offset: u16,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadResult {
    /// The middle of the round trip.
    pub at: UnixTime,
    /// The answer.
    pub outcome: ReadOutcome,
}

/// An answer, or why there is none.
pub type ReadOutcome = Result<Registers, ReadFailure>;

/// A whole answer: as many as were asked for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Registers {
    /// From a table of registers.
    Words(Vec<u16>),
    /// From a table of bits.
    Bits(Vec<bool>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadFailure {
    /// There is no connection, or no usable answer came.
    Unreachable,
    /// The PLC answered with this exception code (Modbus Application Protocol V1.1b3, 7).
    Refused(u8),
    /// The PLC refused the request, and which of its tags is to blame is not known yet: says
    /// nothing about a single tag.
    Pending,
}
