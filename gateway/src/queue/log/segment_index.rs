//! Which ids wait in which segment, and what is settled but not recorded yet. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::segment::{EntryCounts, Segment, SegmentKind};
use crate::model::UnixTime;
use crate::queue::TopicId;
use crate::queue::range_set::{NumberRange, RangeSet};

/// Segments in which something waits, and the ids that wait in them.
#[derive(Debug, Default)]
pub(in crate::queue) struct SegmentIndex {
    /// Full segments in which something waits, oldest first.
    sealed: Vec<Segment>,
    /// The segment being written; `None` while the storage fails.
    active: Option<Segment>,
    waiting: RangeSet,
    /// Sum of what waits in all segments.
    total: EntryCounts,
    /// One above the highest id in the log.
    next_id: u64,
    /// Ids settled since the last record about them, by segment.
    settled: BTreeMap<u64, (RangeSet, EntryCounts)>,
    /// Whether an entry was lost since the last checkpoint.
    has_lost: bool,
}

/// The number and the length of a segment in which nothing waits any more.
pub(super) type Emptied = (u64, u64);

impl SegmentIndex {
    /// Returns the index of the segments that a start has found.
    pub(super) fn new(sealed: Vec<Segment>, waiting: RangeSet, next_id: u64) -> Self {
        let mut total = EntryCounts::default();
        sealed.iter().for_each(|segment| total.add(segment.waiting));
        Self { sealed, waiting, total, next_id, ..Self::default() }
    }

    pub(super) const fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(in crate::queue) const fn waiting_ids(&self) -> &RangeSet {
        &self.waiting
    }

    pub(in crate::queue) const fn total(&self) -> EntryCounts {
        self.total
    }

    /// Returns all segments, oldest first, the one being written last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().chain(&self.active)
    }

    /// Returns the length of all segments in bytes.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.all().map(|segment| segment.size).sum()
    }

    /// Returns the numbers of the sealed segments, oldest first, and what waits in them.
    pub(in crate::queue) fn sealed(&self) -> impl DoubleEndedIterator<Item = (u64, SegmentKind)> {
        self.sealed.iter().map(|segment| (segment.number, segment.kind()))
    }

    /// Returns how many bytes wait in a sealed segment.
    pub(in crate::queue) fn waiting_bytes(&self, number: u64) -> u64 {
        self.sealed_segment(number).map_or(0, |segment| segment.waiting.bytes)
    }

    /// Returns whether nothing waits in the segment being written.
    pub(super) fn is_active_empty(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.waiting.entries == 0)
    }

    pub(super) fn newest_sealed(&self) -> Option<u64> {
        self.sealed.iter().map(|segment| segment.number).max()
    }

    pub(super) fn sealed_segment(&self, number: u64) -> Option<&Segment> {
        self.sealed.iter().find(|segment| segment.number == number)
    }

    /// Returns the segment in which this id lies.
    pub(super) fn segment_of(&self, id: u64) -> Option<&Segment> {
        let active = self.active.as_ref().filter(|active| active.first_id <= id);
        active.or_else(|| self.sealed.iter().rev().find(|segment| segment.first_id <= id))
    }

    /// Returns the ids that lie in a segment.
    pub(in crate::queue) fn id_range(&self, number: u64) -> Range<u64> {
        let mut from = self.all().skip_while(|segment| segment.number != number);
        let start = from.next().map_or(0, |segment| segment.first_id);
        start..from.next().map_or(self.next_id, |segment| segment.first_id)
    }

    /// Returns about when the first record that waits was read.
    pub(in crate::queue) fn oldest_record_at(&self) -> Option<UnixTime> {
        self.all().find(|segment| segment.waiting.samples > 0)?.first_at
    }

    /// Records an entry at the end of the segment being written.
    pub(super) fn on_appended(&mut self, id: u64, counts: EntryCounts, at: Option<UnixTime>) {
        self.next_id = self.next_id.max(id + 1);
        self.waiting.insert(id);
        if let Some(active) = &mut self.active {
            active.first_at = active.first_at.or(at);
            active.waiting.add(counts);
            self.total.add(counts);
        }
    }

    /// Records that an entry is done with. Returns its segment if that is now empty.
    pub(super) fn settle(&mut self, id: u64, counts: EntryCounts) -> Option<Emptied> {
        let (number, emptied) = self.remove(id, counts)?;
        let (ids, sum) = self.settled.entry(number).or_default();
        ids.insert(id);
        sum.add(counts);
        emptied
    }

    /// Takes an entry back that was not durable when the storage failed. Returns its segment if
    /// that is now empty.
    pub(super) fn withdraw(&mut self, id: u64, counts: EntryCounts) -> Option<Emptied> {
        let removed = self.remove(id, counts);
        self.next_id = self.next_id.min(id);
        removed?.1
    }

    /// Removes a waiting id. Returns the number of its segment, and that segment if it is sealed
    /// and now empty.
    fn remove(&mut self, id: u64, counts: EntryCounts) -> Option<(u64, Option<Emptied>)> {
        if !self.waiting.remove(id) {
            return None;
        }
        let segment = match &mut self.active {
            Some(active) if active.first_id <= id => active,
            _ => self.sealed.iter_mut().rev().find(|segment| segment.first_id <= id)?,
        };
        self.total.subtract(segment.waiting);
        segment.waiting.subtract(counts);
        self.total.add(segment.waiting);
        let (number, is_empty) = (segment.number, segment.waiting.entries == 0);
        Some((number, is_empty.then(|| self.take_sealed(number)).flatten()))
    }

    fn take_sealed(&mut self, number: u64) -> Option<Emptied> {
        let at = self.sealed.iter().position(|segment| segment.number == number)?;
        let segment = self.sealed.remove(at);
        self.total.subtract(segment.waiting);
        Some((number, segment.size))
    }

    /// Changes what waits in a segment, and the sum with it.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut EntryCounts)) {
        let mut all = self.sealed.iter_mut().chain(&mut self.active);
        let Some(segment) = all.find(|segment| segment.number == number) else { return };
        self.total.subtract(segment.waiting);
        change(&mut segment.waiting);
        self.total.add(segment.waiting);
    }

    /// Corrects what waits in a sealed segment by what a read has found there.
    pub(super) fn correct_counts(&mut self, number: u64, counts: EntryCounts) {
        self.change(number, |waiting| *waiting = counts);
    }

    /// Subtracts samples that a segment was believed to hold.
    pub(super) fn subtract_samples(&mut self, number: u64, samples: u64) {
        let counts = EntryCounts { samples, ..EntryCounts::default() };
        self.change(number, |waiting| waiting.subtract(counts));
    }

    /// Shortens a sealed segment whose file was cut off.
    pub(super) fn shrink(&mut self, number: u64, size: u64) {
        let sealed = self.sealed.iter_mut().find(|segment| segment.number == number);
        sealed.into_iter().for_each(|segment| segment.size = segment.size.min(size));
    }

    /// Removes everything that waits in a sealed segment. Returns the ids that lay there, and the
    /// segment.
    pub(super) fn drop_segment(&mut self, number: u64) -> (Option<NumberRange>, Option<Emptied>) {
        let ids = self.id_range(number);
        let last = ids.end.checked_sub(1).filter(|last| *last >= ids.start);
        let range = last.map(|last| (ids.start, last));
        range.into_iter().for_each(|range| self.waiting.remove_range(range));
        self.has_lost = true;
        (range, self.take_sealed(number))
    }

    /// Removes the ids of segments that are damaged as a whole. Returns how many samples they held.
    pub(super) fn drop_damaged(&mut self, damaged: &[Segment]) -> u64 {
        for segment in damaged {
            let behind = self.sealed.iter().find(|other| other.first_id > segment.first_id);
            let end = behind.map_or(self.next_id, |segment| segment.first_id);
            if end > segment.first_id {
                self.waiting.remove_range((segment.first_id, end - 1));
            }
        }
        damaged.iter().map(|segment| segment.waiting.samples).sum()
    }

    /// Makes this the segment being written. What was settled or lost before stands in the
    /// checkpoint at its beginning.
    pub(super) fn begin(&mut self, segment: Segment) {
        self.on_checkpoint();
        self.active = Some(segment);
    }

    /// Ends the segment being written, with the next number of each topic. Returns it if nothing
    /// waits in it.
    pub(super) fn seal(&mut self, ends: &BTreeMap<TopicId, u64>) -> Option<Emptied> {
        let mut segment = self.active.take()?;
        segment.ends.clone_from(ends);
        if segment.waiting.entries > 0 {
            self.sealed.push(segment);
            return None;
        }
        Some((segment.number, segment.size))
    }

    /// Records that an entry was lost: the next record has to be a checkpoint, in which the loss
    /// and its announcement become durable together.
    pub(super) const fn on_lost(&mut self) {
        self.has_lost = true;
    }

    pub(super) const fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// Returns whether something is settled or lost that no record states.
    pub(super) fn has_unrecorded(&self) -> bool {
        !self.settled.is_empty() || self.has_lost
    }

    /// Returns what was settled since the last record, by segment, and forgets it.
    pub(super) fn take_settled(&mut self) -> BTreeMap<u64, (RangeSet, EntryCounts)> {
        std::mem::take(&mut self.settled)
    }

    /// Records that a checkpoint states everything.
    pub(super) fn on_checkpoint(&mut self) {
        self.settled.clear();
        self.has_lost = false;
    }

    /// Returns the segments in which something waits, with the end of the one being written.
    pub(super) fn to_seal(&self, ends: &BTreeMap<TopicId, u64>) -> Vec<Segment> {
        let mut active = self.active.clone();
        active.iter_mut().for_each(|segment| segment.ends.clone_from(ends));
        let all = self.sealed.iter().cloned().chain(active);
        all.filter(|segment| segment.waiting.entries > 0).collect()
    }

    /// Returns a segment that continues this log, not yet begun.
    pub(super) fn next_segment(
        &self,
        number: u64,
        epoch: &Arc<str>,
        starts: BTreeMap<TopicId, u64>,
    ) -> Segment {
        let (first_id, epoch) = (self.next_id, Arc::clone(epoch));
        Segment { number, first_id, epoch, starts, ..Segment::default() }
    }
}
