//! The pump: the event loop that moves readings from the PLC tasks into the queue, and messages
//! from the queue to the broker.
//!
//! One task owns queue, samplers and status, so that there is no lock on the data path. A record
//! leaves the queue only when the broker acknowledged it with a reason code of success.

mod bundle_link;
mod change_event;
mod commands;
mod draining;
mod drop_reports;
mod fill_rate;
mod holds;
mod pipeline;
mod reply_box;
mod sending;
mod status_tracker;
mod storage_retry;
mod tag_pieces;
mod ticket;
mod timestamp_correction;
mod triggers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use provisioning::config::{Config, QueueOrder};
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::bundle_link::BundleLink;
pub(super) use self::bundle_link::{BundleChannels, offer_topic};
use self::commands::Commands;
pub(super) use self::commands::{CommandInputs, LocalCommand};
use self::drop_reports::{DropReport, DropReports};
use self::holds::{MessageHolds, SentMessage, SessionSummary};
use self::pipeline::PlcPipeline;
use self::reply_box::ReplyBox;
use self::sending::NextSend;
pub(super) use self::status_tracker::HealthInputs;
use self::status_tracker::StatusTracker;
use self::storage_retry::StorageRetry;
use self::ticket::Ticket;
use self::triggers::Triggers;
use super::systemd;
use crate::clock::{self, ClockHistory};
use crate::metrics::{DropReason, Metrics, TagRequest};
use crate::model::{Message, OwnTopics, Record, TrustLevel, UnixTime};
use crate::mqtt::{self, DisconnectReason, MqttRequest, OutgoingMessage};
use crate::plc;
use crate::queue::storage::{DirStorage, DirStorageError};
use crate::queue::{self, DiskJobDone, Entry, EntryId, Queue, TopicId};
use crate::status::Status;
use crate::web::{Liveness, Readiness};

/// How often drops are announced, status changes published, and the watchdog reset.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The pump counts as hanging when its loop has not run for this long.
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(15);
/// Targets of lines that the limit of the log counts apart from others: messages that are dropped,
/// and those over which the broker closes the connection.
const DROPS: &str = "gateway::drops";
const POISON: &str = "gateway::poison";
/// Directory of the queue in `state_dir`.
pub(super) const QUEUE_DIR: &str = "queue";

/// The directory of the queue as it was found at the start.
#[derive(Debug)]
pub(super) enum QueueStorage {
    Open(DirStorage),
    /// Entries wait in memory until the directory can be opened.
    Unusable(DirStorageError),
}

/// Owner of everything between the PLC tasks and the MQTT task.
#[derive(Debug)]
pub(super) struct Pump {
    gateway_id: String,
    own_topics: OwnTopics,
    pipelines: Vec<PlcPipeline>,
    queue: Queue,
    storage_retry: StorageRetry,
    /// Disk jobs of the queue that run on blocking threads.
    jobs: JoinSet<DiskJobDone>,
    outbox: mpsc::Sender<MqttRequest>,
    session: Option<BrokerSession>,
    holds: MessageHolds,
    replies: ReplyBox,
    /// Whether messages are sent in the order in which they were taken.
    is_ordered: bool,
    drop_reports: DropReports,
    status_tracker: StatusTracker,
    clock_history: ClockHistory,
    tag_requests: mpsc::Receiver<TagRequest>,
    commands: Commands,
    triggers: Triggers,
    bundles: BundleLink,
    liveness: Liveness,
}

/// The current MQTT session.
#[derive(Debug)]
struct BrokerSession {
    number: u32,
    /// The messages handed to the MQTT task and not answered by the broker, by ticket.
    in_flight: BTreeMap<u64, SentMessage>,
    /// Longest payload that the broker accepts, in bytes.
    max_payload: Option<usize>,
    status_due: Option<Instant>,
    /// To be sent before the first status.
    clearing: Option<OutgoingMessage>,
    /// Whether the broker has answered any message.
    has_answered: bool,
}

impl BrokerSession {
    /// Returns the session as far as it matters for what ended it.
    fn summary(&self) -> SessionSummary {
        let sole_in_flight = self.in_flight.values().next().filter(|_| self.in_flight.len() == 1);
        SessionSummary {
            sole_in_flight: sole_in_flight.copied(),
            is_unanswered: !self.has_answered,
        }
    }
}

/// Returns the topics on which this gateway publishes.
fn own_topics(config: &Config) -> OwnTopics {
    let published = config.plcs.iter().map(|plc| plc.publish.topic.clone());
    let will = config.mqtt.will.iter().map(|will| will.topic.clone());
    OwnTopics::new(&config.gateway.id, published.chain(will))
}

/// Returns the time of the runtime, which tests advance.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Pump {
    /// Returns the pump for this configuration; `health_inputs` are shown in the status.
    pub(super) fn new(
        config: &Config,
        hash: &str,
        metrics: &Metrics,
        health_inputs: HealthInputs,
        (storage, outbox): (QueueStorage, mpsc::Sender<MqttRequest>),
        command_inputs: CommandInputs,
    ) -> Self {
        let gateway_id = config.gateway.id.clone();
        let (pipelines, identity) = pipeline::build_all(config);
        let (settings, series) = (&config.queue, metrics.queue.clone());
        let queue = match storage {
            QueueStorage::Open(storage) => Queue::open(storage, settings, identity, series, now()),
            QueueStorage::Unusable(error) => {
                Queue::without_storage(settings, identity, series, &error)
            }
        };
        let clock_history = ClockHistory::new(*health_inputs.clock.borrow());
        let clock = health_inputs.clock.clone();
        let orders = command_inputs.orders.clone();
        let triggers = Triggers::new(config, &metrics.plcs, orders, queue.next_entry_id());
        let commands = Commands::new(config, hash, &metrics.plcs, clock, command_inputs);
        let mut status_tracker = StatusTracker::new(config, hash, metrics, health_inputs);
        status_tracker.update_queue(&queue);
        Self {
            pipelines,
            queue,
            storage_retry: StorageRetry::new(config.gateway.state_dir.join(QUEUE_DIR)),
            jobs: JoinSet::new(),
            outbox,
            session: None,
            holds: MessageHolds::default(),
            replies: ReplyBox::new(metrics.mqtt.clone()),
            is_ordered: config.queue.order == QueueOrder::Strict,
            drop_reports: DropReports::default(),
            status_tracker,
            clock_history,
            tag_requests: mpsc::channel(1).1,
            commands,
            triggers,
            bundles: BundleLink::new(&gateway_id),
            liveness: Liveness::new(WATCHDOG_TIMEOUT),
            own_topics: own_topics(config),
            gateway_id,
        }
    }

    /// Returns a receiver of the status.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status_tracker.subscribe()
    }

    /// Returns a receiver of whether the storage is usable.
    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.status_tracker.readiness()
    }

    /// Returns a handle that shows whether the loop of the pump runs.
    pub(super) fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Runs until the last PLC task has ended, then until the queue is empty or `grace` is over.
    pub(super) async fn run(
        mut self,
        mut plcs: mpsc::Receiver<plc::PlcEvent>,
        mut broker: mpsc::Receiver<mqtt::MqttEvent>,
        grace: Duration,
    ) {
        let mut ticks = interval(TICK_INTERVAL);
        // After a stall one tick is enough: each does all that is due.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.advance_commands();
            self.triggers.send_orders(|plc| self.commands.required_program(plc));
            let more = self.send();
            self.start_jobs();
            let due = self.queue.next_deadline().into_iter().chain(more.at()).min();
            tokio::select! {
                event = plcs.recv() => match event {
                    Some(event) => self.on_plc_event(event),
                    // The last PLC task has ended and dropped its sender.
                    None => break,
                },
                Some(event) = broker.recv() => self.on_mqtt_event(&event),
                Some(done) = self.jobs.join_next() => self.on_job_done(done),
                Some(request) = self.tag_requests.recv() => self.on_tag_request(request),
                Some(event) = self.commands.next_event() => self.on_command_event(event),
                Some(report) = self.bundles.reports.recv() => self.on_bundle_report(report),
                () = self.triggers.saved() => self.on_events_saved(),
                () = clock::sleep_until(due) => {}
                () = task::yield_now(), if more == NextSend::Now => {}
                _ = ticks.tick() => self.on_tick(),
            }
        }
        // Boxed, so that the future that runs for years does not reserve the memory of the drain.
        Box::pin(self.drain(broker, grace)).await;
    }

    /// Handles an event of a PLC task.
    fn on_plc_event(&mut self, event: plc::PlcEvent) {
        match event {
            plc::PlcEvent::Cycle(cycle) => {
                let Some(pipeline) = self.pipelines.get_mut(usize::from(cycle.plc)) else { return };
                self.status_tracker.on_cycle(cycle.plc, cycle.took);
                if let Some(record) = pipeline.sampler.on_cycle(&cycle, now()) {
                    let topic = pipeline.topic;
                    self.push_record(topic, record, cycle.booted_at);
                }
                self.on_trigger_cycle(cycle.plc, cycle.booted_at);
            }
            plc::PlcEvent::State { plc, state } => {
                self.commands.on_plc_state(plc, &state);
                self.status_tracker.on_plc_state(plc, state);
            }
            plc::PlcEvent::Learned { plc, learned } => self.status_tracker.on_learned(plc, learned),
            plc::PlcEvent::Throttled { plc, limit } => {
                self.status_tracker.on_throttled(plc, limit);
            }
            plc::PlcEvent::Changed { plc, change } => self.push_change_event(plc, change),
            plc::PlcEvent::Written(report) => {
                if !self.on_trigger_report(&report) {
                    self.commands.on_report(&report);
                }
            }
        }
    }

    /// Queues a record, with the clock that gave its times.
    fn push_record(&mut self, topic: TopicId, mut record: Record, booted_at: UnixTime) {
        let period = self.clock_history.period_of(record.at, booted_at);
        record.clock = Some(period);
        if period.trust == TrustLevel::Unset {
            timestamp_correction::mark_unsynced(&mut record);
        }
        self.push_entry(topic, Entry::Record(record), now());
    }

    /// Queues the event message for a change at a PLC.
    fn push_change_event(&mut self, plc: u16, change: plc::PlcChange) {
        let Some(pipeline) = self.pipelines.get(usize::from(plc)) else { return };
        let body = change_event::event_body(&pipeline.name, change, clock::now());
        tracing::info!(plc = pipeline.name, ?change, "changed");
        self.push_event(body);
    }

    /// Queues an event message.
    fn push_event(&mut self, body: serde_json::Map<String, serde_json::Value>) {
        let Some(topic) = self.queue.topic(pipeline::EVENT_TOPIC).cloned() else { return };
        self.push_entry(pipeline::EVENT_TOPIC, Entry::Message(Message { topic, body }), now());
    }

    fn push_entry(&mut self, topic: TopicId, entry: Entry, now: Instant) {
        let memory = entry.memory_bytes();
        let event = match &entry {
            Entry::Record(record) => {
                self.triggers.event_value(record).map(|value| (record.plc, record.at, value))
            }
            Entry::Message(_) => None,
        };
        let id = self.queue.push(topic, entry, now);
        if let (Some(id), Some((plc, at, value))) = (id, event) {
            self.triggers.on_queued(id, (plc, at, &value));
        }
        self.status_tracker.on_produced(id.map(|id| self.queue.stored_bytes(id)), memory);
    }

    /// Handles an event of the MQTT task.
    fn on_mqtt_event(&mut self, event: &mqtt::MqttEvent) {
        if self.is_from_broker(event) {
            self.commands.on_broker_packet();
        }
        if self.replies.on_mqtt_event(event) {
            return;
        }
        self.status_tracker.on_mqtt_event(event);
        self.bundles.on_mqtt_event(event);
        match *event {
            mqtt::MqttEvent::Connected { session, session_present, max_payload, .. } => {
                self.commands.on_connected(session_present);
                // What the last session left unacknowledged is sent again in this one.
                self.queue.rewind(now());
                self.drop_reports.on_connected(now());
                self.session = Some(BrokerSession {
                    number: session,
                    in_flight: BTreeMap::new(),
                    max_payload,
                    status_due: Some(now()),
                    has_answered: false,
                    clearing: self.status_tracker.clearing_message(session),
                });
                // Not at the next tick: a session over which the broker closes may be shorter.
                self.announce_gaps();
                self.offer_probe();
            }
            mqtt::MqttEvent::Disconnected { reason, .. } => self.on_disconnected(reason),
            mqtt::MqttEvent::Acknowledged { ticket } => self.on_acknowledged(ticket),
            mqtt::MqttEvent::Refused { ticket: Some(ticket), code, .. } => {
                self.on_refused(ticket, code);
            }
            mqtt::MqttEvent::Deferred { ticket: Some(ticket), .. } => self.on_deferred(ticket),
            mqtt::MqttEvent::Refused { ticket: None, .. }
            | mqtt::MqttEvent::Deferred { ticket: None, .. }
            | mqtt::MqttEvent::SubscriptionRefused { .. } => {}
            mqtt::MqttEvent::Received(ref message) => {
                if !self.on_offer(message) {
                    self.on_message(message);
                }
            }
        }
    }

    /// Returns whether an event shows that the broker was there a moment ago. That a session began
    /// is recorded with what it brings.
    fn is_from_broker(&self, event: &mqtt::MqttEvent) -> bool {
        match *event {
            mqtt::MqttEvent::Connected { .. } | mqtt::MqttEvent::Disconnected { .. } => false,
            // A message with QoS 0 was only written to the connection.
            mqtt::MqttEvent::Acknowledged { ticket } => {
                let message = self.session.as_ref().and_then(|open| open.in_flight.get(&ticket));
                message.is_none_or(|message| message.expects_ack)
            }
            // The MQTT task refuses a message that is too long for the broker by itself.
            mqtt::MqttEvent::Refused { code, .. } => code != mqtt::PACKET_TOO_LARGE,
            mqtt::MqttEvent::Deferred { .. }
            | mqtt::MqttEvent::SubscriptionRefused { .. }
            | mqtt::MqttEvent::Received(_) => true,
        }
    }

    fn on_acknowledged(&mut self, ticket: u64) {
        if let Some(message) = self.take_in_flight(ticket) {
            let is_released = self.holds.on_accepted(&message);
            if is_released {
                self.status_tracker.on_released();
            }
            self.offer_deferred(is_released);
        }
        if let Ticket::Entry(id) = Ticket::from_number(ticket) {
            self.on_event_acknowledged(id);
        }
    }

    /// Removes a message from the queue that the broker has.
    fn remove_acknowledged(&mut self, id: EntryId) {
        if let Some(topic) = self.queue.acknowledge(id, now()) {
            self.drop_reports.on_acknowledged(topic);
        }
    }

    /// Drops a message that the broker rejects for good.
    fn on_refused(&mut self, ticket: u64, code: u8) {
        if let Some(message) = self.take_in_flight(ticket) {
            let is_released = self.holds.on_rejected(&message);
            self.offer_deferred(is_released);
        }
        if let Ticket::Entry(id) = Ticket::from_number(ticket) {
            let is_long = code == mqtt::PACKET_TOO_LARGE;
            let reason = if is_long { DropReason::TooLarge } else { DropReason::Refused };
            self.queue.discard(id, reason, now());
        }
    }

    /// Keeps a message that the broker does not accept now.
    fn on_deferred(&mut self, ticket: u64) {
        if let Some(message) = self.take_in_flight(ticket) {
            let is_released = self.holds.on_deferred(&message, now(), fastrand::f64());
            self.offer_deferred(is_released);
        }
        if let Ticket::Entry(id) = Ticket::from_number(ticket) {
            self.queue.defer(id);
        }
    }

    /// Records that the broker answered a message.
    fn take_in_flight(&mut self, ticket: u64) -> Option<SentMessage> {
        let session = self.session.as_mut()?;
        session.has_answered = true;
        session.in_flight.remove(&ticket)
    }

    /// Records the end of the session. Drops a message over which the broker closes the connection
    /// again and again, while it accepts others.
    fn on_disconnected(&mut self, reason: DisconnectReason) {
        self.commands.on_disconnected();
        let Some(session) = self.session.take() else { return };
        let may_concern = reason.may_concern_message();
        let is_over_reply = self.replies.on_session_ended(may_concern, now());
        if !may_concern || is_over_reply || session.in_flight.is_empty() {
            self.holds.on_ended();
            return;
        }
        let summary = session.summary();
        let convicted = self.holds.on_closed(summary, now(), fastrand::f64());
        let (Some(ticket), Some(message)) = (convicted, summary.sole_in_flight) else { return };
        let topic = message.topic.and_then(|topic| self.queue.topic(topic));
        tracing::warn!(
            target: POISON,
            bytes = message.bytes,
            topic = topic.map(|topic| &**topic),
            "the broker closes the connection each time it receives a certain message, which is \
             dropped: it may be longer than the broker accepts, or this gateway may not publish on \
             its topic"
        );
        match ticket {
            Ticket::Status => self.status_tracker.suppress(),
            Ticket::Reply(_) => {}
            Ticket::Entry(id) => self.queue.discard(id, DropReason::TooLarge, now()),
        }
    }

    /// Puts the suspected message before all others, if there is one.
    fn offer_probe(&mut self) {
        match self.holds.probe() {
            Some(Ticket::Entry(id)) if !self.queue.offer_first(id) => {
                self.holds.forget(Ticket::Entry(id));
            }
            Some(Ticket::Status) => {
                if let Some(session) = &mut self.session {
                    session.status_due = Some(now());
                }
            }
            Some(Ticket::Entry(_) | Ticket::Reply(_)) | None => {}
        }
    }

    fn offer_deferred(&mut self, is_released: bool) {
        if is_released {
            self.queue.offer_deferred();
        }
    }

    /// Ends the pauses of held topics, and forgets suspected messages that left the queue.
    fn end_pauses(&mut self) {
        let is_ended = self.holds.end_pauses(now());
        let is_gone = match self.holds.probe().or_else(|| self.holds.due_probe(now())) {
            Some(Ticket::Entry(id)) if !self.queue.holds(id) => {
                self.holds.forget(Ticket::Entry(id));
                true
            }
            Some(_) | None => false,
        };
        self.offer_deferred(is_ended || is_gone);
    }

    /// Starts the disk jobs of the queue that are due, on blocking threads. Called after
    /// [`Pump::send`], which finds out what has to be read from disk.
    fn start_jobs(&mut self) {
        while let Some(job) = self.queue.next_job(now()) {
            self.jobs.spawn_blocking(|| job.run());
        }
    }

    fn on_job_done(&mut self, done: Result<DiskJobDone, JoinError>) {
        match done {
            Ok(done) => self.queue.on_job_done(done, now()),
            Err(error) => {
                tracing::error!(%error, "a disk job of the queue panicked");
                self.queue.on_job_died(now());
            }
        }
    }

    /// Does what is due every second.
    fn on_tick(&mut self) {
        self.retry_storage();
        self.commands.on_tick();
        self.triggers.on_tick(&self.queue);
        self.status_tracker.set_writes(&self.commands.sentences());
        self.end_pauses();
        self.announce_gaps();
        self.status_tracker.update_queue(&self.queue);
        for (plc, pipeline) in (0..).zip(&self.pipelines) {
            self.status_tracker.on_tags(plc, &pipeline.sampler.health(Instant::now()));
        }
        let assessment = self.status_tracker.poll_health();
        self.clock_history.on_assessed(assessment);
        let notices = self.status_tracker.poll_certificates(assessment.period.trust);
        notices
            .iter()
            .for_each(|one| self.push_event(change_event::expiry_body(one, clock::now())));
        self.liveness.touch();
        systemd::notify_watchdog();
        let changed = self.status_tracker.take_changed();
        if let Some(session) = &mut self.session
            && changed
        {
            session.status_due = Some(now());
        }
    }

    /// Queues one gap event for each range of dropped records. Waits while no broker is connected:
    /// the ranges grow meanwhile, and one event for a long range is worth more than many.
    fn announce_gaps(&mut self) {
        let now = now();
        if self.session.is_none() {
            return;
        }
        if self.drop_reports.may_announce(now) {
            let gaps = self.queue.announce_losses(now);
            for DropReport { reason, topic, topics, samples } in
                self.drop_reports.on_announced(&gaps, now)
            {
                let (topic, reason) = (self.topic_name(topic), reason.label());
                tracing::warn!(
                    target: DROPS, topic, topics, samples, reason, "messages are dropped"
                );
            }
        }
        for DropReport { reason, topic, topics, samples } in self.drop_reports.take_ended(now) {
            let (topic, reason) = (self.topic_name(topic), reason.label());
            tracing::info!(
                target: DROPS, topic, topics, samples, reason, "stopped dropping messages"
            );
        }
    }

    fn topic_name(&self, topic: TopicId) -> &str {
        self.queue.topic(topic).map_or("", |topic| &**topic)
    }

    /// Tries to open the directory of the queue when that is due.
    fn retry_storage(&mut self) {
        if self.queue.lacks_storage()
            && let Some(error) = self.storage_retry.poll(now())
        {
            self.queue.on_storage_unavailable(&error);
        }
    }

    /// Attaches a directory that was opened, once no acknowledgement is expected: the entries get
    /// new ids, which an acknowledgement under way would not know.
    fn attach_storage(&mut self) {
        if !self.storage_retry.is_open() {
            return;
        }
        if self.session.is_none() {
            self.queue.rewind(now());
        }
        if self.queue.nothing_in_flight()
            && let Some(storage) = self.storage_retry.take()
        {
            self.queue.attach_storage(storage, now());
            self.holds.forget_all();
            self.triggers.forget_tickets(self.queue.next_entry_id());
            if self.queue.lacks_storage() {
                return;
            }
            let dir = self.storage_retry.dir().display();
            tracing::warn!(
                target: queue::LOG_TARGET, %dir, "the queue is stored on disk from now on"
            );
        }
    }
}

#[cfg(test)]
mod tests;
