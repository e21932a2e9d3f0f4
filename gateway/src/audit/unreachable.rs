//! How long the values of a topic were `unreachable`, according to the messages.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::Quality;

/// Most tags of a topic that are followed; a PLC that is away takes all of its tags along.
const MAX_TAGS: usize = 1_000;

/// Times in which the PLC behind a topic gave no usable answer for some of its values.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct UnreachablePeriods {
    /// How often values became unreachable.
    pub periods: u64,
    /// How long values were unreachable in all, in seconds.
    pub seconds: u64,
}

/// Follows the quality of the values of one topic.
#[derive(Debug, Default)]
pub(super) struct UnreachableTracker {
    periods: u64,
    ended: Duration,
    /// Tags that are unreachable.
    tags: BTreeSet<String>,
    /// Time at which the first of these became so.
    since: Option<Timestamp>,
    /// Time of the latest message.
    latest: Option<Timestamp>,
}

impl UnreachableTracker {
    /// Returns whether values are unreachable, so that every message counts.
    pub(super) const fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// Records the values of a message. One that is older than the latest changes nothing.
    pub(super) fn on_message(&mut self, payload: &Map<String, Value>) {
        let Some(at) = message_time(payload) else { return };
        if self.latest.is_some_and(|latest| at < latest) {
            return;
        }
        self.latest = Some(at);
        let quality = payload.get("gateway").and_then(|stamp| stamp.get("quality"));
        let is_unreachable = |tag: &str| {
            let found = quality.and_then(|all| all.get(tag)).and_then(Value::as_str);
            found == Some(Quality::Unreachable.as_str())
        };
        // Tags of another scan are in messages of their own.
        self.tags.retain(|tag| is_unreachable(tag) || !has_tag(payload, tag));
        for tag in quality.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if is_unreachable(tag) && self.tags.len() < MAX_TAGS {
                self.tags.insert(tag.clone());
            }
        }
        match self.since {
            None if !self.tags.is_empty() => {
                self.periods += 1;
                self.since = Some(at);
            }
            Some(since) if self.tags.is_empty() => {
                self.ended += between(since, at);
                self.since = None;
            }
            _ => {}
        }
    }

    /// Returns what was found; a period that has not ended counts up to the latest message.
    pub(super) fn periods(&self) -> Option<UnreachablePeriods> {
        let open = self.since.zip(self.latest).map(|(since, latest)| between(since, latest));
        let seconds = (self.ended + open.unwrap_or_default()).as_secs();
        (self.periods > 0).then_some(UnreachablePeriods { periods: self.periods, seconds })
    }
}

fn between(since: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(since)).unwrap_or_default()
}

/// Returns whether a message carries this tag, in any of the three forms.
fn has_tag(payload: &Map<String, Value>, tag: &str) -> bool {
    let in_samples = |value: &Value| {
        let named = |sample: &Value| sample.get("tag").and_then(Value::as_str) == Some(tag);
        value.as_array().is_some_and(|samples| samples.iter().any(named))
    };
    let in_nested = |(member, value): (&String, &Value)| {
        member != "gateway" && value.as_object().is_some_and(|values| values.contains_key(tag))
    };
    payload.contains_key(tag)
        || payload.get("samples").is_some_and(in_samples)
        || payload.iter().any(in_nested)
}

/// Returns when the values of a message were read; of `samples` the latest.
fn message_time(payload: &Map<String, Value>) -> Option<Timestamp> {
    let stamp = || payload.get("gateway").and_then(|stamp| stamp.get("datetime"));
    let samples = || {
        let samples = payload.get("samples").and_then(Value::as_array)?;
        samples.iter().filter_map(|sample| timestamp(sample.get("datetime")?)).max()
    };
    payload.get("datetime").or_else(stamp).and_then(timestamp).or_else(samples)
}

/// Reads a time in any of the forms of `publish.datetime`. One without a zone is taken as UTC: only
/// differences matter.
fn timestamp(value: &Value) -> Option<Timestamp> {
    if let Some(milliseconds) = value.as_i64() {
        return Timestamp::from_millisecond(milliseconds).ok();
    }
    let text = value.as_str()?;
    let without_zone = || {
        let local = text.parse::<DateTime>().ok()?;
        TimeZone::UTC.to_timestamp(local).ok()
    };
    text.parse().ok().or_else(without_zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn periods(messages: &[&str]) -> Option<UnreachablePeriods> {
        let mut tracker = UnreachableTracker::default();
        for message in messages {
            tracker.on_message(&serde_json::from_str(message).unwrap());
        }
        tracker.periods()
    }

    #[test]
    fn a_period_lasts_until_every_tag_has_a_value_again_in_every_form() {
        let found = Some(UnreachablePeriods { periods: 1, seconds: 6 });
        let flat = [
            r#"{"datetime":"2026-12-01T10:00:00Z","a":1,"b":2,"gateway":{}}"#,
            r#"{"datetime":"2026-12-01T10:00:01Z","a":null,"b":null,"gateway":{"quality":{"a":"unreachable","b":"unreachable"}}}"#,
            r#"{"datetime":"2026-12-01T10:00:02Z","other":5,"gateway":{}}"#,
            r#"{"datetime":"2026-12-01T10:00:04Z","a":3,"b":null,"gateway":{"quality":{"b":"unreachable"}}}"#,
            r#"{"datetime":"2026-12-01T10:00:07Z","a":3,"b":4,"gateway":{}}"#,
            r#"{"datetime":"2026-12-01T10:00:09Z","a":null,"b":4,"gateway":{"quality":{"a":"refused"}}}"#,
        ];
        let nested = [
            r#"{"p":{"id":null},"gateway":{"id":"g","datetime":"2026-12-01 10:00:01","quality":{"id":"unreachable"}}}"#,
            r#"{"p":{"b":1},"gateway":{"id":"g","datetime":"2026-12-01 10:00:03"}}"#,
            r#"{"p":{"id":1},"gateway":{"id":"g","datetime":"2026-12-01 10:00:07"}}"#,
            r#"{"p":{"id":1},"gateway":{"id":"g","datetime":"2026-12-01 10:00:09"}}"#,
        ];
        let samples = [
            r#"{"samples":[{"tag":"a","value":null,"datetime":1000}],"gateway":{"quality":{"a":"unreachable"}}}"#,
            r#"{"samples":[{"tag":"b","value":1,"datetime":2000}],"gateway":{}}"#,
            r#"{"samples":[{"tag":"a","value":1,"datetime":7000}],"gateway":{}}"#,
            r#"{"samples":[{"tag":"a","value":1,"datetime":9000}],"gateway":{}}"#,
        ];
        for messages in [&flat[..], &nested, &samples] {
            assert_eq!(periods(messages), found, "{messages:?}");
        }
    }

    #[test]
    fn a_period_that_has_not_ended_counts_up_to_the_latest_message() {
        let away = |second: u32| {
            format!(
                r#"{{"datetime":{second}000,"a":null,"gateway":{{"quality":{{"a":"unreachable"}}}}}}"#
            )
        };
        let messages = [away(10), away(70), away(20)];
        let messages: Vec<_> = messages.iter().map(String::as_str).collect();
        assert_eq!(periods(&messages), Some(UnreachablePeriods { periods: 1, seconds: 60 }));
        assert_eq!(periods(&[r#"{"datetime":1,"a":1}"#, r#"{"a":1,"gateway":{}}"#]), None);
    }

    #[test]
    fn two_messages_of_the_same_instant_count_both() {
        let away = |tag: &str| {
            format!(
                r#"{{"datetime":1000,"{tag}":null,"gateway":{{"quality":{{"{tag}":"unreachable"}}}}}}"#
            )
        };
        let (a, b) = (away("a"), away("b"));
        let back = [r#"{"datetime":3000,"a":1,"gateway":{}}"#, r#"{"datetime":5000,"b":1}"#];
        let found = Some(UnreachablePeriods { periods: 1, seconds: 4 });
        assert_eq!(periods(&[&a, &b, back[0], back[1]]), found);
    }

    /// Any client can send a message with any number of tags.
    #[test]
    fn a_thousand_tags_are_followed_and_no_more() {
        let members = |tags: usize, value: &str| {
            let members: Vec<_> = (0..tags).map(|tag| format!(r#""t{tag}":{value}"#)).collect();
            members.join(",")
        };
        let away = |second: u32, tags| {
            let (values, quality) = (members(tags, "null"), members(tags, r#""unreachable""#));
            format!(r#"{{"datetime":{second}000,{values},"gateway":{{"quality":{{{quality}}}}}}}"#)
        };
        let back =
            |second: u32, tags| format!(r#"{{"datetime":{second}000,{}}}"#, members(tags, "1"));
        for (tags, returned, seconds) in [(1000, 999, 8), (1001, 1000, 3)] {
            let messages = [away(1, tags), back(4, returned), back(9, 1)];
            let messages: Vec<_> = messages.iter().map(String::as_str).collect();
            assert_eq!(periods(&messages), Some(UnreachablePeriods { periods: 1, seconds }));
        }
    }
}
