//! A small MQTT broker end, 3.1.1 and 5, for the demo and for hostile tests.
//!
//! It takes connections and messages and tells what it heard. It does not pass messages on, keeps
//! no sessions and no retained messages. What it does wrong, it does by [`Script`].

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

/// Most connections at once; one more is closed when it comes.
const MAX_CONNECTIONS: usize = 256;

/// How one connection is treated. The default is a broker without fault.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Answer to CONNECT.
    pub connect: OnConnect,
    /// Claims in the CONNACK that an old session goes on.
    pub session_present: bool,
    /// What a CONNACK of MQTT 5 asks for.
    pub connack: ConnackProperties,
    /// How messages are acknowledged.
    pub acks: Acks,
    /// Topics that are not taken, and the reason code that says so. MQTT 5 only.
    pub refused_topics: Vec<(String, u8)>,
    /// What happens once the connection has delivered so many messages; the last of them is not
    /// acknowledged.
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
    /// A refusal with this reason code of MQTT 5; under 3.1.1 the return code that comes nearest.
    Refuse(u8),
    /// A refusal in the form of 3.1.1, whatever was asked for: a broker that knows nothing else.
    RefuseVersion,
    /// None.
    Ignore,
    /// The connection is closed.
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

/// How messages are acknowledged: PUBACK under QoS 1, PUBREC under QoS 2.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acks {
    /// At once.
    #[default]
    AtOnce,
    /// Not at all.
    Never,
    /// Every one but the connection's first.
    NotTheFirst,
    /// Two times.
    Twice,
    /// So many together, the last one first.
    Reversed(usize),
    /// After this time.
    Late(Duration),
}

/// How the sink ends a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Closes it.
    Close,
    /// Says DISCONNECT with this reason code (MQTT 5), then closes it.
    Disconnect(u8),
}

/// Answer to PINGREQ.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pings {
    /// PINGRESP.
    #[default]
    Answer,
    /// None.
    Ignore,
}

/// What the sink tells, in order for each connection.
#[derive(Clone, Debug)]
pub enum MockBrokerEvent {
    /// A client was answered with success.
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
    /// The connection is over.
    Ended {
        /// Whose.
        client_id: String,
        /// Whether a broker would publish the will.
        kind: DisconnectKind,
    },
}

/// How a client left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DisconnectKind {
    /// With a DISCONNECT: its will is forgotten.
    Clean,
    /// Otherwise: its will is due.
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
    /// Whether an old session may go on.
    pub start: SessionStart,
    /// User name, when there is one.
    pub username: Option<String>,
    /// The will, when there is one.
    pub will: Option<Will>,
}

/// The clean session or clean start flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionStart {
    /// Everything old is forgotten.
    Clean,
    /// An old session goes on.
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
    /// Whether a broker would keep it.
    pub retain: bool,
}

/// Serves until `stop` is cancelled. The first connection is treated by the first script and so
/// on; the last script stays. Without any, every connection is treated well.
///
/// What it hears waits for room in `heard`, and the client waits with it.
pub async fn serve<L: Listener>(
    mut listener: L,
    scripts: Vec<Script>,
    heard: mpsc::Sender<MockBrokerEvent>,
    stop: CancellationToken,
) {
    let scripts: Vec<_> = scripts.into_iter().map(Arc::new).collect();
    let mut peers = JoinSet::new();
    let mut count = 0_usize;
    loop {
        let stream = select! {
            (stream, _) = listener.accept() => stream,
            Some(ended) = peers.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the sink failed");
                }
                continue;
            }
            () = stop.cancelled() => return,
        };
        if peers.len() >= MAX_CONNECTIONS {
            tracing::warn!("the sink is full");
            continue;
        }
        let script = scripts.get(count).or_else(|| scripts.last()).cloned().unwrap_or_default();
        count += 1;
        peers.spawn(connection::serve(stream, script, heard.clone()));
    }
}
