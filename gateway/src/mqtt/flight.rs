//! The messages between us and the broker: handed to rumqttc, on the wire, not yet acknowledged.
//! Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use provisioning::config::Qos;
use tokio::time::Instant;

/// With something under way, a broker that acknowledges nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is remembered of one message.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) ticket: Option<u64>,
    pub(super) topic: Arc<str>,
    pub(super) qos: Qos,
    pub(super) sent: Instant,
}

/// What writing a message led to.
#[derive(Debug)]
pub(super) enum Written {
    /// QoS 0: that was all.
    Done(Parcel),
    /// The broker has to acknowledge it.
    Waits,
    /// Its packet id still belongs to an older message, so acknowledgements cannot be told apart
    /// any more.
    Collision,
}

/// Books of one session.
///
/// rumqttc numbers messages itself and tells the number when it has written one, in the order in
/// which it was given them. Its numbers wrap at `limit`, so with a window of half of that an
/// acknowledgement may come late by half a window before two messages meet on one number.
#[derive(Debug)]
pub(super) struct Flight {
    unwritten: VecDeque<Parcel>,
    /// By packet id.
    waiting: Vec<Option<Parcel>>,
    waits: usize,
    window: usize,
    limit: usize,
    leaked: usize,
    progress: Instant,
}

impl Flight {
    /// `limit` is the number of packet ids, `window` the most messages under way.
    pub(super) fn new(limit: u16, window: usize, now: Instant) -> Self {
        let limit = usize::from(limit);
        let window = (limit / 2).clamp(1, window.max(1));
        Self {
            unwritten: VecDeque::with_capacity(window),
            waiting: vec![None; limit + 1],
            waits: 0,
            window,
            limit,
            leaked: 0,
            progress: now,
        }
    }

    /// Messages under way.
    pub(super) fn len(&self) -> usize {
        self.unwritten.len() + self.waits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more message may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.window
    }

    /// A message was given to rumqttc.
    pub(super) fn sent(&mut self, parcel: Parcel) {
        if self.is_empty() {
            self.progress = parcel.sent;
        }
        self.unwritten.push_back(parcel);
    }

    /// rumqttc has written the oldest message that it was given.
    pub(super) fn written(&mut self, packet_id: u16, now: Instant) -> Written {
        let Some(parcel) = self.unwritten.pop_front() else { return Written::Waits };
        if parcel.qos == Qos::AtMostOnce {
            self.progress = now;
            return Written::Done(parcel);
        }
        match self.waiting.get_mut(usize::from(packet_id)) {
            Some(slot @ None) => {
                *slot = Some(parcel);
                self.waits += 1;
                Written::Waits
            }
            Some(Some(_)) | None => {
                self.unwritten.push_front(parcel);
                Written::Collision
            }
        }
    }

    /// The broker has answered for good. Nothing for a number that is not under way.
    pub(super) fn settled(&mut self, packet_id: u16, now: Instant) -> Option<Parcel> {
        let parcel = self.waiting.get_mut(usize::from(packet_id))?.take()?;
        self.waits -= 1;
        self.progress = now;
        Some(parcel)
    }

    /// The broker has answered, but not for good (PUBREC).
    pub(super) fn progressed(&mut self, now: Instant) {
        self.progress = now;
    }

    /// rumqttc never gives this message's place in its window back.
    pub(super) fn leak(&mut self) {
        self.leaked += 1;
    }

    /// Whether so many places are lost that rumqttc would stop taking messages before our window
    /// is full.
    pub(super) fn is_worn_out(&self) -> bool {
        self.leaked + self.window > self.limit
    }

    /// When the broker is given up unless it acknowledges something; nothing when nothing is under
    /// way.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_empty()).then(|| self.progress + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_half_of_the_packet_ids_and_never_above_ours() {
        let window = |limit| Flight::new(limit, 64, Instant::now()).window;
        assert_eq!([1, 2, 3, 20, 128, 65_535].map(window), [1, 1, 1, 10, 64, 64]);
    }

    #[test]
    fn numbers_are_matched_in_the_order_of_sending() {
        let mut flight = flight();
        for ticket in 1..=3 {
            flight.sent(parcel(ticket, Qos::AtLeastOnce));
        }
        for packet_id in [7, 3, 5] {
            assert!(matches!(flight.written(packet_id, Instant::now()), Written::Waits));
        }
        let settled = [5, 7, 3].map(|id| flight.settled(id, Instant::now()).unwrap().ticket);
        assert_eq!(settled, [Some(3), Some(1), Some(2)]);
        assert!(flight.is_empty());
    }

    #[test]
    fn qos_0_is_done_when_written() {
        let mut flight = flight();
        flight.sent(parcel(1, Qos::AtMostOnce));
        let Written::Done(parcel) = flight.written(0, Instant::now()) else { panic!("not done") };
        assert_eq!(parcel.ticket, Some(1));
        assert!(flight.is_empty());
    }

    #[test]
    fn a_second_acknowledgement_settles_nothing() {
        let mut flight = flight();
        flight.sent(parcel(1, Qos::AtLeastOnce));
        flight.written(1, Instant::now());
        assert!(flight.settled(1, Instant::now()).is_some());
        assert!(flight.settled(1, Instant::now()).is_none());
        assert!(flight.settled(9999, Instant::now()).is_none());
    }

    #[test]
    fn a_number_that_is_still_under_way_is_a_collision_and_loses_no_message() {
        let mut flight = flight();
        flight.sent(parcel(1, Qos::ExactlyOnce));
        flight.sent(parcel(2, Qos::ExactlyOnce));
        flight.written(1, Instant::now());
        assert!(matches!(flight.written(1, Instant::now()), Written::Collision));
        assert_eq!(flight.len(), 2);
    }

    #[test]
    fn patience_counts_from_the_last_answer_and_only_while_something_is_under_way() {
        let start = Instant::now();
        let mut flight = Flight::new(8, 4, start);
        assert_eq!(flight.deadline(), None);
        let late = start + Duration::from_secs(100);
        flight.sent(Parcel { sent: late, ..parcel(1, Qos::AtLeastOnce) });
        flight.sent(Parcel { sent: late, ..parcel(2, Qos::AtLeastOnce) });
        assert_eq!(flight.deadline(), Some(late + PATIENCE));
        flight.written(1, late);
        flight.written(2, late);
        let answer = late + Duration::from_secs(7);
        flight.settled(1, answer);
        assert_eq!(flight.deadline(), Some(answer + PATIENCE));
        flight.settled(2, answer);
        assert_eq!(flight.deadline(), None);
    }

    #[test]
    fn the_session_is_worn_out_when_leaks_would_cut_into_the_window() {
        let mut flight = Flight::new(8, 4, Instant::now());
        for _ in 0..4 {
            flight.leak();
            assert!(!flight.is_worn_out());
        }
        flight.leak();
        assert!(flight.is_worn_out());
    }

    fn flight() -> Flight {
        Flight::new(16, 8, Instant::now())
    }

    fn parcel(ticket: u64, qos: Qos) -> Parcel {
        Parcel { ticket: Some(ticket), topic: "t".into(), qos, sent: Instant::now() }
    }
}
