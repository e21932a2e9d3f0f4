//! The messages of the broker in one session: which are passed on, and which are still to be
//! acknowledged. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use provisioning::config::Qos;
use tokio::time::Instant;

use super::{Acknowledgements, DeliveryTag, IncomingMessage};
use crate::model::filter_matches;

/// Most acknowledgements that rumqttc holds unwritten, as many as the Receive Maximum.
pub(super) const MAX_UNWRITTEN_ACKS: usize = 16;
/// Filters for which one message on an unsolicited topic is unsubscribed.
pub(super) const MAX_CANDIDATES: usize = 5;
/// Most filters that are unsubscribed in one session.
const MAX_UNSUBSCRIBES: usize = 4 * MAX_CANDIDATES;
/// A broker may deliver what it had stored before the UNSUBSCRIBE for this long.
const BACKLOG_TIME: Duration = Duration::from_secs(30);

/// A message as the session received it.
#[derive(Clone, Debug)]
pub(super) struct ReceivedPublish {
    /// 0 at QoS 0.
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
    pub(super) message: IncomingMessage,
}

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum InboxDecision {
    /// The caller gets it.
    Deliver(IncomingMessage),
    /// The broker repeats a message whose acknowledgement is still to come.
    Repeated,
    /// No subscription of the gateway asked for it: it is acknowledged and discarded.
    Unsolicited(UnsolicitedRemedy),
}

/// How the subscription behind an unsolicited message is removed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum UnsolicitedRemedy {
    /// These filters are unsubscribed: the subscription may be one of them.
    Unsubscribe(Vec<String>),
    /// Nothing for now: an UNSUBSCRIBE has not taken effect yet, or nothing helps.
    None,
    /// The session begins again, without any subscription.
    BeginClean,
}

/// A message that is to be acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DueAck {
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
}

/// Whether a message may be acknowledged as soon as those before it are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AckState {
    WithCaller,
    Due,
}

/// The messages that the broker sent in one session.
#[derive(Debug)]
pub(super) struct Inbox {
    session: u32,
    filters: Vec<String>,
    acknowledgements: Acknowledgements,
    /// The acknowledgements that rumqttc does not have yet, in the order in which the messages
    /// arrived and are to be acknowledged (MQTT 5.0, 4.6). The broker limits their number: by the
    /// Receive Maximum, or under 3.1.1 by itself.
    unacknowledged: VecDeque<DueAck>,
    /// The state of each of them, by packet id.
    states: BTreeMap<u16, AckState>,
    unwritten_acks: usize,
    unsubscribed: BTreeSet<String>,
    unanswered_unsubscribes: usize,
    last_unsuback: Option<Instant>,
}

impl Inbox {
    /// Starts empty, for the session with this number and its topic filters.
    pub(super) fn new(
        session: u32,
        filters: &[String],
        acknowledgements: Acknowledgements,
    ) -> Self {
        Self {
            session,
            filters: filters.to_vec(),
            acknowledgements,
            unacknowledged: VecDeque::new(),
            states: BTreeMap::new(),
            unwritten_acks: 0,
            unsubscribed: BTreeSet::new(),
            unanswered_unsubscribes: 0,
            last_unsuback: None,
        }
    }

    /// Records a message.
    pub(super) fn on_received(&mut self, received: ReceivedPublish, now: Instant) -> InboxDecision {
        let ReceivedPublish { packet_id, qos, mut message } = received;
        // rumqttc has acknowledged it, and the filters are the user's own: any message is for them.
        if self.acknowledgements == Acknowledgements::OnReceipt {
            return InboxDecision::Deliver(message);
        }
        if !self.filters.iter().any(|filter| filter_matches(filter, &message.topic)) {
            self.await_ack(DueAck { packet_id, qos }, AckState::Due);
            return InboxDecision::Unsolicited(self.remedy(&message.topic, now));
        }
        if qos != Qos::AtMostOnce {
            if !self.await_ack(DueAck { packet_id, qos }, AckState::WithCaller) {
                return InboxDecision::Repeated;
            }
            message.delivery = Some(DeliveryTag { session: self.session, packet_id });
        }
        InboxDecision::Deliver(message)
    }

    /// Records a message that is discarded, in a session after which the broker does not send it
    /// again.
    pub(super) fn on_discarded(&mut self, ack: DueAck) {
        if self.acknowledgements == Acknowledgements::ByCaller {
            self.await_ack(ack, AckState::Due);
        }
    }

    /// Adds a message to those that are to be acknowledged. Returns `false` if it is one of them:
    /// some brokers repeat a message within a session, and its id cannot be in use for another one
    /// before the acknowledgement (MQTT 5.0, 2.2.1).
    fn await_ack(&mut self, ack: DueAck, state: AckState) -> bool {
        let is_new = !self.states.contains_key(&ack.packet_id);
        if is_new && ack.qos != Qos::AtMostOnce {
            self.unacknowledged.push_back(ack);
            self.states.insert(ack.packet_id, state);
        }
        is_new
    }

    /// Records that the caller acknowledges a message.
    pub(super) fn acknowledge(&mut self, tag: DeliveryTag) {
        if tag.session == self.session
            && let Some(state) = self.states.get_mut(&tag.packet_id)
        {
            *state = AckState::Due;
        }
    }

    /// Returns the next acknowledgement to hand to rumqttc, the oldest first; `None` also while
    /// rumqttc has not written the ones before, or the caller has an older message.
    pub(super) fn poll_ack(&mut self) -> Option<DueAck> {
        if self.unwritten_acks >= MAX_UNWRITTEN_ACKS {
            return None;
        }
        let ack = self.next_due()?;
        self.unacknowledged.pop_front();
        self.states.remove(&ack.packet_id);
        self.unwritten_acks += 1;
        Some(ack)
    }

    /// Returns whether acknowledgements may be handed to rumqttc, as soon as it has room.
    pub(super) fn has_due_acks(&self) -> bool {
        self.next_due().is_some()
    }

    fn next_due(&self) -> Option<DueAck> {
        let first = self.unacknowledged.front().copied();
        first.filter(|ack| self.states.get(&ack.packet_id) == Some(&AckState::Due))
    }

    /// Returns whether any message is still to be acknowledged.
    pub(super) fn has_unacknowledged(&self) -> bool {
        !self.unacknowledged.is_empty()
    }

    /// Records that rumqttc wrote an acknowledgement.
    pub(super) fn on_ack_written(&mut self) {
        self.unwritten_acks = self.unwritten_acks.saturating_sub(1);
    }

    /// Records the answer to an UNSUBSCRIBE.
    pub(super) fn on_unsuback(&mut self, now: Instant) {
        self.unanswered_unsubscribes = self.unanswered_unsubscribes.saturating_sub(1);
        self.last_unsuback = Some(now);
    }

    fn remedy(&mut self, topic: &str, now: Instant) -> UnsolicitedRemedy {
        if self.unanswered_unsubscribes > 0 {
            return UnsolicitedRemedy::None;
        }
        let left = MAX_UNSUBSCRIBES.saturating_sub(self.unsubscribed.len());
        let mut filters = candidates(topic);
        filters
            .retain(|filter| !self.unsubscribed.contains(filter) && !self.filters.contains(filter));
        filters.truncate(left);
        if !filters.is_empty() {
            self.unsubscribed.extend(filters.iter().cloned());
            self.unanswered_unsubscribes = filters.len();
            return UnsolicitedRemedy::Unsubscribe(filters);
        }
        let is_backlog_over = self.last_unsuback.is_some_and(|at| now >= at + BACKLOG_TIME);
        // A command that the caller still has would come twice.
        if is_backlog_over && self.states.values().all(|state| *state == AckState::Due) {
            UnsolicitedRemedy::BeginClean
        } else {
            UnsolicitedRemedy::None
        }
    }
}

/// Returns the filters that most likely led to a message on this topic, without those that MQTT
/// does not allow: the topic itself, that of the commands of a gateway with another id, everything
/// below the first levels, everything.
fn candidates(topic: &str) -> Vec<String> {
    let mut filters = vec![topic.to_owned()];
    let mut levels = topic.splitn(3, '/');
    if let (Some("edge"), Some(gateway)) = (levels.next(), levels.next()) {
        filters.push(format!("edge/{gateway}/set/+"));
        filters.push(format!("edge/{gateway}/#"));
        filters.push("edge/#".to_owned());
    }
    filters.push("#".to_owned());
    filters.retain(|filter| filter_matches(filter, topic));
    filters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(packet_id: u16, qos: Qos, topic: &str) -> ReceivedPublish {
        let message = IncomingMessage { topic: topic.to_owned(), ..IncomingMessage::default() };
        ReceivedPublish { packet_id, qos, message }
    }

    fn inbox(acknowledgements: Acknowledgements) -> Inbox {
        Inbox::new(3, &["edge/a/set/+".to_owned()], acknowledgements)
    }

    fn delivered(verdict: InboxDecision) -> IncomingMessage {
        let InboxDecision::Deliver(message) = verdict else { panic!("{verdict:?}") };
        message
    }

    fn remedy(verdict: InboxDecision) -> UnsolicitedRemedy {
        let InboxDecision::Unsolicited(remedy) = verdict else { panic!("{verdict:?}") };
        remedy
    }

    #[test]
    fn a_command_is_acknowledged_once_and_only_when_the_caller_says_so() {
        let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let command = received(9, Qos::AtLeastOnce, "edge/a/set/p");
        let tag = delivered(inbox.on_received(command.clone(), now)).delivery.unwrap();
        assert_eq!(inbox.poll_ack(), None);
        assert!(matches!(inbox.on_received(command.clone(), now), InboxDecision::Repeated));

        inbox.acknowledge(DeliveryTag { session: 2, ..tag });
        assert_eq!(inbox.poll_ack(), None, "the tag of another session");
        inbox.acknowledge(tag);
        inbox.acknowledge(tag);

        assert_eq!(inbox.poll_ack(), Some(DueAck { packet_id: 9, qos: Qos::AtLeastOnce }));
        assert_eq!(inbox.poll_ack(), None);
        assert!(delivered(inbox.on_received(command, now)).delivery.is_some(), "the id is free");
    }

    #[test]
    fn nothing_is_left_to_acknowledge_at_qos_0_and_on_receipt() {
        let now = Instant::now();
        for (acknowledgements, qos) in [
            (Acknowledgements::ByCaller, Qos::AtMostOnce),
            (Acknowledgements::OnReceipt, Qos::AtLeastOnce),
            (Acknowledgements::OnReceipt, Qos::ExactlyOnce),
        ] {
            let mut inbox = inbox(acknowledgements);
            let message = delivered(inbox.on_received(received(1, qos, "edge/a/set/p"), now));
            assert_eq!(message.delivery, None);
            let other = inbox.on_received(received(2, qos, "other"), now);
            let is_on_receipt = acknowledgements == Acknowledgements::OnReceipt;
            assert_eq!(matches!(other, InboxDecision::Deliver(_)), is_on_receipt);
            assert_eq!(inbox.poll_ack(), None);
        }
    }

    #[test]
    fn what_is_discarded_is_acknowledged_in_its_turn() {
        let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let command = received(1, Qos::AtLeastOnce, "edge/a/set/p");
        let tag = delivered(inbox.on_received(command, now)).delivery.unwrap();
        inbox.on_discarded(DueAck { packet_id: 2, qos: Qos::ExactlyOnce });
        assert_eq!(inbox.poll_ack(), None);
        inbox.acknowledge(tag);
        let acks: Vec<_> = std::iter::from_fn(|| inbox.poll_ack()).collect();
        assert_eq!(acks.iter().map(|ack| ack.packet_id).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn few_acknowledgements_wait_to_be_written() {
        let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
        for packet_id in 1..=100 {
            inbox.on_received(received(packet_id, Qos::AtLeastOnce, "other"), now);
        }
        let handed = std::iter::from_fn(|| inbox.poll_ack()).count();
        assert_eq!(handed, MAX_UNWRITTEN_ACKS);
        inbox.on_ack_written();
        assert_eq!(inbox.poll_ack().map(|ack| ack.packet_id), Some(17));
        assert_eq!(inbox.poll_ack(), None);
    }

    #[test]
    fn an_unknown_subscription_is_unsubscribed_and_at_last_the_session_begins_clean() {
        let (mut inbox, start) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let unsolicited = || received(1, Qos::AtLeastOnce, "edge/old/set/p");
        let UnsolicitedRemedy::Unsubscribe(filters) =
            remedy(inbox.on_received(unsolicited(), start))
        else {
            panic!("nothing is unsubscribed")
        };
        assert_eq!(
            filters,
            ["edge/old/set/p", "edge/old/set/+", "edge/old/#", "edge/#", "#"],
            "never one of its own"
        );
        assert_eq!(remedy(inbox.on_received(unsolicited(), start)), UnsolicitedRemedy::None);
        for _ in &filters {
            inbox.on_unsuback(start);
        }
        let backlog = start + Duration::from_secs(29);
        assert_eq!(remedy(inbox.on_received(unsolicited(), backlog)), UnsolicitedRemedy::None);

        let late = start + Duration::from_secs(30);
        let command = received(2, Qos::AtLeastOnce, "edge/a/set/p");
        let tag = delivered(inbox.on_received(command, late)).delivery.unwrap();
        assert_eq!(remedy(inbox.on_received(unsolicited(), late)), UnsolicitedRemedy::None);
        inbox.acknowledge(tag);
        assert_eq!(remedy(inbox.on_received(unsolicited(), late)), UnsolicitedRemedy::BeginClean);
    }

    #[test]
    fn any_number_of_unsolicited_topics_leads_to_few_requests() {
        let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let mut requests = 0;
        for number in 0..10_000 {
            let topic = format!("x/{number}");
            let verdict = inbox.on_received(received(1, Qos::AtMostOnce, &topic), now);
            if let UnsolicitedRemedy::Unsubscribe(filters) = remedy(verdict) {
                requests += filters.len();
                filters.iter().for_each(|_| inbox.on_unsuback(now));
            }
        }
        assert_eq!(requests, MAX_UNSUBSCRIBES);
    }

    #[test]
    fn every_candidate_matches_and_there_are_few() {
        for topic in ["edge/old/set/p", "edge/old/data/p", "edge", "a", "/", "$SYS/x", "edge/a/b/c"]
        {
            let found = candidates(topic);
            assert!((1..=MAX_CANDIDATES).contains(&found.len()));
            assert!(found.iter().all(|filter| filter_matches(filter, topic)), "{found:?}");
        }
        assert_eq!(candidates("$SYS/x"), ["$SYS/x"]);
    }

    /// What happens to an inbox. Few packet ids, so that brokers repeat them.
    #[derive(Clone, Debug)]
    enum InboxEvent {
        Receive { packet_id: u16, qos: Qos, is_unsolicited: bool },
        Acknowledge(u16),
        Poll,
    }

    fn step() -> impl Strategy<Value = InboxEvent> {
        let qos = prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let receive = (1..8_u16, qos, any::<bool>());
        prop_oneof![
            receive.prop_map(|(packet_id, qos, is_unsolicited)| InboxEvent::Receive {
                packet_id,
                qos,
                is_unsolicited
            }),
            (1..8_u16).prop_map(InboxEvent::Acknowledge),
            Just(InboxEvent::Poll),
        ]
    }

    proptest! {
        /// MQTT-4.6.0-2.
        #[test]
        fn messages_are_acknowledged_in_the_order_of_arrival(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
            // What is still to be acknowledged, and whether it may be.
            let mut expected: VecDeque<(DueAck, bool)> = VecDeque::new();
            for step in steps {
                match step {
                    InboxEvent::Receive { packet_id, qos, is_unsolicited } => {
                        let topic = if is_unsolicited { "other" } else { "edge/a/set/p" };
                        let packet_id = if qos == Qos::AtMostOnce { 0 } else { packet_id };
                        let is_new = expected.iter().all(|(ack, _)| ack.packet_id != packet_id);
                        let decision = inbox.on_received(received(packet_id, qos, topic), now);
                        let is_repeated = matches!(decision, InboxDecision::Repeated);
                        prop_assert_eq!(is_repeated, !is_new && !is_unsolicited);
                        if is_new && qos != Qos::AtMostOnce {
                            expected.push_back((DueAck { packet_id, qos }, is_unsolicited));
                        }
                    }
                    InboxEvent::Acknowledge(packet_id) => {
                        inbox.acknowledge(DeliveryTag { session: 3, packet_id });
                        let known = expected.iter_mut();
                        known.filter(|(ack, _)| ack.packet_id == packet_id)
                            .for_each(|(_, is_due)| *is_due = true);
                    }
                    InboxEvent::Poll => {
                        let due = expected.pop_front_if(|(_, is_due)| *is_due);
                        prop_assert_eq!(inbox.poll_ack(), due.map(|(ack, _)| ack));
                        inbox.on_ack_written();
                    }
                }
                prop_assert_eq!(inbox.has_unacknowledged(), !expected.is_empty());
                let is_due = expected.front().is_some_and(|(_, is_due)| *is_due);
                prop_assert_eq!(inbox.has_due_acks(), is_due);
            }
        }
    }
}
