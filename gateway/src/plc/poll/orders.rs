//! Carries out write orders: between jobs, and between the requests of a cycle.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::Poller;
use crate::clock;
use crate::model::{NotSentReason, PlcOrder};
use crate::plc::PlcEvent;
use crate::plc::connection::{Exchange, now};
use crate::plc::session::{Connector, WriteRequest};
use crate::plc::write_visit::{ReadFirst, VisitStep, WriteVisit};

/// Time within which a write whose answer is missing is read back.
const READ_BACK_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two attempts. A connect has pauses of its own.
const READ_BACK_PAUSE: Duration = Duration::from_millis(250);

/// An order whose read-back waits for the PLC to answer again.
pub(super) struct PendingReadBack {
    unit: usize,
    visit: WriteVisit,
    next_try: Instant,
    deadline: Instant,
}

impl<C: Connector> Poller<C> {
    /// Carries out an order that waits, before a request of a cycle.
    pub(super) async fn let_order_pass(&mut self) -> ControlFlow<()> {
        if !self.stop.is_cancelled()
            && let Some(order) = self.orders.take_within_cycle(now())
        {
            self.run_order(order).await?;
        }
        ControlFlow::Continue(())
    }

    /// Carries out an order, and reports what became of it.
    pub(super) async fn run_order(&mut self, order: PlcOrder) -> ControlFlow<()> {
        let busy_before = self.poll_busy_time();
        let flow = self.begin_order(order).await;
        self.count_busy_time(busy_before);
        flow
    }

    /// Counts the time since `busy_before` as that of orders, and delays the next order for it. The
    /// time of orders that were counted meanwhile is not in it.
    fn count_busy_time(&mut self, busy_before: Duration) {
        let busy = self.poll_busy_time().saturating_sub(busy_before);
        self.order_busy_time += busy;
        self.orders.on_done(busy, now());
    }

    /// Reports the orders that wait as not sent.
    pub(super) async fn refuse_orders(&mut self) {
        self.orders.close();
        while let Some(order) = self.orders.take_any() {
            let Some(unit) = self.unit_of(&order) else { continue };
            let Some(mut visit) = self.begin_visit(unit, order) else { continue };
            visit.on_abandoned(NotSentReason::Stopping);
            if self.report(visit).await.is_break() {
                return;
            }
        }
        for pending in std::mem::take(&mut self.read_backs) {
            if self.report(pending.visit).await.is_break() {
                return;
            }
        }
    }

    /// Reads all tags of a PLC in one visit, and reports that.
    pub(super) async fn read_all(&mut self, order: PlcOrder) -> ControlFlow<()> {
        let Some(unit) = self.unit_of(&order) else { return ControlFlow::Continue(()) };
        let busy_before = self.poll_busy_time();
        let flow = self.read_all_classes(unit).await;
        self.count_busy_time(busy_before);
        let Some(mut visit) = self.begin_visit(unit, order) else { return flow };
        match flow {
            ControlFlow::Continue(()) => visit.on_all_read(),
            ControlFlow::Break(()) => visit.on_abandoned(NotSentReason::Stopping),
        }
        self.report(visit).await?;
        flow
    }

    async fn read_all_classes(&mut self, unit: usize) -> ControlFlow<()> {
        let classes = self.server.unit(unit).map_or(0, |unit| unit.plan.classes.len());
        for class in (0..).take(classes) {
            self.run_cycle(unit, class, 0).await?;
        }
        self.send_events().await
    }

    /// Returns the unit of an order. One for a PLC of another connection is not carried out.
    fn unit_of(&self, order: &PlcOrder) -> Option<usize> {
        let unit = self.server.unit_of(order.plc);
        if unit.is_none() {
            tracing::error!(plc = order.plc, "an order for a PLC of another connection");
        }
        unit
    }

    async fn begin_order(&mut self, order: PlcOrder) -> ControlFlow<()> {
        let Some(unit) = self.unit_of(&order) else { return ControlFlow::Continue(()) };
        // A silent unit is not connected to: the others behind the connection would wait for it.
        if !self.server.is_silent(unit) {
            self.connect().await;
            self.start_session(unit).await;
        }
        let obstacle = self.server.order_obstacle(unit, &order);
        let Some(mut visit) = self.begin_visit(unit, order) else {
            return ControlFlow::Continue(());
        };
        match obstacle {
            Some(_) if visit.is_read_back_due() => return self.read_back_later(unit, visit).await,
            Some(reason) => visit.on_abandoned(reason),
            None => self.drive(unit, &mut visit).await,
        }
        if visit.is_read_back_due() {
            return self.read_back_later(unit, visit).await;
        }
        self.report(visit).await
    }

    fn begin_visit(&self, unit: usize, order: PlcOrder) -> Option<WriteVisit> {
        let is_idle = self.connection.is_idle();
        let read_first = if is_idle { ReadFirst::Always } else { ReadFirst::AsNeeded };
        let settings = &self.server.unit(unit)?.config;
        Some(WriteVisit::new(order, settings, read_first))
    }

    /// Sends the requests of a visit, until it is finished or the unit does not answer.
    async fn drive(&mut self, unit: usize, visit: &mut WriteVisit) {
        loop {
            let is_sent = match visit.next_step(now()) {
                VisitStep::Finish => return,
                VisitStep::Read(request) => self.read_for_order(unit, &request, visit).await,
                VisitStep::Write(request) => self.write_for_order(unit, &request, visit).await,
            };
            if is_sent && self.server.is_reachable(unit) {
                continue;
            }
            if !visit.is_read_back_due() || self.stop.is_cancelled() {
                visit.on_abandoned(self.reason_of_end(unit, visit));
            }
            return;
        }
    }

    /// Returns why a visit ends before its next write.
    fn reason_of_end(&self, unit: usize, visit: &WriteVisit) -> NotSentReason {
        if self.stop.is_cancelled() {
            NotSentReason::Stopping
        } else if visit.write_limit().is_some_and(|limit| limit < now()) {
            NotSentReason::Expired
        } else {
            self.server.unreachable(unit)
        }
    }

    /// Returns whether the visit may go on: the request was sent, or is left out since it may cost
    /// the session.
    async fn read_for_order(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        visit: &mut WriteVisit,
    ) -> bool {
        let was_lost = self.server.is_lost_read(unit, request);
        if was_lost && visit.skip_test_read() {
            return true;
        }
        if was_lost && !self.connection.may_search() {
            visit.on_read_lost();
            return true;
        }
        // A request that ends sessions is not sent twice to find out that it did so again.
        let may_be_stale = self.connection.may_be_stale() && !was_lost;
        let had_answered = self.server.unit(unit).is_some_and(|unit| unit.session.has_answered);
        let Some(mut exchange) = self.exchange(unit, request).await else { return false };
        if may_be_stale && exchange.is_closed() && self.reopen_stale(unit, request, &exchange).await
        {
            match self.exchange(unit, request).await {
                Some(again) => exchange = Exchange { is_repeated: had_answered, ..again },
                None => return false,
            }
        }
        let (is_sent, is_lost) = (exchange.answer.is_some(), exchange.failure().is_some());
        let at = (now(), self.connection.random());
        let (outcome, blame) = self.server.on_order_read(unit, request, exchange, at);
        self.on_blame(blame);
        if was_lost && is_lost {
            visit.on_read_lost();
        } else {
            visit.on_read(outcome);
        }
        is_sent
    }

    /// Returns whether the request was sent. It never is for a second time: on a new connection it
    /// is sent if the server had closed the one before, so that not one byte of it was sent.
    async fn write_for_order(
        &mut self,
        unit: usize,
        request: &WriteRequest,
        visit: &mut WriteVisit,
    ) -> bool {
        let Some(address) = self.address(unit) else { return false };
        if self.abandon_before_write(unit, request, visit) {
            return false;
        }
        let limit = visit.write_limit();
        let mut exchange = self.connection.write(address, request, limit).await;
        if exchange.is_unsent() {
            let had_answered = self.server.unit(unit).is_some_and(|unit| unit.session.has_answered);
            let is_open = self.reopen_stale(unit, &request.to_read_request(), &exchange).await;
            if !is_open || self.abandon_before_write(unit, request, visit) {
                return false;
            }
            exchange = self.connection.write(address, request, limit).await;
            exchange.is_repeated = had_answered;
        }
        let at = (now(), self.connection.random());
        let (answer, blame) = self.server.on_order_write(unit, request, exchange, at);
        self.on_blame(blame);
        let Some(answer) = answer else { return false };
        visit.on_write(answer);
        true
    }

    /// Abandons a visit whose next write must not be sent now. Returns whether that is so.
    fn abandon_before_write(
        &mut self,
        unit: usize,
        request: &WriteRequest,
        visit: &mut WriteVisit,
    ) -> bool {
        let reason = if self.server.is_lost_write(unit, request) && !self.connection.may_search() {
            Some(NotSentReason::LosesConnection)
        } else {
            self.server.order_obstacle(unit, visit.order())
        };
        let is_abandoned = reason.is_some();
        if let Some(reason) = reason {
            visit.on_abandoned(reason);
        }
        is_abandoned
    }

    /// Reads back as soon as the PLC answers again, the first time now.
    async fn read_back_later(&mut self, unit: usize, visit: WriteVisit) -> ControlFlow<()> {
        let deadline = now() + READ_BACK_LIMIT;
        self.read_backs.push(PendingReadBack { unit, visit, next_try: now(), deadline });
        self.retry_read_backs().await
    }

    /// Reads back what is due outside of an order, which it delays like one.
    pub(super) async fn run_read_backs(&mut self) -> ControlFlow<()> {
        let busy_before = self.poll_busy_time();
        let flow = self.retry_read_backs().await;
        self.count_busy_time(busy_before);
        flow
    }

    /// Reads back what is due, and reports what was read, or could not be read in time.
    async fn retry_read_backs(&mut self) -> ControlFlow<()> {
        for mut pending in std::mem::take(&mut self.read_backs) {
            if pending.next_try <= now() && pending.deadline > now() {
                self.try_read_back(&mut pending).await;
            }
            if pending.deadline <= now() || !pending.visit.is_read_back_due() {
                self.report(pending.visit).await?;
            } else {
                self.read_backs.push(pending);
            }
        }
        ControlFlow::Continue(())
    }

    async fn try_read_back(&mut self, pending: &mut PendingReadBack) {
        let unit = pending.unit;
        if !self.server.is_silent(unit) {
            self.connect().await;
            self.start_session(unit).await;
        }
        if self.server.is_reachable(unit) {
            self.drive(unit, &mut pending.visit).await;
        }
        pending.next_try = now() + READ_BACK_PAUSE;
    }

    /// Returns when a read-back is to be tried again.
    pub(super) fn next_read_back(&self) -> Option<Instant> {
        self.read_backs.iter().map(|pending| pending.next_try.min(pending.deadline)).min()
    }

    async fn report(&mut self, visit: WriteVisit) -> ControlFlow<()> {
        let report = visit.into_report(clock::now());
        match self.events.send(PlcEvent::Written(Box::new(report))).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
