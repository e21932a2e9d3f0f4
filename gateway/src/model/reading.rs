//! What polling brings: raw registers, not yet values.

use std::time::Duration;

use super::UnixTime;

/// What one cycle of one scan class brought, good or bad.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Index into `Plan::classes`.
    pub class: u16,
    /// How long it took, with the connecting that it needed.
    pub took: Duration,
    /// One for each request of the class, in the order of the plan.
    pub reads: Vec<Read>,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The middle of the round trip.
    pub at: UnixTime,
    /// The answer.
    pub outcome: Result<Registers, Failure>,
}

/// A whole answer: as many as were asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Registers {
    /// From a table of registers.
    Words(Vec<u16>),
    /// From a table of bits.
    Bits(Vec<bool>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// There is no connection, or no usable answer came.
    Unreachable,
    /// The PLC answered with this exception code (Modbus Application Protocol V1.1b3, 7).
    Refused(u8),
}
