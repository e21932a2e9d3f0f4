//! What the broker knows about one client: its subscriptions, and what was sent and is to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use provisioning::config::{MqttVersion, Qos};
use tokio::time::Instant;

use super::codec::Reply;
use super::core::ConnectionId;
use super::{ConnectInfo, PublishedMessage, SessionStart};

/// Most messages that wait for a client; further ones are dropped, as by Mosquitto.
pub(super) const MAX_WAITING: usize = 1_000;
/// Most unacknowledged messages unless the client allows fewer, as with Mosquitto.
const MAX_INFLIGHT: usize = 20;

/// A message for one client.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<PublishedMessage>,
    pub(super) qos: Qos,
    /// Whether it was retained before the client subscribed.
    pub(super) is_retained: bool,
    pub(super) stored_at: Instant,
}

/// A session of a client, connected or not.
#[derive(Debug, Default)]
pub(super) struct ClientSession {
    pub(super) connection: Option<ConnectionId>,
    /// When the client left; `None` while it is connected.
    pub(super) left_at: Option<Instant>,
    pub(super) user: Option<String>,
    pub(super) subscriptions: BTreeMap<String, Qos>,
    /// Whether each subscription that matches a message brings a copy of it (MQTT 5.0, 3.3.4).
    pub(super) gets_copies: bool,
    /// Packet ids of QoS 2 between PUBLISH and PUBREL of the client.
    pub(super) received: BTreeSet<u16>,
    /// How long it outlives its connection; `None` for ever.
    expiry: Option<Duration>,
    will: Option<PublishedMessage>,
    waiting: VecDeque<Delivery>,
    /// Sent and not acknowledged, in the order of sending.
    inflight: VecDeque<SentDelivery>,
    max_inflight: usize,
    last_packet_id: u16,
}

#[derive(Debug)]
struct SentDelivery {
    packet_id: u16,
    delivery: Delivery,
    /// Whether PUBREC has come, so that PUBREL follows instead of PUBLISH.
    is_received: bool,
}

impl ClientSession {
    pub(super) fn on_connect(&mut self, connection: ConnectionId, connect: &ConnectInfo) {
        self.connection = Some(connection);
        self.left_at = None;
        self.user.clone_from(&connect.username);
        // As from Mosquitto: under 3.1.1 a message comes once.
        self.gets_copies = connect.version == MqttVersion::V5;
        self.expiry = match (connect.version, connect.start, connect.session_expiry) {
            (MqttVersion::V311, SessionStart::Clean, _) => Some(Duration::ZERO),
            (MqttVersion::V311, SessionStart::Resume, _) | (MqttVersion::V5, _, u32::MAX) => None,
            (MqttVersion::V5, _, seconds) => Some(Duration::from_secs(seconds.into())),
        };
        let most = connect.receive_max.map_or(MAX_INFLIGHT, usize::from);
        self.max_inflight = most.clamp(1, MAX_INFLIGHT);
        self.will = connect.will.as_ref().map(|will| PublishedMessage {
            topic: will.topic.clone(),
            payload: will.payload.clone().into(),
            qos: will.qos,
            retain: will.retain,
            ..PublishedMessage::default()
        });
    }

    /// Records the end of the connection and returns the will.
    pub(super) fn on_closed(&mut self, now: Instant) -> Option<PublishedMessage> {
        self.connection = None;
        self.left_at = Some(now);
        // Not stored for a client that is away.
        self.waiting.retain(|delivery| delivery.qos != Qos::AtMostOnce);
        self.will.take()
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        self.expiry.is_some_and(|expiry| expiry.is_zero())
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let Some((left_at, expiry)) = self.left_at.zip(self.expiry) else { return false };
        now.saturating_duration_since(left_at) >= expiry
    }

    /// Adds a message for the client.
    pub(super) fn push(&mut self, delivery: Delivery) {
        let is_stored = self.connection.is_some() || delivery.qos != Qos::AtMostOnce;
        if is_stored && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(delivery);
        }
    }

    /// Returns what may be sent now.
    pub(super) fn poll_packets(&mut self, now: Instant) -> Vec<Reply> {
        let mut packets = Vec::new();
        while let Some(next) = self.waiting.front() {
            let is_confirmed = next.qos != Qos::AtMostOnce;
            if is_confirmed && self.inflight.len() >= self.max_inflight {
                break;
            }
            let Some(delivery) = self.waiting.pop_front() else { break };
            let packet_id = if is_confirmed { self.next_packet_id() } else { 0 };
            let Some(packet) = publish(&delivery, packet_id, false, now) else { continue };
            packets.push(packet);
            if is_confirmed {
                self.inflight.push_back(SentDelivery { packet_id, delivery, is_received: false });
            }
        }
        packets
    }

    /// Returns what is to be sent again after a reconnect (MQTT 5.0, 4.4), and what has waited.
    pub(super) fn resend(&mut self, now: Instant) -> Vec<Reply> {
        let sent = self.inflight.iter();
        let again = sent.filter_map(|SentDelivery { packet_id, delivery, is_received }| {
            if *is_received {
                Some(Reply::PubRel(*packet_id))
            } else {
                publish(delivery, *packet_id, true, now)
            }
        });
        let mut packets: Vec<_> = again.collect();
        packets.extend(self.poll_packets(now));
        packets
    }

    pub(super) fn on_acked(&mut self, packet_id: u16) {
        self.inflight.retain(|sent| sent.packet_id != packet_id);
    }

    pub(super) fn on_pubrec(&mut self, packet_id: u16) {
        for sent in self.inflight.iter_mut().filter(|sent| sent.packet_id == packet_id) {
            sent.is_received = true;
        }
    }

    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1).max(1);
            if self.inflight.iter().all(|sent| sent.packet_id != self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}

/// Returns the packet of a message; `None` once it has expired. What is left of its time is sent
/// with it (MQTT 5.0, 3.3.2.3.3).
fn publish(delivery: &Delivery, packet_id: u16, dup: bool, now: Instant) -> Option<Reply> {
    let Delivery { message, qos, is_retained, stored_at } = delivery;
    let waited = now.saturating_duration_since(*stored_at).as_secs();
    let expiry = match message.properties.expiry_seconds {
        Some(seconds) => Some(u64::from(seconds).checked_sub(waited).filter(|left| *left > 0)?),
        None => None,
    };
    let mut message = PublishedMessage::clone(message);
    message.properties.expiry_seconds = expiry.and_then(|left| u32::try_from(left).ok());
    message.qos = *qos;
    message.retain = *is_retained;
    Some(Reply::Publish { packet_id, dup, message })
}
