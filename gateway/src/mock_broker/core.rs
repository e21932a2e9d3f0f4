//! Sessions, subscriptions, retained messages and access: what a broker does with messages, without
//! sockets and without a clock. Pure.
//!
//! `gateway/tests/mosquitto/same_messages.rs` compares it with Mosquitto, message by message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use provisioning::config::Qos;
use tokio::time::Instant;

use super::access::AccessList;
use super::codec::Reply;
use super::session::{ClientSession, Delivery, MAX_WAITING};
use super::{ConnectInfo, DisconnectKind, PublishedMessage, SessionStart};
use crate::model::{filter_matches, is_topic_filter};

/// Most sessions, connected or kept; the one that was left first makes room.
const MAX_SESSIONS: usize = 256;
/// Most subscriptions of a session.
const MAX_SUBSCRIPTIONS: usize = 256;
/// Most topics with a retained message; further ones are not retained.
const MAX_RETAINED: usize = 10_000;
/// Reason codes (MQTT 5.0, 2.4).
const NOT_AUTHORIZED: u8 = 0x87;
const SESSION_TAKEN_OVER: u8 = 0x8E;
const TOPIC_FILTER_INVALID: u8 = 0x8F;
const TOPIC_NAME_INVALID: u8 = 0x90;
const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
const QUOTA_EXCEEDED: u8 = 0x97;
const SHARED_NOT_SUPPORTED: u8 = 0x9E;

/// A connection, by its number.
pub(super) type ConnectionId = u64;

/// What a connection is to do.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Send(Reply),
    Close,
}

/// What becomes of a PUBLISH.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PublishOutcome {
    /// It was passed on.
    Accepted,
    /// It repeats a packet id of QoS 2 whose PUBREL is still to come, and was not passed on again.
    Repeated,
    /// It was not passed on, for this reason code.
    Refused(u8),
}

/// The state of a broker.
#[derive(Debug, Default)]
pub(super) struct BrokerCore {
    access: AccessList,
    /// By client id.
    sessions: BTreeMap<String, ClientSession>,
    /// Client id of each connection.
    connections: BTreeMap<ConnectionId, String>,
    retained: BTreeMap<String, RetainedMessage>,
    outputs: BTreeMap<ConnectionId, VecDeque<Output>>,
}

#[derive(Debug)]
struct RetainedMessage {
    message: Arc<PublishedMessage>,
    stored_at: Instant,
}

impl BrokerCore {
    pub(super) fn new(access: AccessList) -> Self {
        Self { access, ..Self::default() }
    }

    /// Records an accepted CONNECT. Another connection with the same client id is closed. Returns
    /// whether an earlier session is resumed.
    pub(super) fn on_connect(
        &mut self,
        connection: ConnectionId,
        connect: &ConnectInfo,
        now: Instant,
    ) -> bool {
        self.sessions.retain(|_, session| !session.is_expired(now));
        let client = &connect.client_id;
        if let Some(old) = self.sessions.get(client).and_then(|session| session.connection) {
            self.output(old, Output::Send(Reply::Disconnect(SESSION_TAKEN_OVER)));
            self.output(old, Output::Close);
            self.end_connection(old, DisconnectKind::Unclean, now);
        }
        if connect.start == SessionStart::Clean {
            self.sessions.remove(client);
        }
        let is_present = self.sessions.contains_key(client);
        if !is_present {
            self.make_room();
        }
        let session = self.sessions.entry(client.clone()).or_default();
        session.on_connect(connection, connect);
        self.connections.insert(connection, client.clone());
        is_present
    }

    /// Sends what a resumed session left over. Called after its CONNACK.
    pub(super) fn resume(&mut self, connection: ConnectionId, now: Instant) {
        let Some(session) = self.session_of(connection) else { return };
        let packets = session.resend(now);
        self.send(connection, packets);
    }

    /// Records the end of a connection.
    pub(super) fn on_closed(
        &mut self,
        connection: ConnectionId,
        kind: DisconnectKind,
        now: Instant,
    ) {
        self.end_connection(connection, kind, now);
        self.outputs.remove(&connection);
    }

    fn end_connection(&mut self, connection: ConnectionId, kind: DisconnectKind, now: Instant) {
        let Some(client) = self.connections.remove(&connection) else { return };
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let user = session.user.clone();
        let will = session.on_closed(now);
        if session.ends_with_connection() {
            self.sessions.remove(&client);
        }
        if let Some(will) = will.filter(|_| kind == DisconnectKind::Unclean)
            && self.access.may_write(user.as_deref(), &will.topic)
        {
            self.route(will, now);
        }
    }

    /// Records a PUBLISH and passes it on.
    pub(super) fn on_publish(
        &mut self,
        connection: ConnectionId,
        packet_id: u16,
        message: &PublishedMessage,
        now: Instant,
    ) -> PublishOutcome {
        let is_name = !message.topic.is_empty() && !message.topic.contains(['+', '#', '\0']);
        if !is_name {
            return PublishOutcome::Refused(TOPIC_NAME_INVALID);
        }
        let Some(session) =
            self.connections.get(&connection).and_then(|id| self.sessions.get_mut(id))
        else {
            return PublishOutcome::Refused(NOT_AUTHORIZED);
        };
        if !self.access.may_write(session.user.as_deref(), &message.topic) {
            return PublishOutcome::Refused(NOT_AUTHORIZED);
        }
        if message.qos == Qos::ExactlyOnce && !session.received.insert(packet_id) {
            return PublishOutcome::Repeated;
        }
        self.route(message.clone(), now);
        PublishOutcome::Accepted
    }

    /// Records a PUBREL: the packet id may be used again.
    pub(super) fn on_pubrel(&mut self, connection: ConnectionId, packet_id: u16) {
        if let Some(session) = self.session_of(connection) {
            session.received.remove(&packet_id);
        }
    }

    /// Records a PUBACK or PUBCOMP for a message that was sent.
    pub(super) fn on_acked(&mut self, connection: ConnectionId, packet_id: u16, now: Instant) {
        let Some(session) = self.session_of(connection) else { return };
        session.on_acked(packet_id);
        self.send_waiting(connection, now);
    }

    /// Records a PUBREC for a message that was sent.
    pub(super) fn on_pubrec(&mut self, connection: ConnectionId, packet_id: u16) {
        let Some(session) = self.session_of(connection) else { return };
        session.on_pubrec(packet_id);
        self.output(connection, Output::Send(Reply::PubRel(packet_id)));
    }

    /// Records a SUBSCRIBE. Returns the code of each filter; what is retained on them follows
    /// with [`Self::send_retained`].
    pub(super) fn on_subscribe(
        &mut self,
        connection: ConnectionId,
        filters: &[(String, Qos)],
    ) -> Vec<u8> {
        let Some(session) = self.session_of(connection) else { return Vec::new() };
        let mut subscribe = |(filter, qos): &(String, Qos)| {
            if !is_topic_filter(filter) {
                return TOPIC_FILTER_INVALID;
            }
            if filter.starts_with("$share/") {
                return SHARED_NOT_SUPPORTED;
            }
            let is_new = !session.subscriptions.contains_key(filter);
            if is_new && session.subscriptions.len() >= MAX_SUBSCRIPTIONS {
                return QUOTA_EXCEEDED;
            }
            session.subscriptions.insert(filter.clone(), *qos);
            *qos as u8
        };
        filters.iter().map(&mut subscribe).collect()
    }

    /// Sends the retained messages of filters that were subscribed to, also again.
    pub(super) fn send_retained(
        &mut self,
        connection: ConnectionId,
        filters: &[(String, Qos)],
        now: Instant,
    ) {
        let Some(client) = self.connections.get(&connection) else { return };
        let Some(session) = self.sessions.get_mut(client) else { return };
        let user = session.user.clone();
        for (filter, qos) in filters {
            if session.subscriptions.get(filter) != Some(qos) {
                continue;
            }
            let retained = self.retained.values().filter(|retained| {
                let topic = &retained.message.topic;
                filter_matches(filter, topic) && self.access.may_read(user.as_deref(), topic)
            });
            for RetainedMessage { message, stored_at } in retained {
                session.push(Delivery {
                    qos: message.qos.min(*qos),
                    message: Arc::clone(message),
                    is_retained: true,
                    stored_at: *stored_at,
                });
            }
        }
        self.send_waiting(connection, now);
    }

    /// Records an UNSUBSCRIBE. Returns the code of each filter.
    pub(super) fn on_unsubscribe(
        &mut self,
        connection: ConnectionId,
        filters: &[String],
    ) -> Vec<u8> {
        let Some(session) = self.session_of(connection) else { return Vec::new() };
        let mut unsubscribe = |filter: &String| match session.subscriptions.remove(filter) {
            Some(_) => 0,
            None => NO_SUBSCRIPTION_EXISTED,
        };
        filters.iter().map(&mut unsubscribe).collect()
    }

    /// Returns what a connection is to do next. What has waited for that follows.
    pub(super) fn take_outputs(
        &mut self,
        connection: ConnectionId,
        now: Instant,
    ) -> VecDeque<Output> {
        let outputs = self.outputs.remove(&connection).unwrap_or_default();
        self.send_waiting(connection, now);
        outputs
    }

    /// Returns the connections that have something to do.
    pub(super) fn ready(&self) -> impl Iterator<Item = ConnectionId> {
        self.outputs.keys().copied()
    }

    /// Stores a message where it is retained, and passes it to every session that subscribed.
    pub(super) fn route(&mut self, message: PublishedMessage, now: Instant) {
        let message = Arc::new(message);
        if message.retain {
            self.retain(&message, now);
        }
        let mut receivers = Vec::new();
        for session in self.sessions.values_mut() {
            let matching = session.subscriptions.iter();
            let matching = matching.filter(|(filter, _)| filter_matches(filter, &message.topic));
            let mut copies: Vec<Qos> = matching.map(|(_, qos)| *qos).collect();
            if copies.is_empty() || !self.access.may_read(session.user.as_deref(), &message.topic) {
                continue;
            }
            if !session.gets_copies {
                copies = copies.into_iter().max().into_iter().collect();
            }
            for qos in copies {
                session.push(Delivery {
                    qos: message.qos.min(qos),
                    message: Arc::clone(&message),
                    is_retained: false,
                    stored_at: now,
                });
            }
            receivers.extend(session.connection);
        }
        for connection in receivers {
            self.send_waiting(connection, now);
        }
    }

    fn retain(&mut self, message: &Arc<PublishedMessage>, now: Instant) {
        let topic = &message.topic;
        if message.payload.is_empty() {
            self.retained.remove(topic);
        } else if self.retained.len() < MAX_RETAINED || self.retained.contains_key(topic) {
            let retained = RetainedMessage { message: Arc::clone(message), stored_at: now };
            self.retained.insert(topic.clone(), retained);
        }
    }

    fn make_room(&mut self) {
        if self.sessions.len() < MAX_SESSIONS {
            return;
        }
        let left = self.sessions.iter().filter_map(|(id, session)| Some((session.left_at?, id)));
        if let Some(client) = left.min().map(|(_, client)| client.clone()) {
            self.sessions.remove(&client);
        }
    }

    fn session_of(&mut self, connection: ConnectionId) -> Option<&mut ClientSession> {
        self.sessions.get_mut(self.connections.get(&connection)?)
    }

    /// Sends what waits for a client. While it does not read, messages wait on, and are dropped
    /// when too many do.
    fn send_waiting(&mut self, connection: ConnectionId, now: Instant) {
        if self.outputs.get(&connection).is_some_and(|outputs| outputs.len() >= MAX_WAITING) {
            return;
        }
        let Some(session) = self.session_of(connection) else { return };
        let packets = session.poll_packets(now);
        self.send(connection, packets);
    }

    fn send(&mut self, connection: ConnectionId, packets: Vec<Reply>) {
        for packet in packets {
            self.output(connection, Output::Send(packet));
        }
    }

    fn output(&mut self, connection: ConnectionId, output: Output) {
        self.outputs.entry(connection).or_default().push_back(output);
    }
}

#[cfg(test)]
mod tests;
