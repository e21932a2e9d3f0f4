//! Numbers that are no values: a list of them, or all outside a range.

use figment::value::Value;
use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError};
use crate::config::Number;

/// A list of numbers, not empty.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct NumberList(pub(in crate::config) Vec<Number>);

/// A smallest and a largest number, at least one of them; the first is not above the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct NumberRange {
    pub(in crate::config) min: Option<f64>,
    pub(in crate::config) max: Option<f64>,
}

impl Scalar for NumberList {
    /// Reads a list from a file; the environment cannot give one.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let key = raw.key;
        let example = format!("write {key} = [-32768]");
        let Value::Array(_, items) = raw.value else {
            return Err(raw.type_error("a list of numbers", example));
        };
        let numbers: Option<Vec<_>> = items.iter().map(number).collect();
        match numbers {
            Some(numbers) if !numbers.is_empty() => Ok(Self(numbers)),
            Some(_) => Err(ValueError::new(format!("`{key}` is empty"), example)),
            None => {
                Err(ValueError::new(format!("`{key}` must contain finite numbers only"), example))
            }
        }
    }

    fn to_toml(&self) -> String {
        format!("[{}]", self.0.iter().map(Number::to_string).collect::<Vec<_>>().join(", "))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "array",
            "items": { "type": "number", "x-type": "number" },
            "minItems": 1,
        })
    }
}

impl Scalar for NumberRange {
    /// Reads a table from a file; the environment cannot give one.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let key = raw.key;
        let example = format!("write {key} = {{ min = -40, max = 150 }}, or one of them");
        let Some(dict) = raw.value.as_dict().filter(|_| !raw.is_from_environment) else {
            return Err(raw.type_error("a table of min and max", example));
        };
        let mut range = Self { min: None, max: None };
        for (name, value) in dict {
            let bound = number(value).map(Number::to_f64);
            match (name.as_str(), bound) {
                ("min", Some(_)) => range.min = bound,
                ("max", Some(_)) => range.max = bound,
                ("min" | "max", None) => {
                    let message = format!("`{name}` of `{key}` must be a finite number");
                    return Err(ValueError::new(message, example));
                }
                _ => {
                    let message = format!("`{key}` has `min` and `max`, and no `{name}`");
                    return Err(ValueError::new(message, example));
                }
            }
        }
        match range {
            Self { min: None, max: None } => {
                Err(ValueError::new(format!("`{key}` is empty"), example))
            }
            Self { min: Some(min), max: Some(max) } if min > max => {
                let message = format!("`min` of `{key}` is above its `max`");
                Err(ValueError::new(message, "exchange the two numbers".to_owned()))
            }
            _ => Ok(range),
        }
    }

    fn to_toml(&self) -> String {
        let bounds = [("min", self.min), ("max", self.max)];
        let bounds = bounds.map(|(name, bound)| bound.map(|bound| format!("{name} = {bound}")));
        format!("{{ {} }}", bounds.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "enum": ["min", "max"] },
            "additionalProperties": { "type": "number" },
            "minProperties": 1,
            "x-type": "table of min and max",
        })
    }
}

/// Returns a finite number.
pub(super) fn number(value: &Value) -> Option<Number> {
    let number = value.to_num()?;
    match number.to_i128() {
        Some(whole) => Some(Number::Whole(whole)),
        None => number.to_f64().filter(|number| number.is_finite()).map(Number::Real),
    }
}
