//! The pump: takes what the PLC tasks read, keeps it in the queue, and moves it to the broker.
//!
//! One task owns queue, samplers and status, so that there is no lock on the data path. A record
//! leaves the queue only when the broker acknowledged it with a good reason code.

mod board;
mod news;
mod source;
mod suspicion;

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Config, Qos};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use self::board::Board;
pub(super) use self::board::Watched;
use self::source::Source;
use self::suspicion::Suspicion;
use super::local;
use crate::clock;
use crate::metrics::{DropReason, Metrics};
use crate::model::Message;
use crate::mqtt::{self, Outgoing, Reason};
use crate::payload::{self, Stamp};
use crate::plc;
use crate::queue::{Entry, Id, MemoryQueue, TopicId};
use crate::status::Status;
use crate::web::Liveness;

/// How often drops are announced, changes of status told, and the watchdog fed.
const TICK: Duration = Duration::from_secs(1);
/// A pump that has not turned for this long hangs.
const PATIENCE: Duration = Duration::from_secs(15);
/// An unchanged status is published again after this.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// Ticket of the status, which is not in the queue: no entry ever gets as far.
const STATUS: u64 = u64::MAX;
/// Index of the event topic; the topics of the PLCs follow.
const EVENTS: TopicId = TopicId::new(0);

/// Owner of everything between the PLC tasks and the MQTT task.
#[derive(Debug)]
pub(super) struct Pump {
    gateway_id: String,
    /// Changes at every start: the queue is in memory, so a start is always a new count.
    epoch: String,
    topics: Vec<Arc<str>>,
    sources: Vec<Source>,
    queue: MemoryQueue,
    outbox: mpsc::Sender<Outgoing>,
    session: Option<Session>,
    suspicion: Suspicion,
    board: Board,
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
        outbox: mpsc::Sender<Outgoing>,
    ) -> Self {
        let gateway_id = config.gateway.id.clone();
        let mut topics: Vec<Arc<str>> = vec![format!("edge/{gateway_id}/event").into()];
        let sources = source::all(config, &mut topics);
        Self {
            epoch: std::iter::repeat_with(|| fastrand::char('a'..='z')).take(6).collect(),
            topics,
            sources,
            queue: MemoryQueue::new(&config.queue, metrics.queue.clone()),
            outbox,
            session: None,
            suspicion: Suspicion::default(),
            board: Board::new(config, hash, metrics, watched),
            liveness: Liveness::new(PATIENCE),
            gateway_id,
        }
    }

    /// Where the status can be read.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.board.subscribe()
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
            tokio::select! {
                event = plcs.recv() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                Some(event) = broker.recv() => self.heed(&event),
                _ = ticks.tick() => self.tick(),
            }
            self.send();
        }
        self.drain(broker, grace).await;
    }

    /// Takes what a PLC task has to say.
    fn take(&mut self, event: plc::Event) {
        match event {
            plc::Event::Cycle(cycle) => {
                let Some(source) = self.sources.get_mut(usize::from(cycle.plc)) else { return };
                self.board.cycle(cycle.plc, cycle.took);
                if let Some(record) = source.sampler.cycle(&cycle, Instant::now()) {
                    let entry = Entry::Record(record);
                    self.board.produced(entry.bytes());
                    self.queue.push(source.topic, entry);
                }
            }
            plc::Event::State { plc, state } => self.board.plc(plc, state),
            plc::Event::Learned { plc, learned } => self.board.learned(plc, learned),
            plc::Event::Held { plc, ceiling } => self.board.held(plc, ceiling),
            plc::Event::Changed { plc, change } => self.tell_change(plc, change),
        }
    }

    /// Queues the event that something changed at a PLC.
    fn tell_change(&mut self, plc: u16, change: plc::Change) {
        let source = self.sources.get(usize::from(plc));
        let (Some(source), Some(topic)) = (source, self.topics.get(EVENTS.index())) else { return };
        let body = news::body(&source.name, change, clock::now());
        tracing::info!(plc = source.name, ?change, "changed");
        let entry = Entry::Message(Message { topic: Arc::clone(topic), body });
        self.board.produced(entry.bytes());
        self.queue.push(EVENTS, entry);
    }

    /// Takes what the MQTT task has to say.
    fn heed(&mut self, event: &mqtt::Event) {
        self.board.broker(event);
        match *event {
            mqtt::Event::Connected { session, max_payload, .. } => {
                self.queue.rewind();
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
                self.queue.acknowledge(Id::from_ticket(ticket));
            }
            mqtt::Event::Refused { ticket: Some(ticket), .. } => {
                self.settle(ticket);
                self.queue.discard(Id::from_ticket(ticket), DropReason::Refused);
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
            self.queue.discard(Id::from_ticket(ticket), DropReason::TooLarge);
        }
    }

    /// How many messages may be under way.
    const fn window(&self) -> usize {
        if self.suspicion.is_on() { 1 } else { mqtt::WINDOW }
    }

    /// What happens every second.
    fn tick(&mut self) {
        self.announce_gaps();
        self.board.refresh(self.queue.stats());
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
        for gap in self.queue.take_gaps() {
            let Some(topic) = self.topics.get(gap.topic.index()) else { continue };
            tracing::warn!(%topic, samples = gap.samples, reason = gap.reason.label(), "dropped");
            let Some(events) = self.topics.get(EVENTS.index()) else { continue };
            let message = gap.announce(events, topic);
            self.queue.announce(gap, EVENTS, message);
        }
    }

    /// Sends as much as the window allows.
    fn send(&mut self) {
        let window = self.window();
        let Some(session) = &mut self.session else { return };
        if session.unacknowledged >= window {
            return;
        }
        if session.status_due.is_some_and(|due| due <= Instant::now()) {
            if let Some(outgoing) = self.board.message(session.number, STATUS) {
                if self.outbox.try_send(outgoing).is_err() {
                    return; // The MQTT task is busy; the next turn comes with its next event.
                }
                session.sent(STATUS);
            }
            session.status_due = Some(Instant::now() + STATUS_EVERY);
        }
        while session.unacknowledged < window {
            let Ok(permit) = self.outbox.try_reserve() else { return };
            let Some(queued) = self.queue.next() else { return };
            let id = queued.id;
            let stamp = Stamp { epoch: &self.epoch, seq: queued.seq, history: false };
            let Some(topic) = self.topics.get(queued.topic.index()) else { return };
            let (payload, qos, retain) = match queued.entry {
                Entry::Record(record) => match self.sources.get(usize::from(record.plc)) {
                    Some(source) => {
                        (source.encoder.encode(record, &stamp), source.qos, source.retain)
                    }
                    None => return,
                },
                Entry::Message(message) => (
                    payload::encode_message(&self.gateway_id, message, &stamp),
                    Qos::AtLeastOnce,
                    false,
                ),
            };
            if session.max_payload.is_some_and(|max| payload.len() > max) {
                self.queue.discard(id, DropReason::TooLarge);
                continue;
            }
            session.sent(id.ticket());
            permit.send(Outgoing {
                session: session.number,
                ticket: Some(id.ticket()),
                topic: Arc::clone(topic),
                payload,
                qos,
                retain,
            });
        }
    }
}

impl Pump {
    /// Sends what is left, says that this gateway is offline, and counts what nobody took.
    async fn drain(mut self, mut broker: mpsc::Receiver<mqtt::Event>, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.announce_gaps();
        self.send();
        while !self.queue.is_empty() {
            match timeout_at(deadline, broker.recv()).await {
                Ok(Some(event)) => {
                    self.heed(&event);
                    self.send();
                }
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(session) = &self.session {
            let outgoing = self.board.offline(session.number);
            let _ = timeout_at(deadline, self.outbox.send(outgoing)).await;
        }
        self.give_up();
    }

    /// The queue is in memory: what it still holds goes with the process.
    fn give_up(&mut self) {
        let left = self.queue.stats();
        if left.entries > 0 {
            tracing::warn!(messages = left.entries, samples = left.samples, "lost with this stop");
        }
        self.queue.rewind();
        while let Some(id) = self.queue.next().map(|queued| queued.id) {
            self.queue.discard(id, DropReason::Shutdown);
        }
    }
}

#[cfg(test)]
mod tests;
