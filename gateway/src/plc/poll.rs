//! Obeys the schedule: one scan class of one unit after the other, each request once, never two at
//! a time on the connection that the units share.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::connection::ManagedConnection;
use super::session::Connector;
use super::silent_units::RetryAllowance;
use super::unit::UnitState;
use super::unit_poll::{ServerState, UnitPoll};
use super::{Endpoint, PlcEvent, RateLimit, plc_r};
use crate::clock::Anchor;
use crate::schedule::{PeriodicJob, Schedule, ScheduleStep};

/// How often a Modicon is asked whether its program runs, and which one it is.
pub(super) const PROGRAM_POLL_PERIOD: Duration = Duration::from_secs(10);
/// Spreads any number of things evenly over a circle.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// Polls the units behind one connection.
pub(super) struct Poller<C: Connector> {
    units: Vec<UnitState>,
    phase: f64,
    events: mpsc::Sender<PlcEvent>,
    connection: ManagedConnection<C>,
    server_state: ServerState,
    /// How long each job waited for answers the last time.
    busy_times: Vec<Duration>,
    /// The ceiling that was reached since nothing was due last.
    limit_reached: Option<RateLimit>,
}

#[derive(Clone, Copy, Debug)]
struct PollJob {
    /// Its place among the jobs.
    index: usize,
    unit: usize,
    task: PollTask,
}

#[derive(Clone, Copy, Debug)]
enum PollTask {
    /// Read this scan class.
    ReadCycle(u16),
    /// Ask whether the program runs.
    PollProgram,
}

impl<C: Connector> Poller<C> {
    pub(super) fn new(
        link: Endpoint,
        connect: C,
        events: mpsc::Sender<PlcEvent>,
        random: fastrand::Rng,
    ) -> Self {
        let Endpoint { plcs: targets, phase } = link;
        let pacing = targets.iter().map(|target| target.config.pacing).reduce(Pacing::strictest);
        let line = ManagedConnection::new(connect, pacing.unwrap_or_default(), random);
        let units = targets.into_iter().map(UnitState::new).collect();
        Self {
            units,
            phase,
            events,
            connection: line,
            server_state: ServerState::new(),
            busy_times: Vec::new(),
            limit_reached: None,
        }
    }

    /// Polls until `stop` fires or nobody listens.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let jobs = self.jobs();
        self.busy_times = vec![Duration::ZERO; jobs.len()];
        let mut schedule = Schedule::new(jobs, now());
        while !stop.is_cancelled() && !self.events.is_closed() {
            if let Some((ceiling, until)) =
                schedule.next_due_job(now()).and_then(|job| self.throttled_until(job))
            {
                self.limit_reached = Some(ceiling);
                wait(&self.events, Some(until), &stop).await;
                continue;
            }
            match schedule.next_step(now()) {
                ScheduleStep::Run { job, missed } => {
                    let spent = self.connection.busy_time();
                    if self.run_job(job, missed, &stop).await.is_break() {
                        break;
                    }
                    self.record_busy_time(job, spent);
                }
                ScheduleStep::Wait(until) => {
                    self.limit_reached = None;
                    wait(&self.events, until, &stop).await;
                }
            }
        }
        self.connection.close().await;
        for unit in &self.units {
            unit.metrics.up.set(0);
        }
    }

    /// What stands against this job, if it takes as long as the last time.
    fn throttled_until(&mut self, job: PollJob) -> Option<(RateLimit, Instant)> {
        let is_silent = self.units.get(job.unit).is_some_and(|unit| unit.backoff.is_silent());
        let turn = self.busy_times.get(job.index).filter(|_| !is_silent);
        self.connection.throttled_until(turn.copied().unwrap_or_default())
    }

    /// Notes how long this job waited for answers, unless one did not come: that says nothing of the
    /// next time.
    fn record_busy_time(&mut self, job: PollJob, spent_before: Duration) {
        let is_silent = self.units.get(job.unit).is_some_and(|unit| unit.backoff.is_silent());
        if let Some(turn) = self.busy_times.get_mut(job.index)
            && self.connection.is_connected()
            && !is_silent
        {
            *turn = self.connection.busy_time() - spent_before;
        }
    }

    /// What is to be done; the units are spread like the connections of the gateway.
    fn jobs(&self) -> Vec<PeriodicJob<PollJob>> {
        let mut jobs = Vec::new();
        let mut phase = self.phase.clamp(0.0, 0.999);
        for (index, unit) in self.units.iter().enumerate() {
            let mut add = |task, period: Duration| {
                let group = PollJob { index: jobs.len(), unit: index, task };
                jobs.push(PeriodicJob { job: group, period, phase: period.mul_f64(phase) });
            };
            for (class, scan) in (0..).zip(&unit.plan.classes) {
                add(PollTask::ReadCycle(class), scan.period);
            }
            if plc_r::has_plc_r(unit.config.model) {
                add(PollTask::PollProgram, PROGRAM_POLL_PERIOD);
            }
            phase = (phase + GOLDEN_RATIO).fract().min(0.999);
        }
        jobs
    }

    async fn run_job(
        &mut self,
        job: PollJob,
        missed: u32,
        stop: &CancellationToken,
    ) -> ControlFlow<()> {
        let class = match job.task {
            PollTask::PollProgram => {
                if let Some(mut visit) = self.unit_poll(job.unit, stop) {
                    visit.poll_program_state(PROGRAM_POLL_PERIOD / 2).await;
                }
                return ControlFlow::Continue(());
            }
            PollTask::ReadCycle(class) => class,
        };
        self.probe_silent_unit(job.unit, stop).await;
        let reached = self.limit_reached;
        let Some(mut visit) = self.unit_poll(job.unit, stop) else { return ControlFlow::Break(()) };
        visit.unit.on_missed_cycles(missed, reached, now(), visit.events).await;
        let Some(cycle) = visit.read_cycle(class).await else { return ControlFlow::Break(()) };
        if visit.events.send(PlcEvent::Cycle(cycle)).await.is_err() {
            return ControlFlow::Break(());
        }
        visit.unit.report_learned(visit.events).await;
        visit.identify_device().await;
        ControlFlow::Continue(())
    }

    /// In the turn of a silent unit, tries the silent one whose turn it is, if any is to be tried.
    async fn probe_silent_unit(&mut self, unit: usize, stop: &CancellationToken) {
        if !self.units.get(unit).is_some_and(|unit| unit.backoff.is_silent()) {
            return;
        }
        let spare = if !self.units.iter().any(|unit| unit.is_answering) {
            RetryAllowance::Unlimited
        } else if self.connection.has_spare_connect() {
            RetryAllowance::WithinBudget
        } else {
            RetryAllowance::OverdueOnly
        };
        // Of one that was not asked yet nothing is known: it may be the one that answers.
        let unasked = self.units.iter().position(UnitState::is_untried);
        let next = unasked.filter(|_| spare == RetryAllowance::Unlimited).or_else(|| {
            let standings = self.units.iter().map(|unit| &unit.backoff);
            self.server_state.silent_units.next_unit(standings, spare, now())
        });
        let Some(next) = next else { return };
        let Some(mut visit) = self.unit_poll(next, stop) else { return };
        visit.probe().await;
    }

    fn unit_poll<'a>(
        &'a mut self,
        unit: usize,
        stop: &'a CancellationToken,
    ) -> Option<UnitPoll<'a, C>> {
        let Self { units, events, connection: line, server_state: server, .. } = self;
        let (before, rest) = units.split_at_mut_checked(unit)?;
        let (unit, after) = rest.split_first_mut()?;
        let began = Anchor::new(now());
        Some(UnitPoll {
            unit,
            others: [before, after],
            connection: line,
            server,
            events,
            stop,
            started: began,
        })
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Waits until then, or until there is no reason to go on.
async fn wait(events: &mpsc::Sender<PlcEvent>, until: Option<Instant>, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = events.closed() => {}
        () = sleep_until(until) => {}
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
