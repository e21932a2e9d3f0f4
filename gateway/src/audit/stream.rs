//! The numbers of one topic in one epoch of one gateway.

use super::ranges::{self, Ranges, Run};

/// What arrived and what was announced as lost.
#[derive(Debug)]
pub(super) struct SeqStream {
    /// First number that must arrive; nothing is known before the first message.
    start: Option<u64>,
    arrived: Ranges,
    announced: Ranges,
    /// Different messages.
    pub(super) received: u64,
    /// Copies of messages that had arrived before.
    pub(super) duplicates: u64,
    /// Messages that arrived behind a later one.
    pub(super) reordered: u64,
    /// Samples that the announcements name.
    pub(super) announced_samples: u64,
}

impl SeqStream {
    /// A stream that must be complete from 0, or from the first message that arrives.
    pub(super) fn new(from_start: bool) -> Self {
        Self {
            start: from_start.then_some(0),
            arrived: Ranges::default(),
            announced: Ranges::default(),
            received: 0,
            duplicates: 0,
            reordered: 0,
            announced_samples: 0,
        }
    }

    /// Notes a message; returns whether it is here for the first time.
    pub(super) fn on_received(&mut self, seq: u64) -> bool {
        if self.arrived.contains(seq) {
            self.duplicates += 1;
            return false;
        }
        // A lower number than the first does not move the start: after a reconnect only what
        // nobody acknowledged comes again, so what lies between need not.
        self.start.get_or_insert(seq);
        self.reordered += u64::from(self.arrived.last().is_some_and(|last| seq < last));
        self.received += 1;
        self.arrived.insert((seq, seq));
        true
    }

    /// Notes numbers that the gateway says will not come.
    pub(super) fn on_announced(&mut self, run: Run, samples: u64) {
        self.announced.insert(run);
        self.announced_samples = self.announced_samples.saturating_add(samples);
    }

    /// The number at which listening began, when it is not known to be the first of all.
    pub(super) fn joined_at(&self) -> Option<u64> {
        self.start.filter(|start| *start > 0)
    }

    /// Highest number that arrived or was announced.
    pub(super) fn last(&self) -> Option<u64> {
        self.arrived.last().max(self.announced.last())
    }

    /// Numbers that did not arrive and were not announced, below the window of an unclean end.
    pub(super) fn missing(&self, window: Option<u64>) -> Vec<Run> {
        let before = |(start, last): Run| match window {
            Some(window) => window.checked_sub(1).map(|end| (start, last.min(end))),
            None => Some((start, last)),
        };
        let span = self.span().and_then(before).filter(|(start, last)| start <= last);
        span.map_or_else(Vec::new, |span| {
            Ranges::missing_from_both(span, &self.arrived, &self.announced)
        })
    }

    /// How many numbers from this one on did not arrive and were not announced.
    pub(super) fn absent_from(&self, window: u64) -> u64 {
        let below = ranges::total(&self.missing(Some(window)));
        ranges::total(&self.missing(None)).saturating_sub(below)
    }

    /// How many numbers were announced and did not arrive.
    pub(super) fn announced_and_missing(&self) -> u64 {
        let Some(span) = self.span() else {
            return self.announced.count_within((0, u64::MAX));
        };
        let absent = Ranges::missing_from_both(span, &self.arrived, &Ranges::default());
        ranges::total(&absent).saturating_sub(ranges::total(&self.missing(None)))
    }

    /// From the first number that must arrive to the last that is known.
    fn span(&self) -> Option<Run> {
        self.start.zip(self.last())
    }
}
