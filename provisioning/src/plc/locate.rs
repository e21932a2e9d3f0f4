//! From an address to a place in a Modbus table, by the rules of one model.

use super::address::{self, Address};
use super::{IecType, Location, LocationError, Model, Table, refusal};

impl Model {
    /// Finds the place of a variable of type `iec` declared (or described) `AT at`.
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
    pub fn locate(self, at: &str, iec: IecType) -> Result<Location, LocationError> {
        let at = at.trim();
        match address::parse(at).ok_or_else(|| refusal::unreadable(self, at))? {
            Address::Number(number) => Err(refusal::bare_number(self, at, number)),
            Address::Table { table, index, bit } => in_table(self, at, iec, table, index, bit),
            Address::Iec { letters, index, bit } if self == Self::Generic => {
                Err(refusal::iec_on_generic(at, &letters, index, bit))
            }
            Address::Iec { letters, index, bit } => {
                declared(Variable { model: self, at, iec }, &letters, index, bit)
            }
        }
    }
}

/// What is being located, for the sentences of a refusal.
#[derive(Clone, Copy)]
pub(super) struct Variable<'a> {
    pub(super) model: Model,
    pub(super) at: &'a str,
    pub(super) iec: IecType,
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
    let byte = u64::from(index) * unit_bytes;
    match bit {
        None if unit_bytes > 2 && variable.iec == IecType::Bool => {
            Err(refusal::bool_in_wide_unit(variable, byte))
        }
        None => memory(variable, byte, None),
        Some(bit) if unit_bytes == 2 => word_bit(variable, byte, bit),
        Some(bit) => Err(refusal::bit_of_wrong_unit(variable, byte, bit)),
    }
}

fn in_table(
    model: Model,
    at: &str,
    iec: IecType,
    table: Table,
    index: u32,
    bit: Option<u32>,
) -> Result<Location, LocationError> {
    let variable = Variable { model, at, iec };
    match (table, bit) {
        (Table::InputRegister, _) if model.windows(table).is_empty() => {
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

/// A value that begins at a byte of the memory behind the holding registers.
fn memory(variable: Variable<'_>, byte: u64, bit: Option<u8>) -> Result<Location, LocationError> {
    let size = variable.iec.size();
    if bit.is_some() && variable.iec != IecType::Bool {
        return Err(refusal::value_at_bit(variable, byte));
    }
    if size > 1 && byte % 2 == 1 {
        return Err(refusal::odd_byte(variable, byte));
    }
    let table = Table::HoldingRegister;
    let count = u16::from(size.div_ceil(2));
    let first = within(variable, table, byte / 2, count)?;
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
    if variable.iec != IecType::Bool {
        return Err(refusal::value_in_bit_table(variable, table));
    }
    let first = within(variable, table, index, 1)?;
    Ok(Location { table, first, count: 1, byte: 0, bit: None })
}

/// The first address, when all of them lie inside one window of the model.
fn within(
    variable: Variable<'_>,
    table: Table,
    first: u64,
    count: u16,
) -> Result<u16, LocationError> {
    let windows = variable.model.windows(table);
    let start = u16::try_from(first).ok();
    let window = start.and_then(|start| windows.iter().find(|w| w.registers.contains(&start)));
    let (Some(start), Some(window)) = (start, window) else {
        return Err(refusal::beyond_the_map(variable, table, first));
    };
    match start.checked_add(count - 1) {
        Some(last) if last <= *window.registers.end() => Ok(start),
        _ => Err(refusal::crosses_window(variable, table, first, count, window)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(model: Model, at: &str, iec: IecType) -> (Table, u16, u16, u8, Option<u8>) {
        let Location { table, first, count, byte, bit } = model.locate(at, iec).unwrap();
        (table, first, count, byte, bit)
    }

    #[test]
    fn a_modicon_counts_memory_in_bytes_whatever_the_prefix() {
        use Table::HoldingRegister as Holding;
        let at = |at, iec| place(Model::M241, at, iec);
        assert_eq!(at("%MW10", IecType::Int), (Holding, 10, 1, 0, None));
        assert_eq!(at("%mw10", IecType::Real), (Holding, 10, 2, 0, None));
        assert_eq!(at("%MD5", IecType::Real), (Holding, 10, 2, 0, None));
        assert_eq!(at("%ML3", IecType::Lreal), (Holding, 12, 4, 0, None));
        assert_eq!(at("%MD5", IecType::Int), (Holding, 10, 1, 0, None));
        assert_eq!(at("%MB20", IecType::Real), (Holding, 10, 2, 0, None));
        assert_eq!(at("%MB21", IecType::Usint), (Holding, 10, 1, 1, None));
        assert_eq!(at("%MB21", IecType::Bool), (Holding, 10, 1, 1, None));
        assert_eq!(at("%MW10", IecType::Bool), (Holding, 10, 1, 0, None));
        assert_eq!(at("%MX20.3", IecType::Bool), (Holding, 10, 1, 0, Some(3)));
        assert_eq!(at("%MX21.3", IecType::Bool), (Holding, 10, 1, 1, Some(3)));
        assert_eq!(at("%MW10.12", IecType::Bool), (Holding, 10, 1, 1, Some(4)));
        assert_eq!(at("holding:10.12", IecType::Bool), (Holding, 10, 1, 1, Some(4)));
        assert_eq!(at("holding:10", IecType::Time), (Holding, 10, 2, 0, None));
    }

    #[test]
    fn outputs_are_coils_and_inputs_are_discrete_inputs() {
        let at = |at| place(Model::M251, at, IecType::Bool);
        assert_eq!(at("%QX1.2"), (Table::Coil, 10, 1, 0, None));
        assert_eq!(at("%Q1.2"), (Table::Coil, 10, 1, 0, None));
        assert_eq!(at("coil:10"), (Table::Coil, 10, 1, 0, None));
        assert_eq!(at("%IX0.7"), (Table::DiscreteInput, 7, 1, 0, None));
        assert_eq!(at("%I0.7"), (Table::DiscreteInput, 7, 1, 0, None));
        assert_eq!(at("discrete:7"), (Table::DiscreteInput, 7, 1, 0, None));
        assert_eq!(at("%QX8191.7"), (Table::Coil, 65_535, 1, 0, None));
    }

    #[test]
    fn a_generic_device_has_four_tables() {
        let at = |at, iec| place(Model::Generic, at, iec);
        assert_eq!(at("input:4", IecType::Udint), (Table::InputRegister, 4, 2, 0, None));
        assert_eq!(at("input:4.9", IecType::Bool), (Table::InputRegister, 4, 1, 1, Some(1)));
        assert_eq!(at("holding:65535", IecType::Int), (Table::HoldingRegister, 65_535, 1, 0, None));
        assert_eq!(at("coil:3", IecType::Bool), (Table::Coil, 3, 1, 0, None));
    }

    #[test]
    fn every_window_of_the_memory_map_can_be_read_up_to_its_last_word() {
        for last in [59_999, 60_199, 61_999, 62_199, 63_999] {
            assert!(Model::M241.locate(&format!("%MW{last}"), IecType::Int).is_ok());
            assert!(Model::M241.locate(&format!("%MW{last}"), IecType::Real).is_err());
        }
        assert!(Model::M241.locate("%MW64000", IecType::Int).is_err());
    }

    fn any_type() -> impl Strategy<Value = IecType> {
        prop::sample::select(IecType::ALL.to_vec())
    }

    fn any_model() -> impl Strategy<Value = Model> {
        prop::sample::select(Model::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_answered(text in ".*", model in any_model(), iec in any_type()) {
            let _ = model.locate(&text, iec);
        }

        #[test]
        fn an_accepted_address_lies_inside_one_window(
            text in "(%[MIQ][XBWDL]?|holding:|input:|coil:|discrete:)[0-9]{1,6}(\\.[0-9]{1,2})?",
            model in any_model(),
            iec in any_type(),
        ) {
            if let Ok(place) = model.locate(&text, iec) {
                let last = place.first + (place.count - 1);
                let inside = |window: &&super::super::Window| {
                    window.registers.contains(&place.first) && window.registers.contains(&last)
                };
                prop_assert!(model.windows(place.table).iter().any(|w| inside(&w)));
                prop_assert!(place.byte <= 1 && place.bit.is_none_or(|bit| bit <= 7));
                prop_assert!(place.bit.is_none() || iec == IecType::Bool);
                let bytes = u16::from(place.byte) + u16::from(iec.size());
                prop_assert!(place.table.holds_bits() || bytes <= place.count * 2);
            }
        }

        #[test]
        fn a_refusal_that_names_an_address_names_one_that_works(
            text in "(%[MIQ][XBWDL]?|holding:|coil:|discrete:)[0-9]{1,5}(\\.[0-9]{1,2})?",
            model in any_model(),
            iec in any_type(),
        ) {
            if let Err(LocationError { help: Some(help), .. }) = model.locate(&text, iec)
                && let Some((_, quoted)) = help.split_once("write `")
                && let Some((instead, _)) = quoted.split_once('`')
            {
                let works = model.locate(instead, iec).is_ok()
                    || model.locate(instead, IecType::Bool).is_ok();
                prop_assert!(works, "{text} {iec}: {help}");
            }
        }
    }
}
