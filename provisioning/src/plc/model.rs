//! PLC families and their Modbus memory maps.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::{ByteOrder, Table};

/// PLC family. Determines addresses, memory map and byte order.
///
/// ```
/// use provisioning::plc::PlcModel;
///
/// assert_eq!("m241".parse(), Ok(PlcModel::M241));
/// assert!("M580".parse::<PlcModel>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PlcModel {
    /// Modicon M241.
    M241,
    /// Modicon M251.
    M251,
    /// Modicon M262.
    M262,
    /// Modicon M221, programmed with Machine Expert - Basic, with its own addresses.
    M221,
    /// Any other Modbus TCP server: only `holding:`, `input:`, `coil:` and `discrete:` addresses.
    Generic,
}

/// Models with the same addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlcFamily {
    /// M241, M251, M262: Machine Expert, memory counted in bytes, PLC_R.
    MachineExpert,
    /// M221: Machine Expert - Basic, memory counted in words and bits.
    MachineExpertBasic,
    /// Other devices: Modbus tables only.
    ModbusTables,
}

/// A range of registers or bits that one request must not leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryArea {
    /// Addresses on the wire, zero-based.
    pub registers: RangeInclusive<u16>,
    /// Whether Modbus may write to it.
    pub writable: bool,
    /// Name in the manual.
    pub name: &'static str,
}

/// The text is not the name of a supported model.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a supported model")]
pub struct UnknownModel(pub String);

/// Holding registers of M241, M251 and M262 (programming guides, "Modbus TCP server").
static MODICON_REGISTERS: [MemoryArea; 5] = [
    area(0, 59_999, true, "the user area %MW0 to %MW59999"),
    area(60_000, 60_199, false, "the system area PLC_R, %MW60000 to %MW60199"),
    area(60_200, 61_999, false, "the read part of the relocation table, %MW60200 to %MW61999"),
    area(62_000, 62_199, true, "the system area PLC_W, %MW62000 to %MW62199"),
    area(62_200, 63_999, true, "the write part of the relocation table, %MW62200 to %MW63999"),
];
static MODICON_OUTPUTS: [MemoryArea; 1] = [area(0, u16::MAX, false, "the outputs %Q")];
static MODICON_INPUTS: [MemoryArea; 1] = [area(0, u16::MAX, false, "the inputs %I")];
/// The number of words and bits of an M221 depends on its reference and its program; beyond them it
/// answers with exception 2, so the limit is left to the device.
static BASIC_WORDS: [MemoryArea; 1] = [area(0, u16::MAX, true, "the memory words %MW")];
static BASIC_BITS: [MemoryArea; 1] = [area(0, u16::MAX, true, "the memory bits %M")];
static BASIC_BITS_READ_ONLY: [MemoryArea; 1] = [area(0, u16::MAX, false, "the memory bits %M")];
static GENERIC_WRITABLE: [MemoryArea; 1] = [area(0, u16::MAX, true, "the addresses 0 to 65535")];
static GENERIC_READ_ONLY: [MemoryArea; 1] = [area(0, u16::MAX, false, "the addresses 0 to 65535")];

impl PlcModel {
    /// All models.
    pub const ALL: [Self; 5] = [Self::M241, Self::M251, Self::M262, Self::M221, Self::Generic];

    /// Returns the name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::M241 => "M241",
            Self::M251 => "M251",
            Self::M262 => "M262",
            Self::M221 => "M221",
            Self::Generic => "generic",
        }
    }

    /// Returns the model whose name is part of a word, as in the reference TM241CE24R.
    #[must_use]
    pub fn named_in(word: &str) -> Option<Self> {
        let upper = word.to_ascii_uppercase();
        Self::ALL.into_iter().find(|model| upper.contains(model.name()))
    }

    /// Returns the family, which determines the addresses.
    #[must_use]
    pub const fn family(self) -> PlcFamily {
        match self {
            Self::M241 | Self::M251 | Self::M262 => PlcFamily::MachineExpert,
            Self::M221 => PlcFamily::MachineExpertBasic,
            Self::Generic => PlcFamily::ModbusTables,
        }
    }

    /// Returns the areas of a table that the Modbus server of this model gives access to, in
    /// ascending order; empty when it has no function code for the table.
    #[must_use]
    pub fn memory_areas(self, table: Table) -> &'static [MemoryArea] {
        match (self.family(), table) {
            (PlcFamily::MachineExpert, Table::HoldingRegister) => &MODICON_REGISTERS,
            (PlcFamily::MachineExpert, Table::Coil) => &MODICON_OUTPUTS,
            (PlcFamily::MachineExpert, Table::DiscreteInput) => &MODICON_INPUTS,
            (PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic, Table::InputRegister) => &[],
            (PlcFamily::MachineExpertBasic, Table::HoldingRegister) => &BASIC_WORDS,
            (PlcFamily::MachineExpertBasic, Table::Coil) => &BASIC_BITS,
            (PlcFamily::MachineExpertBasic, Table::DiscreteInput) => &BASIC_BITS_READ_ONLY,
            (PlcFamily::ModbusTables, Table::HoldingRegister | Table::Coil) => &GENERIC_WRITABLE,
            (PlcFamily::ModbusTables, Table::InputRegister | Table::DiscreteInput) => {
                &GENERIC_READ_ONLY
            }
        }
    }

    /// Returns the byte order of tags without a setting.
    #[must_use]
    pub const fn default_byte_order(self) -> ByteOrder {
        match self.family() {
            PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic => ByteOrder::Cdab,
            PlcFamily::ModbusTables => ByteOrder::Abcd,
        }
    }

    /// Returns the default of `max_gap`, the number of unused registers that a request may read to
    /// join two tags. A Modicon also answers for memory between two variables; other devices may
    /// reject such a request.
    #[must_use]
    pub const fn default_max_gap(self) -> u16 {
        match self.family() {
            PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic => 32,
            PlcFamily::ModbusTables => 0,
        }
    }

    /// Returns the default unit id: the Modbus server of a Modicon answers to 255.
    #[must_use]
    pub const fn default_unit_id(self) -> u8 {
        match self.family() {
            PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic => 255,
            PlcFamily::ModbusTables => 1,
        }
    }
}

impl fmt::Display for PlcModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PlcModel {
    type Err = UnknownModel;

    /// Parses the name in upper or lower case.
    fn from_str(text: &str) -> Result<Self, UnknownModel> {
        let found = Self::ALL.into_iter().find(|model| model.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownModel(text.to_owned()))
    }
}

const fn area(first: u16, last: u16, writable: bool, name: &'static str) -> MemoryArea {
    MemoryArea { registers: RangeInclusive::new(first, last), writable, name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_parsed_from_its_name_in_upper_and_lower_case() {
        for model in PlcModel::ALL {
            assert_eq!(model.to_string().parse(), Ok(model));
            assert_eq!(model.to_string().to_lowercase().parse(), Ok(model));
        }
        assert_eq!("M580".parse::<PlcModel>(), Err(UnknownModel("M580".to_owned())));
    }

    #[test]
    fn the_memory_areas_of_a_table_ascend_and_do_not_overlap() {
        for model in PlcModel::ALL {
            for table in Table::ALL {
                for pair in model.memory_areas(table).windows(2) {
                    assert!(pair[0].registers.end() < pair[1].registers.start());
                }
            }
        }
    }
}
