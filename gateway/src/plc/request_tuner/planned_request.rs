//! The tags of one request of the plan, and which of them cannot be read together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use provisioning::config::Plc;
use provisioning::plan::ReadRequest;
use provisioning::plc::{Location, Table};

use super::max_len::MaxLength;
use super::suspect::{PartLoss, SuspectRequest};
use super::{AnswerVerdict, SplitHalf, SplitRequest, TagRange};
use crate::plc::{LostSession, ReadFailure, Rejection, failed_once, failed_twice};
use crate::schedule::{RetryBackoff, RetryPolicy};

/// Most quarantined tags that are retried in one cycle.
const MAX_RETRIES_PER_CYCLE: u8 = 4;
/// Sessions that end over a range that had been answered before it is suspected: one may be noise.
const MAX_LOSSES: u8 = 5;
/// Refusals in a row with an exception that may be temporary before the range itself is taken for
/// the reason.
const MAX_SOFT_REFUSALS: u32 = 3;
/// Pauses before a tag is retried over which sessions end. Each retry costs a connection.
const LOST_RETRY: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(15),
    second: Duration::from_secs(60),
    max: Duration::from_secs(3600),
    jitter: 0.0,
};

/// One request of the plan. A position is the index of a slot in order of address; the tags of a
/// group share a slot, so that they are read together or not at all.
#[derive(Debug)]
pub(super) struct PlannedRequest {
    table: Table,
    /// Indices in `Plc::tags`, slot by slot. Most slots have one: a list of each would take the
    /// memory of five.
    tags: Vec<u16>,
    slots: Vec<TagSlot>,
    /// One for each slot.
    histories: Vec<SlotHistory>,
    /// By position.
    quarantine: BTreeMap<usize, QuarantineEntry>,
    /// Positions that are not joined with the one before, and when to retry that.
    split_points: BTreeMap<usize, RetryBackoff>,
    /// Ranges that were refused and are still to be split.
    unresolved: Vec<UnresolvedRange>,
    /// Ranges over which sessions ended.
    suspects: Vec<SuspectRequest>,
}

/// What became of the requests for one slot.
#[derive(Clone, Copy, Debug, Default)]
struct SlotHistory {
    /// Whether it was ever answered.
    was_answered: bool,
    /// Consecutive sessions that ended over it after they had answered something else.
    losses: u8,
    /// Consecutive refusals with an exception that may be temporary.
    soft_refusals: u32,
}

/// The registers or bits of a tag, or of the tags of a group.
#[derive(Clone, Copy, Debug)]
struct TagSlot {
    /// First register or bit.
    first: u16,
    /// One past the last register or bit, up to 65536.
    end: u32,
    /// One past its last tag in [`PlannedRequest::tags`].
    tags_end: usize,
}

/// A slot while its tags are collected.
#[derive(Debug)]
struct CollectedSlot {
    tags: Vec<u16>,
    first: u16,
    end: u32,
}

/// A slot that the PLC rejects in every request.
#[derive(Clone, Copy, Debug)]
struct QuarantineEntry {
    rejection: Rejection,
    backoff: RetryBackoff,
}

/// A refused range of which it is not known which slot is to blame.
#[derive(Clone, Debug)]
struct UnresolvedRange {
    tags: Range<usize>,
    /// Exception code.
    code: u8,
}

/// What else the PLC answers while it refuses a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RefusalContext {
    /// It answered other requests lately, so that it has not failed as a whole.
    OthersAnswered,
    /// It answered none lately.
    NothingAnswered,
    /// The same, and the request is a part of one that is split.
    Splitting,
}

/// What a lost session means for the range over which it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::plc) enum LossVerdict {
    /// The range is to blame, as far as is known: it is read last and in parts from now on.
    Suspected,
    /// The server or the network may be to blame.
    Unexplained,
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

impl QuarantineEntry {
    /// Returns whether a retry costs a connection.
    const fn breaks_session(&self) -> bool {
        matches!(self.rejection, Rejection::Failure(_))
    }

    /// Returns whether it is certain: a single refusal may be noise.
    const fn is_confirmed(&self) -> bool {
        self.breaks_session() || self.backoff.failures() > 1
    }
}

impl CollectedSlot {
    fn new(tag: u16, location: Location) -> Self {
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
        let mut collected = Vec::new();
        let mut groups: BTreeMap<&str, CollectedSlot> = BTreeMap::new();
        for &index in &request.tags {
            let Some(tag) = plc.tags.get(usize::from(index)) else { continue };
            let slot = CollectedSlot::new(index, tag.location);
            match tag.group.as_deref() {
                None => collected.push(slot),
                Some(name) => match groups.get_mut(name) {
                    Some(group) => group.merge(slot),
                    None => {
                        groups.insert(name, slot);
                    }
                },
            }
        }
        collected.extend(groups.into_values());
        collected.sort_by_key(|slot| (slot.first, slot.end));
        let mut tags = Vec::with_capacity(request.tags.len());
        let mut slots = Vec::with_capacity(collected.len());
        for CollectedSlot { tags: of_slot, first, end } in collected {
            tags.extend(of_slot);
            slots.push(TagSlot { first, end, tags_end: tags.len() });
        }
        Self {
            table: request.table,
            tags,
            histories: vec![SlotHistory::default(); slots.len()],
            slots,
            quarantine: BTreeMap::new(),
            split_points: BTreeMap::new(),
            unresolved: Vec::new(),
            suspects: Vec::new(),
        }
    }

    pub(super) const fn table(&self) -> Table {
        self.table
    }

    /// Returns the request that reads these slots, and what lies between them.
    pub(super) fn request(&self, positions: &Range<usize>) -> ReadRequest {
        let (first, count) = self.span(positions);
        let mut tags = self.tags_of(positions).to_vec();
        tags.sort_unstable();
        ReadRequest { table: self.table, first, count, tags }
    }

    /// Returns the registers or bits of the request that reads these slots.
    pub(super) fn count(&self, positions: &Range<usize>) -> u16 {
        // Called for every answer: the list of the request's tags is not built for it.
        self.span(positions).1
    }

    /// Returns the first register or bit of these slots, and how many there are up to their end.
    fn span(&self, positions: &Range<usize>) -> (u16, u16) {
        let slots = self.slots.get(positions.clone()).unwrap_or_default();
        let first = slots.iter().map(|slot| slot.first).min().unwrap_or_default();
        let end = slots.iter().map(|slot| slot.end).max().unwrap_or_default();
        (first, u16::try_from(end.saturating_sub(first.into())).unwrap_or(u16::MAX))
    }

    /// Returns the indices in `Plc::tags` of the tags of these slots.
    fn tags_of(&self, positions: &Range<usize>) -> &[u16] {
        let ends_before = |position: usize| {
            let before = position.checked_sub(1).and_then(|before| self.slots.get(before));
            before.map_or(0, |slot| slot.tags_end)
        };
        let tags = ends_before(positions.start)..ends_before(positions.end);
        self.tags.get(tags).unwrap_or_default()
    }

    /// Returns the ranges to read: without suspected, quarantined and unresolved slots, not joined
    /// across split points, none longer than `max` allows; and what is due for a retry within
    /// `budget` and costs no connection.
    pub(super) fn ranges(&self, max: &MaxLength, budget: &mut ProbeBudget) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for position in 0..self.slots.len() {
            if let Some(entry) = self.quarantine.get(&position) {
                if !entry.breaks_session()
                    && entry.backoff.is_due(budget.now)
                    && budget.retries < MAX_RETRIES_PER_CYCLE
                {
                    budget.retries += 1;
                    ranges.push(position..position + 1);
                }
                continue;
            }
            if self.unresolved.iter().any(|range| range.tags.contains(&position))
                || self.suspects.iter().any(|suspect| suspect.contains(position))
            {
                continue;
            }
            match ranges.last_mut() {
                Some(open) if self.can_join(open, position, max, budget) => open.end += 1,
                _ => ranges.push(position..position + 1),
            }
        }
        ranges
    }

    /// Returns the ranges over which a session may end: they are read after all others.
    pub(super) fn search_ranges(&self, now: Instant) -> impl Iterator<Item = Range<usize>> {
        let parts = self.suspects.iter().flat_map(|suspect| suspect.parts()).cloned();
        let due = self
            .quarantine
            .iter()
            .filter(move |(_, entry)| entry.breaks_session() && entry.backoff.is_due(now));
        parts.chain(due.map(|(position, _)| *position..*position + 1))
    }

    /// Returns why no request reads this position: it is in quarantine.
    pub(super) fn quarantine_failure(&self, position: usize) -> Option<ReadFailure> {
        Some(match self.quarantine.get(&position)?.rejection {
            Rejection::Exception(code) => ReadFailure::Refused(code),
            Rejection::Failure(_) => ReadFailure::Unreachable,
        })
    }

    /// Returns the tags of each slot, by position.
    pub(super) fn slots(&self) -> impl Iterator<Item = &[u16]> {
        (0..self.slots.len()).map(|position| self.tags_of(&(position..position + 1)))
    }

    /// Returns whether the slot at this position was ever answered.
    pub(super) fn was_answered(&self, position: usize) -> bool {
        self.histories.get(position).is_some_and(|history| history.was_answered)
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
        let answered = SlotHistory { was_answered: true, ..SlotHistory::default() };
        self.histories.get_mut(tags.clone()).unwrap_or_default().fill(answered);
        let mut has_changed = !self.suspects.is_empty();
        self.suspects.iter_mut().for_each(|suspect| suspect.on_answer(tags));
        if self.is_join_trial(tags) {
            let inside = tags.start + 1..tags.end;
            self.split_points.retain(|position, _| !inside.contains(position));
            has_changed = true;
        }
        if tags.len() == 1 && self.quarantine.remove(&tags.start).is_some() {
            // The reason, such as a download, may have brought back others.
            for entry in self.quarantine.values_mut() {
                entry.backoff.retry_now(now);
            }
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
        self.suspects.iter_mut().for_each(|suspect| suspect.on_refused(&tags));
        if tags.len() > 1 {
            self.unresolved.push(UnresolvedRange { tags, code });
            return (true, AnswerVerdict::Split);
        }
        let rejection = Rejection::Exception(code);
        let first = QuarantineEntry { rejection, backoff: failed_once(now) };
        self.quarantine
            .entry(tags.start)
            .and_modify(|entry| {
                if entry.breaks_session() {
                    *entry = first;
                } else {
                    entry.rejection = rejection;
                    entry.backoff.on_failure(now, 0.0);
                }
            })
            .or_insert(first);
        (true, AnswerVerdict::Final)
    }

    /// Records that these slots were refused together with an exception that may be temporary.
    /// Returns the same as [`PlannedRequest::on_refused`].
    pub(super) fn on_soft_refusal(
        &mut self,
        tags: Range<usize>,
        code: u8,
        context: RefusalContext,
        now: Instant,
    ) -> (bool, AnswerVerdict) {
        let histories = self.histories.get_mut(tags.clone()).unwrap_or_default();
        for history in &mut *histories {
            history.soft_refusals = history.soft_refusals.saturating_add(1);
        }
        let refusals = histories.iter().map(|history| history.soft_refusals).min();
        let refusals = refusals.unwrap_or_default();
        let is_retry = tags.len() == 1 && self.quarantine.contains_key(&tags.start);
        let is_due = is_retry
            || match context {
                RefusalContext::OthersAnswered => refusals >= MAX_SOFT_REFUSALS,
                RefusalContext::Splitting => tags.len() > 1,
                // The PLC may have failed as a whole, so the search is repeated less and less
                // often.
                RefusalContext::NothingAnswered => {
                    tags.len() > 1
                        && refusals > MAX_SOFT_REFUSALS
                        && (refusals.is_power_of_two() || refusals.is_multiple_of(1024))
                }
            };
        if !is_due {
            let was_suspect = self.suspects.iter().any(|suspect| suspect.parts().contains(&tags));
            self.suspects.iter_mut().for_each(|suspect| suspect.on_refused(&tags));
            return (was_suspect, AnswerVerdict::Final);
        }
        let verdict = self.on_refused(tags.clone(), code, now);
        if tags.len() == 1
            && !is_retry
            && let Some(entry) = self.quarantine.get_mut(&tags.start)
        {
            // It was refused several times already.
            entry.backoff.on_failure(now, 0.0);
        }
        verdict
    }

    /// Records that the session ended over these slots, after it had answered something else.
    /// `is_unproven` tells whether no request like this was ever answered.
    pub(super) fn on_lost(
        &mut self,
        tags: &Range<usize>,
        failure: LostSession,
        is_unproven: bool,
        now: Instant,
    ) -> LossVerdict {
        let rejection = Rejection::Failure(failure);
        if let Some(entry) = self.quarantine.get_mut(&tags.start).filter(|_| tags.len() == 1) {
            if !entry.breaks_session() {
                entry.backoff = RetryBackoff::new(&LOST_RETRY);
            }
            entry.rejection = rejection;
            entry.backoff.on_failure(now, 0.0);
            return LossVerdict::Suspected;
        }
        let lost = self.suspects.iter_mut().find_map(|suspect| suspect.on_lost(tags));
        if let Some(lost) = lost {
            match lost {
                PartLoss::Found(position) => {
                    let mut backoff = RetryBackoff::new(&LOST_RETRY);
                    backoff.on_failure(now, 0.0);
                    self.quarantine.insert(position, QuarantineEntry { rejection, backoff });
                }
                // Last: other parts may be free of the tag to blame.
                PartLoss::Divided => self.suspects.push(SuspectRequest::new(tags.clone())),
            }
            return LossVerdict::Suspected;
        }
        let crossed: Vec<_> = self.crossed_split_points(tags).collect();
        if !crossed.is_empty() {
            crossed.into_iter().for_each(|position| self.add_split_point(position, now));
            return LossVerdict::Suspected;
        }
        let histories = self.histories.get_mut(tags.clone()).unwrap_or_default();
        for history in &mut *histories {
            history.losses = history.losses.saturating_add(1);
        }
        let losses = histories.iter().map(|history| history.losses).min().unwrap_or_default();
        let is_new = histories.iter().any(|history| !history.was_answered);
        let max = if is_new || is_unproven { 1 } else { MAX_LOSSES };
        if losses < max {
            return LossVerdict::Unexplained;
        }
        self.suspects.push(SuspectRequest::new(tags.clone()));
        LossVerdict::Suspected
    }

    /// Returns whether these slots are joined although they were rejected together.
    pub(super) fn is_join_trial(&self, tags: &Range<usize>) -> bool {
        self.crossed_split_points(tags).next().is_some()
    }

    fn crossed_split_points(&self, tags: &Range<usize>) -> impl Iterator<Item = usize> {
        // An empty range of a BTreeMap may not begin behind its end.
        let inside = tags.start + 1..tags.end.max(tags.start + 1);
        self.split_points.range(inside).map(|(position, _)| *position)
    }

    /// Removes a range that was answered in parts although it was not answered as a whole.
    pub(super) fn take_answered_in_parts(&mut self) -> Option<SuspectRequest> {
        let index = self.suspects.iter().position(SuspectRequest::is_answered_in_parts);
        let answered = index.map(|index| self.suspects.remove(index));
        self.suspects.retain(|suspect| !suspect.parts().is_empty());
        answered
    }

    /// Keeps the parts of a range apart where the PLC may not let it be joined: at the widest gap,
    /// or else in the middle.
    pub(super) fn separate(&mut self, suspect: &SuspectRequest, now: Instant) {
        let middle = usize::midpoint(suspect.whole().start, suspect.whole().end);
        let rank = |position: &usize| {
            (self.gap_before(*position).unwrap_or_default(), usize::MAX - position.abs_diff(middle))
        };
        if let Some(position) = suspect.inner_starts().max_by_key(rank) {
            self.split_points.insert(position, failed_twice(now));
        }
    }

    /// Takes the next unresolved range, and splits it: at a known split point, else in the middle.
    /// `planned` is the index of this request.
    pub(super) fn next_split(&mut self, planned: usize) -> Option<SplitRequest> {
        let UnresolvedRange { tags, code } = self.unresolved.pop()?;
        let known = self.crossed_split_points(&tags).next();
        let middle = usize::midpoint(tags.start, tags.end);
        let at = known.unwrap_or(middle);
        let half = |tags: Range<usize>| SplitHalf {
            request: self.request(&tags),
            range: TagRange { planned, tags },
        };
        let halves = [half(tags.start..at), half(at..tags.end)];
        Some(SplitRequest {
            count: self.count(&tags),
            whole: TagRange { planned, tags },
            code,
            halves,
        })
    }

    /// Records that half of a refused request was not sent: it is still to be split.
    pub(super) fn on_half_not_sent(&mut self, tags: Range<usize>, code: u8) {
        if tags.len() > 1 {
            self.unresolved.push(UnresolvedRange { tags, code });
        }
    }

    /// Records that the session ended over half of a refused request.
    pub(super) fn on_half_lost(&mut self, tags: Range<usize>) {
        self.suspects.push(SuspectRequest::new(tags));
    }

    /// Keeps a position apart from the one before, until the next retry.
    pub(super) fn add_split_point(&mut self, position: usize, now: Instant) {
        let entry = self.split_points.entry(position);
        entry.and_modify(|retry| retry.on_failure(now, 0.0)).or_insert_with(|| failed_once(now));
    }

    /// Retries quarantined slots in the next cycle, but not those over which sessions end. Returns
    /// whether there are any.
    pub(super) fn retry_quarantined(&mut self, now: Instant) -> bool {
        let mut has_any = false;
        for entry in self.quarantine.values_mut().filter(|entry| !entry.breaks_session()) {
            entry.backoff.retry_now(now);
            has_any = true;
        }
        has_any
    }

    /// Returns whether something is searched, so that the requests change from cycle to cycle.
    pub(super) const fn is_searching(&self) -> bool {
        !self.unresolved.is_empty() || !self.suspects.is_empty()
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

    /// Returns the indices of the tags that are certainly rejected, and how.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = (u16, Rejection)> {
        let confirmed = self.quarantine.iter().filter(|(_, entry)| entry.is_confirmed());
        confirmed.flat_map(|(&position, entry)| {
            let tags = self.tags_of(&(position..position + 1));
            tags.iter().map(|&tag| (tag, entry.rejection))
        })
    }

    /// Returns the widest gap that crosses no split point that failed more than once.
    pub(super) fn widest_safe_gap(&self) -> Option<u16> {
        let confirmed = self.split_points.iter().filter(|(_, retry)| retry.failures() > 1);
        confirmed.filter_map(|(&position, _)| self.gap_before(position)?.checked_sub(1)).min()
    }

    /// Returns the unused registers or bits before a slot.
    fn gap_before(&self, position: usize) -> Option<u16> {
        let (before, after) = (self.slots.get(..position)?, self.slots.get(position)?);
        let end = before.iter().map(|slot| slot.end).max()?;
        u16::try_from(u32::from(after.first).checked_sub(end)?).ok()
    }
}

#[cfg(test)]
mod tests;
