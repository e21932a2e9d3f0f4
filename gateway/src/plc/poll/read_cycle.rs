//! Sends the requests of one cycle.

use std::time::{Duration, Instant};

use provisioning::plan::ReadRequest;

use super::Poller;
use crate::clock::{self, Anchor};
use crate::plc::connection::{Blame, Exchange, now};
use crate::plc::cycle::CycleValues;
use crate::plc::session::Connector;

/// Most refused requests that are split in one cycle. Each split costs two requests, so that the
/// search ends after a few cycles, and none of them takes much longer than others.
const MAX_SPLITS_PER_CYCLE: u8 = 16;
/// A request that the PLC is too busy to answer is sent again after this pause, then after twice
/// the pause, as often as this and as the period of the cycle allow.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
const MAX_BUSY_RETRIES: u8 = 3;

impl<C: Connector> Poller<C> {
    /// Reads a scan class: first what is expected to be answered, then the parts of what was
    /// refused, and last what may cost the session. Returns `None` when `stop` fires before all is
    /// read.
    pub(super) async fn read_cycle(
        &mut self,
        unit: usize,
        class: u16,
        anchor: Anchor,
    ) -> Option<CycleValues> {
        let mut values = self.server.begin_cycle(unit, class, (now(), anchor))?;
        self.read_regular(unit, &mut values).await;
        self.split_refused(unit, &mut values).await;
        self.search(unit, &mut values).await;
        values.skip_rest(now());
        (!self.stop.is_cancelled()).then_some(values)
    }

    /// Sends the requests over which no session is expected to end, until one is not answered.
    /// An order passes each.
    async fn read_regular(&mut self, unit: usize, values: &mut CycleValues) {
        let list = values.list();
        let retry_until = values.start() + values.period() * 3 / 4;
        let mut losses = 0;
        while self.let_order_pass().await.is_continue()
            && let Some(position) = values.next_position().filter(|at| !values.is_search(*at))
            && let Some(request) = list.requests.get(position)
            && !self.stop.is_cancelled()
        {
            let Some(exchange) = self.read_once_more(unit, request, retry_until).await else {
                self.server.on_not_repeated(unit, values.class(), position);
                break;
            };
            let (is_answered, random) = (exchange.is_answered(), self.connection.random());
            let blame = self.server.on_read(unit, values, position, exchange, random);
            self.on_blame(blame);
            match blame {
                // The others are read on: after the first loss, and then as time allows.
                Some(Blame::Request { .. }) => {
                    let has_time = losses == 0 || is_early(values);
                    losses += 1;
                    if !has_time || !self.read_on(unit, values).await {
                        break;
                    }
                }
                Some(_) => break,
                None if !is_answered => break,
                None => {}
            }
        }
    }

    /// Sends requests that may cost the session, if all others were sent: one in each cycle, and
    /// more within half of its period.
    async fn search(&mut self, unit: usize, values: &mut CycleValues) {
        let list = values.list();
        let mut is_first = true;
        while let Some(position) = values.next_position().filter(|at| values.is_search(*at))
            && let Some(request) = list.requests.get(position)
            && (std::mem::take(&mut is_first) || is_early(values))
            && self.connection.may_search()
            && !self.stop.is_cancelled()
        {
            let Some(exchange) = self.exchange(unit, request).await else { break };
            let (is_answered, random) = (exchange.is_answered(), self.connection.random());
            let blame = self.server.on_read(unit, values, position, exchange, random);
            self.on_blame(blame);
            let may_go_on = match blame {
                Some(Blame::Request { .. }) => self.read_on(unit, values).await,
                Some(_) => false,
                None => is_answered,
            };
            if !may_go_on {
                break;
            }
        }
    }

    /// Opens a new connection after a request cost one. Returns whether the unit answers on it: a
    /// request that was answered in this cycle is sent again, so that the next loss is not taken
    /// for that of a server that has failed.
    async fn read_on(&mut self, unit: usize, values: &CycleValues) -> bool {
        if values.next_position().is_none() {
            return false;
        }
        self.connect().await;
        self.start_session(unit).await;
        if self.server.unit(unit).is_some_and(|unit| unit.session.has_answered) {
            return true;
        }
        let Some(request) = values.answered_request() else { return true };
        let Some(exchange) = self.exchange(unit, request).await else { return false };
        let at = (now(), self.connection.random());
        let blame = self.server.on_repeated_read(unit, request, exchange, at);
        self.on_blame(blame);
        self.server.is_reachable(unit)
    }

    /// Sends one request. If the server has closed the connection, on which it had answered, the
    /// request is sent once more on a new one: the server may have closed it while it was idle, or
    /// after the answer, which only use reveals. Returns `None` without a connection, and on stop.
    async fn read_once_more(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        retry_until: Instant,
    ) -> Option<Exchange> {
        let may_be_stale = self.connection.may_be_stale();
        let had_answered = self.server.unit(unit).is_some_and(|unit| unit.session.has_answered);
        let exchange = self.read_patiently(unit, request, retry_until).await?;
        if !may_be_stale || !exchange.is_closed() {
            if may_be_stale && exchange.is_answered() {
                self.connection.close_tracker().on_kept();
            }
            return Some(exchange);
        }
        if !self.reopen_stale(unit, request, &exchange).await {
            return Some(exchange);
        }
        let mut again = self.read_patiently(unit, request, retry_until).await?;
        again.is_repeated = had_answered;
        if again.is_answered() {
            self.connection.close_tracker().on_orderly_close();
        }
        Some(again)
    }

    /// Opens a new connection in place of one that the server had closed. Returns `false` when that
    /// is not allowed now: then the exchange is judged like any other.
    pub(super) async fn reopen_stale<T: Sync>(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        exchange: &Exchange<T>,
    ) -> bool {
        self.on_closed_by_server();
        if !self.connect().await && !self.connect_in_turn().await {
            return false;
        }
        self.server.count_request(unit, request, exchange);
        self.start_session(unit).await;
        true
    }

    /// Waits for a connect that was deferred, if the server closes the connection after each answer:
    /// a cycle may need more connects than the budget has at once, and its last requests would
    /// never be sent. Returns whether it is connected.
    async fn connect_in_turn(&mut self) -> bool {
        if !self.connection.close_tracker().may_wait() {
            return false;
        }
        tokio::select! {
            () = self.stop.cancelled() => return false,
            () = clock::sleep_until(self.connection.next_connect_at()) => {}
        }
        self.connect().await
    }

    /// Sends one request, and again after a pause while the PLC is too busy to answer it. Returns
    /// `None` without a connection, and on stop.
    async fn read_patiently(
        &mut self,
        unit: usize,
        request: &ReadRequest,
        retry_until: Instant,
    ) -> Option<Exchange> {
        let mut pause = BUSY_PAUSE;
        for _ in 0..MAX_BUSY_RETRIES {
            let exchange = self.exchange(unit, request).await?;
            if !exchange.is_busy() || now() + pause > retry_until {
                return Some(exchange);
            }
            self.server.count_request(unit, request, &exchange);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = clock::sleep_until(Some(now() + pause)) => {}
            }
            pause *= 2;
        }
        self.exchange(unit, request).await
    }

    /// Splits refused requests: one at least, and more within half a scan period. Tags of requests
    /// that are not split to the end keep their last value in this cycle.
    async fn split_refused(&mut self, unit: usize, values: &mut CycleValues) {
        let limit = values.start() + values.period() / 2;
        for splits in 0..MAX_SPLITS_PER_CYCLE {
            let is_over = splits > 0 && now() > limit;
            if is_over || self.stop.is_cancelled() || !self.server.is_reachable(unit) {
                break;
            }
            let Some(split) = self.server.next_split(unit, values) else { break };
            let mut exchanges = Vec::with_capacity(split.halves.len());
            for half in &split.halves {
                let Some(exchange) = self.exchange(unit, &half.request).await else { break };
                let is_answered = exchange.is_answered();
                exchanges.push(exchange);
                if !is_answered {
                    break;
                }
            }
            let at = (now(), self.connection.random());
            let blame = self.server.on_split(unit, values, split, exchanges, at);
            self.on_blame(blame);
        }
    }
}

/// Returns whether less than half of the period of a cycle is over.
fn is_early(values: &CycleValues) -> bool {
    now() <= values.start() + values.period() / 2
}
