//! In which order the silent units of one connection are tried, and how often, so that the others
//! keep their rate and every silent one has its turn. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use super::unit_backoff::{FailureCost, UnitBackoff};
use crate::schedule::RateBudget;

/// Connections that silent units may cost in a minute while others answer. What is left of the
/// budget of the line is for those that answer.
const MAX_LOSSES_PER_MINUTE: u32 = 4;
/// A try without an answer is followed by so many times its length without another one: tries take
/// a tenth of the time.
const REST_FACTOR: u32 = 9;
/// The one that waits longest is tried after this, whatever others have cost meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Until one that is silent alone is tried: the longest pause of [`Standing`].
const SOLE_UNIT_MAX_PAUSE: Duration = Duration::from_secs(30);

/// Tries the silent units in turn.
#[derive(Debug)]
pub(super) struct SilentUnitRoundRobin {
    loss_budget: RateBudget,
    /// When the one that had waited longest was tried last.
    last_turn: Option<Instant>,
    paused_until: Option<Instant>,
}

/// What there is to spare for a try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RetryAllowance {
    /// Nobody answers who would lose anything.
    Unlimited,
    /// The line has a connect left over.
    WithinBudget,
    /// Others use up what connects there are.
    OverdueOnly,
}

impl SilentUnitRoundRobin {
    pub(super) fn new() -> Self {
        let losses = RateBudget::per_minute(MAX_LOSSES_PER_MINUTE as usize);
        Self { loss_budget: losses, last_turn: None, paused_until: None }
    }

    /// A unit has cost the connection while others answered.
    pub(super) fn on_connection_lost(&mut self, now: Instant) {
        // A full budget keeps silent units from being tried, not one that has just failed.
        let _ = self.loss_budget.take(now);
    }

    /// A try took so long and had no answer, while others answered.
    pub(super) fn on_failed_probe(&mut self, took: Duration, now: Instant) {
        self.paused_until = Some(now + took * REST_FACTOR);
    }

    /// Which of all units is to be tried now, if any: who failed for the first time, since one
    /// answer may be lost, then who has waited longest. At least once a minute it is the latter.
    pub(super) fn next_unit<'a>(
        &mut self,
        standings: impl Iterator<Item = &'a UnitBackoff>,
        spare: RetryAllowance,
        now: Instant,
    ) -> Option<usize> {
        let answers = spare != RetryAllowance::Unlimited;
        if answers && self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let is_overdue = self.last_turn.is_none_or(|turned| turned + MAX_WAIT <= now);
        let has_connect =
            spare == RetryAllowance::WithinBudget && self.loss_budget.next_free(now).is_none();
        let may_cost = !answers || is_overdue || has_connect;
        let is_due = |(_, standing): &(usize, &UnitBackoff)| match standing.due_cost(now) {
            Some(FailureCost::WaitOnly) => true,
            Some(FailureCost::Connection) => may_cost,
            None => false,
        };
        let is_fresh = |standing: &UnitBackoff| standing.is_first_failure() && !is_overdue;
        let due = standings.enumerate().filter(is_due);
        let rank =
            |(_, standing): &(usize, &UnitBackoff)| (!is_fresh(standing), standing.last_try());
        let (next, standing) = due.min_by_key(rank)?;
        if !is_fresh(standing) {
            self.last_turn = Some(now);
        }
        Some(next)
    }
}

/// Until each of so many silent units has been tried, if no other one comes and goes.
pub(super) fn worst_round(silent: u32, timeout: Duration) -> Duration {
    let by_connects = (MAX_WAIT + timeout) * silent.div_ceil(MAX_LOSSES_PER_MINUTE);
    let by_time = timeout * (1 + REST_FACTOR) * silent;
    if silent <= 1 { SOLE_UNIT_MAX_PAUSE.max(by_time) } else { by_connects.max(by_time) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Tries whoever is next for so long; gives when each was tried, and the losses.
    fn simulate(
        standings: &mut [UnitBackoff],
        rota: &mut SilentUnitRoundRobin,
        spare: RetryAllowance,
        (start, length): (Instant, Duration),
        timeout: Duration,
    ) -> Vec<Vec<Instant>> {
        let mut tried = vec![Vec::new(); standings.len()];
        let mut now = start;
        while now < start + length {
            if let Some(next) = rota.next_unit(standings.iter(), spare, now) {
                tried[next].push(now);
                now += timeout;
                standings[next].on_failure(FailureCost::Connection, SECOND, now, 0.5);
                rota.on_connection_lost(now);
                rota.on_failed_probe(timeout, now);
            }
            now += SECOND / 4;
        }
        tried
    }

    proptest! {
        /// However many are silent and however long their time-outs: each is tried again within
        /// the round that is told, in turn, and together they cost no more than they may.
        #[test]
        fn every_silent_unit_has_its_turn_within_the_round(
            silent in 1_u32..=30,
            timeout in 50_u64..4_000,
        ) {
            let (start, timeout) = (Instant::now(), Duration::from_millis(timeout));
            let mut standings = vec![UnitBackoff::new(); silent as usize];
            for standing in &mut standings {
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
            }
            let round = worst_round(silent, timeout);
            let (mut rota, length) = (SilentUnitRoundRobin::new(), round * 5);
            let tried = simulate(&mut standings, &mut rota, RetryAllowance::WithinBudget, (start, length), timeout);
            // The caller looks four times a second.
            let slack = timeout + SECOND / 4 * (silent + 1);
            for times in &tried {
                prop_assert!(times[0] <= start + round + slack);
                for pair in times.windows(2) {
                    prop_assert!(pair[1] - pair[0] <= round + slack, "{:?} > {round:?}", pair[1] - pair[0]);
                }
            }
            let mut all: Vec<_> = tried.concat();
            all.sort();
            for window in all.windows(6) {
                // Four a minute, and one that is overdue when they cost little time.
                prop_assert!(window[5] - window[0] >= SECOND * 60);
            }
            let share = timeout * u32::try_from(all.len()).unwrap();
            prop_assert!(share <= length / 10 + timeout, "{share:?} of {length:?}");
        }

        /// A unit that comes and goes all the time, or a server that leaves no connect to spare,
        /// does not keep the silent ones from their turn.
        #[test]
        fn one_a_minute_is_tried_whatever_others_cost(silent in 2_u32..=30) {
            let start = Instant::now();
            let mut standings = vec![UnitBackoff::new(); silent as usize];
            for standing in &mut standings {
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
            }
            let (mut rota, length) = (SilentUnitRoundRobin::new(), MAX_WAIT * silent * 2);
            let spare = RetryAllowance::OverdueOnly;
            let tried = simulate(&mut standings, &mut rota, spare, (start, length), SECOND);
            prop_assert!(tried.iter().all(|times| !times.is_empty()), "{tried:?}");
        }
    }

    #[test]
    fn who_failed_once_goes_first_but_not_for_ever() {
        let start = Instant::now();
        let mut standings = [UnitBackoff::new(); 2];
        standings[0].on_failure(FailureCost::Connection, SECOND, start, 0.5);
        standings[0].on_failure(FailureCost::Connection, SECOND, start, 0.5);
        let mut rota = SilentUnitRoundRobin::new();
        let mut now = start + SECOND * 31;
        assert_eq!(rota.next_unit(standings.iter(), RetryAllowance::WithinBudget, now), Some(0));
        // The other one fails again and again, with whole cycles in between.
        let mut flaps = 0;
        loop {
            now += SECOND * 5;
            let mut flapping = UnitBackoff::new();
            flapping.on_failure(FailureCost::Connection, SECOND, now - SECOND * 2, 0.5);
            standings[1] = flapping;
            match rota.next_unit(standings.iter(), RetryAllowance::WithinBudget, now) {
                Some(1) => flaps += 1,
                other => break assert_eq!(other, Some(0)),
            }
        }
        assert_eq!(flaps, 11, "for a minute");
    }

    #[test]
    fn where_nobody_answers_nothing_is_spared() {
        let start = Instant::now();
        let mut standings = [UnitBackoff::new(); 8];
        let mut rota = SilentUnitRoundRobin::new();
        for standing in &mut standings {
            standing.on_failure(FailureCost::WaitOnly, SECOND, start, 0.5);
            rota.on_connection_lost(start);
        }
        rota.on_failed_probe(SECOND * 10, start);
        let now = start + SECOND * 2;
        assert_eq!(rota.next_unit(standings.iter(), RetryAllowance::OverdueOnly, now), None);
        assert!(rota.next_unit(standings.iter(), RetryAllowance::Unlimited, now).is_some());
    }
}
