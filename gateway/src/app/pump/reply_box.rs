//! The replies on response topics: a copy of each reply for the sender that asked for one, in
//! memory only.
//!
//! The topics are chosen by the senders of commands, so nothing may depend on them: such a reply
//! has no `seq`, no state and no label per topic, and a broker that refuses it is no fault of the
//! gateway. The reply on `reply/{plc}` goes through the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::Qos;

use super::Ticket;
use crate::metrics::{MqttMetrics, ReplyOutcome};
use crate::model::ReplyTo;
use crate::mqtt::{MqttEvent, OutgoingMessage};

/// Most replies that wait or are under way; a further one takes the place of the oldest.
const MAX_REPLIES: usize = 64;
/// Most replies under way.
const MAX_INFLIGHT_REPLIES: usize = 8;
/// A reply that could not be sent for this long is dropped: its reader has timed out.
const MAX_REPLY_AGE: Duration = Duration::from_mins(5);
/// After a session that ended with replies under way, none is sent for this time: a topic that the
/// broker closes connections over must not keep values from being published.
const PAUSE_AFTER_CLOSE: Duration = Duration::from_mins(5);

/// The replies of one process.
#[derive(Debug)]
pub(super) struct ReplyBox {
    waiting: VecDeque<ReplyCopy>,
    in_flight: VecDeque<ReplyCopy>,
    last_number: u32,
    paused_until: Option<Instant>,
    metrics: MqttMetrics,
}

#[derive(Clone, Debug)]
struct ReplyCopy {
    number: u32,
    topic: Arc<str>,
    correlation_data: Option<Vec<u8>>,
    payload: Vec<u8>,
    made_at: Instant,
}

impl ReplyBox {
    /// Starts empty.
    pub(super) const fn new(metrics: MqttMetrics) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_number: 0,
            paused_until: None,
            metrics,
        }
    }

    /// Adds a reply.
    pub(super) fn push(&mut self, to: ReplyTo, payload: Vec<u8>, now: Instant) {
        self.drop_expired(now);
        if self.waiting.len() + self.in_flight.len() >= MAX_REPLIES {
            // What is under way has not been refused; there are always others.
            self.waiting.pop_front();
            self.count(ReplyOutcome::Dropped, 1);
        }
        let (topic, correlation_data) = to.into_parts();
        self.last_number = self.last_number.wrapping_add(1);
        self.waiting.push_back(ReplyCopy {
            number: self.last_number,
            topic: topic.into(),
            correlation_data,
            payload,
            made_at: now,
        });
    }

    /// Returns the next reply to send in this session; `None` also while too many are under way.
    pub(super) fn poll(&mut self, session: u32, now: Instant) -> Option<OutgoingMessage> {
        self.drop_expired(now);
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        if is_paused || self.in_flight.len() >= MAX_INFLIGHT_REPLIES {
            return None;
        }
        let reply = self.waiting.pop_front()?;
        self.in_flight.push_back(reply.clone());
        Some(OutgoingMessage {
            session,
            ticket: Some(Ticket::Reply(reply.number).number()),
            topic: reply.topic,
            payload: reply.payload,
            qos: Qos::AtLeastOnce,
            retain: false,
            correlation_data: reply.correlation_data,
        })
    }

    /// Records the broker's answer to a reply. Returns whether the event is one: it concerns
    /// nothing else, and the status does not show it.
    pub(super) fn on_mqtt_event(&mut self, event: &MqttEvent) -> bool {
        let (ticket, outcome) = match *event {
            MqttEvent::Acknowledged { ticket } => (ticket, ReplyOutcome::Delivered),
            MqttEvent::Refused { ticket: Some(ticket), .. }
            | MqttEvent::Deferred { ticket: Some(ticket), .. } => (ticket, ReplyOutcome::Refused),
            MqttEvent::Connected { .. }
            | MqttEvent::Disconnected { .. }
            | MqttEvent::Refused { ticket: None, .. }
            | MqttEvent::Deferred { ticket: None, .. }
            | MqttEvent::SubscriptionRefused { .. }
            | MqttEvent::Received(_) => return false,
        };
        let Ticket::Reply(number) = Ticket::from_number(ticket) else { return false };
        self.on_answered(number, outcome);
        true
    }

    fn on_answered(&mut self, number: u32, outcome: ReplyOutcome) {
        let before = self.in_flight.len();
        self.in_flight.retain(|reply| reply.number != number);
        if self.in_flight.len() < before {
            self.count(outcome, 1);
        }
    }

    /// Records the end of a session, which may have ended over one of the messages under way.
    /// Returns whether a reply may be the cause: those under way are dropped then. Otherwise they
    /// are sent again in the next session.
    pub(super) fn on_session_ended(&mut self, may_concern_message: bool, now: Instant) -> bool {
        let is_suspect = may_concern_message && !self.in_flight.is_empty();
        if is_suspect {
            self.count(ReplyOutcome::Refused, self.in_flight.len());
            self.in_flight.clear();
            self.paused_until = Some(now + PAUSE_AFTER_CLOSE);
        }
        while let Some(reply) = self.in_flight.pop_back() {
            self.waiting.push_front(reply);
        }
        is_suspect
    }

    fn drop_expired(&mut self, now: Instant) {
        let is_expired =
            |reply: &ReplyCopy| now.saturating_duration_since(reply.made_at) >= MAX_REPLY_AGE;
        while self.waiting.front().is_some_and(is_expired) {
            self.waiting.pop_front();
            self.count(ReplyOutcome::Dropped, 1);
        }
    }

    fn count(&self, outcome: ReplyOutcome, replies: usize) {
        self.metrics.count_replies(outcome, u64::try_from(replies).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::model::OwnTopics;
    use crate::testing;

    fn reply_box() -> (ReplyBox, Metrics) {
        let metrics = Metrics::new(&testing::config(1), "").unwrap();
        (ReplyBox::new(metrics.mqtt.clone()), metrics)
    }

    fn to(topic: &str) -> ReplyTo {
        ReplyTo::new(&OwnTopics::new("a", []), topic.to_owned(), Some(vec![7])).unwrap()
    }

    fn count(metrics: &Metrics, outcome: &str) -> u64 {
        let line = format!("edge_mqtt_replies_total{{outcome=\"{outcome}\"}} ");
        let text = metrics.render().unwrap();
        text.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse().unwrap()
    }

    fn number(message: &OutgoingMessage) -> u32 {
        let ticket = Ticket::from_number(message.ticket.unwrap());
        let Ticket::Reply(number) = ticket else { panic!("{ticket:?}") };
        number
    }

    #[test]
    fn a_reply_is_sent_once_with_its_correlation_data() {
        let (mut replies, metrics) = reply_box();
        let now = Instant::now();
        replies.push(to("r/1"), b"{}".to_vec(), now);

        let message = replies.poll(4, now).unwrap();

        assert_eq!((&*message.topic, message.session, message.retain), ("r/1", 4, false));
        assert_eq!(message.correlation_data.as_deref(), Some(&[7][..]));
        assert!(replies.poll(4, now).is_none());
        replies.on_answered(number(&message), ReplyOutcome::Delivered);
        replies.on_answered(number(&message), ReplyOutcome::Delivered);
        assert_eq!(count(&metrics, "delivered"), 1);
    }

    #[test]
    fn replies_under_way_are_sent_again_unless_the_session_may_have_ended_over_them() {
        let (mut replies, metrics) = reply_box();
        let now = Instant::now();
        for topic in ["r/1", "r/2"] {
            replies.push(to(topic), Vec::new(), now);
        }
        let first = replies.poll(1, now).unwrap();
        replies.poll(1, now).unwrap();

        assert!(!replies.on_session_ended(false, now));
        let again = replies.poll(2, now).unwrap();
        assert_eq!((&*again.topic, again.ticket), (&*first.topic, first.ticket));

        assert!(replies.on_session_ended(true, now));
        assert_eq!(count(&metrics, "refused"), 1);
        assert!(replies.poll(3, now).is_none(), "a pause");
        let later = now + PAUSE_AFTER_CLOSE - Duration::from_secs(1);
        replies.push(to("r/3"), Vec::new(), later);
        let after = replies.poll(3, now + PAUSE_AFTER_CLOSE).unwrap();
        assert_eq!(&*after.topic, "r/3", "the other one has expired");
        assert!(!ReplyBox::new(metrics.mqtt).on_session_ended(true, now));
    }

    #[test]
    fn a_hundred_thousand_topics_take_the_room_of_64() {
        let (mut replies, metrics) = reply_box();
        let now = Instant::now();
        for number in 0..100_000 {
            replies.push(to(&format!("r/{number}")), vec![b'x'; 100], now);
            replies.poll(1, now);
            assert!(replies.waiting.len() + replies.in_flight.len() <= MAX_REPLIES);
            assert!(replies.in_flight.len() <= MAX_INFLIGHT_REPLIES);
        }
        assert_eq!(count(&metrics, "dropped"), 100_000 - MAX_REPLIES as u64);
        let series = metrics.render().unwrap();
        assert!(!series.contains("r/1"), "no label per topic");
        assert!(replies.waiting.capacity() <= 4 * MAX_REPLIES);
    }

    #[test]
    fn a_refusal_of_a_reply_is_counted_and_is_no_event_for_anything_else() {
        let (mut replies, metrics) = reply_box();
        let now = Instant::now();
        let refused = |ticket| MqttEvent::Refused {
            ticket,
            topic: "r/1".into(),
            code: 0x87,
            reason: "not authorized".to_owned(),
        };
        replies.push(to("r/1"), Vec::new(), now);
        let ticket = replies.poll(1, now).unwrap().ticket;

        assert!(replies.on_mqtt_event(&refused(ticket)));
        assert!(replies.on_mqtt_event(&refused(ticket)), "late, of a session before");
        assert!(!replies.on_mqtt_event(&refused(Some(0))), "an entry of the queue");
        assert!(!replies.on_mqtt_event(&refused(None)));

        assert_eq!(count(&metrics, "refused"), 1);
        assert!(replies.poll(1, now).is_none(), "it is not sent again");
    }

    #[test]
    fn a_reply_that_is_too_old_is_dropped() {
        let (mut replies, metrics) = reply_box();
        let now = Instant::now();
        replies.push(to("r/1"), Vec::new(), now);
        assert!(replies.poll(1, now + MAX_REPLY_AGE).is_none());
        assert_eq!(count(&metrics, "dropped"), 1);
    }
}
