//! A session of MQTT 5 on rumqttc.

use std::time::Duration;

use provisioning::config::{Qos, Secret};
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Filter, LastWill, Packet, PubAck, PubAckReason,
    PubComp, PubCompReason, PubRec, PubRecReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as PacketError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::types::{
    ConnackLimits, MAX_INCOMING_PACKET_LEN, MAX_PACKET_IDS, RECEIVE_MAXIMUM, REQUEST_CAPACITY,
    SessionEvent, SlotState, WRITE_TIMEOUT_SECONDS, outgoing_event,
};
use crate::model::UntrustedText;
use crate::mqtt::broker_traits::ConnectRequest;
use crate::mqtt::failure::SessionFailure;
use crate::mqtt::inbox::{DueAck, ReceivedPublish};
use crate::mqtt::reason_code::{self, BrokerReason};
use crate::mqtt::session_start::{SessionOpening, SessionRequest};
use crate::mqtt::{Acknowledgements, ClientSettings, IncomingMessage, SessionPersistence};

/// rumqttc panics below this.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Longest keep alive that fits CONNECT (3.1.2.10).
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(65_535);

pub(in crate::mqtt) struct DriverV5(EventLoop);

/// Creates client and event loop for the unix socket at `path`; sends nothing yet.
pub(super) fn open(
    settings: &ClientSettings,
    request: &ConnectRequest,
    session: SessionRequest,
    password: Option<&Secret>,
    path: &str,
) -> (AsyncClient, DriverV5) {
    let ClientSettings { mqtt, acknowledgements, .. } = settings;
    let is_by_caller = *acknowledgements == Acknowledgements::ByCaller;
    let mut options = MqttOptions::new(mqtt.client_id.clone(), path, 0);
    options
        .set_transport(Transport::unix())
        .set_clean_start(session.opening == SessionOpening::Clean)
        .set_session_expiry_interval(expiry_seconds(session.persistence))
        .set_receive_maximum(is_by_caller.then_some(RECEIVE_MAXIMUM))
        .set_manual_acks(is_by_caller)
        .set_keep_alive(keep_alive(mqtt.keep_alive))
        .set_outgoing_inflight_upper_limit(MAX_PACKET_IDS)
        .set_max_packet_size(Some(MAX_INCOMING_PACKET_LEN))
        .set_connection_timeout(WRITE_TIMEOUT_SECONDS);
    if let Some(will) = &request.will {
        options.set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.clone(),
            qos(will.qos),
            will.retain,
            None,
        ));
    }
    if let Some(credentials) = &mqtt.credentials {
        let password = password.map_or("", Secret::reveal);
        options.set_credentials(credentials.username.clone(), password);
    }
    let (client, event_loop) = AsyncClient::new(options, REQUEST_CAPACITY);
    (client, DriverV5(event_loop))
}

/// Returns the Session Expiry Interval in seconds; without one the session ends with the
/// connection (3.1.2.11.2). The largest number would mean "never".
fn expiry_seconds(persistence: SessionPersistence) -> Option<u32> {
    match persistence {
        SessionPersistence::Clean => None,
        SessionPersistence::Persistent { expiry } => {
            Some(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX).min(u32::MAX - 1))
        }
    }
}

fn keep_alive(configured: Duration) -> Duration {
    configured.clamp(MIN_KEEP_ALIVE, MAX_KEEP_ALIVE)
}

pub(super) const fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(super) fn filters(filters: &[String]) -> impl Iterator<Item = Filter> {
    filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce))
}

impl DriverV5 {
    pub(super) async fn await_connack(&mut self) -> Result<ConnackLimits, SessionFailure> {
        let own_keep_alive = self.0.options.keep_alive();
        match self.0.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                if self.0.options.keep_alive().is_zero() {
                    // The broker asks for no keep alive (3.2.2.3.14), and rumqttc would send pings
                    // without a pause. A client may send more pings than it has to.
                    self.0.options.set_keep_alive(own_keep_alive);
                }
                Ok(connack_limits(&answer))
            }
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

fn connack_limits(answer: &ConnAck) -> ConnackLimits {
    let properties = answer.properties.as_ref();
    let byte = |property: fn(&ConnAckProperties) -> Option<u8>| properties.and_then(property);
    ConnackLimits {
        packet_ids: properties
            .and_then(|properties| properties.receive_max)
            .map_or(MAX_PACKET_IDS, |maximum| maximum.min(MAX_PACKET_IDS)),
        max_packet_len: properties
            .and_then(|properties| properties.max_packet_size)
            .and_then(|size| usize::try_from(size).ok()),
        max_qos: match byte(|properties| properties.max_qos) {
            Some(0) => Qos::AtMostOnce,
            Some(1) => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        },
        retain_available: byte(|properties| properties.retain_available) != Some(0),
        session_present: answer.session_present,
    }
}

fn session_event(event: Event) -> SessionEvent {
    let packet = match event {
        Event::Outgoing(packet) => return outgoing_event(&packet),
        Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::PubAck(ack) => puback(ack),
        Packet::PubRec(ack) => pubrec(ack),
        Packet::PubComp(ack) => pubcomp(&ack),
        Packet::Publish(publish) => SessionEvent::Received(received(publish)),
        Packet::SubAck(ack) => SessionEvent::Subscribed(
            ack.return_codes.iter().map(|code| suback_code(*code)).collect(),
        ),
        Packet::UnsubAck(_) => SessionEvent::Unsubscribed,
        Packet::Auth(_)
        | Packet::Connect(..)
        | Packet::ConnAck(_)
        | Packet::PingReq(_)
        | Packet::PingResp(_)
        | Packet::Subscribe(_)
        | Packet::PubRel(_)
        | Packet::Unsubscribe(_)
        | Packet::Disconnect(_) => SessionEvent::Other,
    }
}

fn received(publish: Publish) -> ReceivedPublish {
    let properties = publish.properties.unwrap_or_default();
    let seconds = properties.message_expiry_interval;
    let message = IncomingMessage {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.into(),
        retain: publish.retain,
        dup: publish.dup,
        expires_in: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(Into::into),
        delivery: None,
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
    Publish { pkid: ack.packet_id, qos: qos(ack.qos), ..Publish::default() }
}

/// Returns the properties of a message; `None` without any.
pub(super) fn properties(correlation_data: Option<Vec<u8>>) -> Option<PublishProperties> {
    let correlation_data = correlation_data?.into();
    Some(PublishProperties {
        correlation_data: Some(correlation_data),
        ..PublishProperties::default()
    })
}

fn puback(ack: PubAck) -> SessionEvent {
    let code = match ack.reason {
        PubAckReason::Success => reason_code::SUCCESS,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => reason_code::NOT_AUTHORIZED,
        PubAckReason::TopicNameInvalid => reason_code::TOPIC_NAME_INVALID,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => reason_code::PAYLOAD_FORMAT_INVALID,
    };
    let text = ack.properties.and_then(|properties| properties.reason_string);
    let text = text.map(UntrustedText::from);
    SessionEvent::Acked { packet_id: ack.pkid, code, text, slot: SlotState::Free }
}

fn pubrec(ack: PubRec) -> SessionEvent {
    let code = match ack.reason {
        PubRecReason::Success | PubRecReason::NoMatchingSubscribers => {
            return SessionEvent::PubrecReceived;
        }
        PubRecReason::UnspecifiedError => 0x80,
        PubRecReason::ImplementationSpecificError => 0x83,
        PubRecReason::NotAuthorized => reason_code::NOT_AUTHORIZED,
        PubRecReason::TopicNameInvalid => reason_code::TOPIC_NAME_INVALID,
        PubRecReason::PacketIdentifierInUse => 0x91,
        PubRecReason::QuotaExceeded => 0x97,
        PubRecReason::PayloadFormatInvalid => reason_code::PAYLOAD_FORMAT_INVALID,
    };
    let text = ack.properties.and_then(|properties| properties.reason_string);
    let text = text.map(UntrustedText::from);
    SessionEvent::Acked { packet_id: ack.pkid, code, text, slot: SlotState::Leaked }
}

/// Returns the event of a PUBCOMP: success, since the broker accepted the message with its PUBREC.
/// The code decides only whether rumqttc frees the slot.
fn pubcomp(ack: &PubComp) -> SessionEvent {
    let place = match ack.reason {
        PubCompReason::Success => SlotState::Free,
        PubCompReason::PacketIdentifierNotFound => SlotState::Leaked,
    };
    SessionEvent::Acked { packet_id: ack.pkid, code: reason_code::SUCCESS, text: None, slot: place }
}

const fn suback_code(answer: SubscribeReasonCode) -> u8 {
    match answer {
        SubscribeReasonCode::Success(_) => reason_code::SUCCESS,
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => reason_code::NOT_AUTHORIZED,
        SubscribeReasonCode::TopicFilterInvalid => reason_code::TOPIC_FILTER_INVALID,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9E,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xA1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xA2,
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
        ConnectionError::Timeout(_) => SessionFailure::NoConnack,
        ConnectionError::Io(error) => SessionFailure::Broken(error),
        ConnectionError::ConnectionRefused(code) => {
            SessionFailure::Connack(BrokerReason::bare(connack_code(code)))
        }
        ConnectionError::NotConnAck(_) => no_connack(),
        ConnectionError::RequestsDone => SessionFailure::Closed,
    }
}

fn state_failure(error: StateError) -> SessionFailure {
    match error {
        StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)) => {
            SessionFailure::Broken(error)
        }
        StateError::ConnectionAborted => SessionFailure::Closed,
        StateError::AwaitPingResp => SessionFailure::NoPingresp,
        StateError::CollisionTimeout => SessionFailure::Collision,
        StateError::ConnFail { reason } => {
            SessionFailure::Connack(BrokerReason::bare(connack_code(reason)))
        }
        // `inbound_guard` has read the same packet, with the broker's own explanations.
        StateError::ServerDisconnect { reason_code, .. } => {
            SessionFailure::Disconnected(BrokerReason::bare(reason_code as u8))
        }
        StateError::IncomingPacketTooLarge { pkt_size: size, .. }
        | StateError::Deserialization(PacketError::PayloadSizeLimitExceeded {
            pkt_size: size,
            ..
        }) => SessionFailure::TooLarge { size },
        StateError::Deserialization(error) => SessionFailure::Protocol(UntrustedText::of(&error)),
        error @ (StateError::Coversion(_)
        | StateError::InvalidState
        | StateError::Unsolicited(_)
        | StateError::WrongPacket
        | StateError::EmptySubscription
        | StateError::InvalidAlias { .. }
        | StateError::OutgoingPacketTooLarge { .. }) => {
            SessionFailure::Protocol(UntrustedText::of(&error))
        }
    }
}

const fn connack_code(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => reason_code::SUCCESS,
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => reason_code::UNSUPPORTED_VERSION,
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            reason_code::CLIENT_ID_NOT_VALID
        }
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable => {
            reason_code::SERVER_UNAVAILABLE
        }
        ConnectReturnCode::UnspecifiedError => 0x80,
        ConnectReturnCode::MalformedPacket => 0x81,
        ConnectReturnCode::ProtocolError => 0x82,
        ConnectReturnCode::ImplementationSpecificError => 0x83,
        ConnectReturnCode::BadUserNamePassword => reason_code::BAD_USER_NAME_OR_PASSWORD,
        ConnectReturnCode::NotAuthorized => reason_code::NOT_AUTHORIZED,
        ConnectReturnCode::ServerBusy => 0x89,
        ConnectReturnCode::Banned => reason_code::BANNED,
        ConnectReturnCode::BadAuthenticationMethod => reason_code::BAD_AUTHENTICATION_METHOD,
        ConnectReturnCode::TopicNameInvalid => reason_code::TOPIC_NAME_INVALID,
        ConnectReturnCode::PacketTooLarge => reason_code::PACKET_TOO_LARGE,
        ConnectReturnCode::QuotaExceeded => 0x97,
        ConnectReturnCode::PayloadFormatInvalid => reason_code::PAYLOAD_FORMAT_INVALID,
        ConnectReturnCode::RetainNotSupported => reason_code::RETAIN_NOT_SUPPORTED,
        ConnectReturnCode::QoSNotSupported => reason_code::QOS_NOT_SUPPORTED,
        ConnectReturnCode::UseAnotherServer => reason_code::USE_ANOTHER_SERVER,
        ConnectReturnCode::ServerMoved => reason_code::SERVER_MOVED,
        ConnectReturnCode::ConnectionRateExceeded => 0x9F,
    }
}
