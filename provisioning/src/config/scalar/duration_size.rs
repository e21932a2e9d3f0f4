//! Durations and sizes: a whole number with a unit, written as text.

use std::time::Duration;

use figment::value::Value;
use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError, toml_quoted};

/// A duration from `MIN` to `MAX` milliseconds: `"200ms"`, `"1s"`, `"5m"`, `"1h"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct BoundedDuration<const MIN: u64, const MAX: u64>(
    pub(in crate::config) Duration,
);

/// A size from `MIN` to `MAX` bytes: `"512KiB"`, `"64MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct BoundedSize<const MIN: u64, const MAX: u64>(pub(in crate::config) u64);

/// Units with their length in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<const MIN: u64, const MAX: u64> Scalar for BoundedDuration<MIN, MAX> {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let kind =
            Quantity { noun: "a duration", units: &DURATION_UNITS, mistakes: &DURATION_MISTAKES };
        kind.read(raw, MIN, MAX).map(|millis| Self(Duration::from_millis(millis)))
    }

    fn to_toml(&self) -> String {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        toml_quoted(&in_largest_unit(millis, &DURATION_UNITS))
    }

    fn schema() -> Schema {
        let (min, max) =
            (in_largest_unit(MIN, &DURATION_UNITS), in_largest_unit(MAX, &DURATION_UNITS));
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h)$",
            "x-type": format!("duration, {min} to {max}"),
        })
    }
}

impl<const MIN: u64, const MAX: u64> Scalar for BoundedSize<MIN, MAX> {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let kind = Quantity { noun: "a size", units: &SIZE_UNITS, mistakes: &SIZE_MISTAKES };
        kind.read(raw, MIN, MAX).map(Self)
    }

    fn to_toml(&self) -> String {
        toml_quoted(&in_largest_unit(self.0, &SIZE_UNITS))
    }

    fn schema() -> Schema {
        let (min, max) = (in_largest_unit(MIN, &SIZE_UNITS), in_largest_unit(MAX, &SIZE_UNITS));
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "x-type": format!("size, {min} to {max}"),
        })
    }
}

/// Common misspellings of units, and the correct unit.
const DURATION_MISTAKES: [(&str, &str); 8] = [
    ("sec", "s"),
    ("secs", "s"),
    ("seconds", "s"),
    ("second", "s"),
    ("min", "m"),
    ("msec", "ms"),
    ("d", "h"),
    ("hours", "h"),
];
const SIZE_MISTAKES: [(&str, &str); 9] = [
    ("kb", "KiB"),
    ("mb", "MiB"),
    ("gb", "GiB"),
    ("k", "KiB"),
    ("m", "MiB"),
    ("g", "GiB"),
    ("kib", "KiB"),
    ("mib", "MiB"),
    ("gib", "GiB"),
];

struct Quantity {
    noun: &'static str,
    /// Units with their factors, largest first.
    units: &'static [(&'static str, u64)],
    mistakes: &'static [(&'static str, &'static str)],
}

impl Quantity {
    fn read(&self, raw: &RawValue<'_>, min: u64, max: u64) -> Result<u64, ValueError> {
        let Self { noun: words, units, .. } = self;
        let key = raw.key;
        if let (Value::Num(..), Some(written)) = (raw.value, raw.source_text) {
            let help = match *units {
                [.., (_, _), (large, _), (small, 1)] => {
                    format!("write {key} = \"{written}{small}\" or {key} = \"{written}{large}\"")
                }
                _ => String::new(),
            };
            return Err(ValueError::new(format!("`{key}` needs a unit"), help));
        }
        let text = raw.as_text(words)?.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
        let unit = unit.trim();
        let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let (Some(scale), Ok(number)) = (scale, number.parse::<u64>()) else {
            return Err(self.parse_error(key, text, number, unit));
        };
        match number.checked_mul(scale) {
            Some(amount) if (min..=max).contains(&amount) => Ok(amount),
            _ => Err(ValueError::new(
                format!("`{key}` is \"{text}\", which is out of range"),
                format!(
                    "write {} from {} to {}",
                    words,
                    in_largest_unit(min, units),
                    in_largest_unit(max, units)
                ),
            )),
        }
    }

    fn parse_error(&self, key: &str, text: &str, number: &str, unit: &str) -> ValueError {
        let correction = self.mistakes.iter().find(|(wrong, _)| wrong.eq_ignore_ascii_case(unit));
        let help = match correction {
            Some((_, correction)) if !number.is_empty() && unit != "d" => {
                format!("write {key} = \"{number}{correction}\"")
            }
            _ => {
                let units: Vec<_> = self.units.iter().rev().map(|(unit, _)| *unit).collect();
                format!("write a whole number with one of the units {}", units.join(", "))
            }
        };
        ValueError::new(format!("`{key}` is \"{text}\", which is not {}", self.noun), help)
    }
}

/// Returns the amount in the largest unit that divides it.
fn in_largest_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, scale)| amount > 0 && amount.is_multiple_of(*scale));
    match unit {
        Some((unit, scale)) => format!("{}{unit}", amount / scale),
        None => format!("{amount}{}", units.get(2).map_or("", |(unit, _)| unit)),
    }
}
