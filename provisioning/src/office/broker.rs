//! The brokers at the hubs, as the office sees them: statuses in, offers out. In clear, so only on
//! this machine and inside the tunnel.

mod address;
mod capture;
mod connection;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use thiserror::Error;
use zeroize::Zeroizing;

use connection::{Connection, ConnectionEvent};

pub use address::{BrokerAddressError, parse_address};
pub use capture::{CaptureFileError, read_capture};

/// User of the office at the brokers.
pub const OFFICE_USER: &str = "office";

/// Port of the brokers at the hubs.
pub const MQTT_PORT: u16 = 1883;

/// Statuses that wait until they are taken.
const MAX_WAITING_EVENTS: usize = 1024;
/// Time between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Some brokers (EMQX) send their retained messages a little after they acknowledged the
/// subscription.
const RETAINED_QUIET_TIME: Duration = Duration::from_millis(300);
/// Offers and markers that wait for their acknowledgements.
const MAX_UNACKNOWLEDGED: usize = 65_000;

/// What comes from a broker.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A message on `edge/SITE/status`.
    Status {
        /// Number of the broker.
        broker: usize,
        /// The site.
        site: String,
        /// The message; empty if the broker keeps none any more.
        payload: Vec<u8>,
        /// Whether the broker sent it as a retained message.
        is_retained: bool,
    },
    /// The connection was opened again.
    Reconnected(usize),
    /// The connection is lost; it is opened again.
    Lost {
        /// Number of the broker.
        broker: usize,
        /// Why.
        error: LinkError,
    },
}

/// Why a broker cannot be used.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection cannot be opened, or it ended.
    #[error("{0}")]
    Connection(String),
    /// The broker does not accept the password.
    #[error(
        "it rejected the login of user {OFFICE_USER}: put the files of `edge-provision hub` onto \
         the hub, and let the broker read them"
    )]
    Rejected,
    /// The broker does not let the office read.
    #[error("it refuses the subscription to edge/+/status: check its access list")]
    SubscriptionRefused,
    /// The broker has not answered in time.
    #[error("it has not answered within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Too many messages wait for acknowledgements.
    #[error("it does not acknowledge: {MAX_UNACKNOWLEDGED} messages wait")]
    Overrun,
}

/// Connections to brokers, each in a thread of its own. They are opened again when they end.
#[derive(Debug)]
pub struct Brokers {
    links: Vec<BrokerLink>,
    events: Receiver<(usize, u32, ConnectionEvent)>,
    sender: SyncSender<(usize, u32, ConnectionEvent)>,
    password: Zeroizing<String>,
}

/// Result of waiting for one event.
enum Polled {
    /// An event for the caller.
    Event(BrokerEvent),
    /// The state of a connection has changed.
    Internal,
    /// Nothing happened in time.
    Nothing,
}

/// One broker.
#[derive(Debug)]
struct BrokerLink {
    address: SocketAddr,
    connection: Option<Connection>,
    /// Number of the connection: events of earlier ones are ignored.
    generation: u32,
    state: LinkState,
    /// Retained messages in the order in which they were published.
    unacknowledged: VecDeque<Outgoing>,
    /// When the next connection is opened.
    retry: Option<Instant>,
}

/// Whether the broker has sent everything that it keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LinkState {
    Connecting,
    Subscribed,
    /// The marker behind the retained messages has come back.
    RetainedReceived,
}

/// A message that is published.
#[derive(Clone, Debug)]
enum Outgoing {
    /// A retained message; an empty payload removes the one that is there.
    Retained { topic: String, payload: Vec<u8> },
    /// A message to this program itself, behind the retained ones.
    Marker,
}

impl Brokers {
    /// Starts to connect.
    #[must_use]
    pub fn connect(addresses: &[SocketAddr], password: Zeroizing<String>) -> Self {
        let (sender, events) = sync_channel(MAX_WAITING_EVENTS);
        let link = |address: &SocketAddr| BrokerLink {
            address: *address,
            connection: None,
            generation: 0,
            state: LinkState::Connecting,
            unacknowledged: VecDeque::new(),
            retry: None,
        };
        let links = addresses.iter().map(link).collect();
        let mut brokers = Self { links, events, sender, password };
        for broker in 0..brokers.links.len() {
            brokers.open(broker);
        }
        brokers
    }

    /// Returns the address of a broker.
    #[must_use]
    pub fn address(&self, broker: usize) -> Option<SocketAddr> {
        self.links.get(broker).map(|link| link.address)
    }

    /// Passes every retained status to `on_event`, and returns the brokers that could not be listed
    /// within `limit`, with the reason.
    pub fn list(
        &mut self,
        limit: Duration,
        mut on_event: impl FnMut(BrokerEvent),
    ) -> Vec<(usize, LinkError)> {
        let start = Instant::now();
        let mut failed: Vec<Option<LinkError>> = self.links.iter().map(|_| None).collect();
        let mut quiet_since = start;
        loop {
            let is_open = |(link, failed): (&BrokerLink, &Option<LinkError>)| {
                link.state != LinkState::RetainedReceived && failed.is_none()
            };
            let is_waiting = self.links.iter().zip(&failed).any(is_open);
            let (now, end) = (Instant::now(), start + limit);
            let wait = if is_waiting { end } else { end.min(quiet_since + RETAINED_QUIET_TIME) };
            if wait <= now {
                break;
            }
            match self.poll(wait) {
                Polled::Event(BrokerEvent::Lost { broker, error }) => {
                    if let Some(failed) = failed.get_mut(broker) {
                        failed.get_or_insert(error);
                    }
                }
                Polled::Event(event) => {
                    if matches!(event, BrokerEvent::Status { is_retained: true, .. }) {
                        quiet_since = Instant::now();
                    }
                    on_event(event);
                }
                Polled::Internal | Polled::Nothing => {}
            }
        }
        let states = self.links.iter().map(|link| link.state).zip(failed).enumerate();
        let failures = states.filter_map(|(broker, (state, error))| match (error, state) {
            (Some(error), _) => Some((broker, error)),
            (None, LinkState::RetainedReceived) => None,
            (None, _) => Some((broker, LinkError::TimedOut(limit))),
        });
        failures.collect()
    }

    /// Returns the next event, or `None` after `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<BrokerEvent> {
        let end = Instant::now() + limit;
        loop {
            match self.poll(end) {
                Polled::Event(event) => return Some(event),
                Polled::Internal => {}
                Polled::Nothing => return None,
            }
        }
    }

    /// Waits for one event of a connection until `end`.
    fn poll(&mut self, end: Instant) -> Polled {
        let now = Instant::now();
        self.open_due(now);
        let retry = self.links.iter().filter_map(|link| link.retry).min();
        let until = retry.map_or(end, |retry| retry.min(end));
        match self.events.recv_timeout(until.saturating_duration_since(now)) {
            Ok((broker, generation, event)) => {
                let event = self.on_connection_event(broker, generation, event);
                event.map_or(Polled::Internal, Polled::Event)
            }
            Err(RecvTimeoutError::Timeout) if until < end => Polled::Internal,
            // The sender is here: it is never disconnected.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Polled::Nothing,
        }
    }

    /// Publishes a retained message at every broker; an empty payload removes the one that is
    /// there. It is published again after a new connection until it is acknowledged.
    ///
    /// # Errors
    /// When too many wait for acknowledgements.
    pub fn retain(&mut self, topic: &str, payload: &[u8]) -> Result<(), LinkError> {
        for link in &mut self.links {
            if link.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
                return Err(LinkError::Overrun);
            }
            let message =
                Outgoing::Retained { topic: topic.to_owned(), payload: payload.to_owned() };
            link.send(message);
        }
        Ok(())
    }

    /// Waits until everything that was published is acknowledged. Returns the brokers that have not
    /// acknowledged it within `limit`.
    pub fn flush(&mut self, limit: Duration) -> Vec<SocketAddr> {
        let end = Instant::now() + limit;
        loop {
            let links = self.links.iter().filter(|link| !link.unacknowledged.is_empty());
            let waiting: Vec<_> = links.map(|link| link.address).collect();
            if waiting.is_empty() || Instant::now() >= end {
                return waiting;
            }
            // What comes meanwhile has no use any more.
            let _ = self.poll(end);
        }
    }

    fn open(&mut self, broker: usize) {
        let Some(link) = self.links.get_mut(broker) else { return };
        link.generation += 1;
        link.retry = None;
        link.state = LinkState::Connecting;
        let name = (broker, link.generation);
        link.connection =
            Some(Connection::open(link.address, &self.password, name, self.sender.clone()));
    }

    fn open_due(&mut self, now: Instant) {
        for broker in 0..self.links.len() {
            let retry = self.links.get(broker).and_then(|link| link.retry);
            if retry.is_some_and(|retry| retry <= now) {
                self.open(broker);
            }
        }
    }

    fn on_connection_event(
        &mut self,
        broker: usize,
        generation: u32,
        event: ConnectionEvent,
    ) -> Option<BrokerEvent> {
        let link = self.links.get_mut(broker).filter(|link| link.generation == generation)?;
        match event {
            ConnectionEvent::Status { site, payload, is_retained } => {
                return Some(BrokerEvent::Status { broker, site, payload, is_retained });
            }
            ConnectionEvent::Subscribed => {
                link.on_subscribed();
                return (generation > 1).then_some(BrokerEvent::Reconnected(broker));
            }
            ConnectionEvent::Marker => link.state = LinkState::RetainedReceived,
            // A broker acknowledges in the order in which it received (MQTT 3.1.1, 4.6).
            ConnectionEvent::Acknowledged => {
                link.unacknowledged.pop_front();
            }
            ConnectionEvent::Ended(error) => {
                link.connection = None;
                link.state = LinkState::Connecting;
                link.retry = Some(Instant::now() + RETRY_PAUSE);
                return Some(BrokerEvent::Lost { broker, error });
            }
        }
        None
    }
}

impl BrokerLink {
    /// Publishes what the connection before has not published, then the marker.
    fn on_subscribed(&mut self) {
        self.state = LinkState::Subscribed;
        let waiting = std::mem::take(&mut self.unacknowledged);
        for message in waiting {
            if matches!(message, Outgoing::Retained { .. }) {
                self.send(message);
            }
        }
        self.send(Outgoing::Marker);
    }

    fn send(&mut self, message: Outgoing) {
        if let Some(connection) = &self.connection
            && self.state != LinkState::Connecting
        {
            match &message {
                Outgoing::Retained { topic, payload } => connection.retain(topic, payload),
                Outgoing::Marker => connection.send_marker(),
            }
        }
        self.unacknowledged.push_back(message);
    }
}
