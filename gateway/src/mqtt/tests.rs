//! The client against the mock broker, well-behaved and not.

mod commands;
mod faults;
mod hub_changes;
mod messages;
mod raw_peers;
mod sentences;
mod sessions;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use axum::serve::ListenerExt;
use jiff::tz::TimeZone;
use provisioning::config::{
    Broker, BundleSettings, Config, Credentials, Gateway, HostPort, Metrics as Listen, Mqtt,
    MqttVersion, PasswordFile, Scheme, Tls, Via, Will,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::Metrics;
use crate::mock_broker::{
    AccessList, ConnectInfo, DisconnectKind, MockBroker, MockBrokerEvent, PublishedMessage, Script,
};

const BOTH: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];
const ALL_QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// A client and the mock broker at the other end.
struct BrokerWorld {
    outbox: Option<mpsc::Sender<MqttRequest>>,
    events: mpsc::Receiver<MqttEvent>,
    broker_events: mpsc::Receiver<MockBrokerEvent>,
    metrics: Metrics,
    broker: MockBroker,
    port: u16,
    /// Stops the broker.
    stop: CancellationToken,
    /// Stops the client.
    stop_client: CancellationToken,
    client: JoinHandle<()>,
    session: u32,
}

impl BrokerWorld {
    async fn start(version: MqttVersion, scripts: Vec<Script>) -> Self {
        Self::start_with(version, scripts, |_| ()).await
    }

    #[expect(clippy::disallowed_methods, reason = "the two ends of a test run side by side")]
    async fn start_with(
        version: MqttVersion,
        scripts: Vec<Script>,
        change: impl FnOnce(&mut ClientSettings),
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (broker_event, broker_events) = mpsc::channel(4096);
        let stop = CancellationToken::new();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let broker = MockBroker::new(scripts, AccessList::default(), broker_event);
        tokio::spawn(broker.clone().serve(listener, stop.child_token()));
        let mut settings = settings(version, port);
        change(&mut settings);
        let metrics = Metrics::new(&config(settings.mqtt.clone()), "").unwrap();
        let (outbox, orders) = mpsc::channel(MAX_INFLIGHT);
        let (event, events) = mpsc::channel(1024);
        let stop_client = CancellationToken::new();
        let client =
            tokio::spawn(run(settings, orders, event, metrics.mqtt.clone(), stop_client.clone()));
        Self {
            outbox: Some(outbox),
            events,
            broker_events,
            metrics,
            broker,
            port,
            stop,
            stop_client,
            client,
            session: 0,
        }
    }

    /// Ends the client and starts another one at the same broker.
    #[expect(clippy::disallowed_methods, reason = "the two ends of a test run side by side")]
    async fn restart(&mut self, version: MqttVersion, change: impl FnOnce(&mut ClientSettings)) {
        self.finish().await;
        let mut settings = settings(version, self.port);
        change(&mut settings);
        let (outbox, orders) = mpsc::channel(MAX_INFLIGHT);
        let (event, events) = mpsc::channel(1024);
        let metrics = self.metrics.mqtt.clone();
        self.client = tokio::spawn(run(settings, orders, event, metrics, self.stop_client.clone()));
        (self.outbox, self.events) = (Some(outbox), events);
    }

    /// Returns the next event; fails if the client has ended.
    async fn event(&mut self) -> MqttEvent {
        let event = self.events.recv().await.expect("the client runs");
        if let MqttEvent::Connected { session, .. } = event {
            self.session = session;
        }
        event
    }

    async fn connected(&mut self) -> (String, Option<usize>) {
        match self.event().await {
            MqttEvent::Connected { broker, max_payload, .. } => (broker, max_payload),
            other => panic!("{other:?} instead of a session"),
        }
    }

    async fn disconnected(&mut self) -> (DisconnectReason, Sentence, Duration) {
        loop {
            match self.event().await {
                MqttEvent::Disconnected { reason, sentence, retry_in } => {
                    return (reason, sentence, retry_in);
                }
                MqttEvent::Acknowledged { .. } | MqttEvent::Refused { .. } => {}
                other => panic!("{other:?} instead of a disconnect"),
            }
        }
    }

    async fn next_connect(&mut self) -> ConnectInfo {
        match self.broker_events.recv().await {
            Some(MockBrokerEvent::Connected(connect)) => connect,
            other => panic!("{other:?} instead of a CONNECT"),
        }
    }

    async fn next_message(&mut self) -> PublishedMessage {
        loop {
            match self.broker_events.recv().await.expect("the broker runs") {
                MockBrokerEvent::Message(message) => return message,
                MockBrokerEvent::Connected(_)
                | MockBrokerEvent::Subscribed { .. }
                | MockBrokerEvent::Pinged
                | MockBrokerEvent::Ended { .. } => {}
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    async fn send(&self, message: OutgoingMessage) {
        self.outbox.as_ref().unwrap().send(MqttRequest::Publish(message)).await.unwrap();
    }

    async fn acknowledge(&self, delivery: DeliveryTag) {
        self.outbox.as_ref().unwrap().send(MqttRequest::Acknowledge(delivery)).await.unwrap();
    }

    async fn publish(&self, ticket: u64, qos: Qos) {
        self.send(OutgoingMessage { session: self.session, ..outgoing(ticket, qos) }).await;
    }

    /// Publishes tickets `0..count` and sends unacknowledged ones again after every interruption,
    /// as the queue does. Returns how often each was acknowledged.
    async fn deliver_all(&mut self, count: u64, qos: Qos) -> Vec<u32> {
        let mut acknowledged = vec![0; usize::try_from(count).unwrap()];
        let mut in_flight = 0;
        let mut next = 0;
        while acknowledged.contains(&0) {
            if self.session > 0 && next < count && in_flight < MAX_INFLIGHT {
                if acknowledged[usize::try_from(next).unwrap()] == 0 {
                    self.publish(next, qos).await;
                    in_flight += 1;
                }
                next += 1;
                continue;
            }
            match self.event().await {
                MqttEvent::Acknowledged { ticket } => {
                    acknowledged[usize::try_from(ticket).unwrap()] += 1;
                    in_flight -= 1;
                }
                MqttEvent::Connected { .. } => (next, in_flight) = (0, 0),
                MqttEvent::Disconnected { retry_in, .. } => {
                    self.session = 0;
                    self.yield_to_tasks().await;
                    advance_clock(retry_in).await;
                }
                other => panic!("{other:?} while delivering"),
            }
        }
        acknowledged
    }

    /// Closes the outbox and waits until the client has ended.
    async fn finish(&mut self) {
        self.outbox = None;
        (&mut self.client).await.unwrap();
    }

    /// Waits for the end of a connection and returns its kind.
    async fn next_disconnect(&mut self) -> DisconnectKind {
        loop {
            if let MockBrokerEvent::Ended { kind, .. } = self.broker_events.recv().await.unwrap() {
                return kind;
            }
        }
    }

    /// Lets the other tasks run.
    async fn yield_to_tasks(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn count(&self, outcome: &str) -> u64 {
        let line = format!("edge_mqtt_messages_total{{outcome=\"{outcome}\"}} ");
        let text = self.metrics.render().unwrap();
        text.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse().unwrap()
    }
}

impl Drop for BrokerWorld {
    fn drop(&mut self) {
        self.stop.cancel();
        self.stop_client.cancel();
    }
}

/// Advances the clock while everything waits. The clock is paused only meanwhile, so a socket that
/// is not ready yet does not look like a time-out.
async fn advance_clock(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn outgoing(ticket: u64, qos: Qos) -> OutgoingMessage {
    OutgoingMessage {
        session: 1,
        ticket: Some(ticket),
        topic: "topic1".into(),
        payload: ticket.to_string().into(),
        qos,
        retain: false,
        correlation_data: None,
    }
}

/// Returns a file with the password `secret`.
fn password_file() -> PasswordFile {
    let path = std::env::temp_dir().join(format!("edge-mqtt-password-{}", std::process::id()));
    // Renamed into place: another test of this process may be reading it.
    let draft = path.with_extension(fastrand::u64(..).to_string());
    std::fs::write(&draft, "secret").unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(draft, &path).unwrap();
    PasswordFile::from_argument(&path).unwrap()
}

fn settings(version: MqttVersion, port: u16) -> ClientSettings {
    let address = HostPort { host: "127.0.0.1".into(), port };
    let mqtt = Mqtt {
        brokers: vec![Broker { scheme: Scheme::Mqtt, address }],
        via: Via::Direct,
        tls: Tls::default(),
        version: Some(version),
        client_id: "amsterdam-01".into(),
        keep_alive: Duration::from_secs(30),
        credentials: Some(Credentials { username: "user".into(), password: Some(password_file()) }),
        will: None,
        lower: Lower::default(),
        session_expiry: Duration::ZERO,
        writes_in_clear: false,
    };
    let uplink = Uplink::direct(Tls::default());
    ClientSettings {
        mqtt,
        will: Some(will()),
        publish_qos: Qos::AtLeastOnce,
        publish_retain: false,
        subscriptions: Vec::new(),
        persistence: SessionPersistence::Clean,
        acknowledgements: Acknowledgements::ByCaller,
        uplink,
        restarts_on_new_secrets: false,
    }
}

fn will() -> Will {
    Will {
        topic: "M262".into(),
        payload: "Disconnected".into(),
        qos: Qos::AtLeastOnce,
        retain: true,
    }
}

fn config(mqtt: Mqtt) -> Config {
    Config {
        gateway: Gateway {
            id: "amsterdam-01".into(),
            location: String::new(),
            timezone: TimeZone::UTC,
            state_dir: "/nowhere".into(),
        },
        tunnel: None,
        mqtt,
        queue: crate::testing::queue(),
        bundle: BundleSettings::default(),
        metrics: Listen { listen: Vec::new(), tags: false },
        plcs: Vec::new(),
    }
}
