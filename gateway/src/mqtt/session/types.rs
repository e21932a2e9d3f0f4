//! What sessions of both versions share: limits, events, and the errors of handing something over.

use provisioning::config::Qos;
use rumqttc::Outgoing;

use crate::model::UntrustedText;
use crate::mqtt::MAX_INFLIGHT;
use crate::mqtt::inbox::{MAX_CANDIDATES, MAX_UNWRITTEN_ACKS, ReceivedPublish};

/// Packet ids that rumqttc uses: 1 to this.
pub(in crate::mqtt) const MAX_PACKET_IDS: u16 = 128;
/// Requests that fit rumqttc's queue: the in-flight window, acknowledgements, the UNSUBSCRIBEs of
/// one message, a SUBSCRIBE and a DISCONNECT.
pub(super) const REQUEST_CAPACITY: usize = MAX_INFLIGHT + MAX_UNWRITTEN_ACKS + MAX_CANDIDATES + 2;
/// Most messages of the broker that are unacknowledged at once (MQTT 5.0, 3.1.2.11.3).
pub(super) const RECEIVE_MAXIMUM: u16 = 16;
/// Longest incoming packet in bytes. Commands are small; the limit bounds memory.
pub(super) const MAX_INCOMING_PACKET_LEN: u32 = 1024 * 1024;
/// Longest packet that MQTT can express, in bytes (MQTT 5.0, 2.1.4).
pub(in crate::mqtt) const MAX_PACKET_LEN: usize = 268_435_460;
/// Time for one write, and rumqttc's limit for connecting. Slow uplinks need this long.
pub(super) const WRITE_TIMEOUT_SECONDS: u64 = 60;

/// What the broker accepts, according to its CONNACK.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::mqtt) struct ConnackLimits {
    /// Packet ids in use: [`MAX_PACKET_IDS`] or the broker's receive maximum, whichever is less.
    pub(in crate::mqtt) packet_ids: u16,
    /// Longest packet that the broker accepts, in bytes.
    pub(in crate::mqtt) max_packet_len: Option<usize>,
    /// Highest quality of service that the broker accepts.
    pub(in crate::mqtt) max_qos: Qos,
    /// Whether the broker retains messages.
    pub(in crate::mqtt) retain_available: bool,
    /// Whether the broker had kept the session.
    pub(in crate::mqtt) session_present: bool,
}

/// A packet that was sent or received.
#[derive(Debug)]
pub(in crate::mqtt) enum SessionEvent {
    /// The oldest message handed to the publisher was written, with this packet id (0 for QoS 0).
    Written(u16),
    /// A message was held back, because its packet id is still in use.
    PacketIdBusy,
    /// The broker received a message of QoS 2; its PUBCOMP is still to come.
    PubrecReceived,
    /// The broker acknowledged or refused a message.
    Acked { packet_id: u16, code: u8, text: Option<UntrustedText>, slot: SlotState },
    /// The broker answered the subscription, with one code per filter.
    Subscribed(Vec<u8>),
    /// The broker sent a message.
    Received(ReceivedPublish),
    /// An acknowledgement of a message of the broker was written.
    AckWritten,
    /// The broker answered an UNSUBSCRIBE.
    Unsubscribed,
    /// DISCONNECT was written.
    DisconnectSent,
    /// A packet that needs no action.
    Other,
}

/// What happened to an acknowledged message's slot in rumqttc's in-flight window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::mqtt) enum SlotState {
    Free,
    /// rumqttc never frees the slot of a refused PUBREC or PUBCOMP.
    Leaked,
}

/// The message or filter does not fit a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::mqtt) struct NotSendable;

/// Returns the event for a packet that rumqttc wrote; both versions report them in one type.
pub(super) const fn outgoing_event(outgoing: &Outgoing) -> SessionEvent {
    match *outgoing {
        Outgoing::Publish(packet_id) => SessionEvent::Written(packet_id),
        Outgoing::AwaitAck(_) => SessionEvent::PacketIdBusy,
        Outgoing::Disconnect => SessionEvent::DisconnectSent,
        Outgoing::PubAck(_) | Outgoing::PubRec(_) => SessionEvent::AckWritten,
        Outgoing::Subscribe(_)
        | Outgoing::Unsubscribe(_)
        | Outgoing::PubRel(_)
        | Outgoing::PubComp(_)
        | Outgoing::PingReq
        | Outgoing::PingResp => SessionEvent::Other,
    }
}
