//! Why an address cannot be served, in the words of the PLC's own tool, and what to write instead.

mod bits;
mod letters;
mod map;
mod values;

use super::address;
use super::locate::Variable;
use super::{DataType, Family, IecType, LocationError, Model};

pub(super) use bits::{
    bit_beyond_byte, bit_beyond_word, bit_missing, bit_of_bit, bit_of_memory_bit,
    bit_of_wrong_unit, bool_in_wide_unit, io_bit_beyond_byte, io_bit_missing,
};
pub(super) use letters::{basic_letters, iec_on_generic, letters};
pub(super) use map::{beyond_the_map, crosses_window, no_input_registers};
pub(super) use values::{odd_byte, value_at_bit, value_in_bit_table};

const MODICON_FORMS: &str = "the forms are %MW10, %MD5, %ML3, %MB20, a bit as %MX20.3 or %MW10.3, \
                             an output as %QX0.3, an input as %IX0.3";
const BASIC_FORMS: &str =
    "the forms are %MW10, %MD10, %MF10, a bit as %M163, a bit of a word as %MW10:X3";
const GENERIC_FORMS: &str =
    "the forms are holding:10, holding:10.3 for a bit, input:10, coil:3, discrete:3";

/// The text follows no form of an address at all.
pub(super) fn unreadable(model: Model, at: &str) -> LocationError {
    let tidy = at.replace([' ', ','], "");
    let candidates = [format!("%{at}"), format!("%{tidy}"), tidy];
    let help = candidates
        .iter()
        .filter(|candidate| address::parse(candidate).is_some())
        .find_map(|candidate| word_or_bit(model, candidate));
    refuse(format!("`{at}` is not an address"), help.unwrap_or_else(|| forms(model).to_owned()))
}

/// A number alone, often in the 40001 notation of other products.
pub(super) fn bare_number(model: Model, at: &str, number: u32) -> LocationError {
    let decade = match number {
        1..=9_999 => Some((0, number - 1)),
        10_001..=49_999 => Some((number / 10_000, number % 10_000 - 1)),
        100_001..=465_536 => Some((number / 100_000, (number % 100_000).wrapping_sub(1))),
        _ => None,
    };
    let short = number < 10_000 && at.len() < 5;
    let named = decade.filter(|_| !short).and_then(|(table, index)| named(model, table, index));
    match named {
        Some(named) => refuse(
            format!("`{at}` counts registers from 1 as some other products do"),
            format!("in that notation {at} is the same as {named}: write `{named}`"),
        ),
        None => refuse(format!("`{at}` does not say which memory it counts"), {
            instead(model, &word(model, number.into()), IecType::Word)
                .unwrap_or_else(|| forms(model).to_owned())
        }),
    }
}

fn refuse(message: impl Into<String>, help: impl Into<String>) -> LocationError {
    LocationError { message: message.into(), help: Some(help.into()) }
}

/// "write `X`", when X is an address that works.
fn instead(model: Model, at: &str, data: impl Into<DataType>) -> Option<String> {
    model.locate(at, data).ok().map(|_| format!("write `{at}`"))
}

/// The same for an address whose type is not known.
fn word_or_bit(model: Model, at: &str) -> Option<String> {
    instead(model, at, IecType::Word).or_else(|| instead(model, at, IecType::Bool))
}

fn or_forms(variable: Variable<'_>, help: Option<String>) -> String {
    help.unwrap_or_else(|| forms(variable.model).to_owned())
}

const fn forms(model: Model) -> &'static str {
    match model.family() {
        Family::MachineExpert => MODICON_FORMS,
        Family::Basic => BASIC_FORMS,
        Family::Tables => GENERIC_FORMS,
    }
}

/// A holding register as the model calls it: `%MW10`.
fn word(model: Model, register: u64) -> String {
    match model.family() {
        Family::MachineExpert | Family::Basic => format!("%MW{register}"),
        Family::Tables => format!("holding:{register}"),
    }
}

/// A bit of a holding register as the model calls it: `%MX20.3`.
fn word_bit(model: Model, register: u64, bit: u32) -> String {
    match model.family() {
        Family::MachineExpert => {
            format!("%MX{}.{}", register * 2 + u64::from(bit / 8), bit % 8)
        }
        Family::Basic => format!("%MW{register}:X{bit}"),
        Family::Tables => format!("holding:{register}.{bit}"),
    }
}

/// The address for a table digit of the 40001 notation and a zero-based index.
fn named(model: Model, table: u32, index: u32) -> Option<String> {
    let named = match (model.family(), table) {
        (Family::Tables, 0) => format!("coil:{index}"),
        (Family::Tables, 1) => format!("discrete:{index}"),
        (Family::Tables, 3) => format!("input:{index}"),
        (Family::Tables, 4) => format!("holding:{index}"),
        (Family::MachineExpert, 0) => format!("%QX{}.{}", index / 8, index % 8),
        (Family::MachineExpert, 1) => format!("%IX{}.{}", index / 8, index % 8),
        (Family::MachineExpert | Family::Basic, 4) => format!("%MW{index}"),
        (Family::Basic, 0 | 1) => format!("%M{index}"),
        _ => return None,
    };
    word_or_bit(model, &named).map(|_| named)
}

fn bytes(data: DataType) -> String {
    match data.size() {
        1 => "1 byte".to_owned(),
        size => format!("{size} bytes"),
    }
}
