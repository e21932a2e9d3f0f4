//! Durations and sizes: text with a unit.

use std::time::Duration;

use figment::value::Value;
use schemars::{Schema, json_schema};

use super::{Found, Leaf, Wrong, quoted};

/// A duration from `MIN` to `MAX` milliseconds: `"200ms"`, `"1s"`, `"5m"`, `"1h"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Period<const MIN: u64, const MAX: u64>(pub(in crate::config) Duration);

/// A size from `MIN` to `MAX` bytes: `"512KiB"`, `"64MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Size<const MIN: u64, const MAX: u64>(pub(in crate::config) u64);

/// Largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<const MIN: u64, const MAX: u64> Leaf for Period<MIN, MAX> {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let kind = Kind { words: "a duration", units: &TIME_UNITS, wrong: &WRONG_TIMES };
        kind.read(found, MIN, MAX).map(|millis| Self(Duration::from_millis(millis)))
    }

    fn show(&self) -> String {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        quoted(&shown(millis, &TIME_UNITS))
    }

    fn schema() -> Schema {
        let (least, most) = (shown(MIN, &TIME_UNITS), shown(MAX, &TIME_UNITS));
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h)$",
            "x-type": format!("duration, {least} to {most}"),
        })
    }
}

impl<const MIN: u64, const MAX: u64> Leaf for Size<MIN, MAX> {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let kind = Kind { words: "a size", units: &SIZE_UNITS, wrong: &WRONG_SIZES };
        kind.read(found, MIN, MAX).map(Self)
    }

    fn show(&self) -> String {
        quoted(&shown(self.0, &SIZE_UNITS))
    }

    fn schema() -> Schema {
        let (least, most) = (shown(MIN, &SIZE_UNITS), shown(MAX, &SIZE_UNITS));
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "x-type": format!("size, {least} to {most}"),
        })
    }
}

/// Units that people write, and the ones that are meant.
const WRONG_TIMES: [(&str, &str); 8] = [
    ("sec", "s"),
    ("secs", "s"),
    ("seconds", "s"),
    ("second", "s"),
    ("min", "m"),
    ("msec", "ms"),
    ("d", "h"),
    ("hours", "h"),
];
const WRONG_SIZES: [(&str, &str); 9] = [
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

struct Kind {
    words: &'static str,
    /// Largest first.
    units: &'static [(&'static str, u64)],
    wrong: &'static [(&'static str, &'static str)],
}

impl Kind {
    fn read(&self, found: &Found<'_>, least: u64, most: u64) -> Result<u64, Wrong> {
        let Self { words, units, .. } = self;
        let key = found.key;
        if let (Value::Num(..), Some(written)) = (found.value, found.written) {
            let help = match *units {
                [.., (_, _), (large, _), (small, 1)] => {
                    format!("write {key} = \"{written}{small}\" or {key} = \"{written}{large}\"")
                }
                _ => String::new(),
            };
            return Err(Wrong::new(format!("`{key}` needs a unit"), help));
        }
        let text = found.text(words)?.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
        let unit = unit.trim();
        let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let (Some(scale), Ok(number)) = (scale, number.parse::<u64>()) else {
            return Err(self.unreadable(key, text, number, unit));
        };
        match number.checked_mul(scale) {
            Some(amount) if (least..=most).contains(&amount) => Ok(amount),
            _ => Err(Wrong::new(
                format!("`{key}` is \"{text}\", which is out of range"),
                format!("write {} from {} to {}", words, shown(least, units), shown(most, units)),
            )),
        }
    }

    fn unreadable(&self, key: &str, text: &str, number: &str, unit: &str) -> Wrong {
        let meant = self.wrong.iter().find(|(wrong, _)| wrong.eq_ignore_ascii_case(unit));
        let help = match meant {
            Some((_, meant)) if !number.is_empty() && unit != "d" => {
                format!("write {key} = \"{number}{meant}\"")
            }
            _ => {
                let units: Vec<_> = self.units.iter().rev().map(|(unit, _)| *unit).collect();
                format!("write a whole number with one of the units {}", units.join(", "))
            }
        };
        Wrong::new(format!("`{key}` is \"{text}\", which is not {}", self.words), help)
    }
}

/// The amount in the largest unit that divides it.
fn shown(amount: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, scale)| amount > 0 && amount.is_multiple_of(*scale));
    match unit {
        Some((unit, scale)) => format!("{}{unit}", amount / scale),
        None => format!("{amount}{}", units.get(2).map_or("", |(unit, _)| unit)),
    }
}
