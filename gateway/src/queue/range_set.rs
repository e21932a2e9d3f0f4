//! A set of numbers, kept as runs of neighbours: as small as the holes in it are few. Pure.

use std::collections::BTreeMap;

/// First and last of neighbouring numbers.
pub(super) type NumberRange = (u64, u64);

/// A set of numbers below `u64::MAX`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct RangeSet {
    /// From first to last of each run. INVARIANT: runs neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(super) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    pub(super) fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let mut run = (number, number);
        let before = self.ranges.range(..number).next_back().map(|(first, last)| (*first, *last));
        if let Some((first, last)) = before
            && last.checked_add(1) == Some(number)
        {
            run.0 = first;
        }
        if let Some(last) = number.checked_add(1).and_then(|next| self.ranges.remove(&next)) {
            run.1 = last;
        }
        self.ranges.insert(run.0, run.1);
    }

    pub(super) fn insert_range(&mut self, (first, last): NumberRange) {
        self.remove_range((first, last));
        self.insert(first);
        if let Some(entry) = self.ranges.range_mut(..=first).next_back() {
            *entry.1 = last.max(*entry.1);
        }
        if let Some(next) = last.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
            && let Some(entry) = self.ranges.range_mut(..=first).next_back()
        {
            *entry.1 = end;
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let was_there = self.contains(number);
        if was_there {
            self.remove_range((number, number));
        }
        was_there
    }

    pub(super) fn remove_range(&mut self, (first, last): NumberRange) {
        while let Some((start, end)) =
            self.ranges.range(..=last).next_back().map(|(start, end)| (*start, *end))
        {
            if end < first {
                return;
            }
            self.ranges.remove(&start);
            if start < first {
                self.ranges.insert(start, first - 1);
            }
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
    }

    /// The lowest number that is not below this one.
    pub(super) fn first_from(&self, number: u64) -> Option<u64> {
        if self.contains(number) {
            return Some(number);
        }
        self.ranges.range(number..).next().map(|(first, _)| *first)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = NumberRange> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }
}

impl FromIterator<NumberRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = NumberRange>>(runs: I) -> Self {
        let mut all = Self::default();
        runs.into_iter()
            .filter(|(first, last)| first <= last)
            .for_each(|run| all.insert_range(run));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_plain_set(steps in prop::collection::vec((0..4_u8, 0..40_u64, 0..6_u64), 0..60)) {
            let (mut runs, mut plain) = (RangeSet::default(), BTreeSet::new());
            for (what, number, more) in steps {
                let run = (number, number + more);
                match what {
                    0 => { runs.insert(number); plain.insert(number); }
                    1 => { prop_assert_eq!(runs.remove(number), plain.remove(&number)); }
                    2 => { runs.insert_range(run); plain.extend(run.0..=run.1); }
                    _ => { runs.remove_range(run); plain.retain(|n| !(run.0..=run.1).contains(n)); }
                }
                prop_assert!((0..50).all(|n| runs.contains(n) == plain.contains(&n)));
                prop_assert_eq!(runs.first_from(number), plain.range(number..).next().copied());
                let all: Vec<u64> = runs.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert!(all.iter().eq(plain.iter()));
                let listed: Vec<NumberRange> = runs.iter().collect();
                prop_assert!(listed.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(listed.into_iter().collect::<RangeSet>(), runs.clone());
            }
        }
    }
}
