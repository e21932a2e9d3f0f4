//! What the program of a Modicon does: looked at now and then, and at once when values stand still.

use std::time::Duration;

use super::{UnitPoll, is_gateway_exception, now};
use crate::plc::ReadResult;
use crate::plc::poll::PROGRAM_POLL_PERIOD;
use crate::plc::session::{Connector, RequestError};

/// Two looks are at least about a second apart.
const MIN_STATUS_INTERVAL: Duration = Duration::from_millis(900);

impl<C: Connector> UnitPoll<'_, C> {
    /// Asks a session that has answered who is there, if it was not asked before.
    pub(super) async fn identify_if_unknown(&mut self) {
        let has_answered = self.unit.answered_in == self.connection.session_count();
        let is_there = self.connection.is_connected() && !self.unit.backoff.is_silent();
        if is_there && has_answered && self.unit.identity_probe.needs_identity() {
            self.identify().await;
            self.report_connected().await;
        }
    }

    /// Looks whether the program runs behind what was read in a cycle, if that gives a reason: a
    /// request brought what it brought in the last cycle, the program did not run, or so much time
    /// passes between two cycles that it costs nothing.
    ///
    /// So a program that stops is noticed in the first cycle of which a request brings nothing new.
    pub(super) async fn check_after_unchanged(&mut self, class: u16, reads: &[ReadResult]) {
        let period = self.unit.plan.classes.get(usize::from(class)).map(|class| class.period);
        let is_slow = period.is_some_and(|period| period >= PROGRAM_POLL_PERIOD);
        let is_still =
            self.unit.identity_probe.has_status() && self.unit.has_unchanged_read(class, reads);
        // Below the ceiling only: a value is worth more than a look.
        let is_held = self.connection.throttled_until(Duration::ZERO).is_some();
        if (is_still || is_slow || self.unit.identity_probe.is_program_stopped()) && !is_held {
            self.poll_program_state(MIN_STATUS_INTERVAL).await;
        }
    }

    /// Asks what the program does, if this unit tells and was not asked within `least`.
    pub(in crate::plc) async fn poll_program_state(&mut self, least: Duration) {
        let is_fresh = self.unit.program_read_at.is_some_and(|at| now() < at + least);
        let is_here = self.connection.is_connected()
            && self.unit.identified_in == self.connection.session_count();
        if is_fresh || !is_here || self.unit.backoff.is_silent() {
            return;
        }
        let Some(question) = self.unit.identity_probe.status_request(now()) else {
            return self.identify_if_unknown().await;
        };
        self.unit.program_read_at = Some(now());
        let (was_in_use, was_idle) = (self.connection.may_be_stale(), self.connection.is_idle());
        let exchange = self.exchange(&question).await;
        let mut changes = Vec::new();
        match &exchange.answer {
            Some(Ok(answer)) => changes = self.unit.identity_probe.on_status(answer),
            Some(Err(RequestError::Refused(code))) if !is_gateway_exception(*code) => {
                self.unit.identity_probe.on_status_refused();
            }
            Some(Err(RequestError::Refused(_))) | None => {}
            Some(Err(RequestError::Disconnected(_))) if was_idle => {}
            Some(Err(_)) => self.unit.identity_probe.on_status_broken(now()),
        }
        if was_in_use && exchange.is_broken() {
            // It may have been closed while it was idle, as before the first request of a cycle.
            self.connection.on_closed_by_server();
            if self.connect().await {
                self.identify_new_session().await;
            }
            return;
        }
        self.on_exchange(exchange).await;
        self.report_connected().await;
        self.report_changes(changes).await;
    }
}
