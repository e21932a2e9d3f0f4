//! Converts an address to a location in a Modbus table, by the rules of a model.

#[cfg(test)]
mod tests;

use super::address::{self, ParsedAddress};
use super::address_error::PlcVariable;
use super::{
    DataType, IecType, Location, LocationError, PlcFamily, PlcModel, Table, address_error,
};

impl PlcModel {
    /// Returns the location of a variable of type `data` at the address `at`.
    ///
    /// # Errors
    /// When the Modbus server of this model does not give access to the variable. The error says
    /// what to write instead.
    ///
    /// ```
    /// use provisioning::plc::{IecType, PlcModel};
    ///
    /// let place = PlcModel::M241.locate("%MD5", IecType::Real)?;
    /// assert_eq!((place.first, place.count), (10, 2));
    /// assert!(PlcModel::M241.locate("%MD5", IecType::Bool).is_err());
    /// # Ok::<(), provisioning::plc::LocationError>(())
    /// ```
    pub fn locate(self, at: &str, data: impl Into<DataType>) -> Result<Location, LocationError> {
        locate_address(self, at.trim(), data.into())
    }
}

fn locate_address(model: PlcModel, at: &str, data: DataType) -> Result<Location, LocationError> {
    match address::parse_address(at).ok_or_else(|| address_error::not_an_address(model, at))? {
        ParsedAddress::Number(number) => Err(address_error::bare_number(model, at, number)),
        ParsedAddress::Table { table, index, bit } => {
            locate_in_table(PlcVariable { model, at, data }, table, index, bit)
        }
        ParsedAddress::Iec { letters, index, bit } => {
            let variable = PlcVariable { model, at, data };
            match model.family() {
                PlcFamily::MachineExpert => locate_machine_expert(variable, &letters, index, bit),
                PlcFamily::MachineExpertBasic => locate_m221(variable, &letters, index, bit),
                PlcFamily::ModbusTables => {
                    Err(address_error::iec_on_generic(at, &letters, index, bit))
                }
            }
        }
    }
}

fn locate_machine_expert(
    variable: PlcVariable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let unit_bytes = match letters {
        "MX" => return locate_memory_bit(variable, index, bit),
        "Q" | "QX" => return locate_io_bit(variable, Table::Coil, index, bit),
        "I" | "IX" => return locate_io_bit(variable, Table::DiscreteInput, index, bit),
        "MB" => 1,
        "MW" => 2,
        "MD" => 4,
        "ML" => 8,
        _ => return Err(address_error::unsupported_prefix(variable, letters, index, bit)),
    };
    locate_in_unit(variable, u64::from(index) * unit_bytes, unit_bytes, bit)
}

/// Locates an address of an M221, where %MD10 and %MF10 begin at %MW10, not at %MW20.
fn locate_m221(
    variable: PlcVariable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let unit_bytes = match letters {
        "M" if bit.is_some() => return Err(address_error::bit_of_memory_bit(variable, index)),
        "M" => return locate_in_bit_table(variable, Table::Coil, index.into()),
        "MW" => 2,
        "MD" | "MF" => 4,
        _ => return Err(address_error::unsupported_m221_prefix(variable, letters, index, bit)),
    };
    locate_in_unit(variable, u64::from(index) * 2, unit_bytes, bit)
}

/// Locates a variable in a memory unit of `unit_bytes` bytes that begins at `byte`.
fn locate_in_unit(
    variable: PlcVariable<'_>,
    byte: u64,
    unit_bytes: u64,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    match bit {
        None if unit_bytes > 2 && variable.data.element == IecType::Bool => {
            Err(address_error::bool_in_wide_unit(variable, byte))
        }
        None => locate_memory(variable, byte, None),
        Some(bit) if unit_bytes == 2 => locate_word_bit(variable, byte, bit),
        Some(bit) => Err(address_error::bit_number_not_allowed(variable, byte, bit)),
    }
}

fn locate_in_table(
    variable: PlcVariable<'_>,
    table: Table,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    match (table, bit) {
        (Table::InputRegister, _) if variable.model.memory_areas(table).is_empty() => {
            Err(address_error::no_input_registers(variable, index))
        }
        (Table::Coil | Table::DiscreteInput, None) => {
            locate_in_bit_table(variable, table, u64::from(index))
        }
        (Table::Coil | Table::DiscreteInput, Some(_)) => {
            Err(address_error::bit_of_bit(variable, table))
        }
        (Table::InputRegister | Table::HoldingRegister, bit) => {
            let byte = u64::from(index) * 2;
            let place = match bit {
                Some(bit) => locate_word_bit(variable, byte, bit),
                None => locate_memory(variable, byte, None),
            };
            place.map(|place| Location { table, ..place })
        }
    }
}

/// Locates `%MX20.3`: bit 3 of byte 20.
fn locate_memory_bit(
    variable: PlcVariable<'_>,
    byte: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let bit = bit.ok_or_else(|| address_error::bit_missing(variable, byte))?;
    match u8::try_from(bit) {
        Ok(bit @ 0..=7) => locate_memory(variable, u64::from(byte), Some(bit)),
        _ => Err(address_error::bit_beyond_byte(variable, byte, bit)),
    }
}

/// Locates `%MW10.12`: bit 12 of the register whose low byte is `byte`.
fn locate_word_bit(
    variable: PlcVariable<'_>,
    byte: u64,
    bit: u32,
) -> Result<Location, LocationError> {
    match u8::try_from(bit) {
        Ok(bit @ 0..=15) => locate_memory(variable, byte + u64::from(bit / 8), Some(bit % 8)),
        _ => Err(address_error::bit_beyond_word(variable)),
    }
}

/// Locates a value that begins at a byte of the memory that the holding registers show. An array
/// of BOOL that begins at a bit has one bit per element, otherwise one byte.
fn locate_memory(
    variable: PlcVariable<'_>,
    byte: u64,
    bit: Option<u8>,
) -> Result<Location, LocationError> {
    let DataType { element: item, .. } = variable.data;
    if bit.is_some() && item != IecType::Bool {
        return Err(address_error::value_at_bit(variable, byte));
    }
    if item.alignment() > 1 && byte % 2 == 1 {
        return Err(address_error::odd_byte(variable, byte));
    }
    let size = match bit {
        Some(bit) => (u32::from(bit) + u32::from(variable.data.elements())).div_ceil(8),
        None => variable.data.size(),
    };
    let table = Table::HoldingRegister;
    let (first, count) =
        check_area(variable, table, byte / 2, (byte % 2 + u64::from(size)).div_ceil(2))?;
    Ok(Location { table, first, count, byte: u8::from(byte % 2 == 1), bit })
}

/// Locates `%QX0.3`, `%I1.2`.
fn locate_io_bit(
    variable: PlcVariable<'_>,
    table: Table,
    byte: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let bit = bit.ok_or_else(|| address_error::io_bit_missing(variable, table, byte))?;
    if bit > 7 {
        return Err(address_error::io_bit_beyond_byte(variable, table, byte, bit));
    }
    locate_in_bit_table(variable, table, u64::from(byte) * 8 + u64::from(bit))
}

fn locate_in_bit_table(
    variable: PlcVariable<'_>,
    table: Table,
    index: u64,
) -> Result<Location, LocationError> {
    if variable.data.element != IecType::Bool {
        return Err(address_error::value_in_bit_table(variable, table));
    }
    let (first, count) = check_area(variable, table, index, variable.data.elements().into())?;
    Ok(Location { table, first, count, byte: 0, bit: None })
}

/// Checks that all addresses are in one memory area of the model; returns the first and the count.
fn check_area(
    variable: PlcVariable<'_>,
    table: Table,
    first: u64,
    count: u64,
) -> Result<(u16, u16), LocationError> {
    let windows = variable.model.memory_areas(table);
    // Indices are u32 and units up to 8 bytes, so the first address needs 64 bits.
    let start = u16::try_from(first).ok();
    let window = start.and_then(|start| windows.iter().find(|w| w.registers.contains(&start)));
    let (Some(start), Some(window)) = (start, window) else {
        return Err(address_error::outside_memory_map(variable, table, first));
    };
    match u16::try_from(count) {
        Ok(known) if first + count <= u64::from(*window.registers.end()) + 1 => Ok((start, known)),
        _ => Err(address_error::crosses_area(variable, table, first, count, window)),
    }
}
