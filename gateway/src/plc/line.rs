//! The one connection to a PLC: opened when it is needed and allowed, dropped at the first doubt.

use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::ReadRequest;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::session::{Connect, ConnectError, RequestError, Session};
use super::{Event, Failure, Identity, Read, Registers, State, identity, sentence};
use crate::clock;
use crate::metrics::{PlcMetrics, RequestOutcome};
use crate::model::UnixTime;
use crate::schedule::{Backoff, Budget};

/// The first pause after a failure is at most this; it doubles with each further failure.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// A PLC that comes back is found within this, the time-out of a connect, and one scan period.
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Bounds what the back-off cannot see: a PLC that answers a little and then breaks, again and
/// again. An M2xx has 8 connections and closes the oldest, so each connect may hurt somebody else.
const CONNECTS_PER_MINUTE: usize = 6;

/// Keeps the connection and tells how it is.
pub(super) struct Line<C: Connect> {
    plc: u16,
    config: config::Plc,
    metrics: PlcMetrics,
    events: mpsc::Sender<Event>,
    connect: C,
    session: Option<C::Session>,
    /// Whether this session has answered anything.
    has_answered: bool,
    backoff: Backoff,
    budget: Budget,
    random: fastrand::Rng,
    /// No connect before this.
    not_before: Option<Instant>,
    told: Option<State>,
    /// Whether the PLC closed the session that was lost last.
    was_hung_up: bool,
    sessions: u64,
}

/// One request and what became of it.
struct Exchange {
    sent_at: UnixTime,
    received_at: UnixTime,
    took: Duration,
    /// Absent when there was no connection to send it on.
    answer: Option<Result<Registers, RequestError>>,
}

impl<C: Connect> Line<C> {
    pub(super) fn new(
        plc: u16,
        config: config::Plc,
        metrics: PlcMetrics,
        events: mpsc::Sender<Event>,
        connect: C,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            plc,
            config,
            metrics,
            events,
            connect,
            session: None,
            has_answered: false,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            budget: Budget::per_minute(CONNECTS_PER_MINUTE),
            random,
            not_before: None,
            told: None,
            was_hung_up: false,
            sessions: 0,
        }
    }

    /// Opens a connection if there is none and back-off and budget allow one now; gives up when
    /// `stop` fires.
    pub(super) async fn ensure(&mut self, stop: &CancellationToken) {
        if self.session.is_none() && self.may_connect() {
            self.dial(stop).await;
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// The settings of the PLC.
    pub(super) const fn config(&self) -> &config::Plc {
        &self.config
    }

    /// How many sessions there have been.
    pub(super) const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether the last session ended because the PLC closed it in place of an answer.
    pub(super) const fn was_hung_up(&self) -> bool {
        self.was_hung_up
    }

    /// Sends the first request of a cycle.
    ///
    /// A server may have closed the connection while it was idle, and only use brings that out.
    /// So when a session that has answered before breaks here, the request goes out once more on a
    /// new one; a slow scan class would lose every other cycle otherwise.
    pub(super) async fn read_first(
        &mut self,
        request: &ReadRequest,
        stop: &CancellationToken,
    ) -> Read {
        let was_idle = self.is_connected() && self.has_answered;
        let exchange = self.exchange(request).await;
        if was_idle && exchange.is_broken() && self.may_connect() {
            self.session = None;
            self.dial(stop).await;
            return self.read(request).await;
        }
        self.settle(exchange).await
    }

    /// Sends one request, or fails at once when there is no connection.
    pub(super) async fn read(&mut self, request: &ReadRequest) -> Read {
        let exchange = self.exchange(request).await;
        self.settle(exchange).await
    }

    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
        self.metrics.up.set(0);
    }

    fn may_connect(&mut self) -> bool {
        let now = time::Instant::now().into_std();
        if self.not_before.is_some_and(|instant| now < instant) {
            return false;
        }
        self.not_before = self.budget.take(now).err();
        self.not_before.is_none()
    }

    async fn dial(&mut self, stop: &CancellationToken) {
        self.metrics.connects.inc();
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = self.connect.connect() => connected,
        };
        match connected {
            Ok(session) => self.open(session).await,
            Err(error) => self.not_connected(&error).await,
        }
    }

    async fn open(&mut self, session: C::Session) {
        self.session = Some(session);
        self.sessions += 1;
        self.has_answered = false;
        if identity::is_told_by(self.config.model) {
            let exchange = self.exchange(&identity::REQUEST).await;
            let told = exchange.registers().and_then(identity::parse);
            if exchange.is_answer() {
                self.prove(told).await;
            }
            self.settle(exchange).await;
        }
    }

    async fn exchange(&mut self, request: &ReadRequest) -> Exchange {
        let sent_at = clock::now();
        let Some(session) = &mut self.session else {
            return Exchange { sent_at, received_at: sent_at, took: Duration::ZERO, answer: None };
        };
        let sent = time::Instant::now();
        let answer = session.read(request).await;
        let (received_at, took) = (clock::now(), sent.elapsed());
        self.count(request, &answer, took);
        Exchange { sent_at, received_at, took, answer: Some(answer) }
    }

    /// Draws the consequences of an exchange.
    async fn settle(&mut self, exchange: Exchange) -> Read {
        if exchange.is_answer() {
            self.metrics.request_seconds.observe(exchange.took.as_secs_f64());
            self.metrics.last_answer.set(exchange.received_at.as_seconds());
            self.metrics.up.set(1);
            if !self.has_answered {
                self.prove(None).await;
            }
        }
        let at = exchange.sent_at.midpoint(exchange.received_at);
        let outcome = match exchange.answer {
            Some(Ok(registers)) => Ok(registers),
            Some(Err(RequestError::Refused(code))) => Err(Failure::Refused(code)),
            Some(Err(error)) => {
                self.lose(&error).await;
                Err(Failure::Unreachable)
            }
            None => Err(Failure::Unreachable),
        };
        Read { at, outcome }
    }

    fn count(
        &self,
        request: &ReadRequest,
        answer: &Result<Registers, RequestError>,
        took: Duration,
    ) {
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        self.metrics.count_request(outcome);
        let ReadRequest { table, first, count, .. } = request;
        let (plc, outcome) = (self.config.name.as_str(), outcome.label());
        tracing::trace!(plc, ?table, first, count, ?took, outcome, "read");
    }

    /// The session has answered for the first time: only now is it one.
    async fn prove(&mut self, identity: Option<(Identity, bool)>) {
        self.has_answered = true;
        self.backoff.reset();
        let (identity, running) = identity.unzip();
        self.tell(State::Connected { identity, running }).await;
    }

    async fn not_connected(&mut self, error: &ConnectError) {
        tracing::debug!(plc = self.config.name, error = error as &dyn std::error::Error, "connect");
        let sentence = sentence::not_connected(&self.config, error);
        self.pause(sentence).await;
    }

    async fn lose(&mut self, error: &RequestError) {
        tracing::debug!(plc = self.config.name, error = error as &dyn std::error::Error, "lost");
        self.session = None;
        self.was_hung_up = matches!(error, RequestError::Disconnected(_));
        let sentence = sentence::lost(&self.config, error, self.has_answered);
        self.pause(sentence).await;
    }

    async fn pause(&mut self, sentence: String) {
        self.metrics.up.set(0);
        let pause = self.backoff.next(self.random.f64());
        self.not_before = Some(time::Instant::now().into_std() + pause);
        self.tell(State::Disconnected { sentence }).await;
    }

    async fn tell(&mut self, state: State) {
        if self.told.as_ref() == Some(&state) {
            return;
        }
        self.told = Some(state.clone());
        // Without a receiver the poller ends by itself.
        let _ = self.events.send(Event::State { plc: self.plc, state }).await;
    }
}

impl Exchange {
    const fn is_answer(&self) -> bool {
        matches!(self.answer, Some(Ok(_) | Err(RequestError::Refused(_))))
    }

    const fn is_broken(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::Disconnected(_))))
    }

    const fn registers(&self) -> Option<&Registers> {
        match &self.answer {
            Some(Ok(registers)) => Some(registers),
            Some(Err(_)) | None => None,
        }
    }
}
