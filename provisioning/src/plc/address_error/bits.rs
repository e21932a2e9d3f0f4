//! Refusals of a bit number that is missing, too much, or out of place.

use super::{bit_address, location_error, or_address_forms, suggest_if_valid};
use crate::plc::locate::PlcVariable;
use crate::plc::{IecType, LocationError, PlcFamily, Table};

/// `BOOL` at `%MD` or `%ML`.
pub(in crate::plc) fn bool_in_wide_unit(variable: PlcVariable<'_>, byte: u64) -> LocationError {
    let help =
        suggest_if_valid(variable.model, &bit_address(variable.model, byte / 2, 0), IecType::Bool);
    let help = help.map(|help| match variable.model.family() {
        PlcFamily::MachineExpert => {
            format!("{help} for its lowest bit, or %MB{byte} for its lowest byte")
        }
        PlcFamily::MachineExpertBasic | PlcFamily::ModbusTables => {
            format!("{help} for its lowest bit")
        }
    });
    location_error(
        format!("{}: a BOOL is one bit or one byte, this address is wider", variable.at),
        or_address_forms(variable, help),
    )
}

/// `%MB20.3`, `%MD5.3`: only %MX and %MW take a bit number.
pub(in crate::plc) fn bit_number_not_allowed(
    variable: PlcVariable<'_>,
    byte: u64,
    bit: u32,
) -> LocationError {
    let bit = u64::from(bit) + byte * 8;
    let named = bit_address(variable.model, bit / 16, u32::try_from(bit % 16).unwrap_or_default());
    let takers = match variable.model.family() {
        PlcFamily::MachineExpert => "%MX and %MW take",
        PlcFamily::MachineExpertBasic | PlcFamily::ModbusTables => "%MW takes",
    };
    location_error(
        format!("{}: only {takers} a bit number", variable.at),
        or_address_forms(variable, suggest_if_valid(variable.model, &named, IecType::Bool)),
    )
}

/// `coil:3.1`.
pub(in crate::plc) fn bit_of_bit(variable: PlcVariable<'_>, table: Table) -> LocationError {
    let word = table.keyword();
    location_error(
        format!("{}: a {word} is one bit already", variable.at),
        format!("give the number of the {word} alone: {word}:3"),
    )
}

/// `%MX20`.
pub(in crate::plc) fn bit_missing(variable: PlcVariable<'_>, byte: u32) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    let help = if data.element == IecType::Bool {
        suggest_if_valid(model, &format!("%MX{byte}.0"), data).map(|help| {
            format!("{help} for the lowest bit of byte {byte}, %MX{byte}.7 for the highest")
        })
    } else {
        suggest_if_valid(model, &format!("%MB{byte}"), data)
            .map(|help| format!("{help} for the {data} that begins at byte {byte}"))
    };
    location_error(format!("{at}: %MX needs a bit number"), or_address_forms(variable, help))
}

/// `%MX10.12`.
pub(in crate::plc) fn bit_beyond_byte(
    variable: PlcVariable<'_>,
    byte: u32,
    bit: u32,
) -> LocationError {
    let help = suggest_if_valid(variable.model, &format!("%MW{byte}.{bit}"), IecType::Bool)
        .map(|help| format!("{help} if bit {bit} of the word %MW{byte} is meant"));
    location_error(
        format!("{}: %MX counts bytes, and a byte has the bits 0 to 7", variable.at),
        or_address_forms(variable, help),
    )
}

/// `%MW10.16`.
pub(in crate::plc) fn bit_beyond_word(variable: PlcVariable<'_>) -> LocationError {
    let help = match variable.model.family() {
        PlcFamily::MachineExpert => {
            "bit 16 of a double word is bit 0 of its second word: bit 16 of %MD5 is %MW11.0"
        }
        PlcFamily::MachineExpertBasic => {
            "bit 16 of a double word is bit 0 of its second word: bit 16 of %MD10 is %MW11:X0"
        }
        PlcFamily::ModbusTables => {
            "bit 16 of two registers is bit 0 of the second one (of the first when the high word \
             comes first)"
        }
    };
    location_error(format!("{}: a word has the bits 0 to 15", variable.at), help)
}

/// `%M20.3` on an M221.
pub(in crate::plc) fn bit_of_memory_bit(variable: PlcVariable<'_>, index: u32) -> LocationError {
    let named = format!("%M{index}");
    let help = suggest_if_valid(variable.model, &named, IecType::Bool);
    location_error(
        format!("{}: {named} is one bit already", variable.at),
        or_address_forms(variable, help),
    )
}

/// `%QX0`, `%Q5`.
pub(in crate::plc) fn io_bit_missing(
    variable: PlcVariable<'_>,
    table: Table,
    byte: u32,
) -> LocationError {
    let letter = io_letter(table);
    let named = format!("%{letter}X{byte}.0");
    let help = suggest_if_valid(variable.model, &named, IecType::Bool).map(|help| {
        format!("{help} for the first bit of byte {byte}, as the I/O mapping shows it")
    });
    location_error(
        format!("{}: %{letter} needs a bit number", variable.at),
        or_address_forms(variable, help),
    )
}

/// `%QX0.8`.
pub(in crate::plc) fn io_bit_beyond_byte(
    variable: PlcVariable<'_>,
    table: Table,
    byte: u32,
    bit: u32,
) -> LocationError {
    let byte = u64::from(byte) + u64::from(bit / 8);
    let named = format!("%{}X{byte}.{}", io_letter(table), bit % 8);
    location_error(
        format!("{}: a byte has the bits 0 to 7", variable.at),
        or_address_forms(variable, suggest_if_valid(variable.model, &named, IecType::Bool)),
    )
}

const fn io_letter(table: Table) -> char {
    match table {
        Table::Coil => 'Q',
        Table::DiscreteInput | Table::InputRegister | Table::HoldingRegister => 'I',
    }
}
