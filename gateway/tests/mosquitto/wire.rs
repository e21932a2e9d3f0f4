//! A client that reads and writes packets by itself, so that both brokers meet the same bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// Far more than an answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Protocol level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    V4 = 4,
    V5 = 5,
}

/// A CONNECT.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) is_kept: bool,
    /// Topic, and whether it is retained.
    pub(crate) will: Option<(String, bool)>,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct WireClient {
    stream: TcpStream,
    pub(crate) level: Level,
    pub(crate) holds_acks: bool,
    messages: Vec<String>,
}

/// Bytes of packets.
pub(crate) struct Packet;

impl Packet {
    fn connect(level: Level, login: &Login) -> Vec<u8> {
        let is_v5 = level == Level::V5;
        let will =
            login.will.as_ref().map_or(0, |(_, retain)| 0x04 | 0x08 | u8::from(*retain) << 5);
        let flags = 0x80 | will | u8::from(!login.is_kept) << 1;
        let mut body = [&text("MQTT")[..], &[level as u8, flags, 0, 0]].concat();
        if is_v5 {
            let expiry: &[u8] = if login.is_kept { &[5, 0x11, 0, 0, 14, 16] } else { &[0] };
            body.extend(expiry);
        }
        body.extend(text(&login.id));
        if let Some((topic, _)) = &login.will {
            body.extend(if is_v5 { &[0][..] } else { &[] });
            body.extend(text(topic));
            body.extend(text("will"));
        }
        body.extend(text(&login.user));
        packet(0x10, &body)
    }

    pub(crate) fn subscribe(level: Level, id: u16, filter: &str, qos: u8) -> Vec<u8> {
        packet(0x82, &[&start(level, id)[..], &text(filter), &[qos]].concat())
    }

    pub(crate) fn unsubscribe(level: Level, id: u16, filter: &str) -> Vec<u8> {
        packet(0xA2, &[&start(level, id)[..], &text(filter)].concat())
    }
}

impl WireClient {
    /// Connects and returns whether the broker had kept the session.
    pub(crate) fn connect(port: u16, level: Level, login: &Login) -> (Self, bool) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut client = Self { stream, level, holds_acks: false, messages: Vec::new() };
        client.send(&Packet::connect(level, login));
        let connack = client.wait_for(0x20);
        assert_eq!(connack[1], 0, "{login:?}");
        (client, connack[0] == 1)
    }

    /// Ends the connection, with DISCONNECT or without, and waits until the broker has noticed.
    pub(crate) fn leave(mut self, is_clean: bool) {
        if is_clean {
            self.send(&[0xE0, 0]);
        }
        self.stream.shutdown(Shutdown::Write).expect("the broker has not closed it");
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Publishes, with the whole exchange of its QoS. Returns the reason code of a refusal.
    pub(crate) fn publish(
        &mut self,
        id: u16,
        topic: &str,
        payload: &str,
        qos: u8,
        retain: bool,
    ) -> String {
        let mut body = text(topic);
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if self.level == Level::V5 {
            body.push(0);
        }
        body.extend(payload.as_bytes());
        self.send(&packet(0x30 | qos << 1 | u8::from(retain), &body));
        let code = |ack: &[u8]| ack.get(2).copied().filter(|code| *code >= 0x80);
        let refusal = match qos {
            0 => {
                // Nothing acknowledges it but the answer to what follows.
                self.send(&[0xC0, 0]);
                self.wait_for(0xD0);
                None
            }
            1 => code(&self.wait_for(0x40)),
            _ => code(&self.wait_for(0x50)),
        };
        if qos == 2 && refusal.is_none() {
            self.send(&ack(0x62, id));
            self.wait_for(0x70);
        }
        refusal.map_or_else(String::new, |code| format!("refused {code:#x}"))
    }

    /// Returns the messages that the broker has for this client, and acknowledges them.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            self.send(&[0xC0, 0]);
            self.wait_for(0xD0);
            if self.messages.is_empty() {
                return seen;
            }
            seen.append(&mut self.messages);
        }
    }

    /// Reads up to a packet of this type and returns its body. Messages before it are kept.
    pub(crate) fn wait_for(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (header, body) = self.read_packet();
            match header & 0xF0 {
                0x30 => self.on_message(header, &body),
                0x60 if !self.holds_acks => self.send(&ack(0x70, id_of(&body))),
                _ => {}
            }
            if header & 0xF0 == kind {
                return body;
            }
        }
    }

    fn on_message(&mut self, header: u8, body: &[u8]) {
        let (qos, retain, dup) = (header >> 1 & 3, header & 1, header >> 3 & 1);
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..2 + length]);
        let mut rest = &body[2 + length..];
        if qos > 0 {
            if !self.holds_acks {
                let first = if qos == 1 { 0x40 } else { 0x50 };
                let answer = ack(first, id_of(rest));
                self.stream.write_all(&answer).expect("the broker reads");
            }
            rest = &rest[2..];
        }
        if self.level == Level::V5 {
            // No property is longer than a byte can tell here.
            rest = &rest[1 + usize::from(rest[0])..];
        }
        let payload = String::from_utf8_lossy(rest);
        self.messages.push(format!("{topic} {payload} qos {qos} retain {retain} dup {dup}"));
    }

    fn read_packet(&mut self) -> (u8, Vec<u8>) {
        let header = self.read_byte();
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.read_byte();
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the rest of the packet");
        (header, body)
    }

    fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("an answer in time");
        byte[0]
    }
}

fn packet(header: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![header];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7F).expect("seven bits") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits"));
    bytes.extend(body);
    bytes
}

/// Returns the beginning of SUBSCRIBE and UNSUBSCRIBE.
fn start(level: Level, id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(if level == Level::V5 { &[0][..] } else { &[] });
    bytes
}

fn ack(header: u8, id: u16) -> Vec<u8> {
    packet(header, &id.to_be_bytes())
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn id_of(body: &[u8]) -> u16 {
    u16::from_be_bytes([body[0], body[1]])
}
