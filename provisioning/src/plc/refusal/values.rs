//! Refusals of a value where there is no room for its type.

use super::{bytes, instead, or_forms, refuse, word};
use crate::plc::locate::Variable;
use crate::plc::{Family, LocationError, Table};

/// `REAL` at `%MX20.0`.
pub(in crate::plc) fn value_at_bit(variable: Variable<'_>, byte: u64) -> LocationError {
    let Variable { model, at, data } = variable;
    let help = match model.family() {
        Family::Tables => at.split_once('.').and_then(|(word, _)| instead(model, word, data)),
        Family::MachineExpert if data.item.size() == 1 => {
            instead(model, &format!("%MB{byte}"), data)
        }
        Family::MachineExpert | Family::Basic => instead(model, &word(model, byte / 2), data),
    };
    refuse(
        format!("{at} is one bit, and the type {data} takes {}", bytes(data)),
        help.map_or_else(
            || "a single bit has the type BOOL".to_owned(),
            |help| format!("{help} for the {data}, or set type to BOOL for the bit"),
        ),
    )
}

/// `REAL` at `%MB21`.
pub(in crate::plc) fn odd_byte(variable: Variable<'_>, byte: u64) -> LocationError {
    let Variable { model, at, data } = variable;
    let next = format!("%MB{}", byte + 1);
    let help = instead(model, &next, data).map(|help| {
        format!("declare the variable AT {next} (that is %MW{}) and {help}", byte.div_ceil(2))
    });
    refuse(
        format!("{at}: the type {data} takes {} and must begin at an even byte", bytes(data)),
        or_forms(variable, help),
    )
}

/// `REAL` at `%QX0.0` or `coil:3`.
pub(in crate::plc) fn value_in_bit_table(variable: Variable<'_>, table: Table) -> LocationError {
    let Variable { model, at, data } = variable;
    let memory = word(model, 10);
    let bit = match (model.family(), table) {
        (Family::Tables, _) => "a bit",
        (Family::Basic, _) => "a memory bit",
        (Family::MachineExpert, Table::Coil) => "an output bit",
        (Family::MachineExpert, _) => "an input bit",
    };
    refuse(
        format!("{at} is {bit}, and the type {data} takes {}", bytes(data)),
        format!("set type to BOOL, or give an address like {memory} for the {data}"),
    )
}
