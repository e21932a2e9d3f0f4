//! Refusals of a value where there is no room for its type.

use super::{byte_count, location_error, or_address_forms, suggest_if_valid, word_address};
use crate::plc::locate::PlcVariable;
use crate::plc::{LocationError, PlcFamily, Table};

/// `REAL` at `%MX20.0`.
pub(in crate::plc) fn value_at_bit(variable: PlcVariable<'_>, byte: u64) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    let help = match model.family() {
        PlcFamily::ModbusTables => {
            at.split_once('.').and_then(|(word, _)| suggest_if_valid(model, word, data))
        }
        PlcFamily::MachineExpert if data.element.size() == 1 => {
            suggest_if_valid(model, &format!("%MB{byte}"), data)
        }
        PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic => {
            suggest_if_valid(model, &word_address(model, byte / 2), data)
        }
    };
    location_error(
        format!("{at} is one bit, and the type {data} takes {}", byte_count(data)),
        help.map_or_else(
            || "a single bit has the type BOOL".to_owned(),
            |help| format!("{help} for the {data}, or set type to BOOL for the bit"),
        ),
    )
}

/// `REAL` at `%MB21`.
pub(in crate::plc) fn odd_byte(variable: PlcVariable<'_>, byte: u64) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    let next = format!("%MB{}", byte + 1);
    let help = suggest_if_valid(model, &next, data).map(|help| {
        format!("declare the variable AT {next} (that is %MW{}) and {help}", byte.div_ceil(2))
    });
    location_error(
        format!("{at}: the type {data} takes {} and must begin at an even byte", byte_count(data)),
        or_address_forms(variable, help),
    )
}

/// `REAL` at `%QX0.0` or `coil:3`.
pub(in crate::plc) fn value_in_bit_table(variable: PlcVariable<'_>, table: Table) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    let memory = word_address(model, 10);
    let bit = match (model.family(), table) {
        (PlcFamily::ModbusTables, _) => "a bit",
        (PlcFamily::MachineExpertBasic, _) => "a memory bit",
        (PlcFamily::MachineExpert, Table::Coil) => "an output bit",
        (PlcFamily::MachineExpert, _) => "an input bit",
    };
    location_error(
        format!("{at} is {bit}, and the type {data} takes {}", byte_count(data)),
        format!("set type to BOOL, or give an address like {memory} for the {data}"),
    )
}
