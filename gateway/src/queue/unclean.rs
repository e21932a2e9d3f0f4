//! The end of a run without a shutdown, and the event that announces it to the receiver. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{TopicId, TopicTable};
use crate::metrics::DropReason;
use crate::model::Message;

/// An epoch that ended uncleanly.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UncleanShutdown {
    /// The epoch that ended.
    pub epoch: Arc<str>,
    /// Seconds of its data that may be missing at the end; `None` when the storage had failed: then
    /// everything since that was not sent.
    pub seconds: Option<u64>,
    /// The first unknown number of each topic: from here on numbers may be missing.
    pub next_seq: BTreeMap<TopicId, u64>,
}

/// The event that announces an [`UncleanShutdown`], as the receiver reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UncleanShutdownEvent {
    /// The epoch that ended.
    pub epoch: String,
    /// As [`UncleanShutdown::seconds`].
    pub seconds: Option<u64>,
    /// The first number of that epoch that may be missing, by MQTT topic.
    pub next_seq: BTreeMap<String, u64>,
}

impl UncleanShutdown {
    /// Returns the event that announces it:
    /// `{"event":"unclean_start","epoch":"k3f9ab","seconds":1,"next_seq":{"edge/g/data/p":4711}}`,
    /// with `"seconds":null,"reason":"storage"` when the storage had failed.
    #[must_use]
    pub fn to_event(&self, events: &Arc<str>, topics: &TopicTable) -> Message {
        let known =
            self.next_seq.iter().filter_map(|(topic, seq)| Some((topics.name(*topic)?, *seq)));
        let next_seq: Map<String, Value> =
            known.map(|(topic, seq)| (topic.to_string(), seq.into())).collect();
        let reason = self.seconds.is_none().then(|| DropReason::Storage.label());
        let members = [
            ("event", "unclean_start".into()),
            ("epoch", self.epoch.as_ref().into()),
            ("seconds", self.seconds.into()),
            ("next_seq", next_seq.into()),
        ];
        let members = members.into_iter().chain(reason.map(|label| ("reason", label.into())));
        let body = members.map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect();
        Message { topic: Arc::clone(events), body }
    }

    /// Reads the body that [`UncleanShutdown::to_event`] writes; `None` for another event.
    pub(super) fn parse(body: &Map<String, Value>, topics: &mut TopicTable) -> Option<Self> {
        let UncleanShutdownEvent { epoch, seconds, next_seq } = UncleanShutdownEvent::parse(body)?;
        let next_seq = next_seq.into_iter();
        let next_seq = next_seq.map(|(topic, seq)| (topics.intern(&topic.into()), seq)).collect();
        Some(Self { epoch: epoch.into(), seconds, next_seq })
    }
}

impl UncleanShutdownEvent {
    /// Reads the body that [`UncleanShutdown::to_event`] writes; `None` for another event.
    #[must_use]
    pub fn parse(body: &Map<String, Value>) -> Option<Self> {
        if body.get("event")?.as_str()? != "unclean_start" {
            return None;
        }
        let numbers = body.get("next_seq")?.as_object()?.iter();
        let number = |(topic, seq): (&String, &Value)| Some((topic.clone(), seq.as_u64()?));
        Some(Self {
            epoch: body.get("epoch")?.as_str()?.to_owned(),
            seconds: body.get("seconds").and_then(Value::as_u64),
            next_seq: numbers.map(number).collect::<Option<_>>()?,
        })
    }
}
