//! One `[[plc]]`: its requests, what is known of it, and what was reported. Pure: `now` is an
//! argument, and events are appended to a list that the poll task sends.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::{Plan, ReadRequest};

use super::cycle::{CompleteCycle, CycleValues, FollowUp};
use super::device_name::DeviceName;
use super::identity_probe::{Identification, IdentityProbe};
use super::lost_registers::LostRegisters;
use super::request_tuner::RequestTuner;
use super::server::PROGRAM_POLL_PERIOD;
use super::session::{RequestError, UnitAddress};
use super::unit_backoff::UnitBackoff;
use super::{
    PlcChange, PlcDiagnosis, PlcEvent, PlcIdentity, PlcSpec, PlcState, RateLimit, ReadFailure,
    ReadResult,
};
use crate::metrics::{PlcMetrics, RequestOutcome};

/// A rate limit that has not cost a cycle for this long is no longer reported.
const THROTTLE_FORGET_AFTER: Duration = Duration::from_secs(60);

/// State of one unit behind a connection.
pub(super) struct UnitState {
    plc: u16,
    pub(super) config: config::Plc,
    pub(super) plan: Plan,
    pub(super) metrics: PlcMetrics,
    pub(super) tuner: RequestTuner,
    pub(super) backoff: UnitBackoff,
    pub(super) identity_probe: IdentityProbe,
    pub(super) device_name: DeviceName,
    /// Those over whose last write the session ended.
    pub(super) lost_writes: LostRegisters,
    /// Those over whose last read for an order the session ended.
    pub(super) lost_reads: LostRegisters,
    /// Whether its last request was answered, and its server has not failed since.
    pub(super) is_answering: bool,
    /// State of the current session; replaced with the connection.
    pub(super) session: PerSession,
    /// Whether the server may have been restarted since the unit was identified, possibly with
    /// another program or another device.
    is_identity_outdated: bool,
    /// Time of the last request for the state of its program.
    pub(super) program_read_at: Option<Instant>,
    /// For each class the index of the request with which its next cycle starts.
    next_start: Vec<usize>,
    /// For each class a hash of each answer of its last cycle.
    last_hashes: Vec<Vec<Option<u64>>>,
    last_reported: Option<PlcState>,
    /// The rate limit that cost a cycle last, and when.
    throttled: Option<(RateLimit, Instant)>,
}

/// What happened to one unit in the current session with its server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerSession {
    /// The requests for its identity were sent, or there is none to send.
    pub(super) is_identified: bool,
    /// It answered a request.
    pub(super) has_answered: bool,
    /// Its device name was requested.
    pub(super) is_name_requested: bool,
}

impl UnitState {
    pub(super) fn new(spec: PlcSpec) -> Self {
        let PlcSpec { plc, config, plan, metrics } = spec;
        Self {
            plc,
            tuner: RequestTuner::new(&config, &plan),
            backoff: UnitBackoff::new(),
            identity_probe: IdentityProbe::new(config.model),
            device_name: DeviceName::new(config.model),
            lost_writes: LostRegisters::default(),
            lost_reads: LostRegisters::default(),
            is_answering: false,
            session: PerSession::default(),
            is_identity_outdated: false,
            program_read_at: None,
            next_start: vec![0; plan.classes.len()],
            last_hashes: vec![Vec::new(); plan.classes.len()],
            last_reported: None,
            throttled: None,
            config,
            plan,
            metrics,
        }
    }

    /// Returns its index in `config::Config::plcs`.
    pub(super) const fn plc(&self) -> u16 {
        self.plc
    }

    pub(super) const fn address(&self) -> UnitAddress {
        UnitAddress { unit: self.config.unit_id, timeout: self.config.timeout }
    }

    /// Returns the shortest time between two reads.
    pub(super) fn min_scan_period(&self) -> Duration {
        self.plan.classes.iter().map(|class| class.period).min().unwrap_or_default()
    }

    /// Returns whether it was not tried since the start, or since the server failed: it may answer.
    pub(super) const fn is_untried(&self) -> bool {
        !self.is_answering && !self.backoff.is_silent() && !self.plan.classes.is_empty()
    }

    pub(super) const fn is_reported_connected(&self) -> bool {
        matches!(self.last_reported, Some(PlcState::Connected { .. }))
    }

    /// Returns why it does not answer, as far as that was reported.
    pub(super) const fn reported_diagnosis(&self) -> Option<&PlcDiagnosis> {
        match &self.last_reported {
            Some(PlcState::Disconnected { diagnosis, .. }) => Some(diagnosis),
            Some(PlcState::Connected { .. }) | None => None,
        }
    }

    /// Returns whether its device name is missing, and it answers.
    pub(super) const fn needs_device_name(&self) -> bool {
        self.device_name.is_needed() && !self.backoff.is_silent()
    }

    /// Records that a connection was opened; `may_have_restarted` tells whether the server failed
    /// or closed the previous one.
    pub(super) fn on_connected(&mut self, may_have_restarted: bool) {
        self.session = PerSession::default();
        self.is_identity_outdated |= may_have_restarted;
    }

    /// Prepares for the first requests of a session: forgets an identity that may be wrong by now.
    pub(super) fn start_session(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_identity_outdated) {
            self.tuner.retry_quarantined(now);
            self.identity_probe.on_new_session();
            self.device_name.on_new_session();
        }
    }

    /// Returns the requests for its identity.
    pub(super) fn identification(&self, now: Instant) -> Identification {
        let has_answered = self.session.has_answered;
        let requests = self.identity_probe.identity_requests(has_answered, now);
        Identification { requests, has_answered }
    }

    /// Returns the request that tests whether the unit answers again.
    pub(super) fn probe_request(&mut self, now: Instant) -> Option<ReadRequest> {
        let list = self.tuner.next_requests(0, now)?;
        let planned = &self.plan.classes.first()?.requests;
        let regular = list.requests.get(..list.regular)?;
        let requests = if regular.is_empty() { planned } else { regular };
        let start = if list.starts_with_scout { 0 } else { *self.next_start.first()? };
        requests.get(start % requests.len().max(1)).cloned()
    }

    /// Returns the index of the request with which the next cycle of a class starts.
    pub(super) fn next_start(&self, class: u16) -> usize {
        self.next_start.get(usize::from(class)).copied().unwrap_or_default()
    }

    /// Lets the next cycle of a class start after this request.
    pub(super) fn start_after(&mut self, class: u16, index: usize) {
        if let Some(start) = self.next_start.get_mut(usize::from(class)) {
            *start = index.wrapping_add(1);
        }
    }

    /// Completes a cycle, and returns what to request before it is passed on.
    pub(super) fn on_cycle(
        &mut self,
        mut values: CycleValues,
        is_reachable: bool,
        now: Instant,
    ) -> (CompleteCycle, FollowUp) {
        // Tags of a request that is still being split have no value of their own yet.
        let failure = if is_reachable { ReadFailure::Pending } else { ReadFailure::Unreachable };
        let unresolved = self.tuner.unresolved_requests(values.class());
        let unresolved: Vec<_> =
            unresolved.map(|request| (request, values.failure(failure, now))).collect();
        values.add_parts(unresolved);
        let cycle = values.complete(&self.tuner);
        let probe = &self.identity_probe;
        let (has_status, is_stopped) = (probe.has_status(), probe.is_program_stopped());
        let needs_identity = is_reachable && self.session.has_answered && probe.needs_identity();
        let is_unchanged =
            (has_status || needs_identity) && self.has_unchanged_read(cycle.class, &cycle.results);
        let class = self.plan.classes.get(usize::from(cycle.class));
        let is_slow = class.is_some_and(|class| class.period >= PROGRAM_POLL_PERIOD);
        let follow_up = if needs_identity {
            FollowUp::Identify
        } else if is_unchanged || is_slow || is_stopped {
            FollowUp::ReadProgramState
        } else {
            FollowUp::Nothing
        };
        (cycle, follow_up)
    }

    /// Returns whether at least one request of a cycle returned exactly the values of the cycle
    /// before.
    fn has_unchanged_read(&mut self, class: u16, results: &[ReadResult]) -> bool {
        let hash = |result: &ReadResult| {
            let mut hasher = DefaultHasher::new();
            result.outcome.as_ref().ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        let hashes: Vec<_> = results.iter().map(hash).collect();
        let Some(last) = self.last_hashes.get_mut(usize::from(class)) else { return false };
        let is_same = |(was, is): (&Option<u64>, &Option<u64>)| is.is_some() && was == is;
        let has_same = last.iter().zip(&hashes).any(is_same);
        *last = hashes;
        has_same
    }

    /// Counts a request in the metrics, and traces it.
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

    /// Reports that the unit answers, if that or something about it is new.
    pub(super) fn report_connected(&mut self, events: &mut Vec<PlcEvent>) {
        let identity = self.identity().cloned();
        let state = PlcState::Connected { identity, program: self.identity_probe.program() };
        self.report_state(state, events);
    }

    fn identity(&self) -> Option<&PlcIdentity> {
        self.identity_probe.identity().or_else(|| self.device_name.identity())
    }

    /// Reports that the unit does not answer, and the time within which it is retried where that
    /// depends on other units.
    pub(super) fn report_disconnected(
        &mut self,
        diagnosis: PlcDiagnosis,
        retry_within: Option<Duration>,
        events: &mut Vec<PlcEvent>,
    ) {
        self.metrics.up.set(0);
        self.report_state(PlcState::Disconnected { diagnosis, retry_within }, events);
    }

    fn report_state(&mut self, state: PlcState, events: &mut Vec<PlcEvent>) {
        if self.last_reported.as_ref() != Some(&state) {
            self.last_reported = Some(state.clone());
            events.push(PlcEvent::State { plc: self.plc, state });
        }
    }

    /// Reports changes of the program or the device.
    pub(super) fn report_changes(
        &mut self,
        changes: Vec<PlcChange>,
        now: Instant,
        events: &mut Vec<PlcEvent>,
    ) {
        if changes.iter().any(|change| !matches!(change, PlcChange::State { .. })) {
            // Another program may have the registers that the last one lacked.
            self.tuner.retry_quarantined(now);
        }
        let plc = self.plc;
        events.extend(changes.into_iter().map(|change| PlcEvent::Changed { plc, change }));
    }

    /// Reports what was learned about its requests, if that is new.
    pub(super) fn report_learned(&mut self, events: &mut Vec<PlcEvent>) {
        let Some(learned) = self.tuner.take_changes(&self.config) else { return };
        self.metrics.tags_quarantined.set(learned.quarantined.len().try_into().unwrap_or(i64::MAX));
        events.push(PlcEvent::Learned { plc: self.plc, learned });
    }

    /// Counts cycles that were skipped; `limit` is the rate limit that may be the reason.
    pub(super) fn on_missed_cycles(
        &mut self,
        missed: u32,
        limit: Option<RateLimit>,
        now: Instant,
        events: &mut Vec<PlcEvent>,
    ) {
        self.metrics.cycles_missed.inc_by(missed.into());
        let before = self.throttled.map(|(limit, _)| limit);
        match limit.filter(|_| missed > 0) {
            Some(limit) => self.throttled = Some((limit, now)),
            None => {
                self.throttled = self.throttled.filter(|(_, at)| *at + THROTTLE_FORGET_AFTER > now);
            }
        }
        let limit = self.throttled.map(|(limit, _)| limit);
        if limit != before {
            events.push(PlcEvent::Throttled { plc: self.plc, limit });
        }
    }
}
