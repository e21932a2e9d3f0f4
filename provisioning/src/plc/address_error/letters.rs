//! Refusals of `%` letters that a model does not have, or has and does not serve.

use super::{
    BASIC_FORMS, GENERIC_FORMS, MODICON_FORMS, location_error, suggest_if_valid,
    suggest_word_or_bit,
};
use crate::plc::locate::PlcVariable;
use crate::plc::{IecType, LocationError, PlcModel};

/// `%MW10` on a device that has no IEC memory.
pub(in crate::plc) fn iec_on_generic(
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
    let help = named.and_then(|named| suggest_word_or_bit(PlcModel::Generic, &named));
    location_error(
        format!("`{at}` is an address of a Modicon PLC, and the model of this one is generic"),
        match help {
            Some(help) => format!("{help}, or set model to the Modicon's if it is one"),
            None => GENERIC_FORMS.to_owned(),
        },
    )
}

/// `%` letters that an M241, M251 or M262 does not have, or has and does not serve.
pub(in crate::plc) fn unsupported_prefix(
    variable: PlcVariable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> LocationError {
    let PlcVariable { model, at, .. } = variable;
    match (letters, bit) {
        ("M", _) => {
            let (byte, bit) = bit.map_or((index / 8, index % 8), |bit| (index, bit));
            let bit = format!("%MX{byte}.{bit}");
            let help = suggest_if_valid(model, &bit, IecType::Bool).map_or_else(
                || MODICON_FORMS.to_owned(),
                |help| format!("declare the variable AT {bit} and {help}"),
            );
            location_error(format!("{at}: %M bits cannot be read by Modbus on an {model}"), help)
        }
        ("IB" | "IW" | "ID" | "IL" | "QB" | "QW" | "QD" | "QL", _) => location_error(
            format!(
                "{at}: %{letters} cannot be read by Modbus on an {model}, only single bits \
                     of %I and %Q can"
            ),
            format!(
                "copy it to a memory word in the program (for example %MW100 := {at};) and \
                     write `%MW100`"
            ),
        ),
        ("MF", None) => location_error(
            format!("{at}: an {model} has no %MF, that is an M221 address"),
            match suggest_if_valid(model, &format!("%MW{index}"), IecType::Real) {
                Some(help) => format!("declare the REAL AT %MW{index} and {help}"),
                None => MODICON_FORMS.to_owned(),
            },
        ),
        ("S" | "SW" | "KW" | "KD" | "KF", _) => location_error(
            format!("{at}: an {model} has no %{letters}, that is an M221 address"),
            "the system words of PLC_R begin at %MW60000; copy anything else to a %MW in the \
             program",
        ),
        _ => location_error(format!("`{at}` is not an address of an {model}"), MODICON_FORMS),
    }
}

/// `%` letters that an M221 does not have, or has and does not serve.
pub(in crate::plc) fn unsupported_m221_prefix(
    variable: PlcVariable<'_>,
    letters: &str,
    index: u32,
    bit: Option<u32>,
) -> LocationError {
    let PlcVariable { model, at, .. } = variable;
    let copy = |memory: &str| {
        format!("copy it to {memory} in the program ({memory} := {at}) and write `{memory}`")
    };
    let message = format!("{at}: %{letters} cannot be read by Modbus on an {model}");
    match (letters, bit) {
        ("I" | "Q" | "IX" | "QX" | "S", _) => location_error(message, copy("%M100")),
        ("IW" | "QW" | "IWS" | "QWS" | "SW" | "KW", _) => location_error(message, copy("%MW100")),
        ("KD" | "KF", _) => location_error(message, copy("%MD100")),
        ("MX", Some(bit)) => location_error(
            format!("{at}: an {model} has no %MX, that is an address of its larger sisters"),
            suggest_m221_bit(model, index, bit),
        ),
        ("MB" | "ML" | "MX", _) => location_error(
            format!("{at}: an {model} has no %{letters}, that is an address of its larger sisters"),
            "give the %MW with which the variable begins",
        ),
        _ => location_error(format!("`{at}` is not an address of an {model}"), BASIC_FORMS),
    }
}

/// `%MX20.3` of an M241 is bit 3 of its byte 20.
fn suggest_m221_bit(model: PlcModel, byte: u32, bit: u32) -> String {
    let named = format!("%MW{}:X{}", byte / 2, u64::from(byte % 2) * 8 + u64::from(bit));
    match suggest_if_valid(model, &named, IecType::Bool) {
        Some(help) => {
            format!("{help} for that bit of the words, or %M and a number for a memory bit")
        }
        None => BASIC_FORMS.to_owned(),
    }
}
