//! The event of one PLC: when it occurs, and what to write to acknowledge it. Pure.

use std::collections::{BTreeMap, VecDeque};
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
const MAX_UNACKNOWLEDGED: usize = 1_000;
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
    /// What has to be written when the broker has the message with this ticket, and whether it
    /// has. Ordered as the events occurred.
    unacknowledged: BTreeMap<u64, PendingAcknowledgement>,
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

#[derive(Clone, Copy, Debug)]
struct PendingAcknowledgement {
    word: u16,
    is_acknowledged: bool,
}

impl PlcTrigger {
    /// `last` is the value of the tag in the last run, as far as that is known, and `owed` are the
    /// words that it did not write.
    pub(super) fn new(
        plc: u16,
        trigger: EventTrigger,
        last: Option<Value>,
        owed: impl IntoIterator<Item = u16>,
    ) -> Self {
        Self {
            plc,
            trigger,
            published: last.clone(),
            last,
            reading: ReadState::Idle,
            unacknowledged: BTreeMap::new(),
            latest: None,
            confirmed: None,
            writes: owed.into_iter().collect(),
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
        self.on_sent(ticket, value);
    }

    /// Records a message with this value that is sent: one that is not known is of an earlier run.
    pub(super) fn on_sent(&mut self, ticket: u64, value: &Value) {
        let is_over = self.confirmed.is_some_and(|confirmed| ticket <= confirmed);
        let is_known = self.unacknowledged.contains_key(&ticket);
        if self.trigger.acknowledge.is_none() || is_known || is_over {
            return;
        }
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_first();
        }
        let pending = PendingAcknowledgement { word: to_word(value), is_acknowledged: false };
        self.unacknowledged.insert(ticket, pending);
    }

    /// Records that the broker has a message. `is_queued` tells whether the message with a ticket
    /// may still be sent: an event whose message was dropped is not acknowledged, and delays none.
    pub(super) fn on_acknowledged(&mut self, ticket: u64, is_queued: impl Fn(u64) -> bool) {
        let Some(pending) = self.unacknowledged.get_mut(&ticket) else { return };
        pending.is_acknowledged = true;
        while let Some(first) = self.unacknowledged.first_entry() {
            let PendingAcknowledgement { word, is_acknowledged } = *first.get();
            if !is_acknowledged && is_queued(*first.key()) {
                break;
            }
            let (ticket, _) = first.remove_entry();
            // A BOOL may be true for another event by now.
            let is_expected = !self.is_switch() || self.latest == Some(ticket);
            if is_acknowledged && is_expected {
                self.confirmed = Some(ticket);
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
        PlcTrigger::new(0, EventTrigger { tag: 0, acknowledge: Some(place) }, last, [])
    }

    fn counter(value: u64) -> Value {
        Value::Uint(value)
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
        count.on_acknowledged(12, |_| true);
        count.on_acknowledged(11, |_| true);
        assert!(written(&mut count).is_empty());
        count.on_acknowledged(10, |_| true);
        assert_eq!(written(&mut count), [2, 3, 4]);
        count.on_acknowledged(10, |_| true);
        assert!(written(&mut count).is_empty(), "once for each event");
    }

    #[test]
    fn an_event_whose_message_was_dropped_is_not_acknowledged_and_delays_none() {
        let mut count = trigger(None);
        for (ticket, value) in [(10, 2), (11, 3)] {
            count.on_queued(ticket, &counter(value));
        }
        count.on_acknowledged(11, |_| false);
        assert_eq!(written(&mut count), [3]);
    }

    #[test]
    fn a_message_of_an_earlier_run_is_acknowledged_too() {
        let mut count = trigger(Some(counter(9)));
        count.on_sent(3, &counter(9));
        count.on_acknowledged(3, |_| true);
        assert_eq!(written(&mut count), [9]);
        count.on_sent(2, &counter(8));
        count.on_acknowledged(2, |_| true);
        assert!(written(&mut count).is_empty(), "the word does not go back");
    }

    #[test]
    fn what_the_last_run_did_not_write_is_written_first() {
        let place =
            Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
        let event = EventTrigger { tag: 0, acknowledge: Some(place) };
        let mut count = PlcTrigger::new(0, event, Some(counter(9)), [8, 9]);
        count.on_queued(3, &counter(10));
        count.on_acknowledged(3, |_| true);
        assert_eq!(count.owed().collect::<Vec<_>>(), [8, 9, 10]);
        assert_eq!(written(&mut count), [8, 9, 10]);
        assert_eq!(count.owed().count(), 0);
    }

    #[test]
    fn a_bool_is_acknowledged_until_it_is_false_and_never_for_an_earlier_event() {
        let mut switch = trigger(None);
        switch.on_value(&Value::Bool(true));
        switch.on_queued(10, &Value::Bool(true));
        switch.on_acknowledged(10, |_| true);
        assert_eq!(written(&mut switch), [1]);
        switch.on_value(&Value::Bool(false));
        assert_eq!(written(&mut switch), [0]);
        switch.on_value(&Value::Bool(true));
        switch.on_queued(11, &Value::Bool(true));
        switch.on_value(&Value::Bool(false));
        assert_eq!(written(&mut switch), [0]);
        switch.on_acknowledged(11, |_| true);
        assert!(written(&mut switch).is_empty(), "the program waits no more");
        switch.on_value(&Value::Bool(true));
        switch.on_queued(12, &Value::Bool(true));
        switch.on_value(&Value::Bool(false));
        switch.on_value(&Value::Bool(true));
        switch.on_queued(13, &Value::Bool(true));
        written(&mut switch);
        switch.on_acknowledged(12, |_| true);
        assert!(written(&mut switch).is_empty(), "another event");
        switch.on_acknowledged(13, |_| true);
        assert_eq!(written(&mut switch), [1]);
    }

    #[test]
    fn a_word_that_did_not_arrive_is_written_again_after_a_pause() {
        let mut count = trigger(None);
        count.on_queued(10, &counter(2));
        count.on_acknowledged(10, |_| true);
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
