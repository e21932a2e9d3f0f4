//! Keeps the status up to date, and makes messages of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Config, Plc, Qos, Tag};
use tokio::sync::watch;
use tunnel::TunnelReport;

use super::Ticket;
use super::fill_rate::FillRate;
use crate::app::certificates::{
    CertificateEnd, CertificateEnds, ExpiryNotice, ExpiryNotices, days_left,
};
use crate::app::{OFFLINE_PAYLOAD, status_topic};
use crate::apply::BundleEvent;
use crate::clock::{self, ClockAssessment};
use crate::metrics::Metrics;
use crate::model::{BadTag, LearnedLimits, RateLimit, Sentence, TagHealth, TrustLevel, UnixTime};
use crate::mqtt::{self, OutgoingMessage};
use crate::plc;
use crate::queue;
use crate::status::{
    BrokerRefusal, CertificateSentence, CertificateStatus, ConnectionState, NamedTag, QueueStatus,
    Status, TunnelStatus, WriteSentence,
};
use crate::web::Readiness;

/// Targets of the lines about each part: the limit of the log counts them apart.
const BROKER: &str = "gateway::broker";
const BROKER_REFUSAL: &str = "gateway::broker_refusal";
const CERTIFICATE: &str = "gateway::certificate";
const CLOCK: &str = "gateway::clock";
const PLC_CONNECTION: &str = "gateway::plc_connection";
const PLC_LIMIT: &str = "gateway::plc_limit";
const PLC_REFUSAL: &str = "gateway::plc_refusal";

/// How long a client that uses the same client id is reported after it ended a session. With pauses
/// of up to a minute between connects, several take-overs are in this time.
const TAKEN_OVER_REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// The status, and the inputs from which it is updated.
#[derive(Debug)]
pub(super) struct StatusTracker {
    status: watch::Sender<Status>,
    topic: Arc<str>,
    /// Whether the broker retains the status: not with a will elsewhere, which leaves a retained
    /// status at "online" after a crash. A client has one will (MQTT 5.0, 3.1.2.5).
    retain: bool,
    metrics: Metrics,
    health_inputs: HealthInputs,
    readiness: watch::Sender<Readiness>,
    max_bytes: u64,
    /// A record that waits for longer than this is late: the longest scan and its heartbeat.
    max_wait: Duration,
    /// The tags of each PLC.
    tags: Vec<Arc<Vec<Tag>>>,
    fill_rate: FillRate,
    notices: ExpiryNotices,
    /// What the broker refuses in this session.
    refusal: Option<BrokerRefusal>,
    client_id: String,
    /// When another client last ended a session with this client id.
    taken_over_at: Option<Instant>,
    /// Whether a change should be published before the next regular status message.
    changed: bool,
    /// Length in bytes of the status message that was sent last.
    last_len: usize,
    /// A status message is sent only if it is shorter than this, in bytes.
    max_len: usize,
}

/// Sources of the state of tunnel and clock.
#[derive(Clone, Debug)]
pub(in crate::app) struct HealthInputs {
    /// State and counters of the tunnel; `None` without one.
    pub(in crate::app) tunnel: Option<watch::Receiver<TunnelReport>>,
    /// How far the clock can be trusted.
    pub(in crate::app) clock: watch::Receiver<ClockAssessment>,
    /// When the certificates of the connection to the broker end.
    pub(in crate::app) certificates: watch::Receiver<CertificateEnds>,
}

impl StatusTracker {
    pub(super) fn new(
        config: &Config,
        hash: &str,
        metrics: &Metrics,
        health_inputs: HealthInputs,
    ) -> Self {
        let plcs = config.plcs.iter().map(|plc| plc.name.as_str());
        let version = env!("CARGO_PKG_VERSION");
        let topic = status_topic(&config.gateway.id);
        let status = Status::new(&config.gateway.id, version, hash, plcs, clock::now());
        Self {
            status: watch::Sender::new(status),
            retain: config.mqtt.will.as_ref().is_none_or(|will| will.retain && will.topic == topic),
            topic: topic.into(),
            metrics: metrics.clone(),
            health_inputs,
            readiness: watch::Sender::new(Readiness::Ready),
            max_bytes: config.queue.max_size,
            max_wait: config.plcs.iter().map(max_wait).max().unwrap_or_default(),
            tags: config.plcs.iter().map(|plc| Arc::clone(&plc.tags)).collect(),
            fill_rate: FillRate::new(Instant::now()),
            notices: ExpiryNotices::default(),
            refusal: None,
            client_id: config.mqtt.client_id.clone(),
            taken_over_at: None,
            changed: false,
            last_len: 0,
            max_len: usize::MAX,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Records the duration of a cycle.
    pub(super) fn on_cycle(&self, plc: u16, took: Duration) {
        let metrics = self.metrics.plcs.get(usize::from(plc));
        let missed = metrics.map_or(0, |metrics| metrics.cycles_missed.get());
        self.update(|status| status.on_plc_cycle(plc, took, missed, clock::now()));
    }

    /// Records an entry that was pushed into the queue: its bytes on disk, `None` if it was
    /// refused, and in memory.
    pub(super) fn on_produced(&mut self, disk: Option<u64>, memory: u64) {
        self.fill_rate.add(disk, memory);
    }

    /// Records that a PLC connected or disconnected, or that its program changed state; logs the
    /// sentence when it changed.
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

    /// Records which limit makes a PLC skip cycles, `None` when none does any more.
    pub(super) fn on_throttled(&mut self, plc: u16, limit: Option<RateLimit>) {
        self.changed = true;
        self.update(|status| status.on_plc_throttled(plc, limit, clock::now()));
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        match &plc.limit {
            Some(limit) => tracing::warn!(target: PLC_LIMIT, plc = plc.name, "{limit}"),
            None => {
                tracing::info!(target: PLC_LIMIT, plc = plc.name, "Cycles are no longer skipped.");
            }
        }
    }

    /// Logs the sentence of a PLC.
    fn log_plc(&self, plc: u16) {
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        match plc.state {
            ConnectionState::Disconnected => {
                tracing::warn!(target: PLC_CONNECTION, plc = plc.name, "{}", plc.sentence);
            }
            ConnectionState::Connecting | ConnectionState::Connected => {
                tracing::info!(target: PLC_CONNECTION, plc = plc.name, "{}", plc.sentence);
            }
        }
    }

    /// Records how the answers of a PLC changed the plan.
    pub(super) fn on_learned(&mut self, plc: u16, learned: LearnedLimits) {
        self.changed = true;
        self.update(|status| status.on_plc_learned(plc, learned, clock::now()));
        let status = self.status.borrow();
        let Some(plc) = status.plcs.get(usize::from(plc)) else { return };
        let refusal = plc.refusal.as_deref().unwrap_or("The PLC accepts all tags again.");
        let (max_words, max_gap) = plc
            .learned
            .as_ref()
            .map_or((None, None), |learned| (learned.max_words, learned.max_gap));
        tracing::info!(target: PLC_REFUSAL, plc = plc.name, max_words, max_gap, "{refusal}");
    }

    /// Records how many tags of a PLC have a good value.
    pub(super) fn on_tags(&mut self, plc: u16, health: &TagHealth) {
        let tags = self.tags.get(usize::from(plc)).map_or(&[][..], |tags| &**tags);
        let name = |bad: &BadTag| {
            let Tag { name, at, .. } = tags.get(usize::from(bad.tag))?;
            let quality = bad.quality.as_str();
            let cause = bad.exception.map_or_else(
                || quality.to_owned(),
                |exception| format!("{quality}, exception {exception}"),
            );
            Some(NamedTag { tag: name.clone(), at: at.to_string(), cause })
        };
        let bad = health.bad.iter().filter_map(name).collect();
        let counts = (health.configured, health.good);
        let are_good = |status: &Status| {
            status.plcs.get(usize::from(plc)).is_some_and(|plc| plc.tags.are_good())
        };
        let were_good = are_good(&self.status.borrow());
        self.status.send_if_modified(|status| status.set_plc_tags(plc, counts, bad, clock::now()));
        // Tags that come and go do not publish the status each second.
        self.changed |= were_good != are_good(&self.status.borrow());
    }

    /// Records an event of the connection to the broker.
    pub(super) fn on_mqtt_event(&mut self, event: &mqtt::MqttEvent) {
        let now = clock::now();
        match event {
            mqtt::MqttEvent::Connected { broker, version, .. } => {
                self.refusal = None;
                self.update(|status| status.on_broker_connected(broker, *version, now));
                tracing::info!(target: BROKER, "{}", self.status.borrow().broker.sentence);
                if self.taken_over_at.is_some() {
                    let client_id = self.client_id.clone();
                    self.on_refusal(BrokerRefusal::ClientIdShared { client_id });
                }
            }
            mqtt::MqttEvent::Disconnected { reason, sentence, .. } => {
                if *reason == mqtt::DisconnectReason::TakenOver {
                    self.taken_over_at = Some(Instant::now());
                }
                let before = self.status.borrow().broker.sentence.clone();
                self.update(|status| status.on_broker_disconnected(sentence.clone(), now));
                let after = &self.status.borrow().broker.sentence;
                // Logged once per cause, not with every attempt.
                if *after != before {
                    tracing::warn!(target: BROKER, "{after}");
                }
            }
            mqtt::MqttEvent::Refused { topic, code, reason, .. } => {
                let (topic, reason) = (topic.to_string(), reason.clone());
                self.on_refusal(match *code {
                    mqtt::NOT_AUTHORIZED => BrokerRefusal::TopicRefused { topic, reason },
                    mqtt::PACKET_TOO_LARGE => BrokerRefusal::MessageTooLarge { topic },
                    _ => BrokerRefusal::MessageRefused { topic, reason },
                });
            }
            mqtt::MqttEvent::Deferred { topic, reason, .. } => {
                let (topic, reason) = (topic.to_string(), reason.clone());
                self.on_refusal(BrokerRefusal::Deferred { topic, reason });
            }
            mqtt::MqttEvent::SubscriptionRefused { filter, reason, .. } => {
                let (filter, reason) = (filter.clone(), reason.clone());
                self.on_refusal(BrokerRefusal::SubscriptionRefused { filter, reason });
            }
            mqtt::MqttEvent::Acknowledged { .. } | mqtt::MqttEvent::Received(_) => {}
        }
    }

    /// Records which bundle the configuration comes from.
    pub(super) fn set_bundle_counter(&mut self, counter: Option<u64>) {
        self.update(|status| status.set_bundle_counter(counter));
    }

    /// Records what is to be known about a bundle.
    pub(super) fn set_trial(&mut self, event: Option<&BundleEvent>) {
        let trial =
            event.map(|event| (event.state.as_str(), event.counter, event.sentence.clone()));
        let set = |status: &mut Status| status.set_trial(trial, clock::now());
        self.changed |= self.status.send_if_modified(set);
    }

    /// Records what is to be known about writes.
    pub(super) fn set_writes(&mut self, sentences: &[WriteSentence]) {
        let set = |status: &mut Status| status.set_writes(sentences, clock::now());
        self.changed |= self.status.send_if_modified(set);
    }

    /// Records what the broker refuses. The first refusal is logged; what is dropped stands before
    /// what is kept.
    fn on_refusal(&mut self, refusal: BrokerRefusal) {
        let is_kept = |refusal: &BrokerRefusal| matches!(refusal, BrokerRefusal::Deferred { .. });
        let is_first = self.refusal.is_none();
        if self.refusal.as_ref().is_some_and(|before| !is_kept(before)) && is_kept(&refusal) {
            return;
        }
        self.changed |= is_first;
        self.update(|status| status.set_broker_refusal(Some(&refusal), clock::now()));
        if is_first {
            tracing::warn!(target: BROKER_REFUSAL, "{refusal}");
        }
        self.refusal = Some(refusal);
    }

    /// Records that the broker accepted a message that it had not accepted before.
    pub(super) fn on_released(&mut self) {
        if self
            .refusal
            .take_if(|refusal| matches!(refusal, BrokerRefusal::Deferred { .. }))
            .is_some()
        {
            self.changed = true;
            self.update(|status| status.set_broker_refusal(None, clock::now()));
            tracing::info!(target: BROKER_REFUSAL, "the broker accepts all messages again");
        }
    }

    /// Ends the report on a shared client id when the other client is gone.
    fn poll_taken_over(&mut self) {
        if self.taken_over_at.take_if(|at| at.elapsed() >= TAKEN_OVER_REMEMBERED_FOR).is_none() {
            return;
        }
        let is_about_id =
            |refusal: &mut BrokerRefusal| matches!(refusal, BrokerRefusal::ClientIdShared { .. });
        if self.refusal.take_if(is_about_id).is_some() {
            self.changed = true;
            self.update(|status| status.set_broker_refusal(None, clock::now()));
        }
    }

    /// Updates status and metrics with the state of clock and tunnel. Returns that of the clock.
    pub(super) fn poll_health(&mut self) -> ClockAssessment {
        self.poll_taken_over();
        let now = clock::now();
        let assessment = *self.health_inputs.clock.borrow_and_update();
        let trust = assessment.period.trust;
        self.metrics.clock_synchronized.set((trust == TrustLevel::Synchronised).into());
        let mut is_changed = false;
        self.update(|status| {
            is_changed = status.set_clock(trust.as_str(), Sentence::new(&trust), now);
        });
        if is_changed && trust == TrustLevel::Unset {
            tracing::warn!(target: CLOCK, "{trust}");
        }
        self.changed |= is_changed;
        self.poll_tunnel(now);
        assessment
    }

    /// Updates the status with the ends of the certificates, and returns the notices that are due:
    /// none while the clock is wrong.
    pub(super) fn poll_certificates(&mut self, trust: TrustLevel) -> Vec<ExpiryNotice> {
        let now = clock::now();
        let is_known = trust != TrustLevel::Unset;
        let seconds = Some(now.as_whole_seconds()).filter(|_| is_known);
        let ends = self.health_inputs.certificates.borrow_and_update().clone();
        let all = ends.iter().map(|(file, end)| certificate_status(file, end, seconds)).collect();
        let mut is_changed = false;
        self.update(|status| is_changed = status.set_certificates(all, now));
        self.changed |= is_changed;
        let notices = &mut self.notices;
        let due = ends.iter().filter_map(|(file, end)| {
            let notice = notices.on_checked(file, *end.as_ref().ok()?, seconds?)?;
            let ExpiryNotice { file, days, .. } = &notice;
            let state = if *days < 0 {
                "this certificate has expired"
            } else {
                "this certificate expires soon"
            };
            tracing::warn!(target: CERTIFICATE, file, days, "{state}");
            Some(notice)
        });
        due.collect()
    }

    fn poll_tunnel(&mut self, now: UnixTime) {
        let Some(reports) = &mut self.health_inputs.tunnel else { return };
        let report = reports.borrow_and_update().clone();
        self.metrics.tunnel.update(&report.counters);
        self.metrics.tunnel.up.set(report.state.has_session().into());
        let tunnel = to_tunnel_status(&report, now);
        if let Some(at) = tunnel.last_handshake {
            self.metrics.tunnel.last_handshake_timestamp.set(at.as_seconds());
        }
        let mut is_changed = false;
        self.update(|status| is_changed = status.set_tunnel(tunnel, now));
        self.changed |= is_changed;
    }

    /// Updates status and metrics with the content of the queue and the state of its storage.
    pub(super) fn update_queue(&mut self, queue: &queue::Queue) {
        let (stats, health, now) = (queue.stats(), queue.health(), Instant::now());
        self.fill_rate.rotate(now);
        let seconds = self.fill_rate.seconds_until_full(queue.capacity(), now);
        self.metrics.queue.fits_seconds.set(seconds.unwrap_or(f64::INFINITY));
        let queue = QueueStatus {
            stored: stats.samples,
            entries: stats.entries,
            bytes: stats.bytes,
            max_bytes: self.max_bytes,
            dropped: self.metrics.queue.dropped(),
            hours: seconds.map(|seconds| (seconds / 360.0).round() / 10.0),
            oldest: stats.oldest,
            max_wait_seconds: self.max_wait.as_secs(),
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

    /// Returns whether something changed since the last call that is worth a status message.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Returns the message that clears a status which an earlier run may have left at the broker;
    /// `None` where the next status replaces it.
    pub(super) fn clearing_message(&self, session: u32) -> Option<OutgoingMessage> {
        let cleared = OutgoingMessage { retain: true, ..self.message(session, Vec::new()) };
        (!self.retain).then_some(cleared)
    }

    /// Returns the status as a message; `None` when it is suppressed.
    pub(super) fn status_message(&mut self, session: u32) -> Option<OutgoingMessage> {
        // A struct of numbers and text always has a JSON form; an empty payload clears the topic.
        let payload = serde_json::to_vec(&*self.status.borrow()).unwrap_or_default();
        if payload.len() >= self.max_len {
            return None;
        }
        self.last_len = payload.len();
        let ticket = Some(Ticket::Status.number());
        Some(OutgoingMessage { ticket, ..self.message(session, payload) })
    }

    /// Suppresses status messages that are not at least a quarter shorter than the last one, over
    /// which the broker closed the connection. The status can still be read on this machine.
    pub(super) const fn suppress(&mut self) {
        self.max_len = self.last_len - self.last_len / 4;
    }

    /// Returns the status message of a clean stop.
    pub(super) fn offline_message(&self, session: u32) -> OutgoingMessage {
        self.message(session, OFFLINE_PAYLOAD.as_bytes().to_vec())
    }

    fn message(&self, session: u32, payload: Vec<u8>) -> OutgoingMessage {
        let topic = Arc::clone(&self.topic);
        OutgoingMessage {
            session,
            ticket: None,
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            retain: self.retain,
            correlation_data: None,
        }
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

/// Returns the time after which a value is late: every tag is published once in a heartbeat.
fn max_wait(plc: &Plc) -> Duration {
    let scan = plc.tags.iter().map(|tag| tag.scan).max().unwrap_or_default();
    scan + plc.publish.heartbeat
}

fn certificate_status(file: &str, end: &CertificateEnd, now: Option<i64>) -> CertificateStatus {
    let (not_after, urgent, sentence) = match end {
        Ok(end) => {
            let (at, days) =
                (UnixTime::from_whole_seconds(*end), now.map(|now| days_left(*end, now)));
            let sentence = CertificateSentence::of_end(file.to_owned(), at, days);
            (Some(at), sentence.is_urgent(), Sentence::new(&sentence))
        }
        Err(fault) => (None, true, Sentence::new(fault)),
    };
    let Sentence { text, detail } = sentence;
    CertificateStatus {
        file: file.to_owned(),
        not_after,
        urgent,
        sentence: text,
        sentence_detail: Some(detail),
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
