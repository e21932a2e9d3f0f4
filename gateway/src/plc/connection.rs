//! The connection to a Modbus server: opened when needed and allowed, dropped at the first doubt.
//! Which units share it, and what an answer means for them, is decided in `server`.

use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use provisioning::plan::ReadRequest;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::close_tracker::CloseTracker;
use super::rate_limit::{AnswerReceived, RateLimiter};
use super::search_budget::SearchBudget;
use super::server::is_gateway_exception;
use super::session::{
    ConnectError, Connector, PlcSession, RequestError, UnitAddress, WriteRequest, is_busy,
};
use super::{LostSession, PlcIdentity, RateLimit, Registers};
use crate::clock;
use crate::model::UnixTime;
use crate::schedule::{RateBudget, RetryBackoff, RetryPolicy};

/// Pauses between connects after the server failed: at most 1 s, doubled up to 30 s. A server that
/// is back is reconnected within 30 s, the time-out of a connect, and one scan period.
const RECONNECT: RetryPolicy =
    RetryPolicy::full_jitter(Duration::from_secs(1), Duration::from_secs(30));
/// Bounds what the backoff cannot see: a server that answers a little and then breaks, again and
/// again. An M2xx has 8 connections and closes the oldest, so each connect may cost another client.
const CONNECTS_PER_MINUTE: usize = 6;
/// Time between two connects that this allows.
const CONNECT_INTERVAL: Duration = Duration::from_secs(10);
/// A server may close a connection that was idle for this long.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// A connection that is reopened with pauses, and limits the rate of its requests.
pub(super) struct ManagedConnection<C: Connector> {
    connector: C,
    session: Option<C::Session>,
    backoff: RetryBackoff,
    budget: RateBudget,
    search_budget: SearchBudget,
    /// Whether the last session ended over a request that is suspected: the next connect is one of
    /// the search.
    was_search_loss: bool,
    close_tracker: CloseTracker,
    rate_limiter: RateLimiter,
    random: fastrand::Rng,
    /// Earliest time of the next connect; absent when one is allowed now.
    no_connect_before: Option<Instant>,
    /// Whether this session has answered a request.
    has_answered: bool,
    /// Time of the last answer, in any session.
    last_answer: Option<Instant>,
    /// Whether the server itself failed, and has not answered since.
    was_server_down: bool,
    /// Whether the server may have been restarted since the last session was opened.
    may_have_restarted: bool,
    stop: CancellationToken,
}

/// Result of an attempt to connect.
#[derive(Debug)]
pub(super) enum ConnectOutcome {
    /// There was a connection already.
    AlreadyOpen,
    /// A new connection; `may_have_restarted` when the server failed or closed the previous one.
    Opened {
        may_have_restarted: bool,
    },
    Failed(ConnectError),
    /// Backoff or budget allow no connect now.
    Deferred,
    /// The task is to stop.
    Stopped,
}

/// Who is to blame for a lost connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blame {
    /// The server: the next connect waits for a pause.
    Server,
    /// One unit, as far as is known: the next one may reconnect at once.
    Unit,
    /// One request, as far as is known: the same unit may reconnect at once. `took` is the time
    /// that it waited for the answer.
    Request { took: Duration },
}

/// One request and its answer.
pub(super) struct Exchange<T = Registers> {
    pub(super) sent: Instant,
    pub(super) received_at: UnixTime,
    pub(super) took: Duration,
    /// Absent when the request was not sent.
    pub(super) answer: Option<Result<T, RequestError>>,
    /// Whether this is the first answer after the server itself had failed.
    pub(super) is_first_after_outage: bool,
    /// Whether the request was sent for the second time: the server closed the connection, on which
    /// the unit had answered, over the first.
    pub(super) is_repeated: bool,
}

impl<C: Connector> ManagedConnection<C> {
    pub(super) fn new(
        connector: C,
        pacing: Pacing,
        random: fastrand::Rng,
        stop: CancellationToken,
    ) -> Self {
        Self {
            connector,
            session: None,
            backoff: RetryBackoff::new(&RECONNECT),
            budget: RateBudget::per_minute(CONNECTS_PER_MINUTE),
            search_budget: SearchBudget::new(),
            was_search_loss: false,
            close_tracker: CloseTracker::new(CONNECT_INTERVAL),
            rate_limiter: RateLimiter::new(pacing, now()),
            random,
            no_connect_before: None,
            has_answered: false,
            last_answer: None,
            was_server_down: true,
            may_have_restarted: true,
            stop,
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Returns the limit that delays a job expected to wait for answers for `expected`, and when
    /// the delay ends.
    pub(super) fn throttled_until(&mut self, expected: Duration) -> Option<(RateLimit, Instant)> {
        let connects = self.close_tracker.connects().max(1);
        let budget = self.budget.next_free_for(connects.into(), now());
        let closes = self.close_tracker.throttled_until(budget, now());
        closes.or_else(|| {
            self.session.as_ref().and_then(|_| self.rate_limiter.throttled_until(expected, now()))
        })
    }

    /// Returns whether a request may be sent now that may cost the session.
    pub(super) fn may_search(&mut self) -> bool {
        self.search_budget.has_room(now())
    }

    /// Records the start of a job that reads.
    pub(super) fn begin_job(&mut self) {
        let now = now();
        let idle = self.last_answer.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.close_tracker.on_job(idle, now);
    }

    /// Returns the record of the connections that the server closed without a failed request.
    pub(super) const fn close_tracker(&mut self) -> &mut CloseTracker {
        &mut self.close_tracker
    }

    /// Returns the total time spent waiting for answers.
    pub(super) const fn busy_time(&self) -> Duration {
        self.rate_limiter.busy_time()
    }

    /// Returns a random number, evenly distributed in `[0, 1)`.
    pub(super) fn random(&mut self) -> f64 {
        self.random.f64()
    }

    /// Opens a connection if there is none and backoff and budget allow one now.
    pub(super) async fn connect(&mut self) -> ConnectOutcome {
        if self.is_connected() {
            return ConnectOutcome::AlreadyOpen;
        }
        if !self.take_connect() {
            return ConnectOutcome::Deferred;
        }
        let connected = tokio::select! {
            () = self.stop.cancelled() => return ConnectOutcome::Stopped,
            connected = self.connector.connect() => connected,
        };
        match connected {
            Ok(session) => {
                self.session = Some(session);
                self.has_answered = false;
                self.rate_limiter.on_connected(now());
                let may_have_restarted = std::mem::take(&mut self.may_have_restarted);
                ConnectOutcome::Opened { may_have_restarted }
            }
            Err(error) => {
                self.back_off();
                ConnectOutcome::Failed(error)
            }
        }
    }

    /// Returns when backoff and budget allow the next connect, after one was deferred.
    pub(super) const fn next_connect_at(&self) -> Option<Instant> {
        self.no_connect_before
    }

    /// Takes a connect from the budget. Returns whether backoff and budget allow it now.
    fn take_connect(&mut self) -> bool {
        let now = now();
        if std::mem::take(&mut self.was_search_loss) {
            return true;
        }
        if self.no_connect_before.is_some_and(|instant| now < instant) {
            return false;
        }
        self.no_connect_before = self.budget.take(now).err();
        self.no_connect_before.is_none()
    }

    /// Returns whether the budget allows another connect now.
    pub(super) fn has_spare_connect(&mut self) -> bool {
        self.budget.next_free(now()).is_none()
    }

    /// Sends a request as soon as the rate limits allow, and waits for its answer. Sends nothing
    /// without a connection, and after `stop`. Any error but a refusal drops the connection: a late
    /// answer could be taken for the next one.
    pub(super) async fn read(&mut self, address: UnitAddress, request: &ReadRequest) -> Exchange {
        if !self.wait_for_slot().await {
            return Exchange::not_sent();
        }
        let Some(session) = &mut self.session else { return Exchange::not_sent() };
        let sent = now();
        let answer = session.read(address, request).await;
        self.finish_exchange(sent, answer)
    }

    /// Sends a request that writes, like [`ManagedConnection::read`], unless the rate limits allow
    /// it only after `not_after`.
    pub(super) async fn write(
        &mut self,
        address: UnitAddress,
        request: &WriteRequest,
        not_after: Option<Instant>,
    ) -> Exchange<()> {
        if !self.wait_for_slot().await || not_after.is_some_and(|limit| limit < now()) {
            return Exchange::not_sent();
        }
        let Some(session) = &mut self.session else { return Exchange::not_sent() };
        let sent = now();
        let answer = session.write(address, request).await;
        self.finish_exchange(sent, answer)
    }

    /// Requests the device identification, like [`ManagedConnection::read`].
    pub(super) async fn read_device_identification(
        &mut self,
        address: UnitAddress,
    ) -> Exchange<PlcIdentity> {
        if !self.wait_for_slot().await {
            return Exchange::not_sent();
        }
        let Some(session) = &mut self.session else { return Exchange::not_sent() };
        let sent = now();
        let answer = session.read_device_identification(address).await;
        self.finish_exchange(sent, answer)
    }

    /// Waits until the rate limits allow the next request. Returns whether it may be sent.
    async fn wait_for_slot(&mut self) -> bool {
        while self.is_connected() {
            let Err(until) = self.rate_limiter.take_slot(now()) else { return true };
            tokio::select! {
                () = self.stop.cancelled() => return false,
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
        let was_answered = if is_answer { AnswerReceived::Yes } else { AnswerReceived::No };
        self.rate_limiter.on_request_done(sent, received, was_answered);
        let is_first_after_outage = is_answer && std::mem::take(&mut self.was_server_down);
        if is_answer {
            // By an answer and not by a connect: a server that only accepts connections is broken.
            self.backoff.reset();
            self.has_answered = true;
            self.last_answer = Some(received);
        } else {
            // A late answer on this connection would be taken for that to the next request.
            self.session = None;
        }
        let (took, answer) = (received - sent, Some(answer));
        Exchange { sent, received_at, took, answer, is_first_after_outage, is_repeated: false }
    }

    /// Returns whether the server may have closed the connection while it was idle, which only the
    /// next request reveals.
    pub(super) const fn may_be_stale(&self) -> bool {
        self.session.is_some() && self.has_answered
    }

    /// Returns whether the last answer is more than [`IDLE_AFTER`] ago.
    pub(super) fn is_idle(&self) -> bool {
        self.last_answer.is_none_or(|at| at + IDLE_AFTER < now())
    }

    /// Records that the server closed a connection that had answered: it may have been restarted,
    /// with another program. The next connect needs no pause.
    pub(super) const fn on_closed_by_server(&mut self) {
        self.may_have_restarted = true;
    }

    /// Records who is to blame for the connection that was dropped.
    pub(super) fn on_connection_lost(&mut self, blame: Blame) {
        match blame {
            Blame::Server => self.back_off(),
            Blame::Unit => {}
            Blame::Request { took } => {
                self.was_search_loss = self.search_budget.has_room(now());
                self.search_budget.on_loss(took, now());
            }
        }
    }

    fn back_off(&mut self) {
        self.was_server_down = true;
        self.may_have_restarted = true;
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
        Self {
            sent: now(),
            received_at: clock::now(),
            took: Duration::ZERO,
            answer: None,
            is_first_after_outage: false,
            is_repeated: false,
        }
    }

    /// Returns how the session ended over it; `None` when it did not.
    pub(super) fn failure(&self) -> Option<LostSession> {
        self.answer.as_ref()?.as_ref().err()?.session_failure()
    }

    /// Returns whether the unit asks to send the request again later.
    pub(super) const fn is_busy(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::Refused(code))) if is_busy(code))
    }

    /// Returns whether the server closed the connection in place of an answer.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::Disconnected(_))))
    }

    /// Returns whether no byte of the request was sent, because the server had closed the
    /// connection.
    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::NotSent(_))))
    }

    /// Returns whether the unit itself answered or refused the request, so that the next one may be
    /// sent to it.
    pub(super) const fn is_answered(&self) -> bool {
        match &self.answer {
            Some(Ok(_)) => true,
            Some(Err(RequestError::Refused(code))) => !is_gateway_exception(*code),
            Some(Err(_)) | None => false,
        }
    }
}

/// Returns the monotonic time, which tests may pause.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}
