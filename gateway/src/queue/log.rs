//! A log in files that are used again: entries wait in it until they are settled, in any order.
//! docs/decisions/0007 says why it is as it is.
//!
//! Nothing is overwritten in place. That an entry is settled is a record like any other, and the
//! first record of every segment is a checkpoint of the whole log, so that a start reads the newest
//! segments only.

mod bytes;
mod checkpoint;
mod durability;
mod entry_codec;
mod file_ops;
mod file_set;
mod frame;
mod job;
mod loader;
mod reader;
mod recover;
mod replay;
mod segment;
mod segment_index;
mod start;
mod value_codec;
mod writer;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use self::checkpoint::Checkpoint;
use self::durability::DurabilityTracker;
pub(super) use self::entry_codec::StoredContent;
use self::file_ops::FileOp;
pub(super) use self::file_set::LogLimits;
use self::file_set::{FileSet, Purpose};
use self::frame::{FrameKind, Salt, frame_len};
pub(super) use self::job::JobOutcome;
pub use self::job::{DiskJob, DiskJobDone};
use self::loader::SegmentLoader;
use self::reader::Today;
pub(super) use self::reader::{SegmentReader, StoredEntry};
use self::recover::MAX_READ_ATTEMPTS;
use self::segment::Segment;
pub(super) use self::segment::{EntryCounts, SegmentKind};
use self::segment_index::{Emptied, SegmentIndex};
pub(super) use self::start::{LastRun, OpenedLog, RunSettings};
pub(super) use self::writer::{NewEntry, stored_entry_len};
use self::writer::{TailSpace, Unsynced, Writer};
use super::ledger::Ledger;
use super::range_set::NumberRange;
use super::storage::Storage;
use super::{Entry, Gap, TopicTable, to_u64};

/// Files are multiples of a sector long.
const SECTOR_BYTES: u64 = 512;

/// The log. It does no I/O of its own but at the start: its owner asks for jobs and runs them.
#[derive(Debug)]
pub(super) struct Log<S: Storage> {
    storage: S,
    files: FileSet<S::File>,
    writer: Writer<S::File>,
    durability: DurabilityTracker<S::File>,
    index: SegmentIndex,
    loader: SegmentLoader,
    counters: DiskCounters,
}

/// What happened to the files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct DiskCounters {
    /// Bytes written.
    pub(super) written: u64,
    /// Files of a newer version, set aside at the start.
    pub(super) newer_version_files: u64,
    /// Files that could not be read at the start, set aside.
    pub(super) unreadable_files: u64,
}

/// Where an entry was appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// Bytes on the disk.
    pub(super) bytes: u64,
    /// The entry is durable when the log is durable up to this position.
    pub(super) position: u64,
}

/// Why nothing was appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// `max_size` leaves no room.
    Full,
    /// The file system leaves no room, although `max_size` does.
    DiskFull,
    /// There is no room until the running jobs have freed files.
    FullForNow,
    /// The storage fails.
    Failed(io::Error),
}

impl AppendError {
    /// Returns whether the file system is full, or the quota of this user is used up.
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

/// Appending.
impl<S: Storage> Log<S> {
    /// Appends an entry. Its id must be above all ids appended before.
    pub(super) fn append(
        &mut self,
        ledger: &Ledger,
        new: &NewEntry<'_>,
    ) -> Result<Appended, AppendError> {
        let payload = self.writer.encode(new);
        let bytes = to_u64(frame_len(payload.len()));
        self.ensure_entry_space(ledger, bytes, new.entry)?;
        let kind = match new.entry {
            Entry::Record(_) => FrameKind::Record,
            Entry::Message(_) => FrameKind::Message,
        };
        self.writer.append_chained(kind, &payload)?;
        self.flush_full_buffer();
        let counts = EntryCounts { entries: 1, samples: new.entry.sample_count(), bytes };
        self.index.on_appended(new.id, counts, new.entry.at());
        Ok(Appended { bytes, position: self.writer.position() })
    }

    /// Makes sure that an entry can be appended now.
    pub(super) fn reserve_for_entry(
        &mut self,
        ledger: &Ledger,
        entry: &Entry,
    ) -> Result<(), AppendError> {
        self.ensure_entry_space(ledger, stored_entry_len(entry), entry)
    }

    /// Makes sure that the tail has room for the frame of an entry and states the names it needs.
    fn ensure_entry_space(
        &mut self,
        ledger: &Ledger,
        bytes: u64,
        entry: &Entry,
    ) -> Result<(), AppendError> {
        let purpose = match entry {
            Entry::Record(_) => Purpose::Data,
            Entry::Message(_) => Purpose::Message,
        };
        self.ensure_tail_space(ledger, bytes + self.writer.declaration_len(entry), purpose)?;
        self.writer.declare(entry)
    }

    /// Appends numbers that are lost, as long as no event in the log announces them.
    pub(super) fn append_loss(&mut self, ledger: &Ledger, gap: &Gap) -> Result<(), AppendError> {
        let mut payload = Vec::new();
        self.writer.chain_seq().put(&mut payload);
        checkpoint::put_gap(&mut payload, gap);
        self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
        self.writer.append_chained(FrameKind::Lost, &payload)?;
        self.flush_full_buffer();
        Ok(())
    }

    /// Appends what is settled.
    pub(super) fn append_settled(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        // A loss and what announces it must become durable together: one checkpoint states both.
        if self.index.has_lost() {
            return self.append_checkpoint(ledger);
        }
        let next_number = self.files.next_number();
        for (number, (ids, counts)) in self.index.take_settled() {
            let mut payload = Vec::new();
            checkpoint::put_settled(&mut payload, number, &ids, counts);
            self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
            // The checkpoint of a new segment states it already; counted twice it would be wrong.
            if self.files.next_number() != next_number {
                break;
            }
            self.append_frame(FrameKind::Settled, &payload)?;
        }
        self.files.on_recorded(self.writer.position());
        Ok(())
    }

    /// Appends the state of the whole log.
    pub(super) fn append_checkpoint(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        let mut payload = Vec::new();
        let segments = self.index.all().cloned().collect();
        self.checkpoint(ledger, segments).put(&mut payload);
        let next_number = self.files.next_number();
        self.ensure_tail_space(ledger, to_u64(frame_len(payload.len())), Purpose::Control)?;
        // A new segment begins with a checkpoint.
        if self.files.next_number() == next_number {
            self.append_frame(FrameKind::Checkpoint, &payload)?;
        }
        self.index.on_checkpoint();
        self.files.on_recorded(self.writer.position());
        Ok(())
    }

    /// Appends the record of a clean shutdown.
    pub(super) fn append_stop(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        self.append_checkpoint(ledger)?;
        self.ensure_tail_space(ledger, to_u64(frame_len(0)), Purpose::Control)?;
        // Last of all: a shutdown is clean if no frame follows this one.
        self.append_frame(FrameKind::Stop, &[])
    }

    fn append_frame(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), AppendError> {
        self.writer.append(kind, |_, out| out.extend_from_slice(payload))?;
        self.flush_full_buffer();
        Ok(())
    }

    fn checkpoint(&self, ledger: &Ledger, segments: Vec<Segment>) -> Checkpoint {
        let (gaps, uncleans) = ledger.pending_announcements();
        Checkpoint {
            next_id: ledger.next_id,
            appended: self.index.next_id(),
            next_seq: ledger.first_unstored_seqs(),
            waiting: self.index.waiting_ids().clone(),
            segments,
            gaps,
            uncleans,
            chain_seq: self.writer.chain_seq(),
        }
    }

    /// Makes sure that a frame of this length fits into the tail.
    fn ensure_tail_space(
        &mut self,
        ledger: &Ledger,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        if !self.writer.is_open() {
            return Err(storage_unusable());
        }
        if self.tail_room(purpose) >= bytes {
            return Ok(());
        }
        match self.begin_segment(ledger, bytes, purpose) {
            // Nothing waits in the tail: the next segment replaces it and takes no more space.
            Err(AppendError::DiskFull)
                if self.index.is_active_empty() && self.files.can_begin_file() =>
            {
                self.begin_segment(ledger, bytes, Purpose::Control)
            }
            result => result,
        }
    }

    /// Returns how many bytes fit into the segment being written.
    fn tail_room(&self, purpose: Purpose) -> u64 {
        let used = self.index.segment_bytes();
        if purpose == Purpose::Data && self.writer.is_reserve() && !self.files.has_reserve(used) {
            return 0;
        }
        let (margin, growth) = self.files.tail_limits(purpose);
        self.writer.room(margin, growth)
    }

    /// Begins the next segment, with room for a frame of `min_bytes`. Changes nothing when there is
    /// no room for it.
    fn begin_segment(
        &mut self,
        ledger: &Ledger,
        min_bytes: u64,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let used = self.index.segment_bytes();
        self.files.check_capacity(purpose, self.files.segment_bytes(), used)?;
        // Operations are executed in order: the rest of the old segment precedes the new file.
        self.flush();
        let (number, epoch) = (self.files.next_number(), &self.writer.context().epoch);
        let mut segment = self.index.next_segment(number, epoch, ledger.first_unstored_seqs());
        let preamble = self.preamble(ledger, &segment);
        let needed = (to_u64(preamble.len()) + min_bytes).next_multiple_of(SECTOR_BYTES);
        segment.size = self.files.segment_bytes().max(needed);
        self.files.check_capacity(purpose, segment.size, used)?;
        let is_reserve = self.files.check_capacity(Purpose::Data, segment.size, used).is_err();
        let (file, is_allocated) = self.files.begin_segment(segment.size);
        let old = self.writer.close();
        match self.index.seal(&ledger.next_seq) {
            // Nothing waits in it, so that nothing of it has to become durable.
            Some(emptied) => self.files.retire_segment(emptied),
            None => old.into_iter().for_each(|old| self.durability.on_sealed(old)),
        }
        self.writer.begin(file, &segment, preamble, TailSpace { is_allocated, is_reserve });
        self.index.begin(segment);
        self.durability.on_renamed(self.writer.position());
        self.files.on_recorded(self.writer.position());
        Ok(())
    }

    /// Returns the first bytes of a segment: the context, twice, and a checkpoint.
    fn preamble(&self, ledger: &Ledger, segment: &Segment) -> Vec<u8> {
        let context = self.writer.context();
        let salt = Salt { segment: segment.number, run: context.run };
        let mut segments = self.index.to_seal(&ledger.next_seq);
        segments.push(segment.clone());
        let checkpoint = self.checkpoint(ledger, segments);
        let mut out = frame::header().to_vec();
        // Without a context no frame can be decoded, so there are two: damage to one loses nothing.
        frame::put(&mut out, 0, salt, FrameKind::Context, |out| context.put(out));
        frame::put(&mut out, 0, salt, FrameKind::Checkpoint, |out| checkpoint.put(out));
        frame::put(&mut out, 0, salt, FrameKind::Context, |out| context.put(out));
        out
    }

    fn flush_full_buffer(&mut self) {
        if self.writer.is_buffer_full() {
            self.flush();
        }
    }

    /// Queues everything appended for the next write job.
    pub(super) fn flush(&mut self) {
        if let Some((op, len)) = self.writer.flush() {
            self.counters.written += len;
            self.files.push_op(op);
            if !self.writer.is_allocated() {
                self.files.on_grown(len);
            }
        }
    }
}

/// Settling, and reading back.
impl<S: Storage> Log<S> {
    /// Records that an entry need not be sent any more; does nothing for one that is not in the
    /// log.
    pub(super) fn settle(&mut self, id: u64, counts: EntryCounts) {
        let emptied = self.index.settle(id, counts);
        emptied.into_iter().for_each(|emptied| self.retire(emptied));
    }

    /// Records, like [`Log::settle`], an entry that is lost and that the ledger has to announce.
    pub(super) fn settle_lost(&mut self, id: u64, counts: EntryCounts) {
        self.settle(id, counts);
        self.index.on_lost();
    }

    fn retire(&mut self, emptied: Emptied) {
        self.files.retire_segment(emptied);
        self.loader.forget(emptied.0);
    }

    /// Returns whether something is settled or lost that no record states.
    pub(super) fn has_settled(&self) -> bool {
        self.index.has_unrecorded()
    }

    /// Subtracts samples from the segment that was read last: fewer are there than it stated.
    pub(super) fn subtract_samples(&mut self, samples: u64) {
        if let Some(number) = self.loader.number() {
            self.index.subtract_samples(number, samples);
        }
    }

    /// Reads a whole segment at once, to evict it; `None` while it is not written.
    pub(super) fn read_for_eviction(
        &self,
        number: u64,
        topics: &mut TopicTable,
    ) -> Option<(SegmentReader, EntryCounts)> {
        let segment = self.index.sealed_segment(number)?;
        if !self.durability.is_segment_written(number) {
            return None;
        }
        // What cannot be read is missing, and the caller counts it.
        let read = |_| recover::read_segment(&self.storage, number).ok();
        let bytes = (0..MAX_READ_ATTEMPTS).find_map(read).unwrap_or_default();
        Some((self.reader(segment, bytes, self.index.id_range(number), topics), segment.waiting))
    }

    fn reader(
        &self,
        segment: &Segment,
        bytes: Vec<u8>,
        ids: Range<u64>,
        topics: &mut TopicTable,
    ) -> SegmentReader {
        let now = Today { names: self.writer.names(), boot: &self.writer.context().boot };
        SegmentReader::new(segment, bytes, ids, self.index.waiting_ids(), topics, &now)
    }

    /// Returns the numbers that cannot be read in a segment that was read.
    pub(super) fn unreadable_gaps(&self, reader: &SegmentReader) -> Vec<Gap> {
        self.index.sealed_segment(reader.number()).map_or_else(Vec::new, |segment| {
            let lost = segment.waiting.samples.saturating_sub(reader.counts().samples);
            reader.gaps(segment, lost)
        })
    }

    /// Removes everything that waits in a segment. Returns the ids that lay there.
    pub(super) fn drop_segment(&mut self, number: u64) -> Option<NumberRange> {
        let (range, emptied) = self.index.drop_segment(number);
        emptied.into_iter().for_each(|emptied| self.retire(emptied));
        range
    }

    /// Records that the messages of an evicted segment were moved to the end of the log.
    pub(super) fn on_messages_moved(&mut self, number: u64) {
        self.files.on_messages_moved(number);
    }

    /// Frees the largest file in which nothing waits, although that is not durable. Returns whether
    /// there was one.
    pub(super) fn reclaim_file(&mut self) -> bool {
        self.files.reclaim(self.index.newest_sealed())
    }

    /// Returns whether any file is left in which nothing waits.
    pub(super) fn has_reclaimable_file(&self) -> bool {
        self.files.has_reclaimable(self.index.newest_sealed())
    }

    /// Frees the files of which it is durable that nothing waits in them.
    pub(super) fn recycle(&mut self) {
        self.files.recycle(self.durability.synced());
    }

    /// Returns the entry with this id, if its segment was read.
    pub(super) fn take_entry(&mut self, id: u64, topics: &TopicTable) -> Option<StoredEntry> {
        self.loader.take_entry(id, topics)
    }
}

/// Questions.
impl<S: Storage> Log<S> {
    /// Returns what waits in the log, and where.
    pub(super) const fn index(&self) -> &SegmentIndex {
        &self.index
    }

    /// Returns how far the log is written and durable.
    pub(super) const fn durability(&self) -> &DurabilityTracker<S::File> {
        &self.durability
    }

    /// Returns the end of what was appended, as a position in the log.
    pub(super) const fn position(&self) -> u64 {
        self.writer.position()
    }

    /// Returns how many bytes appended are not durable.
    pub(super) const fn unsynced_bytes(&self) -> u64 {
        self.writer.position() - self.durability.synced()
    }

    /// Returns whether anything appended is not durable.
    pub(super) const fn has_unsynced(&self) -> bool {
        self.unsynced_bytes() > 0
    }

    /// Returns whether entries can be appended; not while the storage fails.
    pub(super) const fn is_writable(&self) -> bool {
        self.writer.is_open()
    }

    pub(super) const fn disk_counters(&self) -> DiskCounters {
        self.counters
    }

    /// Returns how many bytes of telemetry can be appended before something has to be evicted.
    pub(super) fn appendable_bytes(&self) -> u64 {
        let files = self.files.appendable_bytes(self.index.segment_bytes());
        self.tail_room(Purpose::Data) + files
    }

    /// Returns whether telemetry fits for a while. More than one entry: a state that changed with
    /// each would be reported each time.
    pub(super) fn has_telemetry_room(&self) -> bool {
        self.appendable_bytes() * 2 >= self.files.segment_bytes()
    }

    /// Returns whether messages of this size, in bytes, fit into the segment being written.
    pub(super) fn has_message_room(&self, bytes: u64) -> bool {
        self.tail_room(Purpose::Message) >= bytes
    }

    /// Returns whether what waits exceeds the limit: another run may have had another one.
    pub(super) fn exceeds_limit(&self) -> bool {
        self.files.exceeds_limit(self.index.segment_bytes())
    }

    /// Returns whether the operating system has everything.
    pub(super) const fn is_all_written(&self) -> bool {
        self.durability.written() == self.writer.position()
            && !self.files.has_ops()
            && !self.durability.is_writing()
    }

    /// Returns whether the operating system has a segment as a whole.
    fn is_segment_written(&self, number: u64) -> bool {
        match self.writer.file() {
            Some((_, tail)) if tail == number => self.is_all_written(),
            _ => self.durability.is_segment_written(number),
        }
    }
}

/// A storage that fails.
impl<S: Storage> Log<S> {
    /// Records that jobs ended without a result; [`Log::on_storage_failed`] has to follow.
    pub(super) fn on_jobs_lost(&mut self) {
        self.durability.on_jobs_lost();
        self.files.on_jobs_lost();
        self.loader.on_jobs_lost();
    }

    /// Ends the segment being written after an error. What was appended and is not durable has to
    /// be appended again, after [`Log::withdraw`].
    pub(super) fn on_storage_failed(&mut self, ledger: &Ledger) {
        let synced = self.durability.synced();
        self.files.on_storage_failed(synced);
        let mut unsynced = self.durability.on_storage_failed();
        unsynced.extend(self.writer.close());
        let emptied = self.index.seal(&ledger.next_seq);
        emptied.into_iter().for_each(|emptied| self.files.retire_segment(emptied));
        unsynced.iter().for_each(|segment| self.truncate_unsynced(segment));
        self.writer.rewind(synced);
    }

    /// Cuts off what is not durable. After a failed sync Linux takes the pages for clean: the next
    /// process would read them, sync them with success, and lose them with the power.
    fn truncate_unsynced(&mut self, segment: &Unsynced<S::File>) {
        let size = self.durability.synced().saturating_sub(segment.start);
        self.files.push_op(FileOp::Truncate { file: Arc::clone(&segment.file), size });
        self.index.shrink(segment.number, size);
        self.files.shrink(segment.number, size);
    }

    /// Takes an entry back that was not durable when the storage failed.
    pub(super) fn withdraw(&mut self, id: u64, counts: EntryCounts) {
        let emptied = self.index.withdraw(id, counts);
        emptied.into_iter().for_each(|emptied| self.retire(emptied));
    }

    /// Begins a new segment after the storage failed.
    pub(super) fn begin_after_failure(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        self.files.remove_empty(self.writer.context().run);
        self.begin_segment(ledger, 0, Purpose::Control)
    }

    /// Continues under another epoch: nothing of this run is durable.
    pub(super) fn change_epoch(&mut self, epoch: Arc<str>) {
        self.writer.change_epoch(epoch, self.files.next_number());
    }

    /// Records that a power cut may cost this many seconds of data: the next run has to announce
    /// it.
    pub(super) fn extend_loss_window(&mut self, seconds: u64) {
        self.writer.extend_loss_window(seconds);
    }

    /// Marks the storage as failing for the next run: entries are in the memory of this one alone.
    pub(super) fn mark_failing(&mut self) {
        self.files.mark_failing();
    }

    /// Removes the marker of a failing storage: everything is durable again.
    pub(super) fn remove_failing_marker(&mut self) {
        if self.files.remove_failing_marker() {
            // The removal is done by the next write, so that the sync behind it makes it durable.
            self.durability.on_renamed(self.writer.position() + 1);
        }
    }
}

fn storage_unusable() -> AppendError {
    AppendError::Failed(io::Error::other("the storage is not usable"))
}
