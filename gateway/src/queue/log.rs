//! A log over recycled files: what is appended waits there until it is settled, in any order.
//!
//! Nothing is written in place. Settling is a record like any other, and the first record of every
//! segment is the state of the whole log, so that a start reads the newest segments only.

mod append;
mod bytes;
mod capacity;
mod checkpoint;
mod entry_codec;
mod failure;
mod file_ops;
mod frame;
mod job;
mod reader;
mod recover;
mod replay;
mod room;
mod segment;
mod start;
mod value_codec;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

pub(super) use self::append::{NewEntry, stored_entry_len};
use self::capacity::Purpose;
use self::checkpoint::{ChainSeq, Checkpoint, RunContext};
use self::file_ops::{FileOp, FileOps, FileSlot};
use self::frame::{FrameKind, Salt, frame_len};
pub(super) use self::job::JobOutcome;
pub use self::job::{DiskJob, DiskJobDone};
pub(super) use self::reader::{SegmentReader, StoredContent, StoredEntry};
use self::segment::Segment;
pub(super) use self::segment::{EntryCounts, SegmentKind};
pub(super) use self::start::{OpenedLog, RunSettings};
use super::ledger::Ledger;
use super::range_set::RangeSet;
use super::storage::Storage;
use super::{ConfigNames, Gap, to_u64};

/// So much is collected before it is handed to the operating system.
const BUFFER_BYTES: usize = 64 << 10;

/// The log. It does no work of its own: whoever owns it asks for jobs and runs them.
#[derive(Debug)]
pub(super) struct Log<S: Storage> {
    storage: S,
    limits: LogLimits,
    names: ConfigNames,
    context: RunContext,
    /// What may wait in each, oldest first, without the one that is written.
    segments: Vec<Segment>,
    /// The segment that is written; nothing while the storage fails.
    tail: Option<Tail<S::File>>,
    /// What is to be done to the files, and waits for a job.
    line: FileOps<S::File>,
    /// Files that may be written over.
    idle: Vec<file_ops::IdleFile>,
    /// Files in which nothing waits, as soon as that is durable.
    retiring: Vec<PendingRecycle>,
    /// Segments among those whose messages moved, and may lie nowhere else on the disk.
    moved: BTreeSet<u64>,
    next_number: u64,
    waiting_ids: RangeSet,
    appended: u64,
    link: ChainSeq,
    /// Whether something that waited was lost: that and what tells it become durable together.
    has_lost: bool,
    /// By segment, what is settled and not written down yet.
    settled: BTreeMap<u64, (RangeSet, EntryCounts)>,
    /// Bytes appended in this run, through all segments.
    position: u64,
    /// How many of them the operating system has.
    written: u64,
    /// How many of them are durable.
    synced: u64,
    /// Full segments that are not durable, and which of them a job is making so.
    dirty: Vec<Unsynced<S::File>>,
    syncing: Vec<Unsynced<S::File>>,
    /// Names are durable when a sync has begun behind this position.
    renamed: Option<u64>,
    loaded: Option<SegmentReader>,
    under_way: job::RunningJobs,
    counts: DiskCounters,
    /// Whether there is a file that says that the storage fails.
    is_marked: bool,
}

/// What the log may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    /// Length of a segment.
    pub(super) segment_bytes: u64,
    /// Of all files.
    pub(super) max_bytes: u64,
    /// What stays free on the file system.
    pub(super) min_free_bytes: u64,
}

/// What happened to the device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct DiskCounters {
    /// Bytes written.
    pub(super) written: u64,
    /// Segments that a newer program wrote.
    pub(super) set_aside: u64,
    /// Segments that could not be read at the start, and might be another time.
    pub(super) unreadable: u64,
}

#[derive(Debug)]
struct Tail<F> {
    file: FileSlot<F>,
    segment: Segment,
    /// Offset of the first byte of the buffer.
    flushed_bytes: u64,
    buffer: Vec<u8>,
    /// PLCs whose names were written since the last repetition.
    declared_plcs: Vec<u16>,
    repeat_at: u64,
    /// Begun for the log's own records when there was no room for data.
    is_reserve: bool,
}

/// A segment that is not durable.
#[derive(Debug)]
struct Unsynced<F> {
    file: FileSlot<F>,
    number: u64,
    /// Positions of its first byte and behind its last.
    from: u64,
    end: u64,
}

#[derive(Debug)]
struct PendingRecycle {
    name: String,
    size: u64,
    /// Position behind the record that says so; nothing while it is not written.
    from: Option<u64>,
}

/// Why nothing was appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing is wrong but the bounds.
    Full,
    /// Nothing is wrong, and files become free with what is under way.
    FullForNow,
    /// The storage fails.
    Failed(io::Error),
}

impl AppendError {
    /// Whether the file system has no room, or no more of it for us.
    pub(super) fn is_disk_full(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl<S: Storage> Log<S> {
    /// Notes that an entry need not be sent any more; does nothing for one that is not here.
    pub(super) fn settle(&mut self, id: u64, held: EntryCounts) {
        if !self.waiting_ids.remove(id) {
            return;
        }
        let Some(segment) = self.segment_mut(id) else { return };
        segment.waiting.subtract(held);
        let (number, is_empty) = (segment.number, segment.waiting.entries == 0);
        let (ids, tally) = self.settled.entry(number).or_default();
        ids.insert(id);
        tally.add(held);
        if is_empty {
            self.retire(number);
        }
    }

    /// As [`Log::settle`], for an entry that is lost and of which the ledger has to tell.
    pub(super) fn settle_lost(&mut self, id: u64, held: EntryCounts) {
        self.settle(id, held);
        self.has_lost = true;
    }

    /// Whether something is settled that no record says.
    pub(super) fn has_settled(&self) -> bool {
        !self.settled.is_empty() || self.has_lost
    }

    /// Corrects the count of the segment that was read last.
    pub(super) fn subtract_samples(&mut self, held: EntryCounts) {
        let number = self.loaded.as_ref().map(|loaded| loaded.number);
        let segment = self.segments.iter_mut().find(|segment| Some(segment.number) == number);
        if let Some(segment) = segment {
            segment.waiting.subtract(EntryCounts { entries: 0, ..held });
        }
    }

    /// Writes down numbers that are lost, as long as no event in the log tells them.
    pub(super) fn append_loss(&mut self, ledger: &Ledger, gap: &Gap) -> Result<(), AppendError> {
        let mut payload = Vec::new();
        self.link.put(&mut payload);
        checkpoint::put_gap(&mut payload, gap);
        self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
        self.append_frame(FrameKind::Lost, |out| out.extend_from_slice(&payload))?;
        self.link = self.link.next();
        Ok(())
    }

    /// Writes down what is settled.
    pub(super) fn append_settled(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        if self.has_lost {
            return self.append_checkpoint(ledger);
        }
        let tail = self.next_number;
        for (number, (ids, held)) in std::mem::take(&mut self.settled) {
            let mut payload = Vec::new();
            checkpoint::put_settled(&mut payload, number, &ids, held);
            self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
            // The first record of a new segment says it already, and twice would be too much.
            if self.next_number != tail {
                break;
            }
            self.append_frame(FrameKind::Settled, |out| out.extend_from_slice(&payload))?;
        }
        let position = self.position;
        self.retiring.iter_mut().for_each(|file| file.from = file.from.or(Some(position)));
        Ok(())
    }

    /// Writes down the whole state.
    pub(super) fn append_checkpoint(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        let mut payload = Vec::new();
        self.current_checkpoint(ledger).put(&mut payload);
        let number = self.next_number;
        self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
        // A new segment begins with one anyway.
        if number == self.next_number {
            self.append_frame(FrameKind::Checkpoint, |out| out.extend_from_slice(&payload))?;
        }
        self.has_lost = false;
        self.settled.clear();
        let position = self.position;
        self.retiring.iter_mut().for_each(|file| file.from = file.from.or(Some(position)));
        Ok(())
    }

    /// Writes the last word of a clean end.
    pub(super) fn append_stop(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        self.append_checkpoint(ledger)?;
        self.ensure_tail_space(ledger, to_u64(frame_len(0)), Purpose::Control)?;
        self.append_frame(FrameKind::Stop, |_| {})
    }

    fn current_checkpoint(&self, ledger: &Ledger) -> Checkpoint {
        let tail = self.tail.as_ref().map(|tail| tail.segment.clone());
        let (gaps, uncleans) = ledger.pending_announcements();
        Checkpoint {
            next_id: ledger.next_id,
            appended: self.appended,
            next_seq: ledger.first_unstored_seqs(),
            waiting: self.waiting_ids.clone(),
            segments: self.segments.iter().cloned().chain(tail).collect(),
            gaps,
            uncleans,
            chain_seq: self.link,
        }
    }

    fn append_frame(
        &mut self,
        kind: FrameKind,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), AppendError> {
        let Some(tail) = &mut self.tail else { return Err(storage_unusable()) };
        let salt = Salt { segment: tail.segment.number, run: self.context.run };
        let before = tail.buffer.len();
        frame::put(&mut tail.buffer, tail.flushed_bytes, salt, kind, write);
        self.position += to_u64(tail.buffer.len() - before);
        if tail.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
        Ok(())
    }

    /// Puts everything appended in line for the operating system.
    pub(super) fn flush(&mut self) {
        let Some(tail) = self.tail.as_mut().filter(|tail| !tail.buffer.is_empty()) else { return };
        let (bytes, at) = (std::mem::take(&mut tail.buffer), tail.flushed_bytes);
        tail.flushed_bytes += to_u64(bytes.len());
        self.counts.written += to_u64(bytes.len());
        self.line.push(FileOp::Write { file: Arc::clone(&tail.file), bytes, at });
    }

    /// The end of what was appended, as a position in the log.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// What the operating system has: a process that is killed does not lose it.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// What is durable, as a position in the log.
    pub(super) const fn synced(&self) -> u64 {
        self.synced
    }

    /// The device takes so long that a power cut may take this many seconds of data: the next run has
    /// to know it.
    pub(super) fn extend_loss_window(&mut self, seconds: u64) {
        if seconds > self.context.power_window {
            self.context.power_window = seconds;
            self.tail.iter_mut().for_each(|tail| tail.repeat_at = 0);
        }
    }

    /// Whether something appended is not durable.
    pub(super) const fn has_unsynced(&self) -> bool {
        self.position > self.synced
    }

    /// How much is not durable.
    pub(super) const fn unsynced_bytes(&self) -> u64 {
        self.position - self.synced
    }

    /// Whether entries can be appended at all.
    pub(super) const fn is_writable(&self) -> bool {
        self.tail.is_some()
    }

    /// The ids of what waits in the log.
    pub(super) const fn waiting_ids(&self) -> &RangeSet {
        &self.waiting_ids
    }

    /// What waits in the log.
    pub(super) fn waiting_counts(&self) -> EntryCounts {
        let mut all = EntryCounts::default();
        let tail = self.tail.iter().map(|tail| &tail.segment);
        self.segments.iter().chain(tail).for_each(|segment| all.add(segment.waiting));
        all
    }

    /// About when the first record that waits was read.
    pub(super) fn oldest_record_at(&self) -> Option<crate::model::UnixTime> {
        let tail = self.tail.iter().map(|tail| &tail.segment);
        let mut waiting =
            self.segments.iter().chain(tail).filter(|segment| segment.waiting.samples > 0);
        waiting.next().and_then(|segment| segment.first_at)
    }

    pub(super) const fn disk_counters(&self) -> DiskCounters {
        self.counts
    }

    fn segment_mut(&mut self, id: u64) -> Option<&mut Segment> {
        match &mut self.tail {
            Some(tail) if tail.segment.first_id <= id => Some(&mut tail.segment),
            _ => self.segments.iter_mut().rev().find(|segment| segment.first_id <= id),
        }
    }
}

impl<F> Tail<F> {
    /// Offset of the next frame.
    fn end(&self) -> u64 {
        self.flushed_bytes + to_u64(self.buffer.len())
    }
}

fn storage_unusable() -> AppendError {
    AppendError::Failed(io::Error::other("the storage is not usable"))
}
