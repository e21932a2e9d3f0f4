//! PLC families and what their Modbus servers offer.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::{Order, Table};

/// PLC family: decides addresses, memory map and byte order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Model {
    /// Modicon M241.
    M241,
    /// Modicon M251.
    M251,
    /// Modicon M262.
    M262,
    /// Modicon M221: programmed with Machine Expert - Basic, addressed in its own way.
    M221,
    /// Any other Modbus TCP server: only `holding:`, `input:`, `coil:` and `discrete:` addresses.
    Generic,
}

/// Models that address their memory alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// M241, M251, M262: Machine Expert, memory counted in bytes, PLC_R.
    MachineExpert,
    /// M221: Machine Expert - Basic, memory counted in words and bits.
    Basic,
    /// Anything else: nothing but Modbus tables.
    Tables,
}

/// A stretch of registers or bits that one request must not leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Window {
    /// Wire addresses of the stretch.
    pub registers: RangeInclusive<u16>,
    /// Whether Modbus may write here.
    pub writable: bool,
    /// What the manual calls it.
    pub name: &'static str,
}

/// The text is not the name of a model in [`Model::ALL`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a model that this version knows")]
pub struct UnknownModel(pub String);

/// Holding registers of M241, M251 and M262 (programming guides, "Modbus TCP server").
static MODICON_REGISTERS: [Window; 5] = [
    window(0, 59_999, true, "the user area %MW0 to %MW59999"),
    window(60_000, 60_199, false, "the system area PLC_R, %MW60000 to %MW60199"),
    window(60_200, 61_999, false, "the read part of the relocation table, %MW60200 to %MW61999"),
    window(62_000, 62_199, true, "the system area PLC_W, %MW62000 to %MW62199"),
    window(62_200, 63_999, true, "the write part of the relocation table, %MW62200 to %MW63999"),
];
static MODICON_OUTPUTS: [Window; 1] = [window(0, u16::MAX, true, "the outputs %Q")];
static MODICON_INPUTS: [Window; 1] = [window(0, u16::MAX, false, "the inputs %I")];
/// How many words and bits an M221 has depends on its reference and its program: beyond them it
/// answers with exception 2.
static BASIC_WORDS: [Window; 1] = [window(0, u16::MAX, true, "the memory words %MW")];
static BASIC_BITS: [Window; 1] = [window(0, u16::MAX, true, "the memory bits %M")];
static BASIC_BITS_READ_ONLY: [Window; 1] = [window(0, u16::MAX, false, "the memory bits %M")];
static GENERIC_WRITABLE: [Window; 1] = [window(0, u16::MAX, true, "the addresses 0 to 65535")];
static GENERIC_READ_ONLY: [Window; 1] = [window(0, u16::MAX, false, "the addresses 0 to 65535")];

impl Model {
    /// Every model.
    pub const ALL: [Self; 5] = [Self::M241, Self::M251, Self::M262, Self::M221, Self::Generic];

    /// The name as written in a configuration.
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

    /// How this model addresses its memory.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::M241 | Self::M251 | Self::M262 => Family::MachineExpert,
            Self::M221 => Family::Basic,
            Self::Generic => Family::Tables,
        }
    }

    /// What the Modbus server of this model offers of a table, ascending; empty when it has no
    /// function code for it.
    #[must_use]
    pub fn windows(self, table: Table) -> &'static [Window] {
        match (self.family(), table) {
            (Family::MachineExpert, Table::HoldingRegister) => &MODICON_REGISTERS,
            (Family::MachineExpert, Table::Coil) => &MODICON_OUTPUTS,
            (Family::MachineExpert, Table::DiscreteInput) => &MODICON_INPUTS,
            (Family::MachineExpert | Family::Basic, Table::InputRegister) => &[],
            (Family::Basic, Table::HoldingRegister) => &BASIC_WORDS,
            (Family::Basic, Table::Coil) => &BASIC_BITS,
            (Family::Basic, Table::DiscreteInput) => &BASIC_BITS_READ_ONLY,
            (Family::Tables, Table::HoldingRegister | Table::Coil) => &GENERIC_WRITABLE,
            (Family::Tables, Table::InputRegister | Table::DiscreteInput) => &GENERIC_READ_ONLY,
        }
    }

    /// How the bytes of a value lie unless the tag says otherwise.
    #[must_use]
    pub const fn default_order(self) -> Order {
        match self.family() {
            Family::MachineExpert | Family::Basic => Order::Cdab,
            Family::Tables => Order::Abcd,
        }
    }

    /// Most unused registers that are read to join two tags, unless the configuration says
    /// otherwise. A Modicon answers what lies between two of its variables; another device may
    /// refuse the holes.
    #[must_use]
    pub const fn default_max_gap(self) -> u16 {
        match self.family() {
            Family::MachineExpert | Family::Basic => 32,
            Family::Tables => 0,
        }
    }

    /// Unit id unless the configuration says otherwise: a Modicon's own server answers 255.
    #[must_use]
    pub const fn default_unit_id(self) -> u8 {
        match self.family() {
            Family::MachineExpert | Family::Basic => 255,
            Family::Tables => 1,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = UnknownModel;

    /// Takes the name in any case.
    fn from_str(text: &str) -> Result<Self, UnknownModel> {
        let found = Self::ALL.into_iter().find(|model| model.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownModel(text.to_owned()))
    }
}

const fn window(first: u16, last: u16, writable: bool, name: &'static str) -> Window {
    Window { registers: RangeInclusive::new(first, last), writable, name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_back_from_its_name_in_any_case() {
        for model in Model::ALL {
            assert_eq!(model.to_string().parse(), Ok(model));
            assert_eq!(model.to_string().to_lowercase().parse(), Ok(model));
        }
        assert_eq!("M580".parse::<Model>(), Err(UnknownModel("M580".to_owned())));
    }

    #[test]
    fn the_windows_of_a_table_ascend_and_do_not_overlap() {
        for model in Model::ALL {
            for table in Table::ALL {
                for pair in model.windows(table).windows(2) {
                    assert!(pair[0].registers.end() < pair[1].registers.start());
                }
            }
        }
    }
}
