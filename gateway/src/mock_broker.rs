//! A small MQTT broker, 3.1.1 and 5, for the demo and for tests with a faulty broker.
//!
//! It keeps sessions and retained messages in memory, passes messages on at every quality of
//! service, and has an access list. It reports what happens as events; a [`Script`] makes it
//! misbehave. Shared subscriptions, delayed wills and subscription options are missing.

mod access;
mod codec;
mod connection;
mod core;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use bytes::Bytes;
use provisioning::config::{MqttVersion, Qos, Will};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::access::{Access, AccessList, AccessRule};
use self::core::{BrokerCore, ConnectionId};

/// Most connections at once; further ones are closed.
const MAX_CONNECTIONS: usize = 256;

/// How the broker treats one connection. The default is a broker without faults.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Answer to CONNECT.
    pub connect: OnConnect,
    /// Whether CONNACK claims that an old session is resumed.
    pub session_present: bool,
    /// Properties of the CONNACK. MQTT 5 only.
    pub connack: ConnackProperties,
    /// How messages are acknowledged.
    pub acks: Acks,
    /// Refused topics, with the reason code. MQTT 5 only.
    pub refused_topics: Vec<(String, u8)>,
    /// How the connection ends after this number of messages; the last of them is not acknowledged.
    pub ending: Option<(u64, Ending)>,
    /// Answer to PINGREQ.
    pub pings: Pings,
    /// Code of every filter in a SUBACK: 0 to 2 grants, 0x80 and above refuses. Without one, the
    /// quality of service that the client asks for is granted.
    pub subscription: Option<u8>,
    /// Whether UNSUBSCRIBE is answered without effect, as by RabbitMQ 3.10 for the subscriptions of
    /// a persistent session.
    pub keeps_subscriptions: bool,
    /// Filters to which the broker subscribes its client with every SUBSCRIBE, as EMQX does with
    /// `auto_subscribe`.
    pub auto_subscriptions: Vec<String>,
    /// Sent after every SUBACK, at QoS 0.
    pub after_subscribe: Vec<PublishedMessage>,
}

/// Answer to CONNECT.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnConnect {
    /// Success.
    #[default]
    Accept,
    /// A refusal with this reason code of MQTT 5; under 3.1.1 the nearest return code.
    Refuse(u8),
    /// A refusal in the format of 3.1.1 under both versions, as from a broker for 3.1.1 only.
    RefuseVersion,
    /// No answer.
    Ignore,
    /// The broker closes the connection.
    Close,
}

/// Properties of a CONNACK of MQTT 5 (3.2.2.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnackProperties {
    /// Receive maximum.
    pub receive_max: Option<u16>,
    /// Maximum packet size.
    pub max_packet: Option<u32>,
    /// Server keep alive, in seconds.
    pub keep_alive: Option<u16>,
    /// Maximum QoS.
    pub max_qos: Option<u8>,
    /// Retain available.
    pub retain_available: Option<u8>,
}

/// How messages are acknowledged: with PUBACK under QoS 1, with PUBREC under QoS 2.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acks {
    /// At once.
    #[default]
    AtOnce,
    /// Never.
    Never,
    /// All but the first message of the connection.
    NotTheFirst,
    /// Twice.
    Twice,
    /// In batches of this size, the last message first.
    Reversed(usize),
    /// After this time.
    Late(Duration),
}

/// How the broker ends a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Closes the connection.
    Close,
    /// Sends DISCONNECT with this reason code (MQTT 5), then closes the connection.
    Disconnect(u8),
}

/// Answer to PINGREQ.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pings {
    /// PINGRESP.
    #[default]
    Answer,
    /// No answer.
    Ignore,
}

/// An event of a connection; those of one connection are in order.
#[derive(Clone, Debug)]
pub enum MockBrokerEvent {
    /// A client connected.
    Connected(ConnectInfo),
    /// A message, once for each PUBLISH; under QoS 2 not for a repeated packet id.
    Message(PublishedMessage),
    /// Filters of a SUBSCRIBE.
    Subscribed {
        /// As sent.
        filters: Vec<String>,
    },
    /// Filters of an UNSUBSCRIBE.
    Unsubscribed {
        /// As sent.
        filters: Vec<String>,
    },
    /// The client acknowledged a message: a PUBACK or PUBCOMP.
    Acknowledged,
    /// A PINGREQ.
    Pinged,
    /// The connection ended.
    Ended {
        /// Client id of the connection.
        client_id: String,
        /// Whether a broker would publish the will.
        kind: DisconnectKind,
    },
}

/// How a client disconnected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DisconnectKind {
    /// With a DISCONNECT: the will is discarded.
    Clean,
    /// Without one: the will would be published.
    Unclean,
}

/// A CONNECT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectInfo {
    /// Client id.
    pub client_id: String,
    /// Protocol version.
    pub version: MqttVersion,
    /// Keep alive in seconds, as sent.
    pub keep_alive: u16,
    /// Whether an old session may be resumed.
    pub start: SessionStart,
    /// Session Expiry Interval in seconds; 0 under 3.1.1.
    pub session_expiry: u32,
    /// Receive Maximum, if the client sent one.
    pub receive_max: Option<u16>,
    /// User name, if the client sent one.
    pub username: Option<String>,
    /// Password, if the client sent one.
    pub password: Option<String>,
    /// The will, if the client sent one.
    pub will: Option<Will>,
}

/// The clean session or clean start flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionStart {
    /// The client starts a new session.
    Clean,
    /// The client resumes an old session.
    Resume,
}

/// A message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishedMessage {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service it was sent with.
    pub qos: Qos,
    /// Whether the broker is to retain it.
    pub retain: bool,
    /// Properties of MQTT 5.
    pub properties: MessageProperties,
}

/// Properties of a message of MQTT 5 that the broker passes on (3.3.2.3).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MessageProperties {
    /// Message Expiry Interval, in seconds.
    pub expiry_seconds: Option<u32>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
}

impl Default for PublishedMessage {
    fn default() -> Self {
        Self {
            topic: String::new(),
            payload: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: MessageProperties::default(),
        }
    }
}

/// A broker, which may listen in several places. Clones share its sessions and messages.
#[derive(Clone, Debug)]
pub struct MockBroker {
    scripts: Arc<[Arc<Script>]>,
    events: mpsc::Sender<MockBrokerEvent>,
    shared: Arc<Mutex<SharedState>>,
}

/// What the connections of a broker share.
#[derive(Debug, Default)]
struct SharedState {
    core: BrokerCore,
    last_connection: ConnectionId,
    /// Wakes a connection that another one gave something to do.
    wakers: BTreeMap<ConnectionId, Arc<Notify>>,
}

impl MockBroker {
    /// Creates a broker. The first connection gets the first script, and so on; further ones get
    /// the last script, or the default if there is none.
    #[must_use]
    pub fn new(
        scripts: Vec<Script>,
        access: AccessList,
        events: mpsc::Sender<MockBrokerEvent>,
    ) -> Self {
        let core = BrokerCore::new(access);
        let shared = SharedState { core, ..SharedState::default() };
        Self {
            scripts: scripts.into_iter().map(Arc::new).collect(),
            events,
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Serves until `stop` is cancelled.
    ///
    /// While the receiver of events is full, a connection is not read, so the client has to wait.
    pub async fn serve<L: Listener>(self, mut listener: L, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let stream = select! {
                (stream, _) = listener.accept() => stream,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection of the mock broker failed");
                    }
                    continue;
                }
                () = stop.cancelled() => return,
            };
            if connections.len() >= MAX_CONNECTIONS {
                tracing::warn!("the mock broker has too many connections");
                continue;
            }
            connections.spawn(connection::serve(stream, self.clone(), self.events.clone()));
        }
    }

    /// Publishes a message that no client sent.
    pub fn publish(&self, message: PublishedMessage) {
        self.with_core(|core| core.route(message, Instant::now()));
    }

    /// Returns number, script and waker for a new connection.
    fn register(&self) -> (ConnectionId, Arc<Script>, Arc<Notify>) {
        let mut shared = self.lock();
        let count = usize::try_from(shared.last_connection).unwrap_or(usize::MAX);
        let script = self.scripts.get(count).or_else(|| self.scripts.last());
        shared.last_connection += 1;
        let connection = shared.last_connection;
        let waker = Arc::new(Notify::new());
        shared.wakers.insert(connection, Arc::clone(&waker));
        (connection, script.cloned().unwrap_or_default(), waker)
    }

    /// Changes the state of the broker, and wakes the connections that have to send something.
    fn with_core<T>(&self, change: impl FnOnce(&mut BrokerCore) -> T) -> T {
        let mut shared = self.lock();
        let result = change(&mut shared.core);
        for connection in shared.core.ready() {
            if let Some(waker) = shared.wakers.get(&connection) {
                waker.notify_one();
            }
        }
        result
    }

    fn unregister(&self, connection: ConnectionId) {
        self.lock().wakers.remove(&connection);
    }

    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one listener with a broker of its own: see [`MockBroker`].
pub async fn serve<L: Listener>(
    listener: L,
    scripts: Vec<Script>,
    events: mpsc::Sender<MockBrokerEvent>,
    stop: CancellationToken,
) {
    MockBroker::new(scripts, AccessList::default(), events).serve(listener, stop).await;
}
