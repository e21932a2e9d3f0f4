//! Decides which messages wait before they are sent again, and which one is dropped. Pure.
//!
//! A broker that does not accept a message *now* (a quota, an overload) holds the topic of the
//! message: one message of it is tried after each pause, and the pauses grow.
//!
//! A broker may also close the connection over a message without a reason: MQTT 3.1.1 has no code
//! for "too large" or "not allowed". But a broker that restarts, a proxy and a bad line close
//! connections too. So after such an end messages are sent one at a time. One that was alone in
//! flight is suspected: it opens the next session, which tells it from the message that happens to
//! be the second. It is dropped when the broker closed the connection over it twice like this,
//! accepted another message in between, and has never accepted one as long (docs/decisions, 0002).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Ticket;
use crate::mqtt::MAX_INFLIGHT;
use crate::queue::TopicId;
use crate::schedule::{RetryBackoff, RetryPolicy};

/// Pauses before a held topic and a suspected message are tried again.
const RETRY: RetryPolicy =
    RetryPolicy::full_jitter(Duration::from_secs(1), Duration::from_secs(60));
/// Messages to be answered one at a time after a session that ended over one of this many.
const SERIAL_AFTER_CLOSE: usize = MAX_INFLIGHT;
/// Closings over a message, each the first and only one of its session, after which it is dropped.
const CLOSINGS_BEFORE_DROP: u32 = 2;
/// With this many suspected messages a topic as such is held: it may be forbidden.
const MAX_SUSPECTS_PER_TOPIC: usize = 3;

/// A message that was handed to the MQTT task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SentMessage {
    pub(super) ticket: Ticket,
    /// Absent for the status.
    pub(super) topic: Option<TopicId>,
    pub(super) bytes: usize,
    /// Whether the broker acknowledges it (QoS 1 or 2).
    pub(super) expects_ack: bool,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SessionSummary {
    /// The message in flight, if there was exactly one.
    pub(super) sole_in_flight: Option<SentMessage>,
    /// Whether the broker answered no message in it.
    pub(super) is_unanswered: bool,
}

/// What waits, and what the broker has shown so far.
#[derive(Debug, Default)]
pub(super) struct MessageHolds {
    /// Number of messages that are still sent one at a time.
    serial_remaining: usize,
    /// The suspected message that is sent before all others, as a probe.
    probe: Option<Ticket>,
    topics: BTreeMap<Option<TopicId>, TopicHold>,
    suspects: BTreeMap<Ticket, SuspectMessage>,
    /// Length of the longest message that the broker has accepted, in bytes.
    longest_accepted: usize,
}

#[derive(Debug)]
struct TopicHold {
    backoff: RetryBackoff,
    /// Whether the broker deferred a message of it; otherwise it has too many suspected ones.
    is_deferred: bool,
    /// Whether the pause is over, and one message may be tried or is under way.
    is_probing: bool,
    /// Whether that message was sent.
    is_sent: bool,
}

#[derive(Debug)]
struct SuspectMessage {
    topic: Option<TopicId>,
    backoff: RetryBackoff,
    closings: u32,
    /// Whether the broker has accepted another message since the last closing.
    others_accepted: bool,
}

impl TopicHold {
    const fn new() -> Self {
        let backoff = RetryBackoff::new(&RETRY);
        Self { backoff, is_deferred: false, is_probing: false, is_sent: false }
    }

    fn pause(&mut self, now: Instant, random: f64) {
        self.backoff.on_failure(now, random);
        (self.is_probing, self.is_sent) = (false, false);
    }
}

impl MessageHolds {
    /// Returns how many messages may be in flight.
    pub(super) const fn window(&self) -> usize {
        if self.serial_remaining > 0 || self.probe.is_some() { 1 } else { MAX_INFLIGHT }
    }

    /// Returns whether this message may be sent now.
    pub(super) fn admits(&self, ticket: Ticket, topic: Option<TopicId>) -> bool {
        if let Some(probe) = self.probe {
            return probe == ticket;
        }
        let is_held = |hold: &TopicHold| !hold.is_probing || hold.is_sent;
        !self.suspects.contains_key(&ticket) && !self.topics.get(&topic).is_some_and(is_held)
    }

    /// Returns whether a topic waits for the broker: with the order `strict` all others wait for
    /// it. They do not wait for suspected messages: one that is forbidden waits for ever.
    pub(super) fn has_deferred_topic(&self) -> bool {
        self.topics.values().any(|hold| hold.is_deferred && (!hold.is_probing || hold.is_sent))
    }

    /// Returns the message that is sent before all others.
    pub(super) const fn probe(&self) -> Option<Ticket> {
        self.probe
    }

    /// Returns a suspected message that is to be tried again. The caller waits until nothing is in
    /// flight and calls [`MessageHolds::begin_probe`].
    pub(super) fn due_probe(&self, now: Instant) -> Option<Ticket> {
        let mut due = self.suspects.iter().filter(|(_, suspect)| suspect.backoff.is_due(now));
        self.probe.is_none().then(|| due.next())?.map(|(ticket, _)| *ticket)
    }

    pub(super) const fn begin_probe(&mut self, ticket: Ticket) {
        self.probe = Some(ticket);
    }

    /// Forgets a message that is no longer in the queue.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.suspects.remove(&ticket);
        self.probe = self.probe.filter(|probe| *probe != ticket);
    }

    /// Forgets all suspected messages: they got other tickets.
    pub(super) fn forget_all(&mut self) {
        self.suspects.clear();
        self.probe = None;
    }

    /// Ends the pauses that are over. Returns whether there were any: the messages that were set
    /// aside have to be offered again.
    pub(super) fn end_pauses(&mut self, now: Instant) -> bool {
        let mut ended = false;
        for hold in self.topics.values_mut() {
            if !hold.is_probing && hold.backoff.is_due(now) {
                hold.is_probing = true;
                ended = true;
            }
        }
        ended
    }

    pub(super) fn on_sent(&mut self, topic: Option<TopicId>) {
        if let Some(hold) = self.topics.get_mut(&topic) {
            hold.is_sent = true;
        }
    }

    /// Records that the broker acknowledged a message. Returns whether others may be sent now that
    /// had to wait.
    pub(super) fn on_accepted(&mut self, message: &SentMessage) -> bool {
        if message.expects_ack {
            self.longest_accepted = self.longest_accepted.max(message.bytes);
            let others = self.suspects.iter_mut().filter(|(ticket, _)| **ticket != message.ticket);
            others.for_each(|(_, suspect)| suspect.others_accepted = true);
        }
        self.on_answered(message)
    }

    /// Records that the broker rejects a message for good. Returns as
    /// [`MessageHolds::on_accepted`].
    pub(super) fn on_rejected(&mut self, message: &SentMessage) -> bool {
        self.on_answered(message)
    }

    /// Records that the broker does not accept a message now. `random` is in `[0, 1)`. Returns as
    /// [`MessageHolds::on_accepted`].
    pub(super) fn on_deferred(&mut self, message: &SentMessage, now: Instant, random: f64) -> bool {
        self.serial_remaining = self.serial_remaining.saturating_sub(1);
        self.suspects.remove(&message.ticket);
        let hold = self.topics.entry(message.topic).or_insert_with(TopicHold::new);
        hold.is_deferred = true;
        hold.pause(now, random);
        self.probe.take_if(|probe| *probe == message.ticket).is_some()
    }

    fn on_answered(&mut self, message: &SentMessage) -> bool {
        self.serial_remaining = self.serial_remaining.saturating_sub(1);
        self.suspects.remove(&message.ticket);
        let was_held = self.topics.remove(&message.topic).is_some();
        self.probe.take_if(|probe| *probe == message.ticket).is_some() || was_held
    }

    /// Records that a session ended for a reason that concerns no message.
    pub(super) fn on_ended(&mut self) {
        self.topics.values_mut().for_each(|hold| hold.is_sent = false);
    }

    /// Records that a session ended with messages in flight, perhaps over one of them. Returns the
    /// message to be dropped. `random` is in `[0, 1)`.
    pub(super) fn on_closed(
        &mut self,
        session: SessionSummary,
        now: Instant,
        random: f64,
    ) -> Option<Ticket> {
        self.on_ended();
        self.serial_remaining = SERIAL_AFTER_CLOSE;
        self.probe = None;
        let SentMessage { ticket, topic, bytes, .. } = session.sole_in_flight?;
        let suspect = self.suspects.entry(ticket).or_insert_with(|| SuspectMessage {
            topic,
            backoff: RetryBackoff::new(&RETRY),
            closings: 0,
            others_accepted: false,
        });
        if !session.is_unanswered {
            self.probe = Some(ticket);
            return None;
        }
        if suspect.closings == 0 || suspect.others_accepted {
            suspect.closings += 1;
        }
        suspect.others_accepted = false;
        suspect.backoff.on_failure(now, random);
        if suspect.closings >= CLOSINGS_BEFORE_DROP && bytes > self.longest_accepted {
            self.suspects.remove(&ticket);
            return Some(ticket);
        }
        let on_topic = self.suspects.values().filter(|suspect| suspect.topic == topic).count();
        if on_topic >= MAX_SUSPECTS_PER_TOPIC {
            self.topics.entry(topic).or_insert_with(TopicHold::new).pause(now, random);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::EntryId;

    const SECOND: Duration = Duration::from_secs(1);
    const TOPIC: Option<TopicId> = Some(TopicId::new(1));
    const OTHER: Option<TopicId> = Some(TopicId::new(2));

    const fn message(number: u64, bytes: usize) -> SentMessage {
        let ticket = Ticket::Entry(EntryId::from_ticket(number));
        SentMessage { ticket, topic: TOPIC, bytes, expects_ack: true }
    }

    const fn first(sole_in_flight: SentMessage) -> SessionSummary {
        SessionSummary { sole_in_flight: Some(sole_in_flight), is_unanswered: true }
    }

    #[test]
    fn a_message_is_dropped_when_others_were_accepted_between_its_closings() {
        let (mut holds, now) = (MessageHolds::default(), Instant::now());
        let (bad, good) = (message(7, 900), message(8, 100));
        assert_eq!(holds.on_closed(first(bad), now, 0.0), None);
        assert_eq!(holds.window(), 1);
        holds.on_accepted(&good);
        assert_eq!(holds.on_closed(first(bad), now, 0.0), Some(bad.ticket));
    }

    #[test]
    fn a_broker_that_accepts_nothing_convicts_no_message() {
        let (mut holds, mut now) = (MessageHolds::default(), Instant::now());
        for number in 0..100 {
            now += 60 * SECOND;
            assert_eq!(holds.on_closed(first(message(number % 3, 900)), now, 0.0), None);
        }
    }

    #[test]
    fn a_message_is_not_dropped_if_a_longer_one_was_accepted() {
        let (mut holds, mut now) = (MessageHolds::default(), Instant::now());
        let (suspect, long) = (message(7, 100), message(8, 100));
        for _ in 0..100 {
            now += 60 * SECOND;
            holds.on_accepted(&long);
            assert_eq!(holds.on_closed(first(suspect), now, 0.0), None);
        }
    }

    #[test]
    fn a_message_that_was_not_the_first_opens_the_next_session() {
        let (mut holds, now) = (MessageHolds::default(), Instant::now());
        let late = SessionSummary { sole_in_flight: Some(message(7, 900)), is_unanswered: false };
        for _ in 0..10 {
            assert_eq!(holds.on_closed(late, now, 0.0), None);
            assert_eq!(holds.probe(), Some(message(7, 900).ticket));
            assert!(holds.admits(message(7, 900).ticket, TOPIC));
            assert!(!holds.admits(Ticket::Status, None));
            holds.on_accepted(&message(8, 100));
        }
        assert!(holds.on_accepted(&message(7, 900)), "the others may be sent now");
        assert!(holds.admits(Ticket::Status, None));
    }

    #[test]
    fn several_in_flight_accuse_none_and_are_sent_one_at_a_time() {
        let (mut holds, now) = (MessageHolds::default(), Instant::now());
        let several = SessionSummary { sole_in_flight: None, is_unanswered: true };
        assert_eq!(holds.on_closed(several, now, 0.0), None);
        for number in 0..u64::try_from(MAX_INFLIGHT).unwrap() {
            assert_eq!(holds.window(), 1, "{number}");
            holds.on_accepted(&message(number, 10));
        }
        assert_eq!(holds.window(), MAX_INFLIGHT);
    }

    #[test]
    fn a_deferred_topic_is_tried_with_one_message_after_each_of_its_pauses() {
        let (mut holds, mut now) = (MessageHolds::default(), Instant::now());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            holds.on_deferred(&message(7, 100), now, 0.0);
            assert!(!holds.admits(message(8, 100).ticket, TOPIC));
            assert!(holds.admits(message(9, 100).ticket, OTHER), "others are sent on");
            assert!(!holds.end_pauses(now + (pause - 1) * SECOND));
            now += pause * SECOND;
            assert!(holds.end_pauses(now) && !holds.end_pauses(now), "told once");
            assert!(holds.admits(message(8, 100).ticket, TOPIC));
            holds.on_sent(TOPIC);
            assert!(!holds.admits(message(8, 100).ticket, TOPIC), "one at a time");
        }
        assert!(holds.on_accepted(&message(7, 100)));
        assert!(holds.admits(message(8, 100).ticket, TOPIC) && !holds.has_deferred_topic());
    }

    #[test]
    fn a_topic_with_three_suspects_is_held_as_such() {
        let (mut holds, now) = (MessageHolds::default(), Instant::now());
        for number in 0..3 {
            assert!(holds.admits(message(9, 1).ticket, TOPIC));
            holds.on_closed(first(message(number, 100)), now, 0.0);
        }
        assert!(!holds.admits(message(9, 1).ticket, TOPIC));
        assert!(holds.admits(message(9, 1).ticket, OTHER));
    }

    #[test]
    fn a_written_message_of_qos_0_proves_nothing() {
        let (mut holds, now) = (MessageHolds::default(), Instant::now());
        let written = SentMessage { expects_ack: false, ..message(8, 100) };
        holds.on_closed(first(message(7, 900)), now, 0.0);
        holds.on_accepted(&written);
        assert_eq!(holds.on_closed(first(message(7, 900)), now, 0.0), None);
    }
}
