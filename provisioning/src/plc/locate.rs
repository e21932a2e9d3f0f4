//! From an address to a place in a Modbus table, by the rules of one model.

#[cfg(test)]
mod tests;

use super::address::{self, Address};
use super::{DataType, Family, IecType, Location, LocationError, Model, Table, refusal};

impl Model {
    /// Finds the place of a variable of type `data` declared (or described) `AT at`.
    ///
    /// # Errors
    /// When this model's Modbus server cannot serve the variable; the error says what to write
    /// instead.
    ///
    /// ```
    /// use provisioning::plc::{IecType, Model};
    ///
    /// let place = Model::M241.locate("%MD5", IecType::Real)?;
    /// assert_eq!((place.first, place.count), (10, 2));
    /// assert!(Model::M241.locate("%MD5", IecType::Bool).is_err());
    /// # Ok::<(), provisioning::plc::LocationError>(())
    /// ```
    pub fn locate(self, at: &str, data: impl Into<DataType>) -> Result<Location, LocationError> {
        place(self, at.trim(), data.into())
    }
}

fn place(model: Model, at: &str, data: DataType) -> Result<Location, LocationError> {
    match address::parse(at).ok_or_else(|| refusal::unreadable(model, at))? {
        Address::Number(number) => Err(refusal::bare_number(model, at, number)),
        Address::Table { table, index, bit } => {
            in_table(Variable { model, at, data }, table, index, bit)
        }
        Address::Iec { letters, index, bit } => {
            let variable = Variable { model, at, data };
            match model.family() {
                Family::MachineExpert => declared(variable, &letters, index, bit),
                Family::Basic => declared_in_basic(variable, &letters, index, bit),
                Family::Tables => Err(refusal::iec_on_generic(at, &letters, index, bit)),
            }
        }
    }
}

/// What is being located, for the sentences of a refusal.
#[derive(Clone, Copy)]
pub(super) struct Variable<'a> {
    pub(super) model: Model,
    pub(super) at: &'a str,
    pub(super) data: DataType,
}

fn declared(
    variable: Variable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let unit_bytes = match letters {
        "MX" => return memory_bit(variable, index, bit),
        "Q" | "QX" => return io_bit(variable, Table::Coil, index, bit),
        "I" | "IX" => return io_bit(variable, Table::DiscreteInput, index, bit),
        "MB" => 1,
        "MW" => 2,
        "MD" => 4,
        "ML" => 8,
        _ => return Err(refusal::letters(variable, letters, index, bit)),
    };
    in_unit(variable, u64::from(index) * unit_bytes, unit_bytes, bit)
}

/// %MD and %MF of an M221 begin at the %MW of the same number, not at twice that.
fn declared_in_basic(
    variable: Variable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let unit_bytes = match letters {
        "M" if bit.is_some() => return Err(refusal::bit_of_memory_bit(variable, index)),
        "M" => return bit_table(variable, Table::Coil, index.into()),
        "MW" => 2,
        "MD" | "MF" => 4,
        _ => return Err(refusal::basic_letters(variable, letters, index, bit)),
    };
    in_unit(variable, u64::from(index) * 2, unit_bytes, bit)
}

/// In a unit of so many bytes that begins at `byte`.
fn in_unit(
    variable: Variable<'_>,
    byte: u64,
    unit_bytes: u64,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    match bit {
        None if unit_bytes > 2 && variable.data.item == IecType::Bool => {
            Err(refusal::bool_in_wide_unit(variable, byte))
        }
        None => memory(variable, byte, None),
        Some(bit) if unit_bytes == 2 => word_bit(variable, byte, bit),
        Some(bit) => Err(refusal::bit_of_wrong_unit(variable, byte, bit)),
    }
}

fn in_table(
    variable: Variable<'_>,
    table: Table,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    match (table, bit) {
        (Table::InputRegister, _) if variable.model.windows(table).is_empty() => {
            Err(refusal::no_input_registers(variable, index))
        }
        (Table::Coil | Table::DiscreteInput, None) => bit_table(variable, table, u64::from(index)),
        (Table::Coil | Table::DiscreteInput, Some(_)) => Err(refusal::bit_of_bit(variable, table)),
        (Table::InputRegister | Table::HoldingRegister, bit) => {
            let byte = u64::from(index) * 2;
            let place = match bit {
                Some(bit) => word_bit(variable, byte, bit),
                None => memory(variable, byte, None),
            };
            place.map(|place| Location { table, ..place })
        }
    }
}

/// `%MX20.3`: bit 3 of byte 20.
fn memory_bit(
    variable: Variable<'_>,
    byte: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let bit = bit.ok_or_else(|| refusal::bit_missing(variable, byte))?;
    match u8::try_from(bit) {
        Ok(bit @ 0..=7) => memory(variable, u64::from(byte), Some(bit)),
        _ => Err(refusal::bit_beyond_byte(variable, byte, bit)),
    }
}

/// `%MW10.12`: bit 12 of a register whose low byte is `byte`.
fn word_bit(variable: Variable<'_>, byte: u64, bit: u32) -> Result<Location, LocationError> {
    match u8::try_from(bit) {
        Ok(bit @ 0..=15) => memory(variable, byte + u64::from(bit / 8), Some(bit % 8)),
        _ => Err(refusal::bit_beyond_word(variable)),
    }
}

/// A value that begins at a byte of the memory behind the holding registers; an array of BOOL that
/// begins at a bit takes one bit for each.
fn memory(variable: Variable<'_>, byte: u64, bit: Option<u8>) -> Result<Location, LocationError> {
    let DataType { item, .. } = variable.data;
    if bit.is_some() && item != IecType::Bool {
        return Err(refusal::value_at_bit(variable, byte));
    }
    if item.alignment() > 1 && byte % 2 == 1 {
        return Err(refusal::odd_byte(variable, byte));
    }
    let size = match bit {
        Some(bit) => (u32::from(bit) + u32::from(variable.data.elements())).div_ceil(8),
        None => variable.data.size(),
    };
    let table = Table::HoldingRegister;
    let (first, count) =
        within(variable, table, byte / 2, (byte % 2 + u64::from(size)).div_ceil(2))?;
    Ok(Location { table, first, count, byte: u8::from(byte % 2 == 1), bit })
}

/// `%QX0.3`, `%I1.2`.
fn io_bit(
    variable: Variable<'_>,
    table: Table,
    byte: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let bit = bit.ok_or_else(|| refusal::io_bit_missing(variable, table, byte))?;
    if bit > 7 {
        return Err(refusal::io_bit_beyond_byte(variable, table, byte, bit));
    }
    bit_table(variable, table, u64::from(byte) * 8 + u64::from(bit))
}

fn bit_table(variable: Variable<'_>, table: Table, index: u64) -> Result<Location, LocationError> {
    if variable.data.item != IecType::Bool {
        return Err(refusal::value_in_bit_table(variable, table));
    }
    let (first, count) = within(variable, table, index, variable.data.elements().into())?;
    Ok(Location { table, first, count, byte: 0, bit: None })
}

/// The first address and how many there are, when all of them lie inside one window of the model.
fn within(
    variable: Variable<'_>,
    table: Table,
    first: u64,
    count: u64,
) -> Result<(u16, u16), LocationError> {
    let windows = variable.model.windows(table);
    let start = u16::try_from(first).ok();
    let window = start.and_then(|start| windows.iter().find(|w| w.registers.contains(&start)));
    let (Some(start), Some(window)) = (start, window) else {
        return Err(refusal::beyond_the_map(variable, table, first));
    };
    match u16::try_from(count) {
        Ok(known) if first + count <= u64::from(*window.registers.end()) + 1 => Ok((start, known)),
        _ => Err(refusal::crosses_window(variable, table, first, count, window)),
    }
}
