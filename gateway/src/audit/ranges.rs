//! Sets of sequence numbers, kept as runs: as small as what is missing from them.

use std::collections::BTreeMap;

/// Neighbouring numbers, both ends included.
pub(super) type Run = (u64, u64);

/// A set of numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// From first to last of each run. INVARIANT: runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(super) fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Adds every number of the run, joining what touches.
    pub(super) fn insert(&mut self, (mut first, mut last): Run) {
        let before = self.runs.range(..=first).next_back();
        if let Some((&start, &end)) = before
            && end.saturating_add(1) >= first
        {
            first = start;
            last = last.max(end);
        }
        while let Some((&start, &end)) = self.runs.range(first..=last.saturating_add(1)).next() {
            self.runs.remove(&start);
            last = last.max(end);
        }
        self.runs.insert(first, last);
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, last)| *last)
    }

    /// How many numbers of the run are in the set.
    pub(super) fn count_within(&self, run: Run) -> u64 {
        total(&self.clipped(run).collect::<Vec<_>>())
    }

    /// The numbers of the run that are in neither set, as runs.
    pub(super) fn missing_from_both(run: Run, one: &Self, other: &Self) -> Vec<Run> {
        let mut present = one.clone();
        other.clipped(run).for_each(|part| present.insert(part));
        let mut missing = Vec::new();
        let mut next = Some(run.0);
        for (first, last) in present.clipped(run) {
            if let Some(next) = next.filter(|next| *next < first) {
                missing.push((next, first - 1));
            }
            next = last.checked_add(1);
        }
        missing.extend(next.filter(|next| *next <= run.1).map(|next| (next, run.1)));
        missing
    }

    fn clipped(&self, (first, last): Run) -> impl Iterator<Item = Run> {
        let before = self.runs.range(..first).next_back();
        before
            .into_iter()
            .chain(self.runs.range(first..=last))
            .map(move |(start, end)| (first.max(*start), last.min(*end)))
            .filter(|(start, end)| start <= end)
    }
}

/// How many numbers the runs hold, as far as that can be counted.
pub(super) fn total(runs: &[Run]) -> u64 {
    runs.iter().fold(0, |sum, run| sum.saturating_add(len(*run)))
}

fn len((first, last): Run) -> u64 {
    last.saturating_sub(first).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_the_numbers_of_its_runs(
            one in prop::collection::vec((0..60_u64, 0..6_u64), 0..20),
            other in prop::collection::vec((0..60_u64, 0..6_u64), 0..20),
            run in (0..60_u64, 0..60_u64),
        ) {
            let (one, plain_one) = sets(&one);
            let (other, plain_other) = sets(&other);
            let run = (run.0, run.0 + run.1);

            prop_assert!((0..80).all(|n| one.contains(n) == plain_one.contains(&n)));
            prop_assert_eq!(one.last(), plain_one.last().copied());
            let within = plain_one.range(run.0..=run.1).count();
            prop_assert_eq!(one.count_within(run), u64::try_from(within).unwrap());

            let missing = Ranges::missing_from_both(run, &one, &other);
            let numbers: Vec<u64> = missing.iter().flat_map(|run| run.0..=run.1).collect();
            let plain: Vec<u64> = (run.0..=run.1)
                .filter(|n| !plain_one.contains(n) && !plain_other.contains(n))
                .collect();
            prop_assert_eq!(numbers, plain);
        }
    }

    #[test]
    fn the_highest_number_of_all_is_a_number_like_any_other() {
        let mut ranges = Ranges::default();
        ranges.insert((u64::MAX, u64::MAX));
        ranges.insert((0, 4));

        assert!(ranges.contains(u64::MAX) && !ranges.contains(5));
        assert_eq!(ranges.count_within((0, u64::MAX)), 6);
        let missing = Ranges::missing_from_both((0, u64::MAX), &ranges, &Ranges::default());
        assert_eq!(missing, [(5, u64::MAX - 1)]);
    }

    fn sets(runs: &[(u64, u64)]) -> (Ranges, BTreeSet<u64>) {
        let mut ranges = Ranges::default();
        for (first, more) in runs {
            ranges.insert((*first, first + more));
        }
        (ranges, runs.iter().flat_map(|(first, more)| *first..=first + more).collect())
    }
}
