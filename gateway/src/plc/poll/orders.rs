//! Carries out write orders: between jobs, and between the requests of a cycle.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::Poller;
use crate::clock;
use crate::model::{NotSentReason, WriteOrder};
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
    pub(super) async fn run_order(&mut self, order: WriteOrder) -> ControlFlow<()> {
        let busy_before = self.connection.busy_time();
        let flow = self.begin_order(order).await;
        let busy = self.connection.busy_time() - busy_before;
        self.order_busy_time += busy;
        self.orders.on_done(busy, now());
        flow
    }

    /// Reports the orders that wait as not sent.
    pub(super) async fn refuse_orders(&mut self) {
        self.orders.close();
        while let Some(order) = self.orders.take_any() {
            let Some(unit) = self.server.unit_of(order.plc) else { continue };
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

    /// Reads all tags of a PLC in one visit.
    pub(super) async fn read_all(&mut self, order: WriteOrder) -> ControlFlow<()> {
        let Some(unit) = self.server.unit_of(order.plc) else { return ControlFlow::Continue(()) };
        let classes = self.server.unit(unit).map_or(0, |unit| unit.plan.classes.len());
        for class in (0..).take(classes) {
            self.run_cycle(unit, class, 0).await?;
        }
        self.send_events().await?;
        let Some(mut visit) = self.begin_visit(unit, order) else {
            return ControlFlow::Continue(());
        };
        visit.on_all_read();
        self.report(visit).await
    }

    async fn begin_order(&mut self, order: WriteOrder) -> ControlFlow<()> {
        let Some(unit) = self.server.unit_of(order.plc) else {
            tracing::error!(plc = order.plc, "an order for a PLC of another connection");
            return ControlFlow::Continue(());
        };
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

    fn begin_visit(&self, unit: usize, order: WriteOrder) -> Option<WriteVisit> {
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
        } else if visit.order().not_after.is_some_and(|limit| limit < now()) {
            NotSentReason::Expired
        } else {
            self.server.unreachable(unit)
        }
    }

    /// Returns whether the request was sent.
    async fn read_for_order(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        visit: &mut WriteVisit,
    ) -> bool {
        let may_be_stale = self.connection.may_be_stale();
        let Some(mut exchange) = self.exchange(unit, request).await else { return false };
        if may_be_stale && exchange.is_closed() && self.reopen_stale(unit, request, &exchange).await
        {
            match self.exchange(unit, request).await {
                Some(again) => exchange = again,
                None => return false,
            }
        }
        let is_sent = exchange.answer.is_some();
        let at = (now(), self.connection.random());
        let (outcome, blame) = self.server.on_order_read(unit, request, exchange, at);
        self.on_blame(blame);
        visit.on_read(outcome);
        is_sent
    }

    /// Returns whether the request was sent. It never is for a second time.
    async fn write_for_order(
        &mut self,
        unit: usize,
        request: &WriteRequest,
        visit: &mut WriteVisit,
    ) -> bool {
        let Some(address) = self.address(unit) else { return false };
        let not_after = visit.order().not_after;
        let exchange: Exchange<()> = self.connection.write(address, request, not_after).await;
        let at = (now(), self.connection.random());
        let (answer, blame) = self.server.on_order_write(unit, request, exchange, at);
        self.on_blame(blame);
        let Some(answer) = answer else { return false };
        visit.on_write(answer);
        true
    }

    /// Reads back as soon as the PLC answers again, the first time now.
    async fn read_back_later(&mut self, unit: usize, visit: WriteVisit) -> ControlFlow<()> {
        let deadline = now() + READ_BACK_LIMIT;
        self.read_backs.push(PendingReadBack { unit, visit, next_try: now(), deadline });
        self.retry_read_backs().await
    }

    /// Reads back what is due, and reports what was read, or could not be read in time.
    pub(super) async fn retry_read_backs(&mut self) -> ControlFlow<()> {
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
