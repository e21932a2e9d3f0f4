//! What the pump hands to the MQTT task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::Qos;

use super::{Pump, Ticket, timestamp_correction};
use crate::metrics::DropReason;
use crate::mqtt::OutgoingMessage;
use crate::payload::{self, MessageStamp};
use crate::queue::{Entry, QueuedEntry};

/// An unchanged status is published again after this.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

/// Whether there may be more to send at once.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NextSend {
    Idle,
    /// Not before this.
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
    /// Sends the next message if the window allows. One at a time: one with 500 values takes a fifth
    /// of a millisecond, and more on a Raspberry Pi, while PLCs and what is new want their turn.
    pub(super) fn send(&mut self) -> NextSend {
        self.attach_storage();
        let window = self.window();
        let has_room = self.session.as_ref().is_some_and(|it| it.unacknowledged < window);
        if !has_room || self.storage_retry.is_open() || self.send_status().is_none() {
            return NextSend::Idle;
        }
        match self.send_next() {
            Some(()) => NextSend::Now,
            None => self.queue.throttled_until(Instant::now()).map_or(NextSend::Idle, NextSend::At),
        }
    }

    /// Sends the status if it is due; nothing when the MQTT task is busy: the next turn comes with
    /// its next event.
    fn send_status(&mut self) -> Option<()> {
        let session = self.session.as_mut()?;
        if session.status_due.is_some_and(|due| due <= Instant::now()) {
            if let Some(outgoing) = self.status_tracker.status_message(session.number) {
                self.outbox.try_send(outgoing).ok()?;
                session.on_sent(Ticket::Status);
            }
            session.status_due = Some(Instant::now() + STATUS_INTERVAL);
        }
        Some(())
    }

    /// Sends the next message; nothing when there is none, or no room for it.
    fn send_next(&mut self) -> Option<()> {
        let window = self.window();
        let session = self.session.as_mut().filter(|it| it.unacknowledged < window)?;
        let permit = self.outbox.try_reserve().ok()?;
        let QueuedEntry { id, topic, epoch, seq, history, entry } =
            self.queue.next(Instant::now())?;
        let stamp = MessageStamp { epoch, seq, history, corrected: false };
        let began = Instant::now();
        let (payload, qos, retain) = match entry {
            Entry::Record(record) => {
                let source = self.pipelines.get(usize::from(record.plc))?;
                let (record, corrected) = timestamp_correction::corrected(
                    record,
                    self.clock_history.correction(id.ticket()),
                );
                let payload = source.encoder.encode(&record, &MessageStamp { corrected, ..stamp });
                // A retained message is the last value: nothing old may take its place.
                (payload, source.qos, source.retain && !history)
            }
            Entry::Message(message) => {
                let payload = payload::encode_message(&self.gateway_id, message, &stamp);
                (payload, Qos::AtLeastOnce, false)
            }
        };
        let topic = Arc::clone(self.queue.topic(topic)?);
        if history {
            self.queue.on_encoded(began.elapsed(), Instant::now());
        }
        if session.max_payload.is_some_and(|max| payload.len() > max) {
            self.queue.discard(id, DropReason::TooLarge, Instant::now());
            return Some(());
        }
        session.on_sent(Ticket::Entry(id));
        permit.send(OutgoingMessage {
            session: session.number,
            ticket: Some(id.ticket()),
            topic,
            payload,
            qos,
            retain,
        });
        Some(())
    }
}
