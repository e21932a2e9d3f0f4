//! One unit at the connection that it shares with others: who is asked, what an answer means, and
//! what is told.

mod cycle;
mod device_name;
mod program_state;

use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::connection::{Blame, ConnectOutcome, Exchange, ManagedConnection};
use super::session::{Connector, RequestError};
use super::silent_units::{self, SilentUnitRoundRobin};
use super::unit::UnitState;
use super::unit_backoff::FailureCost;
use super::{PlcChange, PlcDiagnosis, PlcEvent, ReadFailure, ReadResult};
use crate::clock::Anchor;
use crate::schedule::RetryBackoff;

/// What is known of a server, whichever unit it was learned from.
pub(super) struct ServerState {
    /// When silent units are tried.
    pub(super) silent_units: SilentUnitRoundRobin,
    /// It broke the connection when it was asked for a name.
    name_backoff: Option<RetryBackoff>,
}

/// One unit at the connection.
pub(super) struct UnitPoll<'a, C: Connector> {
    pub(super) unit: &'a mut UnitState,
    /// The others, in two parts.
    pub(super) others: [&'a mut [UnitState]; 2],
    pub(super) connection: &'a mut ManagedConnection<C>,
    pub(super) server: &'a mut ServerState,
    pub(super) events: &'a mpsc::Sender<PlcEvent>,
    pub(super) stop: &'a CancellationToken,
    /// When it began: all that it reads is dated from there.
    pub(super) started: Anchor,
}

impl ServerState {
    pub(super) fn new() -> Self {
        Self { silent_units: SilentUnitRoundRobin::new(), name_backoff: None }
    }
}

impl<C: Connector> UnitPoll<'_, C> {
    /// Connects if that is needed and allowed. False when it is not allowed now.
    pub(super) async fn connect(&mut self) -> bool {
        if self.connection.is_connected() {
            return true;
        }
        let dialled = self.connection.connect(self.stop).await;
        if matches!(dialled, ConnectOutcome::Deferred) {
            return false;
        }
        let Self { unit, others: [before, after], events, .. } = self;
        for unit in before.iter_mut().chain(std::iter::once(&mut **unit)).chain(after.iter_mut()) {
            unit.metrics.connects.inc();
            if let ConnectOutcome::Failed(error) = &dialled {
                unit.is_answering = false;
                let diagnosis = PlcDiagnosis::not_connected(&unit.config, error);
                unit.report_disconnected(diagnosis, None, events).await;
            }
        }
        if let ConnectOutcome::Failed(error) = &dialled {
            let address = &self.unit.config.address;
            tracing::debug!(%address, error = error as &dyn std::error::Error, "connect");
        }
        true
    }

    /// Tries a unit that was silent, with one request.
    pub(super) async fn probe(&mut self) {
        self.connect().await;
        let Some(request) = self.unit.probe_request(now()) else { return };
        if !self.connection.is_connected() {
            return;
        }
        let exchange = self.exchange(&request).await;
        let took = exchange.took;
        self.on_exchange(exchange).await;
        if self.unit.backoff.is_silent() {
            if self.are_others_answering() {
                self.server.silent_units.on_failed_probe(took, now());
            }
            let begin = self.unit.next_start.first().copied().unwrap_or_default();
            self.unit.start_after(0, begin);
        }
    }

    /// Asks a new session who is there; the answers before are told only then.
    pub(super) async fn identify_new_session(&mut self) {
        let session = self.connection.session_count();
        if !self.connection.is_connected() || self.unit.identified_in == session {
            return;
        }
        if self.unit.outages != self.connection.outages() {
            self.unit.outages = self.connection.outages();
            self.unit.tuner.retry_quarantined(now());
            self.unit.identity_probe.on_new_session();
        }
        self.identify().await;
        self.unit.identified_in = session;
        self.report_connected().await;
    }

    async fn identify(&mut self) {
        let has_answered = self.unit.answered_in == self.connection.session_count();
        for question in self.unit.identity_probe.identity_requests(has_answered, now()) {
            let exchange = self.exchange(question).await;
            let mut changes = Vec::new();
            let mut is_refused = false;
            match &exchange.answer {
                Some(Ok(answer)) => changes = self.unit.identity_probe.on_identity(answer),
                Some(Err(RequestError::Refused(code))) => {
                    is_refused = true;
                    if !is_gateway_exception(*code) {
                        self.unit.identity_probe.on_refused();
                    }
                }
                Some(Err(_)) => self.unit.identity_probe.on_broken(has_answered, now()),
                None => {}
            }
            self.on_exchange(exchange).await;
            self.report_changes(changes).await;
            if !is_refused || self.unit.backoff.is_silent() {
                break;
            }
        }
        self.unit.program_read_at = Some(now());
    }

    /// Sends one request, or fails at once when there is no connection or the unit is silent.
    async fn read(&mut self, request: &ReadRequest) -> ReadResult {
        if self.unit.backoff.is_silent() {
            return ReadResult {
                at: self.started.wall_time_at(now()),
                outcome: Err(ReadFailure::Unreachable),
            };
        }
        let exchange = self.exchange(request).await;
        self.on_exchange(exchange).await
    }

    async fn exchange(&mut self, request: &ReadRequest) -> Exchange {
        let exchange = self.connection.read(self.unit.address(), request, self.stop).await;
        if let Some(answer) = &exchange.answer {
            self.unit.count_request(request, answer, exchange.took);
        }
        exchange
    }

    /// Draws the consequences of an exchange.
    async fn on_exchange(&mut self, exchange: Exchange) -> ReadResult {
        let at = self.started.wall_time_at(exchange.sent + exchange.took / 2);
        let outcome = match exchange.answer {
            Some(Ok(registers)) => Ok(registers),
            Some(Err(RequestError::Refused(code))) if is_gateway_exception(code) => {
                self.on_gateway_exception(code).await;
                Err(ReadFailure::Unreachable)
            }
            Some(Err(RequestError::Refused(code))) => Err(ReadFailure::Refused(code)),
            Some(Err(error)) => {
                self.on_connection_lost(&error).await;
                Err(ReadFailure::Unreachable)
            }
            None => Err(ReadFailure::Unreachable),
        };
        if let Ok(_) | Err(ReadFailure::Refused(_)) = outcome {
            self.unit.metrics.request_seconds.observe(exchange.took.as_secs_f64());
            self.unit.metrics.last_answer_timestamp.set(exchange.received_at.as_seconds());
            self.on_unit_answer().await;
        }
        ReadResult { at, outcome }
    }

    /// The unit has answered: only now is it there.
    async fn on_unit_answer(&mut self) {
        self.on_server_answer();
        self.unit.metrics.up.set(1);
        self.unit.backoff.on_answer();
        self.unit.is_answering = true;
        self.unit.answered_in = self.connection.session_count();
        if !self.unit.is_reported_connected() {
            self.report_connected().await;
        }
    }

    /// After an absence of the whole server nobody's silence says anything about himself.
    fn on_server_answer(&mut self) {
        if self.connection.on_answer() {
            for unit in self.others.iter_mut().flat_map(|part| part.iter_mut()) {
                unit.backoff.retry_now(now());
            }
        }
    }

    /// Something in between answered in place of the unit.
    async fn on_gateway_exception(&mut self, code: u8) {
        self.on_server_answer();
        self.unit.is_answering = false;
        let (scan, random) = (self.unit.min_scan_period(), self.connection.random());
        self.unit.backoff.on_failure(FailureCost::WaitOnly, scan, now(), random);
        let diagnosis = PlcDiagnosis::gateway_exception(&self.unit.config, code);
        let tried_within = Some(self.worst_round());
        self.unit.report_disconnected(diagnosis, tried_within, self.events).await;
    }

    /// The session is of no use any more. While other units answer it is this one's fault, and
    /// they go on at once; else the server is left alone for a while.
    async fn on_connection_lost(&mut self, error: &RequestError) {
        let plc = self.unit.config.name.as_str();
        tracing::debug!(plc, error = error as &dyn std::error::Error, "lost");
        let is_alone = self.others.iter().all(|part| part.is_empty());
        let others = || self.others.iter().flat_map(|part| part.iter());
        let is_open = self.are_others_answering() || others().any(UnitState::is_untried);
        let fault = if is_open { Blame::Unit } else { Blame::Server };
        self.unit.is_answering = false;
        if !is_alone {
            let (scan, random) = (self.unit.min_scan_period(), self.connection.random());
            self.unit.backoff.on_failure(FailureCost::Connection, scan, now(), random);
        }
        if self.are_others_answering() {
            self.server.silent_units.on_connection_lost(now());
        }
        let has_answered = self.unit.answered_in == self.connection.session_count();
        self.connection.drop_connection(error, fault);
        let diagnosis = PlcDiagnosis::connection_lost(&self.unit.config, error, has_answered);
        let tried_within = (!is_alone).then(|| self.worst_round());
        self.unit.report_disconnected(diagnosis, tried_within, self.events).await;
    }

    fn are_others_answering(&self) -> bool {
        self.others.iter().any(|part| part.iter().any(|unit| unit.is_answering))
    }

    /// Until every silent unit has been tried, this one included.
    fn worst_round(&self) -> Duration {
        let others = self.others.iter().flat_map(|part| part.iter());
        let others = others.filter(|unit| unit.backoff.is_silent());
        let (mut silent, mut timeout) = (1, self.unit.config.timeout);
        for unit in others {
            silent += 1;
            timeout = timeout.max(unit.config.timeout);
        }
        silent_units::worst_round(silent, timeout)
    }

    /// Tells what is known of a unit that has answered and was greeted in this session.
    async fn report_connected(&mut self) {
        let session = self.connection.session_count();
        let is_here = self.connection.is_connected() && self.unit.answered_in == session;
        if is_here && self.unit.identified_in == session && !self.unit.backoff.is_silent() {
            self.unit.report_connected(self.events).await;
        }
    }

    async fn report_changes(&mut self, changes: Vec<PlcChange>) {
        if changes.iter().any(|change| !matches!(change, PlcChange::State { .. })) {
            // Another program may have what the last one refused.
            self.unit.tuner.retry_quarantined(now());
        }
        self.unit.report_changes(changes, self.events).await;
    }
}

/// Exceptions of a gateway whose device is not there, or does not answer (Modbus Application
/// Protocol V1.1b3, 7).
const fn is_gateway_exception(code: u8) -> bool {
    matches!(code, 0x0A | 0x0B)
}

fn now() -> Instant {
    time::Instant::now().into_std()
}
