//! What the answers of a PLC teach about its requests. Pure: `now` is an argument.
//!
//! A joined request that is refused is taken apart until the tags that the PLC refuses stand alone;
//! they go into quarantine and are tried again with growing pauses, never given up. Two stretches
//! that are answered apart and refused together stay apart, and a request that is too long for the
//! PLC becomes shorter; both are tried again too, since one noise may have taught them.

mod block;
pub(super) mod doubt;
mod span;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use provisioning::config::Plc;
use provisioning::plan::{Plan, ReadRequest, ScanClass};
use provisioning::plc::Table;

use super::{Failure, Learned, Outcome, Quarantined};
use block::Block;
use span::{Span, Trials};

/// Everything that was learned about one PLC.
#[derive(Debug)]
pub(super) struct Learning {
    classes: Vec<Class>,
    words: Block,
    bits: Block,
    is_news: bool,
    told: Learned,
}

#[derive(Debug)]
struct Class {
    spans: Vec<Span>,
    agenda: Agenda,
    /// Built anew before the next cycle, because something was learned or is to be tried.
    is_outdated: bool,
    /// Nothing has to be tried again before this.
    next_trial: Option<Instant>,
}

/// The requests of a cycle as far as they are known before it.
#[derive(Clone, Debug)]
pub(super) struct Agenda {
    /// What to send, in this order or rotated.
    pub(super) requests: Arc<[ReadRequest]>,
    /// For each request what it is.
    pub(super) parts: Arc<[Part]>,
}

/// A stretch of neighbouring tags of one request of the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Part {
    span: usize,
    tags: Range<usize>,
}

/// Two requests in place of one that was refused. Both are sent, whatever becomes of the first.
#[derive(Debug)]
pub(super) struct Split {
    whole: Part,
    /// Exception code of the whole.
    code: u8,
    /// Registers or bits of the whole.
    count: u16,
    /// How often the connection broke over it.
    breaks: u8,
    /// The two halves.
    pub(super) halves: [Half; 2],
}

/// One of the two requests of a [`Split`].
#[derive(Debug)]
pub(super) struct Half {
    part: Part,
    /// What to send.
    pub(super) request: ReadRequest,
}

/// What an answer means for the values of the cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is the outcome for all tags of the request.
    Final,
    /// It says nothing about the single tag: the request is going to be taken apart.
    TakenApart,
}

impl Learning {
    pub(super) fn new(plc: &Plc, plan: &Plan) -> Self {
        let classes = plan.classes.iter().map(|class| Class::new(plc, class)).collect();
        let (words, bits) = (Block::default(), Block::default());
        Self { classes, words, bits, is_news: false, told: Learned::default() }
    }

    /// Gives the requests with which a cycle begins; the same ones as before unless something was
    /// learned or is due to be tried again.
    pub(super) fn agenda(&mut self, class: u16, now: Instant) -> Option<Agenda> {
        let trials_length = [&self.words, &self.bits].into_iter().any(|block| block.is_due(now));
        if trials_length {
            self.put_off_idle_trials(now);
        }
        let Self { classes, words, bits, .. } = self;
        let class = classes.get_mut(usize::from(class))?;
        let trials_tags = class.next_trial.is_some_and(|due| due <= now);
        if class.is_outdated || trials_tags || trials_length {
            class.rebuild(words, bits, now);
        }
        Some(class.agenda.clone())
    }

    /// A longer request is only tried where the tags make one.
    fn put_off_idle_trials(&mut self, now: Instant) {
        let Self { classes, words, bits, .. } = self;
        for (block, is_bits) in [(words, false), (bits, true)] {
            let spans = || classes.iter().flat_map(|class| &class.spans);
            let makes_one = |block: &Block, span: &Span| {
                let parts = span.parts(block, &mut Trials::new(now));
                parts.iter().any(|tags| block.is_trial(span.count(tags)))
            };
            let of_kind = |span: &&Span| span.table().holds_bits() == is_bits;
            while block.is_due(now) && !spans().filter(of_kind).any(|span| makes_one(block, span)) {
                block.pass_over(now);
            }
        }
    }

    /// Learns from an answer to a request of the agenda that was sent.
    pub(super) fn heard(
        &mut self,
        class: u16,
        part: &Part,
        outcome: &Outcome,
        now: Instant,
    ) -> Verdict {
        let Some((learned, span, block)) = self.at(class, part) else { return Verdict::Final };
        let count = span.count(&part.tags);
        let (is_news, verdict) = match *outcome {
            Ok(_) => (span.answered(&part.tags, now) | block.answered(count, now), Verdict::Final),
            Err(Failure::Refused(code @ (2 | 3))) => span.refused(part.tags.clone(), code, now),
            Err(Failure::Unreachable) => (span.broke(&part.tags, now), Verdict::Final),
            Err(Failure::Refused(_) | Failure::Pending) => (false, Verdict::Final),
        };
        learned.note(is_news);
        verdict
    }

    /// Learns that the PLC closed the connection in place of an answer: it does so when a request
    /// is too long for it.
    pub(super) fn hung_up(&mut self, class: u16, part: &Part, now: Instant) {
        let Some((learned, span, block)) = self.at(class, part) else { return };
        learned.note(block.hung_up(span.count(&part.tags), part.tags.len(), now));
    }

    /// Gives the next request to take apart.
    pub(super) fn split(&mut self, class: u16) -> Option<Split> {
        let class = self.classes.get_mut(usize::from(class))?;
        class.spans.iter_mut().enumerate().find_map(|(index, span)| span.split(index))
    }

    /// Learns from what became of both halves.
    pub(super) fn halves_heard(
        &mut self,
        class: u16,
        split: Split,
        outcomes: [&Outcome; 2],
        now: Instant,
    ) -> [Verdict; 2] {
        let Some((learned, span, block)) = self.at(class, &split.whole) else {
            return [Verdict::Final; 2];
        };
        learned.note(true);
        if outcomes.iter().any(|outcome| matches!(outcome, Err(Failure::Unreachable))) {
            span.broke_apart(split, now);
            return [Verdict::TakenApart; 2];
        }
        let verdicts = std::array::from_fn(|index| {
            let (Some(half), Some(outcome)) = (split.halves.get(index), outcomes.get(index)) else {
                return Verdict::Final;
            };
            let tags = &half.part.tags;
            match outcome {
                Ok(_) => {
                    span.answered(tags, now);
                    block.answered(half.request.count, now);
                    Verdict::Final
                }
                Err(Failure::Refused(code @ (2 | 3))) => span.refused(tags.clone(), *code, now).1,
                Err(_) => Verdict::Final,
            }
        });
        if outcomes.iter().all(|outcome| outcome.is_ok()) {
            let is_length = split.code == 3 && block.too_long(split.count, now);
            if let [_, right] = &split.halves
                && !is_length
            {
                span.part_at(right.part.tags.start, now);
            }
        }
        verdicts
    }

    /// Requests that are still to be taken apart when a cycle ends.
    pub(super) fn unresolved(&self, class: u16) -> impl Iterator<Item = ReadRequest> {
        let class = self.classes.get(usize::from(class));
        class.into_iter().flat_map(|class| &class.spans).flat_map(Span::unresolved)
    }

    /// A new session: the PLC may hold another program, so what it refused is tried again soon.
    pub(super) fn connected(&mut self, now: Instant) {
        for class in &mut self.classes {
            for span in &mut class.spans {
                class.is_outdated |= span.try_again_soon(now);
            }
        }
    }

    /// What there is to tell if it is not what was told last, without what is on its first trial.
    pub(super) fn take_news(&mut self, plc: &Plc) -> Option<Learned> {
        if !std::mem::take(&mut self.is_news) {
            return None;
        }
        let learned = self.learned(plc);
        (learned != self.told).then(|| {
            self.told = learned.clone();
            learned
        })
    }

    fn learned(&self, plc: &Plc) -> Learned {
        let spans = || self.classes.iter().flat_map(|class| &class.spans);
        let mut quarantined: Vec<_> = spans().flat_map(Span::quarantined).collect();
        quarantined.sort_unstable();
        let name = |(index, code): (usize, u8)| {
            let tag = plc.tags.get(index)?;
            Some(Quarantined { tag: tag.name.clone(), at: tag.at.clone(), code })
        };
        let max_gap = |is_bits: bool| {
            let spans = spans().filter(|span| span.table().holds_bits() == is_bits);
            spans.filter_map(Span::widest_bridge).min()
        };
        // A gap of bits counts as sixteenths in the configuration.
        let bits = max_gap(true).map(|bits| bits / 16);
        Learned {
            quarantined: quarantined.into_iter().filter_map(name).collect(),
            max_words: self.words.limit(),
            max_gap: max_gap(false).into_iter().chain(bits).min(),
        }
    }

    fn at(&mut self, class: u16, part: &Part) -> Option<(Note<'_>, &mut Span, &mut Block)> {
        let Self { classes, words, bits, is_news, .. } = self;
        let Class { spans, is_outdated, .. } = classes.get_mut(usize::from(class))?;
        let span = spans.get_mut(part.span)?;
        let block = if span.table().holds_bits() { bits } else { words };
        Some((Note { is_news, is_outdated }, span, block))
    }
}

/// Takes a note that something was learned, while a span is borrowed.
struct Note<'a> {
    is_news: &'a mut bool,
    is_outdated: &'a mut bool,
}

impl Note<'_> {
    const fn note(self, is_news: bool) {
        *self.is_news |= is_news;
        *self.is_outdated |= is_news;
    }
}

impl Class {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let spans: Vec<_> = class.requests.iter().map(|request| Span::new(plc, request)).collect();
        let agenda = Agenda { requests: Arc::new([]), parts: Arc::new([]) };
        Self { spans, agenda, is_outdated: true, next_trial: None }
    }

    fn rebuild(&mut self, words: &Block, bits: &Block, now: Instant) {
        let mut trials = Trials::new(now);
        let mut parts = Vec::new();
        let mut requests = Vec::new();
        for (index, span) in self.spans.iter().enumerate() {
            let block = if span.table().holds_bits() { bits } else { words };
            for tags in span.parts(block, &mut trials) {
                requests.push(span.request(&tags));
                parts.push(Part { span: index, tags });
            }
        }
        self.agenda = Agenda { requests: requests.into(), parts: parts.into() };
        self.is_outdated = trials.are_any() || self.spans.iter().any(Span::is_searching);
        self.next_trial = self.spans.iter().filter_map(Span::next_trial).min();
    }
}

/// Builds the request for some tags of a table; each is its index, first place and end.
fn request(table: Table, places: &[span::Place]) -> ReadRequest {
    let first = places.iter().map(|place| place.first).min().unwrap_or_default();
    let end = places.iter().map(|place| place.end).max().unwrap_or_default();
    let count = u16::try_from(end.saturating_sub(first.into())).unwrap_or(u16::MAX);
    let mut tags: Vec<usize> = places.iter().flat_map(|place| &place.tags).copied().collect();
    tags.sort_unstable();
    ReadRequest { table, first, count, tags }
}
