//! Refusals of a bit number that is missing, too much, or out of place.

use super::{instead, or_forms, refuse, word_bit};
use crate::plc::locate::Variable;
use crate::plc::{Family, IecType, LocationError, Table};

/// `BOOL` at `%MD` or `%ML`.
pub(in crate::plc) fn bool_in_wide_unit(variable: Variable<'_>, byte: u64) -> LocationError {
    let help = instead(variable.model, &word_bit(variable.model, byte / 2, 0), IecType::Bool);
    let help = help.map(|help| match variable.model.family() {
        Family::MachineExpert => {
            format!("{help} for its lowest bit, or %MB{byte} for its lowest byte")
        }
        Family::Basic | Family::Tables => format!("{help} for its lowest bit"),
    });
    refuse(
        format!("{}: a BOOL is one bit or one byte, this address is wider", variable.at),
        or_forms(variable, help),
    )
}

/// `%MB20.3`, `%MD5.3`: only %MX and %MW take a bit number.
pub(in crate::plc) fn bit_of_wrong_unit(
    variable: Variable<'_>,
    byte: u64,
    bit: u32,
) -> LocationError {
    let bit = u64::from(bit) + byte * 8;
    let named = word_bit(variable.model, bit / 16, u32::try_from(bit % 16).unwrap_or_default());
    let takers = match variable.model.family() {
        Family::MachineExpert => "%MX and %MW take",
        Family::Basic | Family::Tables => "%MW takes",
    };
    refuse(
        format!("{}: only {takers} a bit number", variable.at),
        or_forms(variable, instead(variable.model, &named, IecType::Bool)),
    )
}

/// `coil:3.1`.
pub(in crate::plc) fn bit_of_bit(variable: Variable<'_>, table: Table) -> LocationError {
    let word = table.word();
    refuse(
        format!("{}: a {word} is one bit already", variable.at),
        format!("give the number of the {word} alone: {word}:3"),
    )
}

/// `%MX20`.
pub(in crate::plc) fn bit_missing(variable: Variable<'_>, byte: u32) -> LocationError {
    let Variable { model, at, data } = variable;
    let help = if data.item == IecType::Bool {
        instead(model, &format!("%MX{byte}.0"), data).map(|help| {
            format!("{help} for the lowest bit of byte {byte}, %MX{byte}.7 for the highest")
        })
    } else {
        instead(model, &format!("%MB{byte}"), data)
            .map(|help| format!("{help} for the {data} that begins at byte {byte}"))
    };
    refuse(format!("{at}: %MX needs a bit number"), or_forms(variable, help))
}

/// `%MX10.12`.
pub(in crate::plc) fn bit_beyond_byte(
    variable: Variable<'_>,
    byte: u32,
    bit: u32,
) -> LocationError {
    let help = instead(variable.model, &format!("%MW{byte}.{bit}"), IecType::Bool)
        .map(|help| format!("{help} if bit {bit} of the word %MW{byte} is meant"));
    refuse(
        format!("{}: %MX counts bytes, and a byte has the bits 0 to 7", variable.at),
        or_forms(variable, help),
    )
}

/// `%MW10.16`.
pub(in crate::plc) fn bit_beyond_word(variable: Variable<'_>) -> LocationError {
    let help = match variable.model.family() {
        Family::MachineExpert => {
            "bit 16 of a double word is bit 0 of its second word: bit 16 of %MD5 is %MW11.0"
        }
        Family::Basic => {
            "bit 16 of a double word is bit 0 of its second word: bit 16 of %MD10 is %MW11:X0"
        }
        Family::Tables => {
            "bit 16 of two registers is bit 0 of the second one (of the first when the high word \
             comes first)"
        }
    };
    refuse(format!("{}: a word has the bits 0 to 15", variable.at), help)
}

/// `%M20.3` on an M221.
pub(in crate::plc) fn bit_of_memory_bit(variable: Variable<'_>, index: u32) -> LocationError {
    let named = format!("%M{index}");
    let help = instead(variable.model, &named, IecType::Bool);
    refuse(format!("{}: {named} is one bit already", variable.at), or_forms(variable, help))
}

/// `%QX0`, `%Q5`.
pub(in crate::plc) fn io_bit_missing(
    variable: Variable<'_>,
    table: Table,
    byte: u32,
) -> LocationError {
    let letter = io_letter(table);
    let named = format!("%{letter}X{byte}.0");
    let help = instead(variable.model, &named, IecType::Bool).map(|help| {
        format!("{help} for the first bit of byte {byte}, as the I/O mapping shows it")
    });
    refuse(format!("{}: %{letter} needs a bit number", variable.at), or_forms(variable, help))
}

/// `%QX0.8`.
pub(in crate::plc) fn io_bit_beyond_byte(
    variable: Variable<'_>,
    table: Table,
    byte: u32,
    bit: u32,
) -> LocationError {
    let byte = u64::from(byte) + u64::from(bit / 8);
    let named = format!("%{}X{byte}.{}", io_letter(table), bit % 8);
    refuse(
        format!("{}: a byte has the bits 0 to 7", variable.at),
        or_forms(variable, instead(variable.model, &named, IecType::Bool)),
    )
}

const fn io_letter(table: Table) -> char {
    match table {
        Table::Coil => 'Q',
        Table::DiscreteInput | Table::InputRegister | Table::HoldingRegister => 'I',
    }
}
