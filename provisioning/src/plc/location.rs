//! Location of a value in a Modbus table.

use thiserror::Error;

/// The four address spaces of Modbus (Modbus Application Protocol V1.1b3, 4.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// Read and written as bits: function codes 1, 5, 15.
    Coil,
    /// Read-only bits: function code 2.
    DiscreteInput,
    /// Read-only registers: function code 4.
    InputRegister,
    /// Read and written registers: function codes 3, 6, 16, 23.
    HoldingRegister,
}

/// Location of one value in a Modbus table, checked against its model and type.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Location {
    /// Address space.
    pub table: Table,
    /// First register or bit, zero-based as on the wire.
    pub first: u16,
    /// Number of registers or bits, at least one.
    pub count: u16,
    /// Byte of the first register at which the value begins, in the order of the PLC's memory: 0 is
    /// the low byte. Always 0 in bit tables.
    pub byte: u8,
    /// Bit of that byte for a BOOL that is one bit; absent for a BOOL that is a whole byte.
    pub bit: Option<u8>,
}

/// Why an address is invalid, in the terms of the PLC's manual.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{message}")]
pub struct LocationError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] =
        [Self::Coil, Self::DiscreteInput, Self::InputRegister, Self::HoldingRegister];

    /// Returns the keyword in an address: `holding`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::DiscreteInput => "discrete",
            Self::InputRegister => "input",
            Self::HoldingRegister => "holding",
        }
    }

    /// Returns whether an address of this table is a single bit.
    #[must_use]
    pub const fn holds_bits(self) -> bool {
        matches!(self, Self::Coil | Self::DiscreteInput)
    }
}
