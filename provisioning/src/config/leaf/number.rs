//! Numbers, true and false, and free members for the payload.

use figment::value::{Num, Value};
use schemars::{Schema, json_schema};

use super::{Found, Leaf, Wrong};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Whole<const MIN: u16, const MAX: u16>(pub(in crate::config) u16);

/// A finite number, and how many digits after the point it was written with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct Decimal {
    pub(in crate::config) value: f64,
    pub(in crate::config) digits: u8,
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Flag(pub(in crate::config) bool);

/// Fixed members of a JSON object, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Members(
    pub(in crate::config) serde_json::Map<String, serde_json::Value>,
);

impl<const MIN: u16, const MAX: u16> Leaf for Whole<MIN, MAX> {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let number = match found.value.to_num() {
            Some(number) => whole(number),
            None => found.variable().and_then(|text| text.parse::<i128>().ok()),
        };
        let key = found.key;
        match number.map(u16::try_from) {
            Some(Ok(number)) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            Some(_) => Err(Wrong::new(
                format!("`{key}` is {}, which is out of range", found.shown()),
                format!("write a whole number from {MIN} to {MAX}"),
            )),
            None => {
                let unquoted = found.value.as_str().map(str::trim).filter(|text| {
                    text.parse().is_ok_and(|number: u16| (MIN..=MAX).contains(&number))
                });
                let help = match unquoted {
                    Some(text) => format!("write it without quotes: {key} = {text}"),
                    None => format!("write a whole number from {MIN} to {MAX}"),
                };
                Err(found.unexpected("a whole number", help))
            }
        }
    }

    fn show(&self) -> String {
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

fn whole(number: Num) -> Option<i128> {
    number.to_i128().or_else(|| number.to_u128().and_then(|number| i128::try_from(number).ok()))
}

impl Leaf for Decimal {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let written = match found.value.to_num() {
            Some(_) => found.written.map(|text| text.replace('_', "")),
            None => found.variable().map(str::to_owned),
        };
        let key = found.key;
        let number = written.and_then(|text| Some((text.parse::<f64>().ok()?, digits(&text))));
        match number {
            Some((value, digits)) if value.is_finite() => Ok(Self { value, digits }),
            Some(_) => Err(Wrong::new(
                format!("`{key}` must be a finite number"),
                format!("write a number such as {key} = 0.1"),
            )),
            None => {
                let comma = found.value.as_str().map(|text| text.trim().replace(',', "."));
                let help = match comma.filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
                {
                    Some(number) => format!("write it without quotes: {key} = {number}"),
                    None => format!("write a number such as {key} = 0.1"),
                };
                Err(found.unexpected("a number", help))
            }
        }
    }

    fn show(&self) -> String {
        self.value.to_string()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "x-type": "number" })
    }
}

/// Digits after the point of a number as written: 2 for `0.10`, 3 for `1e-3`.
fn digits(written: &str) -> u8 {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let after_point = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len());
    let exponent: i64 = exponent.parse().unwrap_or_default();
    let digits = i64::try_from(after_point).unwrap_or(i64::MAX).saturating_sub(exponent);
    u8::try_from(digits.clamp(0, MOST_DIGITS)).unwrap_or_default()
}

/// Digits of a decimal fraction that an f64 can always hold.
const MOST_DIGITS: i64 = 15;

impl Leaf for Flag {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let flag = match found.variable() {
            Some(text) => text.parse().ok(),
            None => found.value.to_bool(),
        };
        flag.map(Self).ok_or_else(|| {
            let key = found.key;
            let help = format!("write {key} = true or {key} = false, without quotes");
            found.unexpected("true or false", help)
        })
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean", "x-type": "true or false" })
    }
}

impl Leaf for Members {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let key = found.key;
        let example = format!("write {key} = {{ id = 0 }}");
        let Some(dict) = found.value.as_dict().filter(|_| !found.environment) else {
            return Err(found.unexpected("a table of members", example));
        };
        let spans = found.spans.and_then(|spans| spans.as_ref().as_table());
        let place = |member: &String| {
            spans
                .and_then(|table| table.get_key_value(member.as_str()))
                .map(|(key, _)| key.span().start)
        };
        let mut members: Vec<_> = dict.iter().collect();
        members.sort_by_key(|(member, _)| place(member));
        let members = members.into_iter().map(|(name, value)| Some((name.clone(), json(value)?)));
        members.collect::<Option<_>>().map(Self).ok_or_else(|| {
            Wrong::new(format!("`{key}` holds a number that JSON does not have"), example)
        })
    }

    fn show(&self) -> String {
        inline_table(&self.0)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "object", "x-type": "table" })
    }
}

fn inline_table(members: &serde_json::Map<String, serde_json::Value>) -> String {
    let member =
        |(name, value): (&String, _)| format!("{} = {}", toml_key(name), toml_value(value));
    let members: Vec<_> = members.iter().map(member).collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

fn toml_value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(members) => inline_table(members),
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        serde_json::Value::String(text) => super::quoted(text),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            value.to_string()
        }
    }
}

fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { super::quoted(name) }
}

/// Absent for NaN and infinity.
fn json(value: &Value) -> Option<serde_json::Value> {
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
            let members = dict.iter().map(|(name, value)| Some((name.clone(), json(value)?)));
            serde_json::Value::Object(members.collect::<Option<_>>()?)
        }
        Value::Array(_, items) => {
            serde_json::Value::Array(items.iter().map(json).collect::<Option<_>>()?)
        }
    })
}
