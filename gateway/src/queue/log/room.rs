//! Files in and out: a new segment, a full one, one that may be written over.

use std::ops::Range;
use std::sync::Arc;

use super::append::CONTEXT_REPEAT_BYTES;
use super::capacity::Purpose;
use super::file_ops::{FileOp, FileSlot, IdleFile};
use super::frame::{self, FrameKind, Salt};
use super::reader::SegmentReader;
use super::recover::{self, MAX_READ_ATTEMPTS};
use super::segment::{Segment, SegmentKind, file_name, segment_number};
use super::{AppendError, Log, PendingRecycle, Tail, Unsynced};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;
use crate::queue::{TopicTable, to_u64};

/// Files that are kept for the next segments; the rest is given back to the file system. One more than
/// the reserve: where others fill the file system, what is written goes into what was given up.
const MAX_IDLE_FILES: usize = 3;
/// Files are whole sectors.
const SECTOR_BYTES: u64 = 512;

impl<S: Storage> Log<S> {
    /// Makes sure that a frame of this length fits into the tail.
    pub(super) fn ensure_tail_space(
        &mut self,
        ledger: &Ledger,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let Some(tail) = &self.tail else { return Err(super::storage_unusable()) };
        let fits = tail.end() + bytes <= tail.segment.size;
        if fits && (purpose != Purpose::Data || !tail.is_reserve || self.has_reserve()) {
            return Ok(());
        }
        self.begin_segment(ledger, bytes, purpose)
    }

    /// Begins the next segment, for a frame of at least so many bytes. When there is no room
    /// nothing has changed.
    pub(super) fn begin_segment(
        &mut self,
        ledger: &Ledger,
        least: u64,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        self.check_capacity(purpose, self.limits.segment_bytes)?;
        self.flush();
        let mut segment = Segment {
            number: self.next_number,
            first_id: self.appended,
            epoch: Arc::clone(&self.context.epoch),
            starts: ledger.first_unstored_seqs(),
            ..Segment::default()
        };
        let buffer = self.preamble(ledger, &segment);
        let needed = (to_u64(buffer.len()) + least).next_multiple_of(SECTOR_BYTES);
        segment.size = self.limits.segment_bytes.max(needed);
        self.check_capacity(purpose, segment.size)?;
        let is_reserve = self.check_capacity(Purpose::Data, segment.size).is_err();
        let file = self.take_segment_file(file_name(segment.number), segment.size);
        self.next_number += 1;
        if let Some(old) = self.tail.take() {
            if old.segment.waiting.entries > 0 {
                let (end, number) = (old.end(), old.segment.number);
                let from = self.position - end;
                self.dirty.push(Unsynced { file: old.file, number, from, end: self.position });
            }
            self.seal(old.segment, ledger);
        }
        self.settled.clear();
        self.has_lost = false;
        self.under_way.on_new_segment();
        self.position += to_u64(buffer.len());
        let repeat_at = to_u64(buffer.len()) + CONTEXT_REPEAT_BYTES;
        self.renamed = Some(self.position);
        let declared = Vec::new();
        self.tail = Some(Tail {
            file,
            segment,
            flushed_bytes: 0,
            buffer,
            declared_plcs: declared,
            repeat_at,
            is_reserve,
        });
        let position = self.position;
        self.retiring.iter_mut().for_each(|file| file.from = file.from.or(Some(position)));
        Ok(())
    }

    /// The first bytes of a segment: whose it is, twice, and the state of the log.
    fn preamble(&self, ledger: &Ledger, segment: &Segment) -> Vec<u8> {
        let salt = Salt { segment: segment.number, run: self.context.run };
        let mut state = self.current_checkpoint(ledger);
        if let (Some(last), Some(_)) = (state.segments.last_mut(), &self.tail) {
            last.ends.clone_from(&ledger.next_seq);
        }
        state.segments.retain(|segment| segment.waiting.entries > 0);
        state.segments.push(segment.clone());
        let mut out = frame::header().to_vec();
        frame::put(&mut out, 0, salt, FrameKind::Context, |out| self.context.put(out));
        frame::put(&mut out, 0, salt, FrameKind::Checkpoint, |out| state.put(out));
        frame::put(&mut out, 0, salt, FrameKind::Context, |out| self.context.put(out));
        out
    }

    /// A file of this name and size: one that may be written over, or a new one.
    fn take_segment_file(&mut self, name: String, size: u64) -> FileSlot<S::File> {
        let place = self.idle.iter().position(|(_, idle)| *idle == size);
        let over = place.map(|place| self.idle.swap_remove(place));
        let file = FileSlot::default();
        self.line.push(FileOp::Open { name, over, file: Arc::clone(&file) });
        file
    }

    /// Files that were to be written over and were not count, and are free some time.
    pub(super) fn retire_unused(&mut self, left: Vec<IdleFile>) {
        let retiring = |(name, size)| PendingRecycle { name, size, from: None };
        self.retiring.extend(left.into_iter().map(retiring));
    }

    pub(super) fn seal(&mut self, mut segment: Segment, ledger: &Ledger) {
        segment.ends.clone_from(&ledger.next_seq);
        if segment.waiting.entries > 0 {
            self.segments.push(segment);
        } else {
            let name = file_name(segment.number);
            self.retiring.push(PendingRecycle { name, size: segment.size, from: None });
        }
    }

    /// Nothing waits in this segment any more.
    pub(super) fn retire(&mut self, number: u64) {
        let place = self.segments.iter().position(|segment| segment.number == number);
        let Some(place) = place else { return };
        let segment = self.segments.remove(place);
        let name = file_name(segment.number);
        self.retiring.push(PendingRecycle { name, size: segment.size, from: None });
        if self.loaded.as_ref().is_some_and(|loaded| loaded.number == number) {
            self.loaded = None;
        }
    }

    /// Frees the files whose retirement is durable.
    pub(in crate::queue) fn recycle(&mut self) {
        let synced = self.synced;
        let is_done = |file: &mut PendingRecycle| file.from.is_some_and(|from| from <= synced);
        let done: Vec<PendingRecycle> = self.retiring.extract_if(.., is_done).collect();
        for PendingRecycle { name, size, .. } in done {
            if self.is_reusable(size) {
                self.idle.push((name, size));
            } else {
                self.line.push(FileOp::Remove { name });
            }
        }
        if self.retiring.is_empty() {
            self.moved.clear();
        }
    }

    /// Whether a file of this length is kept when nothing waits in it.
    pub(super) fn is_reusable(&self, size: u64) -> bool {
        size == self.limits.segment_bytes && self.idle.len() < MAX_IDLE_FILES
    }

    /// Makes room where not a byte is free: takes back the largest file in which nothing waits,
    /// although that is not durable and cannot be written down either. A crash right now finds it
    /// damaged. Whether there was one.
    pub(in crate::queue) fn reclaim_file(&mut self) -> bool {
        let Some(place) = self.find_reclaimable(|number| !self.moved.contains(&number)) else {
            return false;
        };
        let PendingRecycle { name, size, .. } = self.retiring.swap_remove(place);
        if size == self.limits.segment_bytes {
            self.idle.push((name, size));
            return true;
        }
        self.line.push(FileOp::Remove { name });
        true
    }

    /// Whether a file is left in which nothing waits: giving up one more would change nothing.
    pub(in crate::queue) fn has_reclaimable_file(&self) -> bool {
        self.find_reclaimable(|_| true).is_some()
    }

    /// The messages of a segment that was given up have moved.
    pub(in crate::queue) fn mark_messages_moved(&mut self, number: u64) {
        self.moved.insert(number);
    }

    /// Never the newest segment: it proves that there was this run, and that others are done with.
    fn find_reclaimable(&self, may_go: impl Fn(u64) -> bool) -> Option<usize> {
        let number = |file: &PendingRecycle| segment_number(&file.name).filter(|_| file.size > 0);
        let sealed = self.segments.iter().map(|segment| segment.number);
        let newest = self.retiring.iter().filter_map(number).chain(sealed).max();
        let is_old = |file: &PendingRecycle| {
            file.size > 0 && number(file).is_none_or(|own| Some(own) != newest && may_go(own))
        };
        let old = self.retiring.iter().enumerate().filter(|(_, file)| is_old(file));
        old.max_by_key(|(_, file)| file.size).map(|(place, _)| place)
    }

    /// Numbers of the full segments in which something waits, oldest first, and what that is.
    pub(in crate::queue) fn sealed_segments(
        &self,
    ) -> impl DoubleEndedIterator<Item = (u64, SegmentKind)> {
        self.segments.iter().map(|segment| (segment.number, segment.kind()))
    }

    /// Whether telemetry waits anywhere in it.
    pub(in crate::queue) fn has_telemetry(&self) -> bool {
        self.waiting_counts().samples > 0
    }

    /// The ids that lie in a segment.
    pub(in crate::queue) fn id_range(&self, number: u64) -> Range<u64> {
        let tail = self.tail.iter().map(|tail| &tail.segment);
        let mut from =
            self.segments.iter().chain(tail).skip_while(|segment| segment.number != number);
        let start = from.next().map_or(0, |segment| segment.first_id);
        start..from.next().map_or(self.appended, |segment| segment.first_id)
    }

    /// Reads a whole segment at once, to give it up.
    pub(in crate::queue) fn read_for_eviction(
        &self,
        number: u64,
        topics: &mut TopicTable,
    ) -> Option<(SegmentReader, super::EntryCounts)> {
        let segment = self.segments.iter().find(|segment| segment.number == number)?;
        if !self.is_segment_written(number) {
            return None;
        }
        // What cannot be read is missing, and the caller counts it.
        let read = || recover::read_segment(&self.storage, number).ok();
        let bytes = (0..MAX_READ_ATTEMPTS).find_map(|_| read()).unwrap_or_default();
        let ids = self.id_range(number);
        let loaded =
            SegmentReader::new(segment, bytes, ids, &self.waiting_ids, topics, &self.names);
        Some((loaded, segment.waiting))
    }

    /// What cannot be read in a segment that was read, as gaps.
    pub(in crate::queue) fn unreadable_gaps(
        &self,
        loaded: &SegmentReader,
    ) -> Vec<crate::queue::Gap> {
        let segment = self.segments.iter().find(|segment| segment.number == loaded.number);
        segment.map_or_else(Vec::new, |segment| {
            let lost = segment.waiting.samples.saturating_sub(loaded.counts().samples);
            loaded.gaps(segment, lost)
        })
    }

    /// Gives up everything that waits in a segment, and names the ids that lay there.
    pub(in crate::queue) fn drop_segment(&mut self, number: u64) -> Option<(u64, u64)> {
        let ids = self.id_range(number);
        let last = ids.end.checked_sub(1).filter(|last| *last >= ids.start);
        let run = last.map(|last| (ids.start, last));
        run.into_iter().for_each(|run| self.waiting_ids.remove_range(run));
        self.has_lost = true;
        self.retire(number);
        run
    }
}
