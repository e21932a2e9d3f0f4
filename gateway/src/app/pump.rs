//! The pump: takes what the PLC tasks read, keeps it in the queue, and moves it to the broker.
//!
//! One task owns queue, samplers and status, so that there is no lock on the data path. A record
//! leaves the queue only when the broker acknowledged it with a good reason code.

mod board;
mod dating;
mod drain;
mod home;
mod inflow;
mod news;
mod sending;
mod source;
mod suspicion;

use std::time::{Duration, Instant};

use provisioning::config::Config;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::board::Board;
pub(super) use self::board::Watched;
use self::home::Home;
use self::sending::More;
use self::source::Source;
use self::suspicion::Suspicion;
use super::local;
use crate::clock::{self, Eras};
use crate::metrics::{DropReason, Metrics};
use crate::model::{Message, Record};
use crate::mqtt::{self, Outgoing, Reason};
use crate::plc;
use crate::queue::storage::{Files, FilesError};
use crate::queue::{Done, Entry, Id, Queue, TopicId};
use crate::status::Status;
use crate::web::{Liveness, Readiness};

/// How often drops are announced, changes of status told, and the watchdog fed.
const TICK: Duration = Duration::from_secs(1);
/// A pump that has not turned for this long hangs.
const PATIENCE: Duration = Duration::from_secs(15);
/// Ticket of the status, which is not in the queue: no entry ever gets as far.
const STATUS: u64 = u64::MAX;
/// The part of `state_dir` that is the queue's.
pub(super) const QUEUE: &str = "queue";
/// Owner of everything between the PLC tasks and the MQTT task.
#[derive(Debug)]
pub(super) struct Pump {
    gateway_id: String,
    sources: Vec<Source>,
    queue: Queue,
    home: Home,
    /// What the queue has others do: reading and waiting for the disk.
    jobs: JoinSet<Done>,
    outbox: mpsc::Sender<Outgoing>,
    session: Option<Session>,
    suspicion: Suspicion,
    board: Board,
    eras: Eras,
    liveness: Liveness,
}

/// The connection to the broker as the pump sees it.
#[derive(Debug)]
struct Session {
    number: u32,
    unacknowledged: usize,
    max_payload: Option<usize>,
    status_due: Option<Instant>,
    /// Whether the broker has answered any message of the queue.
    is_fruitful: bool,
    /// The ticket that was handed over last.
    last: u64,
}

impl Session {
    const fn sent(&mut self, ticket: u64) {
        self.unacknowledged += 1;
        self.last = ticket;
    }
}

impl Pump {
    /// Makes the pump of this configuration; `watched` goes into the status.
    pub(super) fn new(
        config: &Config,
        hash: &str,
        metrics: &Metrics,
        watched: Watched,
        storage: Result<Files, FilesError>,
        outbox: mpsc::Sender<Outgoing>,
    ) -> Self {
        let gateway_id = config.gateway.id.clone();
        let (sources, identity) = source::all(config);
        let (settings, series) = (&config.queue, metrics.queue.clone());
        let queue = match storage {
            Ok(files) => Queue::open(files, settings, identity, series, Instant::now()),
            Err(error) => Queue::without_storage(settings, identity, series, &error),
        };
        let mut board = Board::new(config, hash, metrics, watched);
        board.refresh(&queue);
        Self {
            sources,
            queue,
            home: Home::new(config.gateway.state_dir.join(QUEUE)),
            jobs: JoinSet::new(),
            outbox,
            session: None,
            suspicion: Suspicion::default(),
            board,
            eras: Eras::new(Instant::now()),
            liveness: Liveness::new(PATIENCE),
            gateway_id,
        }
    }

    /// Where the status can be read.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.board.subscribe()
    }

    /// Whether the storage is usable.
    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.board.readiness()
    }

    /// Where one can see that the pump turns.
    pub(super) fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Pumps until the last PLC task is gone, then until the queue is empty or `grace` is over.
    pub(super) async fn run(
        mut self,
        mut plcs: mpsc::Receiver<plc::Event>,
        mut broker: mpsc::Receiver<mqtt::Event>,
        grace: Duration,
    ) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let more = self.send();
            self.turn();
            let due = self.queue.due().into_iter().chain(more.later()).min();
            tokio::select! {
                event = plcs.recv() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                Some(event) = broker.recv() => self.heed(&event),
                Some(done) = self.jobs.join_next() => self.done(done),
                () = due_at(due) => {}
                () = task::yield_now(), if more == More::Perhaps => {}
                _ = ticks.tick() => self.tick(),
            }
        }
        // What it needs for the end is no part of what it needs for years.
        Box::pin(self.drain(broker, grace)).await;
    }

    /// Takes what a PLC task has to say.
    fn take(&mut self, event: plc::Event) {
        match event {
            plc::Event::Cycle(cycle) => {
                let Some(source) = self.sources.get_mut(usize::from(cycle.plc)) else { return };
                self.board.cycle(cycle.plc, cycle.took);
                if let Some(record) = source.sampler.cycle(&cycle, Instant::now()) {
                    let topic = source.topic;
                    self.keep(topic, record);
                }
            }
            plc::Event::State { plc, state } => self.board.plc(plc, state),
            plc::Event::Learned { plc, learned } => self.board.learned(plc, learned),
            plc::Event::Held { plc, ceiling } => self.board.held(plc, ceiling),
            plc::Event::Changed { plc, change } => self.tell_change(plc, change),
        }
    }

    fn keep(&mut self, topic: TopicId, mut record: Record) {
        let (at, now, state) = (record.at, Instant::now(), self.board.clock());
        if state == clock::State::Unset {
            dating::mark(&mut record);
        }
        let Some(id) = self.push(topic, Entry::Record(record), now) else { return };
        self.eras.note(id.ticket(), at, now, clock::now(), state);
    }

    /// Queues the event that something changed at a PLC.
    fn tell_change(&mut self, plc: u16, change: plc::Change) {
        let Some(source) = self.sources.get(usize::from(plc)) else { return };
        let body = news::body(&source.name, change, clock::now());
        tracing::info!(plc = source.name, ?change, "changed");
        let Some(topic) = self.queue.topic(source::EVENTS).cloned() else { return };
        self.push(source::EVENTS, Entry::Message(Message { topic, body }), Instant::now());
    }

    fn push(&mut self, topic: TopicId, entry: Entry, now: Instant) -> Option<Id> {
        let memory = entry.bytes();
        let id = self.queue.push(topic, entry, now);
        self.board.produced(id.map(|id| self.queue.size_of(id)), memory);
        id
    }

    /// Takes what the MQTT task has to say.
    fn heed(&mut self, event: &mqtt::Event) {
        self.board.broker(event);
        match *event {
            mqtt::Event::Connected { session, max_payload, .. } => {
                self.queue.rewind(Instant::now());
                self.session = Some(Session {
                    number: session,
                    unacknowledged: 0,
                    max_payload,
                    status_due: Some(Instant::now()),
                    is_fruitful: false,
                    last: STATUS,
                });
            }
            mqtt::Event::Disconnected { reason, .. } => self.disconnected(reason),
            mqtt::Event::Acknowledged { ticket } => {
                self.settle(ticket);
                self.queue.acknowledge(Id::from_ticket(ticket), Instant::now());
            }
            mqtt::Event::Refused { ticket: Some(ticket), .. } => {
                self.settle(ticket);
                self.discard(ticket, DropReason::Refused);
            }
            mqtt::Event::Refused { ticket: None, .. }
            | mqtt::Event::SubscriptionRefused { .. }
            | mqtt::Event::Received(_) => {}
        }
    }

    /// The broker has answered a message.
    fn settle(&mut self, ticket: u64) {
        let Some(session) = &mut self.session else { return };
        session.unacknowledged = session.unacknowledged.saturating_sub(1);
        if ticket != STATUS {
            session.is_fruitful = true;
            self.suspicion.clear();
        }
    }

    /// The session is over. A message that ends every session is given up.
    fn disconnected(&mut self, reason: Reason) {
        let Some(session) = self.session.take() else { return };
        if reason != Reason::Closed || session.is_fruitful || session.unacknowledged == 0 {
            return;
        }
        let alone = (session.unacknowledged == 1).then_some(session.last);
        let Some(ticket) = self.suspicion.closed(alone) else { return };
        tracing::warn!(
            "the broker closes the connection whenever it gets a certain message, which is given \
             up: it may be longer than the broker allows, or on a topic that is forbidden to us"
        );
        if ticket == STATUS {
            self.board.mute();
        } else {
            self.discard(ticket, DropReason::TooLarge);
        }
    }

    fn discard(&mut self, ticket: u64, reason: DropReason) {
        self.queue.discard(Id::from_ticket(ticket), reason, Instant::now());
    }

    /// Lets the queue do what is due, and does elsewhere what takes long. Comes behind
    /// [`Pump::send`], which finds out what has to be read.
    fn turn(&mut self) {
        while let Some(job) = self.queue.turn(Instant::now()) {
            self.jobs.spawn_blocking(|| job.run());
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.queue.done(done, Instant::now()),
            Err(error) => {
                tracing::error!(%error, "a job of the queue died");
                self.queue.died(Instant::now());
            }
        }
    }

    /// How many messages may be under way.
    const fn window(&self) -> usize {
        if self.suspicion.is_on() { 1 } else { mqtt::WINDOW }
    }

    /// What happens every second.
    fn tick(&mut self) {
        self.look_for_home();
        self.announce_gaps();
        self.board.refresh(&self.queue);
        self.board.look();
        self.liveness.touch();
        local::alive();
        let changed = self.board.take_change();
        if let Some(session) = &mut self.session
            && changed
        {
            session.status_due = Some(Instant::now());
        }
    }

    /// Queues one event for each run of records that were dropped. While there is no broker the
    /// runs grow; one event in the end says more than many.
    fn announce_gaps(&mut self) {
        if self.session.is_none() {
            return;
        }
        for gap in self.queue.tell(Instant::now()) {
            let topic = self.queue.topic(gap.topic).map_or("", |topic| &**topic);
            tracing::warn!(topic, samples = gap.samples, reason = gap.reason.label(), "dropped");
        }
    }
}

/// Waits until then, or for ever.
async fn due_at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
