//! Messages that are published upon an event of a PLC, and their acknowledgement to the PLC.

mod event_file;
mod plc_trigger;

use std::collections::{BTreeMap, VecDeque};

use provisioning::config::{Config, Plc};
use provisioning::plc::{IecType, ValueKind};
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc;

use self::event_file::{EventFile, SavedEvent};
use self::plc_trigger::{FinishedOrder, KnownEvent, PlcTrigger, TriggerChange};
use super::{Pump, now};
use crate::clock;
use crate::codec::json;
use crate::metrics::{CommandOutcome, PlcMetrics};
use crate::model::{
    OrderOutcome, OrderReport, PlcOrder, ProgramSignature, Record, UnixTime, Value,
};
use crate::queue::{EntryId, Queue};

/// Orders with this bit in their number are not those of commands.
const TRIGGER_ORDER: u64 = 1 << 63;
/// Target of the lines about events: the log's limit counts them apart.
const PLC_EVENTS: &str = "gateway::plc_events";

/// The events of all PLCs that have one.
#[derive(Debug)]
pub(super) struct Triggers {
    plcs: BTreeMap<u16, TriggeredPlc>,
    next_number: u64,
    orders: Vec<mpsc::Sender<PlcOrder>>,
    /// Absent without an event.
    file: Option<EventFile>,
    /// Messages that the broker has, each with the number of the state that says so: they stay in
    /// the queue until it is written.
    removing: VecDeque<(u64, EntryId)>,
    /// The messages of earlier runs have lower ids.
    first_id: EntryId,
}

#[derive(Debug)]
struct TriggeredPlc {
    name: String,
    /// Name of the tag `on`.
    on: String,
    /// Address of the word `acknowledge`.
    word: Option<u16>,
    trigger: PlcTrigger,
    /// When the machine booted, by the clock of the last cycle.
    booted_at: UnixTime,
    metrics: Option<PlcMetrics>,
    /// Whether the last event was not acknowledged to the PLC.
    is_failing: bool,
}

impl Triggers {
    /// Returns the events of this configuration. Reads a state file, which blocks, and starts a
    /// task that writes it, if there is an event. `next_id` is that of the queue.
    pub(super) fn new(
        config: &Config,
        metrics: &[PlcMetrics],
        orders: Vec<mpsc::Sender<PlcOrder>>,
        next_id: EntryId,
    ) -> Self {
        let with_event = |(plc, _): &(&Plc, u16)| plc.publish.on.is_some();
        let configured = || config.plcs.iter().zip(0..).filter(with_event);
        let count = configured().count();
        let opened = (count > 0).then(|| EventFile::open(&config.gateway.state_dir, count));
        let (file, mut known) = opened.unzip();
        let plcs = configured().filter_map(|(plc, index)| {
            let on = plc.publish.on?;
            let known = known.as_mut().and_then(|known| known.remove(&plc.name));
            let known = known.and_then(|saved| {
                let last = Some(last_value(plc, on.tag, &saved)?);
                let waiting = saved.waiting.into_iter().map(Into::into).collect();
                let last_acknowledged = saved.last_acknowledged.map(UnixTime::from_micros);
                Some(KnownEvent {
                    last,
                    pending_words: saved.pending_words,
                    waiting,
                    last_acknowledged,
                })
            });
            let triggered = TriggeredPlc {
                name: plc.name.clone(),
                on: plc.tags.get(usize::from(on.tag))?.name.clone(),
                word: on.acknowledge.map(|place| place.first),
                trigger: PlcTrigger::new(index, on, known.unwrap_or_default()),
                booted_at: UnixTime::default(),
                metrics: metrics.get(usize::from(index)).cloned(),
                is_failing: false,
            };
            Some((index, triggered))
        });
        let plcs = plcs.collect();
        let (next_number, removing) = (TRIGGER_ORDER, VecDeque::new());
        Self { plcs, next_number, orders, file, removing, first_id: next_id }
    }

    /// Saves the state for the next run, once the last one is written.
    fn save(&mut self) {
        if let Some(file) = &mut self.file {
            file.on_changed();
        }
        self.hand_over();
    }

    /// Hands the present state to the task that writes it, if that is due.
    fn hand_over(&mut self) {
        if let Some(file) = self.file.as_mut().filter(|file| file.is_due()) {
            file.hand_over(to_text(&self.plcs));
        }
    }

    /// Waits until a state is written; for ever if none can be. Cancel safe. Then
    /// [`Pump::on_events_saved`] has something to do.
    pub(super) async fn saved(&mut self) {
        match &mut self.file {
            Some(file) => {
                // Without its task nothing is written: messages are not kept for that.
                if !file.wait().await {
                    self.file = None;
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until the present state is written.
    pub(super) async fn close(&mut self) {
        if let Some(mut file) = self.file.take() {
            if file.is_behind() {
                file.hand_over(to_text(&self.plcs));
            }
            file.close().await;
        }
    }

    /// Keeps a message in the queue until the present state is written.
    fn remove_when_saved(&mut self, id: EntryId) {
        let number = self.file.as_ref().map_or(0, EventFile::present);
        self.removing.push_back((number, id));
    }

    /// Returns the next message that may leave the queue.
    fn next_saved(&mut self) -> Option<EntryId> {
        let written = self.file.as_ref().map_or(u64::MAX, EventFile::written);
        self.removing.pop_front_if(|(number, _)| *number <= written).map(|(_, id)| id)
    }

    /// Records that the messages in the queue got other ids, all below `next_id`. None is handed
    /// out, so that those that the broker has are sent again.
    pub(super) fn forget_tickets(&mut self, next_id: EntryId) {
        self.removing.clear();
        self.first_id = next_id;
        self.plcs.values_mut().for_each(|plc| plc.trigger.forget_tickets());
    }

    /// Returns the value of the tag `on` in a record of a PLC whose events are acknowledged to it.
    pub(super) fn event_value(&self, record: &Record) -> Option<Value> {
        let plc = self.plcs.get(&record.plc)?;
        let mut samples = record.samples.iter();
        samples.find(|sample| sample.tag == plc.trigger.tag())?.value.clone()
    }

    /// Records that the message of the event of a PLC at this time was queued.
    pub(super) fn on_queued(&mut self, id: EntryId, (plc, at, value): (u16, UnixTime, &Value)) {
        if let Some(plc) = self.plcs.get_mut(&plc) {
            plc.trigger.on_queued(id.ticket(), at, value);
        }
    }

    /// Records that a message is sent, which may be one of an earlier run.
    pub(super) fn on_sent(&mut self, id: EntryId, record: &Record) {
        if let Some(value) = self.event_value(record)
            && let Some(plc) = self.plcs.get_mut(&record.plc)
        {
            plc.trigger.on_sent(id.ticket(), record.at, &value);
        }
    }

    /// Records that the broker has a message. Returns whether it may leave the queue only when that
    /// is saved.
    fn on_acknowledged(&mut self, id: EntryId) -> bool {
        let mut plcs = self.plcs.values_mut();
        plcs.any(|plc| plc.trigger.on_acknowledged(id.ticket()))
            || self.removing.iter().any(|(_, removing)| *removing == id)
    }

    /// Decides what to write for the events whose messages the broker has. Returns whether any
    /// event is decided.
    fn decide(&mut self, queue: &Queue) -> bool {
        let first_id = self.first_id;
        let is_queued = |ticket: Option<u64>| match ticket {
            Some(ticket) => queue.holds(EntryId::from_ticket(ticket)),
            // Those of earlier runs may be in a storage that is attached later.
            None => queue.lacks_storage() || queue.holds_before(first_id),
        };
        let mut has_decided = false;
        for plc in self.plcs.values_mut() {
            has_decided |= plc.trigger.decide_acknowledgements(is_queued);
            plc.report_dropped();
        }
        has_decided
    }

    /// Does what is due every second: messages may have been dropped.
    pub(super) fn on_tick(&mut self, queue: &Queue) {
        if self.decide(queue) {
            self.save();
        }
    }

    /// Hands the orders that are due to the PLC tasks. `required_program` returns the only program
    /// with which a PLC may be written to.
    pub(super) fn send_orders(
        &mut self,
        required_program: impl Fn(u16) -> Option<ProgramSignature>,
    ) {
        for (index, plc) in &mut self.plcs {
            let Some(channel) = self.orders.get(usize::from(*index)) else { continue };
            let program = required_program(*index);
            // Without room nothing is decided: the next turn of the event loop tries again.
            while let Ok(permit) = channel.try_reserve()
                && let Some(order) = plc.trigger.next_order(self.next_number, program, now())
            {
                self.next_number += 1;
                permit.send(order);
            }
        }
    }
}

impl Pump {
    /// Takes the value of the tag `on` from a cycle.
    pub(super) fn on_trigger_cycle(&mut self, plc: u16, booted_at: UnixTime) {
        let Some(triggered) = self.triggers.plcs.get_mut(&plc) else { return };
        triggered.booted_at = booted_at;
        let sampler = self.pipelines.get(usize::from(plc)).map(|pipeline| &pipeline.sampler);
        let value = sampler.and_then(|sampler| sampler.present(triggered.trigger.tag()));
        let Some(value) = value else { return };
        let was_unknown = triggered.trigger.published().is_none();
        let change = triggered.trigger.on_value(value);
        let is_first = was_unknown && triggered.trigger.published().is_some();
        if change == TriggerChange::Released || is_first {
            self.triggers.save();
        }
    }

    /// Removes a message from the queue that the broker has: one of an event only when that is
    /// saved. Otherwise a restart in between would lose the acknowledgement to the PLC.
    pub(super) fn on_event_acknowledged(&mut self, id: EntryId) {
        if self.triggers.on_acknowledged(id) {
            self.triggers.decide(&self.queue);
            self.triggers.save();
            self.triggers.remove_when_saved(id);
            self.on_events_saved();
        } else {
            self.remove_acknowledged(id);
        }
    }

    /// Does what waits for a state of the events to be written.
    pub(super) fn on_events_saved(&mut self) {
        self.triggers.hand_over();
        while let Some(id) = self.triggers.next_saved() {
            self.remove_acknowledged(id);
        }
    }

    /// Takes the report of an order. Returns whether it was one of an event.
    pub(super) fn on_trigger_report(&mut self, report: &OrderReport) -> bool {
        if report.number < TRIGGER_ORDER {
            return false;
        }
        let Some(triggered) = self.triggers.plcs.get_mut(&report.plc) else { return true };
        match triggered.trigger.on_report(report, now()) {
            FinishedOrder::ReadAll => self.publish_triggered_record(report.plc),
            FinishedOrder::Acknowledgement(word) => {
                let body = triggered.on_word_done(word, report);
                self.push_event(body);
                self.triggers.save();
            }
            FinishedOrder::Retried | FinishedOrder::Other => {}
        }
        true
    }

    /// Publishes all tags, as they were read last. Without the tag `on` the read has failed, and
    /// the event is still to come.
    fn publish_triggered_record(&mut self, plc: u16) {
        let Some(pipeline) = self.pipelines.get_mut(usize::from(plc)) else { return };
        let Some(triggered) = self.triggers.plcs.get_mut(&plc) else { return };
        let (topic, booted_at) = (pipeline.topic, triggered.booted_at);
        let is_read = pipeline.sampler.present(triggered.trigger.tag()).is_some();
        let record = is_read.then(|| pipeline.sampler.take_all(clock::now(), now())).flatten();
        let Some(record) = record else { return triggered.trigger.on_read_failed() };
        self.push_record(topic, record, booted_at);
        self.triggers.save();
    }
}

impl TriggeredPlc {
    /// Records that a word was written, or refused for good. Returns the event message.
    fn on_word_done(&mut self, word: u16, report: &OrderReport) -> Map<String, Json> {
        if let OrderOutcome::Refused(exception) = report.outcome {
            self.count_failed(1, Some(exception));
        } else {
            if std::mem::take(&mut self.is_failing) {
                let plc = self.name.as_str();
                tracing::info!(target: PLC_EVENTS, plc, "events are acknowledged again");
            }
            self.count(CommandOutcome::Done);
        }
        audit(self, word, report)
    }

    fn report_dropped(&mut self) {
        let events = self.trigger.take_dropped();
        if events > 0 {
            self.count_failed(events, None);
        }
    }

    /// Counts events that are not acknowledged to the PLC. The first of consecutive ones is logged.
    fn count_failed(&mut self, events: u64, exception: Option<u8>) {
        (0..events).for_each(|_| self.count(CommandOutcome::Failed));
        if std::mem::replace(&mut self.is_failing, true) {
            return;
        }
        let plc = self.name.as_str();
        match exception {
            Some(exception) => tracing::warn!(
                target: PLC_EVENTS, plc, exception,
                "the PLC refuses the word `acknowledge`: its events are not acknowledged"
            ),
            None => tracing::warn!(
                target: PLC_EVENTS, plc, events,
                "too many events wait for their acknowledgement: the oldest get none"
            ),
        }
    }

    fn count(&self, outcome: CommandOutcome) {
        if let Some(metrics) = &self.metrics {
            metrics.count_command(outcome);
        }
    }
}

/// Returns the text of the file.
fn to_text(plcs: &BTreeMap<u16, TriggeredPlc>) -> String {
    let saved = plcs.values().filter_map(|plc| {
        let last = serde_json::to_value(plc.trigger.published()?).ok()?;
        let pending_words = plc.trigger.pending_words().collect();
        let waiting = plc.trigger.waiting().map(Into::into).collect();
        let last_acknowledged = plc.trigger.last_acknowledged().map(UnixTime::as_micros);
        let on = plc.on.clone();
        Some((
            plc.name.as_str(),
            SavedEvent { on, last, pending_words, waiting, last_acknowledged },
        ))
    });
    let saved: BTreeMap<_, _> = saved.collect();
    // Strings, numbers and lists always have a JSON form.
    serde_json::to_string(&saved).unwrap_or_default()
}

/// Returns the event message for a word that was written: an acknowledgement is a write.
fn audit(plc: &TriggeredPlc, word: u16, report: &OrderReport) -> Map<String, Json> {
    // Where an answer is missing, the word was read back.
    let is_refused = matches!(report.outcome, OrderOutcome::Refused(_));
    let state = if is_refused { "failed" } else { "done" };
    let mut written = Map::new();
    if let Some(address) = plc.word {
        written.insert(format!("%MW{address}"), word.into());
    }
    let mut body = Map::new();
    for (key, value) in [
        ("event", Json::from("write")),
        ("step", "outcome".into()),
        ("plc", plc.name.as_str().into()),
        ("by", "acknowledge".into()),
        ("write", Json::Object(written)),
        ("state", state.into()),
        ("at", report.at.to_string().into()),
    ] {
        body.insert(key.to_owned(), value);
    }
    if let OrderOutcome::Refused(code) = report.outcome {
        body.insert("exception".to_owned(), code.into());
    }
    body
}

/// Returns the value that a tag had in the last run; `None` for what was saved of another tag, or
/// of one of another type.
fn last_value(plc: &Plc, tag: u16, saved: &SavedEvent) -> Option<Value> {
    let tag = plc.tags.get(usize::from(tag)).filter(|tag| tag.name == saved.on)?;
    let value = json::parse(&saved.last, tag.data_type, &tag.json_format).ok()?;
    // As the decoder makes it: unsigned types are never signed values.
    match (value, tag.data_type.element) {
        (Value::Int(number), iec) if is_unsigned(iec) => {
            u64::try_from(number).ok().map(Value::Uint)
        }
        (value, _) => Some(value),
    }
}

const fn is_unsigned(iec: IecType) -> bool {
    matches!(iec.kind(), ValueKind::Unsigned)
}
