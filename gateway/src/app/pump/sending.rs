//! Hands messages of the queue, and the status, to the MQTT task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::Qos;

use super::{Pump, Ticket, timestamp_correction};
use crate::metrics::DropReason;
use crate::mqtt::OutgoingMessage;
use crate::payload::{self, MessageStamp};
use crate::queue::{Entry, QueuedEntry};

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
        let window = self.window();
        let has_room = self.session.as_ref().is_some_and(|it| it.unacknowledged < window);
        if !has_room || self.storage_retry.is_open() || self.send_status().is_none() {
            return NextSend::Idle;
        }
        if self.send_next() {
            return NextSend::Now;
        }
        self.queue.throttled_until(Instant::now()).map_or(NextSend::Idle, NextSend::At)
    }

    /// Sends the status if it is due. Returns `None` without a session, and when the outbox is
    /// full: the next event of the MQTT task starts the next attempt.
    fn send_status(&mut self) -> Option<()> {
        let session = self.session.as_mut()?;
        if session.clearing.is_some() {
            let permit = self.outbox.try_reserve().ok()?;
            session.clearing.take().map(|outgoing| permit.send(outgoing));
        }
        if session.status_due.is_some_and(|due| due <= Instant::now()) {
            if let Some(outgoing) = self.status_tracker.status_message(session.number) {
                self.outbox.try_send(outgoing).ok()?;
                session.on_sent(Ticket::Status);
            }
            session.status_due = Some(Instant::now() + STATUS_INTERVAL);
        }
        Some(())
    }

    /// Sends the next message. Returns whether there was one, and room for it in the outbox.
    fn send_next(&mut self) -> bool {
        let window = self.window();
        let session = self.session.as_mut().filter(|it| it.unacknowledged < window);
        let (Some(session), Ok(permit)) = (session, self.outbox.try_reserve()) else {
            return false;
        };
        let mut history_took = None;
        let sent = self.queue.hand_out(Instant::now(), |queued| {
            let QueuedEntry { id, topic_name, epoch, seq, history, entry, .. } = queued;
            let stamp = MessageStamp { epoch, seq, history, corrected: false };
            let began = Instant::now();
            let (payload, qos, retain) = match entry {
                Entry::Record(record) => {
                    let pipeline = self.pipelines.get(usize::from(record.plc));
                    let pipeline = pipeline.ok_or(DropReason::Unconfigured)?;
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
                return Err(DropReason::TooLarge);
            }
            session.on_sent(Ticket::Entry(id));
            permit.send(OutgoingMessage {
                session: session.number,
                ticket: Some(id.ticket()),
                topic: Arc::clone(topic_name),
                payload,
                qos,
                retain,
            });
            Ok(())
        });
        if let Some(took) = history_took {
            self.queue.on_encoded(took, Instant::now());
        }
        sent.is_some()
    }
}
