//! One Modbus server and the units behind it: judges what was read, and decides what to request
//! next.
//!
//! No I/O: `now` and randomness are arguments, and events are collected for the poll task to send.

mod cycle_reads;
mod orders;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::connection::{Blame, Exchange};
use super::cycle::ExchangeVerdict;
use super::device_name::NAME_RETRY;
use super::identity_probe::Identification;
use super::session::{ConnectError, RequestError, UnitAddress, is_busy};
use super::silent_units::{self, RetryAllowance, SilentUnitRoundRobin};
use super::unit::UnitState;
use super::unit_backoff::FailureCost;
use super::{PlcChange, PlcDiagnosis, PlcEvent, PlcIdentity, PlcSpec, RateLimit, ReadFailure};
use crate::metrics::RequestOutcome;
use crate::schedule::RetryBackoff;

/// Interval at which the program state of a Modicon is read while its values change. From this scan
/// period on it is read in every cycle.
pub(super) const PROGRAM_POLL_PERIOD: Duration = Duration::from_secs(10);

/// State of one Modbus server.
pub(super) struct ServerState {
    units: Vec<UnitState>,
    silent_units: SilentUnitRoundRobin,
    /// Delays requests for device names after the server broke the connection over one.
    name_backoff: RetryBackoff,
    is_session_open: bool,
    events: Vec<PlcEvent>,
}

/// What is known about the reason when a session ends over a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LossCause {
    /// The server, the unit or the network.
    Unknown,
    /// The request: the unit answers others.
    Request,
}

/// What to send to learn the state of a program.
pub(super) enum ProgramPoll {
    NotDue,
    /// The state is read together with the identity.
    Identify,
    Read(ReadRequest),
}

impl ServerState {
    pub(super) fn new(plcs: Vec<PlcSpec>) -> Self {
        Self {
            units: plcs.into_iter().map(UnitState::new).collect(),
            silent_units: SilentUnitRoundRobin::new(),
            name_backoff: RetryBackoff::new(&NAME_RETRY),
            is_session_open: false,
            events: Vec::new(),
        }
    }

    pub(super) fn units(&self) -> &[UnitState] {
        &self.units
    }

    pub(super) fn unit(&self, index: usize) -> Option<&UnitState> {
        self.units.get(index)
    }

    pub(super) fn unit_mut(&mut self, index: usize) -> Option<&mut UnitState> {
        self.units.get_mut(index)
    }

    /// Returns whether the unit failed and is only probed now and then.
    pub(super) fn is_silent(&self, index: usize) -> bool {
        self.unit(index).is_some_and(|unit| unit.backoff.is_silent())
    }

    /// Returns whether a request to the unit makes sense now.
    pub(super) fn is_reachable(&self, index: usize) -> bool {
        self.is_session_open && !self.is_silent(index)
    }

    /// Returns the events since the last call, oldest first.
    pub(super) fn take_events(&mut self) -> Vec<PlcEvent> {
        std::mem::take(&mut self.events)
    }

    /// Records a new connection; `may_have_restarted` tells whether the server failed or closed the
    /// previous one.
    pub(super) fn on_connected(&mut self, may_have_restarted: bool) {
        self.is_session_open = true;
        for unit in &mut self.units {
            unit.metrics.connects.inc();
            unit.on_connected(may_have_restarted);
        }
    }

    /// Records a failed connect: no unit answers.
    pub(super) fn on_connect_failed(&mut self, error: &ConnectError) {
        let was_tried = !matches!(error, ConnectError::OutOfDescriptors);
        for unit in &mut self.units {
            unit.metrics.connects.inc_by(u64::from(was_tried));
            unit.is_answering = false;
            let diagnosis = PlcDiagnosis::not_connected(&unit.config, error);
            unit.report_disconnected(diagnosis, None, &mut self.events);
        }
        if let Some(unit) = self.units.first() {
            let address = &unit.config.address;
            tracing::debug!(%address, error = error as &dyn std::error::Error, "connect failed");
        }
    }

    /// Records that the server closed an idle connection: that is no failure of a unit.
    pub(super) const fn on_session_closed(&mut self) {
        self.is_session_open = false;
    }

    /// Counts a request over which the server closed an idle connection.
    pub(super) fn count_request<T>(
        &self,
        index: usize,
        request: &ReadRequest,
        exchange: &Exchange<T>,
    ) {
        if let (Some(unit), Some(answer)) = (self.unit(index), &exchange.answer) {
            unit.count_request(request, answer, exchange.took);
        }
    }

    /// Reports a unit that cannot be read since other units used up the connects of this minute.
    pub(super) fn report_too_many_connects(&mut self, index: usize) {
        let is_open = self.is_session_open;
        let Some(unit) = self.units.get_mut(index) else { return };
        if !is_open && unit.is_reported_connected() {
            let diagnosis = PlcDiagnosis::too_many_connects(&unit.config);
            unit.report_disconnected(diagnosis, None, &mut self.events);
        }
    }

    /// Counts cycles that were skipped; `limit` is the rate limit that may be the reason.
    pub(super) fn on_missed_cycles(
        &mut self,
        index: usize,
        missed: u32,
        limit: Option<RateLimit>,
        now: Instant,
    ) {
        let Some(unit) = self.units.get_mut(index) else { return };
        unit.on_missed_cycles(missed, limit, now, &mut self.events);
    }

    /// Starts to identify a unit that was not identified in this session. Returns `None` when it
    /// was, or when there is no session.
    pub(super) fn start_session(&mut self, index: usize, now: Instant) -> Option<Identification> {
        let is_open = self.is_session_open;
        let unit =
            self.units.get_mut(index).filter(|unit| is_open && !unit.session.is_identified)?;
        unit.start_session(now);
        Some(unit.identification(now))
    }

    /// Starts to identify a unit whose identity was put off until the session had answered. Returns
    /// `None` when it is known, or cannot be requested.
    pub(super) fn start_late_identification(
        &self,
        index: usize,
        now: Instant,
    ) -> Option<Identification> {
        let unit = self.unit(index).filter(|_| self.is_reachable(index))?;
        let is_due = unit.session.has_answered && unit.identity_probe.needs_identity();
        is_due.then(|| unit.identification(now))
    }

    /// Judges the answer to a request for the identity. Returns whether to send the next request,
    /// and the blame for a lost connection.
    pub(super) fn on_identity(
        &mut self,
        index: usize,
        identification: &Identification,
        request: &ReadRequest,
        exchange: Exchange,
        (now, random): (Instant, f64),
    ) -> (bool, Option<Blame>) {
        let Some(unit) = self.units.get_mut(index) else { return (false, None) };
        let is_refused = matches!(exchange.answer, Some(Err(RequestError::Refused(_))));
        let has_answered = identification.has_answered;
        let changes = exchange
            .answer
            .as_ref()
            .map(|answer| unit.identity_probe.on_identity_answer(answer, has_answered, now));
        let at = (now, random);
        let (_, verdict) = self.on_exchange(index, request, exchange, LossCause::Unknown, at);
        self.report_changes(index, changes.unwrap_or_default(), now);
        (is_refused && !self.is_silent(index), verdict.blame())
    }

    /// Records that all requests for the identity were sent.
    pub(super) fn on_identified(&mut self, index: usize, now: Instant) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.program_read_at = Some(now);
            unit.session.is_identified = true;
        }
        self.report_connected(index);
    }

    /// Returns what to send to learn the state of the program, unless that was done within
    /// `min_interval`.
    pub(super) fn next_program_poll(
        &mut self,
        index: usize,
        min_interval: Duration,
        now: Instant,
    ) -> ProgramPoll {
        let is_reachable = self.is_reachable(index);
        let Some(unit) = self.units.get_mut(index) else { return ProgramPoll::NotDue };
        let is_fresh = unit.program_read_at.is_some_and(|at| now < at + min_interval);
        if is_fresh || !is_reachable || !unit.session.is_identified {
            return ProgramPoll::NotDue;
        }
        let Some(request) = unit.identity_probe.status_request(now) else {
            return ProgramPoll::Identify;
        };
        unit.program_read_at = Some(now);
        ProgramPoll::Read(request)
    }

    /// Takes the answer to a request for the program state; returns what changed. `was_idle` tells
    /// whether nothing had been sent on the connection for a while.
    pub(super) fn on_program_state(
        &mut self,
        index: usize,
        exchange: &Exchange,
        was_idle: bool,
        now: Instant,
    ) -> Vec<PlcChange> {
        let (Some(unit), Some(answer)) = (self.units.get_mut(index), &exchange.answer) else {
            return Vec::new();
        };
        unit.identity_probe.on_status_answer(answer, was_idle, now)
    }

    /// Returns the silent unit to probe in the turn of unit `index`, if that is silent itself.
    /// `has_spare_connect` tells whether the server may be connected to once more in this minute.
    pub(super) fn next_probe(
        &mut self,
        index: usize,
        has_spare_connect: bool,
        now: Instant,
    ) -> Option<usize> {
        if !self.is_silent(index) {
            return None;
        }
        let allowance = if !self.units.iter().any(|unit| unit.is_answering) {
            RetryAllowance::Unlimited
        } else if has_spare_connect {
            RetryAllowance::WithinBudget
        } else {
            RetryAllowance::OverdueOnly
        };
        // An untried unit may be the one that answers.
        let untried = self.units.iter().position(UnitState::is_untried);
        untried.filter(|_| allowance == RetryAllowance::Unlimited).or_else(|| {
            let backoffs = self.units.iter().map(|unit| &unit.backoff);
            self.silent_units.next_unit(backoffs, allowance, now)
        })
    }

    /// Judges the probe of a silent unit.
    pub(super) fn on_probe(
        &mut self,
        index: usize,
        request: &ReadRequest,
        exchange: Exchange,
        (now, random): (Instant, f64),
    ) -> Option<Blame> {
        let took = exchange.took;
        let at = (now, random);
        let (_, verdict) = self.on_exchange(index, request, exchange, LossCause::Unknown, at);
        if self.is_silent(index) {
            if self.are_others_answering(index) {
                self.silent_units.on_failed_probe(took, now);
            }
            if let Some(unit) = self.units.get_mut(index) {
                // The next probe sends another request: this one may be what the unit fails over.
                unit.tuner.on_first_request_lost();
                unit.start_after(0, unit.next_start(0));
            }
        }
        verdict.blame()
    }

    /// Returns whether to request the device name of a unit now.
    ///
    /// Of the units that still need a name, those whose request broke fewer sessions come first:
    /// one that always breaks the connection must not keep the others from being named.
    pub(super) fn wants_device_name(
        &self,
        index: usize,
        has_spare_connect: bool,
        now: Instant,
    ) -> bool {
        let Some(unit) = self.unit(index) else { return false };
        let is_due = self.is_session_open
            && unit.session.has_answered
            && !unit.session.is_name_requested
            && unit.needs_device_name()
            && self.name_backoff.is_due(now)
            && has_spare_connect;
        is_due
            && !self.others(index).any(|other| {
                other.is_answering
                    && !other.session.is_name_requested
                    && other.device_name.breaks < unit.device_name.breaks
                    && other.needs_device_name()
            })
    }

    /// Starts to request the device name: at most once a session.
    pub(super) fn start_device_name(&mut self, index: usize) -> Option<UnitAddress> {
        let is_open = self.is_session_open;
        let unit = self.units.get_mut(index).filter(|_| is_open)?;
        unit.session.is_name_requested = true;
        Some(unit.address())
    }

    /// Judges the answer to the request for a device name.
    pub(super) fn on_device_name(
        &mut self,
        index: usize,
        exchange: Exchange<PlcIdentity>,
        now: Instant,
    ) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let Some(answer) = exchange.answer else { return };
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        unit.metrics.count_request(outcome);
        match &answer {
            Ok(_) | Err(RequestError::Refused(_)) => {}
            Err(error) => {
                let plc = unit.config.name.as_str();
                let error = error as &dyn std::error::Error;
                tracing::debug!(plc, error, "the request for the device name broke the connection");
                self.is_session_open = false;
            }
        }
        unit.device_name.on_answer(answer, &mut self.name_backoff, now);
        self.report_connected(index);
    }

    /// Judges one exchange with a unit: its outcome for values, and what it means for the
    /// connection.
    fn on_exchange<T>(
        &mut self,
        index: usize,
        request: &ReadRequest,
        exchange: Exchange<T>,
        cause: LossCause,
        (now, random): (Instant, f64),
    ) -> (Result<T, ReadFailure>, ExchangeVerdict) {
        let Exchange { received_at, took, answer, is_first_after_outage, .. } = exchange;
        if is_first_after_outage {
            // The server itself had failed, which explains why its other units were silent.
            for other in self.others_mut(index) {
                other.backoff.retry_now(now);
            }
        }
        let (Some(unit), Some(answer)) = (self.units.get_mut(index), answer) else {
            return (Err(ReadFailure::Unreachable), ExchangeVerdict::NotSent);
        };
        unit.count_request(request, &answer, took);
        let outcome = match answer {
            Ok(content) => Ok(content),
            Err(RequestError::Refused(code)) if is_gateway_exception(code) => {
                self.on_gateway_exception(index, code, (now, random));
                return (Err(ReadFailure::Unreachable), ExchangeVerdict::GatewayException);
            }
            Err(RequestError::Refused(code)) if is_busy(code) => Err(ReadFailure::Busy),
            Err(RequestError::Refused(code)) => Err(ReadFailure::Refused(code)),
            Err(error) => {
                let blame = match cause {
                    LossCause::Unknown => self.on_connection_lost(index, &error, (now, random)),
                    LossCause::Request => self.on_request_lost(index, request, &error, took),
                };
                return (Err(ReadFailure::Unreachable), ExchangeVerdict::Lost { blame });
            }
        };
        unit.metrics.request_seconds.observe(took.as_secs_f64());
        unit.metrics.last_answer_timestamp.set(received_at.as_seconds());
        unit.metrics.up.set(1);
        unit.backoff.on_answer();
        unit.is_answering = true;
        unit.session.has_answered = true;
        if !unit.is_reported_connected() {
            self.report_connected(index);
        }
        (outcome, ExchangeVerdict::Answered)
    }

    /// Records that a device between the gateway and the unit answered in place of the unit.
    fn on_gateway_exception(&mut self, index: usize, code: u8, (now, random): (Instant, f64)) {
        let round = self.worst_round(index);
        let Some(unit) = self.units.get_mut(index) else { return };
        unit.is_answering = false;
        unit.backoff.on_failure(FailureCost::WaitOnly, unit.min_scan_period(), now, random);
        let diagnosis = PlcDiagnosis::gateway_exception(&unit.config, code);
        unit.report_disconnected(diagnosis, Some(round), &mut self.events);
    }

    /// Records that the connection was dropped over a request to this unit, which is reported as
    /// disconnected, and backs off if it is not the only one. Returns whom to blame: the unit while
    /// others answer or are untried (they reconnect at once), else the server (it gets a pause).
    fn on_connection_lost(
        &mut self,
        index: usize,
        error: &RequestError,
        (now, random): (Instant, f64),
    ) -> Blame {
        self.is_session_open = false;
        let (is_alone, are_others_answering) =
            (self.units.len() == 1, self.are_others_answering(index));
        let may_others_answer =
            are_others_answering || self.others(index).any(UnitState::is_untried);
        if are_others_answering {
            self.silent_units.on_connection_lost(now);
        }
        let retry_within = (!is_alone).then(|| self.worst_round(index));
        if let Some(unit) = self.units.get_mut(index) {
            let plc = unit.config.name.as_str();
            tracing::debug!(plc, error = error as &dyn std::error::Error, "connection lost");
            unit.is_answering = false;
            if !is_alone {
                let min_pause = unit.min_scan_period();
                unit.backoff.on_failure(FailureCost::Connection, min_pause, now, random);
            }
            let has_answered = unit.session.has_answered;
            let diagnosis = PlcDiagnosis::connection_lost(&unit.config, error, has_answered);
            unit.report_disconnected(diagnosis, retry_within, &mut self.events);
        }
        if may_others_answer { Blame::Unit } else { Blame::Server }
    }

    /// Records that the session ended over a request that is to blame: neither the unit nor the
    /// server has failed.
    fn on_request_lost(
        &mut self,
        index: usize,
        request: &ReadRequest,
        error: &RequestError,
        took: Duration,
    ) -> Blame {
        self.is_session_open = false;
        if let Some(unit) = self.unit(index) {
            let (plc, error) = (unit.config.name.as_str(), error as &dyn std::error::Error);
            let ReadRequest { table, first, count, .. } = request;
            tracing::debug!(plc, ?table, first, count, error, "the session ended over a request");
        }
        Blame::Request { took }
    }

    /// Reports a unit that has answered, and was identified, in this session.
    pub(super) fn report_connected(&mut self, index: usize) {
        let is_reachable = self.is_reachable(index);
        let Some(unit) = self.units.get_mut(index) else { return };
        if is_reachable && unit.session.has_answered && unit.session.is_identified {
            unit.report_connected(&mut self.events);
        }
    }

    /// Reports changes of the program or the device.
    pub(super) fn report_changes(&mut self, index: usize, changes: Vec<PlcChange>, now: Instant) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.report_changes(changes, now, &mut self.events);
        }
    }

    /// Judges the exchange of a request for the program state, and reports what changed.
    pub(super) fn on_program_exchange(
        &mut self,
        index: usize,
        request: &ReadRequest,
        exchange: Exchange,
        changes: Vec<PlcChange>,
        (now, random): (Instant, f64),
    ) -> Option<Blame> {
        let at = (now, random);
        let (_, verdict) = self.on_exchange(index, request, exchange, LossCause::Unknown, at);
        self.report_connected(index);
        self.report_changes(index, changes, now);
        verdict.blame()
    }

    fn are_others_answering(&self, index: usize) -> bool {
        self.others(index).any(|unit| unit.is_answering)
    }

    /// Returns the time within which every silent unit is probed, this one included.
    fn worst_round(&self, index: usize) -> Duration {
        let own = self.unit(index).map_or(Duration::ZERO, |unit| unit.config.timeout);
        let silent = self.others(index).filter(|unit| unit.backoff.is_silent());
        let (count, timeout) = silent
            .fold((1, own), |(count, timeout), unit| (count + 1, timeout.max(unit.config.timeout)));
        silent_units::worst_round(count, timeout)
    }

    fn others(&self, index: usize) -> impl Iterator<Item = &UnitState> {
        self.units.iter().enumerate().filter(move |(at, _)| *at != index).map(|(_, unit)| unit)
    }

    fn others_mut(&mut self, index: usize) -> impl Iterator<Item = &mut UnitState> {
        let units = self.units.iter_mut().enumerate();
        units.filter(move |(at, _)| *at != index).map(|(_, unit)| unit)
    }
}

/// Returns whether an exception comes from a device between the gateway and the unit: 0A, it knows
/// no path, or 0B, the unit does not answer it (Modbus Application Protocol V1.1b3, 7).
pub(super) const fn is_gateway_exception(code: u8) -> bool {
    matches!(code, 0x0A | 0x0B)
}
