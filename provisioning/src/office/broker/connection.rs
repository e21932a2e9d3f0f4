//! One connection to a broker, in a thread of its own: MQTT 3.1.1, which every broker speaks.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use rumqttc::{
    Client, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};

use super::{LinkError, MAX_UNACKNOWLEDGED, OFFICE_USER};

/// Topic filter of the statuses of all sites.
const STATUSES: &str = "edge/+/status";
/// Largest message that is read: the status of a gateway with thousands of tags has some 100 KiB.
const MAX_PACKET_BYTES: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Time to open the connection, in seconds.
const CONNECT_SECONDS: u64 = 10;
/// Random bytes of a client identifier. With them it has 23 characters, which every broker takes
/// (MQTT 3.1.1, 3.1.3.1).
const ID_BYTES: usize = 4;

/// What a connection reports.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The broker has granted the subscription.
    Subscribed,
    /// A message on `edge/SITE/status`.
    Status { site: String, payload: Vec<u8>, is_retained: bool },
    /// The marker has come back.
    Marker,
    /// The broker has acknowledged the oldest message.
    Acknowledged,
    /// The connection has ended. It is the last event.
    Ended(LinkError),
}

/// A connection under way or open. Dropping it ends it.
pub(super) struct Connection {
    client: Client,
    marker: String,
}

/// The part of a connection that is in its thread.
struct ConnectionThread {
    client: Client,
    marker: String,
    /// Number of the broker, and of the connection to it.
    name: (usize, u32),
    sender: SyncSender<(usize, u32, ConnectionEvent)>,
}

impl Connection {
    /// Starts to connect. Events come with `name`.
    pub(super) fn open(
        address: SocketAddr,
        password: &str,
        name: (usize, u32),
        sender: SyncSender<(usize, u32, ConnectionEvent)>,
    ) -> Self {
        let id = format!("edge-provision-{}", random_text());
        let mut options = MqttOptions::new(&id, address.ip().to_string(), address.port());
        options.set_credentials(OFFICE_USER, password);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        let (client, mut connection) = Client::new(options, MAX_UNACKNOWLEDGED);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        connection.eventloop.set_network_options(network);
        let marker = format!("{id}/marker");
        let task =
            ConnectionThread { client: client.clone(), marker: marker.clone(), name, sender };
        // It ends with the connection, or when its events are not taken any more.
        thread::spawn(move || task.run(connection));
        Self { client, marker }
    }

    /// Publishes a retained message. If the connection has ended, the next one does it.
    pub(super) fn retain(&self, topic: &str, payload: &[u8]) {
        let _ = self.client.try_publish(topic, QoS::AtLeastOnce, true, payload);
    }

    /// Publishes a message to this client itself.
    pub(super) fn send_marker(&self) {
        let _ = self.client.try_publish(self.marker.as_str(), QoS::AtLeastOnce, false, "");
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("marker", &self.marker).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

impl ConnectionThread {
    fn run(self, mut connection: rumqttc::Connection) {
        for event in connection.iter() {
            let event = match event {
                Ok(Event::Incoming(packet)) => self.on_packet(packet),
                Ok(Event::Outgoing(_)) => None,
                Err(error) => Some(ConnectionEvent::Ended(reason(&error))),
            };
            let Some(event) = event else { continue };
            let is_last = matches!(event, ConnectionEvent::Ended(_));
            if self.sender.send((self.name.0, self.name.1, event)).is_err() || is_last {
                return;
            }
        }
    }

    fn on_packet(&self, packet: Packet) -> Option<ConnectionEvent> {
        match packet {
            Packet::ConnAck(_) => {
                let filters = [STATUSES, &self.marker];
                let filters =
                    filters.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce));
                let _ = self.client.try_subscribe_many(filters);
                None
            }
            Packet::SubAck(granted) => {
                if granted.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return Some(ConnectionEvent::Ended(LinkError::SubscriptionRefused));
                }
                Some(ConnectionEvent::Subscribed)
            }
            Packet::PubAck(_) => Some(ConnectionEvent::Acknowledged),
            Packet::Publish(message) if message.topic == self.marker => {
                Some(ConnectionEvent::Marker)
            }
            Packet::Publish(Publish { topic, payload, retain, .. }) => {
                let site = site_of(&topic)?.to_owned();
                let payload = payload.to_vec();
                Some(ConnectionEvent::Status { site, payload, is_retained: retain })
            }
            Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Disconnect => None,
        }
    }
}

/// Returns the site of a topic `edge/SITE/status`.
pub(super) fn site_of(topic: &str) -> Option<&str> {
    let site = topic.strip_prefix("edge/")?.strip_suffix("/status")?;
    (!site.is_empty() && !site.contains('/')).then_some(site)
}

fn reason(error: &ConnectionError) -> LinkError {
    if let ConnectionError::ConnectionRefused(
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
    ) = error
    {
        return LinkError::Rejected;
    }
    let ConnectionError::Io(error) = error else { return LinkError::Connection(error.to_string()) };
    LinkError::Connection(error.to_string())
}

/// Returns random hexadecimal digits. Two programs with one identifier would only disconnect each
/// other, so the number of the process will do where there is no generator.
fn random_text() -> String {
    use ring::rand::{SecureRandom, SystemRandom};

    let mut bytes = [0; ID_BYTES];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bytes = std::process::id().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
