//! Adapts the requests of the plan to what the PLC refuses. Pure: `now` is an argument.
//!
//! A joined request that is refused is split until the tags that the PLC refuses are found; they
//! are quarantined, and retried with growing pauses for ever. A request over which sessions end is
//! searched in the same way, but each answer that does not come costs a connection: what is
//! suspected is read in parts, after everything else. Two ranges that are answered apart and
//! rejected together stay apart, and a request that is too long for the PLC becomes shorter; both
//! are retried too, since a single disturbance may have caused the rejection.

mod max_len;
mod planned_request;
mod suspect;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::{Plc, Tag};
use provisioning::plan::{Plan, ReadRequest, ScanClass};

use super::{
    LearnedLimits, LostSession, QuarantinedTag, ReadFailure, ReadOutcome, Rejection, TagLocation,
};
use max_len::{LengthCost, MaxLength};
pub(super) use planned_request::LossVerdict;
use planned_request::{PlannedRequest, ProbeBudget, RefusalContext};

/// What was learned about the requests of one PLC.
#[derive(Debug)]
pub(super) struct RequestTuner {
    classes: Vec<TunedClass>,
    /// All tags of the PLC.
    tags: Arc<Vec<Tag>>,
    max_words: MaxLength,
    max_bits: MaxLength,
    /// Whether a request was answered with values in this cycle, and in the one before.
    has_answered: [bool; 2],
    /// Sessions that ended over their first request since the last complete cycle.
    scouts: usize,
    /// Whether something was learned since the last report.
    has_changed: bool,
    last_reported: LearnedLimits,
}

/// One scan class.
#[derive(Debug)]
struct TunedClass {
    /// Indices of its tags, ascending.
    tags: Vec<u16>,
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
    pub(super) locations: Arc<[Result<TagLocation, ReadFailure>]>,
    /// Number of requests over which no session is expected to end. The others search for the tags
    /// to blame, and are sent last.
    pub(super) regular: usize,
    /// Whether the cycle must start with the first request: it was answered before, or is a single
    /// tag, and shows whether the PLC answers at all.
    pub(super) starts_with_scout: bool,
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
            has_answered: [false; 2],
            scouts: 0,
            has_changed: false,
            last_reported: LearnedLimits::default(),
        }
    }

    /// Returns the requests with which a cycle starts: the same as before, unless something was
    /// learned or a retry is due.
    pub(super) fn next_requests(&mut self, class: u16, now: Instant) -> Option<RequestList> {
        self.has_answered = [false, self.has_answered[0]];
        let lengths = [&self.max_words, &self.max_bits];
        let is_length_trial_due = lengths.into_iter().any(|max| max.is_trial_due(now));
        if is_length_trial_due {
            self.skip_idle_trials(now);
        }
        let Self { classes, tags, max_words, max_bits, scouts, .. } = self;
        let class = classes.get_mut(usize::from(class))?;
        let is_retry_due = class.next_retry.is_some_and(|due| due <= now);
        if class.needs_rebuild || is_retry_due || is_length_trial_due || *scouts > 0 {
            class.rebuild(tags, (max_words, max_bits), *scouts, now);
        }
        Some(class.request_list.clone())
    }

    /// Skips trials of lengths that no request of the plan can have.
    fn skip_idle_trials(&mut self, now: Instant) {
        let Self { classes, max_words, max_bits, has_changed, .. } = self;
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
                *has_changed = true;
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
        let context = self.refusal_context();
        self.has_answered[0] |= outcome.is_ok();
        let Some((changed, planned, max)) = self.locate(class, range) else {
            return AnswerVerdict::Final;
        };
        let count = planned.count(&range.tags);
        let (has_changed, verdict) = match *outcome {
            Ok(_) => {
                let has_changed = planned.on_answer(&range.tags, now);
                (max.on_answer(count, now) || has_changed, AnswerVerdict::Final)
            }
            // Illegal data address and illegal data value: the request itself is wrong. Other
            // exceptions may have another reason.
            Err(ReadFailure::Refused(code @ (2 | 3))) => {
                planned.on_refused(range.tags.clone(), code, now)
            }
            // So is a trial, if that is refused at all.
            Err(ReadFailure::Refused(code))
                if max.exceeds_limit(count) || planned.is_join_trial(&range.tags) =>
            {
                planned.on_refused(range.tags.clone(), code, now)
            }
            Err(ReadFailure::Refused(code)) => {
                planned.on_soft_refusal(range.tags.clone(), code, context, now)
            }
            Err(ReadFailure::Unreachable | ReadFailure::Busy | ReadFailure::Pending) => {
                (false, AnswerVerdict::Final)
            }
        };
        if let Some(suspect) = planned.take_answered_in_parts() {
            let count = planned.count(suspect.whole());
            if !max.on_too_long(count, LengthCost::Connection, now) {
                planned.separate(&suspect, now);
            }
        }
        changed.set(has_changed);
        verdict
    }

    const fn refusal_context(&self) -> RefusalContext {
        match self.has_answered {
            [false, false] => RefusalContext::NothingAnswered,
            _ => RefusalContext::OthersAnswered,
        }
    }

    /// Records that the session ended over a request, after it had answered another one.
    pub(super) fn on_lost(
        &mut self,
        class: u16,
        range: &TagRange,
        failure: LostSession,
        now: Instant,
    ) -> LossVerdict {
        let Some((changed, planned, max)) = self.locate(class, range) else {
            return LossVerdict::Unexplained;
        };
        let count = planned.count(&range.tags);
        if max.exceeds_limit(count) && range.tags.len() > 1 {
            max.on_too_long(count, LengthCost::Connection, now);
            changed.set(true);
            return LossVerdict::Suspected;
        }
        let verdict = planned.on_lost(&range.tags, failure, max.is_unproven(count), now);
        changed.set(verdict == LossVerdict::Suspected);
        verdict
    }

    /// Records that a session ended over its first request: the server may have failed, or reject
    /// this request alone. The next cycle starts with a scout.
    pub(super) const fn on_first_request_lost(&mut self) {
        self.scouts = self.scouts.saturating_add(1);
    }

    /// Records that all requests of a cycle were answered or refused.
    pub(super) const fn on_complete_cycle(&mut self) {
        // A list that starts with a scout is rebuilt in any case.
        self.scouts = 0;
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
        let context = match self.refusal_context() {
            RefusalContext::NothingAnswered | RefusalContext::Splitting => {
                RefusalContext::Splitting
            }
            RefusalContext::OthersAnswered => RefusalContext::OthersAnswered,
        };
        self.has_answered[0] |= outcomes.iter().any(|outcome| outcome.is_ok());
        let Some((changed, planned, max)) = self.locate(class, &split.whole) else {
            return [AnswerVerdict::Final; 2];
        };
        changed.set(true);
        let SplitRequest { code, count, halves, .. } = split;
        let [left, right] = halves;
        let second_start = right.range.tags.start;
        let verdicts = [(left, outcomes[0]), (right, outcomes[1])].map(|(half, outcome)| {
            let tags = half.range.tags;
            match outcome {
                Ok(_) => {
                    planned.on_answer(&tags, now);
                    max.on_answer(half.request.count, now);
                    AnswerVerdict::Final
                }
                Err(ReadFailure::Refused(code @ (2 | 3))) => planned.on_refused(tags, *code, now).1,
                Err(ReadFailure::Refused(code)) => {
                    planned.on_soft_refusal(tags, *code, context, now).1
                }
                Err(ReadFailure::Unreachable) => {
                    planned.on_half_lost(tags);
                    AnswerVerdict::Final
                }
                // It was not sent, or is to be sent again.
                Err(ReadFailure::Pending | ReadFailure::Busy) => {
                    planned.on_half_not_sent(tags, code);
                    AnswerVerdict::Split
                }
            }
        });
        if outcomes.iter().all(|outcome| outcome.is_ok()) {
            // Answered apart and refused together: the whole was too long, or the PLC refuses what
            // lies between the halves. An illegal address is never a matter of the length.
            let is_length = code != 2 && max.on_too_long(count, LengthCost::Request, now);
            if !is_length {
                planned.add_split_point(second_start, now);
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
        let name = |(index, rejection): (u16, Rejection)| {
            let tag = plc.tags.get(usize::from(index))?;
            Some(QuarantinedTag { tag: tag.name.clone(), at: tag.at.to_string(), rejection })
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
    ) -> Arc<[Result<TagLocation, ReadFailure>]> {
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
        let request_list = RequestList {
            requests: Arc::new([]),
            ranges: Arc::new([]),
            locations: Arc::new([]),
            regular: 0,
            starts_with_scout: false,
        };
        Self { tags, planned, request_list, needs_rebuild: true, next_retry: None }
    }

    fn rebuild(
        &mut self,
        tags: &[Tag],
        (words, bits): (&MaxLength, &MaxLength),
        scouts: usize,
        now: Instant,
    ) {
        let mut budget = ProbeBudget::new(now);
        let mut ranges = Vec::new();
        for (index, planned) in self.planned.iter().enumerate() {
            let max = if planned.table().holds_bits() { bits } else { words };
            let regular = planned.ranges(max, &mut budget).into_iter();
            ranges.extend(regular.map(|tags| TagRange { planned: index, tags }));
        }
        let starts_with_scout = scouts > 0 && !ranges.is_empty();
        if starts_with_scout {
            self.put_scout_first(&mut ranges, scouts);
        }
        let regular = ranges.len();
        for (index, planned) in self.planned.iter().enumerate() {
            let search = planned.search_ranges(now);
            ranges.extend(search.map(|tags| TagRange { planned: index, tags }));
        }
        let request =
            |range: &TagRange| Some(self.planned.get(range.planned)?.request(&range.tags));
        let requests: Vec<_> = ranges.iter().filter_map(request).collect();
        let locations = self.locations(tags, &requests);
        self.needs_rebuild = budget.is_used()
            || starts_with_scout
            || self.planned.iter().any(PlannedRequest::is_searching);
        self.next_retry = self.planned.iter().filter_map(PlannedRequest::next_retry).min();
        let (requests, ranges) = (requests.into(), ranges.into());
        self.request_list = RequestList { requests, ranges, locations, regular, starts_with_scout };
    }

    /// Puts a single slot in front of the other ranges: one that was answered before, else one of
    /// another range each time, and of another place in it.
    fn put_scout_first(&self, ranges: &mut Vec<TagRange>, scouts: usize) {
        let known = ranges.iter().enumerate().find_map(|(index, range)| {
            let planned = self.planned.get(range.planned)?;
            let known = range.tags.clone().find(|position| planned.was_answered(*position));
            Some((index, known?))
        });
        let other = scouts.checked_rem(ranges.len()).unwrap_or_default();
        let index = known.map_or(other, |(index, _)| index);
        let turn = (scouts - 1) / ranges.len().max(1);
        let TagRange { planned, tags: whole } = ranges.remove(index);
        let other = whole.start + spread(turn, whole.len());
        let position = known.map_or(other, |(_, position)| position);
        let parts = [position..position + 1, whole.start..position, position + 1..whole.end];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        ranges.splice(0..0, parts.map(|tags| TagRange { planned, tags }));
    }

    fn locations(
        &self,
        tags: &[Tag],
        requests: &[ReadRequest],
    ) -> Arc<[Result<TagLocation, ReadFailure>]> {
        let mut locations = vec![Err(ReadFailure::Unreachable); self.tags.len()];
        let index = |tag: &u16| self.tags.binary_search(tag).ok();
        for planned in &self.planned {
            for (position, tags) in planned.slots().enumerate() {
                let Some(failure) = planned.quarantine_failure(position) else { continue };
                for slot in tags.iter().filter_map(index) {
                    if let Some(location) = locations.get_mut(slot) {
                        *location = Err(failure);
                    }
                }
            }
        }
        for (result, request) in (0..).zip(requests) {
            for tag in &request.tags {
                let slot = index(tag).and_then(|at| locations.get_mut(at));
                let (Some(slot), Some(tag)) = (slot, tags.get(usize::from(*tag))) else { continue };
                if let Some(offset) = tag.location.first.checked_sub(request.first) {
                    *slot = Ok(TagLocation { result, offset });
                }
            }
        }
        locations.into()
    }
}

/// Returns an index below `len` for each number, so that consecutive ones are far apart: the first,
/// the last, then steps of the golden ratio.
fn spread(number: usize, len: usize) -> usize {
    match number {
        1 => len.saturating_sub(1),
        // 0.618 of the length; any step would do that does not repeat soon. For 0 it is the first.
        _ => (number * (len * 618 / 1000).max(1)) % len.max(1),
    }
}
