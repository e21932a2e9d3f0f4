//! Records to message bytes, at sending time. Pure.
//!
//! Encoding this late keeps the stamp, the mark of history and the form of the payload out of
//! what is stored.

mod date;
mod view;

use std::borrow::Cow;

use jiff::tz::TimeZone;
use provisioning::config::{self, Datetime, Form, Shape};
use serde::Serialize;
use serde_json::Value;

use self::view::{Flat, Listed, Nested, Parts, Stamped};
use crate::model::{Message, Record, Sample};

/// What the queue and the process know about a message, for its `gateway` member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp<'a> {
    /// Changes at every unclean start.
    pub epoch: &'a str,
    /// Number of the message within its topic and epoch.
    pub seq: u64,
    /// Whether it is sent late.
    pub history: bool,
}

/// Encodes the records of one PLC.
#[derive(Clone, Debug)]
pub struct Encoder {
    gateway_id: String,
    location: String,
    device: String,
    machine: String,
    tags: Vec<Tag>,
    /// The user's fixed members, without those whose key is taken.
    extra: Vec<(String, Value)>,
    shape: Shape,
    datetime: Datetime,
    timezone: TimeZone,
    stamp: bool,
    /// Length that a message rarely exceeds, so that its buffer grows once.
    usual_len: usize,
}

/// What a payload says about a tag.
#[derive(Clone, Debug)]
struct Tag {
    name: String,
    unit: Option<String>,
    form: Form,
}

impl Encoder {
    /// Keys of ours that neither a tag nor an extra member may take.
    const FIXED: [&str; 6] = ["location", "datetime", "device", "machine", "samples", "gateway"];

    /// Prepares what stays the same from message to message.
    #[must_use]
    pub fn new(gateway: &config::Gateway, plc: &config::Plc) -> Self {
        let tag = |tag: &config::Tag| Tag {
            name: tag.name.clone(),
            unit: tag.unit.clone(),
            form: tag.form.clone(),
        };
        let publish = &plc.publish;
        let extra = publish.extra.iter().filter(|(key, _)| !is_taken(key, plc));
        Self {
            gateway_id: gateway.id.clone(),
            location: gateway.location.clone(),
            device: plc.device.clone(),
            machine: plc.machine.clone(),
            tags: plc.tags.iter().map(tag).collect(),
            extra: extra.map(|(key, value)| (key.clone(), value.clone())).collect(),
            shape: publish.shape,
            datetime: publish.datetime,
            timezone: gateway.timezone.clone(),
            stamp: publish.stamp,
            usual_len: usual_len(plc),
        }
    }

    /// The bytes of one message: a JSON object.
    ///
    /// Tags stand in the order of the configuration. One without a good value is `null` and named
    /// in the stamp; a value that JSON cannot hold is treated as `invalid`.
    #[must_use]
    pub fn encode(&self, record: &Record, stamp: &Stamp<'_>) -> Vec<u8> {
        let samples = in_file_order(&record.samples);
        let parts = Parts { encoder: self, at: record.at, samples: &samples, stamp };
        match self.shape {
            Shape::Flat => to_bytes(&Flat(parts), self.usual_len),
            Shape::Nested => to_bytes(&Nested(parts), self.usual_len),
            Shape::Samples => to_bytes(&Listed(parts), self.usual_len),
        }
    }
}

/// The bytes of an event or a reply: its own members, then `gateway` with id, epoch and seq.
#[must_use]
pub fn encode_message(gateway_id: &str, message: &Message, stamp: &Stamp<'_>) -> Vec<u8> {
    to_bytes(&Stamped { gateway_id, body: &message.body, stamp }, 256)
}

fn is_taken(key: &str, plc: &config::Plc) -> bool {
    let fixed = Encoder::FIXED.contains(&key);
    let tag = plc.tags.iter().any(|tag| tag.name == key);
    match plc.publish.shape {
        Shape::Flat => fixed || tag,
        Shape::Nested => tag,
        Shape::Samples => fixed,
    }
}

fn usual_len(plc: &config::Plc) -> usize {
    let per_tag = match plc.publish.shape {
        Shape::Flat | Shape::Nested => 16,
        Shape::Samples => 112,
    };
    256 + plc.tags.iter().map(|tag| tag.name.len() + per_tag).sum::<usize>()
}

fn in_file_order(samples: &[Sample]) -> Cow<'_, [Sample]> {
    if samples.is_sorted_by_key(|sample| sample.tag) {
        return Cow::Borrowed(samples);
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| sample.tag);
    Cow::Owned(sorted)
}

fn to_bytes(view: &impl Serialize, usual_len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usual_len);
    let written = serde_json::to_writer(&mut bytes, view);
    debug_assert!(written.is_ok(), "every key is text, and a Vec takes every byte: {written:?}");
    bytes
}

#[cfg(test)]
mod tests;
