//! One `[[plc]]`: what is read from it, what is known of it, and what was told.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::{Plan, ReadRequest};
use tokio::sync::mpsc;

use super::identity_probe::IdentityProbe;
use super::request_tuner::RequestTuner;
use super::session::{RequestError, UnitAddress};
use super::unit_backoff::UnitBackoff;
use super::{PlcChange, PlcDiagnosis, PlcEvent, PlcSpec, PlcState, RateLimit, ReadResult};
use crate::metrics::{PlcMetrics, RequestOutcome};

/// A ceiling that has not cost a cycle for this long is forgotten.
const THROTTLE_FORGET_AFTER: Duration = Duration::from_secs(60);

/// One unit behind a connection.
pub(super) struct UnitState {
    plc: u16,
    pub(super) config: config::Plc,
    pub(super) plan: Plan,
    pub(super) tuner: RequestTuner,
    /// For each class the request with which its next cycle begins.
    pub(super) next_start: Vec<usize>,
    pub(super) metrics: PlcMetrics,
    pub(super) backoff: UnitBackoff,
    pub(super) identity_probe: IdentityProbe,
    last_reported: Option<PlcState>,
    /// Whether it answered when it was asked last, and its server was not away since.
    pub(super) is_answering: bool,
    /// Session in which it was greeted last; 0 for none, like the next ones.
    pub(super) identified_in: u64,
    /// Session in which it answered last.
    pub(super) answered_in: u64,
    /// Session in which it was asked for its name last.
    pub(super) name_asked_in: u64,
    /// How often it broke the session over that question.
    pub(super) name_breaks: u32,
    /// How often the server had been away when this was greeted last.
    pub(super) outages: u64,
    /// When its program was asked for last.
    pub(super) program_read_at: Option<Instant>,
    /// For each class a hash of each answer of its last cycle.
    last_hashes: Vec<Vec<Option<u64>>>,
    throttled: Option<(RateLimit, Instant)>,
}

impl UnitState {
    pub(super) fn new(target: PlcSpec) -> Self {
        let PlcSpec { plc, config, plan, metrics } = target;
        Self {
            plc,
            tuner: RequestTuner::new(&config, &plan),
            next_start: vec![0; plan.classes.len()],
            backoff: UnitBackoff::new(),
            identity_probe: IdentityProbe::new(config.model),
            last_reported: None,
            is_answering: false,
            identified_in: 0,
            answered_in: 0,
            name_asked_in: 0,
            name_breaks: 0,
            outages: 0,
            program_read_at: None,
            last_hashes: vec![Vec::new(); plan.classes.len()],
            throttled: None,
            config,
            plan,
            metrics,
        }
    }

    /// Index into `config::Config::plcs`.
    pub(super) const fn plc(&self) -> u16 {
        self.plc
    }

    pub(super) const fn address(&self) -> UnitAddress {
        UnitAddress { unit: self.config.unit_id, timeout: self.config.timeout }
    }

    /// Shortest time between two reads.
    pub(super) fn min_scan_period(&self) -> Duration {
        self.plan.classes.iter().map(|class| class.period).min().unwrap_or_default()
    }

    /// Whether nothing is known of it since the start, or since the server was away: it may answer.
    pub(super) const fn is_untried(&self) -> bool {
        !self.is_answering && !self.backoff.is_silent() && !self.plan.classes.is_empty()
    }

    /// Whether it is to be asked for its name, if its server may be.
    pub(super) const fn needs_device_name(&self) -> bool {
        self.identity_probe.needs_device_name() && !self.backoff.is_silent()
    }

    /// Whether it is told to answer.
    pub(super) const fn is_reported_connected(&self) -> bool {
        matches!(self.last_reported, Some(PlcState::Connected { .. }))
    }

    /// The request with which it is tried.
    pub(super) fn probe_request(&mut self, now: Instant) -> Option<ReadRequest> {
        let agenda = self.tuner.next_requests(0, now)?;
        let planned = &self.plan.classes.first()?.requests;
        let requests = if agenda.requests.is_empty() { planned } else { &*agenda.requests };
        requests.get(self.next_start.first()? % requests.len().max(1)).cloned()
    }

    /// Begins with another request the next time.
    pub(super) fn start_after(&mut self, class: u16, index: usize) {
        if let Some(begin) = self.next_start.get_mut(usize::from(class)) {
            *begin = index.wrapping_add(1);
        }
    }

    /// Whether a request of this cycle brought exactly what it brought in the one before.
    pub(super) fn has_unchanged_read(&mut self, class: u16, reads: &[ReadResult]) -> bool {
        let hash = |read: &ReadResult| {
            let mut hasher = DefaultHasher::new();
            read.outcome.as_ref().ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        let now: Vec<_> = reads.iter().map(hash).collect();
        let Some(brought) = self.last_hashes.get_mut(usize::from(class)) else { return false };
        let is_same = |(was, is): (&Option<u64>, &Option<u64>)| is.is_some() && was == is;
        let has_same = brought.iter().zip(&now).any(is_same);
        *brought = now;
        has_same
    }

    pub(super) fn count_request<T>(
        &self,
        request: &ReadRequest,
        answer: &Result<T, RequestError>,
        took: Duration,
    ) {
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        self.metrics.count_request(outcome);
        let ReadRequest { table, first, count, .. } = request;
        let (plc, outcome) = (self.config.name.as_str(), outcome.label());
        tracing::trace!(plc, ?table, first, count, ?took, outcome, "read");
    }

    /// It answers; told only if that is news, or something about it is.
    pub(super) async fn report_connected(&mut self, events: &mpsc::Sender<PlcEvent>) {
        let identity = self.identity_probe.identity().cloned();
        let state = PlcState::Connected { identity, program: self.identity_probe.program() };
        self.report_state(state, events).await;
    }

    /// It does not answer, why, and within what time it is tried again where that depends on others.
    pub(super) async fn report_disconnected(
        &mut self,
        diagnosis: PlcDiagnosis,
        tried_within: Option<Duration>,
        events: &mpsc::Sender<PlcEvent>,
    ) {
        self.metrics.up.set(0);
        self.report_state(PlcState::Disconnected { diagnosis, retry_within: tried_within }, events)
            .await;
    }

    async fn report_state(&mut self, state: PlcState, events: &mpsc::Sender<PlcEvent>) {
        if self.last_reported.as_ref() == Some(&state) {
            return;
        }
        self.last_reported = Some(state.clone());
        // Without a receiver the poller ends by itself.
        let _ = events.send(PlcEvent::State { plc: self.plc, state }).await;
    }

    pub(super) async fn report_changes(
        &mut self,
        changes: Vec<PlcChange>,
        events: &mpsc::Sender<PlcEvent>,
    ) {
        for change in changes {
            let _ = events.send(PlcEvent::Changed { plc: self.plc, change }).await;
        }
    }

    pub(super) async fn report_learned(&mut self, events: &mpsc::Sender<PlcEvent>) {
        let Some(learned) = self.tuner.take_changes(&self.config) else { return };
        self.metrics.tags_quarantined.set(learned.quarantined.len().try_into().unwrap_or(i64::MAX));
        let _ = events.send(PlcEvent::Learned { plc: self.plc, learned }).await;
    }

    /// So many cycles went by unread, and whether a ceiling was the reason.
    pub(super) async fn on_missed_cycles(
        &mut self,
        missed: u32,
        ceiling: Option<RateLimit>,
        now: Instant,
        events: &mpsc::Sender<PlcEvent>,
    ) {
        self.metrics.cycles_missed.inc_by(missed.into());
        let before = self.throttled.map(|(ceiling, _)| ceiling);
        match ceiling.filter(|_| missed > 0) {
            Some(ceiling) => self.throttled = Some((ceiling, now)),
            None => {
                self.throttled = self.throttled.filter(|(_, at)| *at + THROTTLE_FORGET_AFTER > now)
            }
        }
        let ceiling = self.throttled.map(|(ceiling, _)| ceiling);
        if ceiling != before {
            let _ = events.send(PlcEvent::Throttled { plc: self.plc, limit: ceiling }).await;
        }
    }
}
