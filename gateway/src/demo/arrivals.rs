//! What arrives at the broker of the demo: at its own, or at one of the user.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use provisioning::config::{Config, Mqtt, Qos, Via, Will};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ArrivedMessage;
use super::site::DemoBroker;
use crate::metrics::Metrics;
use crate::mock_broker::{AccessList, MockBroker, MockBrokerEvent, PublishedMessage};
use crate::mqtt::{
    self, Acknowledgements, ClientSettings, MqttEvent, MqttRequest, SessionPersistence,
};
use crate::supervise::Stage;
use crate::uplink::Uplink;

/// Events of the broker that may wait to be shown.
const EVENT_CAPACITY: usize = 64;
/// Longest wait for the last messages at a broker of the user.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// The messages that arrive.
pub(super) enum Arrivals {
    /// At the demo's own broker.
    Own(mpsc::Receiver<MockBrokerEvent>),
    /// At a broker of the user, as a subscriber sees them.
    Subscribed {
        events: mpsc::Receiver<MqttEvent>,
        /// Dropping it would end the subscriber.
        _outbox: mpsc::Sender<MqttRequest>,
    },
}

impl Arrivals {
    /// Starts the broker, or the subscriber. Returns where the demo's own broker listens for other
    /// clients.
    pub(super) async fn start(
        broker: DemoBroker,
        config: &Config,
        stage: &Stage,
        fatal: &CancellationToken,
    ) -> anyhow::Result<(Self, Option<SocketAddr>)> {
        let DemoBroker::Own(behind_tunnel) = broker else {
            return Ok((Self::subscribe(config, stage, fatal)?, None));
        };
        let (sender, events) = mpsc::channel(EVENT_CAPACITY);
        let broker = MockBroker::new(Vec::new(), AccessList::default(), sender);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the demo needs a port for other MQTT clients")?;
        let address = listener.local_addr()?;
        let for_others = broker.clone();
        stage.spawn(fatal.clone(), |stop| for_others.serve(listener, stop));
        stage.spawn(fatal.clone(), |stop| broker.serve(behind_tunnel, stop));
        Ok((Self::Own(events), Some(address)))
    }

    fn subscribe(
        config: &Config,
        stage: &Stage,
        fatal: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let client_id = format!("edge-demo-{}", std::process::id());
        let mqtt = Mqtt { client_id, via: Via::Direct, will: None::<Will>, ..config.mqtt.clone() };
        let uplink = Uplink::direct(mqtt.tls.clone());
        let settings = ClientSettings {
            mqtt,
            will: None,
            publish_qos: Qos::AtMostOnce,
            publish_retain: false,
            subscriptions: vec![format!("edge/{}/#", config.gateway.id)],
            persistence: SessionPersistence::Clean,
            acknowledgements: Acknowledgements::OnReceipt,
            uplink,
            restarts_on_new_secrets: false,
        };
        let metrics = Metrics::new(config, "")?.mqtt;
        let (outbox, requests) = mpsc::channel(1);
        let (sender, events) = mpsc::channel(EVENT_CAPACITY);
        stage.spawn(fatal.clone(), |stop| mqtt::run(settings, requests, sender, metrics, stop));
        Ok(Self::Subscribed { events, _outbox: outbox })
    }

    /// Waits for the next message. Cancel safe.
    pub(super) async fn next(&mut self) -> ArrivedMessage {
        loop {
            let arrived = match self {
                Self::Own(events) => match events.recv().await {
                    Some(event) => from_own(event),
                    None => pending().await,
                },
                Self::Subscribed { events, .. } => match events.recv().await {
                    Some(event) => from_subscription(event),
                    None => pending().await,
                },
            };
            if let Some(arrived) = arrived {
                return arrived;
            }
        }
    }

    /// Returns the next message after the end of the gateway, `None` after the last one.
    pub(super) async fn next_of_the_last(&mut self) -> Option<ArrivedMessage> {
        match self {
            Self::Own(events) => loop {
                if let Some(arrived) = from_own(events.try_recv().ok()?) {
                    return Some(arrived);
                }
            },
            Self::Subscribed { .. } => timeout(LAST_MESSAGES, self.next()).await.ok(),
        }
    }
}

fn from_own(event: MockBrokerEvent) -> Option<ArrivedMessage> {
    let MockBrokerEvent::Message(PublishedMessage { topic, payload, .. }) = event else {
        return None;
    };
    Some(ArrivedMessage::new(topic, &payload))
}

fn from_subscription(event: MqttEvent) -> Option<ArrivedMessage> {
    match event {
        // A retained message is of an earlier run.
        MqttEvent::Received(message) if !message.retain => {
            Some(ArrivedMessage::new(message.topic, &message.payload))
        }
        MqttEvent::Disconnected { sentence, .. } => {
            tracing::warn!("{sentence}");
            None
        }
        MqttEvent::SubscriptionRefused { filter, reason, .. } => {
            tracing::warn!("The broker refuses the subscription to {filter}: {reason}.");
            None
        }
        MqttEvent::Received(_)
        | MqttEvent::Connected { .. }
        | MqttEvent::Acknowledged { .. }
        | MqttEvent::Deferred { .. }
        | MqttEvent::Refused { .. } => None,
    }
}

impl ArrivedMessage {
    fn new(topic: String, payload: &[u8]) -> Self {
        let text = || Value::String(String::from_utf8_lossy(payload).into_owned());
        Self { topic, payload: serde_json::from_slice(payload).unwrap_or_else(|_| text()) }
    }
}
