//! What a receiver has to know when a gateway ended without saying goodbye. Pure.

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
    /// How many seconds of its data may be missing at the end; nothing when the storage had failed:
    /// then everything that was not sent since.
    pub seconds: Option<u64>,
    /// The first number of each topic that is not known: from here on numbers may be missing.
    pub next_seq: BTreeMap<TopicId, u64>,
}

/// An [`Unclean`] as its receiver reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UncleanShutdownEvent {
    /// The epoch that ended.
    pub epoch: String,
    /// As [`Unclean::seconds`].
    pub seconds: Option<u64>,
    /// By topic, the first number from which on numbers of that epoch may be missing.
    pub next_seq: BTreeMap<String, u64>,
}

impl UncleanShutdown {
    /// The event that tells it:
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

    /// Reads back what [`Unclean::announce`] wrote.
    pub(super) fn parse(body: &Map<String, Value>, topics: &mut TopicTable) -> Option<Self> {
        let start = UncleanShutdownEvent::parse(body)?;
        Some(Self {
            epoch: start.epoch.into(),
            seconds: start.seconds,
            next_seq: start
                .next_seq
                .into_iter()
                .map(|(topic, seq)| (topics.intern(&topic.into()), seq))
                .collect(),
        })
    }
}

impl UncleanShutdownEvent {
    /// Reads the body that [`Unclean::announce`] writes; nothing when it is another event.
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
