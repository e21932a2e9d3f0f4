//! A set of numbers, stored as ranges: it takes as little memory as the holes in it are few. Pure.

use std::collections::BTreeMap;

/// The first and the last of consecutive numbers.
pub(crate) type NumberRange = (u64, u64);

/// A set of numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RangeSet {
    /// From the first to the last number of each range. INVARIANT: ranges neither overlap nor
    /// touch.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    pub(crate) fn insert(&mut self, number: u64) {
        self.insert_range((number, number));
    }

    /// Adds a range, joined with those that it overlaps or touches.
    pub(crate) fn insert_range(&mut self, (mut first, mut last): NumberRange) {
        let before = self.ranges.range_mut(..=first).next_back();
        if let Some((start, end)) = before
            && end.saturating_add(1) >= first
        {
            // Ids are mostly added in order: the range grows where it stands.
            if *end >= last {
                return;
            }
            first = *start;
            *end = last;
        }
        let joins = |ranges: &BTreeMap<u64, u64>, last: u64| {
            let behind = first.checked_add(1)?..=last.saturating_add(1);
            ranges.range(behind).next().map(|(start, end)| (*start, *end))
        };
        while let Some((start, end)) = joins(&self.ranges, last) {
            self.ranges.remove(&start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// Removes a number. Returns whether it was in the set.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let was_there = self.contains(number);
        if was_there {
            self.remove_range((number, number));
        }
        was_there
    }

    pub(crate) fn remove_range(&mut self, (first, last): NumberRange) {
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

    /// Removes every number that is in the other set.
    pub(crate) fn remove_all(&mut self, other: &Self) {
        other.iter().for_each(|range| self.remove_range(range));
    }

    /// Returns the lowest number that is not below this one.
    pub(crate) fn first_from(&self, number: u64) -> Option<u64> {
        if self.contains(number) {
            return Some(number);
        }
        self.ranges.range(number..).next().map(|(first, _)| *first)
    }

    /// Returns the highest number.
    pub(crate) fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    /// Returns how many numbers there are, at most `u64::MAX`.
    pub(crate) fn count(&self) -> u64 {
        let len = |(first, last): NumberRange| (last - first).saturating_add(1);
        self.iter().map(len).fold(0, u64::saturating_add)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = NumberRange> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }
}

impl FromIterator<NumberRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = NumberRange>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges
            .into_iter()
            .filter(|(first, last)| first <= last)
            .for_each(|range| all.insert_range(range));
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
        fn behaves_like_a_plain_set(
            steps in prop::collection::vec((0..5_u8, 0..40_u64, 0..6_u64), 0..60),
        ) {
            let (mut set, mut plain) = (RangeSet::default(), BTreeSet::new());
            for (what, number, more) in steps {
                let range = (number, number + more);
                match what {
                    0 => { set.insert(number); plain.insert(number); }
                    1 => { prop_assert_eq!(set.remove(number), plain.remove(&number)); }
                    2 => { set.insert_range(range); plain.extend(range.0..=range.1); }
                    3 => {
                        set.remove_all(&[range, (range.1 + 3, range.1 + 4)].into_iter().collect());
                        plain.retain(|n| !(range.0..=range.1).contains(n));
                        plain.retain(|n| !(range.1 + 3..=range.1 + 4).contains(n));
                    }
                    _ => {
                        set.remove_range(range);
                        plain.retain(|n| !(range.0..=range.1).contains(n));
                    }
                }
                prop_assert!((0..50).all(|n| set.contains(n) == plain.contains(&n)));
                prop_assert_eq!(set.first_from(number), plain.range(number..).next().copied());
                prop_assert_eq!(set.last(), plain.last().copied());
                prop_assert_eq!(set.count(), plain.len() as u64);
                let all: Vec<u64> = set.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert!(all.iter().eq(plain.iter()));
                let ranges: Vec<NumberRange> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                prop_assert_eq!(ranges.into_iter().collect::<RangeSet>(), set.clone());
            }
        }
    }

    #[test]
    fn the_highest_number_is_a_number_like_any_other() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX);
        set.insert(u64::MAX);
        set.insert_range((0, 4));
        assert!(set.contains(u64::MAX) && !set.contains(5));
        assert_eq!((set.count(), set.last()), (6, Some(u64::MAX)));

        let mut missing: RangeSet = [(0, u64::MAX)].into_iter().collect();
        assert_eq!(missing.count(), u64::MAX, "as far as a count goes");
        missing.remove_all(&set);

        assert!(missing.iter().eq([(5, u64::MAX - 1)]));
    }
}
