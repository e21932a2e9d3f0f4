//! Adapts the requests of the plan to what the PLC refuses. Pure: `now` is an argument.
//!
//! A joined request that is refused is split until the tags that the PLC refuses are found; they
//! are quarantined, and retried with growing pauses for ever. Two ranges that are answered apart
//! and refused together stay apart, and a request that is too long for the PLC becomes shorter;
//! both are retried too, since a single disturbance may have caused the refusal.

mod max_len;
mod planned_request;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::{Plc, Tag};
use provisioning::plan::{Plan, ReadRequest, ScanClass};
use provisioning::plc::Table;

use super::{LearnedLimits, QuarantinedTag, ReadFailure, ReadOutcome, TagLocation};
use max_len::MaxLength;
use planned_request::{PlannedRequest, ProbeBudget};

/// What was learned about the requests of one PLC.
#[derive(Debug)]
pub(super) struct RequestTuner {
    classes: Vec<TunedClass>,
    /// All tags of the PLC.
    tags: Arc<Vec<Tag>>,
    max_words: MaxLength,
    max_bits: MaxLength,
    /// Whether something was learned since the last report.
    has_changed: bool,
    last_reported: LearnedLimits,
}

/// One scan class.
#[derive(Debug)]
struct TunedClass {
    /// Indices of its tags, ascending.
    tags: Vec<usize>,
    planned: Vec<PlannedRequest>,
    request_list: RequestList,
    /// Whether the list must be rebuilt before the next cycle: something was learned, or is
    /// retried.
    needs_rebuild: bool,
    /// Earliest time of the next retry.
    next_retry: Option<Instant>,
}

/// The requests with which a cycle starts; refused ones are split while it runs.
#[derive(Clone, Debug)]
pub(super) struct RequestList {
    /// In the order in which they are sent; a cycle may start with any of them.
    pub(super) requests: Arc<[ReadRequest]>,
    /// For each request the tags that it reads.
    pub(super) ranges: Arc<[TagRange]>,
    /// Where the value of each tag of the class lies in the answers; see `Cycle::locations`.
    pub(super) locations: Arc<[Option<TagLocation>]>,
}

/// A range of neighbouring tags of one request of the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TagRange {
    /// Index of the request of the plan.
    planned: usize,
    /// Positions in [`PlannedRequest`].
    tags: Range<usize>,
}

/// Two requests in place of one that was refused. Both are sent, even if the first is refused.
#[derive(Debug)]
pub(super) struct SplitRequest {
    whole: TagRange,
    /// Exception code of the refusal.
    code: u8,
    /// Registers or bits of the refused request.
    count: u16,
    /// Connections that broke while it was split.
    breaks: u8,
    pub(super) halves: [SplitHalf; 2],
}

/// One of the two requests of a [`SplitRequest`].
#[derive(Debug)]
pub(super) struct SplitHalf {
    range: TagRange,
    pub(super) request: ReadRequest,
}

/// What an answer means for the values of the cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AnswerVerdict {
    /// The outcome holds for all tags of the request.
    Final,
    /// The outcome says nothing about a single tag: the request will be split.
    Split,
}

impl RequestTuner {
    pub(super) fn new(plc: &Plc, plan: &Plan) -> Self {
        let classes = plan.classes.iter().map(|class| TunedClass::new(plc, class)).collect();
        Self {
            classes,
            tags: Arc::clone(&plc.tags),
            max_words: MaxLength::default(),
            max_bits: MaxLength::default(),
            has_changed: false,
            last_reported: LearnedLimits::default(),
        }
    }

    /// Returns the requests with which a cycle starts: the same as before, unless something was
    /// learned or a retry is due.
    pub(super) fn next_requests(&mut self, class: u16, now: Instant) -> Option<RequestList> {
        let lengths = [&self.max_words, &self.max_bits];
        let is_length_trial_due = lengths.into_iter().any(|max| max.is_trial_due(now));
        if is_length_trial_due {
            self.skip_idle_trials(now);
        }
        let Self { classes, tags, max_words, max_bits, .. } = self;
        let class = classes.get_mut(usize::from(class))?;
        let is_retry_due = class.next_retry.is_some_and(|due| due <= now);
        if class.needs_rebuild || is_retry_due || is_length_trial_due {
            class.rebuild(tags, max_words, max_bits, now);
        }
        Some(class.request_list.clone())
    }

    /// Skips trials of lengths that no request of the plan can have.
    fn skip_idle_trials(&mut self, now: Instant) {
        let Self { classes, max_words, max_bits, .. } = self;
        for (max, is_bits) in [(max_words, false), (max_bits, true)] {
            let planned = || classes.iter().flat_map(|class| &class.planned);
            let is_long = |max: &MaxLength, planned: &PlannedRequest| {
                let ranges = planned.ranges(max, &mut ProbeBudget::new(now));
                ranges.iter().any(|tags| max.exceeds_limit(planned.count(tags)))
            };
            let is_of_kind = |planned: &&PlannedRequest| planned.table().holds_bits() == is_bits;
            while max.is_trial_due(now)
                && !planned().filter(is_of_kind).any(|planned| is_long(max, planned))
            {
                max.skip_trial(now);
            }
        }
    }

    /// Records the answer to a request of the list. Returns what it means for the values.
    pub(super) fn on_answer(
        &mut self,
        class: u16,
        range: &TagRange,
        outcome: &ReadOutcome,
        now: Instant,
    ) -> AnswerVerdict {
        let Some((changed, planned, max)) = self.locate(class, range) else {
            return AnswerVerdict::Final;
        };
        let count = planned.count(&range.tags);
        let (has_changed, verdict) = match *outcome {
            Ok(_) => (
                planned.on_answer(&range.tags, now) | max.on_answer(count, now),
                AnswerVerdict::Final,
            ),
            // Illegal data address and illegal data value: the request itself is wrong. Other
            // exceptions say nothing about it.
            Err(ReadFailure::Refused(code @ (2 | 3))) => {
                planned.on_refused(range.tags.clone(), code, now)
            }
            Err(ReadFailure::Unreachable) => {
                (planned.on_broken(&range.tags, now), AnswerVerdict::Final)
            }
            Err(ReadFailure::Refused(_) | ReadFailure::Pending) => (false, AnswerVerdict::Final),
        };
        changed.set(has_changed);
        verdict
    }

    /// Records that the PLC closed the connection in place of an answer, as some do when a request
    /// is too long.
    pub(super) fn on_peer_close(&mut self, class: u16, range: &TagRange, now: Instant) {
        let Some((changed, planned, max)) = self.locate(class, range) else { return };
        changed.set(max.on_peer_close(planned.count(&range.tags), range.tags.len(), now));
    }

    /// Returns the next refused request to split.
    pub(super) fn next_split(&mut self, class: u16) -> Option<SplitRequest> {
        let class = self.classes.get_mut(usize::from(class))?;
        class.planned.iter_mut().enumerate().find_map(|(index, planned)| planned.next_split(index))
    }

    /// Records the answers to both halves of a request that was split. Returns what they mean for
    /// the values.
    pub(super) fn on_split_answers(
        &mut self,
        class: u16,
        split: SplitRequest,
        outcomes: [&ReadOutcome; 2],
        now: Instant,
    ) -> [AnswerVerdict; 2] {
        let Some((changed, planned, max)) = self.locate(class, &split.whole) else {
            return [AnswerVerdict::Final; 2];
        };
        changed.set(true);
        if outcomes.iter().any(|outcome| matches!(outcome, Err(ReadFailure::Unreachable))) {
            planned.on_split_broken(split, now);
            return [AnswerVerdict::Split; 2];
        }
        let verdicts = std::array::from_fn(|index| {
            let (Some(half), Some(outcome)) = (split.halves.get(index), outcomes.get(index)) else {
                return AnswerVerdict::Final;
            };
            let tags = &half.range.tags;
            match outcome {
                Ok(_) => {
                    planned.on_answer(tags, now);
                    max.on_answer(half.request.count, now);
                    AnswerVerdict::Final
                }
                Err(ReadFailure::Refused(code @ (2 | 3))) => {
                    planned.on_refused(tags.clone(), *code, now).1
                }
                Err(_) => AnswerVerdict::Final,
            }
        });
        if outcomes.iter().all(|outcome| outcome.is_ok()) {
            // Answered apart and refused together: the whole was too long (exception 3), or the PLC
            // refuses what lies between the halves.
            let is_length = split.code == 3 && max.on_too_long(split.count, now);
            if let [_, right] = &split.halves
                && !is_length
            {
                planned.add_split_point(right.range.tags.start, now);
            }
        }
        verdicts
    }

    /// Returns the requests that are still to be split when a cycle ends.
    pub(super) fn unresolved_requests(&self, class: u16) -> impl Iterator<Item = ReadRequest> {
        let class = self.classes.get(usize::from(class));
        class
            .into_iter()
            .flat_map(|class| &class.planned)
            .flat_map(PlannedRequest::unresolved_requests)
    }

    /// Retries quarantined tags in the next cycle: the PLC may have another program.
    pub(super) fn retry_quarantined(&mut self, now: Instant) {
        for class in &mut self.classes {
            for planned in &mut class.planned {
                class.needs_rebuild |= planned.retry_quarantined(now);
            }
        }
    }

    /// Returns what was learned if it differs from what was returned last. Tags that failed only
    /// once are left out.
    pub(super) fn take_changes(&mut self, plc: &Plc) -> Option<LearnedLimits> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let learned = self.learned_limits(plc);
        (learned != self.last_reported).then(|| {
            self.last_reported = learned.clone();
            learned
        })
    }

    fn learned_limits(&self, plc: &Plc) -> LearnedLimits {
        let planned = || self.classes.iter().flat_map(|class| &class.planned);
        let mut quarantined: Vec<_> = planned().flat_map(PlannedRequest::quarantined).collect();
        quarantined.sort_unstable();
        let name = |(index, code): (usize, u8)| {
            let tag = plc.tags.get(index)?;
            Some(QuarantinedTag { tag: tag.name.clone(), at: tag.at.clone(), exception: code })
        };
        let max_gap = |is_bits: bool| {
            let of_kind = planned().filter(|planned| planned.table().holds_bits() == is_bits);
            of_kind.filter_map(PlannedRequest::widest_safe_gap).min()
        };
        // `max_gap` counts registers: 16 bits each.
        let bits = max_gap(true).map(|bits| bits / 16);
        LearnedLimits {
            quarantined: quarantined.into_iter().filter_map(name).collect(),
            max_words: self.max_words.max_len(),
            max_gap: max_gap(false).into_iter().chain(bits).min(),
        }
    }

    /// Returns where the value of each tag of a class lies in the answers to these requests.
    pub(super) fn locations(
        &self,
        class: u16,
        requests: &[ReadRequest],
    ) -> Arc<[Option<TagLocation>]> {
        let class = self.classes.get(usize::from(class));
        class
            .map_or_else(|| Arc::new([]) as Arc<[_]>, |class| class.locations(&self.tags, requests))
    }

    /// Returns a request of the plan by scan class and position, the flags to set when it changes,
    /// and the length limit of its kind of table.
    fn locate(
        &mut self,
        class: u16,
        range: &TagRange,
    ) -> Option<(ChangedFlag<'_>, &mut PlannedRequest, &mut MaxLength)> {
        let Self { classes, max_words, max_bits, has_changed, .. } = self;
        let TunedClass { planned, needs_rebuild, .. } = classes.get_mut(usize::from(class))?;
        let planned = planned.get_mut(range.planned)?;
        let max = if planned.table().holds_bits() { max_bits } else { max_words };
        Some((ChangedFlag { has_changed, needs_rebuild }, planned, max))
    }
}

/// Records that something was learned, while a planned request is borrowed.
struct ChangedFlag<'a> {
    has_changed: &'a mut bool,
    needs_rebuild: &'a mut bool,
}

impl ChangedFlag<'_> {
    const fn set(self, has_changed: bool) {
        *self.has_changed |= has_changed;
        *self.needs_rebuild |= has_changed;
    }
}

impl TunedClass {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let planned =
            class.requests.iter().map(|request| PlannedRequest::new(plc, request)).collect();
        let mut tags: Vec<_> =
            class.requests.iter().flat_map(|request| &request.tags).copied().collect();
        tags.sort_unstable();
        let request_list =
            RequestList { requests: Arc::new([]), ranges: Arc::new([]), locations: Arc::new([]) };
        Self { tags, planned, request_list, needs_rebuild: true, next_retry: None }
    }

    fn rebuild(&mut self, tags: &[Tag], words: &MaxLength, bits: &MaxLength, now: Instant) {
        let mut budget = ProbeBudget::new(now);
        let mut ranges = Vec::new();
        let mut requests = Vec::new();
        for (index, planned) in self.planned.iter().enumerate() {
            let max = if planned.table().holds_bits() { bits } else { words };
            for tags in planned.ranges(max, &mut budget) {
                requests.push(planned.request(&tags));
                ranges.push(TagRange { planned: index, tags });
            }
        }
        let locations = self.locations(tags, &requests);
        let (requests, ranges) = (requests.into(), ranges.into());
        self.request_list = RequestList { requests, ranges, locations };
        self.needs_rebuild =
            budget.is_used() || self.planned.iter().any(PlannedRequest::has_unresolved);
        self.next_retry = self.planned.iter().filter_map(PlannedRequest::next_retry).min();
    }

    fn locations(&self, tags: &[Tag], requests: &[ReadRequest]) -> Arc<[Option<TagLocation>]> {
        let mut locations = vec![None; self.tags.len()];
        for (result, request) in (0..).zip(requests) {
            for tag in &request.tags {
                let slot = self.tags.binary_search(tag).ok().and_then(|at| locations.get_mut(at));
                let (Some(slot), Some(tag)) = (slot, tags.get(*tag)) else { continue };
                let offset = tag.location.first.checked_sub(request.first);
                *slot = offset.map(|offset| TagLocation { result, offset });
            }
        }
        locations.into()
    }
}

/// Returns the request that reads these slots of a table, and what lies between them.
fn join_slots(table: Table, slots: &[planned_request::TagSlot]) -> ReadRequest {
    let (first, count) = span_of(slots);
    let mut tags: Vec<usize> = slots.iter().flat_map(|slot| &slot.tags).copied().collect();
    tags.sort_unstable();
    ReadRequest { table, first, count, tags }
}

/// Returns the first register or bit of these slots, and how many there are up to their end.
fn span_of(slots: &[planned_request::TagSlot]) -> (u16, u16) {
    let first = slots.iter().map(|slot| slot.first).min().unwrap_or_default();
    let end = slots.iter().map(|slot| slot.end).max().unwrap_or_default();
    (first, u16::try_from(end.saturating_sub(first.into())).unwrap_or(u16::MAX))
}
