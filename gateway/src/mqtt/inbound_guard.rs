//! Follows the packets that a broker sends before rumqttc gets them, for two reasons.
//!
//! rumqttc 0.25.1 loses what brokers say: MQTT 5 allows a DISCONNECT without a property length
//! (3.14.2.2.1), and Mosquitto sends such ones; rumqttc then waits for more bytes and reports a
//! closed connection. The same happens to a CONNACK of 3.1.1 under version 5.
//!
//! And it keeps what a broker may not send: every topic alias, though the gateway's Topic Alias
//! Maximum is 0, and packets whose properties take ten times their size in memory. So the guard
//! ends the stream at the first packet that is not allowed; rumqttc never sees the end of it.

mod packet_scanner;
mod properties;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use provisioning::config::MqttVersion;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reason_code::BrokerReason;
use packet_scanner::PacketScanner;

/// What the broker has said so far; the first of each kind is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokerReasons(Arc<SharedReasons>);

#[derive(Debug, Default)]
struct SharedReasons {
    connack: OnceLock<BrokerReason>,
    disconnect: OnceLock<BrokerReason>,
    violation: OnceLock<Violation>,
}

/// What a broker may not send to this client.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum Violation {
    #[error("it does not begin with a CONNACK")]
    NotMqtt(PeerProtocol),
    /// Not a violation, but the end all the same: rumqttc cannot read it.
    #[error("it answers in MQTT 3.1.1")]
    AnswersV3 { code: u8 },
    #[error("Receive Maximum is 0 in its CONNACK (MQTT 5.0, 3.2.2.3.3)")]
    ReceiveMaximumZero,
    #[error("Maximum Packet Size is 0 in its CONNACK (MQTT 5.0, 3.2.2.3.6)")]
    MaximumPacketSizeZero,
    #[error("it sends messages although there is no subscription")]
    UnsolicitedMessage,
    #[error("it sends ping responses that were not requested")]
    UnsolicitedPingResponses,
    #[error("it uses a topic alias although none is allowed (MQTT 5.0, 3.3.2.3.4)")]
    TopicAlias,
    #[error("it sends a packet of type {kind} with {bytes} bytes")]
    PacketTooLong { kind: u8, bytes: usize },
    #[error("it sends {bytes} bytes of properties with a message")]
    PropertiesTooLong { bytes: usize },
    #[error("it sends a packet of type {kind}, which only a client sends")]
    UnexpectedPacket { kind: u8 },
    #[error("it sends a second CONNACK")]
    SecondConnack,
    #[error("the length of a packet has more than 4 bytes")]
    MalformedLength,
}

/// What a peer speaks that is no MQTT broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PeerProtocol {
    /// The answer of an HTTP server.
    Http,
    /// A TLS alert: the server expected a TLS handshake.
    Tls,
    /// Anything else.
    Other,
}

impl BrokerReasons {
    /// Returns what the CONNACK said.
    pub(super) fn connack(&self) -> Option<&BrokerReason> {
        self.0.connack.get()
    }

    /// Returns what a DISCONNECT said.
    pub(super) fn disconnect(&self) -> Option<&BrokerReason> {
        self.0.disconnect.get()
    }

    /// Returns why the guard ended the stream.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.0.violation.get().copied()
    }

    fn record_connack(&self, reason: BrokerReason) {
        let _ = self.0.connack.set(reason);
    }

    fn record_disconnect(&self, reason: BrokerReason) {
        let _ = self.0.disconnect.set(reason);
    }
}

/// A stream that ends at the first violation.
#[derive(Debug)]
pub(super) struct InboundGuard<S> {
    stream: S,
    scanner: PacketScanner,
    reasons: BrokerReasons,
}

impl<S> InboundGuard<S> {
    /// Guards a session of this version; `subscribes` says whether it makes a subscription.
    pub(super) fn new(stream: S, version: MqttVersion, subscribes: bool) -> (Self, BrokerReasons) {
        let reasons = BrokerReasons::default();
        let scanner = PacketScanner::new(version, subscribes);
        (Self { stream, scanner, reasons: reasons.clone() }, reasons)
    }

    /// Reads the next bytes of the stream and returns how many of them may pass.
    fn inspect(&mut self, bytes: &[u8]) -> usize {
        let Err((passed, violation)) = self.scanner.scan(bytes, &self.reasons) else {
            return bytes.len();
        };
        let _ = self.reasons.0.violation.set(violation);
        passed
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InboundGuard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The end of the stream, so that what came before is still copied to rumqttc.
        if this.reasons.violation().is_some() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let passed = buf.filled().get(before..).map_or(0, |fresh| this.inspect(fresh));
        buf.set_filled(before + passed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InboundGuard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
