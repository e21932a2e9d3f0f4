//! What the answers of a PLC teach about its requests. Pure: `now` is an argument.
//!
//! A joined request that is refused is taken apart until the tags that the PLC refuses stand alone;
//! they go into quarantine and are tried again with growing pauses, never given up. Two stretches
//! that are answered apart and refused together stay apart, and a request that is too long for the
//! PLC becomes shorter; both are tried again too, since one noise may have taught them.

mod max_len;
mod planned_request;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::Plc;
use provisioning::plan::{Plan, ReadRequest, ScanClass};
use provisioning::plc::Table;

use super::{LearnedLimits, QuarantinedTag, ReadFailure, ReadOutcome};
use max_len::MaxLength;
use planned_request::{PlannedRequest, ProbeBudget};

/// Everything that was learned about one PLC.
#[derive(Debug)]
pub(super) struct RequestTuner {
    classes: Vec<TunedClass>,
    max_words: MaxLength,
    max_bits: MaxLength,
    has_changed: bool,
    last_reported: LearnedLimits,
}

#[derive(Debug)]
struct TunedClass {
    planned: Vec<PlannedRequest>,
    request_list: RequestList,
    /// Built anew before the next cycle, because something was learned or is to be tried.
    needs_rebuild: bool,
    /// Nothing has to be tried again before this.
    next_retry: Option<Instant>,
}

/// The requests of a cycle as far as they are known before it.
#[derive(Clone, Debug)]
pub(super) struct RequestList {
    /// What to send, in this order or rotated.
    pub(super) requests: Arc<[ReadRequest]>,
    /// For each request what it is.
    pub(super) ranges: Arc<[TagRange]>,
}

/// A stretch of neighbouring tags of one request of the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TagRange {
    planned: usize,
    tags: Range<usize>,
}

/// Two requests in place of one that was refused. Both are sent, whatever becomes of the first.
#[derive(Debug)]
pub(super) struct SplitRequest {
    whole: TagRange,
    /// Exception code of the whole.
    code: u8,
    /// Registers or bits of the whole.
    count: u16,
    /// How often the connection broke over it.
    breaks: u8,
    /// The two halves.
    pub(super) halves: [SplitHalf; 2],
}

/// One of the two requests of a [`Split`].
#[derive(Debug)]
pub(super) struct SplitHalf {
    part: TagRange,
    /// What to send.
    pub(super) request: ReadRequest,
}

/// What an answer means for the values of the cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AnswerVerdict {
    /// It is the outcome for all tags of the request.
    Final,
    /// It says nothing about the single tag: the request is going to be taken apart.
    Split,
}

impl RequestTuner {
    pub(super) fn new(plc: &Plc, plan: &Plan) -> Self {
        let classes = plan.classes.iter().map(|class| TunedClass::new(plc, class)).collect();
        let (words, bits) = (MaxLength::default(), MaxLength::default());
        Self {
            classes,
            max_words: words,
            max_bits: bits,
            has_changed: false,
            last_reported: LearnedLimits::default(),
        }
    }

    /// Gives the requests with which a cycle begins; the same ones as before unless something was
    /// learned or is due to be tried again.
    pub(super) fn next_requests(&mut self, class: u16, now: Instant) -> Option<RequestList> {
        let trials_length =
            [&self.max_words, &self.max_bits].into_iter().any(|block| block.is_trial_due(now));
        if trials_length {
            self.skip_idle_trials(now);
        }
        let Self { classes, max_words: words, max_bits: bits, .. } = self;
        let class = classes.get_mut(usize::from(class))?;
        let trials_tags = class.next_retry.is_some_and(|due| due <= now);
        if class.needs_rebuild || trials_tags || trials_length {
            class.rebuild(words, bits, now);
        }
        Some(class.request_list.clone())
    }

    /// A longer request is only tried where the tags make one.
    fn skip_idle_trials(&mut self, now: Instant) {
        let Self { classes, max_words: words, max_bits: bits, .. } = self;
        for (block, is_bits) in [(words, false), (bits, true)] {
            let spans = || classes.iter().flat_map(|class| &class.planned);
            let makes_one = |block: &MaxLength, span: &PlannedRequest| {
                let parts = span.ranges(block, &mut ProbeBudget::new(now));
                parts.iter().any(|tags| block.exceeds_limit(span.count(tags)))
            };
            let of_kind = |span: &&PlannedRequest| span.table().holds_bits() == is_bits;
            while block.is_trial_due(now)
                && !spans().filter(of_kind).any(|span| makes_one(block, span))
            {
                block.skip_trial(now);
            }
        }
    }

    /// Learns from an answer to a request of the agenda that was sent.
    pub(super) fn on_answer(
        &mut self,
        class: u16,
        part: &TagRange,
        outcome: &ReadOutcome,
        now: Instant,
    ) -> AnswerVerdict {
        let Some((learned, span, block)) = self.locate(class, part) else {
            return AnswerVerdict::Final;
        };
        let count = span.count(&part.tags);
        let (is_news, verdict) = match *outcome {
            Ok(_) => (
                span.on_answer(&part.tags, now) | block.on_answer(count, now),
                AnswerVerdict::Final,
            ),
            Err(ReadFailure::Refused(code @ (2 | 3))) => {
                span.on_refused(part.tags.clone(), code, now)
            }
            Err(ReadFailure::Unreachable) => {
                (span.on_broken(&part.tags, now), AnswerVerdict::Final)
            }
            Err(ReadFailure::Refused(_) | ReadFailure::Pending) => (false, AnswerVerdict::Final),
        };
        learned.set(is_news);
        verdict
    }

    /// Learns that the PLC closed the connection in place of an answer: it does so when a request
    /// is too long for it.
    pub(super) fn on_peer_close(&mut self, class: u16, part: &TagRange, now: Instant) {
        let Some((learned, span, block)) = self.locate(class, part) else { return };
        learned.set(block.on_peer_close(span.count(&part.tags), part.tags.len(), now));
    }

    /// Gives the next request to take apart.
    pub(super) fn next_split(&mut self, class: u16) -> Option<SplitRequest> {
        let class = self.classes.get_mut(usize::from(class))?;
        class.planned.iter_mut().enumerate().find_map(|(index, span)| span.next_split(index))
    }

    /// Learns from what became of both halves.
    pub(super) fn on_split_answers(
        &mut self,
        class: u16,
        split: SplitRequest,
        outcomes: [&ReadOutcome; 2],
        now: Instant,
    ) -> [AnswerVerdict; 2] {
        let Some((learned, span, block)) = self.locate(class, &split.whole) else {
            return [AnswerVerdict::Final; 2];
        };
        learned.set(true);
        if outcomes.iter().any(|outcome| matches!(outcome, Err(ReadFailure::Unreachable))) {
            span.on_split_broken(split, now);
            return [AnswerVerdict::Split; 2];
        }
        let verdicts = std::array::from_fn(|index| {
            let (Some(half), Some(outcome)) = (split.halves.get(index), outcomes.get(index)) else {
                return AnswerVerdict::Final;
            };
            let tags = &half.part.tags;
            match outcome {
                Ok(_) => {
                    span.on_answer(tags, now);
                    block.on_answer(half.request.count, now);
                    AnswerVerdict::Final
                }
                Err(ReadFailure::Refused(code @ (2 | 3))) => {
                    span.on_refused(tags.clone(), *code, now).1
                }
                Err(_) => AnswerVerdict::Final,
            }
        });
        if outcomes.iter().all(|outcome| outcome.is_ok()) {
            let is_length = split.code == 3 && block.on_too_long(split.count, now);
            if let [_, right] = &split.halves
                && !is_length
            {
                span.add_split_point(right.part.tags.start, now);
            }
        }
        verdicts
    }

    /// Requests that are still to be taken apart when a cycle ends.
    pub(super) fn unresolved_requests(&self, class: u16) -> impl Iterator<Item = ReadRequest> {
        let class = self.classes.get(usize::from(class));
        class
            .into_iter()
            .flat_map(|class| &class.planned)
            .flat_map(PlannedRequest::unresolved_requests)
    }

    /// A new session: the PLC may hold another program, so what it refused is tried again soon.
    pub(super) fn retry_quarantined(&mut self, now: Instant) {
        for class in &mut self.classes {
            for span in &mut class.planned {
                class.needs_rebuild |= span.retry_quarantined(now);
            }
        }
    }

    /// What there is to tell if it is not what was told last, without what is on its first trial.
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
        let spans = || self.classes.iter().flat_map(|class| &class.planned);
        let mut quarantined: Vec<_> = spans().flat_map(PlannedRequest::quarantined).collect();
        quarantined.sort_unstable();
        let name = |(index, code): (usize, u8)| {
            let tag = plc.tags.get(index)?;
            Some(QuarantinedTag { tag: tag.name.clone(), at: tag.at.clone(), exception: code })
        };
        let max_gap = |is_bits: bool| {
            let spans = spans().filter(|span| span.table().holds_bits() == is_bits);
            spans.filter_map(PlannedRequest::widest_safe_gap).min()
        };
        // A gap of bits counts as sixteenths in the configuration.
        let bits = max_gap(true).map(|bits| bits / 16);
        LearnedLimits {
            quarantined: quarantined.into_iter().filter_map(name).collect(),
            max_words: self.max_words.max_len(),
            max_gap: max_gap(false).into_iter().chain(bits).min(),
        }
    }

    fn locate(
        &mut self,
        class: u16,
        part: &TagRange,
    ) -> Option<(ChangedFlag<'_>, &mut PlannedRequest, &mut MaxLength)> {
        let Self { classes, max_words: words, max_bits: bits, has_changed: is_news, .. } = self;
        let TunedClass { planned: spans, needs_rebuild: is_outdated, .. } =
            classes.get_mut(usize::from(class))?;
        let span = spans.get_mut(part.planned)?;
        let block = if span.table().holds_bits() { bits } else { words };
        Some((ChangedFlag { is_news, is_outdated }, span, block))
    }
}

/// Takes a note that something was learned, while a span is borrowed.
struct ChangedFlag<'a> {
    is_news: &'a mut bool,
    is_outdated: &'a mut bool,
}

impl ChangedFlag<'_> {
    const fn set(self, is_news: bool) {
        *self.is_news |= is_news;
        *self.is_outdated |= is_news;
    }
}

impl TunedClass {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let spans: Vec<_> =
            class.requests.iter().map(|request| PlannedRequest::new(plc, request)).collect();
        let agenda = RequestList { requests: Arc::new([]), ranges: Arc::new([]) };
        Self { planned: spans, request_list: agenda, needs_rebuild: true, next_retry: None }
    }

    fn rebuild(&mut self, words: &MaxLength, bits: &MaxLength, now: Instant) {
        let mut trials = ProbeBudget::new(now);
        let mut parts = Vec::new();
        let mut requests = Vec::new();
        for (index, span) in self.planned.iter().enumerate() {
            let block = if span.table().holds_bits() { bits } else { words };
            for tags in span.ranges(block, &mut trials) {
                requests.push(span.request(&tags));
                parts.push(TagRange { planned: index, tags });
            }
        }
        self.request_list = RequestList { requests: requests.into(), ranges: parts.into() };
        self.needs_rebuild =
            trials.is_used() || self.planned.iter().any(PlannedRequest::has_unresolved);
        self.next_retry = self.planned.iter().filter_map(PlannedRequest::next_retry).min();
    }
}

/// Builds the request for some tags of a table; each is its index, first place and end.
fn join_slots(table: Table, places: &[planned_request::TagSlot]) -> ReadRequest {
    let first = places.iter().map(|place| place.first).min().unwrap_or_default();
    let end = places.iter().map(|place| place.end).max().unwrap_or_default();
    let count = u16::try_from(end.saturating_sub(first.into())).unwrap_or(u16::MAX);
    let mut tags: Vec<usize> = places.iter().flat_map(|place| &place.tags).copied().collect();
    tags.sort_unstable();
    ReadRequest { table, first, count, tags }
}
