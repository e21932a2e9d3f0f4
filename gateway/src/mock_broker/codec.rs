//! Packets of both protocol versions in one form, on rumqttc's codecs.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use provisioning::config::{MqttVersion, Qos, Will};
use rumqttc::mqttbytes::{self as b4, v4};
use rumqttc::v5::mqttbytes::{self as b5, v5};
use thiserror::Error;

use super::{ConnackProperties, ConnectInfo, PublishedMessage, SessionStart};

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
    PubRel(u16),
    Subscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: usize,
    },
    PingReq,
    Disconnect,
    /// An acknowledgement, or a packet that clients do not send.
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
    PubComp(u16),
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        filters: usize,
    },
    PingResp,
    Publish(PublishedMessage),
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
        return Ok(Some(Request::Disconnect));
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
            },
        },
        v4::Packet::PubRel(release) => Request::PubRel(release.pkid),
        v4::Packet::Subscribe(subscribe) => Request::Subscribe {
            packet_id: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| filter.path).collect(),
        },
        v4::Packet::Unsubscribe(unsubscribe) => {
            Request::Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.topics.len() }
        }
        v4::Packet::PingReq => Request::PingReq,
        v4::Packet::Disconnect => Request::Disconnect,
        v4::Packet::ConnAck(_)
        | v4::Packet::PubAck(_)
        | v4::Packet::PubRec(_)
        | v4::Packet::PubComp(_)
        | v4::Packet::SubAck(_)
        | v4::Packet::UnsubAck(_)
        | v4::Packet::PingResp => Request::Other,
    })
}

fn request_v5(packet: v5::Packet) -> Request {
    match packet {
        v5::Packet::Connect(connect, will, login) => Request::Connect(ConnectInfo {
            client_id: connect.client_id,
            version: MqttVersion::V5,
            keep_alive: connect.keep_alive,
            start: if connect.clean_start { SessionStart::Clean } else { SessionStart::Resume },
            username: login.as_ref().map(|login| login.username.clone()),
            password: login.map(|login| login.password),
            will: will.map(|will| Will {
                topic: text(&will.topic),
                payload: text(&will.message),
                qos: qos(will.qos as u8),
                retain: will.retain,
            }),
        }),
        v5::Packet::Publish(publish) => Request::Publish {
            packet_id: publish.pkid,
            message: PublishedMessage {
                topic: text(&publish.topic),
                payload: publish.payload,
                qos: qos(publish.qos as u8),
                retain: publish.retain,
            },
        },
        v5::Packet::PubRel(release) => Request::PubRel(release.pkid),
        v5::Packet::Subscribe(subscribe) => Request::Subscribe {
            packet_id: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| filter.path).collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => {
            Request::Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.filters.len() }
        }
        v5::Packet::PingReq(_) => Request::PingReq,
        v5::Packet::Disconnect(_) => Request::Disconnect,
        v5::Packet::Auth(_)
        | v5::Packet::ConnAck(_)
        | v5::Packet::PubAck(_)
        | v5::Packet::PubRec(_)
        | v5::Packet::PubComp(_)
        | v5::Packet::SubAck(_)
        | v5::Packet::UnsubAck(_)
        | v5::Packet::PingResp(_) => Request::Other,
    }
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
        (MqttVersion::V5, Reply::UnsubAck { packet_id, filters }) => {
            write_ack(buffer, 0xB0, packet_id, &vec![0; filters + 1]);
        }
        (MqttVersion::V311, Reply::ConnAck { code, session_present, .. }) => {
            buffer.put_slice(&[0x20, 2, u8::from(session_present), to_v3_code(code)]);
        }
        (MqttVersion::V5, Reply::ConnAck { code, session_present, limits }) => {
            let limits = encode_properties(limits);
            let (length, all) = (length(limits.len()), length(limits.len() + 3));
            buffer.put_slice(&[0x20, all, u8::from(session_present), code, length]);
            buffer.put_slice(&limits);
        }
        (MqttVersion::V311, Reply::Disconnect(_)) => {}
        (MqttVersion::V5, Reply::Disconnect(code)) => buffer.put_slice(&[0xE0, 1, code]),
        (MqttVersion::V311, Reply::Publish(message)) => {
            let PublishedMessage { topic, payload, retain, .. } = message;
            let mut publish = v4::Publish::from_bytes(topic, b4::QoS::AtMostOnce, payload);
            publish.retain = retain;
            publish.write(buffer)?;
        }
        (MqttVersion::V5, Reply::Publish(message)) => {
            let PublishedMessage { topic, payload, retain, .. } = message;
            let mut publish = v5::Publish::new(topic, b5::QoS::AtMostOnce, payload, None);
            publish.retain = retain;
            publish.write(buffer)?;
        }
    }
    Ok(())
}

/// Writes header, length, packet id and rest. Acknowledgements fit a length of one byte.
fn write_ack(buffer: &mut BytesMut, header: u8, packet_id: u16, rest: &[u8]) {
    buffer.put_slice(&[header, length(rest.len() + 2)]);
    buffer.put_u16(packet_id);
    buffer.put_slice(rest);
}

fn length(bytes: usize) -> u8 {
    u8::try_from(bytes.min(0x7F)).unwrap_or(0x7F)
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
