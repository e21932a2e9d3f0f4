//! Packets of both protocol versions in one form, on rumqttc's codecs.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use provisioning::config::{MqttVersion, Qos, Will};
use rumqttc::mqttbytes::{self as b4, v4};
use rumqttc::v5::mqttbytes::{self as b5, v5};
use thiserror::Error;

use super::{ConnackProperties, ConnectInfo, MessageProperties, PublishedMessage, SessionStart};

/// Longest packet accepted, in bytes.
const MAX_PACKET_LEN: usize = 4 * 1024 * 1024;
/// Protocol levels (3.1.1 and 5.0, 3.1.2.2).
const LEVEL_V4: u8 = 4;
const LEVEL_V5: u8 = 5;

/// A packet from a client.
#[derive(Debug)]
pub(super) enum Request {
    Connect(ConnectInfo),
    Publish {
        packet_id: u16,
        message: PublishedMessage,
    },
    /// PUBACK or PUBCOMP.
    Acked(u16),
    /// PUBREC; a refusal counts as [`Request::Acked`].
    PubRec(u16),
    PubRel(u16),
    Subscribe {
        packet_id: u16,
        filters: Vec<(String, Qos)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    PingReq,
    /// DISCONNECT; whether the will is to be published all the same (MQTT 5.0, 3.14.2.1).
    Disconnect {
        with_will: bool,
    },
    /// A packet that clients do not send.
    Other,
}

/// A packet to a client.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    ConnAck {
        code: u8,
        session_present: bool,
        limits: ConnackProperties,
    },
    PubAck {
        packet_id: u16,
        code: u8,
    },
    PubRec {
        packet_id: u16,
        code: u8,
    },
    PubRel(u16),
    PubComp(u16),
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Publish {
        /// 0 at QoS 0.
        packet_id: u16,
        dup: bool,
        message: PublishedMessage,
    },
    Disconnect(u8),
    /// Raw bytes.
    Raw(&'static [u8]),
}

/// Why a packet cannot be read or written.
#[derive(Debug, Error)]
pub(super) enum CodecError {
    #[error("packet of 3.1.1: {0}")]
    V4(#[from] b4::Error),
    #[error("packet of 5: {0}")]
    V5(#[from] b5::Error),
    #[error("protocol level {0}")]
    Level(u8),
}

/// Takes the next packet from the buffer; returns `None` until it is complete.
pub(super) fn read(
    version: Option<MqttVersion>,
    buffer: &mut BytesMut,
) -> Result<Option<Request>, CodecError> {
    let version = match version {
        Some(version) => version,
        None => match protocol_level(buffer) {
            Some(LEVEL_V4) => MqttVersion::V311,
            Some(LEVEL_V5) => MqttVersion::V5,
            Some(other) => return Err(CodecError::Level(other)),
            None => return Ok(None),
        },
    };
    match version {
        MqttVersion::V311 => match v4::Packet::read(buffer, MAX_PACKET_LEN) {
            Ok(packet) => request_v4(packet).map(Some),
            Err(b4::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.into()),
        },
        MqttVersion::V5 => read_v5(buffer),
    }
}

/// Returns the protocol level of a CONNECT: it follows the header, a length of one to four bytes,
/// and the protocol name of six bytes.
fn protocol_level(buffer: &[u8]) -> Option<u8> {
    let more = buffer.iter().skip(1).take_while(|&&byte| byte & 0x80 != 0).count();
    buffer.get(1 + more + 1 + 6).copied()
}

fn read_v5(buffer: &mut BytesMut) -> Result<Option<Request>, CodecError> {
    // rumqttc sends a DISCONNECT without a body, but its codec does not read one.
    if buffer.starts_with(&[0xE0, 0x00]) {
        buffer.advance(2);
        return Ok(Some(Request::Disconnect { with_will: false }));
    }
    match v5::Packet::read(buffer, u32::try_from(MAX_PACKET_LEN).ok()) {
        Ok(packet) => Ok(Some(request_v5(packet))),
        Err(b5::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn request_v4(packet: v4::Packet) -> Result<Request, CodecError> {
    Ok(match packet {
        v4::Packet::Connect(connect) => Request::Connect(ConnectInfo {
            client_id: connect.client_id,
            version: MqttVersion::V311,
            keep_alive: connect.keep_alive,
            start: if connect.clean_session { SessionStart::Clean } else { SessionStart::Resume },
            session_expiry: 0,
            receive_max: None,
            username: connect.login.as_ref().map(|login| login.username.clone()),
            password: connect.login.map(|login| login.password),
            will: connect.last_will.map(|will| Will {
                topic: will.topic,
                payload: String::from_utf8_lossy(&will.message).into_owned(),
                qos: qos(will.qos as u8),
                retain: will.retain,
            }),
        }),
        v4::Packet::Publish(publish) => Request::Publish {
            packet_id: publish.pkid,
            message: PublishedMessage {
                topic: publish.topic,
                payload: publish.payload,
                qos: qos(publish.qos as u8),
                retain: publish.retain,
                properties: MessageProperties::default(),
            },
        },
        v4::Packet::PubAck(ack) => Request::Acked(ack.pkid),
        v4::Packet::PubComp(ack) => Request::Acked(ack.pkid),
        v4::Packet::PubRec(ack) => Request::PubRec(ack.pkid),
        v4::Packet::PubRel(release) => Request::PubRel(release.pkid),
        v4::Packet::Subscribe(subscribe) => Request::Subscribe {
            packet_id: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| (filter.path, qos(filter.qos as u8)))
                .collect(),
        },
        v4::Packet::Unsubscribe(unsubscribe) => {
            Request::Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.topics }
        }
        v4::Packet::PingReq => Request::PingReq,
        v4::Packet::Disconnect => Request::Disconnect { with_will: false },
        v4::Packet::ConnAck(_)
        | v4::Packet::SubAck(_)
        | v4::Packet::UnsubAck(_)
        | v4::Packet::PingResp => Request::Other,
    })
}

fn request_v5(packet: v5::Packet) -> Request {
    match packet {
        v5::Packet::Connect(connect, will, login) => {
            Request::Connect(connect_v5(connect, will, login))
        }
        v5::Packet::Publish(publish) => Request::Publish {
            packet_id: publish.pkid,
            message: PublishedMessage {
                topic: text(&publish.topic),
                payload: publish.payload,
                qos: qos(publish.qos as u8),
                retain: publish.retain,
                properties: message_properties(publish.properties.unwrap_or_default()),
            },
        },
        v5::Packet::PubAck(ack) => Request::Acked(ack.pkid),
        v5::Packet::PubComp(ack) => Request::Acked(ack.pkid),
        v5::Packet::PubRec(ack)
            if matches!(
                ack.reason,
                v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers
            ) =>
        {
            Request::PubRec(ack.pkid)
        }
        v5::Packet::PubRec(ack) => Request::Acked(ack.pkid),
        v5::Packet::PubRel(release) => Request::PubRel(release.pkid),
        v5::Packet::Subscribe(subscribe) => Request::Subscribe {
            packet_id: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| (filter.path, qos(filter.qos as u8)))
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => {
            Request::Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        v5::Packet::PingReq(_) => Request::PingReq,
        v5::Packet::Disconnect(disconnect) => Request::Disconnect {
            with_will: disconnect.reason_code
                == v5::DisconnectReasonCode::DisconnectWithWillMessage,
        },
        v5::Packet::Auth(_)
        | v5::Packet::ConnAck(_)
        | v5::Packet::SubAck(_)
        | v5::Packet::UnsubAck(_)
        | v5::Packet::PingResp(_) => Request::Other,
    }
}

fn connect_v5(
    connect: v5::Connect,
    will: Option<v5::LastWill>,
    login: Option<v5::Login>,
) -> ConnectInfo {
    ConnectInfo {
        client_id: connect.client_id,
        version: MqttVersion::V5,
        keep_alive: connect.keep_alive,
        start: if connect.clean_start { SessionStart::Clean } else { SessionStart::Resume },
        session_expiry: connect
            .properties
            .as_ref()
            .and_then(|properties| properties.session_expiry_interval)
            .unwrap_or_default(),
        receive_max: connect.properties.and_then(|properties| properties.receive_maximum),
        username: login.as_ref().map(|login| login.username.clone()),
        password: login.map(|login| login.password),
        will: will.map(|will| Will {
            topic: text(&will.topic),
            payload: text(&will.message),
            qos: qos(will.qos as u8),
            retain: will.retain,
        }),
    }
}

fn message_properties(sent: v5::PublishProperties) -> MessageProperties {
    MessageProperties {
        expiry_seconds: sent.message_expiry_interval,
        response_topic: sent.response_topic,
        correlation_data: sent.correlation_data,
    }
}

/// Returns the properties of a message to be sent; `None` without any.
fn publish_properties(properties: MessageProperties) -> Option<v5::PublishProperties> {
    let is_empty = properties == MessageProperties::default();
    let MessageProperties { expiry_seconds, response_topic, correlation_data } = properties;
    (!is_empty).then(|| v5::PublishProperties {
        message_expiry_interval: expiry_seconds,
        response_topic,
        correlation_data,
        ..v5::PublishProperties::default()
    })
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const fn qos(level: u8) -> Qos {
    match level {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

/// Appends a packet to the buffer.
///
/// Everything but PUBLISH is written by hand: rumqttc's writers of packets that only a broker sends
/// are incomplete or wrong (its DISCONNECT with a reason has a byte too many).
pub(super) fn write(
    version: MqttVersion,
    reply: Reply,
    buffer: &mut BytesMut,
) -> Result<(), CodecError> {
    match (version, reply) {
        (_, Reply::Raw(bytes)) => buffer.put_slice(bytes),
        (_, Reply::PingResp) => buffer.put_slice(&[0xD0, 0]),
        (_, Reply::PubRel(packet_id)) => write_ack(buffer, 0x62, packet_id, &[]),
        (_, Reply::PubComp(packet_id)) => write_ack(buffer, 0x70, packet_id, &[]),
        (MqttVersion::V311, Reply::PubAck { packet_id, .. }) => {
            write_ack(buffer, 0x40, packet_id, &[]);
        }
        (MqttVersion::V311, Reply::PubRec { packet_id, .. }) => {
            write_ack(buffer, 0x50, packet_id, &[]);
        }
        (MqttVersion::V5, Reply::PubAck { packet_id, code }) => {
            write_ack(buffer, 0x40, packet_id, &[code]);
        }
        (MqttVersion::V5, Reply::PubRec { packet_id, code }) => {
            write_ack(buffer, 0x50, packet_id, &[code]);
        }
        (MqttVersion::V311, Reply::SubAck { packet_id, codes }) => {
            write_ack(buffer, 0x90, packet_id, &codes);
        }
        (MqttVersion::V5, Reply::SubAck { packet_id, codes }) => {
            write_ack(buffer, 0x90, packet_id, &[&[0], codes.as_slice()].concat());
        }
        (MqttVersion::V311, Reply::UnsubAck { packet_id, .. }) => {
            write_ack(buffer, 0xB0, packet_id, &[]);
        }
        (MqttVersion::V5, Reply::UnsubAck { packet_id, codes }) => {
            write_ack(buffer, 0xB0, packet_id, &[&[0], codes.as_slice()].concat());
        }
        (MqttVersion::V311, Reply::ConnAck { code, session_present, .. }) => {
            buffer.put_slice(&[0x20, 2, u8::from(session_present), to_v3_code(code)]);
        }
        (MqttVersion::V5, Reply::ConnAck { code, session_present, limits }) => {
            let limits = encode_properties(limits);
            buffer.put_u8(0x20);
            put_length(buffer, limits.len() + 3);
            buffer.put_slice(&[u8::from(session_present), code]);
            put_length(buffer, limits.len());
            buffer.put_slice(&limits);
        }
        (MqttVersion::V311, Reply::Disconnect(_)) => {}
        (MqttVersion::V5, Reply::Disconnect(code)) => buffer.put_slice(&[0xE0, 1, code]),
        (version, Reply::Publish { packet_id, dup, message }) => {
            write_message(version, packet_id, dup, message, buffer)?;
        }
    }
    Ok(())
}

fn write_message(
    version: MqttVersion,
    packet_id: u16,
    dup: bool,
    message: PublishedMessage,
    buffer: &mut BytesMut,
) -> Result<(), CodecError> {
    let PublishedMessage { topic, payload, qos, retain, properties } = message;
    match version {
        MqttVersion::V311 => {
            let qos = b4::qos(qos as u8)?;
            let publish = v4::Publish { dup, qos, retain, topic, pkid: packet_id, payload };
            publish.write(buffer)?;
        }
        MqttVersion::V5 => {
            let qos = b5::qos(qos as u8).unwrap_or(b5::QoS::AtMostOnce);
            let publish = v5::Publish {
                dup,
                qos,
                retain,
                topic: topic.into(),
                pkid: packet_id,
                payload,
                properties: publish_properties(properties),
            };
            publish.write(buffer)?;
        }
    }
    Ok(())
}

/// Writes header, length, packet id and rest.
fn write_ack(buffer: &mut BytesMut, header: u8, packet_id: u16, rest: &[u8]) {
    buffer.put_u8(header);
    put_length(buffer, rest.len() + 2);
    buffer.put_u16(packet_id);
    buffer.put_slice(rest);
}

/// Writes a length of up to 16,383 bytes (MQTT 5.0, 1.5.5). No acknowledgement is longer.
fn put_length(buffer: &mut BytesMut, length: usize) {
    let [low, high] = [length & 0x7F, (length >> 7) & 0x7F].map(|part| part.to_le_bytes()[0]);
    if high == 0 {
        buffer.put_u8(low);
    } else {
        buffer.put_slice(&[low | 0x80, high]);
    }
}

/// Encodes the properties of a CONNACK with their identifiers (MQTT 5.0, 2.2.2.2).
fn encode_properties(limits: ConnackProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(most) = limits.receive_max {
        bytes.put_u8(0x21);
        bytes.put_u16(most);
    }
    if let Some(most) = limits.max_qos {
        bytes.put_slice(&[0x24, most]);
    }
    if let Some(available) = limits.retain_available {
        bytes.put_slice(&[0x25, available]);
    }
    if let Some(most) = limits.max_packet {
        bytes.put_u8(0x27);
        bytes.put_u32(most);
    }
    if let Some(seconds) = limits.keep_alive {
        bytes.put_u8(0x13);
        bytes.put_u16(seconds);
    }
    bytes
}

/// Returns the return code of 3.1.1 that is nearest to a reason code of MQTT 5.
const fn to_v3_code(code: u8) -> u8 {
    match code {
        0 => 0,
        0x84 => 1,
        0x85 => 2,
        0x86 => 4,
        0x87 | 0x8A | 0x8C => 5,
        _ => 3,
    }
}
