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

use super::failure::Failure;
use super::overhear::{LastWords, Overheard};
use super::session::{self, Accepted, Driver, Publisher, Signal};
use super::{Event, Settings, code};
use crate::uplink::Hop;

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
pub(super) struct Connection {
    pub(super) publisher: Publisher,
    pub(super) driver: Driver,
    pub(super) wire: Wire,
    pub(super) accepted: Accepted,
}

/// The bytes between rumqttc and the broker.
pub(super) struct Wire {
    flow: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
    fault: Option<io::Error>,
    words: LastWords,
}

/// Dials, says CONNECT, and subscribes. Nothing is published before the broker has answered both,
/// so no answer to a message of ours can come before we listen for it.
pub(super) async fn connect(
    settings: &Settings,
    broker: &Broker,
    subscriptions: &[String],
    events: &mpsc::Sender<Event>,
) -> Result<Connection, Failure> {
    let stream = settings.uplink.dial(broker, DIAL_TIMEOUT).await?;
    let (stream, words) = Overheard::new(stream);
    let hop = Hop::open().map_err(Failure::Hop)?;
    let (publisher, mut driver) = session::open(settings, hop.path());
    let mut wire = Wire { flow: Some(Box::pin(hop.carry(stream))), fault: None, words };
    let answer = select! {
        answer = timeout(ANSWER_TIMEOUT, driver.accepted()) => answer,
        never = wire.flow() => match never {},
    };
    let accepted =
        answer.unwrap_or(Err(Failure::NoConnack)).map_err(|failure| wire.explain(failure))?;
    if !subscriptions.is_empty() {
        let subscribing = subscribe(&publisher, &mut driver, subscriptions, events);
        let answer = select! {
            answer = timeout(ANSWER_TIMEOUT, subscribing) => answer,
            never = wire.flow() => match never {},
        };
        answer.unwrap_or(Err(Failure::NoSuback)).map_err(|failure| wire.explain(failure))?;
    }
    Ok(Connection { publisher, driver, wire, accepted })
}

async fn subscribe(
    publisher: &Publisher,
    driver: &mut Driver,
    filters: &[String],
    events: &mpsc::Sender<Event>,
) -> Result<(), Failure> {
    if publisher.subscribe(filters).is_err() {
        return refuse(filters, &vec![code::TOPIC_FILTER_INVALID; filters.len()], events).await;
    }
    loop {
        match driver.next().await? {
            Signal::Subscribed(codes) => return refuse(filters, &codes, events).await,
            Signal::Received(message) => {
                events.send(Event::Received(message)).await.map_err(|_| Failure::Closed)?;
            }
            Signal::Written(_)
            | Signal::HeldBack
            | Signal::Progress
            | Signal::Settled { .. }
            | Signal::Farewell
            | Signal::Other => {}
        }
    }
}

/// Tells which filters the broker did not take.
async fn refuse(
    filters: &[String],
    codes: &[u8],
    events: &mpsc::Sender<Event>,
) -> Result<(), Failure> {
    for (filter, &code) in filters.iter().zip(codes) {
        if code::is_failure(code) {
            let reason = code::name(code).to_owned();
            let event = Event::SubscriptionRefused { filter: filter.clone(), code, reason };
            events.send(event).await.map_err(|_| Failure::Closed)?;
        }
    }
    Ok(())
}

impl Connection {
    /// Most bytes of topic and payload in one message, when the broker has told a limit.
    pub(super) fn max_payload(&self) -> Option<usize> {
        self.accepted.longest_packet.map(room_in)
    }
}

/// Bytes for topic and payload in a packet of this length.
pub(super) const fn room_in(packet: usize) -> usize {
    packet.saturating_sub(PUBLISH_OVERHEAD)
}

impl Wire {
    /// Moves bytes for ever. Cancel-safe. When the connection ends, rumqttc's end is closed, and
    /// rumqttc tells about it once it has read what was left.
    pub(super) async fn flow(&mut self) -> Infallible {
        self.run_dry().await;
        pending().await
    }

    /// Moves bytes until both ends are closed. Cancel-safe.
    pub(super) async fn run_dry(&mut self) {
        if let Some(flow) = &mut self.flow {
            self.fault = flow.await.err();
            self.flow = None;
        }
    }

    /// Puts what the wire knows in the place of what rumqttc could see of it.
    pub(super) fn explain(&mut self, failure: Failure) -> Failure {
        match (failure, self.words.connack(), self.words.disconnect()) {
            (Failure::NoConnack | Failure::ClosedEarly | Failure::Protocol(_), Some(code), _)
                if code != code::SUCCESS =>
            {
                Failure::Connack { code: code::from_v4(code) }
            }
            (Failure::Closed | Failure::Broken(_) | Failure::Protocol(_), _, Some(code)) => {
                Failure::Disconnected { code, text: None }
            }
            (Failure::Closed, ..) => self.fault.take().map_or(Failure::Closed, Failure::Broken),
            (other, ..) => other,
        }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("fault", &self.fault).finish_non_exhaustive()
    }
}
