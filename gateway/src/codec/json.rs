//! Values to JSON and back, in the form of their tag.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::civil::{self, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use provisioning::config::Form;
use provisioning::plc::{DataType, IecType, Kind, Tick};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::EncodeError;
use crate::model::Value;

/// A value in the form of its tag; what the form does not fit stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What it is.
    pub value: &'a Value,
    /// What it looks like.
    pub form: &'a Form,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, form } = *self;
        match (form, value) {
            (Form::Plain, value) => value.serialize(serializer),
            (form, Value::List(items)) => {
                let show = |value| Shown { value, form };
                serializer.collect_seq(items.iter().map(|item| item.as_ref().map(show)))
            }
            (Form::Date(tick), Value::Uint(ticks)) => {
                serializer.collect_str(&civil(*ticks, *tick).date())
            }
            (Form::TimeOfDay(tick), Value::Uint(ticks)) => {
                serializer.collect_str(&Clock { time: civil(*ticks, *tick).time(), tick: *tick })
            }
            (Form::DateAndTime(tick, zone), Value::Uint(ticks)) => {
                serializer.collect_str(&Moment { civil: civil(*ticks, *tick), tick: *tick, zone })
            }
            (Form::Named(names), value) => match number(value).and_then(|one| names.name(one)) {
                Some(name) => serializer.serialize_str(name),
                None => value.serialize(serializer),
            },
            (Form::Date(_) | Form::TimeOfDay(_) | Form::DateAndTime(..), value) => {
                value.serialize(serializer)
            }
        }
    }
}

/// Whether the form has a word for every element of the value: an enumeration may not.
#[must_use]
pub fn fits(form: &Form, value: &Value) -> bool {
    match (form, value) {
        (Form::Named(names), Value::List(items)) => items
            .iter()
            .flatten()
            .all(|item| number(item).is_some_and(|number| names.name(number).is_some())),
        (Form::Named(names), value) => {
            number(value).is_some_and(|number| names.name(number).is_some())
        }
        (Form::Plain | Form::Date(_) | Form::TimeOfDay(_) | Form::DateAndTime(..), _) => true,
    }
}

fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        Value::Bool(_) | Value::Real(_) | Value::Lreal(_) | Value::Text(_) | Value::List(_) => None,
    }
}

/// Date and time after so many ticks since 1970-01-01 00:00: at most the year 2554.
fn civil(ticks: u64, tick: Tick) -> DateTime {
    let seconds = i64::try_from(ticks / tick.per_second()).unwrap_or(i64::MAX);
    let nanos = ticks % tick.per_second() * (Tick::Nanosecond.per_second() / tick.per_second());
    let nanos = i32::try_from(nanos).unwrap_or_default();
    let at = Timestamp::new(seconds, nanos).unwrap_or(Timestamp::MAX);
    Offset::UTC.to_datetime(at)
}

/// Digits after the second.
const fn digits(tick: Tick) -> usize {
    match tick {
        Tick::Second => 0,
        Tick::Millisecond => 3,
        Tick::Nanosecond => 9,
    }
}

/// `12:34:56.789`.
struct Clock {
    time: Time,
    tick: Tick,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.*}", digits(self.tick), self.time)
    }
}

/// `2024-02-29T12:34:56+01:00`, and `Z` where the zone is at +00:00.
struct Moment<'a> {
    civil: DateTime,
    tick: Tick,
    zone: &'a TimeZone,
}

impl fmt::Display for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.zone.to_timestamp(self.civil).unwrap_or(Timestamp::MAX);
        let digits = digits(self.tick);
        match self.zone.to_offset(at) {
            Offset::UTC => write!(f, "{at:.digits$}"),
            offset => write!(f, "{:.digits$}", at.display_with_offset(offset)),
        }
    }
}

/// Reads a value of a type from JSON: the inverse of [`Shown`].
///
/// A time that the PLC's clock shows twice is read as that clock reading; which of the two was
/// meant is lost, as it is in the PLC.
///
/// # Errors
/// When the JSON is of another kind than the type, or holds more than the type can.
pub fn read(json: &Json, data: impl Into<DataType>, form: &Form) -> Result<Value, EncodeError> {
    let data = data.into();
    let Some(bounds) = data.bounds else { return read_one(json, data.item, form) };
    let items = json.as_array().filter(|items| items.len() == usize::from(bounds.elements()));
    let items = items.ok_or(EncodeError::WrongKind)?.iter();
    let items = items.map(|item| read_one(item, data.item, form).map(Some));
    Ok(Value::List(Arc::new(items.collect::<Result<_, _>>()?)))
}

fn read_one(json: &Json, iec: IecType, form: &Form) -> Result<Value, EncodeError> {
    let text = || json.as_str().ok_or(EncodeError::WrongKind);
    match form {
        Form::Plain => plain(json, iec),
        Form::Named(names) => {
            let number = names.number(text()?).ok_or(EncodeError::OutOfRange)?;
            let int = i64::try_from(number).map(Value::Int);
            int.or_else(|_| u64::try_from(number).map(Value::Uint))
                .map_err(|_| EncodeError::OutOfRange)
        }
        Form::Date(tick) => {
            let date: civil::Date = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            ticks(date.to_datetime(Time::midnight()), *tick)
        }
        Form::TimeOfDay(tick) => {
            let time: Time = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            ticks(EPOCH.to_datetime(time), *tick)
        }
        Form::DateAndTime(tick, zone) => {
            let at: Timestamp = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            ticks(zone.to_datetime(at), *tick)
        }
    }
}

const EPOCH: civil::Date = civil::date(1970, 1, 1);

/// Ticks since 1970-01-01 00:00; a fraction of a tick is refused, not rounded.
fn ticks(civil: DateTime, tick: Tick) -> Result<Value, EncodeError> {
    let since: SignedDuration = civil.duration_since(EPOCH.to_datetime(Time::midnight()));
    let nanos = u128::try_from(since.as_nanos()).map_err(|_| EncodeError::OutOfRange)?;
    let per_tick = u128::from(Tick::Nanosecond.per_second() / tick.per_second());
    if nanos % per_tick != 0 {
        return Err(EncodeError::OutOfRange);
    }
    u64::try_from(nanos / per_tick).map(Value::Uint).map_err(|_| EncodeError::OutOfRange)
}

fn plain(json: &Json, iec: IecType) -> Result<Value, EncodeError> {
    let value = match iec.kind() {
        Kind::Bool => json.as_bool().map(Value::Bool),
        Kind::Text => json.as_str().map(|text| Value::Text(Arc::new(text.to_owned()))),
        Kind::Real => json.as_f64().map(|number| real(number, iec)),
        Kind::Unsigned
        | Kind::Signed
        | Kind::Date(_)
        | Kind::TimeOfDay(_)
        | Kind::DateAndTime(_) => {
            json.as_i64().map(Value::Int).or_else(|| json.as_u64().map(Value::Uint))
        }
    };
    value.ok_or(EncodeError::WrongKind)
}

#[expect(clippy::cast_possible_truncation, reason = "a REAL takes the nearest that it can hold")]
fn real(number: f64, iec: IecType) -> Value {
    if iec.size() == 4 { Value::Real(number as f32) } else { Value::Lreal(number) }
}
