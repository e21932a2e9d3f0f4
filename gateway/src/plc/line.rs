//! The one connection to a Modbus server: opened when it is needed and allowed, dropped at the
//! first doubt. Who is asked on it, and what an answer means, is not known here.

use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use provisioning::plan::ReadRequest;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::pace::{Came, Ceiling, Pace};
use super::session::{Connect, ConnectError, RequestError, Session, Station};
use super::{Naming, Registers};
use crate::clock;
use crate::model::UnixTime;
use crate::schedule::{Backoff, Budget};

/// The first pause after a failure is at most this; it doubles with each further failure.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// A server that comes back is found within this, the time-out of a connect, and one scan period.
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Bounds what the back-off cannot see: a server that answers a little and then breaks, again and
/// again. An M2xx has 8 connections and closes the oldest, so each connect may hurt somebody else.
const CONNECTS_PER_MINUTE: usize = 6;

/// A server may close a connection on which nothing was said for this long.
const IDLE: Duration = Duration::from_secs(2);

/// Keeps the connection.
pub(super) struct Line<C: Connect> {
    connect: C,
    session: Option<C::Session>,
    backoff: Backoff,
    budget: Budget,
    pace: Pace,
    random: fastrand::Rng,
    /// No connect before this.
    not_before: Option<Instant>,
    /// Whether this session has answered anything.
    has_answered: bool,
    /// When it answered last, in whatever session.
    heard: Option<Instant>,
    /// Whether the server closed the session that was lost last.
    was_hung_up: bool,
    /// Whether the server itself was away, and not one unit of it.
    was_away: bool,
    sessions: u64,
    absences: u64,
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub(super) enum Dialled {
    /// There is a connection.
    Open,
    /// There is none.
    Failed(ConnectError),
    /// Back-off or budget do not allow one now.
    NotYet,
    /// The task is to stop.
    Stopped,
}

/// How the loss of a session is dealt with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
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

impl<C: Connect> Line<C> {
    pub(super) fn new(connect: C, pacing: Pacing, random: fastrand::Rng) -> Self {
        Self {
            connect,
            session: None,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            budget: Budget::per_minute(CONNECTS_PER_MINUTE),
            pace: Pace::new(pacing, now()),
            random,
            not_before: None,
            has_answered: false,
            heard: None,
            was_hung_up: false,
            was_away: true,
            sessions: 0,
            absences: 1,
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// How many sessions there have been.
    pub(super) const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether the last session ended because the server closed it in place of an answer.
    pub(super) const fn was_hung_up(&self) -> bool {
        self.was_hung_up
    }

    /// How often the server has been away, the time before the first connect included.
    pub(super) const fn absences(&self) -> u64 {
        self.absences
    }

    /// What stands against a turn that waits so long for answers, and until when.
    pub(super) fn holds(&mut self, turn: Duration) -> Option<(Ceiling, Instant)> {
        self.session.as_ref().and_then(|_| self.pace.holds(turn, now()))
    }

    /// How long answers were waited for, all in all.
    pub(super) const fn spent(&self) -> Duration {
        self.pace.spent()
    }

    /// Evenly spread in `[0, 1)`.
    pub(super) fn random(&mut self) -> f64 {
        self.random.f64()
    }

    /// Opens a connection if there is none and back-off and budget allow one now; gives up when
    /// `stop` fires.
    pub(super) async fn dial(&mut self, stop: &CancellationToken) -> Dialled {
        if self.is_connected() {
            return Dialled::Open;
        }
        if !self.may_connect() {
            return Dialled::NotYet;
        }
        let connected = tokio::select! {
            () = stop.cancelled() => return Dialled::Stopped,
            connected = self.connect.connect() => connected,
        };
        match connected {
            Ok(session) => {
                self.session = Some(session);
                self.sessions += 1;
                self.has_answered = false;
                self.pace.connected(now());
                Dialled::Open
            }
            Err(error) => {
                self.pause();
                Dialled::Failed(error)
            }
        }
    }

    /// Whether back-off and budget allow a connect now, which is then taken.
    fn may_connect(&mut self) -> bool {
        let now = now();
        if self.not_before.is_some_and(|instant| now < instant) {
            return false;
        }
        self.not_before = self.budget.take(now).err();
        self.not_before.is_none()
    }

    /// Whether the budget has a connect to spare now.
    pub(super) fn may_connect_again(&mut self) -> bool {
        self.budget.free_at(now()).is_none()
    }

    /// Sends a request as soon as the pace allows, and waits for its answer. Nothing is sent
    /// without a connection, and once `stop` has fired.
    pub(super) async fn ask(
        &mut self,
        station: Station,
        request: &ReadRequest,
        stop: &CancellationToken,
    ) -> Exchange {
        if !self.rest(stop).await {
            return Exchange::unsent();
        }
        let Some(session) = &mut self.session else { return Exchange::unsent() };
        let sent = now();
        let answer = session.read(station, request).await;
        self.waited(sent, answer)
    }

    /// Asks for a name, like [`Line::ask`].
    pub(super) async fn ask_name(
        &mut self,
        station: Station,
        stop: &CancellationToken,
    ) -> Exchange<Naming> {
        if !self.rest(stop).await {
            return Exchange::unsent();
        }
        let Some(session) = &mut self.session else { return Exchange::unsent() };
        let sent = now();
        let answer = session.name(station).await;
        self.waited(sent, answer)
    }

    /// Waits until the pace allows the next request; false when there is none to be sent.
    async fn rest(&mut self, stop: &CancellationToken) -> bool {
        while self.is_connected() {
            let Err(until) = self.pace.take(now()) else { return true };
            tokio::select! {
                () = stop.cancelled() => return false,
                () = time::sleep_until(until.into()) => {}
            }
        }
        false
    }

    fn waited<T>(&mut self, sent: Instant, answer: Result<T, RequestError>) -> Exchange<T> {
        let (received_at, received) = (clock::now(), now());
        let is_answer = matches!(answer, Ok(_) | Err(RequestError::Refused(_)));
        let came = if is_answer { Came::Yes } else { Came::No };
        self.pace.waited(sent, received, came);
        Exchange { sent, received_at, took: received - sent, answer: Some(answer) }
    }

    /// The session has answered. Tells whether it is the first answer after an absence.
    pub(super) fn answered(&mut self) -> bool {
        self.backoff.reset();
        self.has_answered = true;
        self.heard = Some(now());
        std::mem::take(&mut self.was_away)
    }

    /// Whether a break may be no more than the end of an idle connection, which only use brings
    /// out.
    pub(super) const fn was_in_use(&self) -> bool {
        self.session.is_some() && self.has_answered
    }

    /// Whether nothing was said for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.heard.is_none_or(|heard| heard + IDLE < now())
    }

    /// Drops the session without a consequence, so that the next dial opens another.
    pub(super) fn drop_session(&mut self) {
        self.session = None;
        self.was_hung_up = false;
    }

    /// The server has closed a session that had answered: it may have been restarted, with another
    /// program.
    pub(super) fn closed(&mut self) {
        self.drop_session();
        self.absences += 1;
    }

    /// Drops the session: a late answer may still arrive on it.
    pub(super) fn lose(&mut self, error: &RequestError, fault: Fault) {
        self.session = None;
        self.was_hung_up = matches!(error, RequestError::Disconnected(_));
        match fault {
            Fault::Server => self.pause(),
            Fault::Unit => {}
        }
    }

    fn pause(&mut self) {
        self.was_away = true;
        self.absences += 1;
        let pause = self.backoff.next(self.random.f64());
        self.not_before = Some(now() + pause);
    }

    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

impl<T> Exchange<T> {
    fn unsent() -> Self {
        Self { sent: now(), received_at: clock::now(), took: Duration::ZERO, answer: None }
    }

    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.answer, Some(Err(RequestError::Disconnected(_))))
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}
