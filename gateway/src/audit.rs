//! The receiver's side of `seq`: finds gaps, duplicates and announced drops. Pure.
//!
//! Every message carries the id of its gateway, an epoch, and its number within topic and epoch. A
//! missing number was either announced by a gap event, or it is unaccounted for.

mod capture;
mod report;
mod stream;
mod unreachable;

use std::collections::{BTreeMap, BTreeSet};

use provisioning::config::MqttVersion;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::capture::{CaptureError, CapturedMessage, format_capture_line, parse_capture_line};
pub use self::report::{AuditReport, LEGEND, StreamReport, UncleanWindow, UnreadLines};
use self::stream::SeqStream;
pub use self::unreachable::UnreachablePeriods;
use crate::queue::{GapEvent, UncleanShutdownEvent};

/// Checks the messages of any number of gateways.
#[derive(Debug, Default)]
pub struct Auditor {
    streams: BTreeMap<StreamKey, SeqStream>,
    /// Epochs of the messages so far, by gateway.
    epochs: BTreeMap<String, BTreeSet<String>>,
    /// Unclean shutdowns by gateway and epoch: from which number on messages may be missing.
    unclean_ends: BTreeMap<(String, String), UncleanShutdownEvent>,
    unstamped: u64,
    /// Gateways that publish with MQTT 3.1.1, by their own status.
    v3_gateways: BTreeSet<String>,
    unread: Option<UnreadLines>,
    /// Whether messages were left out because they are earlier than what is asked for.
    has_earlier: bool,
}

/// Most gateways that are named for their protocol version: any client may send a status.
const MAX_V3_GATEWAYS: usize = 1000;

/// What numbers are counted by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct StreamKey {
    gateway: String,
    epoch: String,
    topic: String,
}

/// The part of a payload that the audit reads.
#[derive(Deserialize)]
struct StampedPayload {
    gateway: GatewayStamp,
}

#[derive(Deserialize)]
struct GatewayStamp {
    id: String,
    epoch: String,
    seq: u64,
    #[serde(default)]
    history: bool,
    /// Absent if all values are good.
    quality: Option<serde::de::IgnoredAny>,
}

/// The part of a status that the audit reads.
#[derive(Deserialize)]
struct StatusPayload {
    gateway: StatusGateway,
    broker: StatusBroker,
}

#[derive(Deserialize)]
struct StatusGateway {
    id: String,
}

#[derive(Deserialize)]
struct StatusBroker {
    version: String,
}

impl Auditor {
    /// Records a message.
    ///
    /// The caller leaves out retained messages: they were sent before, and an old one would count
    /// as out of order. A payload without a stamp is only counted.
    pub fn on_message(&mut self, topic: &str, payload: &[u8]) {
        let Ok(StampedPayload { gateway: stamp }) = serde_json::from_slice(payload) else {
            self.unstamped += 1;
            self.on_status(topic, payload);
            return;
        };
        let stream = self.stream(&stamp, topic);
        let is_new = stream.on_received(stamp.seq);
        if is_new && (stamp.quality.is_some() || stream.unreachable.is_open()) {
            serde_json::from_slice(payload)
                .iter()
                .for_each(|body| stream.unreachable.on_message(body));
        }
        if is_new && is_event_topic(topic, &stamp.id) {
            self.on_event(&stamp, payload);
        }
        self.epochs.entry(stamp.id).or_default().insert(stamp.epoch);
    }

    /// Records the protocol version in the status of a gateway; any other message is ignored.
    /// Unlike [`Auditor::on_message`] it may also get retained ones.
    pub fn on_status(&mut self, topic: &str, payload: &[u8]) {
        let Ok(StatusPayload { gateway, broker }) = serde_json::from_slice(payload) else { return };
        if topic != format!("edge/{}/status", gateway.id) {
            return;
        }
        if broker.version != MqttVersion::V311.as_str() {
            self.v3_gateways.remove(&gateway.id);
        } else if self.v3_gateways.len() < MAX_V3_GATEWAYS {
            self.v3_gateways.insert(gateway.id);
        }
    }

    /// Records a message that is earlier than what is asked for. It only counts as far as it
    /// announces what is missing later.
    pub fn on_earlier_message(&mut self, topic: &str, payload: &[u8]) {
        self.has_earlier = true;
        if let Ok(StampedPayload { gateway: stamp }) = serde_json::from_slice(payload)
            && is_event_topic(topic, &stamp.id)
        {
            self.on_event(&stamp, payload);
        }
    }

    /// Records a line of a capture that is no message: of another client of the broker, or cut.
    pub fn on_unread_line(&mut self, number: u64) {
        let unread = self.unread.get_or_insert(UnreadLines { count: 0, first: number });
        unread.count += 1;
    }

    /// Returns how many messages are missing and were not announced. Above 0, the audit fails.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        self.streams
            .iter()
            .map(|(key, stream)| stream.missing(self.window_start(key)).count())
            .fold(0, u64::saturating_add)
    }

    /// Returns what was found so far.
    #[must_use]
    pub fn report(&self) -> AuditReport {
        AuditReport {
            streams: self.stream_reports(),
            unstamped: self.unstamped,
            unread: self.unread,
            unaccounted: self.unaccounted(),
            v3_gateways: self.v3_gateways.iter().cloned().collect(),
        }
    }

    fn stream_reports(&self) -> Vec<StreamReport> {
        let is_asked_for = |stream: &SeqStream| !self.has_earlier || stream.received > 0;
        let all = self.streams.iter().filter(|(_, stream)| is_asked_for(stream));
        all.map(|(key, stream)| {
            let window = self.window_start(key).map(|from| UncleanWindow {
                from,
                absent: stream.absent_from(from),
                seconds: self.unclean_end(key).and_then(|end| end.seconds),
            });
            stream_report(key, stream, window)
        })
        .collect()
    }

    /// Returns the first number that may be missing because its epoch ended uncleanly.
    fn window_start(&self, key: &StreamKey) -> Option<u64> {
        let end = self.unclean_end(key)?;
        Some(end.next_seq.get(&key.topic).copied().unwrap_or(0))
    }

    fn unclean_end(&self, key: &StreamKey) -> Option<&UncleanShutdownEvent> {
        self.unclean_ends.get(&(key.gateway.clone(), key.epoch.clone()))
    }

    fn on_event(&mut self, stamp: &GatewayStamp, payload: &[u8]) {
        let body = serde_json::from_slice::<Map<String, Value>>(payload).ok();
        if let Some(gap) = body.as_ref().and_then(GapEvent::parse) {
            let range = (gap.first_seq, gap.last_seq);
            let epoch = gap.epoch.as_deref().unwrap_or(&stamp.epoch);
            self.stream_of(stamp, epoch, &gap.topic).on_announced(range, gap.samples);
        }
        if let Some(end) = body.as_ref().and_then(UncleanShutdownEvent::parse) {
            self.unclean_ends.insert((stamp.id.clone(), end.epoch.clone()), end);
        }
    }

    fn stream(&mut self, stamp: &GatewayStamp, topic: &str) -> &mut SeqStream {
        self.stream_of(stamp, &stamp.epoch, topic)
    }

    /// Returns the numbers of a topic in an epoch, which may differ from that of the message.
    fn stream_of(&mut self, stamp: &GatewayStamp, epoch: &str, topic: &str) -> &mut SeqStream {
        let key = StreamKey {
            gateway: stamp.id.clone(),
            epoch: epoch.to_owned(),
            topic: topic.to_owned(),
        };
        // An epoch that follows another one began while this audit listened: it must be complete
        // from 0. Not so an old epoch that is sent late.
        let epochs = self.epochs.get(&stamp.id);
        let follows_another = epochs.is_some_and(|all| all.iter().any(|one| one != epoch));
        let from_start = follows_another && !stamp.history && epoch == stamp.epoch;
        self.streams.entry(key).or_insert_with(|| SeqStream::new(from_start))
    }
}

fn is_event_topic(topic: &str, gateway: &str) -> bool {
    topic.strip_prefix("edge/").and_then(|rest| rest.strip_suffix("/event")) == Some(gateway)
}

fn stream_report(
    key: &StreamKey,
    stream: &SeqStream,
    window: Option<UncleanWindow>,
) -> StreamReport {
    let missing = stream.missing(window.map(|window| window.from));
    StreamReport {
        gateway: key.gateway.clone(),
        epoch: key.epoch.clone(),
        topic: key.topic.clone(),
        joined_at: stream.joined_at(),
        last_seq: stream.last(),
        received: stream.received,
        duplicates: stream.duplicates,
        reordered: stream.reordered,
        announced: stream.announced_and_missing(),
        announced_samples: stream.announced_samples,
        window,
        missing: missing.count(),
        unreachable: stream.unreachable.periods(),
        first_missing: missing.iter().take(StreamReport::MAX_RANGES).collect(),
    }
}

#[cfg(test)]
mod tests;
