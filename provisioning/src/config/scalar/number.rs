//! Numbers, booleans, and fixed members of the payload.

use figment::value::{Num, Value};
use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Integer<const MIN: u16, const MAX: u16>(pub(in crate::config) u16);

/// A finite number, and the number of decimal places that it was written with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct DecimalNumber {
    pub(in crate::config) value: f64,
    pub(in crate::config) decimal_places: u8,
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Boolean(pub(in crate::config) bool);

/// Fixed members of a JSON object, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct JsonMembers(
    pub(in crate::config) serde_json::Map<String, serde_json::Value>,
);

impl<const MIN: u16, const MAX: u16> Scalar for Integer<MIN, MAX> {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let number = match raw.value.to_num() {
            Some(number) => integer_value(number),
            None => raw.variable_text().and_then(|text| text.parse::<i128>().ok()),
        };
        let key = raw.key;
        match number.map(u16::try_from) {
            Some(Ok(number)) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            Some(_) => Err(ValueError::new(
                format!("`{key}` is {}, which is out of range", raw.as_written()),
                format!("write a whole number from {MIN} to {MAX}"),
            )),
            None => {
                let unquoted = raw.value.as_str().map(str::trim).filter(|text| {
                    text.parse().is_ok_and(|number: u16| (MIN..=MAX).contains(&number))
                });
                let help = match unquoted {
                    Some(text) => format!("write it without quotes: {key} = {text}"),
                    None => format!("write a whole number from {MIN} to {MAX}"),
                };
                Err(raw.type_error("a whole number", help))
            }
        }
    }

    fn to_toml(&self) -> String {
        self.0.to_string()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "integer",
            "minimum": MIN,
            "maximum": MAX,
            "x-type": format!("whole number, {MIN} to {MAX}"),
        })
    }
}

fn integer_value(number: Num) -> Option<i128> {
    number.to_i128().or_else(|| number.to_u128().and_then(|number| i128::try_from(number).ok()))
}

impl Scalar for DecimalNumber {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let written = match raw.value.to_num() {
            Some(_) => raw.source_text.map(|text| text.replace('_', "")),
            None => raw.variable_text().map(str::to_owned),
        };
        let key = raw.key;
        let number =
            written.and_then(|text| Some((text.parse::<f64>().ok()?, decimal_places_of(&text))));
        match number {
            Some((value, digits)) if value.is_finite() => {
                Ok(Self { value, decimal_places: digits })
            }
            Some(_) => Err(ValueError::new(
                format!("`{key}` must be a finite number"),
                format!("write a number such as {key} = 0.1"),
            )),
            None => {
                let comma = raw.value.as_str().map(|text| text.trim().replace(',', "."));
                let help = match comma.filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
                {
                    Some(number) => format!("write it without quotes: {key} = {number}"),
                    None => format!("write a number such as {key} = 0.1"),
                };
                Err(raw.type_error("a number", help))
            }
        }
    }

    fn to_toml(&self) -> String {
        self.value.to_string()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "x-type": "number" })
    }
}

/// Returns the number of decimal places of a number as written: 2 for `0.10`, 3 for `1e-3`.
fn decimal_places_of(written: &str) -> u8 {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let after_point = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len());
    let exponent: i64 = exponent.parse().unwrap_or_default();
    let digits = i64::try_from(after_point).unwrap_or(i64::MAX).saturating_sub(exponent);
    u8::try_from(digits.clamp(0, MAX_DECIMAL_PLACES)).unwrap_or_default()
}

/// Number of significant decimal digits that every f64 can represent.
const MAX_DECIMAL_PLACES: i64 = 15;

impl Scalar for Boolean {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let flag = match raw.variable_text() {
            Some(text) => text.parse().ok(),
            None => raw.value.to_bool(),
        };
        flag.map(Self).ok_or_else(|| {
            let key = raw.key;
            let help = format!("write {key} = true or {key} = false, without quotes");
            raw.type_error("true or false", help)
        })
    }

    fn to_toml(&self) -> String {
        self.0.to_string()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean", "x-type": "true or false" })
    }
}

/// Maximum length of the members of a message, as TOML.
const MAX_MEMBERS_BYTES: usize = 4_096;

impl Scalar for JsonMembers {
    /// Reads a table from a file; the environment cannot give one. Rejects NaN and infinity.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let key = raw.key;
        let example = format!("write {key} = {{ id = 0 }}");
        let Some(dict) = raw.value.as_dict().filter(|_| !raw.is_from_environment) else {
            return Err(raw.type_error("a table of members", example));
        };
        let spans = raw.spans.and_then(|spans| spans.as_ref().as_table());
        let place = |member: &String| {
            spans
                .and_then(|table| table.get_key_value(member.as_str()))
                .map(|(key, _)| key.span().start)
        };
        let mut members: Vec<_> = dict.iter().collect();
        members.sort_by_key(|(member, _)| place(member));
        let members =
            members.into_iter().map(|(name, value)| Some((name.clone(), json_value(value)?)));
        let members = members.collect::<Option<_>>().map(Self).ok_or_else(|| {
            ValueError::new(
                format!("`{key}` contains NaN or infinity, which JSON cannot represent"),
                example,
            )
        })?;
        if members.to_toml().len() > MAX_MEMBERS_BYTES {
            let help = format!("write at most {MAX_MEMBERS_BYTES} bytes: they are in each message");
            return Err(ValueError::new(format!("`{key}` is too long"), help));
        }
        Ok(members)
    }

    fn to_toml(&self) -> String {
        toml_inline_table(&self.0)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "object", "x-type": "table" })
    }
}

fn toml_inline_table(members: &serde_json::Map<String, serde_json::Value>) -> String {
    let member =
        |(name, value): (&String, _)| format!("{} = {}", toml_key(name), toml_value(value));
    let members: Vec<_> = members.iter().map(member).collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

fn toml_value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(members) => toml_inline_table(members),
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        serde_json::Value::String(text) => super::toml_quoted(text),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            value.to_string()
        }
    }
}

fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        super::toml_quoted(name)
    }
}

/// Converts a value to JSON. Returns `None` for NaN and infinity.
fn json_value(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::String(_, text) => text.as_str().into(),
        Value::Char(_, c) => c.to_string().into(),
        Value::Bool(_, flag) => (*flag).into(),
        Value::Num(_, number) => match number.to_i128().map(i64::try_from) {
            Some(Ok(number)) => number.into(),
            _ => serde_json::Number::from_f64(number.to_f64()?)?.into(),
        },
        Value::Empty(..) => serde_json::Value::Null,
        Value::Dict(_, dict) => {
            let members = dict.iter().map(|(name, value)| Some((name.clone(), json_value(value)?)));
            serde_json::Value::Object(members.collect::<Option<_>>()?)
        }
        Value::Array(_, items) => {
            serde_json::Value::Array(items.iter().map(json_value).collect::<Option<_>>()?)
        }
    })
}
