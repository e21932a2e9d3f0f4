//! Finds the packets in a stream and judges them. Pure.

use provisioning::config::MqttVersion;

use super::properties::{
    MAXIMUM_PACKET_SIZE, Properties, REASON_STRING, RECEIVE_MAXIMUM, SERVER_REFERENCE, TOPIC_ALIAS,
    length_prefix, variable_integer,
};
use super::{BrokerReasons, PeerProtocol, Violation};
use crate::model::UntrustedText;
use crate::mqtt::reason_code::BrokerReason;

/// Longest packet other than a message, and longest properties of a message, in bytes: room for the
/// longest reason string. A property of 5 bytes takes 100 in rumqttc, which holds ten packets at
/// once, so this bounds them to 14 MB.
const MAX_OVERHEAD: usize = 66 * 1024;
/// Bytes that tell who answers: as many as `HTTP/` has.
const PROTOCOL_PREFIX_LEN: usize = 5;

/// Most ping responses that are read at once. The client sends a request only after the last
/// response, so a broker that sends more takes the time of the thread that reads the PLCs.
const MAX_PING_RESPONSES: u32 = 16;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// How far a stream was read. Keeps of a packet only what has to be judged.
#[derive(Debug)]
pub(super) struct PacketScanner {
    version: MqttVersion,
    subscribes: bool,
    position: ScanPosition,
    /// Ping responses among the bytes that were read last.
    ping_responses: u32,
}

#[derive(Debug)]
enum ScanPosition {
    /// Before the first packet; what was read does not look like one.
    PeerProtocol(Vec<u8>),
    Header {
        is_first: bool,
    },
    Length {
        header: u8,
        length: usize,
        shift: u32,
    },
    Body {
        header: u8,
        left: usize,
        /// What is to be judged so far; `None` once it is.
        head: Option<Vec<u8>>,
    },
}

impl PacketScanner {
    pub(super) const fn new(version: MqttVersion, subscribes: bool) -> Self {
        let position = ScanPosition::Header { is_first: true };
        Self { version, subscribes, position, ping_responses: 0 }
    }

    /// Reads the next bytes, which may begin and end anywhere in a packet. At a violation, returns
    /// how many of them may pass: never the last byte of the packet that violates.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        reasons: &BrokerReasons,
    ) -> Result<(), (usize, Violation)> {
        let mut rest = bytes;
        self.ping_responses = 0;
        while !rest.is_empty() {
            let passed = bytes.len() - rest.len();
            let taken = self.step(rest, reasons).map_err(|violation| (passed, violation))?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads one part of a packet and returns its length, at least one byte.
    fn step(&mut self, bytes: &[u8], reasons: &BrokerReasons) -> Result<usize, Violation> {
        let Some(&byte) = bytes.first() else { return Ok(0) };
        match &mut self.position {
            ScanPosition::PeerProtocol(seen) => {
                let taken = bytes.len().min(PROTOCOL_PREFIX_LEN - seen.len());
                seen.extend(bytes.iter().take(taken));
                detect_protocol(seen)
                    .map_or(Ok(taken), |protocol| Err(Violation::NotMqtt(protocol)))
            }
            ScanPosition::Header { is_first: true } if byte >> 4 != CONNACK => {
                self.position = ScanPosition::PeerProtocol(Vec::new());
                // Judged by the next step: these bytes themselves never pass.
                self.step(bytes, reasons)
            }
            &mut ScanPosition::Header { is_first } => {
                self.judge_header(byte >> 4, is_first)?;
                self.position = ScanPosition::Length { header: byte, length: 0, shift: 0 };
                Ok(1)
            }
            &mut ScanPosition::Length { header, length, shift } => {
                // Four length bytes at most (3.1.1, 2.2.3).
                if shift > 21 {
                    return Err(Violation::MalformedLength);
                }
                let length = length | usize::from(byte & 0x7F) << shift;
                self.position = if byte & 0x80 != 0 {
                    ScanPosition::Length { header, length, shift: shift + 7 }
                } else {
                    judge_length(header >> 4, length)?;
                    self.begin_body(header, length)
                };
                Ok(1)
            }
            ScanPosition::Body { header, left, head } => {
                let (header, taken) = (*header, bytes.len().min(*left));
                let fresh = bytes.get(..taken).unwrap_or_default();
                let is_whole = taken == *left;
                if let Some(mut seen) = head.take() {
                    seen.extend_from_slice(fresh);
                    if !self.judge_body(header, &seen, is_whole, reasons)? {
                        self.keep_head(seen);
                    }
                }
                self.advance(taken);
                Ok(taken)
            }
        }
    }

    fn begin_body(&self, header: u8, length: usize) -> ScanPosition {
        let is_judged = match header >> 4 {
            CONNACK | DISCONNECT => true,
            PUBLISH => self.version == MqttVersion::V5,
            _ => false,
        };
        match length {
            0 => ScanPosition::Header { is_first: false },
            left => ScanPosition::Body { header, left, head: is_judged.then(Vec::new) },
        }
    }

    fn keep_head(&mut self, seen: Vec<u8>) {
        if let ScanPosition::Body { head, .. } = &mut self.position {
            *head = Some(seen);
        }
    }

    fn advance(&mut self, taken: usize) {
        if let ScanPosition::Body { left, .. } = &mut self.position {
            *left -= taken;
            if *left == 0 {
                self.position = ScanPosition::Header { is_first: false };
            }
        }
    }

    /// Judges the type of a packet.
    const fn judge_header(&mut self, kind: u8, is_first: bool) -> Result<(), Violation> {
        if kind == PINGRESP {
            self.ping_responses += 1;
        }
        match kind {
            PINGRESP if self.ping_responses > MAX_PING_RESPONSES => {
                Err(Violation::UnsolicitedPingResponses)
            }
            CONNACK if !is_first => Err(Violation::SecondConnack),
            PUBLISH if !self.subscribes => Err(Violation::UnsolicitedMessage),
            // CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ; AUTH is for clients that named a method
            // (MQTT 5.0, 4.12), and 0 is reserved.
            0 | 1 | 8 | 10 | 12 | 15 => Err(Violation::UnexpectedPacket { kind }),
            _ => Ok(()),
        }
    }

    /// Judges the body of a packet as far as it was read. Returns whether that was all there is to
    /// judge.
    fn judge_body(
        &self,
        header: u8,
        seen: &[u8],
        is_whole: bool,
        reasons: &BrokerReasons,
    ) -> Result<bool, Violation> {
        match header >> 4 {
            PUBLISH => judge_message(header, seen),
            CONNACK if is_whole => self.judge_connack(seen, reasons).map(|()| true),
            DISCONNECT if is_whole => {
                if let Some((&code, rest)) = seen.split_first() {
                    reasons.record_disconnect(broker_reason(code, Properties::after_length(rest)));
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Judges a whole CONNACK: flags, code, and with version 5 properties (3.2.2).
    fn judge_connack(&self, body: &[u8], reasons: &BrokerReasons) -> Result<(), Violation> {
        let Some(&code) = body.get(1) else { return Ok(()) };
        let properties = Properties::after_length(body.get(2..).unwrap_or_default());
        reasons.record_connack(broker_reason(code, properties));
        if self.version == MqttVersion::V5 && body.len() == 2 {
            return Err(Violation::AnswersV3 { code });
        }
        let is_zero = |value: &[u8]| value.iter().all(|byte| *byte == 0);
        for (id, value) in properties {
            match id {
                RECEIVE_MAXIMUM if is_zero(value) => return Err(Violation::ReceiveMaximumZero),
                MAXIMUM_PACKET_SIZE if is_zero(value) => {
                    return Err(Violation::MaximumPacketSizeZero);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the protocol by the first bytes, if it is not MQTT; `None` until enough was read.
fn detect_protocol(seen: &[u8]) -> Option<PeerProtocol> {
    if seen.starts_with(b"HTTP/") {
        return Some(PeerProtocol::Http);
    }
    // A TLS alert (RFC 8446, 5.1 and 6): record type 21, version 3.x.
    if seen.starts_with(&[21, 3]) {
        return Some(PeerProtocol::Tls);
    }
    let may_become = [&b"HTTP/"[..], &[21, 3]].into_iter().any(|start| start.starts_with(seen));
    (!may_become).then_some(PeerProtocol::Other)
}

/// Judges the length of a packet. Messages have the limit of rumqttc.
const fn judge_length(kind: u8, bytes: usize) -> Result<(), Violation> {
    if kind != PUBLISH && bytes > MAX_OVERHEAD {
        return Err(Violation::PacketTooLong { kind, bytes });
    }
    Ok(())
}

/// Judges topic and properties of a message of version 5. Returns whether they were complete.
fn judge_message(header: u8, body: &[u8]) -> Result<bool, Violation> {
    let Some(topic) = length_prefix(body) else { return Ok(false) };
    // The packet id follows the topic unless the QoS is 0 (3.3.2.2).
    let packet_id = if header & 0b0110 == 0 { 0 } else { 2 };
    let behind = body.get(2 + topic + packet_id..).unwrap_or_default();
    let Some((bytes, width)) = variable_integer(behind) else { return Ok(false) };
    if bytes > MAX_OVERHEAD {
        return Err(Violation::PropertiesTooLong { bytes });
    }
    let Some(properties) = behind.get(width..width + bytes) else { return Ok(false) };
    if Properties::new(properties).any(|(id, _)| id == TOPIC_ALIAS) {
        return Err(Violation::TopicAlias);
    }
    Ok(true)
}

fn broker_reason(code: u8, properties: Properties<'_>) -> BrokerReason {
    let text = |wanted: u8| {
        let (_, value) = properties.into_iter().find(|(id, _)| *id == wanted)?;
        Some(UntrustedText::new(&String::from_utf8_lossy(value)))
    };
    BrokerReason { code, text: text(REASON_STRING), server: text(SERVER_REFERENCE) }
}
