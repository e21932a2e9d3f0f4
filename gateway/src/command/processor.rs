//! Receives commands and reports, and says what to do next.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use provisioning::config::Plc;
use serde_json::{Map, Value};

use super::allow_list::WriteHistory;
use super::ledger::{AcceptedProgram, CommandLedger, IdState, Intent};
use super::message::{self, CommandId, ParsedCommand, Unreadable};
use super::plc::{CommandPlc, PresentValue};
use super::reply::ReplyContent;
use super::{CommandReason, CommandReply, LedgerBatch, report, trail};
use crate::codec;
use crate::model::{OrderReport, OrderTask, PlcOrder, ProgramSignature, TagImage, UnixTime};

/// A command as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct IncomingCommand<'a> {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// The payload, at most [`super::MAX_COMMAND_BYTES`] long.
    pub payload: &'a [u8],
    /// Chosen by the caller; the effects for this command have the same.
    pub requester: u64,
    /// Who sent it, if the caller knows; otherwise what the command says.
    pub by: Option<&'a str>,
    /// Whether the broker had retained it.
    pub is_retained: bool,
    /// Whether it may have been sent long ago: marked DUP, or from a session that the broker kept.
    pub may_be_old: bool,
    /// The rest of the broker's Message Expiry Interval.
    pub expires_in: Option<Duration>,
}

/// The time of a decision.
#[derive(Clone, Copy, Debug)]
pub struct CommandTime {
    /// For deadlines and rates.
    pub now: Instant,
    /// For replies, and for what expires.
    pub wall: UnixTime,
    /// Whether the wall clock can be trusted.
    pub is_clock_set: bool,
}

/// What is to be done for a command, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandEffect {
    /// The broker may forget the command: it is refused, or its record is durable.
    AckDelivery {
        /// From [`IncomingCommand::requester`].
        requester: u64,
    },
    /// Goes to the PLC.
    Order(PlcOrder),
    /// Goes to the requester: exactly one for each command.
    Reply {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// From [`IncomingCommand::requester`]; absent for a command of an earlier run.
        requester: Option<u64>,
        /// The reply.
        reply: CommandReply,
        /// Whether the command was recorded. If not, it was refused, and nothing limits how fast
        /// such commands come.
        is_recorded: bool,
    },
    /// An event of the audit trail.
    Audit {
        /// The members of the event.
        body: Map<String, Value>,
    },
}

/// A command that is not over.
#[derive(Debug)]
struct PendingCommand {
    requester: Option<u64>,
    id: Option<CommandId>,
    by: Option<String>,
    /// What a command of an earlier run names: the event that said so may be lost with that run.
    interrupted: Option<Map<String, Value>>,
    order: PlcOrder,
}

/// Everything that the gateway knows about commands.
#[derive(Debug)]
pub struct CommandProcessor {
    plcs: Vec<CommandPlc>,
    /// Hash of the configuration.
    config_hash: String,
    ledger: CommandLedger,
    history: WriteHistory,
    pending: BTreeMap<u64, PendingCommand>,
    /// Accepted commands whose record is not in a batch yet, and those of the batch under way.
    unrecorded: Vec<u64>,
    in_batch: Vec<u64>,
    is_batch_under_way: bool,
    effects: VecDeque<CommandEffect>,
}

impl CommandProcessor {
    /// Returns the command processor for these PLCs and the hash of their configuration, with the
    /// records of earlier runs, which may be empty. The commands that were interrupted are read
    /// back.
    #[must_use]
    pub fn new(plcs: &[Plc], config_hash: &str, ledger_file: &[u8], time: CommandTime) -> Self {
        let ledger = CommandLedger::load(ledger_file, time.now);
        let command_plc = |plc: &Plc| {
            let mut plc = CommandPlc::new(plc);
            let seen = || ledger.program(&plc.name, config_hash);
            plc.required_program = plc.required_program.or_else(seen);
            plc
        };
        let mut command_processor = Self {
            plcs: plcs.iter().map(command_plc).collect(),
            config_hash: config_hash.to_owned(),
            ledger,
            history: WriteHistory::default(),
            pending: BTreeMap::new(),
            unrecorded: Vec::new(),
            in_batch: Vec::new(),
            is_batch_under_way: false,
            effects: VecDeque::new(),
        };
        let interrupted: Vec<Intent> = command_processor.ledger.open().cloned().collect();
        for intent in interrupted {
            command_processor.resume(intent, time);
        }
        command_processor
    }

    /// Returns whether a command may write to any tag.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.plcs.iter().any(CommandPlc::is_writable)
    }

    /// Reads back what an interrupted command should have written, if its tags still exist.
    fn resume(&mut self, intent: Intent, time: CommandTime) {
        let id = intent.id.clone().map(CommandId::from_json_text);
        let place = self.plcs.iter().position(|plc| plc.name == intent.plc);
        let plc = place.and_then(|place| Some((u16::try_from(place).ok()?, self.plcs.get(place)?)));
        let images: Option<Vec<TagImage>> = plc.and_then(|(_, plc)| {
            let encode = |(name, value): (&String, &Value)| {
                let (index, tag) = (0..).zip(plc.tags.iter()).find(|(_, tag)| tag.name == *name)?;
                codec::encode_tag(index, tag, value).ok()
            };
            intent.write.iter().map(encode).collect()
        });
        let (Some((plc, _)), Some(write)) = (plc, images) else {
            let content =
                ReplyContent { reason: Some(CommandReason::Interrupted), ..Default::default() };
            let reply = CommandReply::new(id.as_ref(), content, time.wall);
            let (by, write) = (intent.by.as_deref(), Some(&intent.write));
            let body = trail::outcome_event(&intent.plc, by, write, &reply);
            self.effects.push_back(CommandEffect::Audit { body });
            self.ledger.end(intent.number, &reply, time.now);
            return;
        };
        let order = PlcOrder {
            number: intent.number,
            plc,
            expect: Vec::new(),
            write,
            task: OrderTask::ReadBack,
            program: None,
            not_after: None,
        };
        let Intent { by, write, .. } = intent;
        let interrupted = Some(write);
        let pending = PendingCommand { requester: None, id, by, interrupted, order: order.clone() };
        self.pending.insert(order.number, pending);
        self.effects.push_back(CommandEffect::Order(order));
    }

    /// Handles a command that arrived. `present` returns the JSON value that a tag of its PLC was
    /// last read with, by its index.
    pub fn on_command(
        &mut self,
        incoming: IncomingCommand<'_>,
        present: PresentValue<'_>,
        time: CommandTime,
    ) {
        let IncomingCommand { plc, requester, .. } = incoming;
        let reply = match self.decide(incoming, present, time) {
            Ok(()) => return,
            Err(reply) => reply,
        };
        self.effects.push_back(CommandEffect::AckDelivery { requester });
        self.push_reply(plc, Some(requester), reply, false);
    }

    /// Accepts a command, or returns the reply that refuses it.
    fn decide(
        &mut self,
        incoming: IncomingCommand<'_>,
        present: PresentValue<'_>,
        time: CommandTime,
    ) -> Result<(), CommandReply> {
        let Some(plc) = self.plcs.get(usize::from(incoming.plc)) else { return Ok(()) };
        let refuse = |id: Option<&CommandId>, reason| CommandReply::refused(id, reason, time.wall);
        let command = message::parse(incoming.payload, &plc.form)
            .map_err(|Unreadable { id, reason }| refuse(id.as_ref(), reason))?;
        let id = command.id.clone();
        let refuse = |reason| refuse(id.as_ref(), reason);
        if incoming.is_retained {
            return Err(refuse(CommandReason::Retained));
        }
        let known = id.as_ref().and_then(|id| self.ledger.find(&plc.name, id));
        match known {
            None => {}
            Some(IdState::UnderWay) => return Err(refuse(CommandReason::UnderWay)),
            Some(IdState::Answered(reply)) => return Err(reply.repeated()),
            Some(IdState::Stored(reply)) => return Err(reply),
        }
        let not_after = deadline(&command, &incoming, time).map_err(refuse)?;
        let checked = plc.check((&command.expect, &command.write), present).map_err(refuse)?;
        if let Some(reason) = plc.refusal() {
            return Err(refuse(reason));
        }
        if id.is_some() && !self.ledger.has_room(&plc.name, time.now) {
            return Err(refuse(CommandReason::TooManyIds));
        }
        plc.take_rates(incoming.plc, &checked.write, &mut self.history, time.now)
            .map_err(refuse)?;
        let order = PlcOrder {
            number: self.ledger.next_number(),
            plc: incoming.plc,
            expect: checked.expect,
            write: checked.write,
            task: OrderTask::Write,
            program: plc.required_program,
            not_after,
        };
        self.accept(command, incoming, order, time);
        Ok(())
    }

    fn accept(
        &mut self,
        command: ParsedCommand,
        incoming: IncomingCommand<'_>,
        order: PlcOrder,
        time: CommandTime,
    ) {
        let Some(plc) = self.plcs.get_mut(usize::from(order.plc)) else { return };
        plc.waiting += 1;
        let names: Vec<String> =
            order.write.iter().map(|image| plc.image_name(Some(image))).collect();
        let ParsedCommand { id, by, expect, mut write, .. } = command;
        // Without the read-only tags of a datagram that was sent back.
        write.retain(|name, _| names.contains(name));
        let by = incoming.by.map(str::to_owned).or(by);
        let intent = Intent {
            number: order.number,
            plc: plc.name.clone(),
            id: id.as_ref().map(|id| id.as_json_text().to_owned()),
            by: by.clone(),
            write,
            expect,
        };
        self.unrecorded.push(order.number);
        self.ledger.begin(intent, time.now);
        let requester = Some(incoming.requester);
        let pending = PendingCommand { requester, id, by, interrupted: None, order };
        self.pending.insert(pending.order.number, pending);
    }

    /// Returns the records to append to the ledger file, one batch at a time: all that came in
    /// while the last one was written.
    pub fn take_batch(&mut self, now: Instant) -> Option<LedgerBatch> {
        if self.is_batch_under_way {
            return None;
        }
        let batch = self.ledger.take_batch(now)?;
        self.is_batch_under_way = true;
        self.in_batch = std::mem::take(&mut self.unrecorded);
        Some(batch)
    }

    /// Records that the batch is durable, or, where it has no intents, at least written: its
    /// commands may be carried out.
    pub fn on_batch_stored(&mut self, time: CommandTime) {
        self.is_batch_under_way = false;
        for number in std::mem::take(&mut self.in_batch) {
            let Some(pending) = self.pending.get(&number) else { continue };
            let order = pending.order.clone();
            self.effects.extend(
                pending.requester.map(|requester| CommandEffect::AckDelivery { requester }),
            );
            let intent = self.ledger.open().find(|intent| intent.number == number);
            let body = intent.map(|intent| trail::intent_event(intent, time.wall));
            self.effects.extend(body.map(|body| CommandEffect::Audit { body }));
            self.effects.push_back(CommandEffect::Order(order));
        }
    }

    /// Records that the batch could not be written: its commands are not carried out.
    pub fn on_batch_failed(&mut self, time: CommandTime) {
        self.is_batch_under_way = false;
        self.ledger.on_batch_failed();
        for number in std::mem::take(&mut self.in_batch) {
            self.fail(number, CommandReason::NoRecord, time);
        }
    }

    /// Records that the PLC task does not take an order, for this reason.
    pub fn on_order_refused(&mut self, number: u64, reason: CommandReason, time: CommandTime) {
        self.fail(number, reason, time);
    }

    /// Ends a command that was not carried out.
    fn fail(&mut self, number: u64, reason: CommandReason, time: CommandTime) {
        let Some(pending) = self.take_pending(number) else { return };
        // What an earlier run did is not known, also if the reason is known now.
        let is_new = pending.order.task == OrderTask::Write;
        let reason = if is_new { reason } else { CommandReason::Interrupted };
        let is_recorded = reason != CommandReason::NoRecord;
        let content = ReplyContent { reason: Some(reason), ..ReplyContent::default() };
        let reply = CommandReply::new(pending.id.as_ref(), content, time.wall);
        if is_recorded {
            self.finish(&pending, reply, time.now);
            return;
        }
        self.ledger.withdraw(number, &reply, time.now);
        self.effects
            .extend(pending.requester.map(|requester| CommandEffect::AckDelivery { requester }));
        self.push_reply(pending.order.plc, pending.requester, reply, false);
    }

    /// Records what became of an order.
    pub fn on_report(&mut self, report: &OrderReport, time: CommandTime) {
        let Some(pending) = self.take_pending(report.number) else { return };
        let Some(plc) = self.plcs.get(usize::from(pending.order.plc)) else { return };
        let content = report::content(plc, &pending.order, report);
        let reply = CommandReply::new(pending.id.as_ref(), content, report.at);
        self.finish(&pending, reply, time.now);
    }

    fn take_pending(&mut self, number: u64) -> Option<PendingCommand> {
        let pending = self.pending.remove(&number)?;
        if pending.order.task == OrderTask::Write
            && let Some(plc) = self.plcs.get_mut(usize::from(pending.order.plc))
        {
            plc.waiting = plc.waiting.saturating_sub(1);
        }
        Some(pending)
    }

    fn finish(&mut self, pending: &PendingCommand, reply: CommandReply, now: Instant) {
        let plc = self.plcs.get(usize::from(pending.order.plc));
        let name = plc.map(|plc| plc.name.clone()).unwrap_or_default();
        self.ledger.end(pending.order.number, &reply, now);
        let (by, write) = (pending.by.as_deref(), pending.interrupted.as_ref());
        let body = trail::outcome_event(&name, by, write, &reply);
        self.effects.push_back(CommandEffect::Audit { body });
        self.push_reply(pending.order.plc, pending.requester, reply, true);
    }

    fn push_reply(
        &mut self,
        plc: u16,
        requester: Option<u64>,
        reply: CommandReply,
        is_recorded: bool,
    ) {
        self.effects.push_back(CommandEffect::Reply { plc, requester, reply, is_recorded });
    }

    /// Records which program a PLC has. The first one that is seen with a configuration is the only
    /// one with which the PLC is written to, unless the configuration names another.
    pub fn on_program(&mut self, plc: u16, signature: ProgramSignature) {
        let plc = self.plcs.get_mut(usize::from(plc)).filter(|plc| plc.has_writes);
        let Some(plc) = plc else { return };
        plc.program = Some(signature);
        // A PLC without a program has the signature 0.
        if plc.required_program.is_none() && signature != ProgramSignature([0; 4]) {
            plc.required_program = Some(signature);
            let (plc, config) = (plc.name.clone(), self.config_hash.clone());
            self.ledger.set_program(AcceptedProgram { plc, config, signature });
        }
    }

    /// Returns the only program with which a PLC may be written to; `None` for any.
    #[must_use]
    pub fn required_program(&self, plc: u16) -> Option<ProgramSignature> {
        self.plcs.get(usize::from(plc))?.required_program
    }

    /// Takes over which programs the PLCs have from a command processor that could record nothing.
    pub fn take_over_programs(&mut self, old: &Self) {
        for (index, plc) in (0..).zip(&old.plcs) {
            let Some(program) = plc.program else { continue };
            // The accepted one first: what replaced it meanwhile must not become the accepted one.
            for signature in plc.required_program.into_iter().chain([program]) {
                self.on_program(index, signature);
            }
        }
    }

    /// Returns the program of a PLC that is not the one with which it may be written to; `None` for
    /// a PLC that is only read.
    #[must_use]
    pub fn other_program(&self, plc: u16) -> Option<ProgramSignature> {
        let plc = self.plcs.get(usize::from(plc)).filter(|plc| plc.has_writes)?;
        let wanted = plc.required_program?;
        plc.program.filter(|program| *program != wanted)
    }

    /// Returns the number of commands that are not over.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the next effect.
    pub fn poll_effect(&mut self) -> Option<CommandEffect> {
        self.effects.pop_front()
    }
}

/// Returns the time until which a command may be sent to the PLC, or why it is too old.
fn deadline(
    command: &ParsedCommand,
    incoming: &IncomingCommand<'_>,
    time: CommandTime,
) -> Result<Option<Instant>, CommandReason> {
    let by_broker = incoming.expires_in.and_then(|rest| time.now.checked_add(rest));
    let Some(expires) = command.expires else {
        let is_undated = by_broker.is_none() && incoming.may_be_old;
        return if is_undated { Err(CommandReason::MayBeOld) } else { Ok(by_broker) };
    };
    if !time.is_clock_set {
        return Err(CommandReason::ClockNotSet);
    }
    let rest = expires.as_micros().saturating_sub(time.wall.as_micros());
    let rest = u64::try_from(rest).ok().filter(|rest| *rest > 0).ok_or(CommandReason::Expired)?;
    // One that is beyond the reach of the clock never expires.
    let own = time.now.checked_add(Duration::from_micros(rest));
    Ok(own.into_iter().chain(by_broker).min())
}
