//! The poll task of one connection: runs its jobs one after another, never two requests at a time.
//!
//! It only does I/O. What to read, and what an answer means, is decided in `schedule`, `server` and
//! `request_tuner`.

mod orders;
mod read_cycle;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use provisioning::plan::ReadRequest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection::{Blame, ConnectOutcome, Exchange, ManagedConnection, now};
use super::cycle::FollowUp;
use super::identity_probe::Identification;
use super::order_queue::OrderQueue;
use super::server::{PROGRAM_POLL_PERIOD, ProgramPoll, ServerState};
use super::session::{Connector, UnitAddress};
use super::{Endpoint, PlcEvent, PollChannels, RateLimit, plc_r};
use crate::clock::{self, Anchor};
use crate::model::OrderTask;
use crate::schedule::{PeriodicJob, Schedule, ScheduleStep};
use orders::PendingReadBack;

/// Reads of the program state are at least about a second apart, while values stand still.
const MIN_STATUS_INTERVAL: Duration = Duration::from_millis(900);
/// Spreads any number of units evenly over a period.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// Polls the units behind one connection.
pub(super) struct Poller<C: Connector> {
    connection: ManagedConnection<C>,
    server: ServerState,
    schedule: Schedule<PollJob>,
    /// For each periodic job the time that it waited for answers the last time.
    busy_times: Vec<Duration>,
    /// The rate limit that was reached since the schedule was idle last.
    limit_reached: Option<RateLimit>,
    orders: OrderQueue,
    /// Total time that orders waited for answers.
    order_busy_time: Duration,
    /// Writes whose answers are missing.
    read_backs: Vec<PendingReadBack>,
    events: mpsc::Sender<PlcEvent>,
    stop: CancellationToken,
}

/// A job of the poll task, for one unit of the connection.
#[derive(Clone, Copy, Debug)]
enum PollJob {
    /// Due again and again.
    Periodic {
        /// Index of the job in `busy_times`.
        index: usize,
        unit: usize,
        task: PeriodicTask,
    },
    /// Once, now: before the next periodic job.
    Once { unit: usize, task: OneOffTask },
}

/// What a periodic job does.
#[derive(Clone, Copy, Debug)]
enum PeriodicTask {
    /// Reads the scan class with this index.
    ReadCycle(u16),
    /// Reads the state of the program.
    ReadProgramState,
}

/// What a one-off job does.
#[derive(Clone, Copy, Debug)]
enum OneOffTask {
    /// Requests the device name of a unit without PLC_R.
    IdentifyDevice,
}

impl<C: Connector> Poller<C> {
    pub(super) fn new(
        endpoint: Endpoint,
        connector: C,
        channels: PollChannels,
        random: fastrand::Rng,
        stop: CancellationToken,
    ) -> Self {
        let Endpoint { plcs, phase } = endpoint;
        let PollChannels { orders, events } = channels;
        let pacing = plcs.iter().map(|plc| plc.config.pacing).reduce(Pacing::strictest);
        let pacing = pacing.unwrap_or_default();
        let server = ServerState::new(plcs);
        let jobs = jobs(&server, phase);
        Self {
            connection: ManagedConnection::new(connector, pacing, random, stop.clone()),
            server,
            busy_times: vec![Duration::ZERO; jobs.len()],
            schedule: Schedule::new(jobs, now()),
            limit_reached: None,
            orders: OrderQueue::new(orders, pacing.max_share),
            order_busy_time: Duration::ZERO,
            read_backs: Vec::new(),
            events,
            stop,
        }
    }

    /// Polls until `stop` fires or the receiver of the events is gone.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() && !self.events.is_closed() {
            if self.run_next().await.is_break() {
                break;
            }
        }
        self.refuse_orders().await;
        self.connection.close().await;
        for unit in self.server.units() {
            unit.metrics.up.set(0);
        }
    }

    /// Carries out an order, else runs the next job, or waits for either.
    async fn run_next(&mut self) -> ControlFlow<()> {
        self.run_read_backs().await?;
        if let Some(order) = self.orders.take(now()) {
            match order.task {
                OrderTask::ReadAll => self.read_all(order).await?,
                OrderTask::Write | OrderTask::ReadBack => self.run_order(order).await?,
            }
        }
        let due = self.schedule.next_due_job(now());
        if let Some((limit, until)) = due.and_then(|job| self.throttled_until(job)) {
            self.limit_reached = Some(limit);
            self.wait(Some(until)).await;
            return ControlFlow::Continue(());
        }
        match self.schedule.next_step(now()) {
            ScheduleStep::Run { job, missed } => self.run_job(job, missed).await,
            ScheduleStep::Wait(until) => {
                self.limit_reached = None;
                self.wait(until).await;
                ControlFlow::Continue(())
            }
        }
    }

    /// Waits until this time, until there is an order, or until there is a reason to end.
    async fn wait(&mut self, until: Option<Instant>) {
        let until = [until, self.next_read_back()].into_iter().flatten().min();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.events.closed() => {}
            () = self.orders.wait() => {}
            () = clock::sleep_until(until) => {}
        }
    }

    /// Returns the rate limit that delays this job, and when the delay ends, if the job takes as
    /// long as the last time. A one-off job is not delayed: only its requests are.
    fn throttled_until(&mut self, job: PollJob) -> Option<(RateLimit, Instant)> {
        let PollJob::Periodic { index, unit, .. } = job else { return None };
        let busy = self.busy_times.get(index).filter(|_| !self.server.is_silent(unit));
        self.connection.throttled_until(busy.copied().unwrap_or_default())
    }

    async fn run_job(&mut self, job: PollJob, missed: u32) -> ControlFlow<()> {
        match job {
            PollJob::Periodic { index, unit, task } => {
                let busy_before = self.poll_busy_time();
                self.connection.begin_job();
                match task {
                    PeriodicTask::ReadCycle(class) => self.run_cycle(unit, class, missed).await?,
                    PeriodicTask::ReadProgramState => {
                        self.read_program_state(unit, PROGRAM_POLL_PERIOD / 2).await;
                    }
                }
                self.record_busy_time(index, unit, busy_before);
            }
            PollJob::Once { unit, task: OneOffTask::IdentifyDevice } => {
                self.identify_device(unit).await;
            }
        }
        self.send_events().await
    }

    /// Returns the total time that polls waited for answers.
    const fn poll_busy_time(&self) -> Duration {
        self.connection.busy_time().saturating_sub(self.order_busy_time)
    }

    /// Records how long a job waited for answers, unless one was missing: then it says nothing
    /// about the next time.
    fn record_busy_time(&mut self, index: usize, unit: usize, busy_before: Duration) {
        let poll_busy_time = self.poll_busy_time();
        if let Some(busy) = self.busy_times.get_mut(index)
            && self.connection.is_connected()
            && !self.server.is_silent(unit)
        {
            *busy = poll_busy_time.saturating_sub(busy_before);
            self.connection.close_tracker().on_job_done();
        }
    }

    async fn send_events(&mut self) -> ControlFlow<()> {
        for event in self.server.take_events() {
            if self.events.send(event).await.is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Runs one cycle of a scan class: probes a silent unit, opens a session, reads, has the result
    /// judged, and passes it on.
    async fn run_cycle(&mut self, unit: usize, class: u16, missed: u32) -> ControlFlow<()> {
        self.probe_silent_unit(unit).await;
        self.server.on_missed_cycles(unit, missed, self.limit_reached, now());
        let anchor = Anchor::new(now());
        if !self.server.is_silent(unit) {
            self.connect().await;
            self.start_session(unit).await;
            self.server.report_too_many_connects(unit);
        }
        let Some(values) = self.read_cycle(unit, class, anchor).await else {
            return ControlFlow::Break(());
        };
        let judged = self.server.on_cycle(unit, values, now());
        let Some((cycle, follow_up)) = judged else { return ControlFlow::Break(()) };
        match follow_up {
            FollowUp::Nothing => {}
            FollowUp::Identify => self.identify_late(unit).await,
            // A value is worth more than the state: nothing is read beyond a rate limit.
            FollowUp::ReadProgramState => {
                if self.connection.throttled_until(Duration::ZERO).is_none() {
                    self.read_program_state(unit, MIN_STATUS_INTERVAL).await;
                }
            }
        }
        self.server.end_cycle(unit, cycle, now());
        if self.server.wants_device_name(unit, self.connection.has_spare_connect(), now()) {
            self.schedule.run_once(PollJob::Once { unit, task: OneOffTask::IdentifyDevice });
        }
        ControlFlow::Continue(())
    }

    /// Connects if needed and allowed. Returns `false` when it is not allowed now.
    async fn connect(&mut self) -> bool {
        match self.connection.connect().await {
            ConnectOutcome::Deferred => return false,
            ConnectOutcome::Opened { may_have_restarted } => {
                self.server.on_connected(may_have_restarted);
            }
            ConnectOutcome::Failed(error) => self.server.on_connect_failed(&error),
            ConnectOutcome::AlreadyOpen | ConnectOutcome::Stopped => {}
        }
        true
    }

    /// Identifies a unit that was not asked in this session yet: before its first value, so that it
    /// is known from there on whether its program runs.
    async fn start_session(&mut self, unit: usize) {
        if let Some(identification) = self.server.start_session(unit, now()) {
            self.identify(unit, &identification).await;
        }
    }

    /// Identifies a unit whose identity was put off until the session had answered.
    async fn identify_late(&mut self, unit: usize) {
        if let Some(identification) = self.server.start_late_identification(unit, now()) {
            self.identify(unit, &identification).await;
        }
    }

    async fn identify(&mut self, unit: usize, identification: &Identification) {
        for request in identification.requests {
            let Some(exchange) = self.exchange(unit, request).await else { break };
            let at = (now(), self.connection.random());
            let (is_next, blame) =
                self.server.on_identity(unit, identification, request, exchange, at);
            self.on_blame(blame);
            if !is_next {
                break;
            }
        }
        self.server.on_identified(unit, now());
    }

    /// Reads the state of a unit's program, unless that was done within `min_interval`.
    async fn read_program_state(&mut self, unit: usize, min_interval: Duration) {
        let request = match self.server.next_program_poll(unit, min_interval, now()) {
            ProgramPoll::NotDue => return,
            ProgramPoll::Identify => return self.identify_late(unit).await,
            ProgramPoll::Read(request) => request,
        };
        let (may_be_stale, is_idle) = (self.connection.may_be_stale(), self.connection.is_idle());
        let Some(exchange) = self.exchange(unit, &request).await else { return };
        let changes = self.server.on_program_state(unit, &exchange, is_idle, now());
        if may_be_stale && exchange.is_closed() {
            // As before the first request of a cycle; here the next period is early enough.
            self.server.count_request(unit, &request, &exchange);
            self.on_closed_by_server();
            if self.connect().await {
                self.connection.close_tracker().on_orderly_close();
                self.start_session(unit).await;
            }
            return;
        }
        let at = (now(), self.connection.random());
        let blame = self.server.on_program_exchange(unit, &request, exchange, changes, at);
        self.on_blame(blame);
    }

    /// Probes the silent unit that is due, if the job at hand is that of a silent unit.
    async fn probe_silent_unit(&mut self, unit: usize) {
        let has_spare_connect = self.connection.has_spare_connect();
        let Some(unit) = self.server.next_probe(unit, has_spare_connect, now()) else { return };
        self.connect().await;
        let state = self.server.unit_mut(unit);
        let Some(request) = state.and_then(|unit| unit.probe_request(now())) else { return };
        if !self.connection.is_connected() {
            return;
        }
        let Some(address) = self.address_of_any(unit) else { return };
        let exchange = self.connection.read(address, &request).await;
        let at = (now(), self.connection.random());
        let blame = self.server.on_probe(unit, &request, exchange, at);
        self.on_blame(blame);
    }

    /// Requests the device name of a unit.
    async fn identify_device(&mut self, unit: usize) {
        let Some(address) = self.server.start_device_name(unit) else { return };
        let exchange = self.connection.read_device_identification(address).await;
        self.server.on_device_name(unit, exchange, now());
    }

    /// Sends one request; `None` when there is no connection, or the unit is silent.
    async fn exchange(&mut self, unit: usize, request: &ReadRequest) -> Option<Exchange> {
        let address = self.address(unit).filter(|_| self.connection.is_connected())?;
        Some(self.connection.read(address, request).await)
    }

    /// Returns the address of a unit that is not silent.
    fn address(&self, unit: usize) -> Option<UnitAddress> {
        self.address_of_any(unit).filter(|_| !self.server.is_silent(unit))
    }

    fn address_of_any(&self, unit: usize) -> Option<UnitAddress> {
        self.server.unit(unit).map(|unit| unit.address())
    }

    fn on_closed_by_server(&mut self) {
        self.connection.on_closed_by_server();
        self.server.on_session_closed();
    }

    fn on_blame(&mut self, blame: Option<Blame>) {
        if let Some(blame) = blame {
            self.connection.on_connection_lost(blame);
        }
    }
}

/// Returns the periodic jobs of a connection. Its units are spread over a period, like the
/// connections of the gateway.
fn jobs(server: &ServerState, phase: f64) -> Vec<PeriodicJob<PollJob>> {
    let mut jobs = Vec::new();
    let mut phase = phase.clamp(0.0, 0.999);
    for (unit, state) in server.units().iter().enumerate() {
        let mut add = |task, period: Duration| {
            let job = PollJob::Periodic { index: jobs.len(), unit, task };
            jobs.push(PeriodicJob { job, period, phase: period.mul_f64(phase) });
        };
        for (class, scan) in (0..).zip(&state.plan.classes) {
            add(PeriodicTask::ReadCycle(class), scan.period);
        }
        if plc_r::has_plc_r(state.config.model) {
            add(PeriodicTask::ReadProgramState, PROGRAM_POLL_PERIOD);
        }
        phase = (phase + GOLDEN_RATIO).fract().min(0.999);
    }
    jobs
}
