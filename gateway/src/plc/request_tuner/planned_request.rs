//! The tags of one request of the plan, and which of them may not be read together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use provisioning::config::Plc;
use provisioning::plan::ReadRequest;
use provisioning::plc::{Location, Table};

use super::max_len::MaxLength;
use super::{AnswerVerdict, SplitHalf, SplitRequest, TagRange};
use crate::plc::{failed_for_sure, failed_once};
use crate::schedule::RetryBackoff;

/// After so many broken connections, a refused request is not taken apart any further: its tags
/// are tried one by one, with long pauses.
const MAX_BREAKS: u8 = 2;
/// Most tags in quarantine that are tried in one cycle.
const MAX_RETRIES_PER_CYCLE: u8 = 4;

/// One request of the plan. Tags are named by their position in order of address; those of one
/// group share a position, so that they are read together or not at all.
#[derive(Debug)]
pub(super) struct PlannedRequest {
    table: Table,
    slots: Vec<TagSlot>,
    quarantine: BTreeMap<usize, QuarantineEntry>,
    /// Positions that are not joined with the one before.
    split_points: BTreeMap<usize, RetryBackoff>,
    /// Stretches that were refused and have to be taken apart.
    unresolved: Vec<UnresolvedRange>,
}

/// Where a tag lies, or the tags of a group.
#[derive(Clone, Debug)]
pub(super) struct TagSlot {
    /// Indices in `Plc::tags`.
    pub(super) tags: Vec<usize>,
    /// First register or bit.
    pub(super) first: u16,
    /// One past the last; 65536 must fit.
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
struct QuarantineEntry {
    /// Exception code.
    code: u8,
    /// Whether connections broke over it.
    breaks_connection: bool,
    backoff: RetryBackoff,
}

#[derive(Clone, Debug)]
struct UnresolvedRange {
    tags: Range<usize>,
    code: u8,
    breaks: u8,
}

/// What one cycle tries again: little of each.
#[derive(Debug)]
pub(super) struct ProbeBudget {
    now: Instant,
    retries: u8,
    has_join_retry: bool,
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
        let mut tags = Vec::new();
        let mut groups: BTreeMap<&str, TagSlot> = BTreeMap::new();
        for &index in &request.tags {
            let Some(tag) = plc.tags.get(index) else { continue };
            let place = TagSlot::new(index, tag.location);
            match tag.group.as_deref() {
                None => tags.push(place),
                Some(name) => match groups.get_mut(name) {
                    Some(group) => group.merge(place),
                    None => {
                        groups.insert(name, place);
                    }
                },
            }
        }
        tags.extend(groups.into_values());
        tags.sort_by_key(|place| (place.first, place.end));
        let (quarantine, walls) = (BTreeMap::new(), BTreeMap::new());
        Self {
            table: request.table,
            slots: tags,
            quarantine,
            split_points: walls,
            unresolved: Vec::new(),
        }
    }

    pub(super) const fn table(&self) -> Table {
        self.table
    }

    pub(super) fn request(&self, tags: &Range<usize>) -> ReadRequest {
        super::join_slots(self.table, self.slots.get(tags.clone()).unwrap_or_default())
    }

    pub(super) fn count(&self, tags: &Range<usize>) -> u16 {
        self.request(tags).count
    }

    /// Cuts the tags into the stretches to read: without those in quarantine and those under
    /// suspicion, apart at the walls, none longer than `block` allows; and what is due for a trial.
    pub(super) fn ranges(&self, block: &MaxLength, trials: &mut ProbeBudget) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for position in 0..self.slots.len() {
            if let Some(culprit) = self.quarantine.get(&position) {
                if culprit.backoff.is_due(trials.now) && trials.retries < MAX_RETRIES_PER_CYCLE {
                    trials.retries += 1;
                    parts.push(position..position + 1);
                }
                continue;
            }
            if self.unresolved.iter().any(|suspect| suspect.tags.contains(&position)) {
                continue;
            }
            match parts.last_mut() {
                Some(open) if self.can_join(open, position, block, trials) => open.end += 1,
                _ => parts.push(position..position + 1),
            }
        }
        parts
    }

    fn can_join(
        &self,
        open: &Range<usize>,
        position: usize,
        block: &MaxLength,
        trials: &mut ProbeBudget,
    ) -> bool {
        if open.end != position || self.quarantine.contains_key(&open.start) {
            return false;
        }
        let wall = self.split_points.get(&position);
        if wall.is_some_and(|wall| trials.has_join_retry || !wall.is_due(trials.now)) {
            return false;
        }
        let count = self.count(&(open.start..position + 1));
        if block.max_len().is_some_and(|most| count > most) {
            let is_grown = block.max_len().is_some_and(|most| self.count(open) > most);
            let trial =
                block.trial_len(trials.now).filter(|_| is_grown || !trials.has_length_trial);
            if trial.is_none_or(|most| count > most) {
                return false;
            }
            trials.has_length_trial = true;
        }
        trials.has_join_retry |= wall.is_some();
        true
    }

    /// These tags were answered together. Tells whether that changes the requests.
    pub(super) fn on_answer(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let inside = tags.start + 1..tags.end;
        let mut is_news = false;
        if inside.start < inside.end && self.split_points.range(inside.clone()).next().is_some() {
            self.split_points.retain(|position, _| !inside.contains(position));
            is_news = true;
        }
        if tags.len() == 1 && self.quarantine.remove(&tags.start).is_some() {
            // What brought it back may have brought back others.
            self.retry_quarantined(now);
            is_news = true;
        }
        is_news
    }

    /// These tags were refused together. Tells whether that changes the requests, and what it
    /// means for the cycle.
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
        let new = QuarantineEntry { code, breaks_connection: false, backoff: failed_once(now) };
        self.quarantine
            .entry(tags.start)
            .and_modify(|culprit| {
                *culprit =
                    QuarantineEntry { code, breaks_connection: false, backoff: culprit.backoff };
                culprit.backoff.on_failure(now, 0.0);
            })
            .or_insert(new);
        (true, AnswerVerdict::Final)
    }

    /// The connection broke over these tags. Tells whether that changes the requests.
    pub(super) fn on_broken(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let culprit = self.quarantine.get_mut(&tags.start).filter(|_| tags.len() == 1);
        let Some(culprit) = culprit else { return false };
        culprit.breaks_connection = true;
        culprit.backoff.on_failure(now, 0.0);
        true
    }

    pub(super) fn next_split(&mut self, span: usize) -> Option<SplitRequest> {
        let UnresolvedRange { tags, code, breaks } = self.unresolved.pop()?;
        let walls = self.split_points.range(tags.start + 1..tags.end);
        let middle = usize::midpoint(tags.start, tags.end);
        let at = walls.map(|(position, _)| *position).next().unwrap_or(middle);
        let half = |tags: Range<usize>| SplitHalf {
            request: self.request(&tags),
            part: TagRange { planned: span, tags },
        };
        let halves = [half(tags.start..at), half(at..tags.end)];
        Some(SplitRequest {
            count: self.count(&tags),
            whole: TagRange { planned: span, tags },
            code,
            breaks,
            halves,
        })
    }

    /// The connection broke while this was taken apart.
    pub(super) fn on_split_broken(&mut self, split: SplitRequest, now: Instant) {
        let SplitRequest { whole: TagRange { tags, .. }, code, breaks, .. } = split;
        if breaks + 1 < MAX_BREAKS {
            self.unresolved.push(UnresolvedRange { tags, code, breaks: breaks + 1 });
            return;
        }
        let culprit =
            QuarantineEntry { code, breaks_connection: true, backoff: failed_for_sure(now) };
        self.quarantine.extend(tags.map(|position| (position, culprit)));
    }

    /// Keeps a position apart from the one before.
    pub(super) fn add_split_point(&mut self, position: usize, now: Instant) {
        let wall = self.split_points.entry(position);
        wall.and_modify(|wall| wall.on_failure(now, 0.0)).or_insert_with(|| failed_once(now));
    }

    /// Tries what is in quarantine at the next opportunity, but not what breaks connections. Tells
    /// whether there is any.
    pub(super) fn retry_quarantined(&mut self, now: Instant) -> bool {
        let mut are_any = false;
        for culprit in self.quarantine.values_mut().filter(|culprit| !culprit.breaks_connection) {
            culprit.backoff.retry_now(now);
            are_any = true;
        }
        are_any
    }

    pub(super) fn has_unresolved(&self) -> bool {
        !self.unresolved.is_empty()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        let culprits = self.quarantine.values().map(|culprit| culprit.backoff);
        culprits
            .chain(self.split_points.values().copied())
            .filter_map(|retry| retry.next_try())
            .min()
    }

    pub(super) fn unresolved_requests(&self) -> impl Iterator<Item = ReadRequest> {
        self.unresolved.iter().map(|suspect| self.request(&suspect.tags))
    }

    /// Indices of the tags in quarantine, without those on their first trial, and their codes.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = (usize, u8)> {
        let confirmed =
            self.quarantine.iter().filter(|(_, culprit)| culprit.backoff.failures() > 1);
        confirmed.flat_map(|(&position, culprit)| {
            let tags = self.slots.get(position).map_or(&[][..], |place| &place.tags);
            tags.iter().map(|&tag| (tag, culprit.code))
        })
    }

    /// The widest gap that may be bridged so that no confirmed wall would be crossed.
    pub(super) fn widest_safe_gap(&self) -> Option<u16> {
        let confirmed = self.split_points.iter().filter(|(_, wall)| wall.failures() > 1);
        let gap = |position: usize| {
            let (before, after) = (self.slots.get(..position)?, self.slots.get(position)?);
            let end = before.iter().map(|place| place.end).max()?;
            u16::try_from(u32::from(after.first).checked_sub(end)?).ok()
        };
        confirmed.filter_map(|(&position, _)| gap(position)?.checked_sub(1)).min()
    }
}
