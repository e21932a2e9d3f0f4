//! The one connection to a Modbus server: opened when it is needed and allowed, dropped at the
//! first doubt. Who is asked on it, and what an answer means, is not known here.

use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use provisioning::plan::ReadRequest;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::rate_limit::{AnswerReceived, RateLimiter};
use super::session::{ConnectError, Connector, PlcSession, RequestError, UnitAddress};
use super::{PlcIdentity, RateLimit, Registers};
use crate::clock;
use crate::model::UnixTime;
use crate::schedule::{RateBudget, RetryBackoff, RetryPolicy};

/// Pauses between connects after the server failed: at most 1 s, doubled up to 30 s. A server that
/// is back is reconnected within 30 s, the time-out of a connect, and one scan period.
const RECONNECT: RetryPolicy =
    RetryPolicy::full_jitter(Duration::from_secs(1), Duration::from_secs(30));
/// Bounds what the back-off cannot see: a server that answers a little and then breaks, again and
/// again. An M2xx has 8 connections and closes the oldest, so each connect may hurt somebody else.
const CONNECTS_PER_MINUTE: usize = 6;

/// A server may close a connection on which nothing was said for this long.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// Keeps the connection.
pub(super) struct ManagedConnection<C: Connector> {
    connector: C,
    session: Option<C::Session>,
    backoff: RetryBackoff,
    budget: RateBudget,
    rate_limiter: RateLimiter,
    random: fastrand::Rng,
    /// No connect before this.
    no_connect_before: Option<Instant>,
    /// Whether this session has answered anything.
    has_answered: bool,
    /// When it answered last, in whatever session.
    last_answer: Option<Instant>,
    /// Whether the server closed the session that was lost last.
    was_closed_by_peer: bool,
    /// Whether the server itself was away, and not one unit of it.
    was_server_down: bool,
    session_count: u64,
    outages: u64,
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub(super) enum ConnectOutcome {
    /// There is a connection.
    Open,
    /// There is none.
    Failed(ConnectError),
    /// Back-off or budget do not allow one now.
    Deferred,
    /// The task is to stop.
    Stopped,
}

/// How the loss of a session is dealt with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blame {
    /// The server is left alone for a while.
    Server,
    /// One unit is to blame as far as is known: the next one may connect again at once.
    Unit,
}

/// One request and what became of it.
pub(super) struct Exchange<T = Registers> {
    pub(super) sent: Instant,
    pub(super) received_at: UnixTime,
    pub(super) took: Duration,
    /// Absent when there was no connection to send it on.
    pub(super) answer: Option<Result<T, RequestError>>,
}

impl<C: Connector> ManagedConnection<C> {
    pub(super) fn new(connect: C, pacing: Pacing, random: fastrand::Rng) -> Self {
        Self {
            connector: connect,
            session: None,
            backoff: RetryBackoff::new(&RECONNECT),
            budget: RateBudget::per_minute(CONNECTS_PER_MINUTE),
            rate_limiter: RateLimiter::new(pacing, now()),
            random,
            no_connect_before: None,
            has_answered: false,
            last_answer: None,
            was_closed_by_peer: false,
            was_server_down: true,
            session_count: 0,
            outages: 1,
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// How many sessions there have been.
    pub(super) const fn session_count(&self) -> u64 {
        self.session_count
    }

    /// Whether the last session ended because the server closed it in place of an answer.
    pub(super) const fn was_closed_by_peer(&self) -> bool {
        self.was_closed_by_peer
    }

    /// How often the server has been away, the time before the first connect included.
    pub(super) const fn outages(&self) -> u64 {
        self.outages
    }

    /// What stands against a turn that waits so long for answers, and until when.
    pub(super) fn throttled_until(&mut self, turn: Duration) -> Option<(RateLimit, Instant)> {
        self.session.as_ref().and_then(|_| self.rate_limiter.throttled_until(turn, now()))
    }

    /// How long answers were waited for, all in all.
    pub(super) const fn busy_time(&self) -> Duration {
        self.rate_limiter.busy_time()
    }

    /// Evenly spread in `[0, 1)`.
    pub(super) fn random(&mut self) -> f64 {
        self.random.f64()
    }

    /// Opens a connection if there is none and back-off and budget allow one now; gives up when
    /// `stop` fires.
    pub(super) async fn connect(&mut self, stop: &CancellationToken) -> ConnectOutcome {
        if self.is_connected() {
            return ConnectOutcome::Open;
        }
        if !self.take_connect() {
            return ConnectOutcome::Deferred;
        }
        let connected = tokio::select! {
            () = stop.cancelled() => return ConnectOutcome::Stopped,
            connected = self.connector.connect() => connected,
        };
        match connected {
            Ok(session) => {
                self.session = Some(session);
                self.session_count += 1;
                self.has_answered = false;
                self.rate_limiter.on_connected(now());
                ConnectOutcome::Open
            }
            Err(error) => {
                self.back_off();
                ConnectOutcome::Failed(error)
            }
        }
    }

    /// Whether back-off and budget allow a connect now, which is then taken.
    fn take_connect(&mut self) -> bool {
        let now = now();
        if self.no_connect_before.is_some_and(|instant| now < instant) {
            return false;
        }
        self.no_connect_before = self.budget.take(now).err();
        self.no_connect_before.is_none()
    }

    /// Whether the budget has a connect to spare now.
    pub(super) fn has_spare_connect(&mut self) -> bool {
        self.budget.next_free(now()).is_none()
    }

    /// Sends a request as soon as the pace allows, and waits for its answer. Nothing is sent
    /// without a connection, and once `stop` has fired.
    pub(super) async fn read(
        &mut self,
        station: UnitAddress,
        request: &ReadRequest,
        stop: &CancellationToken,
    ) -> Exchange {
        if !self.wait_for_slot(stop).await {
            return Exchange::not_sent();
        }
        let Some(session) = &mut self.session else { return Exchange::not_sent() };
        let sent = now();
        let answer = session.read(station, request).await;
        self.finish_exchange(sent, answer)
    }

    /// Asks for a name, like [`Line::ask`].
    pub(super) async fn read_device_identification(
        &mut self,
        station: UnitAddress,
        stop: &CancellationToken,
    ) -> Exchange<PlcIdentity> {
        if !self.wait_for_slot(stop).await {
            return Exchange::not_sent();
        }
        let Some(session) = &mut self.session else { return Exchange::not_sent() };
        let sent = now();
        let answer = session.read_device_identification(station).await;
        self.finish_exchange(sent, answer)
    }

    /// Waits until the pace allows the next request; false when there is none to be sent.
    async fn wait_for_slot(&mut self, stop: &CancellationToken) -> bool {
        while self.is_connected() {
            let Err(until) = self.rate_limiter.take_slot(now()) else { return true };
            tokio::select! {
                () = stop.cancelled() => return false,
                () = time::sleep_until(until.into()) => {}
            }
        }
        false
    }

    fn finish_exchange<T>(
        &mut self,
        sent: Instant,
        answer: Result<T, RequestError>,
    ) -> Exchange<T> {
        let (received_at, received) = (clock::now(), now());
        let is_answer = matches!(answer, Ok(_) | Err(RequestError::Refused(_)));
        let came = if is_answer { AnswerReceived::Yes } else { AnswerReceived::No };
        self.rate_limiter.on_request_done(sent, received, came);
        Exchange { sent, received_at, took: received - sent, answer: Some(answer) }
    }

    /// The session has answered. Tells whether it is the first answer after an absence.
    pub(super) fn on_answer(&mut self) -> bool {
        self.backoff.reset();
        self.has_answered = true;
        self.last_answer = Some(now());
        std::mem::take(&mut self.was_server_down)
    }

    /// Whether a break may be no more than the end of an idle connection, which only use brings
    /// out.
    pub(super) const fn may_be_stale(&self) -> bool {
        self.session.is_some() && self.has_answered
    }

    /// Whether nothing was said for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.last_answer.is_none_or(|heard| heard + IDLE_AFTER < now())
    }

    /// Drops the session without a consequence, so that the next dial opens another.
    pub(super) fn drop_unblamed(&mut self) {
        self.session = None;
        self.was_closed_by_peer = false;
    }

    /// The server has closed a session that had answered: it may have been restarted, with another
    /// program.
    pub(super) fn on_closed_by_server(&mut self) {
        self.drop_unblamed();
        self.outages += 1;
    }

    /// Drops the session: a late answer may still arrive on it.
    pub(super) fn drop_connection(&mut self, error: &RequestError, fault: Blame) {
        self.session = None;
        self.was_closed_by_peer = matches!(error, RequestError::Disconnected(_));
        match fault {
            Blame::Server => self.back_off(),
            Blame::Unit => {}
        }
    }

    fn back_off(&mut self) {
        self.was_server_down = true;
        self.outages += 1;
        let pause = self.backoff.next_pause(self.random.f64());
        self.no_connect_before = Some(now() + pause);
    }

    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

impl<T> Exchange<T> {
    fn not_sent() -> Self {
        Self { sent: now(), received_at: clock::now(), took: Duration::ZERO, answer: None }
    }

    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::Disconnected(_))))
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}
