//! Records to message bytes, at sending time. Pure.
//!
//! Encoding this late keeps the stamp, the mark of history and the form of the payload out of
//! what is stored.

mod date;
mod object;
mod shapes;

use std::borrow::Cow;
use std::sync::Arc;

use jiff::tz::TimeZone;
use provisioning::config::{self, DatetimeFormat, PayloadShape, Tag};
use serde_json::Value;

use self::object::{TagKeys, write_json};
use self::shapes::{MessageParts, StampedBody};
use crate::model::{Message, Record, Sample};

/// What the queue and the process know about a message, for its `gateway` member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessageStamp<'a> {
    /// Changes at every unclean start.
    pub epoch: &'a str,
    /// Number of the message within its topic and epoch.
    pub seq: u64,
    /// Whether it is sent late.
    pub history: bool,
    /// Whether its times were corrected after the clock had been set.
    pub corrected: bool,
}

/// Encodes the records of one PLC.
#[derive(Clone, Debug)]
pub struct Encoder {
    gateway_id: String,
    location: String,
    device: String,
    machine: String,
    tags: Arc<Vec<Tag>>,
    keys: TagKeys,
    /// The user's fixed members, without those whose key is taken.
    extra: Vec<(String, Value)>,
    shape: PayloadShape,
    datetime: DatetimeFormat,
    timezone: TimeZone,
    stamp: bool,
    /// Length that a message rarely exceeds, so that its buffer grows once.
    typical_len: usize,
}

impl Encoder {
    /// Keys of ours that neither a tag nor an extra member may take.
    const RESERVED_KEYS: [&str; 6] =
        ["location", "datetime", "device", "machine", "samples", "gateway"];

    /// Prepares what stays the same from message to message.
    #[must_use]
    pub fn new(gateway: &config::Gateway, plc: &config::Plc) -> Self {
        let publish = &plc.publish;
        let extra = publish.extra.iter().filter(|(key, _)| !is_key_taken(key, plc));
        Self {
            gateway_id: gateway.id.clone(),
            location: gateway.location.clone(),
            device: plc.device.clone(),
            machine: plc.machine.clone(),
            keys: match publish.shape {
                PayloadShape::Flat | PayloadShape::Nested => TagKeys::of(&plc.tags),
                PayloadShape::Samples => TagKeys::default(),
            },
            tags: Arc::clone(&plc.tags),
            extra: extra.map(|(key, value)| (key.clone(), value.clone())).collect(),
            shape: publish.shape,
            datetime: publish.datetime,
            timezone: gateway.timezone.clone(),
            stamp: publish.stamp,
            typical_len: typical_len(plc),
        }
    }

    /// The bytes of one message: a JSON object.
    ///
    /// Tags stand in the order of the configuration. One without a good value is `null` and named
    /// in the stamp; a value that JSON cannot hold is treated as `invalid`.
    #[must_use]
    pub fn encode(&self, record: &Record, stamp: &MessageStamp<'_>) -> Vec<u8> {
        let samples = in_config_order(&record.samples);
        let parts = MessageParts { encoder: self, at: record.at, samples: &samples, stamp };
        let mut bytes = Vec::with_capacity(self.typical_len);
        match self.shape {
            PayloadShape::Flat => parts.write_flat(&mut bytes),
            PayloadShape::Nested => parts.write_nested(&mut bytes),
            PayloadShape::Samples => parts.write_samples(&mut bytes),
        }
        bytes
    }
}

/// The bytes of an event or a reply: its own members, then `gateway` with id, epoch and seq.
#[must_use]
pub fn encode_message(gateway_id: &str, message: &Message, stamp: &MessageStamp<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    write_json(&mut bytes, &StampedBody { gateway_id, body: &message.body, stamp });
    bytes
}

fn is_key_taken(key: &str, plc: &config::Plc) -> bool {
    let fixed = Encoder::RESERVED_KEYS.contains(&key);
    let tag = plc.tags.iter().any(|tag| tag.name == key);
    match plc.publish.shape {
        PayloadShape::Flat => fixed || tag,
        PayloadShape::Nested => tag,
        PayloadShape::Samples => fixed,
    }
}

fn typical_len(plc: &config::Plc) -> usize {
    let per_tag = match plc.publish.shape {
        PayloadShape::Flat | PayloadShape::Nested => 16,
        PayloadShape::Samples => 112,
    };
    256 + plc.tags.iter().map(|tag| tag.name.len() + per_tag).sum::<usize>()
}

fn in_config_order(samples: &[Sample]) -> Cow<'_, [Sample]> {
    if samples.is_sorted_by_key(|sample| sample.tag) {
        return Cow::Borrowed(samples);
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| sample.tag);
    Cow::Owned(sorted)
}

#[cfg(test)]
mod tests;
