//! The numbers of one topic in one epoch of one gateway.

use super::unreachable::UnreachableTracker;
use crate::queue::{NumberRange, RangeSet};

/// What arrived and what was announced as lost.
#[derive(Debug)]
pub(super) struct SeqStream {
    /// First number that must arrive; `None` before the first message.
    start: Option<u64>,
    arrived: RangeSet,
    announced: RangeSet,
    /// Different messages that arrived.
    pub(super) received: u64,
    /// Copies of messages that had arrived before.
    pub(super) duplicates: u64,
    /// Messages that arrived behind a later one.
    pub(super) reordered: u64,
    /// Samples that the announcements name.
    pub(super) announced_samples: u64,
    /// When values were unreachable.
    pub(super) unreachable: UnreachableTracker,
}

impl SeqStream {
    /// Returns a stream that must be complete from number 0, or from the first message that
    /// arrives.
    pub(super) fn new(from_start: bool) -> Self {
        Self {
            start: from_start.then_some(0),
            arrived: RangeSet::default(),
            announced: RangeSet::default(),
            received: 0,
            duplicates: 0,
            reordered: 0,
            announced_samples: 0,
            unreachable: UnreachableTracker::default(),
        }
    }

    /// Records a message. Returns whether it arrived for the first time.
    pub(super) fn on_received(&mut self, seq: u64) -> bool {
        if self.arrived.contains(seq) {
            self.duplicates += 1;
            return false;
        }
        // A lower number than the first does not move the start: after a reconnect only messages
        // without an acknowledgement come again, so those between need not.
        self.start.get_or_insert(seq);
        self.reordered += u64::from(self.arrived.last().is_some_and(|last| seq < last));
        self.received += 1;
        self.arrived.insert(seq);
        true
    }

    /// Records numbers that the gateway announces as lost.
    pub(super) fn on_announced(&mut self, range: NumberRange, samples: u64) {
        self.announced.insert_range(range);
        self.announced_samples = self.announced_samples.saturating_add(samples);
    }

    /// Returns the number at which listening began; `None` when that was the first of all.
    pub(super) fn joined_at(&self) -> Option<u64> {
        self.start.filter(|start| *start > 0)
    }

    /// Returns the highest number that arrived or was announced.
    pub(super) fn last(&self) -> Option<u64> {
        self.arrived.last().max(self.announced.last())
    }

    /// Returns the numbers that did not arrive and were not announced, below the window of an
    /// unclean shutdown.
    pub(super) fn missing(&self, window: Option<u64>) -> RangeSet {
        let mut missing = self.not_arrived();
        missing.remove_all(&self.announced);
        window.into_iter().for_each(|window| missing.remove_range((window, u64::MAX)));
        missing
    }

    /// Returns how many numbers from this one on did not arrive and were not announced.
    pub(super) fn absent_from(&self, window: u64) -> u64 {
        self.missing(None).count().saturating_sub(self.missing(Some(window)).count())
    }

    /// Returns how many numbers were announced and did not arrive.
    pub(super) fn announced_and_missing(&self) -> u64 {
        if self.start.is_none() {
            return self.announced.count();
        }
        self.not_arrived().count().saturating_sub(self.missing(None).count())
    }

    /// Returns the numbers that did not arrive, from the first that must to the last that is known.
    fn not_arrived(&self) -> RangeSet {
        let known = self.start.zip(self.last());
        let mut numbers: RangeSet = known.into_iter().collect();
        numbers.remove_all(&self.arrived);
        numbers
    }
}
