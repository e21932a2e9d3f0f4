//! Commands on their way through the pump: from the MQTT task and the status socket to the command
//! processor, from there to the ledger file and the PLC tasks, and back as replies and events.

mod backlog_watch;
mod ledger_file;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use provisioning::config::{Config, Plc};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use self::backlog_watch::BacklogWatch;
use self::ledger_file::{LedgerEvent, LedgerFile, LedgerOutcome};
use super::{Pump, now, pipeline};
use crate::clock::{self, ClockAssessment};
use crate::codec::json::FormattedValue;
use crate::command::{
    CommandEffect, CommandProcessor, CommandReason, CommandReply, CommandState, CommandTime,
    IncomingCommand, LOCAL_SENDER, PlcOrder,
};
use crate::metrics::{CommandOutcome, PlcMetrics};
use crate::model::{Message, OrderReport, ProgramSignature, ReplyTo, ReplyToError, TrustLevel};
use crate::mqtt::{DeliveryTag, IncomingMessage, MqttRequest};
use crate::plc::PlcState;
use crate::queue::Entry;
use crate::schedule::RateBudget;
use crate::status::WriteSentence;

/// Target of the lines about commands: the log's limit counts them apart.
const COMMANDS: &str = "gateway::commands";
/// A command of the status socket that was not sent to the PLC within this time is not sent: the
/// reply has to arrive before the connection times out.
const LOCAL_EXPIRY: Duration = Duration::from_secs(5);
/// Most replies to refused commands in a window that go to `reply/{plc}`: a flood of commands must
/// not evict values from the queue.
const MAX_REFUSALS: usize = 300;
const REFUSALS_WINDOW: Duration = Duration::from_secs(15);
/// Most sentences about writes in the status.
const MAX_SENTENCES: usize = 5;

/// A command from the status socket.
#[derive(Debug)]
pub(in crate::app) struct LocalCommand {
    /// `plc.name`.
    pub(in crate::app) plc: String,
    /// As in a message of the broker.
    pub(in crate::app) payload: Vec<u8>,
    /// Gets the reply; dropped without one when there is no such PLC.
    pub(in crate::app) reply: oneshot::Sender<CommandReply>,
}

/// What the commands need from outside.
#[derive(Debug)]
pub(in crate::app) struct CommandInputs {
    /// To the PLC tasks, one for each PLC in the order of the configuration.
    pub(in crate::app) orders: Vec<mpsc::Sender<PlcOrder>>,
    /// From the status socket.
    pub(in crate::app) local: mpsc::Receiver<LocalCommand>,
}

/// Who gets a reply, in addition to the reply topic of the PLC.
#[derive(Debug)]
enum Requester {
    /// Who published the message of the broker.
    Broker {
        /// To be acknowledged to the broker.
        delivery: Option<DeliveryTag>,
        /// Where a copy of the reply goes, or why none does; absent without a response topic.
        reply_to: Option<Result<ReplyTo, ReplyToError>>,
    },
    Local(oneshot::Sender<CommandReply>),
}

/// What the pump handles for the commands.
#[derive(Debug)]
pub(super) enum CommandEvent {
    Ledger(LedgerEvent),
    Local(LocalCommand),
}

/// Everything of the pump that concerns commands.
#[derive(Debug)]
pub(super) struct Commands {
    command_processor: CommandProcessor,
    ledger: LedgerFile,
    /// `edge/{gateway}/set/`.
    topic_prefix: String,
    plcs: Vec<Plc>,
    config_hash: String,
    inputs: CommandInputs,
    clock: watch::Receiver<ClockAssessment>,
    metrics: Vec<PlcMetrics>,
    backlog: BacklogWatch,
    requesters: BTreeMap<u64, Requester>,
    next_requester: u64,
    /// Why the last command of a PLC ended without success, by the index of the PLC.
    failures: BTreeMap<u16, String>,
    /// The broker over which writes could be forged, if the configuration allows that.
    exposed_broker: Option<String>,
    /// Acknowledgements for which the outbox has no room yet.
    acknowledgements: VecDeque<DeliveryTag>,
    /// For the replies to refused commands.
    refusals: RateBudget,
}

impl Commands {
    /// Returns the commands of this configuration. Reads the ledger, which blocks, if a PLC is
    /// written to.
    pub(in crate::app) fn new(
        config: &Config,
        hash: &str,
        metrics: &[PlcMetrics],
        clock: watch::Receiver<ClockAssessment>,
        inputs: CommandInputs,
    ) -> Self {
        let time = time_of(&clock);
        let (ledger, content) = LedgerFile::open(config);
        let exposed = config.mqtt.exposed_broker().filter(|_| config.has_writes_in_clear());
        Self {
            command_processor: CommandProcessor::new(&config.plcs, hash, &content, time),
            ledger,
            topic_prefix: format!("edge/{}/set/", config.gateway.id),
            plcs: config.plcs.clone(),
            config_hash: hash.to_owned(),
            inputs,
            clock,
            metrics: metrics.to_vec(),
            backlog: BacklogWatch::default(),
            requesters: BTreeMap::new(),
            next_requester: 0,
            failures: BTreeMap::new(),
            exposed_broker: exposed.map(|broker| broker.address.to_string()),
            acknowledgements: VecDeque::new(),
            refusals: RateBudget::new(MAX_REFUSALS, REFUSALS_WINDOW),
        }
    }

    fn time(&self) -> CommandTime {
        time_of(&self.clock)
    }

    /// Waits for the next event. Cancel safe.
    pub(super) async fn next_event(&mut self) -> Option<CommandEvent> {
        tokio::select! {
            Some(event) = self.ledger.next_event() => Some(CommandEvent::Ledger(event)),
            Some(local) = self.inputs.local.recv() => Some(CommandEvent::Local(local)),
            else => None,
        }
    }

    /// Returns whether something about commands is being recorded.
    pub(super) fn is_recording(&self) -> bool {
        self.ledger.is_busy()
    }

    /// Does what is due every second.
    pub(super) fn on_tick(&mut self) {
        self.ledger.retry_open(now());
        self.ledger.sync_outcomes(now());
    }

    /// Returns what is to be known about writes.
    pub(super) fn sentences(&self) -> Vec<WriteSentence> {
        let in_clear = |broker: &String| WriteSentence::WritesInClear { broker: broker.clone() };
        let mut sentences: Vec<_> = self.exposed_broker.iter().map(in_clear).collect();
        sentences.extend(self.ledger.is_failing().then_some(WriteSentence::CommandsNotRecorded));
        for (index, plc) in (0..).zip(&self.plcs) {
            let plc = || plc.name.clone();
            if let Some(signature) = self.command_processor.other_program(index) {
                let signature = signature.to_string();
                sentences.push(WriteSentence::ProgramNotAccepted { plc: plc(), signature });
            }
            let failed = self.failures.get(&index).cloned();
            sentences
                .extend(failed.map(|reason| WriteSentence::WriteFailed { plc: plc(), reason }));
        }
        sentences.truncate(MAX_SENTENCES);
        sentences
    }

    /// Records how a command ended.
    fn count(&mut self, plc: u16, state: CommandState, reason: Option<&str>) {
        match state {
            CommandState::Done => drop(self.failures.remove(&plc)),
            CommandState::Failed | CommandState::Unknown => {
                self.failures.insert(plc, reason.unwrap_or_default().to_owned());
            }
            CommandState::Rejected | CommandState::Expired | CommandState::Duplicate => {}
        }
        let Some(metrics) = self.metrics.get(usize::from(plc)) else { return };
        metrics.count_command(match state {
            CommandState::Done => CommandOutcome::Done,
            CommandState::Rejected => CommandOutcome::Rejected,
            CommandState::Failed => CommandOutcome::Failed,
            CommandState::Expired => CommandOutcome::Expired,
            CommandState::Duplicate => CommandOutcome::Duplicate,
            CommandState::Unknown => CommandOutcome::Unknown,
        });
    }

    fn plc(&self, name: &str) -> Option<u16> {
        let place = self.plcs.iter().position(|plc| plc.name == name)?;
        u16::try_from(place).ok()
    }

    fn add_requester(&mut self, requester: Requester) -> u64 {
        self.next_requester += 1;
        self.requesters.insert(self.next_requester, requester);
        self.next_requester
    }

    /// Records that a session with the broker began.
    pub(super) fn on_connected(&mut self, session_present: bool) {
        self.backlog.on_connected(session_present, now());
    }

    /// Records a sign of the broker.
    pub(super) fn on_broker_packet(&mut self) {
        self.backlog.on_broker_packet(now());
    }

    /// Acknowledges a message that is no command.
    pub(super) fn acknowledge(&mut self, delivery: Option<DeliveryTag>) {
        self.acknowledgements.extend(delivery);
    }

    /// Records that the session ended: what is not acknowledged is sent again by the broker.
    pub(super) fn on_disconnected(&mut self) {
        self.acknowledgements.clear();
    }

    /// Records what became of an order.
    pub(super) fn on_report(&mut self, report: &OrderReport) {
        let time = self.time();
        self.command_processor.on_report(report, time);
    }

    /// Records which program a PLC has.
    pub(super) fn on_plc_state(&mut self, plc: u16, state: &PlcState) {
        if let PlcState::Connected { program: Some(program), .. } = state
            && let Some(signature) = program.signature
        {
            self.command_processor.on_program(plc, signature);
        }
    }

    /// Returns the only program with which a PLC may be written to; `None` for any.
    pub(super) fn required_program(&self, plc: u16) -> Option<ProgramSignature> {
        self.command_processor.required_program(plc)
    }

    fn on_ledger_event(&mut self, event: LedgerEvent) {
        let time = self.time();
        match self.ledger.on_event(event) {
            LedgerOutcome::Stored => self.command_processor.on_batch_stored(time),
            LedgerOutcome::Failed => self.command_processor.on_batch_failed(time),
            // Nothing was recorded meanwhile, so no command is lost with the old command processor.
            LedgerOutcome::Opened(content) => {
                let command_processor =
                    CommandProcessor::new(&self.plcs, &self.config_hash, &content, time);
                let old = std::mem::replace(&mut self.command_processor, command_processor);
                self.command_processor.take_over_programs(&old);
            }
            LedgerOutcome::StillUnusable => {}
        }
    }

    /// Starts to write what has to be recorded, one batch at a time.
    fn store_batch(&mut self) {
        let time = self.time();
        if !self.ledger.has_file_out()
            && let Some(batch) = self.command_processor.take_batch(time.now)
            && !self.ledger.store(batch, time.now)
        {
            self.command_processor.on_batch_failed(time);
        }
    }

    fn send_order(&mut self, order: PlcOrder) {
        let number = order.number;
        let channel = self.inputs.orders.get(usize::from(order.plc));
        let sent = channel.map(|orders| orders.try_send(order));
        match sent {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => {
                self.command_processor.on_order_refused(
                    number,
                    CommandReason::TooManyWaiting,
                    self.time(),
                );
            }
            Some(Err(TrySendError::Closed(_))) | None => {
                self.command_processor.on_order_refused(
                    number,
                    CommandReason::Stopping,
                    self.time(),
                );
            }
        }
    }
}

fn time_of(clock: &watch::Receiver<ClockAssessment>) -> CommandTime {
    let is_clock_set = clock.borrow().period.trust != TrustLevel::Unset;
    CommandTime { now: now(), wall: clock::now(), is_clock_set }
}

impl Pump {
    /// Handles a message of the broker.
    pub(super) fn on_message(&mut self, message: &IncomingMessage) {
        let name = message.topic.strip_prefix(&self.commands.topic_prefix).unwrap_or_default();
        let Some(plc) = self.commands.plc(name) else {
            let topic = message.topic.as_str();
            tracing::warn!(target: COMMANDS, topic, "a command names no PLC of this gateway");
            self.commands.acknowledgements.extend(message.delivery);
            return;
        };
        let is_from_backlog = self.commands.backlog.on_message(now());
        let reply_to = message
            .response_topic
            .clone()
            .map(|topic| ReplyTo::new(&self.own_topics, topic, message.correlation_data.clone()));
        let requester = Requester::Broker { delivery: message.delivery, reply_to };
        let requester = self.commands.add_requester(requester);
        self.on_command(IncomingCommand {
            plc,
            payload: &message.payload,
            requester,
            by: None,
            is_retained: message.retain,
            may_be_old: message.dup || is_from_backlog,
            expires_in: message.expires_in,
        });
    }

    /// Handles what concerns only commands.
    pub(super) fn on_command_event(&mut self, event: CommandEvent) {
        match event {
            CommandEvent::Ledger(event) => self.commands.on_ledger_event(event),
            CommandEvent::Local(LocalCommand { plc, payload, reply }) => {
                let Some(plc) = self.commands.plc(&plc) else { return };
                let requester = self.commands.add_requester(Requester::Local(reply));
                self.on_command(IncomingCommand {
                    plc,
                    payload: &payload,
                    requester,
                    by: Some(LOCAL_SENDER),
                    is_retained: false,
                    may_be_old: false,
                    expires_in: Some(LOCAL_EXPIRY),
                });
            }
        }
    }

    fn on_command(&mut self, incoming: IncomingCommand<'_>) {
        let time = self.commands.time();
        let pipeline = self.pipelines.get(usize::from(incoming.plc));
        let present = |tag| {
            let (format, value) = pipeline?.sampler.last_published(tag)?;
            let text = serde_json::to_string(&FormattedValue { value, form: format }).ok()?;
            serde_json::from_str(&text).ok()
        };
        self.commands.command_processor.on_command(incoming, &present, time);
    }

    /// Does what the commands need: orders, records, replies, events, acknowledgements.
    pub(super) fn advance_commands(&mut self) {
        // First: if it fails, the replies that say so follow at once.
        self.commands.store_batch();
        while let Some(effect) = self.commands.command_processor.poll_effect() {
            match effect {
                CommandEffect::Order(order) => self.commands.send_order(order),
                CommandEffect::AckDelivery { requester } => {
                    let requester = self.commands.requesters.get(&requester);
                    if let Some(Requester::Broker { delivery, .. }) = requester {
                        self.commands.acknowledgements.extend(*delivery);
                    }
                }
                CommandEffect::Reply { plc, requester, reply, is_recorded } => {
                    self.send_reply(plc, requester, reply, is_recorded);
                }
                CommandEffect::Audit { body } => self.push_event(body),
            }
        }
        while let Some(delivery) = self.commands.acknowledgements.front() {
            if self.outbox.try_send(MqttRequest::Acknowledge(*delivery)).is_err() {
                return;
            }
            self.commands.acknowledgements.pop_front();
        }
    }

    fn send_reply(
        &mut self,
        plc: u16,
        requester: Option<u64>,
        mut reply: CommandReply,
        is_recorded: bool,
    ) {
        let state = reply.state;
        let requester = requester.and_then(|requester| self.commands.requesters.remove(&requester));
        let reason = reply.body.get("reason").and_then(|reason| reason.as_str());
        self.commands.count(plc, state, reason);
        let Some(pipeline) = self.pipelines.get(usize::from(plc)) else { return };
        tracing::info!(
            target: COMMANDS, plc = pipeline.name, state = state.as_str(), reason, "command"
        );
        let topic = pipeline.reply_topic;
        match requester {
            Some(Requester::Local(local)) => {
                // The command line may have given up waiting.
                let _ = local.send(reply);
                return;
            }
            Some(Requester::Broker { reply_to: Some(Ok(reply_to)), .. }) => {
                // A map of JSON values always has a JSON form.
                let payload = serde_json::to_vec(&reply.body).unwrap_or_default();
                self.replies.push(reply_to, payload, now());
            }
            Some(Requester::Broker { reply_to: Some(Err(error)), .. }) => {
                reply.body.insert("response_topic".to_owned(), error.to_string().into());
            }
            Some(Requester::Broker { reply_to: None, .. }) | None => {}
        }
        if !is_recorded && self.commands.refusals.take(now()).is_err() {
            return;
        }
        let Some(name) = topic.and_then(|topic| self.queue.topic(topic)).cloned() else { return };
        let entry = Entry::Message(Message { topic: name, body: reply.body });
        self.push_entry(topic.unwrap_or(pipeline::EVENT_TOPIC), entry, now());
    }

    /// Waits until what is known of the commands is recorded.
    pub(super) async fn close_commands(&mut self) {
        self.advance_commands();
        while self.commands.ledger.is_busy()
            && let Some(event) = self.commands.ledger.next_event().await
        {
            self.commands.on_ledger_event(event);
            self.advance_commands();
        }
    }
}
