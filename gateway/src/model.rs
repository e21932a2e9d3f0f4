//! The words of the data path: value, quality, sample, record.

mod escape;
mod plc;
mod reading;
mod sentence;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use escape::Escaped;
pub use plc::{
    LearnedLimits, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus, QuarantinedTag,
    RateLimit, StopCause,
};
pub use reading::{Cycle, ReadFailure, ReadOutcome, ReadResult, Registers};
pub use sentence::{Detail, Sentence};

/// A decoded value. REAL stays an `f32`, so that it prints as the shortest decimal that is it.
/// Only texts and arrays take memory beside it, which its copies share.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// BOOL.
    Bool(bool),
    /// Signed integers.
    Int(i64),
    /// Unsigned integers, bit strings, and whatever counts time.
    Uint(u64),
    /// REAL, finite.
    Real(f32),
    /// LREAL and scaled values, finite.
    Lreal(f64),
    /// STRING and WSTRING.
    Text(Arc<String>),
    /// The elements of an array; one that holds no value of its type is absent.
    List(Arc<Vec<Option<Self>>>),
}

/// How far a value can be trusted; the same words in payload, status and documents.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Quality {
    /// Read and decoded.
    Good,
    /// The last read is too long ago.
    Stale,
    /// No usable answer arrived in time.
    Unreachable,
    /// The PLC answered with a Modbus exception.
    Refused,
    /// The answer holds no value of this type: NaN, infinity, a broken text, a bad element.
    Invalid,
    /// The PLC's program does not run.
    Stopped,
    /// Taken before the clock was right.
    Unsynced,
}

/// Microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(i64);

/// One observation of one tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Index into `config::Plc::tags`.
    pub tag: u16,
    /// Absent unless the quality is one that carries a value.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// The middle of the round trip of the request that read it.
    pub at: UnixTime,
}

/// The samples of one cycle of one PLC that are published together.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// When the cycle was read: the middle of its round trips.
    pub at: UnixTime,
    /// Never empty.
    pub samples: Vec<Sample>,
}

/// A message that is ready to be sent: an event, later a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Topic.
    pub topic: Arc<str>,
    /// The members of its JSON object, to which the stamp is added at sending time.
    pub body: serde_json::Map<String, serde_json::Value>,
}

impl Quality {
    /// Every quality, best first.
    pub const ALL: [Self; 7] = [
        Self::Good,
        Self::Stale,
        Self::Unreachable,
        Self::Refused,
        Self::Invalid,
        Self::Stopped,
        Self::Unsynced,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Stale => "stale",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Stopped => "stopped",
            Self::Unsynced => "unsynced",
        }
    }
}

impl Serialize for Quality {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            Self::Real(value) => serializer.serialize_f32(*value),
            Self::Lreal(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items.iter()),
        }
    }
}

impl Value {
    /// Memory that it takes beside itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Real(_) | Self::Lreal(_) => 0,
            Self::Text(text) => size_of::<String>() + text.capacity(),
            Self::List(items) => {
                let inner = items.iter().flatten().map(Self::heap_bytes).sum::<usize>();
                size_of_val(items.as_slice()) + inner
            }
        }
    }
}

impl UnixTime {
    /// From microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds since 1970-01-01 UTC, as Prometheus wants them.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds stay exact until the year 2255")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The instant in the middle between this one and a later one.
    #[must_use]
    pub const fn midpoint(self, later: Self) -> Self {
        Self(self.0 + (later.0 - self.0) / 2)
    }
}

impl UnixTime {
    /// The same instant for calendars, rounded down to milliseconds and held within the years
    /// -9999 to 9999.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        let edge = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(self.as_millis()).unwrap_or(edge)
    }
}

/// RFC 3339 in UTC with milliseconds: `2020-06-24T10:01:44.250Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let timestamp: Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self(timestamp.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_rfc_3339_with_milliseconds() {
        assert_eq!(
            UnixTime::from_micros(1_592_992_904_250_999).to_string(),
            "2020-06-24T10:01:44.250Z"
        );
        assert_eq!(UnixTime::from_micros(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(UnixTime::from_micros(i64::MAX).to_string(), "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn a_printed_time_reads_back() {
        let at = UnixTime::from_micros(1_592_992_904_250_000);

        let text = serde_json::to_string(&at).unwrap();

        assert_eq!(serde_json::from_str::<UnixTime>(&text).unwrap(), at);
        assert!(serde_json::from_str::<UnixTime>("\"yesterday\"").is_err());
    }
}
