//! The pump: takes what the PLC tasks read, keeps it in the queue, and moves it to the broker.
//!
//! One task owns queue, samplers and status, so that there is no lock on the data path. A record
//! leaves the queue only when the broker acknowledged it with a good reason code.

mod change_event;
mod drain;
mod fill_rate;
mod pipeline;
mod poison;
mod sending;
mod status_tracker;
mod storage_retry;
mod timestamp_correction;

use std::time::{Duration, Instant};

use provisioning::config::Config;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::pipeline::PlcPipeline;
use self::poison::PoisonDetector;
use self::sending::NextSend;
pub(super) use self::status_tracker::HealthInputs;
use self::status_tracker::StatusTracker;
use self::storage_retry::StorageRetry;
use super::local_socket;
use crate::clock::{self, ClockHistory};
use crate::metrics::{DropReason, Metrics};
use crate::model::{Message, Record};
use crate::mqtt::{self, DisconnectReason, OutgoingMessage};
use crate::plc;
use crate::queue::storage::{DirStorage, DirStorageError};
use crate::queue::{DiskJobDone, Entry, EntryId, Queue, TopicId};
use crate::status::Status;
use crate::web::{Liveness, Readiness};

/// How often drops are announced, changes of status told, and the watchdog fed.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// A pump that has not turned for this long hangs.
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(15);
/// Ticket of the status, which is not in the queue: no entry ever gets as far.
const STATUS: u64 = u64::MAX;
/// The part of `state_dir` that is the queue's.
pub(super) const QUEUE_DIR: &str = "queue";
/// Owner of everything between the PLC tasks and the MQTT task.
#[derive(Debug)]
pub(super) struct Pump {
    gateway_id: String,
    pipelines: Vec<PlcPipeline>,
    queue: Queue,
    storage_retry: StorageRetry,
    /// What the queue has others do: reading and waiting for the disk.
    jobs: JoinSet<DiskJobDone>,
    outbox: mpsc::Sender<OutgoingMessage>,
    session: Option<BrokerSession>,
    poison: PoisonDetector,
    status_tracker: StatusTracker,
    clock_history: ClockHistory,
    liveness: Liveness,
}

/// The connection to the broker as the pump sees it.
#[derive(Debug)]
struct BrokerSession {
    number: u32,
    unacknowledged: usize,
    max_payload: Option<usize>,
    status_due: Option<Instant>,
    /// Whether the broker has answered any message of the queue.
    has_acked: bool,
    /// The ticket that was handed over last.
    last_ticket: u64,
}

impl BrokerSession {
    const fn on_sent(&mut self, ticket: u64) {
        self.unacknowledged += 1;
        self.last_ticket = ticket;
    }
}

impl Pump {
    /// Makes the pump of this configuration; `watched` goes into the status.
    pub(super) fn new(
        config: &Config,
        hash: &str,
        metrics: &Metrics,
        watched: HealthInputs,
        storage: Result<DirStorage, DirStorageError>,
        outbox: mpsc::Sender<OutgoingMessage>,
    ) -> Self {
        let gateway_id = config.gateway.id.clone();
        let (sources, identity) = pipeline::build_all(config);
        let (settings, series) = (&config.queue, metrics.queue.clone());
        let queue = match storage {
            Ok(files) => Queue::open(files, settings, identity, series, Instant::now()),
            Err(error) => Queue::without_storage(settings, identity, series, &error),
        };
        let mut board = StatusTracker::new(config, hash, metrics, watched);
        board.update_queue(&queue);
        Self {
            pipelines: sources,
            queue,
            storage_retry: StorageRetry::new(config.gateway.state_dir.join(QUEUE_DIR)),
            jobs: JoinSet::new(),
            outbox,
            session: None,
            poison: PoisonDetector::default(),
            status_tracker: board,
            clock_history: ClockHistory::new(Instant::now()),
            liveness: Liveness::new(WATCHDOG_TIMEOUT),
            gateway_id,
        }
    }

    /// Where the status can be read.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status_tracker.subscribe()
    }

    /// Whether the storage is usable.
    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.status_tracker.readiness()
    }

    /// Where one can see that the pump turns.
    pub(super) fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Pumps until the last PLC task is gone, then until the queue is empty or `grace` is over.
    pub(super) async fn run(
        mut self,
        mut plcs: mpsc::Receiver<plc::PlcEvent>,
        mut broker: mpsc::Receiver<mqtt::MqttEvent>,
        grace: Duration,
    ) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let more = self.send();
            self.start_jobs();
            let due = self.queue.next_deadline().into_iter().chain(more.at()).min();
            tokio::select! {
                event = plcs.recv() => match event {
                    Some(event) => self.on_plc_event(event),
                    None => break,
                },
                Some(event) = broker.recv() => self.on_mqtt_event(&event),
                Some(done) = self.jobs.join_next() => self.on_job_done(done),
                () = sleep_until_or_forever(due) => {}
                () = task::yield_now(), if more == NextSend::Now => {}
                _ = ticks.tick() => self.on_tick(),
            }
        }
        // What it needs for the end is no part of what it needs for years.
        Box::pin(self.drain(broker, grace)).await;
    }

    /// Takes what a PLC task has to say.
    fn on_plc_event(&mut self, event: plc::PlcEvent) {
        match event {
            plc::PlcEvent::Cycle(cycle) => {
                let Some(source) = self.pipelines.get_mut(usize::from(cycle.plc)) else { return };
                self.status_tracker.on_cycle(cycle.plc, cycle.took);
                if let Some(record) = source.sampler.on_cycle(&cycle, Instant::now()) {
                    let topic = source.topic;
                    self.push_record(topic, record);
                }
            }
            plc::PlcEvent::State { plc, state } => self.status_tracker.on_plc_state(plc, state),
            plc::PlcEvent::Learned { plc, learned } => self.status_tracker.on_learned(plc, learned),
            plc::PlcEvent::Throttled { plc, limit } => self.status_tracker.on_throttled(plc, limit),
            plc::PlcEvent::Changed { plc, change } => self.push_change_event(plc, change),
        }
    }

    fn push_record(&mut self, topic: TopicId, mut record: Record) {
        let (at, now, state) = (record.at, Instant::now(), self.status_tracker.clock_trust());
        if state == clock::TrustLevel::Unset {
            timestamp_correction::mark_unsynced(&mut record);
        }
        let Some(id) = self.push_entry(topic, Entry::Record(record), now) else { return };
        self.clock_history.record(id.ticket(), at, now, clock::now(), state);
    }

    /// Queues the event that something changed at a PLC.
    fn push_change_event(&mut self, plc: u16, change: plc::PlcChange) {
        let Some(source) = self.pipelines.get(usize::from(plc)) else { return };
        let body = change_event::event_body(&source.name, change, clock::now());
        tracing::info!(plc = source.name, ?change, "changed");
        let Some(topic) = self.queue.topic(pipeline::EVENT_TOPIC).cloned() else { return };
        self.push_entry(
            pipeline::EVENT_TOPIC,
            Entry::Message(Message { topic, body }),
            Instant::now(),
        );
    }

    fn push_entry(&mut self, topic: TopicId, entry: Entry, now: Instant) -> Option<EntryId> {
        let memory = entry.memory_bytes();
        let id = self.queue.push(topic, entry, now);
        self.status_tracker.on_produced(id.map(|id| self.queue.stored_bytes(id)), memory);
        id
    }

    /// Takes what the MQTT task has to say.
    fn on_mqtt_event(&mut self, event: &mqtt::MqttEvent) {
        self.status_tracker.on_mqtt_event(event);
        match *event {
            mqtt::MqttEvent::Connected { session, max_payload, .. } => {
                self.queue.rewind(Instant::now());
                self.session = Some(BrokerSession {
                    number: session,
                    unacknowledged: 0,
                    max_payload,
                    status_due: Some(Instant::now()),
                    has_acked: false,
                    last_ticket: STATUS,
                });
            }
            mqtt::MqttEvent::Disconnected { reason, .. } => self.on_disconnected(reason),
            mqtt::MqttEvent::Acknowledged { ticket } => {
                self.on_answered(ticket);
                self.queue.acknowledge(EntryId::from_ticket(ticket), Instant::now());
            }
            mqtt::MqttEvent::Refused { ticket: Some(ticket), .. } => {
                self.on_answered(ticket);
                self.discard(ticket, DropReason::Refused);
            }
            mqtt::MqttEvent::Refused { ticket: None, .. }
            | mqtt::MqttEvent::SubscriptionRefused { .. }
            | mqtt::MqttEvent::Received(_) => {}
        }
    }

    /// The broker has answered a message.
    fn on_answered(&mut self, ticket: u64) {
        let Some(session) = &mut self.session else { return };
        session.unacknowledged = session.unacknowledged.saturating_sub(1);
        if ticket != STATUS {
            session.has_acked = true;
            self.poison.on_answered();
        }
    }

    /// The session is over. A message that ends every session is given up.
    fn on_disconnected(&mut self, reason: DisconnectReason) {
        let Some(session) = self.session.take() else { return };
        if reason != DisconnectReason::Closed || session.has_acked || session.unacknowledged == 0 {
            return;
        }
        let alone = (session.unacknowledged == 1).then_some(session.last_ticket);
        let Some(ticket) = self.poison.on_closed(alone) else { return };
        tracing::warn!(
            "the broker closes the connection whenever it gets a certain message, which is given \
             up: it may be longer than the broker allows, or on a topic that is forbidden to us"
        );
        if ticket == STATUS {
            self.status_tracker.suppress();
        } else {
            self.discard(ticket, DropReason::TooLarge);
        }
    }

    fn discard(&mut self, ticket: u64, reason: DropReason) {
        self.queue.discard(EntryId::from_ticket(ticket), reason, Instant::now());
    }

    /// Lets the queue do what is due, and does elsewhere what takes long. Comes behind
    /// [`Pump::send`], which finds out what has to be read.
    fn start_jobs(&mut self) {
        while let Some(job) = self.queue.next_job(Instant::now()) {
            self.jobs.spawn_blocking(|| job.run());
        }
    }

    fn on_job_done(&mut self, done: Result<DiskJobDone, JoinError>) {
        match done {
            Ok(done) => self.queue.on_job_done(done, Instant::now()),
            Err(error) => {
                tracing::error!(%error, "a job of the queue died");
                self.queue.on_job_died(Instant::now());
            }
        }
    }

    /// How many messages may be under way.
    const fn window(&self) -> usize {
        if self.poison.is_probing() { 1 } else { mqtt::MAX_INFLIGHT }
    }

    /// What happens every second.
    fn on_tick(&mut self) {
        self.retry_storage();
        self.announce_gaps();
        self.status_tracker.update_queue(&self.queue);
        self.status_tracker.poll_health();
        self.liveness.touch();
        local_socket::notify_watchdog();
        let changed = self.status_tracker.take_changed();
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
        for gap in self.queue.announce_losses(Instant::now()) {
            let topic = self.queue.topic(gap.topic).map_or("", |topic| &**topic);
            tracing::warn!(topic, samples = gap.samples, reason = gap.reason.label(), "dropped");
        }
    }
}

/// Waits until then, or for ever.
async fn sleep_until_or_forever(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
