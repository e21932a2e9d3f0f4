//! Which requests read which tags. Pure.

use std::time::Duration;

use crate::plc::Table;

/// All reads of one PLC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Tags with the same scan period are read together. Shortest period first.
    pub classes: Vec<ScanClass>,
}

/// The requests of one cycle of one scan period.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScanClass {
    /// Time between two cycles.
    pub period: Duration,
    /// In the order in which they are sent.
    pub requests: Vec<ReadRequest>,
}

/// One request that reads a stretch of one table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadRequest {
    /// Address space.
    pub table: Table,
    /// First register or bit, zero-based.
    pub first: u16,
    /// Registers or bits asked for.
    pub count: u16,
    /// Indices of the tags it serves, in `Plc::tags`, ascending.
    pub tags: Vec<usize>,
}
