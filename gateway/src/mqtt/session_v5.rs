//! A session of MQTT 5 on rumqttc.

use std::time::Duration;

use provisioning::config::Qos;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Filter, LastWill, Packet, PubAck, PubAckReason,
    PubComp, PubCompReason, PubRec, PubRecReason, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as PacketError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::failure::Failure;
use super::session::{
    Accepted, LONGEST_INCOMING, PACKET_IDS, Place, REQUESTS, Signal, WRITE_TIMEOUT_SECONDS,
    outgoing,
};
use super::{Incoming, Settings, code};

/// rumqttc asserts at least this.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The longest that fits the packet (3.1.2.10).
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);

pub(super) struct Driver(EventLoop);

pub(super) fn open(settings: &Settings, path: &str) -> (AsyncClient, Driver) {
    let mqtt = &settings.mqtt;
    let mut options = MqttOptions::new(mqtt.client_id.clone(), path, 0);
    options
        .set_transport(Transport::unix())
        .set_clean_start(true)
        .set_keep_alive(keep_alive(mqtt.keep_alive))
        .set_outgoing_inflight_upper_limit(PACKET_IDS)
        .set_max_packet_size(Some(LONGEST_INCOMING))
        .set_connection_timeout(WRITE_TIMEOUT_SECONDS);
    if let Some(will) = &settings.will {
        options.set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.clone(),
            qos(will.qos),
            will.retain,
            None,
        ));
    }
    if let Some(credentials) = &mqtt.credentials {
        let password = credentials.password.as_ref().map_or("", |secret| secret.reveal());
        options.set_credentials(credentials.username.clone(), password);
    }
    let (client, event_loop) = AsyncClient::new(options, REQUESTS);
    (client, Driver(event_loop))
}

fn keep_alive(wanted: Duration) -> Duration {
    wanted.clamp(SHORTEST_KEEP_ALIVE, LONGEST_KEEP_ALIVE)
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

impl Driver {
    pub(super) async fn accepted(&mut self) -> Result<Accepted, Failure> {
        let own_keep_alive = self.0.options.keep_alive();
        match self.0.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                if self.0.options.keep_alive().is_zero() {
                    // The broker asks for none (3.2.2.3.14), from which rumqttc would make pings
                    // without end. More pings than asked for are allowed.
                    self.0.options.set_keep_alive(own_keep_alive);
                }
                Ok(accepted(&answer))
            }
            Ok(event) => Err(Failure::Protocol(format!("{event:?} instead of CONNACK"))),
            Err(error) => Err(failure(error).before_connack()),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Signal, Failure> {
        self.0.poll().await.map(signal).map_err(failure)
    }

    pub(super) fn leftovers(&mut self) -> Vec<Signal> {
        self.0.state.events.drain(..).map(signal).collect()
    }
}

fn accepted(answer: &ConnAck) -> Accepted {
    let says =
        |what: fn(&ConnAckProperties) -> Option<u8>| answer.properties.as_ref().and_then(what);
    let properties = answer.properties.as_ref();
    Accepted {
        packet_ids: properties
            .and_then(|properties| properties.receive_max)
            .map_or(PACKET_IDS, |most| most.min(PACKET_IDS)),
        longest_packet: properties
            .and_then(|properties| properties.max_packet_size)
            .and_then(|size| usize::try_from(size).ok()),
        qos: match says(|properties| properties.max_qos) {
            Some(0) => Qos::AtMostOnce,
            Some(1) => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        },
        retains: says(|properties| properties.retain_available) != Some(0),
    }
}

fn signal(event: Event) -> Signal {
    let packet = match event {
        Event::Outgoing(packet) => return outgoing(&packet),
        Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::PubAck(ack) => puback(ack),
        Packet::PubRec(ack) => pubrec(ack),
        Packet::PubComp(ack) => pubcomp(&ack),
        Packet::Publish(publish) => Signal::Received(Incoming {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.into(),
            retain: publish.retain,
        }),
        Packet::SubAck(ack) => {
            Signal::Subscribed(ack.return_codes.iter().map(|code| granted(*code)).collect())
        }
        Packet::Auth(_)
        | Packet::Connect(..)
        | Packet::ConnAck(_)
        | Packet::PingReq(_)
        | Packet::PingResp(_)
        | Packet::Subscribe(_)
        | Packet::PubRel(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::Disconnect(_) => Signal::Other,
    }
}

fn puback(ack: PubAck) -> Signal {
    let code = match ack.reason {
        PubAckReason::Success => code::SUCCESS,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => code::NOT_AUTHORIZED,
        PubAckReason::TopicNameInvalid => code::TOPIC_NAME_INVALID,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    };
    let text = ack.properties.and_then(|properties| properties.reason_string);
    Signal::Settled { packet_id: ack.pkid, code, text, place: Place::Free }
}

fn pubrec(ack: PubRec) -> Signal {
    let code = match ack.reason {
        PubRecReason::Success | PubRecReason::NoMatchingSubscribers => return Signal::Progress,
        PubRecReason::UnspecifiedError => 0x80,
        PubRecReason::ImplementationSpecificError => 0x83,
        PubRecReason::NotAuthorized => code::NOT_AUTHORIZED,
        PubRecReason::TopicNameInvalid => code::TOPIC_NAME_INVALID,
        PubRecReason::PacketIdentifierInUse => 0x91,
        PubRecReason::QuotaExceeded => 0x97,
        PubRecReason::PayloadFormatInvalid => 0x99,
    };
    let text = ack.properties.and_then(|properties| properties.reason_string);
    Signal::Settled { packet_id: ack.pkid, code, text, place: Place::Leaked }
}

/// The broker took the message with its PUBREC; what it says here changes nothing about that.
fn pubcomp(ack: &PubComp) -> Signal {
    let place = match ack.reason {
        PubCompReason::Success => Place::Free,
        PubCompReason::PacketIdentifierNotFound => Place::Leaked,
    };
    Signal::Settled { packet_id: ack.pkid, code: code::SUCCESS, text: None, place }
}

const fn granted(answer: SubscribeReasonCode) -> u8 {
    match answer {
        SubscribeReasonCode::Success(_) => code::SUCCESS,
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => code::NOT_AUTHORIZED,
        SubscribeReasonCode::TopicFilterInvalid => code::TOPIC_FILTER_INVALID,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9E,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xA1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xA2,
    }
}

fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::MqttState(error) => state_failure(error),
        ConnectionError::Timeout(_) => Failure::NoConnack,
        ConnectionError::Io(error) => Failure::Broken(error),
        ConnectionError::ConnectionRefused(code) => Failure::Connack { code: connack(code) },
        ConnectionError::NotConnAck(packet) => {
            Failure::Protocol(format!("{packet:?} instead of CONNACK"))
        }
        ConnectionError::RequestsDone => Failure::Closed,
    }
}

fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)) => {
            Failure::Broken(error)
        }
        StateError::ConnectionAborted => Failure::Closed,
        StateError::AwaitPingResp => Failure::NoPingresp,
        StateError::CollisionTimeout => Failure::Collision,
        StateError::ConnFail { reason } => Failure::Connack { code: connack(reason) },
        StateError::ServerDisconnect { reason_code, reason_string } => {
            Failure::Disconnected { code: reason_code as u8, text: reason_string }
        }
        StateError::IncomingPacketTooLarge { pkt_size: size, .. }
        | StateError::Deserialization(PacketError::PayloadSizeLimitExceeded {
            pkt_size: size,
            ..
        }) => Failure::TooLarge { size },
        StateError::Deserialization(error) => Failure::Protocol(error.to_string()),
        error @ (StateError::Coversion(_)
        | StateError::InvalidState
        | StateError::Unsolicited(_)
        | StateError::WrongPacket
        | StateError::EmptySubscription
        | StateError::InvalidAlias { .. }
        | StateError::OutgoingPacketTooLarge { .. }) => Failure::Protocol(error.to_string()),
    }
}

const fn connack(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => code::SUCCESS,
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => code::UNSUPPORTED_VERSION,
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            code::CLIENT_ID_NOT_VALID
        }
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable => {
            code::SERVER_UNAVAILABLE
        }
        ConnectReturnCode::UnspecifiedError => 0x80,
        ConnectReturnCode::MalformedPacket => 0x81,
        ConnectReturnCode::ProtocolError => 0x82,
        ConnectReturnCode::ImplementationSpecificError => 0x83,
        ConnectReturnCode::BadUserNamePassword => code::BAD_USER_NAME_OR_PASSWORD,
        ConnectReturnCode::NotAuthorized => code::NOT_AUTHORIZED,
        ConnectReturnCode::ServerBusy => 0x89,
        ConnectReturnCode::Banned => code::BANNED,
        ConnectReturnCode::BadAuthenticationMethod => code::BAD_AUTHENTICATION_METHOD,
        ConnectReturnCode::TopicNameInvalid => code::TOPIC_NAME_INVALID,
        ConnectReturnCode::PacketTooLarge => code::PACKET_TOO_LARGE,
        ConnectReturnCode::QuotaExceeded => 0x97,
        ConnectReturnCode::PayloadFormatInvalid => 0x99,
        ConnectReturnCode::RetainNotSupported => 0x9A,
        ConnectReturnCode::QoSNotSupported => 0x9B,
        ConnectReturnCode::UseAnotherServer => 0x9C,
        ConnectReturnCode::ServerMoved => 0x9D,
        ConnectReturnCode::ConnectionRateExceeded => 0x9F,
    }
}
