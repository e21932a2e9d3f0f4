//! A session of MQTT 3.1.1 on rumqttc.

use std::time::Duration;

use provisioning::config::Qos;
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet,
    QoS, StateError, SubscribeFilter, SubscribeReasonCode, Transport,
};

use super::failure::Failure;
use super::session::{
    Accepted, LONGEST_INCOMING, LONGEST_PACKET, PACKET_IDS, Place, REQUESTS, Signal,
    WRITE_TIMEOUT_SECONDS, outgoing,
};
use super::{Incoming, Settings, code};

/// The longest keep alive that fits the packet (3.1.2.10).
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);

pub(super) struct Driver(EventLoop);

pub(super) fn open(settings: &Settings, path: &str) -> (AsyncClient, Driver) {
    let mqtt = &settings.mqtt;
    let mut options = MqttOptions::new(mqtt.client_id.clone(), path, 0);
    options
        .set_transport(Transport::unix())
        .set_clean_session(true)
        .set_keep_alive(keep_alive(mqtt.keep_alive))
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(LONGEST_INCOMING as usize, LONGEST_PACKET);
    if let Some(will) = &settings.will {
        options.set_last_will(LastWill::new(
            will.topic.clone(),
            will.payload.clone(),
            qos(will.qos),
            will.retain,
        ));
    }
    if let Some(credentials) = &mqtt.credentials {
        let password = credentials.password.as_ref().map_or("", |secret| secret.reveal());
        options.set_credentials(credentials.username.clone(), password);
    }
    let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(WRITE_TIMEOUT_SECONDS);
    event_loop.set_network_options(network);
    (client, Driver(event_loop))
}

/// Zero switches it off; otherwise rumqttc asserts a second at least.
fn keep_alive(wanted: Duration) -> Duration {
    if wanted.is_zero() {
        Duration::ZERO
    } else {
        wanted.clamp(Duration::from_secs(1), LONGEST_KEEP_ALIVE)
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

impl Driver {
    pub(super) async fn accepted(&mut self) -> Result<Accepted, Failure> {
        match self.0.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(Accepted {
                packet_ids: PACKET_IDS,
                longest_packet: None,
                qos: Qos::ExactlyOnce,
                retains: true,
            }),
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

fn signal(event: Event) -> Signal {
    let packet = match event {
        Event::Outgoing(packet) => return outgoing(&packet),
        Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::PubAck(ack) => settled(ack.pkid),
        Packet::PubComp(ack) => settled(ack.pkid),
        Packet::PubRec(_) => Signal::Progress,
        Packet::Publish(publish) => Signal::Received(Incoming {
            topic: publish.topic,
            payload: publish.payload.into(),
            retain: publish.retain,
        }),
        Packet::SubAck(ack) => {
            Signal::Subscribed(ack.return_codes.iter().map(|code| granted(*code)).collect())
        }
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::PubRel(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect => Signal::Other,
    }
}

/// Under 3.1.1 every acknowledgement is a good one: the protocol has no other.
const fn settled(packet_id: u16) -> Signal {
    Signal::Settled { packet_id, code: code::SUCCESS, text: None, place: Place::Free }
}

const fn granted(answer: SubscribeReasonCode) -> u8 {
    match answer {
        SubscribeReasonCode::Success(_) => code::SUCCESS,
        SubscribeReasonCode::Failure => 0x80,
    }
}

fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::MqttState(error) => state_failure(error),
        ConnectionError::NetworkTimeout => Failure::NoConnack,
        ConnectionError::FlushTimeout => Failure::NotWritten,
        ConnectionError::Io(error) => Failure::Broken(error),
        ConnectionError::ConnectionRefused(code) => {
            Failure::Connack { code: code::from_v4(code as u8) }
        }
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
        StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(size)) => {
            Failure::TooLarge { size }
        }
        StateError::Deserialization(error) => Failure::Protocol(error.to_string()),
        error @ (StateError::InvalidState
        | StateError::Unsolicited(_)
        | StateError::WrongPacket
        | StateError::EmptySubscription) => Failure::Protocol(error.to_string()),
    }
}
