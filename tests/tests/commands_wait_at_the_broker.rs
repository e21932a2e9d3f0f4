//! Promise 6 with third-party brokers: a command comes again until the gateway has acknowledged it,
//! also after a restart, and what others subscribed to in its session does not disturb it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "any other event fails the test, and both ends run side by side"
)]

use std::process::Command;
use std::time::Duration;

use e2e::{Mosquitto, NatsCluster, RabbitMq, temp_dir};
use gateway::metrics::Metrics;
use gateway::mqtt::{
    self, Acknowledgements, ClientSettings, DeliveryTag, IncomingMessage, MqttEvent, MqttRequest,
    OUTBOX_CAPACITY, OutgoingMessage, SessionPersistence,
};
use gateway::uplink::Uplink;
use provisioning::config::{self, Qos};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Brokers that have just started take this long, in a cluster and next to a compiler.
const PATIENCE: Duration = Duration::from_secs(60);
const FILTER: &str = "edge/g/set/+";
const TOPIC: &str = "edge/g/set/pump6";
const OLD_FILTER: &str = "edge/old/set/+";
const OLD_TOPIC: &str = "edge/old/set/pump6";

/// The MQTT side of a gateway, as its pump uses it.
struct Client {
    outbox: mpsc::Sender<MqttRequest>,
    events: mpsc::Receiver<MqttEvent>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    session: u32,
}

impl Client {
    fn start(url: &str, version: &str, filters: &[&str], keeps: bool) -> Self {
        let dir = temp_dir();
        let text = format!(
            "[gateway]\nid = \"g\"\nstate_dir = \"{}\"\n[mqtt]\nbrokers = [\"{url}\"]\n\
             version = \"{version}\"\n[[plc]]\nname = \"p\"\nmodel = \"M241\"\n\
             address = \"127.0.0.1:1\"\n[[plc.tag]]\nname = \"t\"\nat = \"%MW0\"\ntype = \"INT\"\n",
            dir.path().display()
        );
        let config = config::load(&dir.write("gateway.toml", &text)).expect("it is valid").config;
        let expiry = Duration::from_secs(3_600);
        let kept = SessionPersistence::Persistent { expiry };
        let settings = ClientSettings {
            mqtt: config.mqtt.clone(),
            will: None,
            publish_qos: Qos::AtLeastOnce,
            publish_retain: false,
            subscriptions: filters.iter().map(|filter| (*filter).to_owned()).collect(),
            persistence: if keeps { kept } else { SessionPersistence::Clean },
            acknowledgements: Acknowledgements::ByCaller,
            uplink: Uplink::direct(config.mqtt.tls.clone()),
            restarts_on_new_secrets: false,
        };
        let metrics = Metrics::new(&config, "").expect("the names are unique").mqtt;
        let (outbox, requests) = mpsc::channel(OUTBOX_CAPACITY);
        let (sender, events) = mpsc::channel(OUTBOX_CAPACITY);
        let stop = CancellationToken::new();
        let task = tokio::spawn(mqtt::run(settings, requests, sender, metrics, stop.clone()));
        Self { outbox, events, stop, task, session: 0 }
    }

    async fn event(&mut self) -> MqttEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("it runs")
    }

    /// Waits for a session and returns whether the broker had kept it.
    async fn connected(&mut self) -> bool {
        loop {
            match self.event().await {
                MqttEvent::Connected { session, session_present, .. } => {
                    self.session = session;
                    return session_present;
                }
                // The broker may have just started, or not yet noticed the end of the last session.
                MqttEvent::Disconnected { .. } => {}
                other => panic!("{other:?} instead of a session"),
            }
        }
    }

    async fn received(&mut self) -> IncomingMessage {
        match self.event().await {
            MqttEvent::Received(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    async fn acknowledge(&self, tag: Option<DeliveryTag>) {
        let tag = tag.expect("the command has QoS 1");
        self.outbox.send(MqttRequest::Acknowledge(tag)).await.expect("it runs");
    }

    /// Waits until the broker has handled everything that was sent before.
    async fn settle(&mut self) {
        let message = OutgoingMessage {
            session: self.session,
            ticket: Some(7),
            topic: "edge/g/data/p".into(),
            payload: b"{}".to_vec(),
            qos: Qos::AtLeastOnce,
            retain: false,
            correlation_data: None,
        };
        self.outbox.send(MqttRequest::Publish(message)).await.expect("it runs");
        assert_eq!(self.event().await, MqttEvent::Acknowledged { ticket: 7 });
    }

    /// Ends it like a `kill -9`: the connection is closed without DISCONNECT.
    async fn kill(self) {
        self.stop.cancel();
        self.task.await.expect("it ends without a panic");
    }
}

fn publish(port: u16, topic: &str, payload: &str) {
    let sent = Command::new("mosquitto_pub")
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-q", "1", "-t", topic, "-m", payload])
        .output()
        .expect("mosquitto_pub is installed");
    assert!(sent.status.success(), "{sent:?}");
}

/// Plays a session that ends twice with a command unacknowledged, and one that nothing is left of.
#[expect(clippy::cognitive_complexity, reason = "the steps of one history")]
async fn a_command_comes_until_it_is_acknowledged(
    port: u16,
    version: &str,
    order: RedeliveryOrder,
) {
    let url = format!("mqtt://127.0.0.1:{port}");
    let start = |filters: &[&str], keeps| Client::start(&url, version, filters, keeps);
    let mut client = start(&[FILTER], true);
    assert!(!client.connected().await);
    publish(port, TOPIC, "1");
    let first = client.received().await;
    assert_eq!((first.payload.as_slice(), first.dup, first.retain), (&b"1"[..], false, false));
    client.kill().await;
    publish(port, TOPIC, "2");

    let mut client = start(&[FILTER], true);
    assert!(client.connected().await, "the broker had kept the session");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let message = client.received().await;
        client.acknowledge(message.delivery).await;
        waiting.push(message.payload);
    }
    if order == RedeliveryOrder::Any {
        waiting.sort();
    }
    assert_eq!(waiting, [b"1", b"2"]);
    client.settle().await;
    client.kill().await;

    let mut client = start(&[FILTER], true);
    assert!(client.connected().await);
    publish(port, TOPIC, "3");
    let message = client.received().await;
    assert_eq!(message.payload, b"3", "what was acknowledged does not come again");
    client.acknowledge(message.delivery).await;
    client.settle().await;
    client.kill().await;

    // A configuration without writes ends the session at the broker.
    let mut client = start(&[], true);
    assert!(!client.connected().await);
    client.kill().await;
    publish(port, TOPIC, "4");
    let mut client = start(&[FILTER], true);
    assert!(!client.connected().await);
    client.settle().await;
    client.kill().await;
}

/// Plays a session in which an earlier client id of the gateway had subscribed.
#[expect(clippy::cognitive_complexity, reason = "the steps of one history")]
async fn an_old_subscription_does_not_disturb(
    port: u16,
    version: &str,
    unsubscribes: Unsubscribes,
) {
    let url = format!("mqtt://127.0.0.1:{port}");
    let mut old = Client::start(&url, version, &[OLD_FILTER], true);
    old.connected().await;
    old.kill().await;
    for number in 0..20 {
        publish(port, OLD_TOPIC, &number.to_string());
    }

    let mut client = Client::start(&url, version, &[FILTER], true);
    assert!(client.connected().await);
    publish(port, TOPIC, "own");
    let message = client.received().await;
    assert_eq!((message.topic.as_str(), message.payload.as_slice()), (TOPIC, &b"own"[..]));
    client.acknowledge(message.delivery).await;
    client.settle().await;
    client.kill().await;
    if unsubscribes == Unsubscribes::AnySubscription {
        publish(port, OLD_TOPIC, "late");
    }
    // Nothing is left unacknowledged, and nothing is stored for the old filter any more.
    let mut client = Client::start(&url, version, &[FILTER, OLD_FILTER], true);
    assert!(client.connected().await);
    publish(port, OLD_TOPIC, "new");
    assert_eq!(client.received().await.payload, b"new");
    client.kill().await;
    let mut client = Client::start(&url, version, &[], false);
    client.connected().await;
    client.kill().await;
}

/// What a client can unsubscribe.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Unsubscribes {
    AnySubscription,
    /// Only what it subscribed to in this connection: RabbitMQ 3.10 forgets the others of a kept
    /// session, but sends their messages. The gateway begins such a session clean after 30 s, which
    /// `gateway/src/mqtt/tests/commands.rs` shows.
    OwnConnection,
}

/// In which order a broker sends what was not acknowledged and what came meanwhile.
#[derive(Clone, Copy, Eq, PartialEq)]
enum RedeliveryOrder {
    /// As it was published (MQTT 5.0, 4.6).
    Published,
    /// NATS sends a message again when its own timer says so, also after later ones.
    Any,
}

fn play(port: u16, version: &str, unsubscribes: Unsubscribes, order: RedeliveryOrder) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        a_command_comes_until_it_is_acknowledged(port, version, order).await;
        an_old_subscription_does_not_disturb(port, version, unsubscribes).await;
    });
}

#[test]
fn at_mosquitto_in_both_versions() {
    let broker = Mosquitto::start();
    for version in ["3.1.1", "5"] {
        play(broker.port(), version, Unsubscribes::AnySubscription, RedeliveryOrder::Published);
    }
}

#[test]
fn at_nats() {
    let cluster = NatsCluster::start();
    let port = port_of(&cluster.brokers()[0]);
    play(port, "3.1.1", Unsubscribes::AnySubscription, RedeliveryOrder::Any);
}

#[test]
fn at_rabbitmq() {
    let broker = RabbitMq::start();
    let port = port_of(&broker.url());
    play(port, "3.1.1", Unsubscribes::OwnConnection, RedeliveryOrder::Published);
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
}
