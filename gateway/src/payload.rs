//! Encodes records as message payloads when they are sent. Pure.
//!
//! Encoding late keeps the stamp, the history flag and the payload format out of the stored data.

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

/// Properties of a message for its `gateway` member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessageStamp<'a> {
    /// Changes after every unclean shutdown.
    pub epoch: &'a str,
    /// Number of the message within its topic and epoch.
    pub seq: u64,
    /// Whether the message comes from the backlog.
    pub history: bool,
    /// Whether its times were corrected after the clock was set.
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
    /// The configured extra members, without those whose key is in use.
    extra: Vec<(String, Value)>,
    shape: PayloadShape,
    datetime: DatetimeFormat,
    timezone: TimeZone,
    stamp: bool,
    /// Length that few messages exceed, in bytes: the buffer is allocated once.
    typical_len: usize,
}

impl Encoder {
    /// Keys of the gateway, which neither a tag nor an extra member may use.
    const RESERVED_KEYS: [&str; 6] =
        ["location", "datetime", "device", "machine", "samples", "gateway"];

    /// Prepares everything that is the same in all messages of a PLC.
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

    /// Encodes one message: a JSON object.
    ///
    /// Tags are in the order of the configuration. A tag without a value is `null`, and the stamp
    /// names every tag whose quality is not good. A value that JSON cannot represent (NaN,
    /// infinity) is `null` and `invalid`.
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

/// Encodes an event or a reply: its own members, then `gateway` with id, epoch and seq.
#[must_use]
pub fn encode_message(gateway_id: &str, message: &Message, stamp: &MessageStamp<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    write_json(&mut bytes, &StampedBody { gateway_id, body: &message.body, stamp });
    bytes
}

/// Returns whether the key of an extra member is in use at its place in the payload.
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
