//! Refusals of an address that lies outside the memory map.

use super::{address_forms, location_error, or_address_forms, suggest_if_valid, word_address};
use crate::plc::locate::PlcVariable;
use crate::plc::{LocationError, MemoryArea, PlcFamily, Table};

/// Function code 4 on a Modicon.
pub(in crate::plc) fn no_input_registers(variable: PlcVariable<'_>, index: u32) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    location_error(
        format!("{at}: an {model} has no input registers (Modbus function code 4)"),
        or_address_forms(
            variable,
            suggest_if_valid(model, &format!("%MW{index}"), data)
                .map(|help| format!("{help} for memory word {index}")),
        ),
    )
}

/// The first register or bit is in no window.
pub(in crate::plc) fn outside_memory_map(
    variable: PlcVariable<'_>,
    table: Table,
    first: u64,
) -> LocationError {
    let PlcVariable { model, at, .. } = variable;
    match (model.family(), table) {
        (PlcFamily::MachineExpert, Table::HoldingRegister) if first <= u64::from(u16::MAX) => {
            location_error(
                format!("{at}: the words from %MW64000 on are reserved on an {model}"),
                "the user area is %MW0 to %MW59999",
            )
        }
        (PlcFamily::MachineExpert, Table::HoldingRegister) => location_error(
            format!("{at}: an {model} has no memory word {first}"),
            "the user area is %MW0 to %MW59999 (%MD0 to %MD29999, %ML0 to %ML14999, %MB0 to \
             %MB119999)",
        ),
        _ => location_error(
            format!("{at}: Modbus counts to 65535, this would be number {first}"),
            address_forms(model),
        ),
    }
}

/// The value begins inside a window and ends outside it.
pub(in crate::plc) fn crosses_area(
    variable: PlcVariable<'_>,
    table: Table,
    first: u64,
    count: u64,
    window: &MemoryArea,
) -> LocationError {
    let PlcVariable { model, at, data } = variable;
    let end = u64::from(*window.registers.end()) + 1;
    let last_start = end.saturating_sub(count);
    let latest = match table {
        Table::HoldingRegister => word_address(model, last_start),
        Table::Coil | Table::DiscreteInput | Table::InputRegister => {
            format!("{}:{last_start}", table.keyword())
        }
    };
    location_error(
        format!(
            "{at}: the type {data} takes {count} {}, and only {} of them belong to {}",
            if table.holds_bits() { "bits" } else { "registers" },
            end.saturating_sub(first),
            window.name
        ),
        match end.checked_sub(count) {
            Some(last) if last >= u64::from(*window.registers.start()) => {
                format!("the last address for this type there is {latest}")
            }
            _ => "declare it shorter, or as several tags".to_owned(),
        },
    )
}
