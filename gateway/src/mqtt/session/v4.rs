//! A session of MQTT 3.1.1 on rumqttc.

use std::time::Duration;

use provisioning::config::{Qos, Secret};
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet,
    Publish, QoS, StateError, SubscribeFilter, SubscribeReasonCode, Transport,
};

use super::types::{
    ConnackLimits, MAX_INCOMING_PACKET_LEN, MAX_PACKET_IDS, MAX_PACKET_LEN, REQUEST_CAPACITY,
    SessionEvent, SlotState, WRITE_TIMEOUT_SECONDS, outgoing_event,
};
use crate::model::UntrustedText;
use crate::mqtt::broker_traits::ConnectRequest;
use crate::mqtt::failure::SessionFailure;
use crate::mqtt::inbox::{DueAck, ReceivedPublish};
use crate::mqtt::reason_code::{self, BrokerReason};
use crate::mqtt::session_start::{SessionOpening, SessionRequest};
use crate::mqtt::{Acknowledgements, ClientSettings, IncomingMessage};

/// Longest keep alive that fits CONNECT (3.1.2.10).
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(65_535);

pub(in crate::mqtt) struct DriverV4(EventLoop);

/// Creates client and event loop for the unix socket at `path`; sends nothing yet.
pub(super) fn open(
    settings: &ClientSettings,
    request: &ConnectRequest,
    session: SessionRequest,
    password: Option<&Secret>,
    path: &str,
) -> (AsyncClient, DriverV4) {
    let ClientSettings { mqtt, acknowledgements, .. } = settings;
    let mut options = MqttOptions::new(mqtt.client_id.clone(), path, 0);
    options
        .set_transport(Transport::unix())
        .set_clean_session(session.opening == SessionOpening::Clean)
        .set_manual_acks(*acknowledgements == Acknowledgements::ByCaller)
        .set_keep_alive(keep_alive(mqtt.keep_alive))
        .set_inflight(MAX_PACKET_IDS)
        .set_max_packet_size(MAX_INCOMING_PACKET_LEN as usize, MAX_PACKET_LEN);
    if let Some(will) = &request.will {
        options.set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.clone(),
            qos(will.qos),
            will.retain,
        ));
    }
    if let Some(credentials) = &mqtt.credentials {
        let password = password.map_or("", Secret::reveal);
        options.set_credentials(credentials.username.clone(), password);
    }
    let (client, mut event_loop) = AsyncClient::new(options, REQUEST_CAPACITY);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(WRITE_TIMEOUT_SECONDS);
    event_loop.set_network_options(network);
    (client, DriverV4(event_loop))
}

/// Returns the keep alive that rumqttc accepts: zero, which disables it, or at least one second.
fn keep_alive(configured: Duration) -> Duration {
    if configured.is_zero() {
        Duration::ZERO
    } else {
        configured.clamp(Duration::from_secs(1), MAX_KEEP_ALIVE)
    }
}

pub(super) const fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(super) fn filters(filters: &[String]) -> impl Iterator<Item = SubscribeFilter> {
    filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce))
}

impl DriverV4 {
    pub(super) async fn await_connack(&mut self) -> Result<ConnackLimits, SessionFailure> {
        match self.0.poll().await {
            // A CONNACK of 3.1.1 states no limits.
            Ok(Event::Incoming(Packet::ConnAck(answer))) => Ok(ConnackLimits {
                packet_ids: MAX_PACKET_IDS,
                max_packet_len: None,
                max_qos: Qos::ExactlyOnce,
                retain_available: true,
                session_present: answer.session_present,
            }),
            Ok(_) => Err(no_connack()),
            Err(error) => Err(session_failure(error).before_connack()),
        }
    }

    pub(super) async fn next_event(&mut self) -> Result<SessionEvent, SessionFailure> {
        self.0.poll().await.map(session_event).map_err(session_failure)
    }

    pub(super) fn buffered_events(&mut self) -> Vec<SessionEvent> {
        self.0.state.events.drain(..).map(session_event).collect()
    }
}

fn session_event(event: Event) -> SessionEvent {
    let packet = match event {
        Event::Outgoing(packet) => return outgoing_event(&packet),
        Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::PubAck(ack) => acked(ack.pkid),
        Packet::PubComp(ack) => acked(ack.pkid),
        Packet::PubRec(_) => SessionEvent::PubrecReceived,
        Packet::Publish(publish) => SessionEvent::Received(received(publish)),
        Packet::UnsubAck(_) => SessionEvent::Unsubscribed,
        Packet::SubAck(ack) => SessionEvent::Subscribed(
            ack.return_codes.iter().map(|code| suback_code(*code)).collect(),
        ),
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::PubRel(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect => SessionEvent::Other,
    }
}

fn received(publish: Publish) -> ReceivedPublish {
    let message = IncomingMessage {
        topic: publish.topic,
        payload: publish.payload.into(),
        retain: publish.retain,
        dup: publish.dup,
        ..IncomingMessage::default()
    };
    ReceivedPublish { packet_id: publish.pkid, qos: config_qos(publish.qos), message }
}

const fn config_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// Returns the message whose acknowledgement rumqttc is asked for; it looks at nothing else.
pub(super) fn acknowledged(ack: DueAck) -> Publish {
    let mut publish = Publish::new("", qos(ack.qos), Vec::new());
    publish.pkid = ack.packet_id;
    publish
}

/// Returns the event of an acknowledgement. Under 3.1.1 it means success: the protocol has no
/// other.
const fn acked(packet_id: u16) -> SessionEvent {
    SessionEvent::Acked { packet_id, code: reason_code::SUCCESS, text: None, slot: SlotState::Free }
}

const fn suback_code(answer: SubscribeReasonCode) -> u8 {
    match answer {
        SubscribeReasonCode::Success(_) => reason_code::SUCCESS,
        SubscribeReasonCode::Failure => 0x80,
    }
}

/// Returns the failure for another packet in place of CONNACK. The packet itself is not shown: it
/// may be long, and whatever its sender wants.
fn no_connack() -> SessionFailure {
    SessionFailure::Protocol(UntrustedText::new("another packet instead of CONNACK"))
}

fn session_failure(error: ConnectionError) -> SessionFailure {
    match error {
        ConnectionError::MqttState(error) => state_failure(error),
        ConnectionError::NetworkTimeout => SessionFailure::NoConnack,
        ConnectionError::FlushTimeout => SessionFailure::NotWritten,
        ConnectionError::Io(error) => SessionFailure::Broken(error),
        ConnectionError::ConnectionRefused(code) => {
            SessionFailure::Connack(BrokerReason::bare(reason_code::from_v3(code as u8)))
        }
        ConnectionError::NotConnAck(_) => no_connack(),
        ConnectionError::RequestsDone => SessionFailure::Closed,
    }
}

/// Maps an error of rumqttc to the failure that ended the session.
fn state_failure(error: StateError) -> SessionFailure {
    match error {
        StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)) => {
            SessionFailure::Broken(error)
        }
        StateError::ConnectionAborted => SessionFailure::Closed,
        StateError::AwaitPingResp => SessionFailure::NoPingresp,
        StateError::CollisionTimeout => SessionFailure::Collision,
        StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(size)) => {
            SessionFailure::TooLarge { size }
        }
        StateError::Deserialization(error) => SessionFailure::Protocol(UntrustedText::of(&error)),
        error @ (StateError::InvalidState
        | StateError::Unsolicited(_)
        | StateError::WrongPacket
        | StateError::EmptySubscription) => SessionFailure::Protocol(UntrustedText::of(&error)),
    }
}
