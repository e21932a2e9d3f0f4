//! The tags of one request of the plan, and which of them cannot be read together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use provisioning::config::Plc;
use provisioning::plan::ReadRequest;
use provisioning::plc::{Location, Table};

use super::max_len::MaxLength;
use super::{AnswerVerdict, SplitHalf, SplitRequest, TagRange};
use crate::plc::{failed_once, failed_twice};
use crate::schedule::RetryBackoff;

/// After this many broken connections a refused request is not split further: its tags are retried
/// one by one, with long pauses.
const MAX_BREAKS: u8 = 2;
/// Most quarantined tags that are retried in one cycle.
const MAX_RETRIES_PER_CYCLE: u8 = 4;

/// One request of the plan. A position is the index of a slot in order of address; the tags of a
/// group share a slot, so that they are read together or not at all.
#[derive(Debug)]
pub(super) struct PlannedRequest {
    table: Table,
    slots: Vec<TagSlot>,
    /// By position.
    quarantine: BTreeMap<usize, QuarantineEntry>,
    /// Positions that are not joined with the one before, and when to retry that.
    split_points: BTreeMap<usize, RetryBackoff>,
    /// Ranges that were refused and are still to be split.
    unresolved: Vec<UnresolvedRange>,
}

/// The registers or bits of a tag, or of the tags of a group.
#[derive(Clone, Debug)]
pub(super) struct TagSlot {
    /// Indices in `Plc::tags`.
    pub(super) tags: Vec<usize>,
    /// First register or bit.
    pub(super) first: u16,
    /// One past the last register or bit, up to 65536.
    pub(super) end: u32,
}

/// A slot that the PLC refuses in every request.
#[derive(Clone, Copy, Debug)]
struct QuarantineEntry {
    /// Exception code.
    code: u8,
    /// Whether a connection broke over it.
    breaks_connection: bool,
    backoff: RetryBackoff,
}

/// A refused range of which it is not known which slot is to blame.
#[derive(Clone, Debug)]
struct UnresolvedRange {
    tags: Range<usize>,
    /// Exception code.
    code: u8,
    /// Connections that broke while it was split.
    breaks: u8,
}

/// Bounds what one cycle retries.
#[derive(Debug)]
pub(super) struct ProbeBudget {
    now: Instant,
    /// Quarantined slots, at most [`MAX_RETRIES_PER_CYCLE`].
    retries: u8,
    /// Whether a split point is crossed.
    has_join_retry: bool,
    /// Whether a request is longer than the limit.
    has_length_trial: bool,
}

impl ProbeBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { now, retries: 0, has_join_retry: false, has_length_trial: false }
    }

    pub(super) const fn is_used(&self) -> bool {
        self.retries > 0 || self.has_join_retry || self.has_length_trial
    }
}

impl TagSlot {
    fn new(tag: usize, location: Location) -> Self {
        let end = u32::from(location.first) + u32::from(location.count);
        Self { tags: vec![tag], first: location.first, end }
    }

    fn merge(&mut self, other: Self) {
        self.tags.extend(other.tags);
        self.first = self.first.min(other.first);
        self.end = self.end.max(other.end);
    }
}

impl PlannedRequest {
    pub(super) fn new(plc: &Plc, request: &ReadRequest) -> Self {
        let mut slots = Vec::new();
        let mut groups: BTreeMap<&str, TagSlot> = BTreeMap::new();
        for &index in &request.tags {
            let Some(tag) = plc.tags.get(index) else { continue };
            let slot = TagSlot::new(index, tag.location);
            match tag.group.as_deref() {
                None => slots.push(slot),
                Some(name) => match groups.get_mut(name) {
                    Some(group) => group.merge(slot),
                    None => {
                        groups.insert(name, slot);
                    }
                },
            }
        }
        slots.extend(groups.into_values());
        slots.sort_by_key(|slot| (slot.first, slot.end));
        Self {
            table: request.table,
            slots,
            quarantine: BTreeMap::new(),
            split_points: BTreeMap::new(),
            unresolved: Vec::new(),
        }
    }

    pub(super) const fn table(&self) -> Table {
        self.table
    }

    /// Returns the request that reads these slots.
    pub(super) fn request(&self, tags: &Range<usize>) -> ReadRequest {
        super::join_slots(self.table, self.slots.get(tags.clone()).unwrap_or_default())
    }

    /// Returns the registers or bits of the request that reads these slots.
    pub(super) fn count(&self, tags: &Range<usize>) -> u16 {
        // Called for every answer: the list of the request's tags is not built for it.
        super::span_of(self.slots.get(tags.clone()).unwrap_or_default()).1
    }

    /// Returns the ranges to read: without quarantined and unresolved slots, not joined across
    /// split points, none longer than `max` allows; and what is due for a retry within `budget`.
    pub(super) fn ranges(&self, max: &MaxLength, budget: &mut ProbeBudget) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for position in 0..self.slots.len() {
            if let Some(entry) = self.quarantine.get(&position) {
                if entry.backoff.is_due(budget.now) && budget.retries < MAX_RETRIES_PER_CYCLE {
                    budget.retries += 1;
                    ranges.push(position..position + 1);
                }
                continue;
            }
            if self.unresolved.iter().any(|range| range.tags.contains(&position)) {
                continue;
            }
            match ranges.last_mut() {
                Some(open) if self.can_join(open, position, max, budget) => open.end += 1,
                _ => ranges.push(position..position + 1),
            }
        }
        ranges
    }

    fn can_join(
        &self,
        open: &Range<usize>,
        position: usize,
        max: &MaxLength,
        budget: &mut ProbeBudget,
    ) -> bool {
        if open.end != position || self.quarantine.contains_key(&open.start) {
            return false;
        }
        let split = self.split_points.get(&position);
        if split.is_some_and(|split| budget.has_join_retry || !split.is_due(budget.now)) {
            return false;
        }
        let count = self.count(&(open.start..position + 1));
        if max.exceeds_limit(count) {
            // One trial in a cycle: the range that has already outgrown the limit may grow further.
            let is_trial = max.exceeds_limit(self.count(open));
            let trial = max.trial_len(budget.now).filter(|_| is_trial || !budget.has_length_trial);
            if trial.is_none_or(|trial| count > trial) {
                return false;
            }
            budget.has_length_trial = true;
        }
        budget.has_join_retry |= split.is_some();
        true
    }

    /// Records that these slots were answered together. Returns whether that changes the requests.
    pub(super) fn on_answer(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let inside = tags.start + 1..tags.end;
        let mut has_changed = false;
        if inside.start < inside.end && self.split_points.range(inside.clone()).next().is_some() {
            self.split_points.retain(|position, _| !inside.contains(position));
            has_changed = true;
        }
        if tags.len() == 1 && self.quarantine.remove(&tags.start).is_some() {
            // The reason, such as a download, may have brought back others.
            self.retry_quarantined(now);
            has_changed = true;
        }
        has_changed
    }

    /// Records that these slots were refused together. Returns whether that changes the requests,
    /// and what it means for the values.
    pub(super) fn on_refused(
        &mut self,
        tags: Range<usize>,
        code: u8,
        now: Instant,
    ) -> (bool, AnswerVerdict) {
        if tags.len() > 1 {
            self.unresolved.push(UnresolvedRange { tags, code, breaks: 0 });
            return (true, AnswerVerdict::Split);
        }
        let first = QuarantineEntry { code, breaks_connection: false, backoff: failed_once(now) };
        self.quarantine
            .entry(tags.start)
            .and_modify(|entry| {
                (entry.code, entry.breaks_connection) = (code, false);
                entry.backoff.on_failure(now, 0.0);
            })
            .or_insert(first);
        (true, AnswerVerdict::Final)
    }

    /// Records that the connection broke over these slots. Returns whether that changes the
    /// requests.
    pub(super) fn on_broken(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let entry = self.quarantine.get_mut(&tags.start).filter(|_| tags.len() == 1);
        let Some(entry) = entry else { return false };
        entry.breaks_connection = true;
        entry.backoff.on_failure(now, 0.0);
        true
    }

    /// Takes the next unresolved range, and splits it: at a known split point, else in the middle.
    /// `planned` is the index of this request.
    pub(super) fn next_split(&mut self, planned: usize) -> Option<SplitRequest> {
        let UnresolvedRange { tags, code, breaks } = self.unresolved.pop()?;
        let known = self.split_points.range(tags.start + 1..tags.end);
        let middle = usize::midpoint(tags.start, tags.end);
        let at = known.map(|(position, _)| *position).next().unwrap_or(middle);
        let half = |tags: Range<usize>| SplitHalf {
            request: self.request(&tags),
            range: TagRange { planned, tags },
        };
        let halves = [half(tags.start..at), half(at..tags.end)];
        Some(SplitRequest {
            count: self.count(&tags),
            whole: TagRange { planned, tags },
            code,
            breaks,
            halves,
        })
    }

    /// Records that the connection broke while this request was split.
    pub(super) fn on_split_broken(&mut self, split: SplitRequest, now: Instant) {
        let SplitRequest { whole: TagRange { tags, .. }, code, breaks, .. } = split;
        if breaks + 1 < MAX_BREAKS {
            self.unresolved.push(UnresolvedRange { tags, code, breaks: breaks + 1 });
            return;
        }
        let entry = QuarantineEntry { code, breaks_connection: true, backoff: failed_twice(now) };
        self.quarantine.extend(tags.map(|position| (position, entry)));
    }

    /// Keeps a position apart from the one before, until the next retry.
    pub(super) fn add_split_point(&mut self, position: usize, now: Instant) {
        let entry = self.split_points.entry(position);
        entry.and_modify(|retry| retry.on_failure(now, 0.0)).or_insert_with(|| failed_once(now));
    }

    /// Retries quarantined slots in the next cycle, but not those that break connections. Returns
    /// whether there are any.
    pub(super) fn retry_quarantined(&mut self, now: Instant) -> bool {
        let mut has_any = false;
        for entry in self.quarantine.values_mut().filter(|entry| !entry.breaks_connection) {
            entry.backoff.retry_now(now);
            has_any = true;
        }
        has_any
    }

    /// Returns whether a refused range is still to be split.
    pub(super) fn has_unresolved(&self) -> bool {
        !self.unresolved.is_empty()
    }

    /// Returns the earliest time of a retry.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let quarantined = self.quarantine.values().map(|entry| entry.backoff);
        let retries = quarantined.chain(self.split_points.values().copied());
        retries.filter_map(|retry| retry.next_try()).min()
    }

    /// Returns the requests that are still to be split.
    pub(super) fn unresolved_requests(&self) -> impl Iterator<Item = ReadRequest> {
        self.unresolved.iter().map(|range| self.request(&range.tags))
    }

    /// Returns the indices of quarantined tags that failed more than once, and their exception
    /// codes.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = (usize, u8)> {
        let confirmed = self.quarantine.iter().filter(|(_, entry)| entry.backoff.failures() > 1);
        confirmed.flat_map(|(&position, entry)| {
            let tags = self.slots.get(position).map_or(&[][..], |slot| &slot.tags);
            tags.iter().map(|&tag| (tag, entry.code))
        })
    }

    /// Returns the widest gap that crosses no split point that failed more than once.
    pub(super) fn widest_safe_gap(&self) -> Option<u16> {
        let confirmed = self.split_points.iter().filter(|(_, retry)| retry.failures() > 1);
        let gap = |position: usize| {
            let (before, after) = (self.slots.get(..position)?, self.slots.get(position)?);
            let end = before.iter().map(|slot| slot.end).max()?;
            u16::try_from(u32::from(after.first).checked_sub(end)?).ok()
        };
        confirmed.filter_map(|(&position, _)| gap(position)?.checked_sub(1)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use provisioning::plan;

    use super::*;
    use crate::plc::tests::support;

    /// Returns the request that reads these holding registers.
    fn planned(registers: &[u16]) -> PlannedRequest {
        let addresses: Vec<_> = registers.iter().map(|at| format!("holding:{at}")).collect();
        let tags: Vec<_> = addresses.iter().map(|at| (at.as_str(), 1000)).collect();
        let mut plc = support::plc("generic", &tags);
        plc.max_gap = 124;
        let plan = plan::plan(&plc);
        PlannedRequest::new(&plc, &plan.classes[0].requests[0])
    }

    fn ranges(planned: &PlannedRequest, now: Instant) -> (Vec<Range<usize>>, ProbeBudget) {
        let mut budget = ProbeBudget::new(now);
        (planned.ranges(&MaxLength::default(), &mut budget), budget)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_quarantined_slot_is_read_alone_and_only_when_a_retry_is_due() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2]);
        assert_eq!(ranges(&planned, now).0.as_slice(), std::slice::from_ref(&(0..3)));
        assert_eq!(planned.on_refused(1..2, 2, now), (true, AnswerVerdict::Final));
        let (apart, budget) = ranges(&planned, now);
        assert_eq!((apart, budget.is_used()), (vec![0..1, 1..2, 2..3], true));
        assert_eq!(planned.quarantined().count(), 0, "one failure may be noise");
        planned.on_refused(1..2, 3, now);
        let (apart, budget) = ranges(&planned, now);
        assert_eq!((apart, budget.is_used()), (vec![0..1, 2..3], false));
        assert_eq!(planned.quarantined().collect::<Vec<_>>(), [(1, 3)]);
        assert_eq!(planned.next_retry(), Some(now + MINUTE));
        assert!(!planned.on_answer(&(0..1), now), "another slot");
        assert!(planned.on_answer(&(1..2), now));
        assert_eq!(ranges(&planned, now).0.as_slice(), std::slice::from_ref(&(0..3)));
    }

    #[test]
    fn four_quarantined_slots_are_retried_in_a_cycle() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
        for slot in 0..6 {
            planned.on_refused(slot..slot + 1, 2, now);
        }
        assert_eq!(ranges(&planned, now).0, [0..1, 1..2, 2..3, 3..4]);
    }

    #[test]
    fn one_split_point_is_crossed_in_a_cycle_when_its_retry_is_due() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
        planned.add_split_point(2, now);
        planned.add_split_point(4, now);
        assert_eq!(ranges(&planned, now).0, [0..4, 4..6]);
        planned.add_split_point(2, now);
        assert_eq!(ranges(&planned, now).0, [0..2, 2..6], "the other one is due");
        planned.add_split_point(4, now);
        let (apart, budget) = ranges(&planned, now);
        assert_eq!((apart, budget.is_used()), (vec![0..2, 2..4, 4..6], false));
        assert_eq!(ranges(&planned, now + MINUTE).0, [0..4, 4..6]);
        for neighbours in [0..2, 2..4] {
            assert!(!planned.on_answer(&neighbours, now), "{neighbours:?} crosses no split point");
        }
        assert!(planned.on_answer(&(0..4), now));
        assert_eq!(ranges(&planned, now).0, [0..4, 4..6]);
    }

    #[test]
    fn a_gap_is_unsafe_after_a_second_failure() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 10, 30]);
        planned.add_split_point(2, now);
        assert_eq!(planned.widest_safe_gap(), None);
        planned.add_split_point(2, now);
        assert_eq!(planned.widest_safe_gap(), Some(7), "8 registers lie in between");
        planned.add_split_point(3, now);
        planned.add_split_point(3, now);
        assert_eq!(planned.widest_safe_gap(), Some(7), "19 registers lie in the other gap");
        planned.add_split_point(1, now);
        planned.add_split_point(1, now);
        assert_eq!(planned.widest_safe_gap(), Some(7), "no register lies between neighbours");
    }

    #[test]
    fn a_refused_range_is_split_at_a_known_point_or_in_the_middle() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
        let halves =
            |split: &SplitRequest| split.halves.each_ref().map(|half| half.range.tags.clone());
        assert_eq!(planned.on_refused(0..6, 2, now), (true, AnswerVerdict::Split));
        assert!(planned.has_unresolved() && ranges(&planned, now).0.is_empty());
        let split = planned.next_split(7).unwrap();
        assert_eq!((halves(&split), split.count, split.whole.planned), ([0..3, 3..6], 6, 7));
        assert!(!planned.has_unresolved() && planned.next_split(7).is_none());
        planned.add_split_point(5, now);
        planned.add_split_point(6, now);
        planned.on_refused(0..6, 2, now);
        assert_eq!(halves(&planned.next_split(7).unwrap()), [0..5, 5..6]);
        planned.on_refused(0..5, 2, now);
        assert_eq!(halves(&planned.next_split(7).unwrap()), [0..2, 2..5]);
    }

    #[test]
    fn the_second_connection_lost_over_a_split_quarantines_its_slots() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2, 3]);
        planned.on_refused(1..3, 2, now);
        let split = planned.next_split(0).unwrap();
        planned.on_split_broken(split, now);
        assert_eq!(
            planned.unresolved_requests().map(|request| request.tags).collect::<Vec<_>>(),
            [[1, 2]]
        );
        let split = planned.next_split(0).unwrap();
        planned.on_split_broken(split, now);
        assert_eq!(planned.quarantined().collect::<Vec<_>>(), [(1, 2), (2, 2)]);
        assert!(!planned.retry_quarantined(now), "each retry may cost a connection");
        assert_eq!(planned.next_retry(), Some(now + MINUTE));
        // A refusal that leaves the connection open makes them harmless again.
        planned.on_refused(1..2, 2, now);
        assert!(planned.retry_quarantined(now));
        assert_eq!(planned.next_retry(), Some(now));
    }

    #[test]
    fn a_connection_lost_over_a_quarantined_slot_delays_its_retry() {
        let now = Instant::now();
        let mut planned = planned(&[0, 1, 2]);
        assert!(!planned.on_broken(&(1..2), now), "it is not quarantined");
        planned.on_refused(1..2, 2, now);
        assert!(!planned.on_broken(&(1..3), now) && !planned.on_broken(&(0..1), now));
        assert!(planned.on_broken(&(1..2), now));
        assert!(!planned.retry_quarantined(now));
        assert_eq!(planned.next_retry(), Some(now + MINUTE));
    }
}
