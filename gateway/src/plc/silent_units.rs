//! Decides which silent unit of a connection is probed, and when: the others keep their rate, and
//! every silent unit has its turn. Pure: `now` is an argument.

use std::time::{Duration, Instant};

use super::unit_backoff::{FailureCost, UnitBackoff};
use crate::schedule::RateBudget;

/// Connections that probes may cost in a minute while other units answer. The rest of the
/// connection's budget is for those.
const MAX_LOSSES_PER_MINUTE: u32 = 4;
/// A failed probe is followed by a pause of this many times its length: probes take at most a tenth
/// of the time.
const REST_FACTOR: u32 = 9;
/// Longest wait of the unit that was probed least recently, even if the budgets are used up.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Longest wait of a unit that is the only silent one: the longest pause of [`UnitBackoff`].
const SOLE_UNIT_MAX_PAUSE: Duration = Duration::from_secs(30);

/// Probes the silent units in turn.
#[derive(Debug)]
pub(super) struct SilentUnitRoundRobin {
    /// Connections that probes may cost.
    loss_budget: RateBudget,
    /// Last time at which the unit that had waited longest was probed.
    last_turn: Option<Instant>,
    /// End of the pause after a failed probe.
    paused_until: Option<Instant>,
}

/// What a probe may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RetryAllowance {
    /// Anything: no unit answers that would lose values.
    Unlimited,
    /// A connection, within the loss budget: the server may be connected to once more.
    WithinBudget,
    /// A connection for an overdue unit only: other units use up the connects.
    OverdueOnly,
}

impl SilentUnitRoundRobin {
    pub(super) fn new() -> Self {
        let loss_budget = RateBudget::per_minute(MAX_LOSSES_PER_MINUTE as usize);
        Self { loss_budget, last_turn: None, paused_until: None }
    }

    /// Records that a unit cost the connection while others answered.
    pub(super) fn on_connection_lost(&mut self, now: Instant) {
        // The budget limits probes. A unit that has just failed counts, but cannot be refused.
        let _ = self.loss_budget.take(now);
    }

    /// Records a probe of this length without an answer, while others answered.
    pub(super) fn on_failed_probe(&mut self, took: Duration, now: Instant) {
        self.paused_until = Some(now + took * REST_FACTOR);
    }

    /// Returns the index of the unit to probe now, if any is due. While others answer there is none
    /// during the pause after a failed probe, and none whose probe would cost a connection beyond
    /// `allowance`; a unit that has waited for a minute is exempt from the latter.
    ///
    /// A unit that failed for the first time comes first, since a single answer may be lost; then
    /// the unit that has waited longest. At least once a minute it is the latter.
    pub(super) fn next_unit<'a>(
        &mut self,
        units: impl Iterator<Item = &'a UnitBackoff>,
        allowance: RetryAllowance,
        now: Instant,
    ) -> Option<usize> {
        let do_others_answer = allowance != RetryAllowance::Unlimited;
        if do_others_answer && self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let is_overdue = self.last_turn.is_none_or(|turn| turn + MAX_WAIT <= now);
        let has_connect =
            allowance == RetryAllowance::WithinBudget && self.loss_budget.next_free(now).is_none();
        let may_cost = !do_others_answer || is_overdue || has_connect;
        let is_due = |(_, unit): &(usize, &UnitBackoff)| match unit.due_cost(now) {
            Some(FailureCost::WaitOnly) => true,
            Some(FailureCost::Connection) => may_cost,
            None => false,
        };
        let is_first = |unit: &UnitBackoff| unit.is_first_failure() && !is_overdue;
        let due = units.enumerate().filter(is_due);
        let rank = |(_, unit): &(usize, &UnitBackoff)| (!is_first(unit), unit.last_try());
        let (next, unit) = due.min_by_key(rank)?;
        if !is_first(unit) {
            self.last_turn = Some(now);
        }
        Some(next)
    }
}

/// Returns the time within which each of this many silent units is probed, if no other unit fails
/// and recovers meanwhile.
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

    /// Probes the next unit for this time. Returns when each unit was probed.
    fn simulate(
        units: &mut [UnitBackoff],
        round_robin: &mut SilentUnitRoundRobin,
        spare: RetryAllowance,
        (start, length): (Instant, Duration),
        timeout: Duration,
    ) -> Vec<Vec<Instant>> {
        let mut tried = vec![Vec::new(); units.len()];
        let mut now = start;
        while now < start + length {
            if let Some(next) = round_robin.next_unit(units.iter(), spare, now) {
                tried[next].push(now);
                now += timeout;
                units[next].on_failure(FailureCost::Connection, SECOND, now, 0.5);
                round_robin.on_connection_lost(now);
                round_robin.on_failed_probe(timeout, now);
            }
            now += SECOND / 4;
        }
        tried
    }

    proptest! {
        /// For any number of silent units and any time-out, each unit is probed within the reported
        /// round, and all together stay within the budgets.
        #[test]
        fn every_silent_unit_is_probed_within_the_round(
            silent in 1_u32..=30,
            timeout in 50_u64..4_000,
        ) {
            let (start, timeout) = (Instant::now(), Duration::from_millis(timeout));
            let mut units = vec![UnitBackoff::new(); silent as usize];
            for standing in &mut units {
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
            }
            let round = worst_round(silent, timeout);
            let (mut round_robin, length) = (SilentUnitRoundRobin::new(), round * 5);
            let allowance = RetryAllowance::WithinBudget;
            let span = (start, length);
            let tried = simulate(&mut units, &mut round_robin, allowance, span, timeout);
            // The caller looks four times a second.
            let slack = timeout + SECOND / 4 * (silent + 1);
            for times in &tried {
                prop_assert!(times[0] <= start + round + slack);
                for pair in times.windows(2) {
                    let wait = pair[1] - pair[0];
                    prop_assert!(wait <= round + slack, "{wait:?} > {round:?}");
                }
            }
            let mut all: Vec<_> = tried.concat();
            all.sort();
            for window in all.windows(6) {
                // Four a minute, and an overdue one when they cost little time.
                prop_assert!(window[5] - window[0] >= SECOND * 60);
            }
            let share = timeout * u32::try_from(all.len()).unwrap();
            prop_assert!(share <= length / 10 + timeout, "{share:?} of {length:?}");
        }

        /// Neither a unit that keeps failing and recovering, nor a server that leaves no connect to
        /// spare, keeps the silent units from being probed.
        #[test]
        fn one_unit_a_minute_is_probed_even_without_a_budget(silent in 2_u32..=30) {
            let start = Instant::now();
            let mut units = vec![UnitBackoff::new(); silent as usize];
            for standing in &mut units {
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
                standing.on_failure(FailureCost::Connection, SECOND, start, 0.5);
            }
            let (mut round_robin, length) = (SilentUnitRoundRobin::new(), MAX_WAIT * silent * 2);
            let spare = RetryAllowance::OverdueOnly;
            let tried = simulate(&mut units, &mut round_robin, spare, (start, length), SECOND);
            prop_assert!(tried.iter().all(|times| !times.is_empty()), "{tried:?}");
        }
    }

    #[test]
    fn a_unit_that_failed_once_is_probed_first_for_at_most_a_minute() {
        let start = Instant::now();
        let mut units = [UnitBackoff::new(); 2];
        units[0].on_failure(FailureCost::Connection, SECOND, start, 0.5);
        units[0].on_failure(FailureCost::Connection, SECOND, start, 0.5);
        let mut round_robin = SilentUnitRoundRobin::new();
        let mut now = start + SECOND * 31;
        assert_eq!(round_robin.next_unit(units.iter(), RetryAllowance::WithinBudget, now), Some(0));
        // The other one fails again and again, with complete cycles in between.
        let mut flaps = 0;
        loop {
            now += SECOND * 5;
            let mut flapping = UnitBackoff::new();
            flapping.on_failure(FailureCost::Connection, SECOND, now - SECOND * 2, 0.5);
            units[1] = flapping;
            match round_robin.next_unit(units.iter(), RetryAllowance::WithinBudget, now) {
                Some(1) => flaps += 1,
                other => break assert_eq!(other, Some(0)),
            }
        }
        assert_eq!(flaps, 11, "for a minute");
    }

    #[test]
    fn budgets_do_not_apply_while_no_unit_answers() {
        let start = Instant::now();
        let mut units = [UnitBackoff::new(); 8];
        let mut round_robin = SilentUnitRoundRobin::new();
        for standing in &mut units {
            standing.on_failure(FailureCost::WaitOnly, SECOND, start, 0.5);
            round_robin.on_connection_lost(start);
        }
        round_robin.on_failed_probe(SECOND * 10, start);
        let now = start + SECOND * 2;
        assert_eq!(round_robin.next_unit(units.iter(), RetryAllowance::OverdueOnly, now), None);
        assert!(round_robin.next_unit(units.iter(), RetryAllowance::Unlimited, now).is_some());
    }
}
