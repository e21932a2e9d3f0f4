//! What the pump hands to the MQTT task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::Qos;

use super::{Pump, STATUS, dating};
use crate::metrics::DropReason;
use crate::mqtt::Outgoing;
use crate::payload::{self, Stamp};
use crate::queue::{Entry, Queued};

/// An unchanged status is published again after this.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// Whether there may be more to send at once.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum More {
    No,
    /// Not before this.
    Later(Instant),
    Perhaps,
}

impl More {
    pub(super) const fn later(self) -> Option<Instant> {
        match self {
            Self::Later(at) => Some(at),
            Self::No | Self::Perhaps => None,
        }
    }
}

impl Pump {
    /// Sends the next message if the window allows. One at a time: one with 500 values takes a fifth
    /// of a millisecond, and more on a Raspberry Pi, while PLCs and what is new want their turn.
    pub(super) fn send(&mut self) -> More {
        self.move_in();
        let window = self.window();
        let has_room = self.session.as_ref().is_some_and(|it| it.unacknowledged < window);
        if !has_room || self.home.is_found() || self.send_status().is_none() {
            return More::No;
        }
        match self.send_next() {
            Some(()) => More::Perhaps,
            None => self.queue.rests(Instant::now()).map_or(More::No, More::Later),
        }
    }

    /// Sends the status if it is due; nothing when the MQTT task is busy: the next turn comes with
    /// its next event.
    fn send_status(&mut self) -> Option<()> {
        let session = self.session.as_mut()?;
        if session.status_due.is_some_and(|due| due <= Instant::now()) {
            if let Some(outgoing) = self.board.message(session.number, STATUS) {
                self.outbox.try_send(outgoing).ok()?;
                session.sent(STATUS);
            }
            session.status_due = Some(Instant::now() + STATUS_EVERY);
        }
        Some(())
    }

    /// Sends the next message; nothing when there is none, or no room for it.
    fn send_next(&mut self) -> Option<()> {
        let window = self.window();
        let session = self.session.as_mut().filter(|it| it.unacknowledged < window)?;
        let permit = self.outbox.try_reserve().ok()?;
        let Queued { id, topic, epoch, seq, history, entry } = self.queue.next(Instant::now())?;
        let stamp = Stamp { epoch, seq, history, corrected: false };
        let began = Instant::now();
        let (payload, qos, retain) = match entry {
            Entry::Record(record) => {
                let source = self.sources.get(usize::from(record.plc))?;
                let (record, corrected) = dating::dated(record, self.eras.dating(id.ticket()));
                let payload = source.encoder.encode(&record, &Stamp { corrected, ..stamp });
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
            self.queue.encoded(began.elapsed(), Instant::now());
        }
        if session.max_payload.is_some_and(|max| payload.len() > max) {
            self.queue.discard(id, DropReason::TooLarge, Instant::now());
            return Some(());
        }
        session.sent(id.ticket());
        permit.send(Outgoing {
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
