//! The event of one PLC: when it occurs, and what to write to acknowledge it. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use provisioning::config::EventTrigger;
use provisioning::plc::Location;

use crate::model::{
    ImageContent, MaskedWord, OrderOutcome, OrderReport, OrderTask, PlcOrder, ProgramSignature,
    Registers, TagImage, UnixTime, Value,
};

/// Pause before a word that could not be written is written again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most events whose messages are waited for, and most words that wait to be written. Beyond, the
/// oldest is dropped.
pub(super) const MAX_WAITING: usize = 1_000;
/// In place of TRUE: the word has no type.
const TRUE_WORD: u16 = 1;
/// The exception code of a device that is busy: the request is to be sent again later (Modbus
/// Application Protocol V1.1b3, 7).
const SERVER_BUSY: u8 = 6;

/// What the value of the tag `on` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TriggerChange {
    Nothing,
    /// The event occurred: all tags have to be read.
    Occurred,
    /// The BOOL is false.
    Released,
}

/// The event of one PLC.
#[derive(Debug)]
pub(super) struct PlcTrigger {
    plc: u16,
    trigger: EventTrigger,
    last: Option<Value>,
    /// The value of the last event whose message is queued; before the first, what was found.
    published: Option<Value>,
    reading: ReadState,
    /// The events whose messages the broker does not have yet, oldest first.
    waiting: VecDeque<WaitingEvent>,
    /// Time of the last event that was acknowledged: the word never goes back to an earlier one.
    last_acknowledged: Option<UnixTime>,
    /// Words to be written, oldest first.
    writes: VecDeque<u16>,
    /// Number of the order that is under way, and its word.
    writing: Option<(u64, u16)>,
    retry_at: Option<Instant>,
    /// Events that will not be acknowledged because too many wait, since the last call of
    /// [`PlcTrigger::take_dropped`].
    dropped: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReadState {
    Idle,
    Wanted,
    /// The order with this number is under way.
    UnderWay(u64),
}

/// An event whose message the broker does not have yet, or which waits for an earlier one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct WaitingEvent {
    /// The time of its record, by which the next run knows it again.
    pub(super) at: UnixTime,
    /// What has to be written when the broker has the message.
    pub(super) word: u16,
    /// Of the message; absent for one of an earlier run that was not sent in this one.
    pub(super) ticket: Option<u64>,
    /// Whether the broker has the message.
    pub(super) is_delivered: bool,
}

/// What was saved of an event by an earlier run.
#[derive(Debug, Default)]
pub(super) struct KnownEvent {
    /// Value of the tag.
    pub(super) last: Option<Value>,
    /// Words that it did not write.
    pub(super) pending_words: Vec<u16>,
    /// Events that were not acknowledged, oldest first.
    pub(super) waiting: Vec<WaitingEvent>,
    /// Time of the last one that was.
    pub(super) last_acknowledged: Option<UnixTime>,
}

impl PlcTrigger {
    pub(super) fn new(plc: u16, trigger: EventTrigger, known: KnownEvent) -> Self {
        let KnownEvent { last, mut pending_words, mut waiting, last_acknowledged } = known;
        if trigger.acknowledge.is_none() {
            // An earlier configuration had the word.
            (pending_words, waiting) = (Vec::new(), Vec::new());
        }
        Self {
            plc,
            trigger,
            published: last.clone(),
            last,
            reading: ReadState::Idle,
            waiting: waiting.into(),
            last_acknowledged,
            writes: pending_words.into(),
            writing: None,
            retry_at: None,
            dropped: 0,
        }
    }

    pub(super) const fn tag(&self) -> u16 {
        self.trigger.tag
    }

    /// Returns the value up to which messages are queued.
    pub(super) const fn published(&self) -> Option<&Value> {
        self.published.as_ref()
    }

    /// Returns the words that are not written yet, oldest first.
    pub(super) fn pending_words(&self) -> impl Iterator<Item = u16> {
        self.writing.iter().map(|(_, word)| *word).chain(self.writes.iter().copied())
    }

    /// Returns the events that are not acknowledged yet, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &WaitingEvent> {
        self.waiting.iter()
    }

    /// Returns the time of the last event that was acknowledged.
    pub(super) const fn last_acknowledged(&self) -> Option<UnixTime> {
        self.last_acknowledged
    }

    /// Returns the number of events that were dropped since the last call.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        std::mem::replace(&mut self.dropped, 0)
    }

    /// Takes a good value of the tag. A counter that is seen for the first time has not changed; a
    /// BOOL that is true has become so.
    pub(super) fn on_value(&mut self, value: &Value) -> TriggerChange {
        let was = self.last.replace(value.clone());
        let change = match (value, was) {
            (value, Some(was)) if *value == was => TriggerChange::Nothing,
            (Value::Bool(true), _) | (Value::Int(_) | Value::Uint(_), Some(_)) => {
                TriggerChange::Occurred
            }
            (Value::Bool(false), _) => TriggerChange::Released,
            (_, _) => TriggerChange::Nothing,
        };
        if change == TriggerChange::Released
            || change == TriggerChange::Nothing && self.published.is_none()
        {
            self.published.clone_from(&self.last);
        }
        match change {
            TriggerChange::Occurred if self.reading == ReadState::Idle => {
                self.reading = ReadState::Wanted;
            }
            TriggerChange::Released if self.trigger.acknowledge.is_some() => {
                // The program waits no more: what the broker confirms late means nothing to it.
                self.waiting.clear();
                self.writes = VecDeque::from([0]);
            }
            TriggerChange::Occurred | TriggerChange::Released | TriggerChange::Nothing => {}
        }
        change
    }

    /// Records that the tags could not be read: the next good value is compared with the last one
    /// that was published, and so shows the event again.
    pub(super) fn on_read_failed(&mut self) {
        self.last.clone_from(&self.published);
    }

    /// Records that the message of the event at this time is queued, with this value.
    pub(super) fn on_queued(&mut self, ticket: u64, at: UnixTime, value: &Value) {
        self.published = Some(value.clone());
        if self.expects_plc_ack(value) {
            let (word, ticket) = (to_word(value), Some(ticket));
            self.waiting.push_back(WaitingEvent { at, word, ticket, is_delivered: false });
            self.limit_waiting();
        }
    }

    /// Records that the message of the event at this time is sent, with this value: one that is
    /// not known is of an earlier run.
    pub(super) fn on_sent(&mut self, ticket: u64, at: UnixTime, value: &Value) {
        let is_known = self.waiting.iter().any(|event| event.ticket == Some(ticket));
        if is_known || !self.expects_plc_ack(value) {
            return;
        }
        let mut earlier = self.waiting.iter_mut();
        if let Some(event) = earlier.find(|event| event.ticket.is_none() && event.at == at) {
            event.ticket = Some(ticket);
            return;
        }
        // A BOOL may be true for another event by now, and a counter does not go back.
        let is_over = matches!(value, Value::Bool(_))
            || self.last_acknowledged.is_some_and(|last_acknowledged| at <= last_acknowledged);
        if !is_over {
            let is_later =
                |event: &WaitingEvent| event.ticket.map_or(event.at > at, |other| other > ticket);
            let place = self.waiting.iter().position(is_later).unwrap_or(self.waiting.len());
            let (word, ticket) = (to_word(value), Some(ticket));
            self.waiting.insert(place, WaitingEvent { at, word, ticket, is_delivered: false });
            self.limit_waiting();
        }
    }

    /// Returns whether an event is acknowledged whose message has this value: where a BOOL was
    /// false again when all tags were read, the program waits no more.
    fn expects_plc_ack(&self, value: &Value) -> bool {
        self.trigger.acknowledge.is_some() && *value != Value::Bool(false)
    }

    fn limit_waiting(&mut self) {
        while self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }

    /// Records that all messages get new tickets.
    pub(super) fn forget_tickets(&mut self) {
        self.waiting.iter_mut().for_each(|event| event.ticket = None);
    }

    /// Records that the broker has a message. Returns whether it is one of an event that waits for
    /// that.
    pub(super) fn on_acknowledged(&mut self, ticket: u64) -> bool {
        let mut waiting = self.waiting.iter_mut();
        let event = waiting.find(|event| event.ticket == Some(ticket));
        event.map(|event| event.is_delivered = true).is_some()
    }

    /// Decides what to write for the events whose messages the broker has, in their order.
    /// `is_queued` tells whether a message may still be sent, by its ticket, or without one any of
    /// an earlier run: an event whose message was dropped is not acknowledged, and delays none.
    /// Returns whether any event is decided.
    pub(super) fn decide_acknowledgements(
        &mut self,
        is_queued: impl Fn(Option<u64>) -> bool,
    ) -> bool {
        let before = self.waiting.len();
        while let Some(WaitingEvent { at, word, ticket, is_delivered }) =
            self.waiting.front().copied()
        {
            if !is_delivered && is_queued(ticket) {
                break;
            }
            self.waiting.pop_front();
            if is_delivered {
                self.last_acknowledged = self.last_acknowledged.max(Some(at));
                if self.writes.len() >= MAX_WAITING {
                    self.writes.pop_front();
                    self.dropped += 1;
                }
                self.writes.push_back(word);
            }
        }
        self.waiting.len() != before
    }

    /// Returns the next order, whose number is then `number`. What it writes is for this program
    /// only: in another one the word may be part of anything.
    pub(super) fn next_order(
        &mut self,
        number: u64,
        program: Option<ProgramSignature>,
        now: Instant,
    ) -> Option<PlcOrder> {
        if self.reading == ReadState::Wanted {
            self.reading = ReadState::UnderWay(number);
            return Some(self.order(number, OrderTask::ReadAll, Vec::new()));
        }
        let is_paused = self.retry_at.is_some_and(|at| now < at);
        let place = self.trigger.acknowledge.filter(|_| self.writing.is_none() && !is_paused)?;
        let word = self.writes.pop_front()?;
        self.writing = Some((number, word));
        let order = self.order(number, OrderTask::Write, vec![image(&place, word)]);
        Some(PlcOrder { program, ..order })
    }

    /// Records what became of an order. Returns what it was.
    pub(super) fn on_report(&mut self, report: &OrderReport, now: Instant) -> FinishedOrder {
        if self.reading == ReadState::UnderWay(report.number) {
            self.reading = ReadState::Idle;
            if report.outcome == OrderOutcome::Done {
                return FinishedOrder::ReadAll;
            }
            self.on_read_failed();
            return FinishedOrder::Retried;
        }
        let Some((_, word)) = self.writing.filter(|(number, _)| *number == report.number) else {
            return FinishedOrder::Other;
        };
        // To write the same word twice is no other command than to write it once.
        let read = report.images.first().and_then(|image| image.read.as_ref());
        let is_there = read == Some(&Registers::Words(vec![word]));
        match report.outcome {
            OrderOutcome::Done => self.writing = None,
            OrderOutcome::Unknown if is_there => self.writing = None,
            OrderOutcome::Refused(SERVER_BUSY)
            | OrderOutcome::Unknown
            | OrderOutcome::NotSent(_)
            | OrderOutcome::Partial(_) => {
                self.retry_write(report.number, now);
                return FinishedOrder::Retried;
            }
            OrderOutcome::Refused(_) | OrderOutcome::ExpectationFailed => self.writing = None,
        }
        FinishedOrder::Acknowledgement(word)
    }

    fn retry_write(&mut self, number: u64, now: Instant) {
        if let Some((_, word)) = self.writing.take_if(|(writing, _)| *writing == number) {
            // A word that was decided on since then replaces that of a BOOL.
            if !self.is_bool() || self.writes.is_empty() {
                self.writes.push_front(word);
            }
            self.retry_at = Some(now + RETRY_PAUSE);
        }
    }

    const fn is_bool(&self) -> bool {
        matches!(self.last, Some(Value::Bool(_)))
    }

    fn order(&self, number: u64, task: OrderTask, write: Vec<TagImage>) -> PlcOrder {
        let (plc, expect) = (self.plc, Vec::new());
        PlcOrder { number, plc, expect, write, task, program: None, not_after: None }
    }
}

/// What an order was that is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FinishedOrder {
    /// All tags were read.
    ReadAll,
    /// This word was written, or refused.
    Acknowledgement(u16),
    /// It is tried again.
    Retried,
    /// None of this PLC's event.
    Other,
}

fn image(place: &Location, word: u16) -> TagImage {
    let content = ImageContent::Words(vec![MaskedWord::whole(word)]);
    TagImage { tag: None, table: place.table, first: place.first, content }
}

/// Returns the word that acknowledges an event with this value: a counter of at most 16 bits, or 1.
#[expect(clippy::cast_possible_truncation, reason = "a counter has at most 16 bits")]
fn to_word(value: &Value) -> u16 {
    match value {
        Value::Int(number) => (*number as i16).cast_unsigned(),
        Value::Uint(number) => *number as u16,
        Value::Bool(_) | Value::Real(_) | Value::Lreal(_) | Value::Text(_) | Value::List(_) => {
            TRUE_WORD
        }
    }
}

#[cfg(test)]
mod tests;
