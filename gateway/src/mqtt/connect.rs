//! From a broker's address to an accepted connection.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use provisioning::config::Broker;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::failure::SessionFailure;
use super::reason_tap::{ReasonCodes, ReasonTap};
use super::session::{self, ConnackLimits, Publisher, SessionDriver, SessionEvent};
use super::{ClientSettings, MqttEvent, reason_code};
use crate::uplink::UnixBridge;

/// Longest wait for the stream.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to CONNECT, and to SUBSCRIBE.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// What a PUBLISH needs besides topic and payload: header and length (5), topic length (2), packet
/// id (2), property length (1).
const PUBLISH_OVERHEAD: usize = 10;

/// A connection that the broker has accepted. Dropping it without a goodbye lets the broker publish
/// the will.
#[derive(Debug)]
pub(super) struct BrokerConnection {
    pub(super) publisher: Publisher,
    pub(super) driver: SessionDriver,
    pub(super) stream: BrokerStream,
    pub(super) limits: ConnackLimits,
}

/// The bytes between rumqttc and the broker.
pub(super) struct BrokerStream {
    copying: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
    io_error: Option<io::Error>,
    reason_codes: ReasonCodes,
}

/// Dials, says CONNECT, and subscribes. Nothing is published before the broker has answered both,
/// so no answer to a message of ours can come before we listen for it.
pub(super) async fn connect(
    settings: &ClientSettings,
    broker: &Broker,
    subscriptions: &[String],
    events: &mpsc::Sender<MqttEvent>,
) -> Result<BrokerConnection, SessionFailure> {
    let stream = settings.uplink.dial(broker, DIAL_TIMEOUT).await?;
    let (stream, words) = ReasonTap::new(stream);
    let hop = UnixBridge::open().map_err(SessionFailure::Bridge)?;
    let (publisher, mut driver) = session::open(settings, hop.path());
    let mut wire = BrokerStream {
        copying: Some(Box::pin(hop.copy(stream))),
        io_error: None,
        reason_codes: words,
    };
    let answer = select! {
        answer = timeout(ANSWER_TIMEOUT, driver.await_connack()) => answer,
        never = wire.copy_forever() => match never {},
    };
    let accepted =
        answer.unwrap_or(Err(SessionFailure::NoConnack)).map_err(|failure| wire.refine(failure))?;
    if !subscriptions.is_empty() {
        let subscribing = subscribe(&publisher, &mut driver, subscriptions, events);
        let answer = select! {
            answer = timeout(ANSWER_TIMEOUT, subscribing) => answer,
            never = wire.copy_forever() => match never {},
        };
        answer.unwrap_or(Err(SessionFailure::NoSuback)).map_err(|failure| wire.refine(failure))?;
    }
    Ok(BrokerConnection { publisher, driver, stream: wire, limits: accepted })
}

async fn subscribe(
    publisher: &Publisher,
    driver: &mut SessionDriver,
    filters: &[String],
    events: &mpsc::Sender<MqttEvent>,
) -> Result<(), SessionFailure> {
    if publisher.subscribe(filters).is_err() {
        return report_refused_filters(
            filters,
            &vec![reason_code::TOPIC_FILTER_INVALID; filters.len()],
            events,
        )
        .await;
    }
    loop {
        match driver.next_event().await? {
            SessionEvent::Subscribed(codes) => {
                return report_refused_filters(filters, &codes, events).await;
            }
            SessionEvent::Received(message) => {
                events
                    .send(MqttEvent::Received(message))
                    .await
                    .map_err(|_| SessionFailure::Closed)?;
            }
            SessionEvent::Written(_)
            | SessionEvent::PacketIdBusy
            | SessionEvent::PubrecReceived
            | SessionEvent::Acked { .. }
            | SessionEvent::DisconnectSent
            | SessionEvent::Other => {}
        }
    }
}

/// Tells which filters the broker did not take.
async fn report_refused_filters(
    filters: &[String],
    codes: &[u8],
    events: &mpsc::Sender<MqttEvent>,
) -> Result<(), SessionFailure> {
    for (filter, &code) in filters.iter().zip(codes) {
        if reason_code::is_failure(code) {
            let reason = reason_code::name(code).to_owned();
            let event = MqttEvent::SubscriptionRefused { filter: filter.clone(), code, reason };
            events.send(event).await.map_err(|_| SessionFailure::Closed)?;
        }
    }
    Ok(())
}

impl BrokerConnection {
    /// Most bytes of topic and payload in one message, when the broker has told a limit.
    pub(super) fn max_payload(&self) -> Option<usize> {
        self.limits.max_packet_len.map(payload_capacity)
    }
}

/// Bytes for topic and payload in a packet of this length.
pub(super) const fn payload_capacity(packet: usize) -> usize {
    packet.saturating_sub(PUBLISH_OVERHEAD)
}

impl BrokerStream {
    /// Moves bytes for ever. Cancel-safe. When the connection ends, rumqttc's end is closed, and
    /// rumqttc tells about it once it has read what was left.
    pub(super) async fn copy_forever(&mut self) -> Infallible {
        self.copy_to_end().await;
        pending().await
    }

    /// Moves bytes until both ends are closed. Cancel-safe.
    pub(super) async fn copy_to_end(&mut self) {
        if let Some(flow) = &mut self.copying {
            self.io_error = flow.await.err();
            self.copying = None;
        }
    }

    /// Puts what the wire knows in the place of what rumqttc could see of it.
    pub(super) fn refine(&mut self, failure: SessionFailure) -> SessionFailure {
        match (failure, self.reason_codes.connack(), self.reason_codes.disconnect()) {
            (
                SessionFailure::NoConnack
                | SessionFailure::ClosedBeforeConnack
                | SessionFailure::Protocol(_),
                Some(code),
                _,
            ) if code != reason_code::SUCCESS => {
                SessionFailure::Connack { code: reason_code::from_v3(code) }
            }
            (
                SessionFailure::Closed | SessionFailure::Broken(_) | SessionFailure::Protocol(_),
                _,
                Some(code),
            ) => SessionFailure::Disconnected { code, text: None },
            (SessionFailure::Closed, ..) => {
                self.io_error.take().map_or(SessionFailure::Closed, SessionFailure::Broken)
            }
            (other, ..) => other,
        }
    }
}

impl std::fmt::Debug for BrokerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("fault", &self.io_error).finish_non_exhaustive()
    }
}
