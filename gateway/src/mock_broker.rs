//! A minimal MQTT broker, 3.1.1 and 5, for the demo and for tests with a faulty broker.
//!
//! It accepts connections and messages and reports them as events. It forwards no messages and
//! keeps neither sessions nor retained messages. A [`Script`] makes it misbehave.

mod codec;
mod connection;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use bytes::Bytes;
use provisioning::config::{MqttVersion, Qos, Will};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    /// Code of every filter in a SUBACK: 0 to 2 grants, 0x80 and above refuses.
    pub subscription: u8,
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
    /// Whether a broker would retain it.
    pub retain: bool,
}

/// Serves until `stop` is cancelled. The first connection gets the first script, and so on; further
/// ones get the last script, or the default if there is none.
///
/// While `events` is full, a connection is not read, so the client has to wait.
pub async fn serve<L: Listener>(
    mut listener: L,
    scripts: Vec<Script>,
    events: mpsc::Sender<MockBrokerEvent>,
    stop: CancellationToken,
) {
    let scripts: Vec<_> = scripts.into_iter().map(Arc::new).collect();
    let mut connections = JoinSet::new();
    let mut count = 0_usize;
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
        let script = scripts.get(count).or_else(|| scripts.last()).cloned().unwrap_or_default();
        count += 1;
        connections.spawn(connection::serve(stream, script, events.clone()));
    }
}
