//! What may be written: the table `write` of a tag, and the program that a PLC must have.

use std::time::Duration;

use figment::value::Value;
use schemars::{Schema, json_schema};

use super::number_range::number;
use super::{RawValue, Scalar, TextScalar, ValueError, toml_quoted};
use crate::config::suggest::nearest;
use crate::config::{ProgramId, WritableValue, WriteRate, WriteRule};

/// `plc.tag.write`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct WriteTable(pub(in crate::config) WriteRule);

/// `plc.accept_program`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct ProgramText(pub(in crate::config) ProgramId);

/// Members of the table.
const MEMBERS: [&str; 5] = ["min", "max", "values", "rate", "whole_word"];
/// Most values in `values`.
const MAX_VALUES: usize = 1_000;
/// Most writes in one period.
const MAX_RATE: u16 = 1_000;
const EXAMPLE: &str = "write = { min = 0, max = 90 }";

impl Scalar for WriteTable {
    /// Reads a table from a file; the environment cannot give one.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let Some(dict) = raw.value.as_dict().filter(|_| !raw.is_from_environment) else {
            let help = match raw.value.to_bool() {
                Some(true) => format!("use {EXAMPLE}, or write = {{}} for every value"),
                Some(false) => "remove it: a tag without `write` is read-only".to_owned(),
                None => format!("write something like {EXAMPLE}"),
            };
            return Err(raw.type_error("a table of what may be written", help));
        };
        let mut rule = WriteRule::default();
        for (name, value) in dict {
            read_member(&mut rule, name, value)?;
        }
        Ok(Self(rule))
    }

    fn to_toml(&self) -> String {
        let WriteRule { min, max, values, rate, whole_word } = &self.0;
        let mut members = Vec::new();
        members.extend(min.map(|min| format!("min = {min}")));
        members.extend(max.map(|max| format!("max = {max}")));
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(value_to_toml).collect();
            members.push(format!("values = [{}]", values.join(", ")));
        }
        members.extend(rate.map(|rate| format!("rate = \"{rate}\"")));
        members.extend(whole_word.then(|| "whole_word = true".to_owned()));
        if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "min": { "type": "number" },
                "max": { "type": "number" },
                "values": {
                    "type": "array",
                    "items": { "type": ["boolean", "number", "string"] },
                    "minItems": 1,
                },
                "rate": { "type": "string", "pattern": "^[0-9]+/(s|min|h)$" },
                "whole_word": { "type": "boolean" },
            },
            "additionalProperties": false,
            "x-type": "table of min, max, values, rate, whole_word",
        })
    }
}

fn read_member(rule: &mut WriteRule, name: &str, value: &Value) -> Result<(), ValueError> {
    match name {
        "min" | "max" => {
            let Some(bound) = number(value) else {
                let message = format!("`{name}` of `write` must be a finite number");
                return Err(ValueError::new(message, format!("write something like {EXAMPLE}")));
            };
            let side = if name == "min" { &mut rule.min } else { &mut rule.max };
            *side = Some(bound);
        }
        "values" => rule.values = read_values(value)?,
        "rate" => rule.rate = Some(read_rate(value)?),
        "whole_word" => match value.to_bool() {
            Some(is_whole) => rule.whole_word = is_whole,
            None => {
                let message = "`whole_word` of `write` must be true or false";
                return Err(ValueError::new(message, "write whole_word = true, or remove it"));
            }
        },
        _ => {
            let help = nearest(name, MEMBERS).map_or_else(
                || format!("the members are {}", MEMBERS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(ValueError::new(format!("`write` has no member `{name}`"), help));
        }
    }
    Ok(())
}

fn read_values(value: &Value) -> Result<Vec<WritableValue>, ValueError> {
    let help = "write something like values = [0, 50, 100] or values = [\"stop\", \"run\"]";
    let Some(items) = value.as_array() else {
        return Err(ValueError::new("`values` of `write` must be a list", help));
    };
    if items.is_empty() || items.len() > MAX_VALUES {
        let message = format!("`values` of `write` must have 1 to {MAX_VALUES} values");
        return Err(ValueError::new(message, help));
    }
    let read = |item: &Value| match item {
        Value::Bool(_, value) => Some(WritableValue::Bool(*value)),
        Value::String(_, text) => Some(WritableValue::Text(text.clone())),
        Value::Char(_, letter) => Some(WritableValue::Text(letter.to_string())),
        Value::Num(..) => number(item).map(WritableValue::Number),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    };
    items.iter().map(read).collect::<Option<_>>().ok_or_else(|| {
        ValueError::new("`values` of `write` must contain numbers, texts, true or false", help)
    })
}

/// Reads `"6/min"`.
fn read_rate(value: &Value) -> Result<WriteRate, ValueError> {
    let parse = |text: &str| {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| (1..=MAX_RATE).contains(count))?;
        Some(WriteRate { count, period: Duration::from_secs(seconds) })
    };
    value.as_str().and_then(parse).ok_or_else(|| {
        let help = format!("write a number from 1 to {MAX_RATE} with /s, /min or /h: \"6/min\"");
        ValueError::new("`rate` of `write` is not a number of writes in a period", help)
    })
}

fn value_to_toml(value: &WritableValue) -> String {
    match value {
        WritableValue::Bool(value) => value.to_string(),
        WritableValue::Number(number) => number.to_string(),
        WritableValue::Text(text) => toml_quoted(text),
    }
}

impl TextScalar for ProgramText {
    const KIND: &'static str = "text of 32 hexadecimal digits";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        text.trim().parse().map(Self).map_err(|_| {
            let message = format!("`{key}` must be 32 hexadecimal digits");
            ValueError::new(message, "copy the signature that `edge-gateway status` shows")
        })
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}
