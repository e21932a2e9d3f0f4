//! Which bundle to fetch, and when. Pure.

use std::time::{Duration, Instant};

use provisioning::bundle::MAX_BUNDLE_BYTES;
use serde::Deserialize;

/// Pause after the first failure with an offer; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_mins(1);
const MAX_PAUSE: Duration = Duration::from_hours(1);
/// Part of a pause by which it is longer at random: many gateways share one web server.
const JITTER: f64 = 0.2;
/// Pause after a failure before another offer is followed: a flood of offers must not become one of
/// downloads.
const REST: Duration = Duration::from_secs(10);
/// An offer is given up when this many answers were not the bundle that it promises.
const MAX_WRONG: u32 = 3;

/// What the office publishes on `edge/{gateway}/offer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    /// Counter of the bundle.
    pub counter: u64,
    /// Its length in bytes.
    pub size: usize,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

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
    Wrong,
}

/// The offer that is followed.
#[derive(Debug, Default)]
pub struct OfferDesk {
    current: Option<FollowedOffer>,
    /// No download begins before; absent before the first failure.
    rest_until: Option<Instant>,
}

#[derive(Debug)]
struct FollowedOffer {
    offer: Offer,
    failures: u32,
    wrong: u32,
    next_try: Instant,
}

impl Offer {
    /// Reads a message: `{"counter":17,"size":2048,"sha256":".."}`. Further members are ignored.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct OfferMessage {
            counter: u64,
            size: usize,
            sha256: String,
        }
        let OfferMessage { counter, size, sha256 } = serde_json::from_slice(payload).ok()?;
        let is_possible = counter > 0 && (1..=MAX_BUNDLE_BYTES).contains(&size);
        let sha256 = digest_of_hex(&sha256)?;
        is_possible.then_some(Self { counter, size, sha256 })
    }
}

/// Returns the 32 bytes that 64 hexadecimal digits mean.
fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect();
    bytes?.try_into().ok()
}

impl OfferDesk {
    /// Handles a message on the topic of offers. `last_counter` is the largest counter of all
    /// bundles that were here.
    pub fn on_message(&mut self, payload: &[u8], last_counter: u64, now: Instant) -> OfferVerdict {
        if payload.is_empty() {
            self.current = None;
            return OfferVerdict::Withdrawn;
        }
        let Some(offer) = Offer::parse(payload) else { return OfferVerdict::Malformed };
        if offer.counter <= last_counter {
            self.current = None;
            return OfferVerdict::Old;
        }
        // The broker repeats a retained message at every connect: pauses go on.
        if self.current.as_ref().is_some_and(|current| current.offer == offer) {
            return OfferVerdict::Old;
        }
        let next_try = self.rest_until.map_or(now, |until| until.max(now));
        self.current = Some(FollowedOffer { offer, failures: 0, wrong: 0, next_try });
        OfferVerdict::New
    }

    /// Returns the offer to be fetched now, if there is one.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Offer> {
        let current = self.current.as_ref()?;
        (current.wrong < MAX_WRONG && current.next_try <= now).then_some(current.offer)
    }

    /// Records that a bundle was not fetched. `random` is evenly distributed in `[0, 1)`. Returns
    /// the pause before the next attempt; none when the offer is given up until it changes.
    pub fn on_failed(&mut self, fault: PullFault, now: Instant, random: f64) -> Option<Duration> {
        self.rest_until = Some(now + REST);
        let current = self.current.as_mut()?;
        current.wrong += u32::from(fault == PullFault::Wrong);
        if current.wrong >= MAX_WRONG {
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
    fn an_offer_has_one_form() {
        let offer = Offer::parse(&message(17)).unwrap();
        assert_eq!((offer.counter, offer.size), (17, 2048));
        assert_eq!(offer.sha256[..3], [0x0A, 0xF1, 0x0A]);
        let text = String::from_utf8(message(17)).unwrap();
        for (from, to) in [
            ("17", "0"),
            ("17", "-1"),
            ("2048", "0"),
            ("2048", "1048577"),
            ("0aF1", "0aG1"),
            ("0aF1", ""),
            ("0aF1", "é"),
            ("counter", "count"),
            ("{", ""),
        ] {
            assert_eq!(Offer::parse(text.replace(from, to).as_bytes()), None, "{from} {to}");
        }
        assert!(Offer::parse(text.replace('{', r#"{"url":"http://x","#).as_bytes()).is_some());
    }

    #[test]
    fn older_equal_and_repeated_offers_cost_nothing() {
        let (mut desk, now) = (OfferDesk::default(), Instant::now());
        for counter in [1, 16, 17] {
            assert_eq!(desk.on_message(&message(counter), 17, now), OfferVerdict::Old);
            assert_eq!(desk.due(now), None);
        }
        assert_eq!(desk.on_message(&message(18), 17, now), OfferVerdict::New);
        assert_eq!(desk.due(now).unwrap().counter, 18);
        let pause = desk.on_failed(PullFault::Unavailable, now, 0.5).unwrap();
        assert_eq!(desk.on_message(&message(18), 17, now), OfferVerdict::Old);
        assert_eq!(desk.due(now), None, "a repeated offer ends no pause");
        assert!(desk.due(now + pause).is_some());
        assert_eq!(desk.on_message(b"", 17, now), OfferVerdict::Withdrawn);
        assert_eq!(desk.due(now + pause), None);
        assert_eq!(desk.on_message(b"{}", 17, now), OfferVerdict::Malformed);
    }

    #[test]
    fn an_offer_that_does_not_come_true_is_given_up_until_it_changes() {
        let (mut desk, mut now) = (OfferDesk::default(), Instant::now());
        desk.on_message(&message(18), 17, now);
        for _ in 0..2 {
            now += desk.on_failed(PullFault::Wrong, now, 0.0).unwrap();
            assert!(desk.due(now).is_some());
        }
        assert_eq!(desk.on_failed(PullFault::Wrong, now, 0.0), None);
        desk.on_message(&message(18), 17, now);
        assert_eq!(desk.due(now + MAX_PAUSE * 1000), None);
        desk.on_message(&message(19), 17, now);
        assert_eq!(desk.due(now + REST).unwrap().counter, 19);
    }

    #[test]
    fn a_flood_of_offers_is_no_flood_of_downloads() {
        let (mut desk, start) = (OfferDesk::default(), Instant::now());
        let mut downloads = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            desk.on_message(&message(18 + second), 17, now);
            if desk.due(now).is_some() {
                downloads += 1;
                desk.on_failed(PullFault::Wrong, now, 0.0);
            }
        }
        assert_eq!(downloads, 60);
    }

    proptest! {
        /// However often the web server is away: a pause is 1 to 72 minutes, and never shrinks by
        /// more than its random part.
        #[test]
        fn pauses_grow_from_a_minute_to_an_hour(randoms in prop::collection::vec(0.0..1.0, 1..40)) {
            let (mut desk, now) = (OfferDesk::default(), Instant::now());
            desk.on_message(&message(18), 17, now);
            let mut before = Duration::ZERO;
            for random in randoms {
                let pause = desk.on_failed(PullFault::Unavailable, now, random).unwrap();
                prop_assert!(pause >= MIN_PAUSE && pause <= MAX_PAUSE.mul_f64(1.0 + JITTER));
                prop_assert!(pause.mul_f64(1.0 + JITTER) >= before);
                before = pause;
            }
        }

        #[test]
        fn any_message_is_read_without_a_panic(payload: Vec<u8>) {
            let _ = Offer::parse(&payload);
        }
    }
}
