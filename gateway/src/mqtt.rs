//! The connection to the broker: publishes messages, reports acknowledgements and what it receives.
//!
//! It knows neither the queue nor commands, and stores nothing: a message is in flight in one
//! session, or it is the caller's. The gateway takes over nothing from an earlier session; the
//! broker may keep subscriptions and commands ([`SessionPersistence`]). When a session ends, the
//! caller gets [`MqttEvent::Disconnected`] and sends everything unacknowledged again in the next.

mod broker_traits;
mod connect;
mod diagnosis;
mod failover;
mod failure;
mod inbound_guard;
mod inbox;
mod inflight;
mod reason_code;
mod session;
mod session_loop;
mod session_start;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "any other event fails the test")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use provisioning::config::{self, Lower, MqttVersion, Qos};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::MqttMetrics;
use crate::model::Sentence;
use crate::uplink::{HubChanges, Uplink};
use broker_traits::{BrokerTraits, ConnectPolicy, ConnectRequest};
use connect::{BrokerConnection, SessionPlan};
pub use failover::RECONNECT;
use failover::{BrokerFailover, FailureKind};
pub use failure::DisconnectReason;
use failure::SessionFailure;
use inbox::Inbox;
pub use reason_code::{NOT_AUTHORIZED, PACKET_TOO_LARGE};
use session_loop::{SessionEnd, SessionTerms};
use session_start::{PauseCause, PersistentSessions, SessionRequest, SubscriptionPauses};

/// Most messages in flight at once. A broker may allow fewer (MQTT 5.0, receive maximum); the rest
/// waits in the outbox.
pub const MAX_INFLIGHT: usize = 64;
/// Capacity of the outbox: room for the messages in flight, and for as many acknowledgements as the
/// broker may wait for.
pub const OUTBOX_CAPACITY: usize = MAX_INFLIGHT + 16;

/// Pause between a session that the gateway ended and the next one.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Target of the lines about sessions that the broker keeps: the log's limit counts them apart.
const PERSISTENT_SESSION: &str = "gateway::persistent_session";

/// The brokers, and how to connect to them.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Brokers, version, client id, keep alive, credentials.
    pub mqtt: config::Mqtt,
    /// The message that the broker publishes if the gateway disappears; the one in `mqtt` is
    /// ignored.
    pub will: Option<config::Will>,
    /// Highest quality of service that the configuration asks for.
    pub publish_qos: Qos,
    /// Whether the configuration asks for retained messages.
    pub publish_retain: bool,
    /// Topic filters, subscribed to at QoS 1 in every session.
    pub subscriptions: Vec<String>,
    /// Whether the broker keeps the session while the gateway is away. Only for a configuration
    /// that publishes nothing at QoS 2 (docs/decisions/0010).
    pub persistence: SessionPersistence,
    /// Who acknowledges the messages of the broker.
    pub acknowledgements: Acknowledgements,
    /// Opens connections to the brokers.
    pub uplink: Uplink,
    /// Whether systemd restarts the gateway when a file with a secret changes.
    pub restarts_on_new_secrets: bool,
}

/// What the broker does with the session after a disconnect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionPersistence {
    /// It forgets the session, and one that it kept before.
    Clean,
    /// It keeps the subscriptions, and stores what is published on them meanwhile.
    Persistent {
        /// For this long, in whole seconds. Under 3.1.1 the broker decides.
        expiry: Duration,
    },
}

/// Who acknowledges the messages of the broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acknowledgements {
    /// The MQTT task, when it receives them.
    OnReceipt,
    /// The caller, with [`MqttRequest::Acknowledge`]. The broker sends a message that was not
    /// acknowledged again in the next session, if it keeps the session.
    ByCaller,
}

/// What the MQTT task is to do.
#[derive(Clone, Debug)]
pub enum MqttRequest {
    /// Publishes a message.
    Publish(OutgoingMessage),
    /// Acknowledges a message of the broker. Without effect after the session in which the broker
    /// sent it, and when repeated.
    Acknowledge(DeliveryTag),
}

/// Identifies a message of the broker until it is acknowledged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DeliveryTag {
    session: u32,
    packet_id: u16,
}

impl DeliveryTag {
    /// Returns the tag of a message that no session knows.
    #[cfg(test)]
    pub(crate) const fn unknown(number: u16) -> Self {
        Self { session: 0, packet_id: number }
    }
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
    /// Quality of service; lowered to the maximum of the broker. If that is below
    /// [`ClientSettings::publish_qos`], there is a session only if `mqtt.lower` allows it.
    pub qos: Qos,
    /// Whether the broker retains it; ignored if the broker cannot retain messages. Likewise for
    /// [`ClientSettings::publish_retain`].
    pub retain: bool,
    /// Correlation Data of a reply (MQTT 5.0, 3.3.2.3.6); left out under 3.1.1.
    pub correlation_data: Option<Vec<u8>>,
}

/// A message that the broker sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IncomingMessage {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether the broker had retained it, so that it may be old.
    pub retain: bool,
    /// Whether the broker marks it as sent before (DUP).
    pub dup: bool,
    /// The rest of its Message Expiry Interval, from now (MQTT 5.0, 3.3.2.3.3).
    pub expires_in: Option<Duration>,
    /// Response Topic as sent (MQTT 5.0, 3.3.2.3.5).
    pub response_topic: Option<String>,
    /// Correlation Data as sent (MQTT 5.0, 3.3.2.3.6).
    pub correlation_data: Option<Vec<u8>>,
    /// To be acknowledged with this; absent at QoS 0 and with [`Acknowledgements::OnReceipt`].
    pub delivery: Option<DeliveryTag>,
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
        /// Protocol version of the session.
        version: MqttVersion,
        /// Whether the broker had kept the session (Session Present), so that messages which
        /// arrive soon may be old.
        session_present: bool,
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
    /// The broker does not accept this message now, and may accept it later: a quota, a limit of
    /// the rate, an overload.
    Deferred {
        /// From [`OutgoingMessage::ticket`].
        ticket: Option<u64>,
        /// Its topic.
        topic: Arc<str>,
        /// The standard's name of the code, and the broker's own text if it sent one.
        reason: String,
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
    outbox: mpsc::Receiver<MqttRequest>,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
    stop: CancellationToken,
) {
    let failover = BrokerFailover::new(settings.mqtt.brokers.len());
    let traits = BrokerTraits::new(settings.connect_policy());
    let (connected, version) = (metrics.connected.clone(), metrics.version.clone());
    let hub_changes = settings.uplink.hub_changes();
    let persistent_sessions = PersistentSessions::new(settings.persistence);
    let mut client = MqttClient {
        settings,
        hub_changes,
        outbox,
        events,
        metrics,
        failover,
        traits,
        session: 0,
        persistent_sessions,
        subscription_pauses: SubscriptionPauses::default(),
    };
    stop.run_until_cancelled(Box::pin(client.run())).await;
    connected.set(0);
    version.set(0);
}

impl ClientSettings {
    /// Returns what a CONNECT may ask for. The default will is the gateway's own, so it may always
    /// be lowered.
    fn connect_policy(&self) -> ConnectPolicy {
        let own = self.mqtt.will.is_none().then_some(Lower { qos: true, retain: true });
        ConnectPolicy {
            version: self.mqtt.version,
            will: self.will.clone(),
            lower_will: own.unwrap_or(self.mqtt.lower),
        }
    }
}

struct MqttClient {
    settings: ClientSettings,
    hub_changes: HubChanges,
    outbox: mpsc::Receiver<MqttRequest>,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
    failover: BrokerFailover,
    traits: BrokerTraits,
    session: u32,
    persistent_sessions: PersistentSessions,
    subscription_pauses: SubscriptionPauses,
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
        let (number, now) = (self.failover.current(), Instant::now());
        let subscription_pause = self.subscription_pauses.current(number, now);
        let subscribes = subscription_pause.is_none() && !self.settings.subscriptions.is_empty();
        let request = self.traits.request(number, now);
        let session = self.persistent_sessions.request(number, request.version, subscribes);
        let connected = self.connect(broker, &request, session, subscribes).await?;
        let name = broker.address.to_string();
        match connected {
            Ok(connection) => {
                self.persistent_sessions.on_connected(number, session);
                let retry_at = self.traits.version_retry_at();
                let subscribing =
                    subscription_pause.map(|(at, _)| (at, SessionFailure::SubscribeRetry));
                let retrying = retry_at.map(|at| (at, SessionFailure::VersionRetry));
                let is_discard = self.persistent_sessions.is_discard_session(session, subscribes);
                let ending = is_discard.then_some((now, SessionFailure::KeptSessionEnded));
                let renewal = subscribing.into_iter().chain(retrying).chain(ending);
                let terms = SessionTerms {
                    session: self.session.wrapping_add(1),
                    is_kept: session.persistence != SessionPersistence::Clean,
                    may_begin_clean: self.persistent_sessions.may_begin_clean(number, session),
                    planned_renewal: renewal.min_by_key(|(at, _)| *at),
                };
                self.run_session(connection, request.version, name, terms).await
            }
            // Asked for less at once: the broker has said what it does not support.
            Err(failure) if self.traits.on_refused(&request, &failure, Instant::now()) => {
                let sentence = failure.sentence(&name, &self.settings);
                tracing::debug!(broker = name, %sentence, "the broker is asked for less");
                Ok(Duration::ZERO)
            }
            Err(failure) => {
                self.on_failure(&failure, &name);
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

    async fn connect(
        &mut self,
        broker: &config::Broker,
        request: &ConnectRequest,
        session: SessionRequest,
        subscribes: bool,
    ) -> Result<Result<BrokerConnection, SessionFailure>, ClientClosed> {
        let subscriptions = if subscribes { self.settings.subscriptions.as_slice() } else { &[] };
        let plan = SessionPlan { request, session, subscriptions };
        let connecting = connect::connect(&self.settings, broker, plan);
        select! {
            biased;
            // What is in the outbox belongs to the last session: the queue sends it again.
            () = discard_until_closed(&mut self.outbox) => Err(ClientClosed),
            // Checked first: otherwise a session that is just established would be discarded.
            () = self.hub_changes.changed() => Ok(Err(SessionFailure::HubChanged)),
            connected = connecting => Ok(connected),
        }
    }

    /// Runs the session of a connection to its end and returns the pause after it.
    async fn run_session(
        &mut self,
        mut connection: BrokerConnection,
        version: MqttVersion,
        broker: String,
        terms: SessionTerms,
    ) -> Result<Duration, ClientClosed> {
        self.session = terms.session;
        let event = MqttEvent::Connected {
            session: self.session,
            broker: broker.clone(),
            version,
            session_present: connection.limits.session_present,
            max_payload: connection.max_payload(),
        };
        self.events.send(event).await.map_err(|_| ClientClosed)?;
        self.report_refused_filters(std::mem::take(&mut connection.refused)).await?;
        self.metrics.connected.set(1);
        self.metrics.set_version(Some(version));
        let since = Instant::now();
        let renewals = self.settings.uplink.renewal_requests();
        let (events, metrics) = (self.events.clone(), self.metrics.clone());
        let ClientSettings { subscriptions, acknowledgements, .. } = &self.settings;
        let inbox = Inbox::new(self.session, subscriptions, *acknowledgements);
        let session = connection.session_loop(inbox, terms, events, metrics);
        let end = select! {
            end = session.run(connection, &mut self.outbox, renewals) => end,
            () = self.hub_changes.changed() => SessionEnd::Failed(SessionFailure::HubChanged),
        };
        self.metrics.connected.set(0);
        self.metrics.set_version(None);
        match end {
            SessionEnd::Finished => Err(ClientClosed),
            SessionEnd::Failed(failure) => {
                self.on_failure(&failure, &broker);
                let reason = failure.reason();
                let pause = if matches!(failure, SessionFailure::HubChanged) {
                    self.failover.reset();
                    Duration::ZERO
                } else if matches!(failure, SessionFailure::KeptSessionEnded) {
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

    /// Reports the filters that the broker refused, now or before without a SUBACK.
    async fn report_refused_filters(
        &mut self,
        refused: Vec<(String, u8)>,
    ) -> Result<(), ClientClosed> {
        let pause = self.subscription_pauses.current(self.failover.current(), Instant::now());
        let cause = match pause.map(|(_, cause)| cause) {
            Some(PauseCause::Closed) => Some((NOT_AUTHORIZED, "the broker closes the connection")),
            Some(PauseCause::Silent) => {
                Some((reason_code::UNSPECIFIED_ERROR, "the broker does not answer it"))
            }
            Some(PauseCause::TooLarge) | None => None,
        };
        let unanswered = self.settings.subscriptions.iter().filter_map(|filter| {
            let (code, reason) = cause?;
            let (filter, reason) = (filter.clone(), reason.to_owned());
            Some(MqttEvent::SubscriptionRefused { filter, code, reason })
        });
        let refused = refused.into_iter().map(|(filter, code)| {
            let reason = reason_code::name(code).to_owned();
            MqttEvent::SubscriptionRefused { filter, code, reason }
        });
        let refusals: Vec<_> = refused.chain(unanswered).collect();
        for event in refusals {
            self.events.send(event).await.map_err(|_| ClientClosed)?;
        }
        Ok(())
    }

    /// Records why there is no session with the current broker. Called before the next broker is
    /// selected.
    fn on_failure(&mut self, failure: &SessionFailure, broker: &str) {
        let number = self.failover.current();
        let pauses = self.subscription_pauses.on_failed(number, failure, Instant::now());
        let begins_clean = self.persistent_sessions.on_failed(number, failure);
        // Without subscriptions, the next session begins clean as well.
        let is_kept = self.settings.persistence != SessionPersistence::Clean;
        if begins_clean || pauses && is_kept {
            tracing::warn!(
                target: PERSISTENT_SESSION,
                broker,
                "the session that the broker keeps cannot be used and is ended: commands that wait \
                 there are lost"
            );
        }
    }

    async fn report_disconnected(
        &mut self,
        failure: &SessionFailure,
        broker: &str,
        pause: Duration,
    ) -> Result<Duration, ClientClosed> {
        let reason = failure.reason();
        // What the tunnel explains must not be blamed on the broker.
        let fault = self.settings.uplink.fault().filter(|fault| failure.is_explained_by(fault));
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
async fn discard_until_closed(outbox: &mut mpsc::Receiver<MqttRequest>) {
    while outbox.recv().await.is_some() {}
}

const fn failure_kind(reason: DisconnectReason) -> FailureKind {
    match reason {
        DisconnectReason::Unauthorized => FailureKind::LoginRefused,
        DisconnectReason::Unreachable
        | DisconnectReason::Refused
        | DisconnectReason::TakenOver
        | DisconnectReason::Closed
        | DisconnectReason::Unavailable
        | DisconnectReason::Silent
        | DisconnectReason::TooLarge
        | DisconnectReason::Protocol
        | DisconnectReason::Renewed => FailureKind::Transient,
    }
}
