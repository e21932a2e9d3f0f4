//! Obeys the schedule: one scan class after the other, each request once, never two at a time.

use std::time::Instant;

use provisioning::plan::{Plan, ScanClass};
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::session::Connect;
use super::{Cycle, Event, Failure, Link, Read};
use crate::clock;
use crate::metrics::PlcMetrics;
use crate::schedule::{Group, Schedule, Step};

/// Polls one PLC.
pub(super) struct Poller<C: Connect> {
    plc: u16,
    plan: Plan,
    /// For each class the request with which its next cycle begins.
    begin: Vec<usize>,
    phase: f64,
    metrics: PlcMetrics,
    events: mpsc::Sender<Event>,
    line: Line<C>,
}

impl<C: Connect> Poller<C> {
    pub(super) fn new(
        link: Link,
        connect: C,
        events: mpsc::Sender<Event>,
        random: fastrand::Rng,
    ) -> Self {
        let Link { plc, config, plan, phase, metrics } = link;
        let begin = vec![0; plan.classes.len()];
        let line = Line::new(plc, config, metrics.clone(), events.clone(), connect, random);
        Self { plc, plan, begin, phase, metrics, events, line }
    }

    /// Polls until `stop` fires or nobody listens.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut schedule = Schedule::new(self.groups(), now());
        while !stop.is_cancelled() && !self.events.is_closed() {
            match schedule.next(now()) {
                Step::Read { group, missed } => {
                    self.metrics.cycles_missed.inc_by(missed.into());
                    let Some(cycle) = self.cycle(group, &stop).await else { break };
                    if self.events.send(Event::Cycle(cycle)).await.is_err() {
                        break;
                    }
                }
                Step::Wait(until) => tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.events.closed() => break,
                    () = sleep_until(until) => {}
                },
            }
        }
        self.line.close().await;
    }

    fn groups(&self) -> Vec<Group<u16>> {
        let group = |(group, class): (u16, &ScanClass)| Group {
            group,
            period: class.period,
            phase: class.period.mul_f64(self.phase.clamp(0.0, 0.999)),
        };
        (0..).zip(&self.plan.classes).map(group).collect()
    }

    /// Reads one class; nothing when `stop` fires before it is whole.
    async fn cycle(&mut self, class: u16, stop: &CancellationToken) -> Option<Cycle> {
        let start = now();
        self.line.ensure(stop).await;
        let requests = &self.plan.classes.get(usize::from(class))?.requests;
        let begin = self.begin.get_mut(usize::from(class))?;
        let unread = Read { at: clock::now(), outcome: Err(Failure::Unreachable) };
        let mut reads = vec![unread; requests.len()];
        let first = *begin;
        for index in (first..requests.len()).chain(0..first) {
            if stop.is_cancelled() {
                return None;
            }
            let was_connected = self.line.is_connected();
            let (Some(request), Some(read)) = (requests.get(index), reads.get_mut(index)) else {
                continue;
            };
            *read = if index == first {
                self.line.read_first(request, stop).await
            } else {
                self.line.read(request).await
            };
            if was_connected && !self.line.is_connected() {
                // The next cycle begins behind the request that cost the session, so that one
                // stretch on which the PLC chokes does not hide those after it.
                *begin = (index + 1) % requests.len();
            }
        }
        Some(Cycle { plc: self.plc, class, took: now() - start, reads })
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
