//! The types of the data path that all modules share: value, quality, sample, record, message.

mod clock;
mod escape;
mod plc;
mod reading;
mod reply_to;
mod sentence;
mod topic;
mod write;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use provisioning::config::Tag;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use clock::{ClockPeriod, TrustLevel};
pub use escape::{Escaped, UntrustedText, is_hidden};
pub use plc::{
    LearnedLimits, LostSession, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus,
    QuarantinedTag, RateLimit, Rejection, StopCause,
};
pub use reading::{
    BadTag, Cycle, ReadFailure, ReadOutcome, ReadResult, Registers, TagHealth, TagLocation,
};
pub use reply_to::{OwnTopics, ReplyTo, ReplyToError};
pub use sentence::{Detail, Sentence, with_sources};
pub use topic::{filter_matches, is_topic_filter};
pub use write::{
    ImageContent, ImageReport, ImageState, MaskedWord, NotSentReason, OrderOutcome, OrderReport,
    OrderTask, PlcOrder, TagImage,
};

/// A decoded value. REAL stays an `f32`, so that it prints as the shortest decimal of that REAL.
/// Only texts and arrays use heap memory, which clones share.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// BOOL.
    Bool(bool),
    /// Signed integers.
    Int(i64),
    /// Unsigned integers, bit strings, durations, dates and times.
    Uint(u64),
    /// REAL, finite.
    Real(f32),
    /// LREAL and scaled values, finite.
    Lreal(f64),
    /// STRING and WSTRING.
    Text(Arc<String>),
    /// The elements of an array; an element without a valid value is `None`.
    List(Arc<Vec<Option<Self>>>),
}

/// How far a value can be trusted; the words are the same in messages, status and documentation.
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
    /// The answer is not a valid value of the type: NaN, infinity, malformed text, a bad element.
    Invalid,
    /// The program of the PLC does not run.
    Stopped,
    /// Taken while the clock was known to be wrong.
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
    /// `None` unless the quality is one with a value.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// The middle of the round trip of the request that read it.
    pub at: UnixTime,
}

/// What was read last of one tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatestValue<'a> {
    /// The tag.
    pub tag: &'a Tag,
    /// `None` unless the quality is one with a value.
    pub value: Option<&'a Value>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// When it was read; `None` before the first time.
    pub at: Option<UnixTime>,
}

/// The samples of one cycle of one PLC that are published together.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// When the cycle was read: the middle of its round trips.
    pub at: UnixTime,
    /// The clock that gave the times; `None` when it is not known, as that of an earlier boot.
    pub clock: Option<ClockPeriod>,
    /// Never empty.
    pub samples: Vec<Sample>,
}

/// A message that is ready to be sent, such as an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Topic.
    pub topic: Arc<str>,
    /// The members of its JSON object; the stamp is added when it is sent.
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

    /// Returns its word in JSON.
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
    /// Returns the size of its heap memory in bytes.
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
    /// Returns the time at this number of microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the milliseconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the time at this number of seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_whole_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Returns the whole seconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn as_whole_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns the seconds since 1970-01-01 UTC, the unit of Prometheus.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds stay exact until the year 2255")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Returns the time in the middle between this one and a later one.
    #[must_use]
    pub const fn midpoint(self, later: Self) -> Self {
        Self(self.0 + (later.0 - self.0) / 2)
    }
}

impl UnixTime {
    /// Returns the time as a date, rounded down to milliseconds and limited to the years -9999 to
    /// 9999.
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
