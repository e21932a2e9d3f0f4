//! The IEC type of a tag.

use super::{TextScalar, ValueError};
use crate::config::suggest::nearest;
use crate::plc::{DataType, IecType};

/// A type as declared in the PLC: `REAL`, `ARRAY[0..9] OF INT`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct DeclaredType(pub(in crate::config) DataType);

impl TextScalar for DeclaredType {
    const KIND: &'static str = "IEC type";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        text.parse().map(Self).map_err(|_| {
            ValueError::new(format!("`{key}` cannot be \"{text}\""), hint_for(key, text))
        })
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

fn hint_for(key: &str, text: &str) -> String {
    if let Some(iec) = equivalent_type(text) {
        return format!("write {key} = \"{iec}\", its name in Machine Expert");
    }
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("ENUM") {
        return format!(
            "an enumeration is an INT unless it is declared with another type: \
             {key} = \"INT\" and enum = {{ 0 = \"stop\", 1 = \"run\" }}"
        );
    }
    if upper.starts_with("ARRAY") {
        return format!(
            "an array is {key} = \"ARRAY[0..9] OF REAL\": one dimension, the lower index first, at \
             most 65535 elements"
        );
    }
    if upper.starts_with("STRING") || upper.starts_with("WSTRING") {
        let most = IecType::MAX_TEXT_LEN;
        return format!("write {key} = \"STRING(20)\", with a length from 1 to {most}");
    }
    match nearest(text, IecType::ALL.map(IecType::keyword)) {
        Some(near) => format!("did you mean {key} = \"{near}\"?"),
        None => {
            let all = IecType::ALL.map(IecType::keyword).join(", ");
            format!("write one of {all}, STRING(20), WSTRING(20), ARRAY[0..9] OF REAL")
        }
    }
}

/// Returns the IEC type for its name in other products and languages.
fn equivalent_type(text: &str) -> Option<IecType> {
    Some(match text.to_ascii_uppercase().as_str() {
        "FLOAT" | "FLOAT32" | "SINGLE" => IecType::Real,
        "DOUBLE" | "FLOAT64" => IecType::Lreal,
        "BIT" | "BOOLEAN" => IecType::Bool,
        "UINT8" => IecType::Usint,
        "INT8" => IecType::Sint,
        "UINT16" => IecType::Uint,
        "INT16" | "INTEGER" | "SHORT" => IecType::Int,
        "UINT32" => IecType::Udint,
        "INT32" => IecType::Dint,
        "UINT64" => IecType::Ulint,
        "INT64" | "LONG" => IecType::Lint,
        "DATETIME" | "TIMESTAMP" => IecType::Dt,
        _ => return None,
    })
}
