//! The connection to the broker: publishes messages, reports acknowledgements and what it receives.
//!
//! It knows neither the queue nor commands, and stores nothing: a message is in flight in one
//! session, or it is the caller's. Every session is a clean one; when it ends, the caller gets
//! [`MqttEvent::Disconnected`] and sends everything unacknowledged again in the next.

mod connect;
mod diagnosis;
mod failover;
mod failure;
mod inflight;
mod reason_code;
mod reason_tap;
mod session;
mod session_loop;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "any other event fails the test")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use provisioning::config::{self, Qos};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::MqttMetrics;
use crate::model::Sentence;
use crate::uplink::{HubChanges, Uplink};
use connect::BrokerConnection;
use failover::{BrokerFailover, FailureKind};
pub use failure::DisconnectReason;
use failure::SessionFailure;
use session_loop::SessionEnd;

/// Most messages in flight at once. A broker may allow fewer (MQTT 5.0, receive maximum); the rest
/// waits in the outbox, whose capacity should be this number.
pub const MAX_INFLIGHT: usize = 64;

/// Pause between a session that the gateway ended and the next one.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Pause before subscribing again after an oversized message: a broker sends a retained one again
/// after every SUBSCRIBE.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(600);

/// The brokers, and how to connect to them.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Brokers, version, client id, keep alive, credentials.
    pub mqtt: config::Mqtt,
    /// The message that the broker publishes if the gateway disappears; the one in `mqtt` is
    /// ignored.
    pub will: Option<config::Will>,
    /// Topic filters, subscribed to at QoS 1 in every session.
    pub subscriptions: Vec<String>,
    /// Opens connections to the brokers.
    pub uplink: Uplink,
    /// Whether systemd restarts the gateway when a file with a secret changes.
    pub restarts_on_new_secrets: bool,
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// The session of [`MqttEvent::Connected`] that it belongs to. In any other session it is
    /// discarded without an event.
    pub session: u32,
    /// Comes back in [`MqttEvent::Acknowledged`]; absent when no acknowledgement is needed.
    pub ticket: Option<u64>,
    /// Topic name.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service; lowered to the maximum of the broker.
    pub qos: Qos,
    /// Whether the broker retains it; ignored if the broker cannot retain messages.
    pub retain: bool,
}

/// A message that the broker sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IncomingMessage {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether the broker had retained it, so that it may be old.
    pub retain: bool,
}

/// An event of the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum MqttEvent {
    /// A session is established and its subscriptions are made. Messages for it may be sent now.
    Connected {
        /// Its number: one more than that of the session before.
        session: u32,
        /// Host and port.
        broker: String,
        /// Most bytes of topic and payload together, if the broker has a limit. A longer message
        /// comes back as [`MqttEvent::Refused`].
        max_payload: Option<usize>,
    },
    /// The session ended, or an attempt to connect failed. No message is in flight.
    Disconnected {
        /// Why, as a closed set.
        reason: DisconnectReason,
        /// Why, and what to do, for an installer.
        sentence: Sentence,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// The broker acknowledged this message (QoS 1 and 2), or it was written (QoS 0).
    Acknowledged {
        /// From [`OutgoingMessage::ticket`].
        ticket: u64,
    },
    /// The broker rejects this message, and sending it again would not help.
    Refused {
        /// From [`OutgoingMessage::ticket`].
        ticket: Option<u64>,
        /// Its topic.
        topic: Arc<str>,
        /// Reason code (MQTT 5.0, 2.4).
        code: u8,
        /// The standard's name of the code, and the broker's own text if it sent one.
        reason: String,
    },
    /// The broker rejects a subscription.
    SubscriptionRefused {
        /// The filter.
        filter: String,
        /// Reason code (MQTT 5.0, 2.4); 128 under 3.1.1.
        code: u8,
        /// The standard's name of the code.
        reason: String,
    },
    /// The broker sent a message.
    Received(IncomingMessage),
}

/// Keeps a session with one of the brokers and publishes the messages from `outbox`.
///
/// Tries brokers in the order of the configuration, without a pause between them. After a round in
/// which all failed it pauses for a random time of up to a minute, and at least a minute when a
/// login was refused. It keeps an established session.
///
/// When the outbox is closed, it waits up to 5 s until everything sent is acknowledged, sends
/// DISCONNECT so that the will is not published, and returns. When `stop` is cancelled or the
/// receiver of events is dropped, it returns at once and the broker publishes the will.
///
/// A caller that waits for capacity in the outbox must receive events meanwhile: otherwise both
/// wait for ever.
pub async fn run(
    settings: ClientSettings,
    outbox: mpsc::Receiver<OutgoingMessage>,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
    stop: CancellationToken,
) {
    let failover = BrokerFailover::new(settings.mqtt.brokers.len());
    let connected = metrics.connected.clone();
    let hub_changes = settings.uplink.hub_changes();
    let mut client = MqttClient {
        settings,
        hub_changes,
        outbox,
        events,
        metrics,
        failover,
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

/// The outbox is closed, or the receiver of events was dropped.
struct ClientClosed;

impl MqttClient {
    async fn run(&mut self) {
        while let Some(broker) = self.settings.mqtt.brokers.get(self.failover.current()).cloned() {
            let Ok(pause) = self.attempt(&broker).await else { return };
            let mut tunnel = self.hub_changes.clone();
            if pause.is_zero() {
                continue;
            }
            select! {
                () = discard_until_closed(&mut self.outbox) => return,
                () = self.hub_changes.changed() => self.failover.reset(),
                () = tunnel.recovered() => self.failover.reset(),
                () = sleep(pause) => {}
            }
        }
    }

    /// Tries to connect to this broker, runs the session if there is one, and returns the pause
    /// after it.
    async fn attempt(&mut self, broker: &config::Broker) -> Result<Duration, ClientClosed> {
        // After an oversized message the session begins without subscriptions: with them the broker
        // would send a retained one again at once, and end every session.
        let renew_at = self.subscribe_again_at.filter(|at| Instant::now() < *at);
        let subscriptions =
            if renew_at.is_some() { &[] } else { self.settings.subscriptions.as_slice() };
        let connecting = connect::connect(&self.settings, broker, subscriptions, &self.events);
        let connected = select! {
            biased;
            // What is in the outbox belongs to the last session: the queue sends it again.
            () = discard_until_closed(&mut self.outbox) => return Err(ClientClosed),
            // Checked first: otherwise a session that is just established would be discarded.
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

    /// Runs the session of a connection to its end and returns the pause after it.
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
        let session = connection.session_loop(self.session, renew_at, events, metrics);
        let end = select! {
            end = session.run(connection, &mut self.outbox) => end,
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
        // What the tunnel explains must not be blamed on the broker.
        let fault = self.settings.uplink.fault().filter(|_| failure.is_silence());
        let is_tunnel = fault.is_some() || failure.is_tunnel_fault();
        let sentence = fault.map_or_else(
            || failure.sentence(broker, &self.settings),
            |fault| SessionFailure::Dial(fault).sentence(broker, &self.settings),
        );
        // It may have come back since, and then no later event ends the pause.
        let is_back = is_tunnel && self.settings.uplink.fault().is_none();
        let pause = if is_back { pause.min(RENEWAL_PAUSE) } else { pause };
        tracing::debug!(broker, reason = reason.label(), ?pause, %sentence);
        let event = MqttEvent::Disconnected { reason, sentence, retry_in: pause };
        self.events.send(event).await.map(|()| pause).map_err(|_| ClientClosed)
    }
}

/// Discards messages for a session that has ended; returns when the outbox is closed.
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
