//! One `[[plc]]`: what is read from it, what is known of it, and what was told.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::{Plan, ReadRequest};
use tokio::sync::mpsc;

use super::acquaintance::Acquaintance;
use super::learning::Learning;
use super::pace::Ceiling;
use super::session::{RequestError, Station};
use super::standing::Standing;
use super::{Change, Event, Read, State, Target};
use crate::metrics::{PlcMetrics, RequestOutcome};

/// A ceiling that has not cost a cycle for this long is forgotten.
const UNHELD: Duration = Duration::from_secs(60);

/// One unit behind a connection.
pub(super) struct Unit {
    plc: u16,
    pub(super) config: config::Plc,
    pub(super) plan: Plan,
    pub(super) learning: Learning,
    /// For each class the request with which its next cycle begins.
    pub(super) begin: Vec<usize>,
    pub(super) metrics: PlcMetrics,
    pub(super) standing: Standing,
    pub(super) known: Acquaintance,
    told: Option<State>,
    /// Whether it answered when it was asked last, and its server was not away since.
    pub(super) answers: bool,
    /// Session in which it was greeted last; 0 for none, like the next ones.
    pub(super) greeted: u64,
    /// Session in which it answered last.
    pub(super) answered: u64,
    /// Session in which it was asked for its name last.
    pub(super) named: u64,
    /// How often it broke the session over that question.
    pub(super) name_breaks: u32,
    /// How often the server had been away when this was greeted last.
    pub(super) absences: u64,
    /// When its program was asked for last.
    pub(super) watched: Option<Instant>,
    /// For each class a hash of each answer of its last cycle.
    brought: Vec<Vec<Option<u64>>>,
    held: Option<(Ceiling, Instant)>,
}

impl Unit {
    pub(super) fn new(target: Target) -> Self {
        let Target { plc, config, plan, metrics } = target;
        Self {
            plc,
            learning: Learning::new(&config, &plan),
            begin: vec![0; plan.classes.len()],
            standing: Standing::default(),
            known: Acquaintance::new(config.model),
            told: None,
            answers: false,
            greeted: 0,
            answered: 0,
            named: 0,
            name_breaks: 0,
            absences: 0,
            watched: None,
            brought: vec![Vec::new(); plan.classes.len()],
            held: None,
            config,
            plan,
            metrics,
        }
    }

    /// Index into `config::Config::plcs`.
    pub(super) const fn plc(&self) -> u16 {
        self.plc
    }

    pub(super) const fn station(&self) -> Station {
        Station { unit: self.config.unit_id, timeout: self.config.timeout }
    }

    /// Shortest time between two reads.
    pub(super) fn scan(&self) -> Duration {
        self.plan.classes.iter().map(|class| class.period).min().unwrap_or_default()
    }

    /// Whether nothing is known of it since the start, or since the server was away: it may answer.
    pub(super) const fn is_unasked(&self) -> bool {
        !self.answers && !self.standing.is_silent() && !self.plan.classes.is_empty()
    }

    /// Whether it is to be asked for its name, if its server may be.
    pub(super) const fn wants_a_name(&self) -> bool {
        self.known.wants_a_name() && !self.standing.is_silent()
    }

    /// Whether it is told to answer.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.told, Some(State::Connected { .. }))
    }

    /// The request with which it is tried.
    pub(super) fn trial(&mut self, now: Instant) -> Option<ReadRequest> {
        let agenda = self.learning.agenda(0, now)?;
        let planned = &self.plan.classes.first()?.requests;
        let requests = if agenda.requests.is_empty() { planned } else { &*agenda.requests };
        requests.get(self.begin.first()? % requests.len().max(1)).cloned()
    }

    /// Begins with another request the next time.
    pub(super) fn begin_behind(&mut self, class: u16, index: usize) {
        if let Some(begin) = self.begin.get_mut(usize::from(class)) {
            *begin = index.wrapping_add(1);
        }
    }

    /// Whether a request of this cycle brought exactly what it brought in the one before.
    pub(super) fn brought_the_same(&mut self, class: u16, reads: &[Read]) -> bool {
        let hash = |read: &Read| {
            let mut hasher = DefaultHasher::new();
            read.outcome.as_ref().ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        let now: Vec<_> = reads.iter().map(hash).collect();
        let Some(brought) = self.brought.get_mut(usize::from(class)) else { return false };
        let is_same = |(was, is): (&Option<u64>, &Option<u64>)| is.is_some() && was == is;
        let has_same = brought.iter().zip(&now).any(is_same);
        *brought = now;
        has_same
    }

    pub(super) fn count<T>(
        &self,
        request: &ReadRequest,
        answer: &Result<T, RequestError>,
        took: Duration,
    ) {
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        self.metrics.count_request(outcome);
        let ReadRequest { table, first, count, .. } = request;
        let (plc, outcome) = (self.config.name.as_str(), outcome.label());
        tracing::trace!(plc, ?table, first, count, ?took, outcome, "read");
    }

    /// It answers; told only if that is news, or something about it is.
    pub(super) async fn tell_up(&mut self, events: &mpsc::Sender<Event>) {
        let identity = self.known.identity().cloned();
        let state = State::Connected { identity, program: self.known.program() };
        self.tell(state, events).await;
    }

    /// It does not answer, why, and within what time it is tried again where that depends on others.
    pub(super) async fn tell_down(
        &mut self,
        sentence: String,
        tried_within: Option<Duration>,
        events: &mpsc::Sender<Event>,
    ) {
        self.metrics.up.set(0);
        self.tell(State::Disconnected { sentence, tried_within }, events).await;
    }

    async fn tell(&mut self, state: State, events: &mpsc::Sender<Event>) {
        if self.told.as_ref() == Some(&state) {
            return;
        }
        self.told = Some(state.clone());
        // Without a receiver the poller ends by itself.
        let _ = events.send(Event::State { plc: self.plc, state }).await;
    }

    pub(super) async fn report(&mut self, changes: Vec<Change>, events: &mpsc::Sender<Event>) {
        for change in changes {
            let _ = events.send(Event::Changed { plc: self.plc, change }).await;
        }
    }

    pub(super) async fn tell_what_was_learned(&mut self, events: &mpsc::Sender<Event>) {
        let Some(learned) = self.learning.take_news(&self.config) else { return };
        self.metrics.tags_quarantined.set(learned.quarantined.len().try_into().unwrap_or(i64::MAX));
        let _ = events.send(Event::Learned { plc: self.plc, learned }).await;
    }

    /// So many cycles went by unread, and whether a ceiling was the reason.
    pub(super) async fn missed(
        &mut self,
        missed: u32,
        ceiling: Option<Ceiling>,
        now: Instant,
        events: &mpsc::Sender<Event>,
    ) {
        self.metrics.cycles_missed.inc_by(missed.into());
        let before = self.held.map(|(ceiling, _)| ceiling);
        match ceiling.filter(|_| missed > 0) {
            Some(ceiling) => self.held = Some((ceiling, now)),
            None => self.held = self.held.filter(|(_, at)| *at + UNHELD > now),
        }
        let ceiling = self.held.map(|(ceiling, _)| ceiling);
        if ceiling != before {
            let _ = events.send(Event::Held { plc: self.plc, ceiling }).await;
        }
    }
}
