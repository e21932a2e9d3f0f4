//! What was lost, in runs of sequence numbers, and how a receiver is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::TopicId;
use crate::metrics::DropReason;
use crate::model::Message;

/// Neighbouring sequence numbers of one topic that will never be delivered, for one reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The topic whose numbers these are.
    pub topic: TopicId,
    /// First number that is missing.
    pub first_seq: u64,
    /// Last number that is missing.
    pub last_seq: u64,
    /// Samples that were in them; 0 when they were events or replies.
    pub samples: u64,
    /// Why.
    pub reason: DropReason,
}

/// A [`Gap`] as its receiver reads it. The epoch is that of the event's own stamp.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// The MQTT topic whose numbers these are.
    pub topic: String,
    /// First number that is missing.
    pub first_seq: u64,
    /// Last number that is missing, never below the first.
    pub last_seq: u64,
    /// Samples that were in them.
    pub samples: u64,
    /// Label of the [`DropReason`].
    pub reason: String,
}

impl Gap {
    /// The event that tells it:
    /// `{"event":"gap","topic":..,"first_seq":..,"last_seq":..,"samples":..,"reason":"full"}`.
    ///
    /// `events` is the topic of events, `topic` the MQTT topic that [`Gap::topic`] stands for.
    #[must_use]
    pub fn announce(&self, events: &Arc<str>, topic: &str) -> Message {
        let members: [(&str, Value); 6] = [
            ("event", "gap".into()),
            ("topic", topic.into()),
            ("first_seq", self.first_seq.into()),
            ("last_seq", self.last_seq.into()),
            ("samples", self.samples.into()),
            ("reason", self.reason.label().into()),
        ];
        let body = members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Message { topic: Arc::clone(events), body }
    }

    fn joins(&self, next: &Self) -> bool {
        self.topic == next.topic
            && self.reason == next.reason
            && self.last_seq.checked_add(1) == Some(next.first_seq)
    }
}

impl Announcement {
    /// Reads the body that [`Gap::announce`] writes; nothing when it is another event.
    #[must_use]
    pub fn parse(body: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| body.get(key)?.as_str();
        let number = |key: &str| body.get(key)?.as_u64();
        let announcement = Self {
            topic: text("topic")?.to_owned(),
            first_seq: number("first_seq")?,
            last_seq: number("last_seq")?,
            samples: number("samples")?,
            reason: text("reason")?.to_owned(),
        };
        let fits = text("event")? == "gap" && announcement.first_seq <= announcement.last_seq;
        fits.then_some(announcement)
    }
}

/// Gaps that nobody has taken yet, joined as far as they touch.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    by_first: BTreeMap<(TopicId, u64), Gap>,
}

impl Gaps {
    pub(super) fn add(&mut self, mut gap: Gap) {
        let before = self.by_first.range(..(gap.topic, gap.first_seq)).next_back();
        if let Some((&key, before)) = before.filter(|(_, before)| before.joins(&gap)) {
            gap.first_seq = before.first_seq;
            gap.samples += before.samples;
            self.by_first.remove(&key);
        }
        let after = gap.last_seq.checked_add(1).map(|seq| (gap.topic, seq));
        if let Some(after) = after.and_then(|key| self.by_first.get(&key).copied())
            && gap.joins(&after)
        {
            gap.last_seq = after.last_seq;
            gap.samples += after.samples;
            self.by_first.remove(&(after.topic, after.first_seq));
        }
        self.by_first.insert((gap.topic, gap.first_seq), gap);
    }

    pub(super) fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.by_first).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first_seq: u64, last_seq: u64, reason: DropReason) -> Gap {
        Gap { topic: TopicId::new(0), first_seq, last_seq, samples: 1, reason }
    }

    #[test]
    fn gaps_that_touch_become_one_whatever_their_order() {
        let mut gaps = Gaps::default();
        for seq in [4, 2, 3, 7] {
            gaps.add(gap(seq, seq, DropReason::Full));
        }

        let joined = Gap { samples: 3, ..gap(2, 4, DropReason::Full) };
        assert_eq!(gaps.take(), [joined, gap(7, 7, DropReason::Full)]);
        assert_eq!(gaps.take(), []);
    }

    #[test]
    fn gaps_with_different_reasons_stay_apart() {
        let mut gaps = Gaps::default();
        gaps.add(gap(0, 0, DropReason::Full));
        gaps.add(gap(1, 1, DropReason::Refused));

        assert_eq!(gaps.take().len(), 2);
    }

    #[test]
    fn an_announcement_reads_back_as_the_gap_it_tells() {
        let gap = Gap { samples: 30, ..gap(4, 6, DropReason::TooLarge) };

        let message = gap.announce(&Arc::from("edge/a/event"), "edge/a/data/p");

        insta::assert_snapshot!(
            serde_json::to_string(&message.body).unwrap(),
            @r#"{"event":"gap","topic":"edge/a/data/p","first_seq":4,"last_seq":6,"samples":30,"reason":"too_large"}"#
        );
        let read = Announcement::parse(&message.body).unwrap();
        assert_eq!((read.first_seq, read.last_seq, read.samples), (4, 6, 30));
        assert_eq!((read.topic.as_str(), read.reason.as_str()), ("edge/a/data/p", "too_large"));
    }

    #[test]
    fn another_event_or_a_reversed_run_is_no_announcement() {
        let reversed = gap(6, 4, DropReason::Full).announce(&Arc::from("e"), "t");
        let mut other = gap(4, 6, DropReason::Full).announce(&Arc::from("e"), "t");
        other.body.insert("event".to_owned(), "started".into());

        assert_eq!(Announcement::parse(&reversed.body), None);
        assert_eq!(Announcement::parse(&other.body), None);
    }
}
