//! The connection to the broker: takes messages, gives acknowledgements and what was received.
//!
//! It knows neither the queue nor commands. It never stores: a message is under way in one session
//! or it is the caller's. Every session is a clean one; when it ends, the caller gets
//! [`Event::Disconnected`] and sends everything unacknowledged again in the next.

mod connect;
mod failover;
mod failure;
mod inflight;
mod reason_code;
mod reason_tap;
mod session;
mod session_loop;
mod session_v4;
mod session_v5;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else happens fails the test")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use provisioning::config::{self, Qos};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::MqttMetrics;
use crate::uplink::{HubChanges, Uplink};
use connect::BrokerConnection;
use failover::{BrokerFailover, FailureKind};
pub use failure::DisconnectReason;
use failure::SessionFailure;
use session_loop::SessionEnd;

/// Most messages that are under way at once. A broker may allow fewer (MQTT 5, receive maximum):
/// then the rest waits in the outbox, so its capacity should be this.
pub const MAX_INFLIGHT: usize = 64;

/// Pause before a session that we start anew ourselves.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How long we do without subscriptions after a message that was too large: the broker would send
/// a retained one again with every session.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(600);

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Brokers, version, client id, keep alive, credentials.
    pub mqtt: config::Mqtt,
    /// What the broker publishes when we vanish; the one in `mqtt` is not looked at.
    pub will: Option<config::Will>,
    /// Topic filters, subscribed to at QoS 1 in every session.
    pub subscriptions: Vec<String>,
    /// The way to the brokers.
    pub uplink: Uplink,
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// The session of [`Event::Connected`] that it is meant for. In any other one it is thrown
    /// away without a word.
    pub session: u32,
    /// What [`Event::Acknowledged`] names; absent when nobody waits for it.
    pub ticket: Option<u64>,
    /// Topic name.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service; a broker that takes less gets less.
    pub qos: Qos,
    /// Whether the broker keeps it; not asked for where a broker cannot.
    pub retain: bool,
}

/// A message that the broker sent us.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IncomingMessage {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether it was kept by the broker, so it may be old.
    pub retain: bool,
}

/// What happens at the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MqttEvent {
    /// A session stands, subscriptions included. Messages for it may be sent now.
    Connected {
        /// Its number, one more than the last one's.
        session: u32,
        /// Host and port.
        broker: String,
        /// Most bytes that topic and payload may have together, when the broker has told one.
        /// What is longer comes back as [`Event::Refused`].
        max_payload: Option<usize>,
    },
    /// The session is over, or an attempt at one has failed. Nothing is under way any more.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
        /// Why, for an installer.
        sentence: String,
        /// Until the next attempt.
        retry_in: Duration,
    },
    /// The broker has this message (QoS 1, 2), or it is on its way (QoS 0).
    Acknowledged {
        /// From [`Outgoing::ticket`].
        ticket: u64,
    },
    /// The broker does not want this message, and sending it again would not help.
    Refused {
        /// From [`Outgoing::ticket`].
        ticket: Option<u64>,
        /// Its topic.
        topic: Arc<str>,
        /// Reason code (MQTT 5.0, 2.4).
        code: u8,
        /// The standard's name for the code, and the broker's own words if it has any.
        reason: String,
    },
    /// The broker does not let us subscribe.
    SubscriptionRefused {
        /// The filter.
        filter: String,
        /// Reason code (MQTT 5.0, 2.4); 128 under 3.1.1.
        code: u8,
        /// The standard's name for the code.
        reason: String,
    },
    /// A message for us.
    Received(IncomingMessage),
}

/// Keeps a session with one of the brokers and publishes what comes out of `outbox`.
///
/// Brokers are tried in the order of the configuration, without a pause between them; a round that
/// failed is followed by a pause with full jitter of up to a minute, and of a minute at least when
/// the login was refused. An established session is kept.
///
/// When the outbox is closed, it waits up to 5 s until everything sent is acknowledged, says
/// goodbye so that the will is not published, and returns. When `stop` is cancelled or nobody
/// takes events any more, it returns at once and the broker publishes the will.
///
/// Whoever waits for room in the outbox must take events meanwhile, or both wait for ever.
pub async fn run(
    settings: ClientSettings,
    outbox: mpsc::Receiver<OutgoingMessage>,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
    stop: CancellationToken,
) {
    let rota = BrokerFailover::new(settings.mqtt.brokers.len());
    let connected = metrics.connected.clone();
    let moves = settings.uplink.hub_changes();
    let mut client = MqttClient {
        settings,
        hub_changes: moves,
        outbox,
        events,
        metrics,
        failover: rota,
        session: 0,
        subscribe_again_at: None,
    };
    stop.run_until_cancelled(Box::pin(client.run())).await;
    connected.set(0);
}

struct MqttClient {
    settings: ClientSettings,
    hub_changes: HubChanges,
    outbox: mpsc::Receiver<OutgoingMessage>,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
    failover: BrokerFailover,
    session: u32,
    subscribe_again_at: Option<Instant>,
}

/// The outbox is closed, or nobody takes events any more.
struct ClientClosed;

impl MqttClient {
    async fn run(&mut self) {
        while let Some(broker) = self.settings.mqtt.brokers.get(self.failover.current()).cloned() {
            let Ok(pause) = self.attempt(&broker).await else { return };
            if pause.is_zero() {
                continue;
            }
            select! {
                () = discard_until_closed(&mut self.outbox) => return,
                () = self.hub_changes.changed() => self.failover.reset(),
                () = sleep(pause) => {}
            }
        }
    }

    /// One attempt at this broker, and the session if it comes about. Gives the pause after it.
    async fn attempt(&mut self, broker: &config::Broker) -> Result<Duration, ClientClosed> {
        let renew_at = self.subscribe_again_at.filter(|until| Instant::now() < *until);
        let subscriptions =
            if renew_at.is_some() { &[] } else { self.settings.subscriptions.as_slice() };
        let connecting = connect::connect(&self.settings, broker, subscriptions, &self.events);
        let connected = select! {
            biased;
            () = discard_until_closed(&mut self.outbox) => return Err(ClientClosed),
            // Before the other, or a session that has just come about would be thrown away.
            () = self.hub_changes.changed() => Err(SessionFailure::HubChanged),
            connected = connecting => connected,
        };
        let name = broker.address.to_string();
        match connected {
            Ok(connection) => self.run_session(connection, name, renew_at).await,
            Err(failure) => {
                let pause = if matches!(failure, SessionFailure::HubChanged) {
                    self.failover.reset();
                    Duration::ZERO
                } else {
                    self.failover.on_failed(failure_kind(failure.reason()), fastrand::f64())
                };
                self.report_disconnected(&failure, &name, pause).await
            }
        }
    }

    /// Uses a connection as long as it lasts.
    async fn run_session(
        &mut self,
        connection: BrokerConnection,
        broker: String,
        renew_at: Option<Instant>,
    ) -> Result<Duration, ClientClosed> {
        self.session = self.session.wrapping_add(1);
        let event = MqttEvent::Connected {
            session: self.session,
            broker: broker.clone(),
            max_payload: connection.max_payload(),
        };
        self.events.send(event).await.map_err(|_| ClientClosed)?;
        self.metrics.connected.set(1);
        let since = Instant::now();
        let (events, metrics) = (self.events.clone(), self.metrics.clone());
        let desk = connection.session_loop(self.session, renew_at, events, metrics);
        let end = select! {
            end = desk.run(connection, &mut self.outbox) => end,
            () = self.hub_changes.changed() => SessionEnd::Failed(SessionFailure::HubChanged),
        };
        self.metrics.connected.set(0);
        match end {
            SessionEnd::Finished => Err(ClientClosed),
            SessionEnd::Failed(failure) => {
                let reason = failure.reason();
                let pause = if matches!(failure, SessionFailure::HubChanged) {
                    self.failover.reset();
                    Duration::ZERO
                } else if reason == DisconnectReason::Renewed {
                    RENEWAL_PAUSE
                } else {
                    self.failover.on_lost(failure_kind(reason), since.elapsed(), fastrand::f64())
                };
                self.report_disconnected(&failure, &broker, pause).await
            }
        }
    }

    async fn report_disconnected(
        &mut self,
        failure: &SessionFailure,
        broker: &str,
        pause: Duration,
    ) -> Result<Duration, ClientClosed> {
        let reason = failure.reason();
        if reason == DisconnectReason::TooLarge {
            self.subscribe_again_at = Some(Instant::now() + SUBSCRIBE_RETRY);
        }
        let sentence = failure.sentence(broker, &self.settings.mqtt);
        tracing::debug!(broker, reason = reason.label(), ?pause, sentence);
        let event = MqttEvent::Disconnected { reason, sentence, retry_in: pause };
        self.events.send(event).await.map(|()| pause).map_err(|_| ClientClosed)
    }
}

/// Throws away what was meant for a session that is over, until the outbox is closed.
async fn discard_until_closed(outbox: &mut mpsc::Receiver<OutgoingMessage>) {
    while outbox.recv().await.is_some() {}
}

const fn failure_kind(reason: DisconnectReason) -> FailureKind {
    match reason {
        DisconnectReason::Unauthorized => FailureKind::LoginRefused,
        DisconnectReason::Unreachable
        | DisconnectReason::Refused
        | DisconnectReason::TakenOver
        | DisconnectReason::Closed
        | DisconnectReason::Silent
        | DisconnectReason::TooLarge
        | DisconnectReason::Protocol
        | DisconnectReason::Renewed => FailureKind::Transient,
    }
}
