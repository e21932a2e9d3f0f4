//! Connects to a broker: dial, CONNECT, SUBSCRIBE.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use provisioning::config::{Broker, Mqtt, Qos, Secret};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::broker_traits::ConnectRequest;
use super::failure::SessionFailure;
use super::inbound_guard::{BrokerReasons, InboundGuard, Violation};
use super::inbox::{DueAck, ReceivedPublish};
use super::reason_code::BrokerReason;
use super::session::{self, ConnackLimits, Publisher, SessionDriver, SessionEvent};
use super::session_start::SessionRequest;
use super::{ClientSettings, reason_code};
use crate::model::UntrustedText;
use crate::uplink::{DialError, UnixBridge};

/// Longest wait for the TCP connection and the TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to CONNECT, and to SUBSCRIBE.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a PUBLISH other than topic and payload: header and length (5), topic length (2), packet
/// id (2), property length (1).
const PUBLISH_OVERHEAD: usize = 10;
/// Most messages, and most bytes of payload, that are kept until the broker answers SUBSCRIBE.
const MAX_EARLY_MESSAGES: usize = 64;
const MAX_EARLY_BYTES: usize = 4 * 1024 * 1024;
/// A broker that accepts only shorter packets accepts no message with a stamp.
const MIN_PACKET_LEN: usize = 128;

/// A connection that the broker has accepted. If it is dropped without a DISCONNECT, the broker
/// publishes the will.
#[derive(Debug)]
pub(super) struct BrokerConnection {
    pub(super) publisher: Publisher,
    pub(super) driver: SessionDriver,
    pub(super) stream: BrokerStream,
    pub(super) limits: ConnackLimits,
    pub(super) early: EarlyMessages,
    /// The filters that the broker refused, with the reason code.
    pub(super) refused: Vec<(String, u8)>,
}

/// Messages that arrived before the answer to SUBSCRIBE.
#[derive(Debug, Default)]
pub(super) struct EarlyMessages {
    /// At most [`MAX_EARLY_MESSAGES`] and [`MAX_EARLY_BYTES`].
    pub(super) kept: Vec<ReceivedPublish>,
    /// Those of QoS 1 and 2 that did not fit, without their content; at most as many as there are
    /// packet ids.
    pub(super) overflow: Vec<DueAck>,
    /// Number of those of QoS 0 that did not fit.
    pub(super) lost: usize,
    bytes: usize,
}

/// How to begin a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionPlan<'a> {
    pub(super) request: &'a ConnectRequest,
    pub(super) session: SessionRequest,
    /// Topic filters.
    pub(super) subscriptions: &'a [String],
}

type Copying = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Copies bytes between rumqttc and the broker, and knows why the copying ended.
pub(super) struct BrokerStream {
    /// Absent once it has ended.
    copying: Option<Copying>,
    io_error: Option<io::Error>,
    reasons: BrokerReasons,
}

/// Connects and subscribes. Nothing is published before the broker has answered CONNECT and
/// SUBSCRIBE, so no acknowledgement can arrive before the session loop reads it.
pub(super) async fn connect(
    settings: &ClientSettings,
    broker: &Broker,
    plan: SessionPlan<'_>,
) -> Result<BrokerConnection, SessionFailure> {
    let SessionPlan { request, session, subscriptions } = plan;
    let dialled = settings.uplink.dial(broker, DIAL_TIMEOUT).await;
    let stream = dialled.map_err(SessionFailure::Dial)?;
    let (stream, reasons) = InboundGuard::new(stream, request.version, !subscriptions.is_empty());
    let password = read_password(&settings.mqtt).await?;
    let bridge = UnixBridge::open().map_err(SessionFailure::Bridge)?;
    let (publisher, mut driver) =
        session::open(settings, request, session, password.as_ref(), bridge.path());
    let copying = Some(Box::pin(bridge.copy(stream)) as Copying);
    let mut stream = BrokerStream { copying, io_error: None, reasons };
    // rumqttc reads and writes only while the copying is polled as well.
    let answer = select! {
        answer = timeout(ANSWER_TIMEOUT, driver.await_connack()) => answer,
        never = stream.copy_forever() => match never {},
    };
    let limits = answer
        .unwrap_or(Err(SessionFailure::NoConnack))
        .map_err(|failure| stream.refine(failure))?;
    check_limits(settings, limits)?;
    let mut connection = BrokerConnection {
        publisher,
        driver,
        stream,
        limits,
        early: EarlyMessages::default(),
        refused: Vec::new(),
    };
    if !subscriptions.is_empty() {
        connection.subscribe(subscriptions).await?;
    }
    Ok(connection)
}

/// Returns whether the messages of this configuration are within the limits of the broker.
fn check_limits(settings: &ClientSettings, limits: ConnackLimits) -> Result<(), SessionFailure> {
    let lower = settings.mqtt.lower;
    if limits.max_qos < settings.publish_qos && !lower.qos {
        return Err(SessionFailure::QosNotSupported);
    }
    if settings.publish_retain && !limits.retain_available && !lower.retain {
        return Err(SessionFailure::RetainNotSupported);
    }
    // Otherwise every message would be dropped as too large.
    match limits.max_packet_len {
        Some(bytes) if bytes < MIN_PACKET_LEN => Err(SessionFailure::PacketLimit { bytes }),
        _ => Ok(()),
    }
}

/// Waits for the answer to SUBSCRIBE and returns its codes. A persistent session begins with what
/// the broker has stored, before that answer.
async fn await_suback(
    driver: &mut SessionDriver,
    early: &mut EarlyMessages,
) -> Result<Vec<u8>, SessionFailure> {
    loop {
        match driver.next_event().await? {
            SessionEvent::Subscribed(codes) => return Ok(codes),
            SessionEvent::Received(received) => early.push(received),
            SessionEvent::Written(_)
            | SessionEvent::PacketIdBusy
            | SessionEvent::PubrecReceived
            | SessionEvent::Acked { .. }
            | SessionEvent::AckWritten
            | SessionEvent::Unsubscribed
            | SessionEvent::DisconnectSent
            | SessionEvent::Other => {}
        }
    }
}

impl EarlyMessages {
    fn push(&mut self, received: ReceivedPublish) {
        let ReceivedPublish { packet_id, qos, .. } = received;
        let bytes = self.bytes + received.message.payload.len();
        // After one that did not fit, none is taken: the order would change.
        let has_room = self.overflow.is_empty() && self.kept.len() < MAX_EARLY_MESSAGES;
        if has_room && bytes <= MAX_EARLY_BYTES {
            self.bytes = bytes;
            self.kept.push(received);
        } else if qos == Qos::AtMostOnce {
            self.lost = self.lost.saturating_add(1);
        } else if self.overflow.len() < usize::from(u16::MAX) {
            self.overflow.push(DueAck { packet_id, qos });
        }
    }
}

/// Reads the password, for this connection only, so that a corrected one is used without a restart.
async fn read_password(mqtt: &Mqtt) -> Result<Option<Secret>, SessionFailure> {
    let Some(file) = mqtt.credentials.as_ref().and_then(|own| own.password.clone()) else {
        return Ok(None);
    };
    // On a thread of its own: an SD card may take seconds, in which this one could not poll PLCs.
    let read = spawn_blocking(move || file.read().map_err(|error| error.to_string())).await;
    let password = read.unwrap_or_else(|panicked| Err(panicked.to_string()));
    password.map(Some).map_err(SessionFailure::PasswordFile)
}

impl BrokerConnection {
    /// Subscribes and waits for the answer. What the broker sends before it is kept in `early`.
    async fn subscribe(&mut self, filters: &[String]) -> Result<(), SessionFailure> {
        if self.publisher.subscribe(filters).is_err() {
            self.set_refused(filters, &vec![reason_code::TOPIC_FILTER_INVALID; filters.len()]);
            return Ok(());
        }
        let (driver, early) = (&mut self.driver, &mut self.early);
        let answer = select! {
            answer = timeout(ANSWER_TIMEOUT, await_suback(driver, early)) => answer,
            never = self.stream.copy_forever() => match never {},
        };
        let codes = answer
            .unwrap_or(Err(SessionFailure::NoSuback))
            .map_err(|failure| self.stream.refine(failure).before_suback())?;
        self.set_refused(filters, &codes);
        Ok(())
    }

    fn set_refused(&mut self, filters: &[String], codes: &[u8]) {
        let answers = filters.iter().zip(codes);
        let refused = answers.filter(|(_, code)| reason_code::is_failure(**code));
        self.refused = refused.map(|(filter, code)| (filter.clone(), *code)).collect();
    }

    /// Returns the most bytes of topic and payload in one message, if the broker has a limit.
    pub(super) fn max_payload(&self) -> Option<usize> {
        self.limits.max_packet_len.map(payload_capacity)
    }
}

/// Returns the bytes for topic and payload in a packet of this length.
pub(super) const fn payload_capacity(packet: usize) -> usize {
    packet.saturating_sub(PUBLISH_OVERHEAD)
}

impl BrokerStream {
    /// Copies bytes and never returns. Cancel safe. When the connection ends, rumqttc's socket is
    /// closed, and rumqttc reports that after it has read the remaining bytes.
    pub(super) async fn copy_forever(&mut self) -> Infallible {
        self.copy_to_end().await;
        pending().await
    }

    /// Copies bytes until both ends are closed. Cancel safe.
    pub(super) async fn copy_to_end(&mut self) {
        if let Some(copying) = &mut self.copying {
            self.io_error = copying.await.err();
            self.copying = None;
        }
    }

    /// Returns the cause of a failure as far as the stream knows better than rumqttc, which sees
    /// only a closed unix socket.
    pub(super) fn refine(&mut self, failure: SessionFailure) -> SessionFailure {
        if let Some(violation) = self.reasons.violation() {
            return violation_failure(violation);
        }
        if let Some(dial) = self.dial_error() {
            return SessionFailure::Dial(dial);
        }
        let connack = self.reasons.connack().filter(|said| said.code != reason_code::SUCCESS);
        match (failure, connack, self.reasons.disconnect()) {
            (
                SessionFailure::NoConnack
                | SessionFailure::ClosedBeforeConnack
                | SessionFailure::Connack(_)
                | SessionFailure::Protocol(_),
                Some(said),
                _,
            ) => {
                let code = reason_code::from_v3(said.code);
                SessionFailure::Connack(BrokerReason { code, ..said.clone() })
            }
            (
                SessionFailure::Closed
                | SessionFailure::Broken(_)
                | SessionFailure::Disconnected(_)
                | SessionFailure::Protocol(_),
                _,
                Some(said),
            ) => SessionFailure::Disconnected(said.clone()),
            (SessionFailure::Closed, ..) => {
                self.io_error.take().map_or(SessionFailure::Closed, SessionFailure::Broken)
            }
            (other, ..) => other,
        }
    }

    /// Returns why the broker ended the connection although the TLS handshake seemed to succeed.
    fn dial_error(&self) -> Option<DialError> {
        let error = self.io_error.as_ref()?.get_ref()?;
        error.downcast_ref::<DialError>().cloned()
    }
}

/// Returns the failure of a session that the guard ended.
fn violation_failure(violation: Violation) -> SessionFailure {
    match violation {
        Violation::NotMqtt(protocol) => SessionFailure::NotMqtt(protocol),
        Violation::AnswersV3 { code: reason_code::SUCCESS } => SessionFailure::AnswersV3,
        Violation::AnswersV3 { code } => {
            SessionFailure::Connack(BrokerReason::bare(reason_code::from_v3(code)))
        }
        Violation::ReceiveMaximumZero
        | Violation::MaximumPacketSizeZero
        | Violation::UnsolicitedMessage
        | Violation::UnsolicitedPingResponses
        | Violation::TopicAlias
        | Violation::PacketTooLong { .. }
        | Violation::PropertiesTooLong { .. }
        | Violation::UnexpectedPacket { .. }
        | Violation::SecondConnack
        | Violation::MalformedLength => SessionFailure::Protocol(UntrustedText::of(&violation)),
    }
}

impl std::fmt::Debug for BrokerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerStream").field("io_error", &self.io_error).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::IncomingMessage;

    fn received(packet_id: u16, qos: Qos, bytes: usize) -> ReceivedPublish {
        let message = IncomingMessage { payload: vec![0; bytes], ..IncomingMessage::default() };
        ReceivedPublish { packet_id, qos, message }
    }

    #[test]
    fn what_does_not_fit_before_the_suback_is_not_forgotten() {
        for (size, fitting) in [(0, MAX_EARLY_MESSAGES), (MAX_EARLY_BYTES / 4, 4)] {
            let mut early = EarlyMessages::default();
            for _ in 0..fitting + 3 {
                early.push(received(0, Qos::AtMostOnce, size));
            }
            assert_eq!((early.kept.len(), early.lost), (fitting, 3));
            early.push(received(7, Qos::AtLeastOnce, size));
            early.push(received(8, Qos::ExactlyOnce, size));
            let ids: Vec<_> = early.overflow.iter().map(|ack| ack.packet_id).collect();
            assert_eq!((early.kept.len(), early.lost, ids), (fitting, 3, vec![7, 8]));
        }
    }

    #[test]
    fn after_a_message_that_did_not_fit_no_smaller_one_overtakes_it() {
        let mut early = EarlyMessages::default();
        early.push(received(1, Qos::AtLeastOnce, MAX_EARLY_BYTES));
        early.push(received(2, Qos::AtLeastOnce, 1));
        early.push(received(3, Qos::AtLeastOnce, 0));
        assert_eq!((early.kept.len(), early.overflow.len()), (1, 2));
    }

    #[test]
    fn a_flood_before_the_suback_takes_bounded_memory() {
        let mut early = EarlyMessages::default();
        for packet_id in (1..=u16::MAX).chain(1..=u16::MAX) {
            early.push(received(packet_id, Qos::AtLeastOnce, 0));
        }
        assert_eq!(early.overflow.len(), usize::from(u16::MAX));
    }
}
