//! PLC families and what their Modbus servers offer.

use std::ops::RangeInclusive;

/// PLC family: decides addresses, memory map and byte order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Model {
    /// Modicon M241.
    M241,
    /// Modicon M251.
    M251,
    /// Any other Modbus TCP server: only `holding:`, `input:`, `coil:` and `discrete:` addresses.
    Generic,
}

/// A stretch of registers that one request must not leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Window {
    /// Wire addresses of the stretch.
    pub registers: RangeInclusive<u16>,
    /// Whether Modbus may write here.
    pub writable: bool,
    /// What the manual calls it.
    pub name: &'static str,
}
