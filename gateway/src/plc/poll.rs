//! Obeys the schedule: one scan class of one unit after the other, each request once, never two at
//! a time on the connection that the units share.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use provisioning::config::Pacing;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::pace::Ceiling;
use super::rota::Spare;
use super::session::Connect;
use super::unit::Unit;
use super::visit::{Server, Visit};
use super::{Event, Link, identity};
use crate::clock::Anchor;
use crate::schedule::{Group, Schedule, Step};

/// How often a Modicon is asked whether its program runs, and which one it is.
pub(super) const WATCH: Duration = Duration::from_secs(10);
/// Spreads any number of things evenly over a circle.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Polls the units behind one connection.
pub(super) struct Poller<C: Connect> {
    units: Vec<Unit>,
    phase: f64,
    events: mpsc::Sender<Event>,
    line: Line<C>,
    server: Server,
    /// How long each job waited for answers the last time.
    turns: Vec<Duration>,
    /// The ceiling that was reached since nothing was due last.
    reached: Option<Ceiling>,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    /// Its place among the jobs.
    index: usize,
    unit: usize,
    task: Task,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    /// Read this scan class.
    Cycle(u16),
    /// Ask whether the program runs.
    Watch,
}

impl<C: Connect> Poller<C> {
    pub(super) fn new(
        link: Link,
        connect: C,
        events: mpsc::Sender<Event>,
        random: fastrand::Rng,
    ) -> Self {
        let Link { targets, phase } = link;
        let pacing = targets.iter().map(|target| target.config.pacing).reduce(Pacing::and);
        let line = Line::new(connect, pacing.unwrap_or_default(), random);
        let units = targets.into_iter().map(Unit::new).collect();
        Self { units, phase, events, line, server: Server::new(), turns: Vec::new(), reached: None }
    }

    /// Polls until `stop` fires or nobody listens.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let jobs = self.jobs();
        self.turns = vec![Duration::ZERO; jobs.len()];
        let mut schedule = Schedule::new(jobs, now());
        while !stop.is_cancelled() && !self.events.is_closed() {
            if let Some((ceiling, until)) = schedule.due(now()).and_then(|job| self.holds(job)) {
                self.reached = Some(ceiling);
                wait(&self.events, Some(until), &stop).await;
                continue;
            }
            match schedule.next(now()) {
                Step::Read { group: job, missed } => {
                    let spent = self.line.spent();
                    if self.turn(job, missed, &stop).await.is_break() {
                        break;
                    }
                    self.note(job, spent);
                }
                Step::Wait(until) => {
                    self.reached = None;
                    wait(&self.events, until, &stop).await;
                }
            }
        }
        self.line.close().await;
        for unit in &self.units {
            unit.metrics.up.set(0);
        }
    }

    /// What stands against this job, if it takes as long as the last time.
    fn holds(&mut self, job: Job) -> Option<(Ceiling, Instant)> {
        let is_silent = self.units.get(job.unit).is_some_and(|unit| unit.standing.is_silent());
        let turn = self.turns.get(job.index).filter(|_| !is_silent);
        self.line.holds(turn.copied().unwrap_or_default())
    }

    /// Notes how long this job waited for answers, unless one did not come: that says nothing of the
    /// next time.
    fn note(&mut self, job: Job, spent_before: Duration) {
        let is_silent = self.units.get(job.unit).is_some_and(|unit| unit.standing.is_silent());
        if let Some(turn) = self.turns.get_mut(job.index)
            && self.line.is_connected()
            && !is_silent
        {
            *turn = self.line.spent() - spent_before;
        }
    }

    /// What is to be done; the units are spread like the connections of the gateway.
    fn jobs(&self) -> Vec<Group<Job>> {
        let mut jobs = Vec::new();
        let mut phase = self.phase.clamp(0.0, 0.999);
        for (index, unit) in self.units.iter().enumerate() {
            let mut add = |task, period: Duration| {
                let group = Job { index: jobs.len(), unit: index, task };
                jobs.push(Group { group, period, phase: period.mul_f64(phase) });
            };
            for (class, scan) in (0..).zip(&unit.plan.classes) {
                add(Task::Cycle(class), scan.period);
            }
            if identity::is_told_by(unit.config.model) {
                add(Task::Watch, WATCH);
            }
            phase = (phase + GOLDEN).fract().min(0.999);
        }
        jobs
    }

    async fn turn(&mut self, job: Job, missed: u32, stop: &CancellationToken) -> ControlFlow<()> {
        let class = match job.task {
            Task::Watch => {
                if let Some(mut visit) = self.visit(job.unit, stop) {
                    visit.watch(WATCH / 2).await;
                }
                return ControlFlow::Continue(());
            }
            Task::Cycle(class) => class,
        };
        self.try_silent(job.unit, stop).await;
        let reached = self.reached;
        let Some(mut visit) = self.visit(job.unit, stop) else { return ControlFlow::Break(()) };
        visit.unit.missed(missed, reached, now(), visit.events).await;
        let Some(cycle) = visit.cycle(class).await else { return ControlFlow::Break(()) };
        if visit.events.send(Event::Cycle(cycle)).await.is_err() {
            return ControlFlow::Break(());
        }
        visit.unit.tell_what_was_learned(visit.events).await;
        visit.ask_name().await;
        ControlFlow::Continue(())
    }

    /// In the turn of a silent unit, tries the silent one whose turn it is, if any is to be tried.
    async fn try_silent(&mut self, unit: usize, stop: &CancellationToken) {
        if !self.units.get(unit).is_some_and(|unit| unit.standing.is_silent()) {
            return;
        }
        let spare = if !self.units.iter().any(|unit| unit.answers) {
            Spare::Everything
        } else if self.line.may_connect_again() {
            Spare::Connect
        } else {
            Spare::Nothing
        };
        // Of one that was not asked yet nothing is known: it may be the one that answers.
        let unasked = self.units.iter().position(Unit::is_unasked);
        let next = unasked.filter(|_| spare == Spare::Everything).or_else(|| {
            let standings = self.units.iter().map(|unit| &unit.standing);
            self.server.rota.next(standings, spare, now())
        });
        let Some(next) = next else { return };
        let Some(mut visit) = self.visit(next, stop) else { return };
        visit.try_again().await;
    }

    fn visit<'a>(&'a mut self, unit: usize, stop: &'a CancellationToken) -> Option<Visit<'a, C>> {
        let Self { units, events, line, server, .. } = self;
        let (before, rest) = units.split_at_mut_checked(unit)?;
        let (unit, after) = rest.split_first_mut()?;
        let began = Anchor::new(now());
        Some(Visit { unit, others: [before, after], line, server, events, stop, began })
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Waits until then, or until there is no reason to go on.
async fn wait(events: &mpsc::Sender<Event>, until: Option<Instant>, stop: &CancellationToken) {
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
