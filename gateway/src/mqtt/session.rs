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

use provisioning::config::{Qos, Version};
use rumqttc::Outgoing;

use super::failure::Failure;
use super::{Incoming, Settings, session_v4, session_v5};

/// Packet ids that rumqttc uses: twice the window.
pub(super) const PACKET_IDS: u16 = 128;
/// Messages that can wait inside rumqttc: the window, a SUBSCRIBE and a DISCONNECT.
pub(super) const REQUESTS: usize = super::WINDOW + 2;
/// Longest incoming packet. Commands are small; this bounds memory.
pub(super) const LONGEST_INCOMING: u32 = 1024 * 1024;
/// Longest packet that MQTT can express (MQTT 5.0, 2.1.4).
pub(super) const LONGEST_PACKET: usize = 268_435_460;
/// rumqttc's own limit for writing, and its least for connecting. Slow uplinks need it.
pub(super) const WRITE_TIMEOUT_SECONDS: u64 = 60;

/// The half that takes messages. Never waits.
#[derive(Debug)]
pub(super) enum Publisher {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The half that moves the session on.
pub(super) enum Driver {
    V4(Box<session_v4::Driver>),
    V5(Box<session_v5::Driver>),
}

/// What the broker said when it accepted us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Accepted {
    /// Packet ids in use: ours or the broker's receive maximum, whichever is less.
    pub(super) packet_ids: u16,
    /// Longest packet that the broker takes.
    pub(super) longest_packet: Option<usize>,
    /// Highest quality of service that the broker takes.
    pub(super) qos: Qos,
    /// Whether the broker keeps messages for later subscribers.
    pub(super) retains: bool,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Signal {
    /// The oldest message given to the publisher is on its way, under this number (0 for QoS 0).
    Written(u16),
    /// A message was held back, since its number is still in use.
    HeldBack,
    /// The broker took the first of the two steps of QoS 2.
    Progress,
    /// The broker has answered for good.
    Settled { packet_id: u16, code: u8, text: Option<String>, place: Place },
    /// The broker has answered the subscription, with one code per filter.
    Subscribed(Vec<u8>),
    /// A message for us.
    Received(Incoming),
    /// Our DISCONNECT is on its way.
    Farewell,
    /// Nothing that matters to us.
    Other,
}

/// What became of a settled message's place in rumqttc's window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Free,
    /// rumqttc never frees the place of a refused PUBREC or PUBCOMP.
    Leaked,
}

/// The message or filter cannot be put into a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotSendable;

/// Prepares a session over the unix socket at `path`. Nothing happens before the driver is asked.
pub(super) fn open(settings: &Settings, path: &str) -> (Publisher, Driver) {
    match settings.mqtt.version {
        Version::V311 => {
            let (client, driver) = session_v4::open(settings, path);
            (Publisher::V4(client), Driver::V4(Box::new(driver)))
        }
        Version::V5 => {
            let (client, driver) = session_v5::open(settings, path);
            (Publisher::V5(client), Driver::V5(Box::new(driver)))
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

impl Driver {
    /// Connects and waits for the broker's answer. Called once, first.
    pub(super) async fn accepted(&mut self) -> Result<Accepted, Failure> {
        match self {
            Self::V4(driver) => driver.accepted().await,
            Self::V5(driver) => driver.accepted().await,
        }
    }

    /// Moves on until something happens. Not cancel-safe: see above. After an error the driver is
    /// good for [`Self::leftovers`] only.
    pub(super) async fn next(&mut self) -> Result<Signal, Failure> {
        match self {
            Self::V4(driver) => driver.next().await,
            Self::V5(driver) => driver.next().await,
        }
    }

    /// What had arrived before the error.
    pub(super) fn leftovers(&mut self) -> Vec<Signal> {
        match self {
            Self::V4(driver) => driver.leftovers(),
            Self::V5(driver) => driver.leftovers(),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Both versions tell outgoing packets in the same words.
pub(super) const fn outgoing(outgoing: &Outgoing) -> Signal {
    match *outgoing {
        Outgoing::Publish(packet_id) => Signal::Written(packet_id),
        Outgoing::AwaitAck(_) => Signal::HeldBack,
        Outgoing::Disconnect => Signal::Farewell,
        Outgoing::Subscribe(_)
        | Outgoing::Unsubscribe(_)
        | Outgoing::PubAck(_)
        | Outgoing::PubRec(_)
        | Outgoing::PubRel(_)
        | Outgoing::PubComp(_)
        | Outgoing::PingReq
        | Outgoing::PingResp => Signal::Other,
    }
}
