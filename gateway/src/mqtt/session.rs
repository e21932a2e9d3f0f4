//! One life of a connection, the same for both versions of the protocol. Only the files
//! `session*.rs` name rumqttc.
//!
//! What rumqttc 0.25.1 does that its users must know, and what we do about it:
//! - after an error it reconnects by itself and, unless the broker kept the session, throws away
//!   what was under way: a [`Driver`] is dropped after its first error, a new one is made;
//! - a dropped `poll` may have taken a message that was never written: [`Driver::next`] is kept
//!   until it is done, or dropped together with the driver;
//! - acknowledgements that were read together with the end of the connection stay in its state:
//!   [`Driver::leftovers`].

use std::fmt;

use provisioning::config::{MqttVersion, Qos};
use rumqttc::Outgoing;

use super::failure::SessionFailure;
use super::{ClientSettings, IncomingMessage, session_v4, session_v5};

/// Packet ids that rumqttc uses: twice the window.
pub(super) const MAX_PACKET_IDS: u16 = 128;
/// Messages that can wait inside rumqttc: the window, a SUBSCRIBE and a DISCONNECT.
pub(super) const REQUEST_CAPACITY: usize = super::MAX_INFLIGHT + 2;
/// Longest incoming packet. Commands are small; this bounds memory.
pub(super) const MAX_INCOMING_PACKET_LEN: u32 = 1024 * 1024;
/// Longest packet that MQTT can express (MQTT 5.0, 2.1.4).
pub(super) const MAX_PACKET_LEN: usize = 268_435_460;
/// rumqttc's own limit for writing, and its least for connecting. Slow uplinks need it.
pub(super) const WRITE_TIMEOUT_SECONDS: u64 = 60;

/// The half that takes messages. Never waits.
#[derive(Debug)]
pub(super) enum Publisher {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The half that moves the session on.
pub(super) enum SessionDriver {
    V4(Box<session_v4::DriverV4>),
    V5(Box<session_v5::DriverV5>),
}

/// What the broker said when it accepted us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ConnackLimits {
    /// Packet ids in use: ours or the broker's receive maximum, whichever is less.
    pub(super) packet_ids: u16,
    /// Longest packet that the broker takes.
    pub(super) max_packet_len: Option<usize>,
    /// Highest quality of service that the broker takes.
    pub(super) max_qos: Qos,
    /// Whether the broker keeps messages for later subscribers.
    pub(super) retain_available: bool,
}

/// What happened.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// The oldest message given to the publisher is on its way, under this number (0 for QoS 0).
    Written(u16),
    /// A message was held back, since its number is still in use.
    PacketIdBusy,
    /// The broker took the first of the two steps of QoS 2.
    PubrecReceived,
    /// The broker has answered for good.
    Acked { packet_id: u16, code: u8, text: Option<String>, slot: SlotState },
    /// The broker has answered the subscription, with one code per filter.
    Subscribed(Vec<u8>),
    /// A message for us.
    Received(IncomingMessage),
    /// Our DISCONNECT is on its way.
    DisconnectSent,
    /// Nothing that matters to us.
    Other,
}

/// What became of a settled message's place in rumqttc's window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SlotState {
    Free,
    /// rumqttc never frees the place of a refused PUBREC or PUBCOMP.
    Leaked,
}

/// The message or filter cannot be put into a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotSendable;

/// Prepares a session over the unix socket at `path`. Nothing happens before the driver is asked.
pub(super) fn open(settings: &ClientSettings, path: &str) -> (Publisher, SessionDriver) {
    match settings.mqtt.version {
        MqttVersion::V311 => {
            let (client, driver) = session_v4::open(settings, path);
            (Publisher::V4(client), SessionDriver::V4(Box::new(driver)))
        }
        MqttVersion::V5 => {
            let (client, driver) = session_v5::open(settings, path);
            (Publisher::V5(client), SessionDriver::V5(Box::new(driver)))
        }
    }
}

impl Publisher {
    /// Hands a message over. The caller keeps the number of unwritten ones below [`REQUESTS`].
    pub(super) fn publish(
        &self,
        topic: &str,
        payload: Vec<u8>,
        qos: Qos,
        retain: bool,
    ) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => client
                .try_publish(topic, session_v4::qos(qos), retain, payload)
                .map_err(|_| NotSendable),
            Self::V5(client) => client
                .try_publish(topic, session_v5::qos(qos), retain, payload)
                .map_err(|_| NotSendable),
        }
    }

    /// Subscribes to all filters in one packet, at QoS 1.
    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => {
                client.try_subscribe_many(session_v4::filters(filters)).map_err(|_| NotSendable)
            }
            Self::V5(client) => {
                client.try_subscribe_many(session_v5::filters(filters)).map_err(|_| NotSendable)
            }
        }
    }

    /// Says goodbye, after what was handed over before.
    pub(super) fn disconnect(&self) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => client.try_disconnect().map_err(|_| NotSendable),
            Self::V5(client) => client.try_disconnect().map_err(|_| NotSendable),
        }
    }
}

impl SessionDriver {
    /// Connects and waits for the broker's answer. Called once, first.
    pub(super) async fn await_connack(&mut self) -> Result<ConnackLimits, SessionFailure> {
        match self {
            Self::V4(driver) => driver.await_connack().await,
            Self::V5(driver) => driver.await_connack().await,
        }
    }

    /// Moves on until something happens. Not cancel-safe: see above. After an error the driver is
    /// good for [`Self::leftovers`] only.
    pub(super) async fn next_event(&mut self) -> Result<SessionEvent, SessionFailure> {
        match self {
            Self::V4(driver) => driver.next_event().await,
            Self::V5(driver) => driver.next_event().await,
        }
    }

    /// What had arrived before the error.
    pub(super) fn buffered_events(&mut self) -> Vec<SessionEvent> {
        match self {
            Self::V4(driver) => driver.buffered_events(),
            Self::V5(driver) => driver.buffered_events(),
        }
    }
}

impl fmt::Debug for SessionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Both versions tell outgoing packets in the same words.
pub(super) const fn outgoing_event(outgoing: &Outgoing) -> SessionEvent {
    match *outgoing {
        Outgoing::Publish(packet_id) => SessionEvent::Written(packet_id),
        Outgoing::AwaitAck(_) => SessionEvent::PacketIdBusy,
        Outgoing::Disconnect => SessionEvent::DisconnectSent,
        Outgoing::Subscribe(_)
        | Outgoing::Unsubscribe(_)
        | Outgoing::PubAck(_)
        | Outgoing::PubRec(_)
        | Outgoing::PubRel(_)
        | Outgoing::PubComp(_)
        | Outgoing::PingReq
        | Outgoing::PingResp => SessionEvent::Other,
    }
}
