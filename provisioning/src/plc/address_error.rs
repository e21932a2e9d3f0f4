//! Why an address cannot be served, in the words of the PLC's own tool, and what to write instead.

mod bits;
mod letters;
mod map;
mod values;

use super::address;
use super::locate::PlcVariable;
use super::{DataType, IecType, LocationError, PlcFamily, PlcModel};

pub(super) use bits::{
    bit_beyond_byte, bit_beyond_word, bit_missing, bit_number_not_allowed, bit_of_bit,
    bit_of_memory_bit, bool_in_wide_unit, io_bit_beyond_byte, io_bit_missing,
};
pub(super) use letters::{iec_on_generic, unsupported_m221_prefix, unsupported_prefix};
pub(super) use map::{crosses_area, no_input_registers, outside_memory_map};
pub(super) use values::{odd_byte, value_at_bit, value_in_bit_table};

const MODICON_FORMS: &str = "the forms are %MW10, %MD5, %ML3, %MB20, a bit as %MX20.3 or %MW10.3, \
                             an output as %QX0.3, an input as %IX0.3";
const BASIC_FORMS: &str =
    "the forms are %MW10, %MD10, %MF10, a bit as %M163, a bit of a word as %MW10:X3";
const GENERIC_FORMS: &str =
    "the forms are holding:10, holding:10.3 for a bit, input:10, coil:3, discrete:3";

/// The text follows no form of an address at all.
pub(super) fn not_an_address(model: PlcModel, at: &str) -> LocationError {
    let tidy = at.replace([' ', ','], "");
    let candidates = [format!("%{at}"), format!("%{tidy}"), tidy];
    let help = candidates
        .iter()
        .filter(|candidate| address::parse_address(candidate).is_some())
        .find_map(|candidate| suggest_word_or_bit(model, candidate));
    location_error(
        format!("`{at}` is not an address"),
        help.unwrap_or_else(|| address_forms(model).to_owned()),
    )
}

/// A number alone, often in the 40001 notation of other products.
pub(super) fn bare_number(model: PlcModel, at: &str, number: u32) -> LocationError {
    let decade = match number {
        1..=9_999 => Some((0, number - 1)),
        10_001..=49_999 => Some((number / 10_000, number % 10_000 - 1)),
        100_001..=465_536 => Some((number / 100_000, (number % 100_000).wrapping_sub(1))),
        _ => None,
    };
    let short = number < 10_000 && at.len() < 5;
    let named = decade
        .filter(|_| !short)
        .and_then(|(table, index)| from_reference_number(model, table, index));
    match named {
        Some(named) => location_error(
            format!("`{at}` counts registers from 1 as some other products do"),
            format!("in that notation {at} is the same as {named}: write `{named}`"),
        ),
        None => location_error(format!("`{at}` does not say which memory it counts"), {
            suggest_if_valid(model, &word_address(model, number.into()), IecType::Word)
                .unwrap_or_else(|| address_forms(model).to_owned())
        }),
    }
}

fn location_error(message: impl Into<String>, help: impl Into<String>) -> LocationError {
    LocationError { message: message.into(), help: Some(help.into()) }
}

/// "write `X`", when X is an address that works.
fn suggest_if_valid(model: PlcModel, at: &str, data: impl Into<DataType>) -> Option<String> {
    model.locate(at, data).ok().map(|_| format!("write `{at}`"))
}

/// The same for an address whose type is not known.
fn suggest_word_or_bit(model: PlcModel, at: &str) -> Option<String> {
    suggest_if_valid(model, at, IecType::Word)
        .or_else(|| suggest_if_valid(model, at, IecType::Bool))
}

fn or_address_forms(variable: PlcVariable<'_>, help: Option<String>) -> String {
    help.unwrap_or_else(|| address_forms(variable.model).to_owned())
}

const fn address_forms(model: PlcModel) -> &'static str {
    match model.family() {
        PlcFamily::MachineExpert => MODICON_FORMS,
        PlcFamily::MachineExpertBasic => BASIC_FORMS,
        PlcFamily::ModbusTables => GENERIC_FORMS,
    }
}

/// A holding register as the model calls it: `%MW10`.
fn word_address(model: PlcModel, register: u64) -> String {
    match model.family() {
        PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic => format!("%MW{register}"),
        PlcFamily::ModbusTables => format!("holding:{register}"),
    }
}

/// A bit of a holding register as the model calls it: `%MX20.3`.
fn bit_address(model: PlcModel, register: u64, bit: u32) -> String {
    match model.family() {
        PlcFamily::MachineExpert => {
            format!("%MX{}.{}", register * 2 + u64::from(bit / 8), bit % 8)
        }
        PlcFamily::MachineExpertBasic => format!("%MW{register}:X{bit}"),
        PlcFamily::ModbusTables => format!("holding:{register}.{bit}"),
    }
}

/// The address for a table digit of the 40001 notation and a zero-based index.
fn from_reference_number(model: PlcModel, table: u32, index: u32) -> Option<String> {
    let named = match (model.family(), table) {
        (PlcFamily::ModbusTables, 0) => format!("coil:{index}"),
        (PlcFamily::ModbusTables, 1) => format!("discrete:{index}"),
        (PlcFamily::ModbusTables, 3) => format!("input:{index}"),
        (PlcFamily::ModbusTables, 4) => format!("holding:{index}"),
        (PlcFamily::MachineExpert, 0) => format!("%QX{}.{}", index / 8, index % 8),
        (PlcFamily::MachineExpert, 1) => format!("%IX{}.{}", index / 8, index % 8),
        (PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic, 4) => format!("%MW{index}"),
        (PlcFamily::MachineExpertBasic, 0 | 1) => format!("%M{index}"),
        _ => return None,
    };
    suggest_word_or_bit(model, &named).map(|_| named)
}

fn byte_count(data: DataType) -> String {
    match data.size() {
        1 => "1 byte".to_owned(),
        size => format!("{size} bytes"),
    }
}
