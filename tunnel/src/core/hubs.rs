//! Which of several hubs to use. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// Unanswered initiations before the next hub gets its turn.
const PATIENCE: u32 = 3;
/// The same when no hub has answered in a whole round: now the longest pause is between any two.
const PATIENCE_OF_A_LOST_ROUND: u32 = 1;
/// The preferred hub is asked again after between one and two of these: a fleet comes back spread
/// over this time.
const PROBE: Duration = Duration::from_secs(5 * 60);
/// A preferred hub that is left again after a short stay is asked at twice the distance each time,
/// this often at most: 80 to 160 minutes.
const MOST_DOUBLINGS: u32 = 4;
/// A stay that proves a hub.
const STAY: Duration = Duration::from_secs(60 * 60);

/// The order of preference is that of the numbers.
#[derive(Debug)]
pub(super) struct Preference {
    count: usize,
    active: usize,
    /// Hubs that have not answered since one did.
    lost: usize,
    probe_at: Option<Instant>,
    doublings: u32,
    /// When the hub in use was taken because it was preferred.
    came_back: Option<Instant>,
}

impl Preference {
    /// Starts with the first.
    pub(super) const fn new(count: usize) -> Self {
        Self { count, active: 0, lost: 0, probe_at: None, doublings: 0, came_back: None }
    }

    pub(super) const fn active(&self) -> usize {
        self.active
    }

    /// Whether a hub was left and none has answered since.
    pub(super) const fn is_worried(&self) -> bool {
        self.lost > 0
    }

    /// Whether no hub has answered in a whole round.
    pub(super) const fn is_lost(&self) -> bool {
        self.lost >= self.count
    }

    /// Unanswered initiations after which to leave a hub that has so many addresses to try; `None`
    /// if there is no other.
    pub(super) fn patience(&self, addresses: u32) -> Option<u32> {
        let patience = if self.is_lost() { PATIENCE_OF_A_LOST_ROUND } else { PATIENCE };
        (self.count > 1).then_some(patience.max(addresses))
    }

    /// The active hub does not answer: moves to the next one.
    pub(super) fn leave(&mut self, now: Instant) {
        if let Some(since) = self.came_back.take() {
            let is_short = now.saturating_duration_since(since) < STAY;
            self.doublings = if is_short { (self.doublings + 1).min(MOST_DOUBLINGS) } else { 0 };
        }
        self.lost = self.lost.saturating_add(1);
        self.active = (self.active + 1) % self.count.max(1);
        self.probe_at = None;
    }

    /// The active hub has answered. `random` is in `[0, 1)`.
    pub(super) fn answered(&mut self, now: Instant, random: f64) {
        self.lost = 0;
        if self.active > 0 && self.probe_at.is_none() {
            self.plan_probe(now, random);
        }
    }

    /// When a preferred hub is asked whether it is there again.
    pub(super) const fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// The preferred hub to ask now, if it is time.
    pub(super) fn probe(&mut self, now: Instant) -> Option<usize> {
        self.probe_at.take_if(|at| now >= *at).map(|_| 0)
    }

    /// A preferred hub did not answer; the next one to ask, if any is preferred to the active one.
    pub(super) fn probe_failed(&mut self, hub: usize, now: Instant, random: f64) -> Option<usize> {
        let next = hub + 1;
        if next < self.active {
            return Some(next);
        }
        self.plan_probe(now, random);
        None
    }

    /// A preferred hub has answered and is used from now on.
    pub(super) fn come_back(&mut self, hub: usize, now: Instant, random: f64) {
        self.active = hub;
        self.came_back = Some(now);
        self.probe_at = None;
        self.answered(now, random);
    }

    fn plan_probe(&mut self, now: Instant, random: f64) {
        let distance = PROBE * 2_u32.saturating_pow(self.doublings);
        self.probe_at = Some(now + distance + distance.mul_f64(random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_hub_is_never_left() {
        assert_eq!(Preference::new(1).patience(1), None);
    }

    #[test]
    fn all_addresses_of_a_hub_are_tried_and_a_lost_round_goes_faster() {
        let now = Instant::now();
        let mut hubs = Preference::new(2);
        assert_eq!((hubs.patience(1), hubs.patience(5)), (Some(3), Some(5)));
        hubs.leave(now);
        hubs.leave(now);
        assert_eq!((hubs.active(), hubs.patience(1), hubs.patience(2)), (0, Some(1), Some(2)));
        hubs.answered(now, 0.0);
        assert_eq!(hubs.patience(1), Some(3));
    }

    #[test]
    fn preferred_hubs_are_asked_in_order_and_then_left_alone_for_a_while() {
        let now = Instant::now();
        let mut hubs = Preference::new(3);
        hubs.leave(now);
        hubs.leave(now);
        hubs.answered(now, 0.5);
        assert_eq!(hubs.probe_at(), Some(now + PROBE + PROBE / 2));
        let later = now + 2 * PROBE;
        assert_eq!(hubs.probe(later), Some(0));
        assert_eq!(hubs.probe_failed(0, later, 0.0), Some(1));
        assert_eq!(hubs.probe_failed(1, later, 0.0), None);
        assert_eq!(hubs.probe_at(), Some(later + PROBE));
    }

    #[test]
    fn a_preferred_hub_that_does_not_stay_is_asked_more_and_more_seldom() {
        let mut now = Instant::now();
        let mut hubs = Preference::new(2);
        let mut distances = Vec::new();
        for _ in 0..6 {
            hubs.leave(now);
            hubs.answered(now, 0.0);
            let at = hubs.probe_at().unwrap();
            distances.push((at - now).as_secs() / 60);
            now = at;
            assert_eq!(hubs.probe(now), Some(0));
            hubs.come_back(0, now, 0.0);
            now += Duration::from_secs(60);
        }
        assert_eq!(distances, [5, 10, 20, 40, 80, 80]);
        now += STAY;
        hubs.leave(now);
        hubs.answered(now, 0.0);
        assert_eq!(hubs.probe_at(), Some(now + PROBE));
    }
}
