//! Keeps the status true, and makes messages of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Config, Qos};
use tokio::sync::watch;
use tunnel::TunnelReport;

use super::fill_rate::FillRate;
use crate::app::{OFFLINE_PAYLOAD, status_topic};
use crate::clock::{self, ClockAssessment};
use crate::metrics::Metrics;
use crate::model::{LearnedLimits, RateLimit, Sentence, UnixTime};
use crate::mqtt::{self, OutgoingMessage};
use crate::plc;
use crate::queue;
use crate::status::{ConnectionState, QueueStatus, Status, TunnelStatus};
use crate::web::Readiness;

/// The status and what it needs to stay true.
#[derive(Debug)]
pub(super) struct StatusTracker {
    status: watch::Sender<Status>,
    topic: Arc<str>,
    metrics: Metrics,
    health_inputs: HealthInputs,
    readiness: watch::Sender<Readiness>,
    max_bytes: u64,
    fill_rate: FillRate,
    /// Whether something happened that a reader should learn before the next full minute.
    changed: bool,
    /// Length of the status that was sent last.
    last_len: usize,
    /// A status that is not shorter than this is not sent.
    max_len: usize,
}

/// What others tell of themselves.
#[derive(Clone, Debug)]
pub(in crate::app) struct HealthInputs {
    /// How the tunnel is, if there is one.
    pub(in crate::app) tunnel: Option<watch::Receiver<TunnelReport>>,
    /// How far the clock can be believed.
    pub(in crate::app) clock: watch::Receiver<ClockAssessment>,
}

impl StatusTracker {
    pub(super) fn new(
        config: &Config,
        hash: &str,
        metrics: &Metrics,
        watched: HealthInputs,
    ) -> Self {
        let plcs = config.plcs.iter().map(|plc| plc.name.as_str());
        let version = env!("CARGO_PKG_VERSION");
        let status = Status::new(&config.gateway.id, version, hash, plcs, clock::now());
        Self {
            status: watch::Sender::new(status),
            topic: status_topic(&config.gateway.id).into(),
            metrics: metrics.clone(),
            health_inputs: watched,
            readiness: watch::Sender::new(Readiness::Ready),
            max_bytes: config.queue.max_size,
            fill_rate: FillRate::new(Instant::now()),
            changed: false,
            last_len: 0,
            max_len: usize::MAX,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How far the clock can be believed.
    pub(super) fn clock_trust(&self) -> clock::TrustLevel {
        self.health_inputs.clock.borrow().trust
    }

    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// A cycle of a PLC has ended.
    pub(super) fn on_cycle(&self, plc: u16, took: Duration) {
        let metrics = self.metrics.plcs.get(usize::from(plc));
        let missed = metrics.map_or(0, |metrics| metrics.cycles_missed.get());
        self.update(|status| status.on_plc_cycle(plc, took, missed, clock::now()));
    }

    /// So much was made for the queue: bytes on the disk, unless it was refused, and in memory.
    pub(super) fn on_produced(&mut self, disk: Option<u64>, memory: u64) {
        self.fill_rate.add(disk, memory);
    }

    /// A PLC came or went.
    pub(super) fn on_plc_state(&mut self, plc: u16, state: plc::PlcState) {
        let now = clock::now();
        self.changed = true;
        let sentence = |status: &Status| Some(status.plcs.get(usize::from(plc))?.sentence.clone());
        let before = sentence(&self.status.borrow());
        self.update(|status| match state {
            plc::PlcState::Connected { identity, program } => {
                let running = program.and_then(|program| program.state.is_running());
                status.on_plc_connected(plc, identity, running, program, now);
            }
            plc::PlcState::Disconnected { diagnosis, retry_within } => {
                status.on_plc_disconnected(plc, Sentence::new(&diagnosis), retry_within, now);
            }
        });
        let after = sentence(&self.status.borrow());
        if after != before {
            self.log_plc(plc);
        }
    }

    /// A ceiling costs cycles, or does not any more.
    pub(super) fn on_throttled(&mut self, plc: u16, limit: Option<RateLimit>) {
        self.changed = true;
        self.update(|status| status.on_plc_throttled(plc, limit, clock::now()));
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        match &plc.limit {
            Some(limit) => tracing::warn!(plc = plc.name, "{limit}"),
            None => tracing::info!(plc = plc.name, "No cycle is skipped any more."),
        }
    }

    /// Once per change, in the words of the status.
    fn log_plc(&self, plc: u16) {
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        match plc.state {
            ConnectionState::Disconnected => tracing::warn!(plc = plc.name, "{}", plc.sentence),
            ConnectionState::Connecting | ConnectionState::Connected => {
                tracing::info!(plc = plc.name, "{}", plc.sentence);
            }
        }
    }

    /// The answers of a PLC corrected the plan.
    pub(super) fn on_learned(&mut self, plc: u16, learned: LearnedLimits) {
        self.changed = true;
        self.update(|status| status.on_plc_learned(plc, learned, clock::now()));
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        let refusal = plc.refusal.as_deref().unwrap_or("The PLC refuses no tag any more.");
        let (max_words, max_gap) = plc
            .learned
            .as_ref()
            .map_or((None, None), |learned| (learned.max_words, learned.max_gap));
        tracing::info!(plc = plc.name, max_words, max_gap, "{refusal}");
    }

    /// Something happened at the connection to the broker.
    pub(super) fn on_mqtt_event(&mut self, event: &mqtt::MqttEvent) {
        let now = clock::now();
        match event {
            mqtt::MqttEvent::Connected { broker, .. } => {
                self.update(|status| status.on_broker_connected(broker, now));
                tracing::info!("{}", self.status.borrow().broker.sentence);
            }
            mqtt::MqttEvent::Disconnected { sentence, .. } => {
                let before = self.status.borrow().broker.sentence.clone();
                self.update(|status| status.on_broker_disconnected(sentence.clone(), now));
                let after = &self.status.borrow().broker.sentence;
                // A broker that stays away is told once, not with every attempt.
                if *after != before {
                    tracing::warn!("{after}");
                }
            }
            mqtt::MqttEvent::Refused { topic, reason, .. } => {
                let is_news = self.status.borrow().broker.refusal.is_none();
                self.changed |= is_news;
                self.update(|status| status.on_broker_refused(topic, reason, now));
                if is_news {
                    tracing::warn!(%topic, reason, "the broker refuses messages");
                }
            }
            mqtt::MqttEvent::SubscriptionRefused { .. }
            | mqtt::MqttEvent::Acknowledged { .. }
            | mqtt::MqttEvent::Received(_) => {}
        }
    }

    /// Takes over how clock and tunnel are.
    pub(super) fn poll_health(&mut self) {
        let now = clock::now();
        let judgement = *self.health_inputs.clock.borrow_and_update();
        self.metrics
            .clock_synchronized
            .set((judgement.trust == clock::TrustLevel::Synchronised).into());
        let mut is_news = false;
        self.update(|status| {
            is_news =
                status.set_clock(judgement.trust.as_str(), Sentence::new(&judgement.trust), now)
        });
        if is_news && judgement.trust == clock::TrustLevel::Unset {
            tracing::warn!("{}", judgement.trust);
        }
        self.changed |= is_news;
        let Some(reports) = &mut self.health_inputs.tunnel else { return };
        let report = reports.borrow_and_update().clone();
        self.metrics.tunnel.update(&report.counters);
        self.metrics.tunnel.up.set(report.state.has_session().into());
        let tunnel = to_tunnel_status(&report, now);
        if let Some(at) = tunnel.last_handshake {
            self.metrics.tunnel.last_handshake_timestamp.set(at.as_seconds());
        }
        self.update(|status| is_news = status.set_tunnel(tunnel, now));
        self.changed |= is_news;
    }

    /// Takes over what the queue holds.
    pub(super) fn update_queue(&mut self, queue: &queue::Queue) {
        let (stats, health, now) = (queue.stats(), queue.health(), Instant::now());
        self.fill_rate.rotate(now);
        let fills = self.fill_rate.seconds_until_full(queue.capacity(), now);
        self.metrics.queue.fits_seconds.set(fills.unwrap_or(f64::INFINITY));
        let queue = QueueStatus {
            stored: stats.samples,
            entries: stats.entries,
            bytes: stats.bytes,
            max_bytes: self.max_bytes,
            dropped: self.metrics.queue.dropped(),
            hours: fills.map(|seconds| (seconds / 360.0).round() / 10.0),
            oldest: stats.oldest,
            ..QueueStatus::default()
        };
        let storage = health.sentence();
        let before = self.status.borrow().queue.storage.clone();
        let failing = health.sentence().filter(|_| health.is_memory_only());
        self.readiness.send_replace(
            failing.map_or(Readiness::Ready, |sentence| Readiness::NotReady(sentence.text)),
        );
        self.update(|status| status.set_queue(queue, storage, clock::now()));
        self.changed |= self.status.borrow().queue.storage != before;
    }

    /// Whether something changed since the last call that is worth a message.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// The status as a retained message; nothing when the broker closes the connection over it.
    pub(super) fn status_message(&mut self, session: u32, ticket: u64) -> Option<OutgoingMessage> {
        // A struct of numbers and text always has a JSON form; an empty payload clears the topic.
        let payload = serde_json::to_vec(&*self.status.borrow()).unwrap_or_default();
        if payload.len() >= self.max_len {
            return None;
        }
        self.last_len = payload.len();
        Some(OutgoingMessage { ticket: Some(ticket), ..self.retained_message(session, payload) })
    }

    /// The broker closed the connection over the last status. One that is not clearly shorter is
    /// not tried; it can still be read on this machine.
    pub(super) const fn suppress(&mut self) {
        self.max_len = self.last_len - self.last_len / 4;
    }

    /// The last words of a graceful stop.
    pub(super) fn offline_message(&self, session: u32) -> OutgoingMessage {
        self.retained_message(session, OFFLINE_PAYLOAD.as_bytes().to_vec())
    }

    fn retained_message(&self, session: u32, payload: Vec<u8>) -> OutgoingMessage {
        let topic = Arc::clone(&self.topic);
        OutgoingMessage {
            session,
            ticket: None,
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            retain: true,
        }
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

fn to_tunnel_status(report: &TunnelReport, now: UnixTime) -> TunnelStatus {
    let Sentence { text, detail } = Sentence::new(&report.diagnosis);
    TunnelStatus {
        state: report.state.label().to_owned(),
        sentence: text,
        sentence_detail: Some(detail),
        hub: report.hub.clone(),
        endpoint: report.endpoint.map(|endpoint| endpoint.to_string()),
        last_handshake: report.last_handshake.map(clock::to_unix_time),
        since: now,
    }
}
