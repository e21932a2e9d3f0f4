//! Lost ranges of sequence numbers, and the event that announces one to the receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::TopicId;
use crate::metrics::DropReason;
use crate::model::Message;

/// Consecutive sequence numbers of one topic that will never be delivered, for one reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The epoch of the numbers.
    pub epoch: Arc<str>,
    /// The topic of the numbers.
    pub topic: TopicId,
    /// First missing number.
    pub first_seq: u64,
    /// Last missing number.
    pub last_seq: u64,
    /// Samples that were in them; 0 for events and replies.
    pub samples: u64,
    /// Why they are lost.
    pub reason: DropReason,
}

/// The event that announces a [`Gap`], as the receiver reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GapEvent {
    /// The epoch of the numbers; `None` for the epoch of the event itself.
    pub epoch: Option<String>,
    /// The MQTT topic of the numbers.
    pub topic: String,
    /// First missing number.
    pub first_seq: u64,
    /// Last missing number, never below the first.
    pub last_seq: u64,
    /// Samples that were in them.
    pub samples: u64,
    /// Label of the [`DropReason`].
    pub reason: String,
}

impl Gap {
    /// Returns the gap that a single entry leaves: its topic, epoch and number.
    pub(super) fn single(
        (topic, epoch, seq): (TopicId, &Arc<str>, u64),
        samples: u64,
        reason: DropReason,
    ) -> Self {
        let epoch = Arc::clone(epoch);
        Self { epoch, topic, first_seq: seq, last_seq: seq, samples, reason }
    }

    /// Returns the event that announces it: a JSON object with `event` (`"gap"`), `topic`,
    /// `epoch`, `first_seq`, `last_seq`, `samples` and `reason`.
    ///
    /// `events` is the MQTT topic of events, `topic` the one that [`Gap::topic`] stands for.
    #[must_use]
    pub fn to_event(&self, events: &Arc<str>, topic: &str) -> Message {
        let members: [(&str, Value); 7] = [
            ("event", "gap".into()),
            ("topic", topic.into()),
            ("epoch", self.epoch.as_ref().into()),
            ("first_seq", self.first_seq.into()),
            ("last_seq", self.last_seq.into()),
            ("samples", self.samples.into()),
            ("reason", self.reason.label().into()),
        ];
        let body = members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Message { topic: Arc::clone(events), body }
    }

    fn covers(&self, other: &Self) -> bool {
        self.topic == other.topic
            && self.epoch == other.epoch
            && self.first_seq <= other.first_seq
            && other.last_seq <= self.last_seq
    }

    fn joins(&self, next: &Self) -> bool {
        self.topic == next.topic
            && self.epoch == next.epoch
            && self.reason == next.reason
            && self.last_seq.checked_add(1) == Some(next.first_seq)
    }
}

impl GapEvent {
    /// Reads the body that [`Gap::to_event`] writes; `None` for another event.
    #[must_use]
    pub fn parse(body: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| body.get(key)?.as_str();
        let number = |key: &str| body.get(key)?.as_u64();
        let announcement = Self {
            epoch: text("epoch").map(str::to_owned),
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

/// Gaps that are not announced yet, joined where they touch.
#[derive(Clone, Debug, Default)]
pub(super) struct GapSet {
    by_first: BTreeMap<GapKey, Gap>,
    /// Those that are new or have grown since [`GapSet::take_changed`].
    changed: BTreeSet<GapKey>,
}

/// Topic, epoch, first number.
type GapKey = (TopicId, Arc<str>, u64);

impl GapSet {
    pub(super) fn add(&mut self, mut gap: Gap) {
        let key = |gap: &Gap| (gap.topic, Arc::clone(&gap.epoch), gap.first_seq);
        let before = self.by_first.range(..key(&gap)).next_back();
        if let Some((key, before)) = before.filter(|(_, before)| before.joins(&gap)) {
            gap.first_seq = before.first_seq;
            gap.samples += before.samples;
            let key = key.clone();
            self.by_first.remove(&key);
        }
        let after = gap.last_seq.checked_add(1);
        let after = after.map(|seq| (gap.topic, Arc::clone(&gap.epoch), seq));
        if let Some(after) = after.and_then(|key| self.by_first.get(&key).cloned())
            && gap.joins(&after)
        {
            gap.last_seq = after.last_seq;
            gap.samples += after.samples;
            self.by_first.remove(&key(&after));
        }
        // Numbers that are lost twice, for two reasons, are announced once.
        let key = key(&gap);
        let before = self.by_first.range(..=&key).next_back();
        if before.is_some_and(|(_, before)| before.covers(&gap)) {
            return;
        }
        let end = (gap.topic, Arc::clone(&gap.epoch), gap.last_seq);
        let within = self.by_first.range(&key..=&end).filter(|(_, within)| gap.covers(within));
        let within: Vec<GapKey> = within.map(|(key, _)| key.clone()).collect();
        within.iter().for_each(|key| drop(self.by_first.remove(key)));
        self.changed.insert(key.clone());
        self.by_first.insert(key, gap);
    }

    /// Removes the gaps within these numbers.
    pub(super) fn remove(&mut self, epoch: &Arc<str>, topic: TopicId, (first, last): (u64, u64)) {
        self.by_first.retain(|_, gap| {
            let is_within = first <= gap.first_seq && gap.last_seq <= last;
            gap.topic != topic || gap.epoch != *epoch || !is_within
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.by_first.values()
    }

    pub(super) fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.by_first).into_values().collect()
    }

    /// Returns the gaps that are ready, and new or grown since the last call.
    pub(super) fn take_changed(&mut self, is_ready: impl Fn(&Gap) -> bool) -> Vec<Gap> {
        let Self { by_first, changed } = self;
        changed.retain(|key| by_first.contains_key(key));
        let ready: Vec<Gap> = changed
            .iter()
            .filter_map(|key| by_first.get(key))
            .filter(|gap| is_ready(gap))
            .cloned()
            .collect();
        changed.retain(|key| by_first.get(key).is_some_and(|gap| !is_ready(gap)));
        ready
    }

    /// Returns whether the gap is new or has grown since [`GapSet::take_changed`].
    pub(super) fn is_changed(&self, gap: &Gap) -> bool {
        self.changed.contains(&(gap.topic, Arc::clone(&gap.epoch), gap.first_seq))
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first_seq: u64, last_seq: u64, reason: DropReason) -> Gap {
        Gap { epoch: "e".into(), topic: TopicId::new(0), first_seq, last_seq, samples: 1, reason }
    }

    #[test]
    fn gaps_that_touch_are_joined_in_any_order() {
        let mut gaps = GapSet::default();
        for seq in [4, 2, 3, 7] {
            gaps.add(gap(seq, seq, DropReason::Full));
        }

        let joined = Gap { samples: 3, ..gap(2, 4, DropReason::Full) };
        assert_eq!(gaps.take(), [joined, gap(7, 7, DropReason::Full)]);
        assert_eq!(gaps.take(), []);
    }

    #[test]
    fn numbers_that_are_lost_twice_are_announced_once() {
        let mut gaps = GapSet::default();
        for (first, last) in [(3, 5), (4, 5), (8, 9), (2, 10)] {
            gaps.add(gap(first, last, DropReason::Full));
            gaps.add(gap(first, first, DropReason::Corrupt));
        }

        assert_eq!(gaps.take(), [gap(2, 10, DropReason::Full)]);
    }

    #[test]
    fn gaps_with_different_reasons_are_not_joined() {
        let mut gaps = GapSet::default();
        gaps.add(gap(0, 0, DropReason::Full));
        gaps.add(gap(1, 1, DropReason::Refused));

        assert_eq!(gaps.take().len(), 2);
    }

    #[test]
    fn an_event_reads_back_as_the_gap_that_it_announces() {
        let gap = Gap { samples: 30, ..gap(4, 6, DropReason::TooLarge) };

        let message = gap.to_event(&Arc::from("edge/a/event"), "edge/a/data/p");

        insta::assert_snapshot!(
            serde_json::to_string(&message.body).unwrap(),
            @r#"{"event":"gap","topic":"edge/a/data/p","epoch":"e","first_seq":4,"last_seq":6,"samples":30,"reason":"too_large"}"#
        );
        let read = GapEvent::parse(&message.body).unwrap();
        assert_eq!((read.first_seq, read.last_seq, read.samples), (4, 6, 30));
        assert_eq!((read.topic.as_str(), read.reason.as_str()), ("edge/a/data/p", "too_large"));
    }

    #[test]
    fn another_event_and_a_reversed_range_are_no_gap_events() {
        let reversed = gap(6, 4, DropReason::Full).to_event(&Arc::from("e"), "t");
        let mut other = gap(4, 6, DropReason::Full).to_event(&Arc::from("e"), "t");
        other.body.insert("event".to_owned(), "started".into());

        assert_eq!(GapEvent::parse(&reversed.body), None);
        assert_eq!(GapEvent::parse(&other.body), None);
    }
}
