//! The client under test.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gateway::metrics::Metrics;
use gateway::mqtt::{
    Acknowledgements, ClientSettings, DisconnectReason, MAX_INFLIGHT, MqttEvent, MqttRequest,
    OutgoingMessage, SessionPersistence, run,
};
use gateway::uplink::Uplink;
use jiff::tz::TimeZone;
use provisioning::config::{
    Broker, BundleSettings, Config, Credentials, Durability, Gateway, HostPort, Lower,
    Metrics as Listen, Mqtt, MqttVersion, OnFull, PasswordFile, Qos, Queue, QueueOrder, Scheme,
    Tls, Via, Will,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A client that runs in a task of its own.
pub(crate) struct Client {
    pub(crate) sessions: u32,
    session: u32,
    outbox: Option<mpsc::Sender<MqttRequest>>,
    events: mpsc::Receiver<MqttEvent>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Client {
    pub(crate) fn start(settings: ClientSettings) -> Self {
        let metrics = Metrics::new(&config(settings.mqtt.clone()), "").expect("names are unique");
        let (outbox, orders) = mpsc::channel(MAX_INFLIGHT);
        let (event, events) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(settings, orders, event, metrics.mqtt, stop.clone()));
        Self { sessions: 0, session: 0, outbox: Some(outbox), events, stop, task }
    }

    pub(crate) async fn event(&mut self) -> MqttEvent {
        let event = self.events.recv().await.expect("the connection is open");
        if let MqttEvent::Connected { session, .. } = event {
            self.session = session;
            self.sessions += 1;
        }
        event
    }

    pub(crate) async fn connected(&mut self) -> Option<usize> {
        match self.event().await {
            MqttEvent::Connected { max_payload, .. } => max_payload,
            other => panic!("{other:?} instead of a session"),
        }
    }

    pub(crate) async fn disconnected(&mut self) -> (DisconnectReason, String) {
        match self.event().await {
            MqttEvent::Disconnected { reason, sentence, .. } => (reason, sentence.text),
            other => panic!("{other:?} instead of an end"),
        }
    }

    pub(crate) async fn publish(&self, ticket: u64, topic: &str, qos: Qos) {
        self.send(ticket, topic, ticket.to_string().into(), qos).await;
    }

    pub(crate) async fn publish_payload(&self, ticket: u64, topic: &str, payload: Vec<u8>) {
        self.send(ticket, topic, payload, Qos::AtLeastOnce).await;
    }

    async fn send(&self, ticket: u64, topic: &str, payload: Vec<u8>, qos: Qos) {
        let message = OutgoingMessage {
            session: self.session,
            ticket: Some(ticket),
            topic: topic.into(),
            payload,
            qos,
            retain: false,
            correlation_data: None,
        };
        let outbox = self.outbox.as_ref().expect("the outbox is open");
        outbox.send(MqttRequest::Publish(message)).await.expect("the connection is open");
    }

    /// Publishes tickets `0..count` on `topic1`, and again those that were in flight when a session
    /// ended. Calls `at` with the number acknowledged so far. Returns how often each was
    /// acknowledged.
    pub(crate) async fn deliver(
        &mut self,
        count: u64,
        qos: Qos,
        mut at: impl FnMut(u32),
    ) -> Vec<u32> {
        let mut acknowledged = vec![0; usize::try_from(count).expect("small")];
        let (mut next, mut under_way, mut all) = (0, 0, 0);
        while acknowledged.contains(&0) {
            if self.session > 0 && next < count && under_way < MAX_INFLIGHT {
                if acknowledged[usize::try_from(next).expect("small")] == 0 {
                    self.publish(next, "topic1", qos).await;
                    under_way += 1;
                }
                next += 1;
                continue;
            }
            match self.event().await {
                MqttEvent::Acknowledged { ticket } => {
                    acknowledged[usize::try_from(ticket).expect("small")] += 1;
                    under_way -= 1;
                    all += 1;
                    at(all);
                }
                MqttEvent::Connected { .. } => (next, under_way) = (0, 0),
                MqttEvent::Disconnected { .. } => self.session = 0,
                other => panic!("{other:?} while delivering"),
            }
        }
        acknowledged
    }

    /// Closes the outbox and waits until the client has ended.
    pub(crate) async fn disconnect(mut self) {
        self.outbox = None;
        (&mut self.task).await.expect("the connection does not panic");
    }

    /// Cancels the client and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.expect("the connection does not panic");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns a file with the password `secret`.
fn password_file() -> PasswordFile {
    let path = std::env::temp_dir().join(format!("edge-mqtt-password-{}", std::process::id()));
    // Renamed into place: another test of this process may be reading it.
    let draft = path.with_extension(fastrand::u64(..).to_string());
    std::fs::write(&draft, "secret").expect("the directory is writable");
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    std::fs::rename(draft, &path).expect("it is in the same directory");
    PasswordFile::from_argument(&path).expect("only this user can read it")
}

pub(crate) fn settings(version: MqttVersion, port: u16) -> ClientSettings {
    let mqtt = Mqtt {
        brokers: vec![Broker {
            scheme: Scheme::Mqtt,
            address: HostPort { host: "127.0.0.1".into(), port },
        }],
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
    let will = Will {
        topic: "M262".into(),
        payload: "Disconnected".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
    };
    let uplink = Uplink::direct(Tls::default());
    ClientSettings {
        mqtt,
        will: Some(will),
        publish_qos: Qos::AtLeastOnce,
        publish_retain: false,
        subscriptions: Vec::new(),
        persistence: SessionPersistence::Clean,
        acknowledgements: Acknowledgements::OnReceipt,
        uplink,
        restarts_on_new_secrets: false,
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
        bundle: BundleSettings::default(),
        queue: Queue {
            durability: Durability::Balanced,
            max_size: 1 << 20,
            min_free: 0,
            on_full: OnFull::DropOldest,
            order: QueueOrder::LiveFirst,
        },
        metrics: Listen { listen: Vec::new(), tags: false },
        plcs: Vec::new(),
    }
}
