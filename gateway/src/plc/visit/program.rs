//! What the program of a Modicon does: looked at now and then, and at once when values stand still.

use std::time::Duration;

use super::{Visit, is_behind, now};
use crate::plc::Read;
use crate::plc::poll::WATCH;
use crate::plc::session::{Connect, RequestError};

/// Two looks are at least about a second apart.
const LEAST: Duration = Duration::from_millis(900);

impl<C: Connect> Visit<'_, C> {
    /// Asks a session that has answered who is there, if it was not asked before.
    pub(super) async fn meet(&mut self) {
        let has_answered = self.unit.answered == self.line.sessions();
        let is_there = self.line.is_connected() && !self.unit.standing.is_silent();
        if is_there && has_answered && self.unit.known.is_stranger() {
            self.introduce().await;
            self.tell_up().await;
        }
    }

    /// Looks whether the program runs behind what was read in a cycle, if that gives a reason: a
    /// request brought what it brought in the last cycle, the program did not run, or so much time
    /// passes between two cycles that it costs nothing.
    ///
    /// So a program that stops is noticed in the first cycle of which a request brings nothing new.
    pub(super) async fn look_again(&mut self, class: u16, reads: &[Read]) {
        let period = self.unit.plan.classes.get(usize::from(class)).map(|class| class.period);
        let is_slow = period.is_some_and(|period| period >= WATCH);
        let is_still = self.unit.known.tells_status() && self.unit.brought_the_same(class, reads);
        // Below the ceiling only: a value is worth more than a look.
        let is_held = self.line.holds(Duration::ZERO).is_some();
        if (is_still || is_slow || self.unit.known.stands_still()) && !is_held {
            self.watch(LEAST).await;
        }
    }

    /// Asks what the program does, if this unit tells and was not asked within `least`.
    pub(in crate::plc) async fn watch(&mut self, least: Duration) {
        let is_fresh = self.unit.watched.is_some_and(|at| now() < at + least);
        let is_here = self.line.is_connected() && self.unit.greeted == self.line.sessions();
        if is_fresh || !is_here || self.unit.standing.is_silent() {
            return;
        }
        let Some(question) = self.unit.known.status_question(now()) else {
            return self.meet().await;
        };
        self.unit.watched = Some(now());
        let (was_in_use, was_idle) = (self.line.was_in_use(), self.line.is_idle());
        let exchange = self.ask(&question).await;
        let mut changes = Vec::new();
        match &exchange.answer {
            Some(Ok(answer)) => changes = self.unit.known.status(answer),
            Some(Err(RequestError::Refused(code))) if !is_behind(*code) => {
                self.unit.known.status_refused();
            }
            Some(Err(RequestError::Refused(_))) | None => {}
            Some(Err(RequestError::Disconnected(_))) if was_idle => {}
            Some(Err(_)) => self.unit.known.status_broke(now()),
        }
        if was_in_use && exchange.is_broken() {
            // It may have been closed while it was idle, as before the first request of a cycle.
            self.line.closed();
            if self.dial().await {
                self.greet().await;
            }
            return;
        }
        self.settle(exchange).await;
        self.tell_up().await;
        self.report(changes).await;
    }
}
