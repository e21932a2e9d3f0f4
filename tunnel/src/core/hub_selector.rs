//! Which of several hubs to use. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// Unanswered initiations after which the next hub is tried.
const MAX_UNANSWERED: u32 = 3;
/// The same while all hubs are down: the pauses are at their longest by then.
const MAX_UNANSWERED_ALL_DOWN: u32 = 1;
/// Time after which a preferred hub is probed, plus up to as much again at random, so that a fleet
/// returns spread over this time.
const PROBE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How often the interval is doubled for a preferred hub that fails again soon: it is then 80 to
/// 160 minutes.
const MAX_DOUBLINGS: u32 = 4;
/// Time in use after which a preferred hub counts as stable.
const STABLE_AFTER: Duration = Duration::from_secs(60 * 60);

/// Selects the hub. Lower numbers are preferred.
#[derive(Debug)]
pub(super) struct HubSelector {
    count: usize,
    active: usize,
    /// Hubs without an answer since the last one that answered.
    unanswered_hubs: usize,
    next_probe_at: Option<Instant>,
    doublings: u32,
    /// When the active hub was chosen because it is preferred.
    returned_at: Option<Instant>,
}

impl HubSelector {
    /// Starts with the first hub.
    pub(super) const fn new(count: usize) -> Self {
        Self {
            count,
            active: 0,
            unanswered_hubs: 0,
            next_probe_at: None,
            doublings: 0,
            returned_at: None,
        }
    }

    pub(super) const fn active(&self) -> usize {
        self.active
    }

    /// Returns whether a hub was left and none has answered since.
    pub(super) const fn is_searching(&self) -> bool {
        self.unanswered_hubs > 0
    }

    /// Returns whether no hub has answered in a whole round.
    pub(super) const fn are_all_down(&self) -> bool {
        self.unanswered_hubs >= self.count
    }

    /// Returns the number of unanswered initiations after which to leave a hub with this many
    /// addresses; `None` if there is only one hub.
    pub(super) fn max_unanswered(&self, addresses: u32) -> Option<u32> {
        let limit = if self.are_all_down() { MAX_UNANSWERED_ALL_DOWN } else { MAX_UNANSWERED };
        (self.count > 1).then_some(limit.max(addresses))
    }

    /// Leaves the active hub for the next one.
    pub(super) fn switch_to_next(&mut self, now: Instant) {
        if let Some(since) = self.returned_at.take() {
            // A hub that flaps would otherwise cost a change every few minutes.
            let is_short = now.saturating_duration_since(since) < STABLE_AFTER;
            self.doublings = if is_short { (self.doublings + 1).min(MAX_DOUBLINGS) } else { 0 };
        }
        self.unanswered_hubs = self.unanswered_hubs.saturating_add(1);
        self.active = (self.active + 1) % self.count.max(1);
        self.next_probe_at = None;
    }

    /// Records an answer of the active hub. `random` is in `[0, 1)`.
    pub(super) fn on_answered(&mut self, now: Instant, random: f64) {
        self.unanswered_hubs = 0;
        if self.active > 0 && self.next_probe_at.is_none() {
            self.schedule_probe(now, random);
        }
    }

    /// Returns when a preferred hub is probed.
    pub(super) const fn next_probe_at(&self) -> Option<Instant> {
        self.next_probe_at
    }

    /// Returns the preferred hub to probe, once it is due.
    pub(super) fn take_due_probe(&mut self, now: Instant) -> Option<usize> {
        self.next_probe_at.take_if(|at| now >= *at).map(|_| 0)
    }

    /// Records that a preferred hub did not answer a probe. Returns the next one to probe, if it is
    /// preferred to the active hub.
    pub(super) fn on_probe_unanswered(
        &mut self,
        hub: usize,
        now: Instant,
        random: f64,
    ) -> Option<usize> {
        let next = hub + 1;
        if next < self.active {
            return Some(next);
        }
        self.schedule_probe(now, random);
        None
    }

    /// Makes a preferred hub that has answered its probe the active one.
    pub(super) fn on_probe_answered(&mut self, hub: usize, now: Instant, random: f64) {
        self.active = hub;
        self.returned_at = Some(now);
        self.next_probe_at = None;
        self.on_answered(now, random);
    }

    fn schedule_probe(&mut self, now: Instant, random: f64) {
        let interval = PROBE_INTERVAL * 2_u32.saturating_pow(self.doublings);
        self.next_probe_at = Some(now + interval + interval.mul_f64(random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_hub_is_never_left() {
        assert_eq!(HubSelector::new(1).max_unanswered(1), None);
    }

    #[test]
    fn all_addresses_of_a_hub_are_tried_and_hubs_change_faster_while_all_are_down() {
        let now = Instant::now();
        let mut hubs = HubSelector::new(2);
        assert_eq!((hubs.max_unanswered(1), hubs.max_unanswered(5)), (Some(3), Some(5)));
        hubs.switch_to_next(now);
        hubs.switch_to_next(now);
        assert_eq!(
            (hubs.active(), hubs.max_unanswered(1), hubs.max_unanswered(2)),
            (0, Some(1), Some(2))
        );
        hubs.on_answered(now, 0.0);
        assert_eq!(hubs.max_unanswered(1), Some(3));
    }

    #[test]
    fn preferred_hubs_are_probed_in_order_and_again_after_a_pause() {
        let now = Instant::now();
        let mut hubs = HubSelector::new(3);
        hubs.switch_to_next(now);
        hubs.switch_to_next(now);
        hubs.on_answered(now, 0.5);
        assert_eq!(hubs.next_probe_at(), Some(now + PROBE_INTERVAL + PROBE_INTERVAL / 2));
        let later = now + 2 * PROBE_INTERVAL;
        assert_eq!(hubs.take_due_probe(later), Some(0));
        assert_eq!(hubs.on_probe_unanswered(0, later, 0.0), Some(1));
        assert_eq!(hubs.on_probe_unanswered(1, later, 0.0), None);
        assert_eq!(hubs.next_probe_at(), Some(later + PROBE_INTERVAL));
    }

    #[test]
    fn a_preferred_hub_that_fails_again_soon_is_probed_less_and_less_often() {
        let mut now = Instant::now();
        let mut hubs = HubSelector::new(2);
        let mut intervals = Vec::new();
        for _ in 0..6 {
            hubs.switch_to_next(now);
            hubs.on_answered(now, 0.0);
            let at = hubs.next_probe_at().unwrap();
            intervals.push((at - now).as_secs() / 60);
            now = at;
            assert_eq!(hubs.take_due_probe(now), Some(0));
            hubs.on_probe_answered(0, now, 0.0);
            now += Duration::from_secs(60);
        }
        assert_eq!(intervals, [5, 10, 20, 40, 80, 80]);
        now += STABLE_AFTER;
        hubs.switch_to_next(now);
        hubs.on_answered(now, 0.0);
        assert_eq!(hubs.next_probe_at(), Some(now + PROBE_INTERVAL));
    }
}
