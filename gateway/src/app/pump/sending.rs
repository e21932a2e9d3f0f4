//! Hands messages of the queue, and the status, to the MQTT task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::Qos;

use super::holds::SentMessage;
use super::{Pump, Ticket, now, timestamp_correction};
use crate::metrics::DropReason;
use crate::mqtt::{MAX_INFLIGHT, MqttRequest, OutgoingMessage};
use crate::payload::{self, MessageStamp};
use crate::queue::{Entry, NotSent, QueuedEntry};

/// An unchanged status is published again after this time.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

/// When the next message can be sent.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NextSend {
    Idle,
    /// Not before this time.
    At(Instant),
    Now,
}

impl NextSend {
    pub(super) const fn at(self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(at),
            Self::Idle | Self::Now => None,
        }
    }
}

impl Pump {
    /// Sends the next message if the window allows. One per turn of the event loop: encoding 500
    /// values takes 0.2 ms, and more on a Raspberry Pi, and events of PLCs must not wait for many.
    pub(super) fn send(&mut self) -> NextSend {
        self.attach_storage();
        // Not before the broker has accepted something: otherwise one suspected message after the
        // other would open the sessions, and none of the others would ever be sent.
        if self.has_answered() {
            self.begin_due_probe();
        }
        if !self.has_room() || self.storage_retry.is_open() || self.send_status().is_none() {
            return NextSend::Idle;
        }
        self.send_replies();
        if self.send_next() || self.begin_due_probe() {
            return NextSend::Now;
        }
        self.queue.throttled_until(now()).map_or(NextSend::Idle, NextSend::At)
    }

    fn has_answered(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_answered)
    }

    fn has_room(&self) -> bool {
        let in_flight = self.session.as_ref().map(|session| session.in_flight.len());
        // A suspected message that is due waits until nothing is in flight.
        let waits = self.has_answered() && self.holds.due_probe(now()).is_some();
        in_flight.is_some_and(|in_flight| in_flight < self.holds.window()) && !waits
    }

    /// Makes a suspected message whose pause is over the next one, if nothing is in flight. Returns
    /// whether it did.
    fn begin_due_probe(&mut self) -> bool {
        if self.session.as_ref().is_none_or(|session| !session.in_flight.is_empty()) {
            return false;
        }
        let Some(ticket) = self.holds.due_probe(now()) else { return false };
        self.holds.begin_probe(ticket);
        self.offer_probe();
        true
    }

    /// Sends the status if it is due. Returns `None` without a session, and when the outbox is
    /// full: the next event of the MQTT task starts the next attempt.
    fn send_status(&mut self) -> Option<()> {
        let session = self.session.as_mut()?;
        if session.clearing.is_some() {
            let permit = self.outbox.try_reserve().ok()?;
            if let Some(outgoing) = session.clearing.take() {
                permit.send(MqttRequest::Publish(outgoing));
            }
        }
        let is_due = session.status_due.is_some_and(|due| due <= now());
        // One at a time: both have the same ticket.
        let is_under_way = session.in_flight.contains_key(&Ticket::STATUS_NUMBER);
        if is_due && !is_under_way && self.holds.admits(Ticket::Status, None) {
            match self.status_tracker.status_message(session.number) {
                Some(outgoing) => {
                    let message = SentMessage {
                        ticket: Ticket::Status,
                        topic: None,
                        bytes: outgoing.payload.len(),
                        expects_ack: true,
                    };
                    self.outbox.try_send(MqttRequest::Publish(outgoing)).ok()?;
                    session.in_flight.insert(Ticket::STATUS_NUMBER, message);
                    self.holds.on_sent(None);
                }
                None => self.holds.forget(Ticket::Status),
            }
            session.status_due = Some(now() + STATUS_INTERVAL);
        }
        Some(())
    }

    /// Sends the replies on response topics. Not while messages are sent one at a time: which one
    /// the broker closes the connection over could not be told.
    fn send_replies(&mut self) {
        let Some(session) = self.session.as_ref().map(|session| session.number) else { return };
        if self.holds.window() < MAX_INFLIGHT {
            return;
        }
        while let Ok(permit) = self.outbox.try_reserve()
            && let Some(reply) = self.replies.poll(session, now())
        {
            permit.send(MqttRequest::Publish(reply));
        }
    }

    /// Sends the next message. Returns whether there was one, and room for it in the outbox.
    fn send_next(&mut self) -> bool {
        if !self.has_room() || self.is_ordered && self.holds.has_deferred_topic() {
            return false;
        }
        let session = self.session.as_mut();
        let (Some(session), Ok(permit)) = (session, self.outbox.try_reserve()) else {
            return false;
        };
        let mut history_took = None;
        let sent = self.queue.hand_out(now(), |queued| {
            let QueuedEntry { id, topic, topic_name, epoch, seq, history, entry } = queued;
            let ticket = Ticket::Entry(id);
            if !self.holds.admits(ticket, Some(topic)) {
                return Err(NotSent::Later);
            }
            let stamp = MessageStamp { epoch, seq, history, corrected: false };
            let began = Instant::now();
            let (payload, qos, retain) = match entry {
                Entry::Record(record) => {
                    let pipeline = self.pipelines.get(usize::from(record.plc));
                    let pipeline = pipeline.ok_or(DropReason::Unconfigured)?;
                    // Before its times are corrected: the event is known by those in the queue.
                    self.triggers.on_sent(id, record);
                    let (record, corrected) =
                        timestamp_correction::corrected(record, &self.clock_history);
                    let stamp = MessageStamp { corrected, ..stamp };
                    let payload = pipeline.encoder.encode(&record, &stamp);
                    // A retained message is the last value: nothing old may replace it.
                    (payload, pipeline.qos, pipeline.retain && !history)
                }
                Entry::Message(message) => {
                    let payload = payload::encode_message(&self.gateway_id, message, &stamp);
                    (payload, Qos::AtLeastOnce, false)
                }
            };
            history_took = history.then(|| began.elapsed());
            if session.max_payload.is_some_and(|max| payload.len() > max) {
                return Err(DropReason::TooLarge.into());
            }
            let bytes = payload.len();
            let expects_ack = qos != Qos::AtMostOnce;
            let message = SentMessage { ticket, topic: Some(topic), bytes, expects_ack };
            session.in_flight.insert(id.ticket(), message);
            self.holds.on_sent(Some(topic));
            permit.send(MqttRequest::Publish(OutgoingMessage {
                session: session.number,
                ticket: Some(id.ticket()),
                topic: Arc::clone(topic_name),
                payload,
                qos,
                retain,
                correlation_data: None,
            }));
            Ok(())
        });
        if let Some(took) = history_took {
            self.queue.on_encoded(took, now());
        }
        sent.is_some()
    }
}
