//! `[publish]` and `[plc.publish]`.

use std::time::Duration;

use super::mqtt::to_qos;
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::raw::{RawPlcPublish, RawPublish};
use crate::config::scalar::{Placeholder, TopicTemplate};
use crate::config::{DatetimeFormat, Gateway, PayloadShape, Publish, Qos};

/// Names that the payload has already.
pub(super) const RESERVED_KEYS: [&str; 6] =
    ["location", "datetime", "device", "machine", "gateway", "write"];

/// `[publish]`, whose topic is filled in for each PLC.
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
    /// Where members of `extra` come from.
    extra_at: KeyLocation,
}

/// What a topic can be made of.
pub(super) struct TopicValues<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) plc: &'a str,
    pub(super) machine: &'a str,
    pub(super) device: &'a str,
}

pub(super) fn check_publish(
    raw: &RawPublish,
    draft: &mut ReadContext<'_>,
) -> Option<PublishDefaults> {
    let topic = draft.optional(&raw.topic);
    let shape = draft.optional(&raw.payload);
    let qos = draft.optional(&raw.qos);
    let retain = draft.optional(&raw.retain);
    let datetime = draft.optional(&raw.datetime);
    let heartbeat = draft.optional(&raw.heartbeat);
    let stamp = draft.optional(&raw.stamp);
    let extra = draft.optional(&raw.extra).map(|extra| extra.0).unwrap_or_default();
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

/// `[publish]` with what `[plc.publish]` says otherwise.
pub(super) fn with_overrides(
    common: &PublishDefaults,
    raw: Option<&RawPlcPublish>,
    draft: &mut ReadContext<'_>,
) -> PublishDefaults {
    let mut publish = common.clone();
    let Some(raw) = raw else { return publish };
    if let Some(topic) = draft.optional(&raw.topic) {
        publish.topic = topic;
        publish.topic_at = raw.topic.key.clone();
    }
    if let Some(shape) = draft.optional(&raw.payload) {
        publish.shape = shape.0;
    }
    if let Some(qos) = draft.optional(&raw.qos) {
        publish.qos = to_qos(qos);
    }
    if let Some(retain) = draft.optional(&raw.retain) {
        publish.retain = retain.0;
    }
    if let Some(datetime) = draft.optional(&raw.datetime) {
        publish.datetime = datetime.0;
    }
    if let Some(heartbeat) = draft.optional(&raw.heartbeat) {
        publish.heartbeat = heartbeat.0;
    }
    if let Some(stamp) = draft.optional(&raw.stamp) {
        publish.stamp = stamp.0;
    }
    if let Some(extra) = draft.optional(&raw.extra) {
        publish.extra.extend(extra.0);
        publish.extra_at = raw.extra.key.clone();
    }
    publish
}

/// How one PLC is published.
pub(super) fn publish_of_plc(
    common: PublishDefaults,
    names: &TopicValues<'_>,
    tags: &[String],
    draft: &mut ReadContext<'_>,
) -> Option<Publish> {
    let topic = fill_topic(&common, names, draft);
    let members = check_extra(&common, names, tags, draft);
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
    })
}

fn fill_topic(
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    draft: &mut ReadContext<'_>,
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
        Ok(topic) => return reject_reserved_topic(topic, common, names, draft),
        Err((placeholder, "")) => {
            let word = placeholder.name();
            draft.reject(
                &common.topic_at,
                format!("`topic` holds {{{word}}}, and `{word}` is empty"),
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
    draft.reject(
        &common.topic_at,
        format!(
            "`topic` holds {{{word}}}, and the {word} of the PLC \"{}\" has a + or #",
            names.plc
        ),
        Some(format!("take + and # out of `{word}`, or {{{word}}} out of `topic`")),
    );
    None
}

/// Status, events, commands and replies have topics that no data may take.
fn reject_reserved_topic(
    topic: String,
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    draft: &mut ReadContext<'_>,
) -> Option<String> {
    let own = format!("edge/{}/", names.gateway.id);
    let taken = topic.strip_prefix(&own).is_some_and(|rest| {
        let level = rest.split('/').next().unwrap_or_default();
        ["status", "event", "set", "reply"].contains(&level)
    });
    if taken {
        draft.reject(
            &common.topic_at,
            format!("`topic` becomes {topic}, which the gateway uses for other messages"),
            Some(
                "write topic = \"edge/{gateway}/data/{plc}\", or any topic of your own".to_owned(),
            ),
        );
        return None;
    }
    Some(topic)
}

/// Members of `extra` and the device's name must not hide other keys of the payload.
fn check_extra(
    common: &PublishDefaults,
    names: &TopicValues<'_>,
    tags: &[String],
    draft: &mut ReadContext<'_>,
) -> Option<()> {
    let taken = common.extra.keys().find(|key| {
        RESERVED_KEYS.contains(&key.as_str()) || tags.contains(key) || *key == names.device
    });
    if let Some(key) = taken {
        draft.reject(
            &common.extra_at,
            format!("`extra` holds `{key}`, and the payload of the PLC \"{}\" has that", names.plc),
            Some("give it another name".to_owned()),
        );
        return None;
    }
    if common.shape == PayloadShape::Nested && RESERVED_KEYS.contains(&names.device) {
        draft.reject(
            &common.topic_at,
            format!("the device of the PLC \"{}\" hides the key `{}`", names.plc, names.device),
            Some("give `device` another name, for example the model".to_owned()),
        );
        return None;
    }
    Some(())
}
