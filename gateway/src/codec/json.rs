//! Converts values to JSON and back, in the JSON format of their tag.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::civil::{self, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use provisioning::config::JsonFormat;
use provisioning::plc::{DataType, IecType, TimeUnit, ValueKind};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::EncodeError;
use super::scale::MAX_EXACT_INTEGER;
use crate::model::Value;

/// A value with the JSON format of its tag. A value that has no representation in the format is
/// serialised as a plain number.
#[derive(Clone, Copy, Debug)]
pub struct FormattedValue<'a> {
    /// The value.
    pub value: &'a Value,
    /// The format.
    pub form: &'a JsonFormat,
}

impl Serialize for FormattedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, form } = *self;
        match (form, value) {
            (JsonFormat::Plain, value) => value.serialize(serializer),
            (form, Value::List(items)) => {
                let show = |value| FormattedValue { value, form };
                serializer.collect_seq(items.iter().map(|item| item.as_ref().map(show)))
            }
            (JsonFormat::Date(tick), Value::Uint(ticks)) => {
                serializer.collect_str(&civil_time(*ticks, *tick).date())
            }
            (JsonFormat::TimeOfDay(tick), Value::Uint(ticks)) => {
                serializer.collect_str(&TimeOfDayText {
                    time: civil_time(*ticks, *tick).time(),
                    tick: *tick,
                })
            }
            (JsonFormat::DateAndTime(tick, zone), Value::Uint(ticks)) => serializer
                .collect_str(&DateTimeText { civil: civil_time(*ticks, *tick), tick: *tick, zone }),
            (JsonFormat::Named(names), value) => {
                match as_integer(value).and_then(|one| names.name(one)) {
                    Some(name) => serializer.serialize_str(name),
                    None => value.serialize(serializer),
                }
            }
            (
                JsonFormat::Date(_) | JsonFormat::TimeOfDay(_) | JsonFormat::DateAndTime(..),
                value,
            ) => value.serialize(serializer),
        }
    }
}

/// Returns whether the format can represent every element of the value; an enumeration may lack a
/// name.
#[must_use]
pub fn is_representable(form: &JsonFormat, value: &Value) -> bool {
    match (form, value) {
        (JsonFormat::Named(names), Value::List(items)) => items
            .iter()
            .flatten()
            .all(|item| as_integer(item).is_some_and(|number| names.name(number).is_some())),
        (JsonFormat::Named(names), value) => {
            as_integer(value).is_some_and(|number| names.name(number).is_some())
        }
        (
            JsonFormat::Plain
            | JsonFormat::Date(_)
            | JsonFormat::TimeOfDay(_)
            | JsonFormat::DateAndTime(..),
            _,
        ) => true,
    }
}

fn as_integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        Value::Bool(_) | Value::Real(_) | Value::Lreal(_) | Value::Text(_) | Value::List(_) => None,
    }
}

/// Returns date and time of a number of ticks since 1970-01-01 00:00, up to the year 2554.
fn civil_time(ticks: u64, tick: TimeUnit) -> DateTime {
    let seconds = i64::try_from(ticks / tick.per_second()).unwrap_or(i64::MAX);
    let nanos = ticks % tick.per_second() * (TimeUnit::Nanosecond.per_second() / tick.per_second());
    let nanos = i32::try_from(nanos).unwrap_or_default();
    let at = Timestamp::new(seconds, nanos).unwrap_or(Timestamp::MAX);
    Offset::UTC.to_datetime(at)
}

/// Returns the number of digits after the decimal point of the seconds.
const fn fraction_digits(tick: TimeUnit) -> usize {
    match tick {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Nanosecond => 9,
    }
}

/// A time of day, as in `12:34:56.789`.
struct TimeOfDayText {
    time: Time,
    tick: TimeUnit,
}

impl fmt::Display for TimeOfDayText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.*}", fraction_digits(self.tick), self.time)
    }
}

/// Date and time with offset, as in `2024-02-29T12:34:56+01:00`; the offset +00:00 is written `Z`.
struct DateTimeText<'a> {
    civil: DateTime,
    tick: TimeUnit,
    zone: &'a TimeZone,
}

impl fmt::Display for DateTimeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.zone.to_timestamp(self.civil).unwrap_or(Timestamp::MAX);
        let digits = fraction_digits(self.tick);
        match self.zone.to_offset(at) {
            Offset::UTC => write!(f, "{at:.digits$}"),
            offset => write!(f, "{:.digits$}", at.display_with_offset(offset)),
        }
    }
}

/// Parses a value of a type from JSON: the inverse of [`FormattedValue`].
///
/// When a clock is set back, a local time occurs twice; the offset shows which one is meant, but
/// the PLC stores local time, so both give the same value.
///
/// # Errors
/// Fails when the JSON is of another kind than the type, or out of its range.
pub fn parse(
    json: &Json,
    data: impl Into<DataType>,
    form: &JsonFormat,
) -> Result<Value, EncodeError> {
    let data = data.into();
    let Some(bounds) = data.bounds else { return parse_scalar(json, data.element, form) };
    let items = json.as_array().filter(|items| items.len() == usize::from(bounds.elements()));
    let items = items.ok_or(EncodeError::WrongKind)?.iter();
    let items = items.map(|item| parse_scalar(item, data.element, form).map(Some));
    Ok(Value::List(Arc::new(items.collect::<Result<_, _>>()?)))
}

fn parse_scalar(json: &Json, iec: IecType, form: &JsonFormat) -> Result<Value, EncodeError> {
    let text = || json.as_str().ok_or(EncodeError::WrongKind);
    match form {
        JsonFormat::Plain => parse_plain(json, iec),
        JsonFormat::Named(names) => {
            let number = names.number(text()?).ok_or(EncodeError::OutOfRange)?;
            let int = i64::try_from(number).map(Value::Int);
            int.or_else(|_| u64::try_from(number).map(Value::Uint))
                .map_err(|_| EncodeError::OutOfRange)
        }
        JsonFormat::Date(tick) => {
            let date: civil::Date = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            to_ticks(date.to_datetime(Time::midnight()), *tick)
        }
        JsonFormat::TimeOfDay(tick) => {
            let time: Time = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            to_ticks(EPOCH.to_datetime(time), *tick)
        }
        JsonFormat::DateAndTime(tick, zone) => {
            let at: Timestamp = text()?.parse().map_err(|_| EncodeError::WrongKind)?;
            to_ticks(zone.to_datetime(at), *tick)
        }
    }
}

const EPOCH: civil::Date = civil::date(1970, 1, 1);

/// Returns the ticks since 1970-01-01 00:00. A fraction of a tick is an error; it is not rounded.
fn to_ticks(civil: DateTime, tick: TimeUnit) -> Result<Value, EncodeError> {
    let since: SignedDuration = civil.duration_since(EPOCH.to_datetime(Time::midnight()));
    let nanos = u128::try_from(since.as_nanos()).map_err(|_| EncodeError::OutOfRange)?;
    let per_tick = u128::from(TimeUnit::Nanosecond.per_second() / tick.per_second());
    if nanos % per_tick != 0 {
        return Err(EncodeError::OutOfRange);
    }
    u64::try_from(nanos / per_tick).map(Value::Uint).map_err(|_| EncodeError::OutOfRange)
}

fn parse_plain(json: &Json, iec: IecType) -> Result<Value, EncodeError> {
    let value = match iec.kind() {
        ValueKind::Bool => json.as_bool().map(Value::Bool),
        ValueKind::Text => json.as_str().map(|text| Value::Text(Arc::new(text.to_owned()))),
        ValueKind::Real => json.as_f64().map(|number| to_real(number, iec)),
        ValueKind::Unsigned
        | ValueKind::Signed
        | ValueKind::Date(_)
        | ValueKind::TimeOfDay(_)
        | ValueKind::DateAndTime(_) => {
            let signed = json.as_i64().map(Value::Int);
            signed.or_else(|| json.as_u64().map(Value::Uint)).or_else(|| whole_double(json))
        }
    };
    value.ok_or(EncodeError::WrongKind)
}

/// Returns a whole number that is written with a decimal point, as some languages do.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and below 2^53")]
fn whole_double(json: &Json) -> Option<Value> {
    let number = json.as_f64()?;
    let is_whole = number.fract() == 0.0 && number.abs() < MAX_EXACT_INTEGER;
    is_whole.then_some(Value::Int(number as i64))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a REAL takes the nearest value that it can hold"
)]
fn to_real(number: f64, iec: IecType) -> Value {
    if iec.size() == 4 { Value::Real(number as f32) } else { Value::Lreal(number) }
}
