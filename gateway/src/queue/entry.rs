//! Entries of the queue, and how much memory they take.

use serde_json::{Map, Value};

use super::to_u64;
use crate::model::{Message, Record, Sample, UnixTime, Value as TagValue};

/// A message that waits for the broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Telemetry.
    Record(Record),
    /// An event or a reply; never dropped while telemetry waits that could be dropped instead.
    Message(Message),
}

impl Entry {
    /// Memory for the bookkeeping of one entry, rounded up.
    const OVERHEAD_BYTES: u64 = 160;
    /// Memory for one member of the body of a message, without its texts, rounded up.
    const MEMBER_BYTES: u64 = 128;

    /// Returns the estimated memory: 160 bytes for the entry and, for a record, the memory of its
    /// samples with their texts and arrays; for a message, its texts and 128 bytes for every value.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        Self::OVERHEAD_BYTES
            + match self {
                Self::Record(record) => to_u64(samples_bytes(&record.samples)),
                Self::Message(message) => {
                    to_u64(message.topic.len()) + members_bytes(&message.body)
                }
            }
    }

    pub(super) fn sample_count(&self) -> u64 {
        match self {
            Self::Record(record) => to_u64(record.samples.len()),
            Self::Message(_) => 0,
        }
    }

    pub(super) fn at(&self) -> Option<UnixTime> {
        match self {
            Self::Record(record) => Some(record.at),
            Self::Message(_) => None,
        }
    }
}

fn samples_bytes(samples: &Vec<Sample>) -> usize {
    let values = samples.iter().flat_map(|sample| &sample.value).map(TagValue::heap_bytes);
    samples.capacity() * size_of::<Sample>() + values.sum::<usize>()
}

fn members_bytes(object: &Map<String, Value>) -> u64 {
    object.iter().map(|(key, value)| to_u64(key.len()) + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> u64 {
    Entry::MEMBER_BYTES
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => to_u64(text.len()),
            Value::Array(values) => values.iter().map(value_bytes).sum(),
            Value::Object(object) => members_bytes(object),
        }
}
