//! Which bundle to fetch, and when. Pure.

use std::time::{Duration, Instant};

use provisioning::bundle::BundleOffer;

/// Pause after the first failure with an offer; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_mins(1);
const MAX_PAUSE: Duration = Duration::from_hours(1);
/// Part of a pause by which it is longer at random: many gateways share one web server.
const JITTER: f64 = 0.2;
/// Pause after a failure before another offer is followed: a flood of offers must not become one of
/// downloads.
const COOLDOWN: Duration = Duration::from_secs(10);
/// An offer is given up when this many answers were not the bundle that it promises.
const MAX_MISMATCHES: u32 = 3;

/// What became of a message on the topic of offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OfferVerdict {
    /// It is fetched.
    New,
    /// The bundle was here before, or is under way: nothing to do.
    Old,
    /// It is no offer.
    Malformed,
    /// The office withdrew its offer.
    Withdrawn,
}

/// Why a bundle was not fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PullFault {
    /// The web server was not reached, or does not have the bundle, or the disk does not take it:
    /// that may change.
    Unavailable,
    /// The web server answered with something else than what was offered.
    Mismatch,
}

/// The offer that is followed.
#[derive(Debug, Default)]
pub struct OfferTracker {
    current: Option<TrackedOffer>,
    /// No download begins before; absent before the first failure.
    cooldown_until: Option<Instant>,
}

#[derive(Debug)]
struct TrackedOffer {
    offer: BundleOffer,
    failures: u32,
    mismatches: u32,
    next_try: Instant,
}

impl OfferTracker {
    /// Handles a message on the topic of offers. `last_counter` is the largest counter of all
    /// bundles that were here.
    pub fn on_message(&mut self, payload: &[u8], last_counter: u64, now: Instant) -> OfferVerdict {
        if payload.is_empty() {
            self.current = None;
            return OfferVerdict::Withdrawn;
        }
        let Some(offer) = BundleOffer::parse(payload) else { return OfferVerdict::Malformed };
        if offer.counter <= last_counter {
            self.current = None;
            return OfferVerdict::Old;
        }
        // The broker repeats a retained message at every connect: pauses go on.
        if self.current.as_ref().is_some_and(|current| current.offer == offer) {
            return OfferVerdict::Old;
        }
        let next_try = self.cooldown_until.map_or(now, |until| until.max(now));
        self.current = Some(TrackedOffer { offer, failures: 0, mismatches: 0, next_try });
        OfferVerdict::New
    }

    /// Returns the offer to be fetched now, if there is one.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<BundleOffer> {
        let current = self.current.as_ref()?;
        (current.mismatches < MAX_MISMATCHES && current.next_try <= now).then_some(current.offer)
    }

    /// Records that a bundle was not fetched. `random` is evenly distributed in `[0, 1)`. Returns
    /// the pause before the next attempt; none when the offer is given up until it changes.
    pub fn on_failed(&mut self, fault: PullFault, now: Instant, random: f64) -> Option<Duration> {
        self.cooldown_until = Some(now + COOLDOWN);
        let current = self.current.as_mut()?;
        current.mismatches += u32::from(fault == PullFault::Mismatch);
        if current.mismatches >= MAX_MISMATCHES {
            return None;
        }
        let doubled = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(current.failures));
        let pause = doubled.min(MAX_PAUSE).mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        current.failures = current.failures.saturating_add(1);
        current.next_try = now + pause;
        Some(pause)
    }

    /// Forgets the offer: its bundle is here, or will never be taken.
    pub fn close(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(counter: u64) -> Vec<u8> {
        format!(r#"{{"counter":{counter},"size":2048,"sha256":"{}"}}"#, "0aF1".repeat(16))
            .into_bytes()
    }

    #[test]
    fn older_equal_and_repeated_offers_cost_nothing() {
        let (mut tracker, now) = (OfferTracker::default(), Instant::now());
        for counter in [1, 16, 17] {
            assert_eq!(tracker.on_message(&message(counter), 17, now), OfferVerdict::Old);
            assert_eq!(tracker.due(now), None);
        }
        assert_eq!(tracker.on_message(&message(18), 17, now), OfferVerdict::New);
        assert_eq!(tracker.due(now).unwrap().counter, 18);
        let pause = tracker.on_failed(PullFault::Unavailable, now, 0.5).unwrap();
        assert_eq!(tracker.on_message(&message(18), 17, now), OfferVerdict::Old);
        assert_eq!(tracker.due(now), None, "a repeated offer ends no pause");
        assert!(tracker.due(now + pause).is_some());
        assert_eq!(tracker.on_message(b"", 17, now), OfferVerdict::Withdrawn);
        assert_eq!(tracker.due(now + pause), None);
        assert_eq!(tracker.on_message(b"{}", 17, now), OfferVerdict::Malformed);
    }

    #[test]
    fn an_offer_that_does_not_come_true_is_given_up_until_it_changes() {
        let (mut tracker, mut now) = (OfferTracker::default(), Instant::now());
        tracker.on_message(&message(18), 17, now);
        for _ in 0..2 {
            now += tracker.on_failed(PullFault::Mismatch, now, 0.0).unwrap();
            assert!(tracker.due(now).is_some());
        }
        assert_eq!(tracker.on_failed(PullFault::Mismatch, now, 0.0), None);
        tracker.on_message(&message(18), 17, now);
        assert_eq!(tracker.due(now + MAX_PAUSE * 1000), None);
        tracker.on_message(&message(19), 17, now);
        assert_eq!(tracker.due(now + COOLDOWN).unwrap().counter, 19);
    }

    #[test]
    fn a_flood_of_offers_is_no_flood_of_downloads() {
        let (mut tracker, start) = (OfferTracker::default(), Instant::now());
        let mut downloads = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            tracker.on_message(&message(18 + second), 17, now);
            if tracker.due(now).is_some() {
                downloads += 1;
                tracker.on_failed(PullFault::Mismatch, now, 0.0);
            }
        }
        assert_eq!(downloads, 60);
    }

    proptest! {
        /// However often the web server is away: a pause is 1 to 72 minutes, and never shrinks by
        /// more than its random part.
        #[test]
        fn pauses_grow_from_a_minute_to_an_hour(randoms in prop::collection::vec(0.0..1.0, 1..40)) {
            let (mut tracker, now) = (OfferTracker::default(), Instant::now());
            tracker.on_message(&message(18), 17, now);
            let mut before = Duration::ZERO;
            for random in randoms {
                let pause = tracker.on_failed(PullFault::Unavailable, now, random).unwrap();
                prop_assert!(pause >= MIN_PAUSE && pause <= MAX_PAUSE.mul_f64(1.0 + JITTER));
                prop_assert!(pause.mul_f64(1.0 + JITTER) >= before);
                before = pause;
            }
        }
    }
}
