//! The event of one PLC: when it occurs, and what to write to acknowledge it. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use provisioning::config::EventTrigger;
use provisioning::plc::Location;

use crate::model::{
    ImageContent, MaskedWord, Registers, TagImage, Value, WriteOrder, WriteOutcome, WriteReport,
    WriteTask,
};

/// Pause before a word that could not be written is written again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most events whose messages are waited for. An older one is not acknowledged.
const MAX_WAITING: usize = 1_000;
/// In place of TRUE: the word has no type.
const TRUE_WORD: u16 = 1;

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
    /// Ticket of the message of the last event.
    latest: Option<u64>,
    /// Ticket of the last event that was acknowledged: the word never goes back to an earlier one.
    confirmed: Option<u64>,
    /// Words to be written, oldest first.
    writes: VecDeque<u16>,
    /// Number of the order that is under way, and its word.
    writing: Option<(u64, u16)>,
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReadState {
    Idle,
    Wanted,
    /// The order with this number is under way.
    UnderWay(u64),
}

/// An event whose message the broker does not have yet.
#[derive(Clone, Copy, Debug)]
struct WaitingEvent {
    /// What has to be written when it has.
    word: u16,
    /// Of the message; absent for one of an earlier run that was not sent in this one.
    ticket: Option<u64>,
    is_acknowledged: bool,
}

/// What was saved of an event by an earlier run.
#[derive(Debug, Default)]
pub(super) struct KnownEvent {
    /// Value of the tag.
    pub(super) last: Option<Value>,
    /// Words that it did not write.
    pub(super) owed: Vec<u16>,
    /// Words of messages that the broker did not have.
    pub(super) waiting: Vec<u16>,
}

impl PlcTrigger {
    pub(super) fn new(plc: u16, trigger: EventTrigger, known: KnownEvent) -> Self {
        let KnownEvent { last, owed, waiting } = known;
        let of_earlier_run = |word| WaitingEvent { word, ticket: None, is_acknowledged: false };
        Self {
            plc,
            trigger,
            published: last.clone(),
            last,
            reading: ReadState::Idle,
            waiting: waiting.into_iter().map(of_earlier_run).collect(),
            latest: None,
            confirmed: None,
            writes: owed.into(),
            writing: None,
            retry_at: None,
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
    pub(super) fn owed(&self) -> impl Iterator<Item = u16> {
        self.writing.iter().map(|(_, word)| *word).chain(self.writes.iter().copied())
    }

    /// Returns the words of the messages that the broker does not have, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u16> {
        self.waiting.iter().map(|event| event.word)
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
                self.latest = None;
                self.writes = VecDeque::from([0]);
            }
            TriggerChange::Occurred | TriggerChange::Released | TriggerChange::Nothing => {}
        }
        change
    }

    /// Records that the message of an event with this value is queued.
    pub(super) fn on_queued(&mut self, ticket: u64, value: &Value) {
        self.published = Some(value.clone());
        self.latest = Some(ticket);
        if self.trigger.acknowledge.is_some() {
            if self.waiting.len() >= MAX_WAITING {
                self.waiting.pop_front();
            }
            let (word, ticket) = (to_word(value), Some(ticket));
            self.waiting.push_back(WaitingEvent { word, ticket, is_acknowledged: false });
        }
    }

    /// Records that the message of an event with this value is sent: one that is not known is of an
    /// earlier run.
    pub(super) fn on_sent(&mut self, ticket: u64, value: &Value) {
        let is_over = self.confirmed.is_some_and(|confirmed| ticket <= confirmed);
        let is_known = self.waiting.iter().any(|event| event.ticket == Some(ticket));
        if self.trigger.acknowledge.is_none() || is_known || is_over {
            return;
        }
        let word = to_word(value);
        let mut earlier = self.waiting.iter_mut();
        match earlier.find(|event| event.ticket.is_none() && event.word == word) {
            Some(event) => event.ticket = Some(ticket),
            None => {
                let ticket = Some(ticket);
                self.waiting.push_front(WaitingEvent { word, ticket, is_acknowledged: false });
            }
        }
    }

    /// Records that the broker has a message.
    pub(super) fn on_acknowledged(&mut self, ticket: u64) {
        let mut waiting = self.waiting.iter_mut();
        if let Some(event) = waiting.find(|event| event.ticket == Some(ticket)) {
            event.is_acknowledged = true;
        }
    }

    /// Decides what to write for the events whose messages the broker has, in their order.
    /// `is_queued` tells whether a message may still be sent, by its ticket, or without one any of
    /// an earlier run: an event whose message was dropped is not acknowledged, and delays none.
    pub(super) fn confirm_events(&mut self, is_queued: impl Fn(Option<u64>) -> bool) {
        while let Some(WaitingEvent { word, ticket, is_acknowledged }) =
            self.waiting.front().copied()
        {
            if !is_acknowledged && is_queued(ticket) {
                break;
            }
            self.waiting.pop_front();
            // A BOOL may be true for another event by now.
            let is_expected = !self.is_switch() || self.latest == ticket;
            if is_acknowledged && is_expected {
                self.confirmed = self.confirmed.max(ticket);
                self.writes.push_back(word);
            }
        }
    }

    /// Returns the next order, whose number is then `number`.
    pub(super) fn next_order(&mut self, number: u64, now: Instant) -> Option<WriteOrder> {
        if self.reading == ReadState::Wanted {
            self.reading = ReadState::UnderWay(number);
            return Some(self.order(number, WriteTask::ReadAll, Vec::new()));
        }
        let is_paused = self.retry_at.is_some_and(|at| now < at);
        let place = self.trigger.acknowledge.filter(|_| self.writing.is_none() && !is_paused)?;
        let word = self.writes.pop_front()?;
        self.writing = Some((number, word));
        Some(self.order(number, WriteTask::Write, vec![image(&place, word)]))
    }

    /// Records what became of an order. Returns what it was.
    pub(super) fn on_report(&mut self, report: &WriteReport, now: Instant) -> FinishedOrder {
        if self.reading == ReadState::UnderWay(report.number) {
            self.reading = ReadState::Idle;
            return FinishedOrder::ReadAll;
        }
        let Some((_, word)) = self.writing.filter(|(number, _)| *number == report.number) else {
            return FinishedOrder::Other;
        };
        // To write the same word twice is no other command than to write it once.
        let read = report.images.first().and_then(|image| image.read.as_ref());
        let is_there = read == Some(&Registers::Words(vec![word]));
        match report.outcome {
            WriteOutcome::Done => self.writing = None,
            WriteOutcome::Refused(_) | WriteOutcome::ExpectationFailed => self.writing = None,
            WriteOutcome::Unknown if is_there => self.writing = None,
            WriteOutcome::Unknown | WriteOutcome::NotSent(_) | WriteOutcome::Partial(_) => {
                self.retry_write(report.number, now);
                return FinishedOrder::Retried;
            }
        }
        FinishedOrder::Acknowledgement(word)
    }

    fn retry_write(&mut self, number: u64, now: Instant) {
        if let Some((_, word)) = self.writing.take_if(|(writing, _)| *writing == number) {
            // A word that was decided on since then replaces that of a BOOL.
            if !self.is_switch() || self.writes.is_empty() {
                self.writes.push_front(word);
            }
            self.retry_at = Some(now + RETRY_PAUSE);
        }
    }

    const fn is_switch(&self) -> bool {
        matches!(self.last, Some(Value::Bool(_)))
    }

    fn order(&self, number: u64, task: WriteTask, write: Vec<TagImage>) -> WriteOrder {
        let (plc, expect) = (self.plc, Vec::new());
        WriteOrder { number, plc, expect, write, task, program: None, not_after: None }
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
mod tests {
    use provisioning::plc::Table;

    use super::*;
    use crate::model::{ImageReport, ImageState, NotSentReason, UnixTime};

    fn trigger(last: Option<Value>) -> PlcTrigger {
        let place =
            Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
        PlcTrigger::new(0, EventTrigger { tag: 0, acknowledge: Some(place) }, known(last))
    }

    fn known(last: Option<Value>) -> KnownEvent {
        KnownEvent { last, ..KnownEvent::default() }
    }

    fn counter(value: u64) -> Value {
        Value::Uint(value)
    }

    fn acknowledge(trigger: &mut PlcTrigger, ticket: u64, are_others_queued: bool) {
        trigger.on_acknowledged(ticket);
        trigger.confirm_events(|_| are_others_queued);
    }

    /// Returns the words that are written, each at once.
    fn written(trigger: &mut PlcTrigger) -> Vec<u16> {
        let mut words = Vec::new();
        while let Some(order) = trigger.next_order(7, Instant::now()) {
            let done = trigger.on_report(&report(WriteOutcome::Done, None), Instant::now());
            match done {
                FinishedOrder::Acknowledgement(word) => words.push(word),
                FinishedOrder::ReadAll => assert_eq!(order.task, WriteTask::ReadAll),
                FinishedOrder::Retried | FinishedOrder::Other => panic!("{done:?}"),
            }
        }
        words
    }

    fn report(outcome: WriteOutcome, read: Option<u16>) -> WriteReport {
        let read = read.map(|word| Registers::Words(vec![word]));
        let images = vec![ImageReport { state: ImageState::Unknown, read }];
        let at = UnixTime::default();
        WriteReport { number: 7, plc: 0, outcome, found: Vec::new(), images, at }
    }

    #[test]
    fn a_counter_occurs_when_it_changes_and_a_bool_when_it_becomes_true() {
        let mut count = trigger(None);
        let changes = [5, 5, 6, 6, 3].map(|value| count.on_value(&counter(value)));
        let (nothing, occurred) = (TriggerChange::Nothing, TriggerChange::Occurred);
        assert_eq!(changes, [nothing, nothing, occurred, nothing, occurred]);
        let mut switch = trigger(None);
        let changes =
            [true, true, false, false, true].map(|value| switch.on_value(&Value::Bool(value)));
        let released = TriggerChange::Released;
        assert_eq!(changes, [occurred, nothing, released, nothing, occurred]);
    }

    #[test]
    fn a_counter_that_changed_while_the_gateway_was_away_has_occurred() {
        assert_eq!(trigger(Some(counter(5))).on_value(&counter(6)), TriggerChange::Occurred);
        assert_eq!(trigger(Some(counter(5))).on_value(&counter(5)), TriggerChange::Nothing);
        let on = trigger(Some(Value::Bool(true))).on_value(&Value::Bool(true));
        assert_eq!(on, TriggerChange::Nothing);
    }

    #[test]
    fn late_acknowledgements_are_written_in_the_order_of_the_events() {
        let mut count = trigger(None);
        count.on_value(&counter(1));
        for (ticket, value) in [(10, 2), (11, 3), (12, 4)] {
            count.on_value(&counter(value));
            count.on_queued(ticket, &counter(value));
        }
        acknowledge(&mut count, 12, true);
        acknowledge(&mut count, 11, true);
        assert!(written(&mut count).is_empty());
        acknowledge(&mut count, 10, true);
        assert_eq!(written(&mut count), [2, 3, 4]);
        acknowledge(&mut count, 10, true);
        assert!(written(&mut count).is_empty(), "once for each event");
    }

    #[test]
    fn an_event_whose_message_was_dropped_is_not_acknowledged_and_delays_none() {
        let mut count = trigger(None);
        for (ticket, value) in [(10, 2), (11, 3)] {
            count.on_queued(ticket, &counter(value));
        }
        acknowledge(&mut count, 11, false);
        assert_eq!(written(&mut count), [3]);
    }

    #[test]
    fn a_message_of_an_earlier_run_is_acknowledged_too() {
        let mut count = trigger(Some(counter(9)));
        count.on_sent(3, &counter(9));
        acknowledge(&mut count, 3, true);
        assert_eq!(written(&mut count), [9]);
        count.on_sent(2, &counter(8));
        acknowledge(&mut count, 2, true);
        assert!(written(&mut count).is_empty(), "the word does not go back");
    }

    #[test]
    fn what_the_last_run_did_not_write_is_written_first() {
        let place =
            Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
        let event = EventTrigger { tag: 0, acknowledge: Some(place) };
        let known = KnownEvent { owed: vec![8, 9], ..known(Some(counter(9))) };
        let mut count = PlcTrigger::new(0, event, known);
        count.on_queued(3, &counter(10));
        acknowledge(&mut count, 3, true);
        assert_eq!(count.owed().collect::<Vec<_>>(), [8, 9, 10]);
        assert_eq!(written(&mut count), [8, 9, 10]);
        assert_eq!(count.owed().count(), 0);
    }

    #[test]
    fn messages_of_an_earlier_run_are_acknowledged_before_new_ones() {
        let place =
            Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
        let event = EventTrigger { tag: 0, acknowledge: Some(place) };
        let earlier = || KnownEvent { waiting: vec![6, 7, 8], ..known(Some(counter(8))) };
        let mut count = PlcTrigger::new(0, event, earlier());
        // The newest message is sent first, and the one of event 7 was lost.
        count.on_queued(13, &counter(9));
        acknowledge(&mut count, 13, true);
        for (ticket, value) in [(10, 6), (12, 8)] {
            count.on_sent(ticket, &counter(value));
            acknowledge(&mut count, ticket, true);
        }
        assert_eq!(count.waiting().collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(written(&mut count), [6]);
        count.confirm_events(|_| false);
        assert_eq!(written(&mut count), [8, 9]);
    }

    #[test]
    fn a_bool_is_acknowledged_until_it_is_false_and_never_for_an_earlier_event() {
        let mut switch = trigger(None);
        switch.on_value(&Value::Bool(true));
        switch.on_queued(10, &Value::Bool(true));
        acknowledge(&mut switch, 10, true);
        assert_eq!(written(&mut switch), [1]);
        switch.on_value(&Value::Bool(false));
        assert_eq!(written(&mut switch), [0]);
        switch.on_value(&Value::Bool(true));
        switch.on_queued(11, &Value::Bool(true));
        switch.on_value(&Value::Bool(false));
        assert_eq!(written(&mut switch), [0]);
        acknowledge(&mut switch, 11, true);
        assert!(written(&mut switch).is_empty(), "the program waits no more");
        switch.on_value(&Value::Bool(true));
        switch.on_queued(12, &Value::Bool(true));
        switch.on_value(&Value::Bool(false));
        switch.on_value(&Value::Bool(true));
        switch.on_queued(13, &Value::Bool(true));
        written(&mut switch);
        acknowledge(&mut switch, 12, true);
        assert!(written(&mut switch).is_empty(), "another event");
        acknowledge(&mut switch, 13, true);
        assert_eq!(written(&mut switch), [1]);
    }

    #[test]
    fn a_word_that_did_not_arrive_is_written_again_after_a_pause() {
        let mut count = trigger(None);
        count.on_queued(10, &counter(2));
        acknowledge(&mut count, 10, true);
        let now = Instant::now();
        let lost = [WriteOutcome::Unknown, WriteOutcome::NotSent(NotSentReason::Stopping)];
        for outcome in lost {
            assert!(count.next_order(7, now + RETRY_PAUSE * 9).is_some());
            let finished = count.on_report(&report(outcome, Some(1)), now);
            assert_eq!(finished, FinishedOrder::Retried);
            assert!(count.next_order(7, now).is_none(), "not at once");
        }
        assert!(count.next_order(7, now + RETRY_PAUSE).is_some());
        let there = count.on_report(&report(WriteOutcome::Unknown, Some(2)), now);
        assert_eq!(there, FinishedOrder::Acknowledgement(2), "the read-back tells");
        assert!(count.next_order(7, now + RETRY_PAUSE).is_none());
    }
}
