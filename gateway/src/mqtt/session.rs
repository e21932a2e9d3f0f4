//! One session on rumqttc, the same for both versions of the protocol. Only this module and its
//! children name rumqttc.
//!
//! What rumqttc 0.25.1 does, and how this module deals with it:
//! - after an error it reconnects and, unless the broker kept the session, discards what was in
//!   flight: a [`SessionDriver`] is dropped after its first error, and the next session gets a new
//!   event loop;
//! - a dropped `poll` may have taken a message that was never written: the future of
//!   [`SessionDriver::next_event`] is kept until it is done, or dropped together with the driver;
//! - it does not know the packet ids of a session that the broker had kept: a PUBREL of one ends
//!   the session with an error, which `session_start` deals with. QoS 2 messages of the gateway would
//!   be lost (docs/decisions/0010), so with those no session is kept;
//! - acknowledgements that were read together with the end of the connection stay in its state:
//!   [`SessionDriver::buffered_events`].

mod types;
mod v4;
mod v5;

use std::fmt;

use provisioning::config::{MqttVersion, Qos, Secret};

use super::ClientSettings;
use super::broker_traits::ConnectRequest;
use super::failure::SessionFailure;
use super::inbox::DueAck;
use super::session_start::SessionRequest;
pub(super) use types::{ConnackLimits, MAX_PACKET_LEN, NotSendable, SessionEvent, SlotState};

/// The sending half of a session. Its methods never wait.
#[derive(Debug)]
pub(super) enum Publisher {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The half that reads and writes packets.
pub(super) enum SessionDriver {
    V4(Box<v4::DriverV4>),
    V5(Box<v5::DriverV5>),
}

/// Prepares a session over the unix socket at `path`. Nothing is sent before the driver is polled.
pub(super) fn open(
    settings: &ClientSettings,
    request: &ConnectRequest,
    session: SessionRequest,
    password: Option<&Secret>,
    path: &str,
) -> (Publisher, SessionDriver) {
    match request.version {
        MqttVersion::V311 => {
            let (client, driver) = v4::open(settings, request, session, password, path);
            (Publisher::V4(client), SessionDriver::V4(Box::new(driver)))
        }
        MqttVersion::V5 => {
            let (client, driver) = v5::open(settings, request, session, password, path);
            (Publisher::V5(client), SessionDriver::V5(Box::new(driver)))
        }
    }
}

impl Publisher {
    /// Hands a message over. The caller keeps fewer than [`super::MAX_INFLIGHT`] unacknowledged, so
    /// rumqttc's queue never overflows.
    pub(super) fn publish(
        &self,
        topic: &str,
        payload: Vec<u8>,
        qos: Qos,
        retain: bool,
        correlation_data: Option<Vec<u8>>,
    ) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => {
                client.try_publish(topic, v4::qos(qos), retain, payload).map_err(|_| NotSendable)
            }
            Self::V5(client) => match v5::properties(correlation_data) {
                None => client.try_publish(topic, v5::qos(qos), retain, payload),
                Some(properties) => client.try_publish_with_properties(
                    topic,
                    v5::qos(qos),
                    retain,
                    payload,
                    properties,
                ),
            }
            .map_err(|_| NotSendable),
        }
    }

    /// Acknowledges a message of the broker: with PUBACK at QoS 1, with PUBREC at QoS 2, after
    /// which rumqttc answers the PUBREL itself. The caller hands over few before they are written.
    pub(super) fn acknowledge(&self, ack: DueAck) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => client.try_ack(&v4::acknowledged(ack)).map_err(|_| NotSendable),
            Self::V5(client) => client.try_ack(&v5::acknowledged(ack)).map_err(|_| NotSendable),
        }
    }

    /// Ends the subscription to a filter, if there is one.
    pub(super) fn unsubscribe(&self, filter: &str) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => client.try_unsubscribe(filter).map_err(|_| NotSendable),
            Self::V5(client) => client.try_unsubscribe(filter).map_err(|_| NotSendable),
        }
    }

    /// Subscribes to all filters in one packet, at QoS 1.
    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => {
                client.try_subscribe_many(v4::filters(filters)).map_err(|_| NotSendable)
            }
            Self::V5(client) => {
                client.try_subscribe_many(v5::filters(filters)).map_err(|_| NotSendable)
            }
        }
    }

    /// Sends DISCONNECT after everything that was handed over before.
    pub(super) fn disconnect(&self) -> Result<(), NotSendable> {
        match self {
            Self::V4(client) => client.try_disconnect().map_err(|_| NotSendable),
            Self::V5(client) => client.try_disconnect().map_err(|_| NotSendable),
        }
    }
}

impl SessionDriver {
    /// Sends CONNECT and waits for CONNACK. Call it once, first.
    pub(super) async fn await_connack(&mut self) -> Result<ConnackLimits, SessionFailure> {
        match self {
            Self::V4(driver) => driver.await_connack().await,
            Self::V5(driver) => driver.await_connack().await,
        }
    }

    /// Waits for the next packet in either direction. Not cancel safe: see above. After an error
    /// only [`Self::buffered_events`] may be called.
    pub(super) async fn next_event(&mut self) -> Result<SessionEvent, SessionFailure> {
        match self {
            Self::V4(driver) => driver.next_event().await,
            Self::V5(driver) => driver.next_event().await,
        }
    }

    /// Returns the packets that had arrived before the error.
    pub(super) fn buffered_events(&mut self) -> Vec<SessionEvent> {
        match self {
            Self::V4(driver) => driver.buffered_events(),
            Self::V5(driver) => driver.buffered_events(),
        }
    }
}

impl fmt::Debug for SessionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDriver").finish_non_exhaustive()
    }
}
