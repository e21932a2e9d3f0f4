//! Why an address cannot be served, in the words of Machine Expert, and what to write instead.

use super::address;
use super::locate::Variable;
use super::{IecType, LocationError, Model, Table, Window};

const MODICON_FORMS: &str = "the forms are %MW10, %MD5, %ML3, %MB20, a bit as %MX20.3 or %MW10.3, \
                             an output as %QX0.3, an input as %IX0.3";
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
            let named = match model {
                Model::Generic => format!("holding:{at}"),
                Model::M241 | Model::M251 => format!("%MW{at}"),
            };
            instead(model, &named, IecType::Word).unwrap_or_else(|| forms(model).to_owned())
        }),
    }
}

/// `%MW10` on a device that has no IEC memory.
pub(super) fn iec_on_generic(
    at: &str,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> LocationError {
    let index = u64::from(index);
    let named = match (letters, bit.map(u64::from)) {
        ("MW", None) => Some(format!("holding:{index}")),
        ("MW", Some(bit)) => Some(format!("holding:{index}.{bit}")),
        ("MD", None) => Some(format!("holding:{}", index * 2)),
        ("ML", None) => Some(format!("holding:{}", index * 4)),
        ("MX", Some(bit)) => Some(format!("holding:{}.{}", index / 2, index % 2 * 8 + bit)),
        ("Q" | "QX", Some(bit)) => Some(format!("coil:{}", index * 8 + bit)),
        ("I" | "IX", Some(bit)) => Some(format!("discrete:{}", index * 8 + bit)),
        ("M", None) => Some(format!("coil:{index}")),
        ("IW", None) => Some(format!("input:{index}")),
        _ => None,
    };
    let help = named.and_then(|named| word_or_bit(Model::Generic, &named));
    refuse(
        format!("`{at}` is an address of a Modicon PLC, and the model of this one is generic"),
        match help {
            Some(help) => format!("{help}, or set model to M241 or M251 if it is one"),
            None => GENERIC_FORMS.to_owned(),
        },
    )
}

/// `%` letters that an M241 or M251 does not have, or has and does not serve.
pub(super) fn letters(
    variable: Variable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> LocationError {
    let Variable { model, at, .. } = variable;
    match (letters, bit) {
        ("M", _) => {
            let (byte, bit) = bit.map_or((index / 8, index % 8), |bit| (index, bit));
            let bit = format!("%MX{byte}.{bit}");
            let help = instead(model, &bit, IecType::Bool).map_or_else(
                || MODICON_FORMS.to_owned(),
                |help| format!("declare the variable AT {bit} and {help}"),
            );
            refuse(format!("{at}: %M bits cannot be read by Modbus on an {model}"), help)
        }
        ("IB" | "IW" | "ID" | "IL" | "QB" | "QW" | "QD" | "QL", _) => refuse(
            format!(
                "{at}: %{letters} cannot be read by Modbus on an {model}, only single bits \
                     of %I and %Q can"
            ),
            format!(
                "copy it to a memory word in the program (for example %MW100 := {at};) and \
                     write `%MW100`"
            ),
        ),
        ("MF", None) => refuse(
            format!("{at}: an {model} has no %MF, that is an M221 address"),
            match instead(model, &format!("%MW{index}"), IecType::Real) {
                Some(help) => format!("declare the REAL AT %MW{index} and {help}"),
                None => MODICON_FORMS.to_owned(),
            },
        ),
        ("S" | "SW" | "KW" | "KD" | "KF", _) => refuse(
            format!("{at}: an {model} has no %{letters}, that is an M221 address"),
            "the system words of PLC_R begin at %MW60000; copy anything else to a %MW in the \
             program",
        ),
        _ => refuse(format!("`{at}` is not an address of an {model}"), MODICON_FORMS),
    }
}

/// `BOOL` at `%MD` or `%ML`.
pub(super) fn bool_in_wide_unit(variable: Variable<'_>, byte: u64) -> LocationError {
    let whole = format!("%MB{byte}");
    refuse(
        format!("{}: a BOOL is one bit or one byte, this address is wider", variable.at),
        match instead(variable.model, &format!("%MX{byte}.0"), IecType::Bool) {
            Some(help) => format!("{help} for its lowest bit, or {whole} for its lowest byte"),
            None => MODICON_FORMS.to_owned(),
        },
    )
}

/// `%MB20.3`, `%MD5.3`: only %MX and %MW take a bit number.
pub(super) fn bit_of_wrong_unit(variable: Variable<'_>, byte: u64, bit: u32) -> LocationError {
    let byte = byte + u64::from(bit / 8);
    let named = format!("%MX{byte}.{}", bit % 8);
    refuse(
        format!("{}: only %MX and %MW take a bit number", variable.at),
        or_forms(variable, instead(variable.model, &named, IecType::Bool)),
    )
}

/// Function code 4 on a Modicon.
pub(super) fn no_input_registers(variable: Variable<'_>, index: u32) -> LocationError {
    let Variable { model, at, iec } = variable;
    refuse(
        format!("{at}: an {model} has no input registers (Modbus function code 4)"),
        or_forms(
            variable,
            instead(model, &format!("%MW{index}"), iec)
                .map(|help| format!("{help} for memory word {index}")),
        ),
    )
}

/// `coil:3.1`.
pub(super) fn bit_of_bit(variable: Variable<'_>, table: Table) -> LocationError {
    let word = table.word();
    refuse(
        format!("{}: a {word} is one bit already", variable.at),
        format!("give the number of the {word} alone: {word}:3"),
    )
}

/// `%MX20`.
pub(super) fn bit_missing(variable: Variable<'_>, byte: u32) -> LocationError {
    let Variable { model, at, iec } = variable;
    let help = if iec == IecType::Bool {
        instead(model, &format!("%MX{byte}.0"), iec).map(|help| {
            format!("{help} for the lowest bit of byte {byte}, %MX{byte}.7 for the highest")
        })
    } else {
        instead(model, &format!("%MB{byte}"), iec)
            .map(|help| format!("{help} for the {iec} that begins at byte {byte}"))
    };
    refuse(format!("{at}: %MX needs a bit number"), or_forms(variable, help))
}

/// `%MX10.12`.
pub(super) fn bit_beyond_byte(variable: Variable<'_>, byte: u32, bit: u32) -> LocationError {
    let help = instead(variable.model, &format!("%MW{byte}.{bit}"), IecType::Bool)
        .map(|help| format!("{help} if bit {bit} of the word %MW{byte} is meant"));
    refuse(
        format!("{}: %MX counts bytes, and a byte has the bits 0 to 7", variable.at),
        or_forms(variable, help),
    )
}

/// `%MW10.16`.
pub(super) fn bit_beyond_word(variable: Variable<'_>) -> LocationError {
    refuse(
        format!("{}: a word has the bits 0 to 15", variable.at),
        "bit 16 of a double word is bit 0 of its second word: bit 16 of %MD5 is %MW11.0",
    )
}

/// `REAL` at `%MX20.0`.
pub(super) fn value_at_bit(variable: Variable<'_>, byte: u64) -> LocationError {
    let Variable { model, at, iec } = variable;
    let help = match model {
        Model::Generic => at.split_once('.').and_then(|(word, _)| instead(model, word, iec)),
        Model::M241 | Model::M251 if iec.size() == 1 => instead(model, &format!("%MB{byte}"), iec),
        Model::M241 | Model::M251 => instead(model, &format!("%MW{}", byte / 2), iec),
    };
    refuse(
        format!("{at} is one bit, and the type {iec} takes {}", bytes(iec)),
        help.map_or_else(
            || "a single bit has the type BOOL".to_owned(),
            |help| format!("{help} for the {iec}, or set type to BOOL for the bit"),
        ),
    )
}

/// `REAL` at `%MB21`.
pub(super) fn odd_byte(variable: Variable<'_>, byte: u64) -> LocationError {
    let Variable { model, at, iec } = variable;
    let next = format!("%MB{}", byte + 1);
    let help = instead(model, &next, iec).map(|help| {
        format!("declare the variable AT {next} (that is %MW{}) and {help}", byte.div_ceil(2))
    });
    refuse(
        format!("{at}: the type {iec} takes {} and must begin at an even byte", bytes(iec)),
        or_forms(variable, help),
    )
}

/// `%QX0`, `%Q5`.
pub(super) fn io_bit_missing(variable: Variable<'_>, table: Table, byte: u32) -> LocationError {
    let letter = io_letter(table);
    let named = format!("%{letter}X{byte}.0");
    let help = instead(variable.model, &named, IecType::Bool).map(|help| {
        format!("{help} for the first bit of byte {byte}, as the I/O mapping shows it")
    });
    refuse(format!("{}: %{letter} needs a bit number", variable.at), or_forms(variable, help))
}

/// `%QX0.8`.
pub(super) fn io_bit_beyond_byte(
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

/// `REAL` at `%QX0.0` or `coil:3`.
pub(super) fn value_in_bit_table(variable: Variable<'_>, table: Table) -> LocationError {
    let Variable { model, at, iec } = variable;
    let memory = match model {
        Model::Generic => "holding:10",
        Model::M241 | Model::M251 => "%MW10",
    };
    let word = match (model, table) {
        (Model::Generic, _) => "a bit",
        (_, Table::Coil) => "an output bit",
        (..) => "an input bit",
    };
    refuse(
        format!("{at} is {word}, and the type {iec} takes {}", bytes(iec)),
        format!("set type to BOOL, or give an address like {memory} for the {iec}"),
    )
}

/// The first register or bit is in no window.
pub(super) fn beyond_the_map(variable: Variable<'_>, table: Table, first: u64) -> LocationError {
    let Variable { model, at, .. } = variable;
    match (model, table) {
        (Model::M241 | Model::M251, Table::HoldingRegister) if first <= u64::from(u16::MAX) => {
            refuse(
                format!("{at}: the words from %MW64000 on are reserved on an {model}"),
                "the user area is %MW0 to %MW59999",
            )
        }
        (Model::M241 | Model::M251, Table::HoldingRegister) => refuse(
            format!("{at}: an {model} has no memory word {first}"),
            "the user area is %MW0 to %MW59999 (%MD0 to %MD29999, %ML0 to %ML14999, %MB0 to \
             %MB119999)",
        ),
        _ => refuse(
            format!("{at}: Modbus counts to 65535, this would be number {first}"),
            forms(model),
        ),
    }
}

/// The value begins inside a window and ends outside it.
pub(super) fn crosses_window(
    variable: Variable<'_>,
    table: Table,
    first: u64,
    count: u16,
    window: &Window,
) -> LocationError {
    let Variable { model, at, iec } = variable;
    let end = u64::from(*window.registers.end()) + 1;
    let last_start = end.saturating_sub(u64::from(count));
    let latest = match model {
        Model::Generic => format!("{}:{last_start}", table.word()),
        Model::M241 | Model::M251 => format!("%MW{last_start}"),
    };
    refuse(
        format!(
            "{at}: the type {iec} takes {count} registers, and only {} of them belong to {}",
            end.saturating_sub(first),
            window.name
        ),
        format!("the last address for this type there is {latest}"),
    )
}

fn refuse(message: impl Into<String>, help: impl Into<String>) -> LocationError {
    LocationError { message: message.into(), help: Some(help.into()) }
}

/// "write `X`", when X is an address that works.
fn instead(model: Model, at: &str, iec: IecType) -> Option<String> {
    model.locate(at, iec).ok().map(|_| format!("write `{at}`"))
}

/// The same for an address whose type is not known.
fn word_or_bit(model: Model, at: &str) -> Option<String> {
    instead(model, at, IecType::Word).or_else(|| instead(model, at, IecType::Bool))
}

fn or_forms(variable: Variable<'_>, help: Option<String>) -> String {
    help.unwrap_or_else(|| forms(variable.model).to_owned())
}

const fn forms(model: Model) -> &'static str {
    match model {
        Model::M241 | Model::M251 => MODICON_FORMS,
        Model::Generic => GENERIC_FORMS,
    }
}

/// The address for a table digit of the 40001 notation and a zero-based index.
fn named(model: Model, table: u32, index: u32) -> Option<String> {
    let named = match (model, table) {
        (Model::Generic, 0) => format!("coil:{index}"),
        (Model::Generic, 1) => format!("discrete:{index}"),
        (Model::Generic, 3) => format!("input:{index}"),
        (Model::Generic, 4) => format!("holding:{index}"),
        (Model::M241 | Model::M251, 0) => format!("%QX{}.{}", index / 8, index % 8),
        (Model::M241 | Model::M251, 1) => format!("%IX{}.{}", index / 8, index % 8),
        (Model::M241 | Model::M251, 4) => format!("%MW{index}"),
        _ => return None,
    };
    word_or_bit(model, &named).map(|_| named)
}

const fn io_letter(table: Table) -> char {
    match table {
        Table::Coil => 'Q',
        Table::DiscreteInput | Table::InputRegister | Table::HoldingRegister => 'I',
    }
}

fn bytes(iec: IecType) -> String {
    match iec.size() {
        1 => "1 byte".to_owned(),
        size => format!("{size} bytes"),
    }
}
