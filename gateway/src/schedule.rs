//! When to read what, and when to try again. Pure: `now` and randomness are arguments.

mod retry;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use retry::{Backoff, Budget};

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step<G> {
    /// Read this group now. `missed` cycles went by unread since its last turn.
    Read {
        /// What to read.
        group: G,
        /// Cycles that were due and are skipped.
        missed: u32,
    },
    /// Nothing is due before this instant, or ever when there are no groups.
    Wait(Option<Instant>),
}

/// What is read at a fixed rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group<G> {
    /// What the driver gets back when it is due.
    pub group: G,
    /// Time between two reads, above zero.
    pub period: Duration,
    /// Where in its period it is read from the second time on, less than the period: keeps groups
    /// of equal period apart.
    pub phase: Duration,
}

/// Fixed-rate schedule over the groups of one PLC.
///
/// Every group is read at the start and then at `start + phase + n * period`, whatever the reads
/// take: no drift. The caller reads one group at a time, so nothing overlaps. Cycles that pass
/// meanwhile are counted and skipped, never queued: a slow PLC is read less often, not more.
#[derive(Debug)]
pub struct Schedule<G> {
    turns: Vec<Turn<G>>,
}

#[derive(Debug)]
struct Turn<G> {
    group: G,
    period: Duration,
    due: Instant,
    /// The first due time after `due`.
    following: Instant,
}

impl<G: Copy> Schedule<G> {
    /// Makes every group due at `start`.
    pub fn new(groups: impl IntoIterator<Item = Group<G>>, start: Instant) -> Self {
        let turn = |Group { group, period, phase }: Group<G>| {
            let offset = if phase.is_zero() { period } else { phase };
            Turn { group, period, due: start, following: start + offset }
        };
        Self { turns: groups.into_iter().map(turn).collect() }
    }

    /// The group that has been due longest, which [`Schedule::next`] would pick now.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<G> {
        let turn = self.turns.iter().min_by_key(|turn| turn.due)?;
        (turn.due <= now).then_some(turn.group)
    }

    /// Picks the group that has been due longest, or tells how long to wait.
    pub fn next(&mut self, now: Instant) -> Step<G> {
        let Some(turn) = self.turns.iter_mut().min_by_key(|turn| turn.due) else {
            return Step::Wait(None);
        };
        if turn.due > now {
            return Step::Wait(Some(turn.due));
        }
        let missed = turn.advance(now);
        Step::Read { group: turn.group, missed }
    }
}

impl<G> Turn<G> {
    /// Moves to the first due time after `now`; returns how many were passed over.
    fn advance(&mut self, now: Instant) -> u32 {
        let period = self.period.as_nanos().max(1);
        let (due, missed) = match now.checked_duration_since(self.following) {
            None => (self.following, 0),
            Some(late) => {
                let into_cycle = u64::try_from(late.as_nanos() % period).unwrap_or(u64::MAX);
                let due = now - Duration::from_nanos(into_cycle) + self.period;
                (due, late.as_nanos() / period + 1)
            }
        };
        self.due = due;
        self.following = due + self.period;
        u32::try_from(missed).unwrap_or(u32::MAX)
    }
}
