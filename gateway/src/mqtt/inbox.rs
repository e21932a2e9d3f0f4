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
/// Filters for which one message on a foreign topic is unsubscribed.
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
    Foreign(ForeignRemedy),
}

/// How the subscription behind a foreign message is removed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum ForeignRemedy {
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

/// The messages that the broker sent in one session.
#[derive(Debug)]
pub(super) struct Inbox {
    session: u32,
    filters: Vec<String>,
    acknowledgements: Acknowledgements,
    /// Passed on and not acknowledged, by packet id. The broker limits their number: by the Receive
    /// Maximum, or under 3.1.1 by itself.
    unacknowledged: BTreeMap<u16, Qos>,
    due_acks: VecDeque<DueAck>,
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
            unacknowledged: BTreeMap::new(),
            due_acks: VecDeque::new(),
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
            self.queue_ack(packet_id, qos);
            return InboxDecision::Foreign(self.remedy(&message.topic, now));
        }
        if qos != Qos::AtMostOnce {
            // Some brokers repeat a message within a session. Its id cannot be in use for another
            // one before the acknowledgement (MQTT 5.0, 2.2.1).
            if self.unacknowledged.insert(packet_id, qos).is_some() {
                return InboxDecision::Repeated;
            }
            message.delivery = Some(DeliveryTag { session: self.session, packet_id });
        }
        InboxDecision::Deliver(message)
    }

    /// Records that the caller acknowledges a message.
    pub(super) fn acknowledge(&mut self, tag: DeliveryTag) {
        if tag.session == self.session
            && let Some(qos) = self.unacknowledged.remove(&tag.packet_id)
        {
            self.queue_ack(tag.packet_id, qos);
        }
    }

    fn queue_ack(&mut self, packet_id: u16, qos: Qos) {
        if qos != Qos::AtMostOnce {
            self.due_acks.push_back(DueAck { packet_id, qos });
        }
    }

    /// Returns the next acknowledgement to hand to rumqttc, the oldest first; `None` also while
    /// rumqttc has not written the ones before.
    pub(super) fn poll_ack(&mut self) -> Option<DueAck> {
        if self.unwritten_acks >= MAX_UNWRITTEN_ACKS {
            return None;
        }
        let ack = self.due_acks.pop_front()?;
        self.unwritten_acks += 1;
        Some(ack)
    }

    /// Returns whether acknowledgements are still to be handed to rumqttc.
    pub(super) fn has_due_acks(&self) -> bool {
        !self.due_acks.is_empty()
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

    fn remedy(&mut self, topic: &str, now: Instant) -> ForeignRemedy {
        if self.unanswered_unsubscribes > 0 {
            return ForeignRemedy::None;
        }
        let left = MAX_UNSUBSCRIBES.saturating_sub(self.unsubscribed.len());
        let mut filters = candidates(topic);
        filters
            .retain(|filter| !self.unsubscribed.contains(filter) && !self.filters.contains(filter));
        filters.truncate(left);
        if !filters.is_empty() {
            self.unsubscribed.extend(filters.iter().cloned());
            self.unanswered_unsubscribes = filters.len();
            return ForeignRemedy::Unsubscribe(filters);
        }
        let is_backlog_over = self.last_unsuback.is_some_and(|at| now >= at + BACKLOG_TIME);
        // A command that the caller still has would come twice.
        if is_backlog_over && self.unacknowledged.is_empty() {
            ForeignRemedy::BeginClean
        } else {
            ForeignRemedy::None
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

    fn remedy(verdict: InboxDecision) -> ForeignRemedy {
        let InboxDecision::Foreign(remedy) = verdict else { panic!("{verdict:?}") };
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
    fn a_foreign_subscription_is_unsubscribed_and_at_last_the_session_begins_clean() {
        let (mut inbox, start) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let foreign = || received(1, Qos::AtLeastOnce, "edge/old/set/p");
        let ForeignRemedy::Unsubscribe(filters) = remedy(inbox.on_received(foreign(), start))
        else {
            panic!("nothing is unsubscribed")
        };
        assert_eq!(
            filters,
            ["edge/old/set/p", "edge/old/set/+", "edge/old/#", "edge/#", "#"],
            "never one of its own"
        );
        assert_eq!(remedy(inbox.on_received(foreign(), start)), ForeignRemedy::None);
        for _ in &filters {
            inbox.on_unsuback(start);
        }
        let backlog = start + Duration::from_secs(29);
        assert_eq!(remedy(inbox.on_received(foreign(), backlog)), ForeignRemedy::None);

        let late = start + Duration::from_secs(30);
        let command = received(2, Qos::AtLeastOnce, "edge/a/set/p");
        let tag = delivered(inbox.on_received(command, late)).delivery.unwrap();
        assert_eq!(remedy(inbox.on_received(foreign(), late)), ForeignRemedy::None);
        inbox.acknowledge(tag);
        assert_eq!(remedy(inbox.on_received(foreign(), late)), ForeignRemedy::BeginClean);
    }

    #[test]
    fn any_number_of_foreign_topics_leads_to_few_requests() {
        let (mut inbox, now) = (inbox(Acknowledgements::ByCaller), Instant::now());
        let mut requests = 0;
        for number in 0..10_000 {
            let topic = format!("x/{number}");
            let verdict = inbox.on_received(received(1, Qos::AtMostOnce, &topic), now);
            if let ForeignRemedy::Unsubscribe(filters) = remedy(verdict) {
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
}
