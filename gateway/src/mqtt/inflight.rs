//! The messages in flight: handed to rumqttc, written, not yet acknowledged. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use provisioning::config::Qos;
use tokio::time::Instant;

/// With messages in flight, a broker that acknowledges nothing for this long is disconnected.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// One message in flight.
#[derive(Clone, Debug)]
pub(super) struct InflightMessage {
    pub(super) ticket: Option<u64>,
    pub(super) topic: Arc<str>,
    pub(super) qos: Qos,
    pub(super) sent_at: Instant,
}

/// What a written message waits for.
#[derive(Debug)]
pub(super) enum WrittenMessage {
    /// Nothing: it has QoS 0.
    Done(InflightMessage),
    /// The acknowledgement by the broker.
    AwaitingAck,
    /// Its packet id still belongs to an older message, so their acknowledgements cannot be
    /// distinguished.
    Collision,
}

/// The messages in flight in one session.
///
/// rumqttc assigns packet ids itself, when it writes a message, and reports only the id. It writes
/// messages in the order in which it received them, so the id belongs to the oldest unwritten one.
#[derive(Debug)]
pub(super) struct Inflight {
    /// Handed to rumqttc, the oldest first.
    unwritten: VecDeque<InflightMessage>,
    /// Written, by packet id.
    awaiting_ack: Vec<Option<InflightMessage>>,
    awaiting_count: usize,
    /// Most messages in flight.
    window: usize,
    packet_id_limit: usize,
    leaked_slots: usize,
    last_progress: Instant,
}

impl Inflight {
    /// Starts empty. `limit` is the number of packet ids; at most `window` messages, or half of
    /// `limit`, are in flight.
    pub(super) fn new(limit: u16, window: usize, now: Instant) -> Self {
        let limit = usize::from(limit);
        // Packet ids wrap around at `limit`. With half of them in use, a broker that acknowledges
        // out of order may be late by half the ids before a new message needs the id of an old one.
        let window = (limit / 2).clamp(1, window.max(1));
        Self {
            unwritten: VecDeque::with_capacity(window),
            awaiting_ack: vec![None; limit + 1],
            awaiting_count: 0,
            window,
            packet_id_limit: limit,
            leaked_slots: 0,
            last_progress: now,
        }
    }

    /// Returns the number of messages in flight.
    pub(super) fn len(&self) -> usize {
        self.unwritten.len() + self.awaiting_count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether one more message may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.window
    }

    /// Records that a message was handed to rumqttc.
    pub(super) fn on_sent(&mut self, parcel: InflightMessage) {
        // Nothing was awaited until now, so the time-out starts with this message.
        if self.is_empty() {
            self.last_progress = parcel.sent_at;
        }
        self.unwritten.push_back(parcel);
    }

    /// Records that rumqttc wrote the oldest unwritten message, under this packet id.
    pub(super) fn on_written(&mut self, packet_id: u16, now: Instant) -> WrittenMessage {
        // First in, first out: rumqttc reports the packet id and not which message it wrote.
        let Some(parcel) = self.unwritten.pop_front() else { return WrittenMessage::AwaitingAck };
        if parcel.qos == Qos::AtMostOnce {
            self.last_progress = now;
            return WrittenMessage::Done(parcel);
        }
        match self.awaiting_ack.get_mut(usize::from(packet_id)) {
            Some(slot @ None) => {
                *slot = Some(parcel);
                self.awaiting_count += 1;
                WrittenMessage::AwaitingAck
            }
            Some(Some(_)) | None => {
                // Put back, so that it counts as interrupted when the session ends.
                self.unwritten.push_front(parcel);
                WrittenMessage::Collision
            }
        }
    }

    /// Records that the broker acknowledged or refused a message and returns it; `None` for a
    /// packet id that is not in flight.
    pub(super) fn on_acked(&mut self, packet_id: u16, now: Instant) -> Option<InflightMessage> {
        let parcel = self.awaiting_ack.get_mut(usize::from(packet_id))?.take()?;
        self.awaiting_count -= 1;
        self.last_progress = now;
        Some(parcel)
    }

    /// Records a PUBREC: the broker is alive, and its PUBCOMP is still to come.
    pub(super) fn on_progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// Records that rumqttc never frees the slot of this message.
    pub(super) fn leak_slot(&mut self) {
        self.leaked_slots += 1;
    }

    /// Returns whether the leaked slots would make rumqttc stop accepting messages before
    /// the window is full.
    pub(super) fn is_exhausted(&self) -> bool {
        self.leaked_slots + self.window > self.packet_id_limit
    }

    /// Returns when the session times out unless the broker acknowledges something; `None` when
    /// nothing is in flight.
    pub(super) fn ack_deadline(&self) -> Option<Instant> {
        (!self.is_empty()).then(|| self.last_progress + ACK_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_half_of_the_packet_ids_and_at_most_the_given_one() {
        let window = |limit| Inflight::new(limit, 64, Instant::now()).window;
        assert_eq!([1, 2, 3, 20, 128, 65_535].map(window), [1, 1, 1, 10, 64, 64]);
    }

    #[test]
    fn packet_ids_are_matched_in_the_order_of_sending() {
        let mut flight = inflight();
        for ticket in 1..=3 {
            flight.on_sent(message(ticket, Qos::AtLeastOnce));
        }
        for packet_id in [7, 3, 5] {
            assert!(matches!(
                flight.on_written(packet_id, Instant::now()),
                WrittenMessage::AwaitingAck
            ));
        }
        let settled = [5, 7, 3].map(|id| flight.on_acked(id, Instant::now()).unwrap().ticket);
        assert_eq!(settled, [Some(3), Some(1), Some(2)]);
        assert!(flight.is_empty());
    }

    #[test]
    fn qos_0_is_done_when_written() {
        let mut flight = inflight();
        flight.on_sent(message(1, Qos::AtMostOnce));
        let WrittenMessage::Done(parcel) = flight.on_written(0, Instant::now()) else {
            panic!("not done")
        };
        assert_eq!(parcel.ticket, Some(1));
        assert!(flight.is_empty());
    }

    #[test]
    fn a_second_acknowledgement_is_ignored() {
        let mut flight = inflight();
        flight.on_sent(message(1, Qos::AtLeastOnce));
        flight.on_written(1, Instant::now());
        assert!(flight.on_acked(1, Instant::now()).is_some());
        assert!(flight.on_acked(1, Instant::now()).is_none());
        assert!(flight.on_acked(9999, Instant::now()).is_none());
    }

    #[test]
    fn a_packet_id_still_in_flight_is_a_collision_and_loses_no_message() {
        let mut flight = inflight();
        flight.on_sent(message(1, Qos::ExactlyOnce));
        flight.on_sent(message(2, Qos::ExactlyOnce));
        flight.on_written(1, Instant::now());
        assert!(matches!(flight.on_written(1, Instant::now()), WrittenMessage::Collision));
        assert_eq!(flight.len(), 2);
    }

    #[test]
    fn the_timeout_counts_from_the_last_answer_and_only_with_messages_in_flight() {
        let start = Instant::now();
        let mut flight = Inflight::new(8, 4, start);
        assert_eq!(flight.ack_deadline(), None);
        let late = start + Duration::from_secs(100);
        flight.on_sent(InflightMessage { sent_at: late, ..message(1, Qos::AtLeastOnce) });
        flight.on_sent(InflightMessage { sent_at: late, ..message(2, Qos::AtLeastOnce) });
        assert_eq!(flight.ack_deadline(), Some(late + ACK_TIMEOUT));
        flight.on_written(1, late);
        flight.on_written(2, late);
        let answer = late + Duration::from_secs(7);
        flight.on_acked(1, answer);
        assert_eq!(flight.ack_deadline(), Some(answer + ACK_TIMEOUT));
        flight.on_acked(2, answer);
        assert_eq!(flight.ack_deadline(), None);
    }

    #[test]
    fn the_session_is_exhausted_when_leaks_would_cut_into_the_window() {
        let mut flight = Inflight::new(8, 4, Instant::now());
        for _ in 0..4 {
            flight.leak_slot();
            assert!(!flight.is_exhausted());
        }
        flight.leak_slot();
        assert!(flight.is_exhausted());
    }

    fn inflight() -> Inflight {
        Inflight::new(16, 8, Instant::now())
    }

    fn message(ticket: u64, qos: Qos) -> InflightMessage {
        InflightMessage { ticket: Some(ticket), topic: "t".into(), qos, sent_at: Instant::now() }
    }
}
