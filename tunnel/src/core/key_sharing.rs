//! Detects that another device uses this gateway's key. Pure.
//!
//! The hub has one session for a key, and sends to whichever device it heard last. So a device gets
//! datagrams of the other one's session, again and again, and its own data is not answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Datagrams of a foreign session from the hub that make a second device, each in another second.
const MIN_SIGHTINGS: usize = 5;
const SIGHTING_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a sighting is forgotten.
const SIGHTING_LIFETIME: Duration = Duration::from_secs(60);

/// The last datagrams of a foreign session.
#[derive(Debug, Default)]
pub(super) struct KeySharing {
    sightings: VecDeque<Instant>,
}

impl KeySharing {
    /// Records a datagram of a foreign session that came from the hub's address.
    pub(super) fn on_foreign_session(&mut self, now: Instant) {
        if self.sightings.back().is_some_and(|last| now < *last + SIGHTING_INTERVAL) {
            return;
        }
        if self.sightings.len() >= MIN_SIGHTINGS {
            self.sightings.pop_front();
        }
        self.sightings.push_back(now);
    }

    /// Returns whether another device uses the key.
    pub(super) fn is_detected(&self, now: Instant) -> bool {
        self.sightings.len() >= MIN_SIGHTINGS
            && self.sightings.front().is_some_and(|first| now < *first + SIGHTING_LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_seconds_with_foreign_datagrams_within_a_minute_are_a_second_device() {
        let (mut sharing, start) = (KeySharing::default(), Instant::now());
        for datagram in 0..1000 {
            sharing.on_foreign_session(start + datagram * SIGHTING_INTERVAL / 1000);
        }
        assert!(!sharing.is_detected(start), "a burst, as after a restart");
        for second in 1..5 {
            sharing.on_foreign_session(start + second * SIGHTING_INTERVAL);
        }
        assert!(sharing.is_detected(start + 5 * SIGHTING_INTERVAL));
        assert!(!sharing.is_detected(start + SIGHTING_LIFETIME));
    }
}
