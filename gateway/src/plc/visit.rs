//! One unit at the connection that it shares with others: who is asked, what an answer means, and
//! what is told.

mod cycle;
mod name;
mod program;

use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::learning::doubt::Doubt;
use super::line::{Dialled, Exchange, Fault, Line};
use super::rota::{self, Rota};
use super::session::{Connect, RequestError};
use super::standing::Cost;
use super::unit::Unit;
use super::{Change, Event, Failure, Read, sentence};
use crate::clock::Anchor;

/// What is known of a server, whichever unit it was learned from.
pub(super) struct Server {
    /// When silent units are tried.
    pub(super) rota: Rota,
    /// It broke the connection when it was asked for a name.
    names: Option<Doubt>,
}

/// One unit at the connection.
pub(super) struct Visit<'a, C: Connect> {
    pub(super) unit: &'a mut Unit,
    /// The others, in two parts.
    pub(super) others: [&'a mut [Unit]; 2],
    pub(super) line: &'a mut Line<C>,
    pub(super) server: &'a mut Server,
    pub(super) events: &'a mpsc::Sender<Event>,
    pub(super) stop: &'a CancellationToken,
    /// When it began: all that it reads is dated from there.
    pub(super) began: Anchor,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { rota: Rota::new(), names: None }
    }
}

impl<C: Connect> Visit<'_, C> {
    /// Connects if that is needed and allowed. False when it is not allowed now.
    pub(super) async fn dial(&mut self) -> bool {
        if self.line.is_connected() {
            return true;
        }
        let dialled = self.line.dial(self.stop).await;
        if matches!(dialled, Dialled::NotYet) {
            return false;
        }
        let Self { unit, others: [before, after], events, .. } = self;
        for unit in before.iter_mut().chain(std::iter::once(&mut **unit)).chain(after.iter_mut()) {
            unit.metrics.connects.inc();
            if let Dialled::Failed(error) = &dialled {
                unit.answers = false;
                let sentence = sentence::not_connected(&unit.config, error);
                unit.tell_down(sentence, None, events).await;
            }
        }
        if let Dialled::Failed(error) = &dialled {
            let address = &self.unit.config.address;
            tracing::debug!(%address, error = error as &dyn std::error::Error, "connect");
        }
        true
    }

    /// Tries a unit that was silent, with one request.
    pub(super) async fn try_again(&mut self) {
        self.dial().await;
        let Some(request) = self.unit.trial(now()) else { return };
        if !self.line.is_connected() {
            return;
        }
        let exchange = self.ask(&request).await;
        let took = exchange.took;
        self.settle(exchange).await;
        if self.unit.standing.is_silent() {
            if self.do_others_answer() {
                self.server.rota.in_vain(took, now());
            }
            let begin = self.unit.begin.first().copied().unwrap_or_default();
            self.unit.begin_behind(0, begin);
        }
    }

    /// Asks a new session who is there; the answers before are told only then.
    pub(super) async fn greet(&mut self) {
        let session = self.line.sessions();
        if !self.line.is_connected() || self.unit.greeted == session {
            return;
        }
        if self.unit.absences != self.line.absences() {
            self.unit.absences = self.line.absences();
            self.unit.learning.connected(now());
            self.unit.known.forget_session();
        }
        self.introduce().await;
        self.unit.greeted = session;
        self.tell_up().await;
    }

    async fn introduce(&mut self) {
        let has_answered = self.unit.answered == self.line.sessions();
        for question in self.unit.known.questions(has_answered, now()) {
            let exchange = self.ask(question).await;
            let mut changes = Vec::new();
            let mut is_refused = false;
            match &exchange.answer {
                Some(Ok(answer)) => changes = self.unit.known.introduced(answer),
                Some(Err(RequestError::Refused(code))) => {
                    is_refused = true;
                    if !is_behind(*code) {
                        self.unit.known.refused();
                    }
                }
                Some(Err(_)) => self.unit.known.broke(has_answered, now()),
                None => {}
            }
            self.settle(exchange).await;
            self.report(changes).await;
            if !is_refused || self.unit.standing.is_silent() {
                break;
            }
        }
        self.unit.watched = Some(now());
    }

    /// Sends one request, or fails at once when there is no connection or the unit is silent.
    async fn read(&mut self, request: &ReadRequest) -> Read {
        if self.unit.standing.is_silent() {
            return Read { at: self.began.date(now()), outcome: Err(Failure::Unreachable) };
        }
        let exchange = self.ask(request).await;
        self.settle(exchange).await
    }

    async fn ask(&mut self, request: &ReadRequest) -> Exchange {
        let exchange = self.line.ask(self.unit.station(), request, self.stop).await;
        if let Some(answer) = &exchange.answer {
            self.unit.count(request, answer, exchange.took);
        }
        exchange
    }

    /// Draws the consequences of an exchange.
    async fn settle(&mut self, exchange: Exchange) -> Read {
        let at = self.began.date(exchange.sent + exchange.took / 2);
        let outcome = match exchange.answer {
            Some(Ok(registers)) => Ok(registers),
            Some(Err(RequestError::Refused(code))) if is_behind(code) => {
                self.nobody_behind(code).await;
                Err(Failure::Unreachable)
            }
            Some(Err(RequestError::Refused(code))) => Err(Failure::Refused(code)),
            Some(Err(error)) => {
                self.lost(&error).await;
                Err(Failure::Unreachable)
            }
            None => Err(Failure::Unreachable),
        };
        if let Ok(_) | Err(Failure::Refused(_)) = outcome {
            self.unit.metrics.request_seconds.observe(exchange.took.as_secs_f64());
            self.unit.metrics.last_answer.set(exchange.received_at.as_seconds());
            self.answered().await;
        }
        Read { at, outcome }
    }

    /// The unit has answered: only now is it there.
    async fn answered(&mut self) {
        self.server_answered();
        self.unit.metrics.up.set(1);
        self.unit.standing.answer();
        self.unit.answers = true;
        self.unit.answered = self.line.sessions();
        if !self.unit.is_up() {
            self.tell_up().await;
        }
    }

    /// After an absence of the whole server nobody's silence says anything about himself.
    fn server_answered(&mut self) {
        if self.line.answered() {
            for unit in self.others.iter_mut().flat_map(|part| part.iter_mut()) {
                unit.standing.hasten(now());
            }
        }
    }

    /// Something in between answered in place of the unit.
    async fn nobody_behind(&mut self, code: u8) {
        self.server_answered();
        self.unit.answers = false;
        let (scan, random) = (self.unit.scan(), self.line.random());
        self.unit.standing.fail(Cost::Wait, scan, now(), random);
        let sentence = sentence::nobody_behind(&self.unit.config, code);
        let tried_within = Some(self.round());
        self.unit.tell_down(sentence, tried_within, self.events).await;
    }

    /// The session is of no use any more. While other units answer it is this one's fault, and
    /// they go on at once; else the server is left alone for a while.
    async fn lost(&mut self, error: &RequestError) {
        let plc = self.unit.config.name.as_str();
        tracing::debug!(plc, error = error as &dyn std::error::Error, "lost");
        let is_alone = self.others.iter().all(|part| part.is_empty());
        let others = || self.others.iter().flat_map(|part| part.iter());
        let is_open = self.do_others_answer() || others().any(Unit::is_unasked);
        let fault = if is_open { Fault::Unit } else { Fault::Server };
        self.unit.answers = false;
        if !is_alone {
            let (scan, random) = (self.unit.scan(), self.line.random());
            self.unit.standing.fail(Cost::Connection, scan, now(), random);
        }
        if self.do_others_answer() {
            self.server.rota.lost(now());
        }
        let has_answered = self.unit.answered == self.line.sessions();
        self.line.lose(error, fault);
        let sentence = sentence::lost(&self.unit.config, error, has_answered);
        let tried_within = (!is_alone).then(|| self.round());
        self.unit.tell_down(sentence, tried_within, self.events).await;
    }

    fn do_others_answer(&self) -> bool {
        self.others.iter().any(|part| part.iter().any(|unit| unit.answers))
    }

    /// Until every silent unit has been tried, this one included.
    fn round(&self) -> Duration {
        let others = self.others.iter().flat_map(|part| part.iter());
        let others = others.filter(|unit| unit.standing.is_silent());
        let (mut silent, mut timeout) = (1, self.unit.config.timeout);
        for unit in others {
            silent += 1;
            timeout = timeout.max(unit.config.timeout);
        }
        rota::round(silent, timeout)
    }

    /// Tells what is known of a unit that has answered and was greeted in this session.
    async fn tell_up(&mut self) {
        let session = self.line.sessions();
        let is_here = self.line.is_connected() && self.unit.answered == session;
        if is_here && self.unit.greeted == session && !self.unit.standing.is_silent() {
            self.unit.tell_up(self.events).await;
        }
    }

    async fn report(&mut self, changes: Vec<Change>) {
        if changes.iter().any(|change| !matches!(change, Change::State { .. })) {
            // Another program may have what the last one refused.
            self.unit.learning.connected(now());
        }
        self.unit.report(changes, self.events).await;
    }
}

/// Exceptions of a gateway whose device is not there, or does not answer (Modbus Application
/// Protocol V1.1b3, 7).
const fn is_behind(code: u8) -> bool {
    matches!(code, 0x0A | 0x0B)
}

fn now() -> Instant {
    time::Instant::now().into_std()
}
