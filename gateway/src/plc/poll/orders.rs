//! Carries out write orders: between jobs, and between the requests of a cycle.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::Poller;
use crate::clock;
use crate::model::{NotSentReason, PlcOrder};
use crate::plc::PlcEvent;
use crate::plc::connection::{Exchange, now};
use crate::plc::order_execution::{ExecutionStep, OrderExecution, ReadFirst};
use crate::plc::session::{Connector, WriteRequest};

/// Time within which a write whose answer is missing is read back.
const READ_BACK_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two attempts. A connect has pauses of its own.
const READ_BACK_PAUSE: Duration = Duration::from_millis(250);

/// An order whose read-back waits for the PLC to answer again.
pub(super) struct PendingReadBack {
    unit: usize,
    execution: OrderExecution,
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
            let Some(mut execution) = self.begin_execution(unit, order) else { continue };
            execution.on_abandoned(NotSentReason::Stopping);
            if self.report(execution).await.is_break() {
                return;
            }
        }
        for pending in std::mem::take(&mut self.read_backs) {
            if self.report(pending.execution).await.is_break() {
                return;
            }
        }
    }

    /// Reads all tags of a PLC in one order, and reports that.
    pub(super) async fn read_all(&mut self, order: PlcOrder) -> ControlFlow<()> {
        let Some(unit) = self.unit_of(&order) else { return ControlFlow::Continue(()) };
        let busy_before = self.poll_busy_time();
        let flow = self.read_all_classes(unit).await;
        self.count_busy_time(busy_before);
        let Some(mut execution) = self.begin_execution(unit, order) else { return flow };
        match flow {
            ControlFlow::Continue(()) => execution.on_all_read(),
            ControlFlow::Break(()) => execution.on_abandoned(NotSentReason::Stopping),
        }
        self.report(execution).await?;
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
        let Some(mut execution) = self.begin_execution(unit, order) else {
            return ControlFlow::Continue(());
        };
        match obstacle {
            Some(_) if execution.is_read_back_due() => {
                return self.read_back_later(unit, execution).await;
            }
            Some(reason) => execution.on_abandoned(reason),
            None => self.drive(unit, &mut execution).await,
        }
        if execution.is_read_back_due() {
            return self.read_back_later(unit, execution).await;
        }
        self.report(execution).await
    }

    fn begin_execution(&self, unit: usize, order: PlcOrder) -> Option<OrderExecution> {
        let is_idle = self.connection.is_idle();
        let read_first = if is_idle { ReadFirst::Always } else { ReadFirst::AsNeeded };
        let settings = &self.server.unit(unit)?.config;
        Some(OrderExecution::new(order, settings, read_first))
    }

    /// Sends the requests of an order, until it is finished or the unit does not answer.
    async fn drive(&mut self, unit: usize, execution: &mut OrderExecution) {
        loop {
            let is_sent = match execution.next_step(now()) {
                ExecutionStep::Finish => return,
                ExecutionStep::Read(request) => {
                    self.read_for_order(unit, &request, execution).await
                }
                ExecutionStep::Write(request) => {
                    self.write_for_order(unit, &request, execution).await
                }
            };
            if is_sent && self.server.is_reachable(unit) {
                continue;
            }
            if !execution.is_read_back_due() || self.stop.is_cancelled() {
                execution.on_abandoned(self.reason_of_end(unit, execution));
            }
            return;
        }
    }

    /// Returns why an order ends before its next write.
    fn reason_of_end(&self, unit: usize, execution: &OrderExecution) -> NotSentReason {
        if self.stop.is_cancelled() {
            NotSentReason::Stopping
        } else if execution.write_limit().is_some_and(|limit| limit < now()) {
            NotSentReason::Expired
        } else {
            self.server.unreachable(unit)
        }
    }

    /// Returns whether the order may go on: the request was sent, or is left out since it may cost
    /// the session.
    async fn read_for_order(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        execution: &mut OrderExecution,
    ) -> bool {
        let was_lost = self.server.is_lost_read(unit, request);
        if was_lost && execution.skip_test_read() {
            return true;
        }
        if was_lost && !self.connection.may_search() {
            execution.on_read_lost();
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
            execution.on_read_lost();
        } else {
            execution.on_read(outcome);
        }
        is_sent
    }

    /// Returns whether the request was sent. It never is for a second time: on a new connection it
    /// is sent if the server had closed the one before, so that not one byte of it was sent.
    async fn write_for_order(
        &mut self,
        unit: usize,
        request: &WriteRequest,
        execution: &mut OrderExecution,
    ) -> bool {
        let Some(address) = self.address(unit) else { return false };
        if self.abandon_before_write(unit, request, execution) {
            return false;
        }
        let limit = execution.write_limit();
        let mut exchange = self.connection.write(address, request, limit).await;
        if exchange.is_unsent() {
            let had_answered = self.server.unit(unit).is_some_and(|unit| unit.session.has_answered);
            let is_open = self.reopen_stale(unit, &request.to_read_request(), &exchange).await;
            if !is_open || self.abandon_before_write(unit, request, execution) {
                return false;
            }
            exchange = self.connection.write(address, request, limit).await;
            exchange.is_repeated = had_answered;
        }
        let at = (now(), self.connection.random());
        let (answer, blame) = self.server.on_order_write(unit, request, exchange, at);
        self.on_blame(blame);
        let Some(answer) = answer else { return false };
        execution.on_write(answer);
        true
    }

    /// Abandons an order whose next write must not be sent now. Returns whether that is so.
    fn abandon_before_write(
        &mut self,
        unit: usize,
        request: &WriteRequest,
        execution: &mut OrderExecution,
    ) -> bool {
        let reason = if self.server.is_lost_write(unit, request) && !self.connection.may_search() {
            Some(NotSentReason::LosesConnection)
        } else {
            self.server.order_obstacle(unit, execution.order())
        };
        let is_abandoned = reason.is_some();
        if let Some(reason) = reason {
            execution.on_abandoned(reason);
        }
        is_abandoned
    }

    /// Reads back as soon as the PLC answers again, the first time now.
    async fn read_back_later(&mut self, unit: usize, execution: OrderExecution) -> ControlFlow<()> {
        let deadline = now() + READ_BACK_LIMIT;
        self.read_backs.push(PendingReadBack { unit, execution, next_try: now(), deadline });
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
            if pending.deadline <= now() || !pending.execution.is_read_back_due() {
                self.report(pending.execution).await?;
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
            self.drive(unit, &mut pending.execution).await;
        }
        pending.next_try = now() + READ_BACK_PAUSE;
    }

    /// Returns when a read-back is to be tried again.
    pub(super) fn next_read_back(&self) -> Option<Instant> {
        self.read_backs.iter().map(|pending| pending.next_try.min(pending.deadline)).min()
    }

    async fn report(&mut self, execution: OrderExecution) -> ControlFlow<()> {
        let report = execution.into_report(clock::now());
        match self.events.send(PlcEvent::Written(Box::new(report))).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
