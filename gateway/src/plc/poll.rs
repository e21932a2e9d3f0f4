//! Obeys the schedule: one scan class after the other, each request once, never two at a time.

use std::sync::Arc;
use std::time::Instant;

use provisioning::plan::{Plan, ReadRequest, ScanClass};
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::learning::{Agenda, Learning, Part, Verdict};
use super::line::Line;
use super::session::Connect;
use super::{Cycle, Event, Failure, Link, Read};
use crate::clock;
use crate::metrics::PlcMetrics;
use crate::schedule::{Group, Schedule, Step};

/// Most refused requests that are taken apart in one cycle. Each costs two requests; the search is
/// over after a few cycles, and none of them takes much longer than others.
const MOST_SPLITS: u8 = 16;

/// Polls one PLC.
pub(super) struct Poller<C: Connect> {
    plc: u16,
    plan: Plan,
    learning: Learning,
    /// For each class the request with which its next cycle begins.
    begin: Vec<usize>,
    phase: f64,
    metrics: PlcMetrics,
    events: mpsc::Sender<Event>,
    line: Line<C>,
    /// How many sessions there were when this was looked at last.
    sessions: u64,
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
        let learning = Learning::new(&config, &plan);
        let line = Line::new(plc, config, metrics.clone(), events.clone(), connect, random);
        Self { plc, plan, learning, begin, phase, metrics, events, line, sessions: 0 }
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
                    self.tell_what_was_learned().await;
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
        let (at, start) = (clock::now(), now());
        self.line.ensure(stop).await;
        if self.sessions != self.line.sessions() {
            self.sessions = self.line.sessions();
            self.learning.connected(now());
        }
        let agenda = self.learning.agenda(class, now())?;
        let mut taken = Taken::new(&agenda);
        let first = self.begin.get(usize::from(class))? % agenda.requests.len().max(1);
        for index in (first..agenda.requests.len()).chain(0..first) {
            if stop.is_cancelled() {
                return None;
            }
            let (Some(request), Some(part)) = (agenda.requests.get(index), agenda.parts.get(index))
            else {
                continue;
            };
            let was_connected = self.line.is_connected();
            let read = if index == first {
                self.line.read_first(request, stop).await
            } else {
                self.line.read(request).await
            };
            if was_connected && !self.line.is_connected() {
                // The next cycle begins behind the request that cost the session, so that one
                // stretch on which the PLC chokes does not hide those after it.
                *self.begin.get_mut(usize::from(class))? = index + 1;
            }
            let verdict =
                if was_connected { self.learn(class, part, &read) } else { Verdict::Final };
            taken.put(index, read, verdict);
        }
        let half_period = self.plan.classes.get(usize::from(class))?.period / 2;
        self.take_apart(class, start + half_period, &mut taken, stop).await;
        let (requests, reads) = taken.finish(&agenda);
        Some(Cycle { plc: self.plc, class, at, took: now() - start, requests, reads })
    }

    fn learn(&mut self, class: u16, part: &Part, read: &Read) -> Verdict {
        if !self.line.is_connected() && self.line.was_hung_up() {
            self.learning.hung_up(class, part, now());
        }
        self.learning.heard(class, part, &read.outcome, now())
    }

    /// Takes refused requests apart: one at least, and more until `limit`. Tags that are still
    /// under suspicion then say nothing in this cycle.
    async fn take_apart(
        &mut self,
        class: u16,
        limit: Instant,
        taken: &mut Taken,
        stop: &CancellationToken,
    ) {
        for splits in 0..MOST_SPLITS {
            let is_over = splits > 0 && now() > limit;
            if is_over || stop.is_cancelled() || !self.line.is_connected() {
                break;
            }
            let Some(split) = self.learning.split(class) else { break };
            let [left, right] = &split.halves;
            let left = (left.request.clone(), self.line.read(&left.request).await);
            let right = (right.request.clone(), self.line.read(&right.request).await);
            let outcomes = [&left.1.outcome, &right.1.outcome];
            let verdicts = self.learning.halves_heard(class, split, outcomes, now());
            for ((request, read), verdict) in [left, right].into_iter().zip(verdicts) {
                if verdict == Verdict::Final {
                    taken.extra.push((request, read));
                }
            }
        }
        let (at, connected) = (clock::now(), self.line.is_connected());
        let failure = if connected { Failure::Pending } else { Failure::Unreachable };
        for request in self.learning.unresolved(class) {
            taken.extra.push((request, Read { at, outcome: Err(failure) }));
        }
    }

    async fn tell_what_was_learned(&mut self) {
        let Some(learned) = self.learning.take_news(self.line.config()) else { return };
        self.metrics.tags_quarantined.set(learned.quarantined.len().try_into().unwrap_or(i64::MAX));
        // Without a receiver the poller ends by itself.
        let _ = self.events.send(Event::Learned { plc: self.plc, learned }).await;
    }
}

/// What a cycle has brought so far.
struct Taken {
    /// One for each request of the agenda.
    reads: Vec<Option<Read>>,
    /// Of requests that were taken apart.
    extra: Vec<(ReadRequest, Read)>,
}

impl Taken {
    fn new(agenda: &Agenda) -> Self {
        Self { reads: vec![None; agenda.requests.len()], extra: Vec::new() }
    }

    fn put(&mut self, index: usize, read: Read, verdict: Verdict) {
        if let Some(place) = self.reads.get_mut(index) {
            *place = Some(read).filter(|_| verdict == Verdict::Final);
        }
    }

    /// The requests of the agenda as they are when all of them count, else those that do.
    fn finish(self, agenda: &Agenda) -> (Arc<[ReadRequest]>, Vec<Read>) {
        if self.extra.is_empty() && self.reads.iter().all(Option::is_some) {
            return (Arc::clone(&agenda.requests), self.reads.into_iter().flatten().collect());
        }
        let asked = agenda.requests.iter().zip(self.reads);
        let asked = asked.filter_map(|(request, read)| Some((request.clone(), read?)));
        let (requests, reads): (Vec<_>, _) = asked.chain(self.extra).unzip();
        (requests.into(), reads)
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
