//! `[publish]` and `[plc.publish]`.

use std::time::Duration;

use super::mqtt::to_qos;
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::raw::{RawPlcPublish, RawPublish};
use crate::config::scalar::{Placeholder, TopicTemplate};
use crate::config::{DatetimeFormat, Gateway, PayloadShape, Publish, Qos};

/// Keys that the gateway itself puts into the payload.
pub(super) const RESERVED_KEYS: [&str; 6] =
    ["location", "datetime", "device", "machine", "gateway", "write"];

/// Checked `[publish]`; placeholders of the topic are replaced for each PLC.
#[derive(Clone)]
pub(super) struct PublishDefaults {
    topic: TopicTemplate,
    topic_at: KeyLocation,
    shape: PayloadShape,
    qos: Qos,
    retain: bool,
    datetime: DatetimeFormat,
    heartbeat: Duration,
    stamp: bool,
    extra: serde_json::Map<String, serde_json::Value>,
    /// Key that set the last members of `extra`.
    extra_at: KeyLocation,
}

/// Values of the placeholders in a topic.
pub(super) struct TopicValues<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) plc: &'a str,
    pub(super) machine: &'a str,
    pub(super) device: &'a str,
}

pub(super) fn check_publish(
    raw: &RawPublish,
    context: &mut ReadContext<'_>,
) -> Option<PublishDefaults> {
    let topic = raw.topic.optional(context);
    let shape = raw.payload.optional(context);
    let qos = raw.qos.optional(context);
    let retain = raw.retain.optional(context);
    let datetime = raw.datetime.optional(context);
    let heartbeat = raw.heartbeat.optional(context);
    let stamp = raw.stamp.optional(context);
    let extra = raw.extra.optional(context).map(|extra| extra.0).unwrap_or_default();
    Some(PublishDefaults {
        topic: topic?,
        topic_at: raw.topic.key.clone(),
        shape: shape?.0,
        qos: to_qos(qos?),
        retain: retain?.0,
        datetime: datetime?.0,
        heartbeat: heartbeat?.0,
        stamp: stamp?.0,
        extra,
        extra_at: raw.extra.key.clone(),
    })
}

/// Returns `[publish]` with the overrides of `[plc.publish]`.
pub(super) fn with_overrides(
    common: &PublishDefaults,
    raw: Option<&RawPlcPublish>,
    context: &mut ReadContext<'_>,
) -> PublishDefaults {
    let mut publish = common.clone();
    let Some(raw) = raw else { return publish };
    if let Some(topic) = raw.topic.optional(context) {
        publish.topic = topic;
        publish.topic_at = raw.topic.key.clone();
    }
    if let Some(shape) = raw.payload.optional(context) {
        publish.shape = shape.0;
    }
    if let Some(qos) = raw.qos.optional(context) {
        publish.qos = to_qos(qos);
    }
    if let Some(retain) = raw.retain.optional(context) {
        publish.retain = retain.0;
    }
    if let Some(datetime) = raw.datetime.optional(context) {
        publish.datetime = datetime.0;
    }
    if let Some(heartbeat) = raw.heartbeat.optional(context) {
        publish.heartbeat = heartbeat.0;
    }
    if let Some(stamp) = raw.stamp.optional(context) {
        publish.stamp = stamp.0;
    }
    if let Some(extra) = raw.extra.optional(context) {
        publish.extra.extend(extra.0);
        publish.extra_at = raw.extra.key.clone();
    }
    publish
}

/// Returns the settings for one PLC.
pub(super) fn publish_of_plc(
    common: PublishDefaults,
    names: &TopicValues<'_>,
    tags: &[String],
    context: &mut ReadContext<'_>,
) -> Option<Publish> {
    let topic = fill_topic(&common, names, context);
    let members = check_extra(&common, names, tags, context);
    members?;
    Some(Publish {
        topic: topic?,
        shape: common.shape,
        qos: common.qos,
        retain: common.retain,
        datetime: common.datetime,
        heartbeat: common.heartbeat,
        stamp: common.stamp,
        extra: common.extra,
        on: None,
    })
}

fn fill_topic(
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    context: &mut ReadContext<'_>,
) -> Option<String> {
    let filled = common.topic.fill(|placeholder| {
        let value = match placeholder {
            Placeholder::Gateway => names.gateway.id.as_str(),
            Placeholder::Location => names.gateway.location.as_str(),
            Placeholder::Machine => names.machine,
            Placeholder::Device => names.device,
            Placeholder::Plc => names.plc,
        };
        let wild = |c: char| matches!(c, '+' | '#');
        if value.is_empty() || value.contains(wild) { Err((placeholder, value)) } else { Ok(value) }
    });
    let word = match filled {
        Ok(topic) => return reject_reserved_topic(topic, common, names, context),
        Err((placeholder, "")) => {
            let word = placeholder.name();
            context.reject(
                &common.topic_at,
                format!("`topic` contains {{{word}}}, but `{word}` is empty"),
                Some(if placeholder == Placeholder::Location {
                    "add location = \"...\" below [gateway]".to_owned()
                } else {
                    format!("set {word} of the PLC \"{}\"", names.plc)
                }),
            );
            return None;
        }
        Err((placeholder, _)) => placeholder.name(),
    };
    context.reject(
        &common.topic_at,
        format!(
            "`topic` contains {{{word}}}, but the {word} of the PLC \"{}\" contains + or #",
            names.plc
        ),
        Some(format!("remove + and # from `{word}`, or {{{word}}} from `topic`")),
    );
    None
}

/// Maximum length of a topic. MQTT allows 65,535 bytes, but each message carries its topic.
const MAX_TOPIC_BYTES: usize = 1_024;

/// Rejects topics that are too long, and those that the gateway uses for status, events, commands
/// and replies.
fn reject_reserved_topic(
    topic: String,
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    context: &mut ReadContext<'_>,
) -> Option<String> {
    let own = format!("edge/{}/", names.gateway.id);
    if topic.len() > MAX_TOPIC_BYTES {
        let message = format!("`topic` of the PLC \"{}\" is too long", names.plc);
        let help = format!("a topic has at most {MAX_TOPIC_BYTES} bytes");
        context.reject(&common.topic_at, message, Some(help));
        return None;
    }
    let conflict = topic.strip_prefix(&own).is_some_and(|rest| {
        let level = rest.split('/').next().unwrap_or_default();
        ["status", "event", "set", "reply"].contains(&level)
    });
    if conflict {
        context.reject(
            &common.topic_at,
            format!("`topic` is {topic} here, which the gateway uses for other messages"),
            Some("write topic = \"edge/{gateway}/data/{plc}\", or another topic".to_owned()),
        );
        return None;
    }
    Some(topic)
}

/// Checks that members of `extra` and the device's name do not replace other keys of the payload.
fn check_extra(
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    tags: &[String],
    context: &mut ReadContext<'_>,
) -> Option<()> {
    let is_tag = |key: &str| tags.iter().any(|tag| tag == key);
    let conflict = common
        .extra
        .keys()
        .find(|key| RESERVED_KEYS.contains(&key.as_str()) || *key == names.device || is_tag(key));
    if let Some(key) = conflict {
        context.reject(
            &common.extra_at,
            format!(
                "`extra` contains `{key}`, which the payload of the PLC \"{}\" already has",
                names.plc
            ),
            Some("give it another name".to_owned()),
        );
        return None;
    }
    if common.shape == PayloadShape::Nested && RESERVED_KEYS.contains(&names.device) {
        context.reject(
            &common.topic_at,
            format!("the device of the PLC \"{}\" replaces the key `{}`", names.plc, names.device),
            Some("give `device` another name, for example the model".to_owned()),
        );
        return None;
    }
    Some(())
}
