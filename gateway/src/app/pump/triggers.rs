//! Messages that are published upon an event of a PLC, and their acknowledgement to the PLC.

mod plc_trigger;

use std::collections::BTreeMap;
use std::path::Path;

use provisioning::config::{Config, Plc};
use provisioning::plc::{IecType, ValueKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::plc_trigger::{FinishedOrder, KnownEvent, PlcTrigger, TriggerChange};
use super::{Pump, now};
use crate::clock;
use crate::codec::json;
use crate::model::{Record, UnixTime, Value, WriteOrder, WriteOutcome, WriteReport};
use crate::queue::{EntryId, Queue};
use crate::state_file::StateFile;

/// Orders with this bit in their number are not those of commands.
const TRIGGER_ORDER: u64 = 1 << 63;

/// The events of all PLCs that have one.
#[derive(Debug)]
pub(super) struct Triggers {
    plcs: BTreeMap<u16, TriggeredPlc>,
    next_number: u64,
    orders: Vec<mpsc::Sender<WriteOrder>>,
    /// For the next run: each message is queued once, and each word written.
    saving: Option<Saving>,
}

/// The task that saves the state of the events.
#[derive(Debug)]
struct Saving {
    state: watch::Sender<String>,
    task: JoinSet<()>,
}

/// What is saved of the event of a PLC.
#[derive(Debug, Deserialize, Serialize)]
struct SavedEvent {
    /// Value of the tag `on`.
    last: Json,
    /// Words that are not written yet.
    #[serde(default)]
    owed: Vec<u16>,
    /// Words of messages that the broker does not have yet.
    #[serde(default)]
    waiting: Vec<u16>,
}

#[derive(Debug)]
struct TriggeredPlc {
    name: String,
    /// Address of the word `acknowledge`.
    word: Option<u16>,
    trigger: PlcTrigger,
    /// When the machine booted, by the clock of the last cycle.
    booted_at: UnixTime,
}

impl Triggers {
    /// Returns the events of this configuration. Reads a state file, which blocks, and starts a
    /// task that writes it, if there is an event.
    pub(super) fn new(config: &Config, orders: Vec<mpsc::Sender<WriteOrder>>) -> Self {
        let with_event = |(plc, _): &(&Plc, u16)| plc.publish.on.is_some();
        let mut configured = config.plcs.iter().zip(0..).filter(with_event).peekable();
        let mut known: BTreeMap<String, SavedEvent> = BTreeMap::new();
        let saving = configured.peek().is_some().then(|| {
            let file = state_file(&config.gateway.state_dir);
            known = serde_json::from_str(&file.read().unwrap_or_default()).unwrap_or_default();
            let (state, saved) = watch::channel(String::new());
            let mut task = JoinSet::new();
            task.spawn(save(file, saved));
            Saving { state, task }
        });
        let plcs = configured.filter_map(|(plc, index)| {
            let on = plc.publish.on?;
            let known = known.remove(&plc.name);
            let known = known.map(|SavedEvent { last, owed, waiting }| KnownEvent {
                last: last_value(plc, on.tag, &last),
                owed,
                waiting,
            });
            let triggered = TriggeredPlc {
                name: plc.name.clone(),
                word: on.acknowledge.map(|place| place.first),
                trigger: PlcTrigger::new(index, on, known.unwrap_or_default()),
                booted_at: UnixTime::default(),
            };
            Some((index, triggered))
        });
        let plcs = plcs.collect();
        Self { plcs, next_number: TRIGGER_ORDER, orders, saving }
    }

    /// Saves the state for the next run.
    fn save(&self) {
        let Some(saving) = &self.saving else { return };
        let saved = self.plcs.values().filter_map(|plc| {
            let last = serde_json::to_value(plc.trigger.published()?).ok()?;
            let (owed, waiting) = (plc.trigger.owed().collect(), plc.trigger.waiting().collect());
            Some((plc.name.as_str(), SavedEvent { last, owed, waiting }))
        });
        let saved: BTreeMap<_, _> = saved.collect();
        let text = serde_json::to_string(&saved).unwrap_or_default();
        saving.state.send_if_modified(|state| {
            let is_new = *state != text;
            *state = text;
            is_new
        });
    }

    /// Waits until the state is saved.
    pub(super) async fn close(&mut self) {
        if let Some(Saving { state, task }) = self.saving.take() {
            drop(state);
            // It ends with the last state; a panic in it is reported by the runtime.
            task.join_all().await;
        }
    }

    /// Returns the value of the tag `on` in a record of a PLC whose events are acknowledged to it.
    pub(super) fn event_value(&self, record: &Record) -> Option<Value> {
        let plc = self.plcs.get(&record.plc)?;
        let mut samples = record.samples.iter();
        samples.find(|sample| sample.tag == plc.trigger.tag())?.value.clone()
    }

    /// Records that the message of an event was queued.
    pub(super) fn on_queued(&mut self, id: EntryId, (plc, value): (u16, &Value)) {
        if let Some(plc) = self.plcs.get_mut(&plc) {
            plc.trigger.on_queued(id.ticket(), value);
        }
    }

    /// Records that a message is sent, which may be one of an earlier run.
    pub(super) fn on_sent(&mut self, id: EntryId, record: &Record) {
        if let Some(value) = self.event_value(record)
            && let Some(plc) = self.plcs.get_mut(&record.plc)
        {
            plc.trigger.on_sent(id.ticket(), &value);
        }
    }

    /// Records that the broker has a message.
    pub(super) fn on_acknowledged(&mut self, id: EntryId) {
        for plc in self.plcs.values_mut() {
            plc.trigger.on_acknowledged(id.ticket());
        }
    }

    /// Decides what to write for the events whose messages the broker has.
    pub(super) fn confirm_events(&mut self, queue: &Queue) {
        if self.plcs.is_empty() {
            return;
        }
        let is_queued = |ticket: Option<u64>| match ticket {
            Some(ticket) => queue.holds(EntryId::from_ticket(ticket)),
            None => !queue.is_empty(),
        };
        for plc in self.plcs.values_mut() {
            plc.trigger.confirm_events(is_queued);
        }
        self.save();
    }

    /// Hands the orders that are due to the PLC tasks.
    pub(super) fn send_orders(&mut self) {
        for (index, plc) in &mut self.plcs {
            let Some(channel) = self.orders.get(usize::from(*index)) else { continue };
            // Without room nothing is decided: the next turn of the event loop tries again.
            while let Ok(permit) = channel.try_reserve()
                && let Some(order) = plc.trigger.next_order(self.next_number, now())
            {
                self.next_number += 1;
                permit.send(order);
            }
        }
    }
}

impl Pump {
    /// Takes the value of the tag `on` from a cycle.
    pub(super) fn watch_event(&mut self, plc: u16, booted_at: UnixTime) {
        let Some(triggered) = self.triggers.plcs.get_mut(&plc) else { return };
        triggered.booted_at = booted_at;
        let sampler = self.pipelines.get(usize::from(plc)).map(|pipeline| &pipeline.sampler);
        let value = sampler.and_then(|sampler| sampler.present(triggered.trigger.tag()));
        let Some(value) = value else { return };
        let is_first = triggered.trigger.published().is_none();
        if triggered.trigger.on_value(value) == TriggerChange::Released || is_first {
            self.triggers.save();
        }
    }

    /// Takes the report of an order. Returns whether it was one of an event.
    pub(super) fn on_trigger_report(&mut self, report: &WriteReport) -> bool {
        if report.number < TRIGGER_ORDER {
            return false;
        }
        let Some(triggered) = self.triggers.plcs.get_mut(&report.plc) else { return true };
        match triggered.trigger.on_report(report, now()) {
            FinishedOrder::ReadAll => self.publish_event(report.plc),
            FinishedOrder::Acknowledgement(word) => {
                let body = audit(triggered, word, report);
                self.push_event(body);
                self.triggers.save();
            }
            FinishedOrder::Retried | FinishedOrder::Other => {}
        }
        true
    }

    /// Publishes all tags, as they were read last.
    fn publish_event(&mut self, plc: u16) {
        let Some(pipeline) = self.pipelines.get_mut(usize::from(plc)) else { return };
        let booted_at = self.triggers.plcs.get(&plc).map(|triggered| triggered.booted_at);
        let topic = pipeline.topic;
        let record = pipeline.sampler.take_all(clock::now(), now());
        if let (Some(record), Some(booted_at)) = (record, booted_at) {
            self.push_record(topic, record, booted_at);
            self.triggers.save();
        }
    }
}

/// Returns the event message for a word that was written: an acknowledgement is a write.
fn audit(plc: &TriggeredPlc, word: u16, report: &WriteReport) -> Map<String, Json> {
    let state = if report.outcome == WriteOutcome::Done { "done" } else { "failed" };
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
    if let WriteOutcome::Refused(code) = report.outcome {
        body.insert("exception".to_owned(), code.into());
    }
    body
}

fn state_file(state_dir: &Path) -> StateFile {
    let loss = "the state of the events cannot be saved: after a restart a message may come twice";
    StateFile::new(state_dir, "events", loss)
}

/// Writes each state to the file, the latest one if they change faster.
async fn save(mut file: StateFile, mut state: watch::Receiver<String>) {
    while state.changed().await.is_ok() {
        let text = state.borrow_and_update().clone();
        file.write(text).await;
    }
}

/// Returns the value that a tag had in the last run.
fn last_value(plc: &Plc, tag: u16, json: &Json) -> Option<Value> {
    let tag = plc.tags.get(usize::from(tag))?;
    let value = json::parse(json, tag.data_type, &tag.json_format).ok()?;
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
