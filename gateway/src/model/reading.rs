//! Results of polling: raw registers, not yet decoded.

use std::sync::Arc;
use std::time::Duration;

use provisioning::plan::ReadRequest;

use super::{Quality, UnixTime};

/// The results of one cycle of one scan class.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Index into `Plan::classes`.
    pub class: u16,
    /// When the cycle began.
    pub at: UnixTime,
    /// When the machine booted, by the clock that gave the times of the cycle.
    pub booted_at: UnixTime,
    /// Duration of the cycle, including the connection if one had to be opened.
    pub took: Duration,
    /// Whether the program of the PLC is known not to run, so that its values are frozen.
    pub is_stopped: bool,
    /// The requests that were sent: those of the plan, or their parts where the PLC refused a whole
    /// one. A tag of the class that is in no request is in quarantine: the PLC rejects it, and this
    /// cycle did not read it. Shared by cycles with the same requests.
    pub requests: Arc<[ReadRequest]>,
    /// Where the value of each tag of the class lies, in the order of the configuration, or why no
    /// request reads the tag. Shared by cycles with the same requests.
    pub locations: Arc<[Result<TagLocation, ReadFailure>]>,
    /// One result for each request, in the same order.
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

/// The result of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadResult {
    /// The middle of its round trip.
    pub at: UnixTime,
    /// The answer.
    pub outcome: ReadOutcome,
}

/// The registers read, or why there are none.
pub type ReadOutcome = Result<Registers, ReadFailure>;

/// A complete answer: as many registers or bits as were requested.
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
    /// There is no connection, or no valid answer arrived.
    Unreachable,
    /// The PLC answered with this exception code (Modbus Application Protocol V1.1b3, 7).
    Refused(u8),
    /// The PLC answered each retry with exception 5 or 6: it may answer later.
    Busy,
    /// The PLC refused the request, and which of its tags caused that is not known yet: says
    /// nothing about a single tag.
    Pending,
}

/// How many tags of a PLC have a good value.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TagHealth {
    /// Number of tags.
    pub configured: usize,
    /// Number of tags whose last value is good, and at most a scan and a heartbeat old.
    pub good: usize,
    /// The first tags without a good value, at most [`TagHealth::MAX_NAMED`].
    pub bad: Vec<BadTag>,
}

/// A tag without a good value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadTag {
    /// Index into `config::Plc::tags`.
    pub tag: u16,
    /// Quality of its last value.
    pub quality: Quality,
    /// Exception code, if the PLC refused it.
    pub exception: Option<u8>,
}

impl TagHealth {
    /// Most tags that are named.
    pub const MAX_NAMED: usize = 3;

    /// Counts a tag without a good value, which is named if there are few.
    pub fn add_bad(&mut self, bad: BadTag) {
        if self.bad.len() < Self::MAX_NAMED {
            self.bad.push(bad);
        }
    }
}
