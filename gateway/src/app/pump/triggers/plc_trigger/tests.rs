use provisioning::plc::Table;

use super::*;
use crate::model::{ImageReport, ImageState, NotSentReason, UnixTime};

const fn place() -> Location {
    Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None }
}

const fn event() -> EventTrigger {
    EventTrigger { tag: 0, acknowledge: Some(place()) }
}

fn trigger(last: Option<Value>) -> PlcTrigger {
    PlcTrigger::new(0, event(), known(last))
}

fn known(last: Option<Value>) -> KnownEvent {
    KnownEvent { last, ..KnownEvent::default() }
}

fn counter(value: u64) -> Value {
    Value::Uint(value)
}

/// Returns the time of the event whose message has this ticket.
const fn at(ticket: u64) -> UnixTime {
    UnixTime::from_micros(ticket.cast_signed())
}

/// Returns an event that an earlier run saved.
const fn earlier(ticket: u64, word: u16) -> WaitingEvent {
    WaitingEvent { at: at(ticket), word, ticket: None, is_delivered: false }
}

/// Returns the words of the events that are not acknowledged yet.
fn words(trigger: &PlcTrigger) -> Vec<u16> {
    trigger.waiting().map(|event| event.word).collect()
}

/// Returns the trigger of the next run, after this state was saved.
fn restarted(trigger: &PlcTrigger) -> PlcTrigger {
    let forgotten = |event: &WaitingEvent| WaitingEvent { ticket: None, ..*event };
    let known = KnownEvent {
        last: trigger.published().cloned(),
        pending_words: trigger.pending_words().collect(),
        waiting: trigger.waiting().map(forgotten).collect(),
        last_acknowledged: trigger.last_acknowledged(),
    };
    PlcTrigger::new(0, trigger.trigger, known)
}

fn acknowledge(trigger: &mut PlcTrigger, ticket: u64, are_others_queued: bool) {
    trigger.on_acknowledged(ticket);
    trigger.decide_acknowledgements(|_| are_others_queued);
}

/// Returns the words that are written, each at once.
fn written(trigger: &mut PlcTrigger) -> Vec<u16> {
    let mut words = Vec::new();
    while let Some(order) = trigger.next_order(7, None, Instant::now()) {
        let done = trigger.on_report(&report(OrderOutcome::Done, None), Instant::now());
        match done {
            FinishedOrder::Acknowledgement(word) => words.push(word),
            FinishedOrder::ReadAll => assert_eq!(order.task, OrderTask::ReadAll),
            FinishedOrder::Retried | FinishedOrder::Other => panic!("{done:?}"),
        }
    }
    words
}

fn report(outcome: OrderOutcome, read: Option<u16>) -> OrderReport {
    let read = read.map(|word| Registers::Words(vec![word]));
    let images = vec![ImageReport { state: ImageState::Unknown, read }];
    let at = UnixTime::default();
    OrderReport { number: 7, plc: 0, outcome, found: Vec::new(), images, at }
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
        count.on_queued(ticket, at(ticket), &counter(value));
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
        count.on_queued(ticket, at(ticket), &counter(value));
    }
    acknowledge(&mut count, 11, false);
    assert_eq!(written(&mut count), [3]);
}

#[test]
fn a_message_of_an_earlier_run_is_acknowledged_too() {
    let mut count = trigger(Some(counter(9)));
    count.on_sent(3, at(3), &counter(9));
    acknowledge(&mut count, 3, true);
    assert_eq!(written(&mut count), [9]);
    count.on_sent(2, at(2), &counter(8));
    acknowledge(&mut count, 2, true);
    assert!(written(&mut count).is_empty(), "the word does not go back");
}

#[test]
fn what_the_last_run_did_not_write_is_written_first() {
    let known = KnownEvent { pending_words: vec![8, 9], ..known(Some(counter(9))) };
    let mut count = PlcTrigger::new(0, event(), known);
    count.on_queued(3, at(3), &counter(10));
    acknowledge(&mut count, 3, true);
    assert_eq!(count.pending_words().collect::<Vec<_>>(), [8, 9, 10]);
    assert_eq!(written(&mut count), [8, 9, 10]);
    assert_eq!(count.pending_words().count(), 0);
}

#[test]
fn messages_of_an_earlier_run_are_acknowledged_before_new_ones() {
    let known = KnownEvent {
        waiting: vec![earlier(10, 6), earlier(11, 7), earlier(12, 8)],
        ..known(Some(counter(8)))
    };
    let mut count = PlcTrigger::new(0, event(), known);
    // The newest message is sent first, and the one of event 7 was lost.
    count.on_queued(13, at(13), &counter(9));
    acknowledge(&mut count, 13, true);
    for (ticket, value) in [(10, 6), (12, 8)] {
        count.on_sent(ticket, at(ticket), &counter(value));
        acknowledge(&mut count, ticket, true);
    }
    assert_eq!(words(&count), [7, 8, 9]);
    assert_eq!(written(&mut count), [6]);
    count.decide_acknowledgements(|_| false);
    assert_eq!(written(&mut count), [8, 9]);
}

#[test]
fn a_bool_is_acknowledged_until_it_is_false_and_never_for_an_earlier_event() {
    let mut switch = trigger(None);
    switch.on_value(&Value::Bool(true));
    switch.on_queued(10, at(10), &Value::Bool(true));
    acknowledge(&mut switch, 10, true);
    assert_eq!(written(&mut switch), [1]);
    switch.on_value(&Value::Bool(false));
    assert_eq!(written(&mut switch), [0]);
    switch.on_value(&Value::Bool(true));
    switch.on_queued(11, at(11), &Value::Bool(true));
    switch.on_value(&Value::Bool(false));
    assert_eq!(written(&mut switch), [0]);
    acknowledge(&mut switch, 11, true);
    assert!(written(&mut switch).is_empty(), "the program waits no more");
    switch.on_value(&Value::Bool(true));
    switch.on_queued(12, at(12), &Value::Bool(true));
    switch.on_value(&Value::Bool(false));
    switch.on_value(&Value::Bool(true));
    switch.on_queued(13, at(13), &Value::Bool(true));
    written(&mut switch);
    acknowledge(&mut switch, 12, true);
    assert!(written(&mut switch).is_empty(), "another event");
    acknowledge(&mut switch, 13, true);
    assert_eq!(written(&mut switch), [1]);
}

#[test]
fn a_word_that_did_not_arrive_is_written_again_after_a_pause() {
    let mut count = trigger(None);
    count.on_queued(10, at(10), &counter(2));
    acknowledge(&mut count, 10, true);
    let now = Instant::now();
    let lost = [OrderOutcome::Unknown, OrderOutcome::NotSent(NotSentReason::Stopping)];
    for outcome in lost {
        assert!(count.next_order(7, None, now + RETRY_PAUSE * 9).is_some());
        let finished = count.on_report(&report(outcome, Some(1)), now);
        assert_eq!(finished, FinishedOrder::Retried);
        assert!(count.next_order(7, None, now).is_none(), "not at once");
    }
    assert!(count.next_order(7, None, now + RETRY_PAUSE).is_some());
    let there = count.on_report(&report(OrderOutcome::Unknown, Some(2)), now);
    assert_eq!(there, FinishedOrder::Acknowledgement(2), "the read-back tells");
    assert!(count.next_order(7, None, now + RETRY_PAUSE).is_none());
}

#[test]
fn a_word_is_for_one_program_and_waits_until_the_plc_has_it() {
    let program = Some(ProgramSignature([1, 2, 3, 4]));
    let now = Instant::now();
    let mut count = trigger(Some(counter(1)));
    count.on_value(&counter(2));
    let order = count.next_order(7, program, now).unwrap();
    assert_eq!((order.task, order.program), (OrderTask::ReadAll, None), "any program may be read");
    count.on_report(&report(OrderOutcome::Done, None), now);
    count.on_queued(10, at(10), &counter(2));
    acknowledge(&mut count, 10, true);
    assert_eq!(count.next_order(7, program, now).unwrap().program, program);
    let other = report(OrderOutcome::NotSent(NotSentReason::ProgramChanged), None);
    assert_eq!(count.on_report(&other, now), FinishedOrder::Retried);
    assert_eq!(count.pending_words().collect::<Vec<_>>(), [2]);
    let order = count.next_order(7, program, now + RETRY_PAUSE).unwrap();
    assert_eq!((order.program, order.write), (program, vec![image(&place(), 2)]));
}

#[test]
fn a_word_that_is_not_configured_any_more_is_forgotten() {
    let known = KnownEvent {
        pending_words: vec![8],
        waiting: vec![earlier(10, 9)],
        ..known(Some(counter(9)))
    };
    let mut count = PlcTrigger::new(0, EventTrigger { tag: 0, acknowledge: None }, known);
    assert_eq!((count.pending_words().count(), count.waiting().count()), (0, 0));
    assert_eq!(count.on_value(&counter(9)), TriggerChange::Nothing, "and the counter is known");
}

#[test]
fn a_bool_is_acknowledged_after_a_restart_too() {
    let mut switch = trigger(None);
    switch.on_value(&Value::Bool(true));
    switch.on_queued(10, at(10), &Value::Bool(true));
    let mut again = restarted(&switch);
    assert_eq!(again.on_value(&Value::Bool(true)), TriggerChange::Nothing);
    again.on_sent(4, at(10), &Value::Bool(true));
    acknowledge(&mut again, 4, true);
    assert_eq!(written(&mut again), [1]);
    // The event of a message that is not known is over.
    again.on_sent(3, at(9), &Value::Bool(true));
    acknowledge(&mut again, 3, true);
    assert!(written(&mut again).is_empty());
    let mut released = restarted(&switch);
    released.on_value(&Value::Bool(false));
    released.on_sent(4, at(10), &Value::Bool(true));
    acknowledge(&mut released, 4, true);
    assert_eq!(written(&mut released), [0], "the program waits no more");
}

#[test]
fn a_pulse_that_ends_before_all_tags_are_read_is_not_acknowledged() {
    let mut switch = trigger(None);
    assert_eq!(switch.on_value(&Value::Bool(true)), TriggerChange::Occurred);
    let order = switch.next_order(7, None, Instant::now()).unwrap();
    assert_eq!(order.task, OrderTask::ReadAll);
    switch.on_value(&Value::Bool(false));
    assert_eq!(
        switch.on_report(&report(OrderOutcome::Done, None), Instant::now()),
        FinishedOrder::ReadAll
    );
    switch.on_queued(10, at(10), &Value::Bool(false));
    acknowledge(&mut switch, 10, true);
    assert_eq!(written(&mut switch), [0]);
    let mut again = restarted(&switch);
    again.on_sent(10, at(10), &Value::Bool(false));
    acknowledge(&mut again, 10, true);
    assert!(written(&mut again).is_empty());
}

#[test]
fn an_event_whose_tags_could_not_be_read_is_seen_again() {
    let now = Instant::now();
    let stopping = || report(OrderOutcome::NotSent(NotSentReason::Stopping), None);
    for (last, value) in [
        (Some(counter(5)), counter(6)),
        (Some(Value::Bool(false)), Value::Bool(true)),
        (None, Value::Bool(true)),
    ] {
        let mut trigger = trigger(last);
        for _ in 0..2 {
            assert_eq!(trigger.on_value(&value), TriggerChange::Occurred);
            assert!(trigger.next_order(7, None, now).is_some());
            assert_eq!(trigger.on_report(&stopping(), now), FinishedOrder::Retried);
        }
        assert_eq!(trigger.on_value(&value), TriggerChange::Occurred);
        trigger.next_order(7, None, now).unwrap();
        assert_eq!(
            trigger.on_report(&report(OrderOutcome::Done, None), now),
            FinishedOrder::ReadAll
        );
        trigger.on_read_failed();
        assert_eq!(trigger.on_value(&value), TriggerChange::Occurred);
    }
}

#[test]
fn an_acknowledgement_that_waits_for_an_earlier_one_outlives_the_run() {
    let mut count = trigger(Some(counter(5)));
    for (ticket, value) in [(10, 6), (11, 7)] {
        count.on_queued(ticket, at(ticket), &counter(value));
    }
    acknowledge(&mut count, 11, true);
    let mut again = restarted(&count);
    // Only the message of event 6 is still in the queue.
    again.decide_acknowledgements(|ticket| ticket.is_none_or(|ticket| ticket == 3));
    assert!(written(&mut again).is_empty());
    again.on_sent(3, at(10), &counter(6));
    acknowledge(&mut again, 3, false);
    assert_eq!(written(&mut again), [6, 7]);
    // The record that its message was acknowledged may be missing in the queue.
    let mut third = restarted(&again);
    third.on_sent(4, at(11), &counter(7));
    assert!(!third.on_acknowledged(4));
    third.decide_acknowledgements(|_| false);
    assert!(written(&mut third).is_empty());
}

#[test]
fn unknown_messages_of_an_earlier_run_are_acknowledged_in_their_order() {
    let mut count = trigger(Some(counter(9)));
    count.on_queued(20, at(20), &counter(10));
    for (ticket, value) in [(12, 8), (10, 6), (13, 9), (11, 7)] {
        count.on_sent(ticket, at(ticket), &counter(value));
    }
    assert_eq!(words(&count), [6, 7, 8, 9, 10]);
    for ticket in [20, 13, 12, 11, 10] {
        acknowledge(&mut count, ticket, true);
    }
    assert_eq!(written(&mut count), [6, 7, 8, 9, 10]);
}

#[test]
fn messages_with_new_tickets_are_known_by_the_time_of_their_records() {
    let mut count = trigger(Some(counter(5)));
    for (ticket, value) in [(0, 6), (1, 7)] {
        count.on_queued(ticket, at(ticket), &counter(value));
    }
    count.forget_tickets();
    assert!(!count.on_acknowledged(0), "the ticket of another message");
    for (ticket, at, value) in [(8, at(1), 7), (7, at(0), 6)] {
        count.on_sent(ticket, at, &counter(value));
        acknowledge(&mut count, ticket, true);
    }
    assert_eq!(written(&mut count), [6, 7]);
}

#[test]
fn what_waits_is_bounded_and_what_is_given_up_is_counted() {
    let more = u64::try_from(MAX_WAITING).unwrap() + 3;
    let mut count = trigger(Some(counter(0)));
    for ticket in 1..=more {
        count.on_queued(ticket, at(ticket), &counter(ticket));
    }
    assert_eq!((words(&count).len(), count.take_dropped()), (MAX_WAITING, 3));
    for ticket in 1..=more {
        assert_eq!(count.on_acknowledged(ticket), ticket > 3);
    }
    // The PLC does not answer.
    for ticket in more + 1..more + 3 {
        count.on_queued(ticket, at(ticket), &counter(ticket));
        count.decide_acknowledgements(|_| true);
        acknowledge(&mut count, ticket, true);
    }
    assert_eq!((count.take_dropped(), count.take_dropped()), (2, 0));
    let words = written(&mut count);
    assert_eq!((words.len(), words[0]), (MAX_WAITING, 6));
}

#[test]
fn a_busy_plc_gets_the_word_later_and_one_that_refuses_it_does_not() {
    let mut count = trigger(None);
    count.on_queued(10, at(10), &counter(2));
    acknowledge(&mut count, 10, true);
    let now = Instant::now();
    count.next_order(7, None, now).unwrap();
    let busy = report(OrderOutcome::Refused(SERVER_BUSY), None);
    assert_eq!(count.on_report(&busy, now), FinishedOrder::Retried);
    assert!(count.next_order(7, None, now).is_none(), "not at once");
    count.next_order(7, None, now + RETRY_PAUSE).unwrap();
    let refused = report(OrderOutcome::Refused(2), None);
    assert_eq!(count.on_report(&refused, now), FinishedOrder::Acknowledgement(2));
    assert!(count.next_order(7, None, now + RETRY_PAUSE * 2).is_none());
}
