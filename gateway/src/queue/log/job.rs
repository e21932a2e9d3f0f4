//! What may take long: writing, making things durable, preparing a file, reading a segment. Jobs run
//! on a thread of their own and never touch the log.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::file_ops::{FileOp, FileSlot, OpsResult, execute};
use super::reader::{SegmentReader, StoredEntry};
use super::recover::{self, MAX_READ_ATTEMPTS};
use super::segment::{Segment, file_name};
use super::{Log, Unsynced};
use crate::queue::ledger::Ledger;
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::{Gap, TopicTable, to_u64};

/// Zeros are written in pieces of this size.
const ZERO_CHUNK_BYTES: usize = 64 << 10;

/// Something to do elsewhere.
#[derive(Debug)]
pub struct DiskJob<S: Storage>(DiskTask<S>);

#[derive(Debug)]
enum DiskTask<S: Storage> {
    Write { storage: S, steps: Vec<FileOp<S::File>>, upto: FlushPoint },
    Sync { storage: S, files: Vec<FileSlot<S::File>>, tail: String, names: bool, upto: FlushPoint },
    Prepare { storage: S, name: String, size: u64 },
    Read { storage: S, segment: Segment, ids: Range<u64> },
}

/// What became of a job.
#[derive(Debug)]
pub struct DiskJobDone(DiskJobResult);

#[derive(Debug)]
enum DiskJobResult {
    Written { upto: FlushPoint, walked: OpsResult },
    Synced { upto: FlushPoint, took: Duration, result: io::Result<()> },
    Prepared { name: String, size: u64, result: io::Result<()> },
    Read { segment: Box<Segment>, ids: Range<u64>, result: io::Result<Vec<u8>> },
}

/// A position, and how often the storage had failed before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FlushPoint {
    failures: u64,
    position: u64,
}

/// Which jobs run.
#[derive(Debug, Default)]
pub(super) struct RunningJobs {
    /// Since when there is something to write that is not written.
    write: Option<Instant>,
    sync: Option<Instant>,
    /// How often the storage failed: what a job says of the time before is not about what is
    /// written now.
    failures: u64,
    prepare: bool,
    /// Whether that failed in this segment: trying again would fail again.
    prepare_failed: bool,
    read: bool,
    /// Attempts to read the segment that is wanted.
    failed_reads: u32,
    prepared: u64,
}

/// What the end of a job brought.
#[derive(Debug)]
pub(in crate::queue) enum JobOutcome {
    /// Nothing that concerns anybody else.
    None,
    /// So long did it take until everything up to a position was durable.
    Durable(Duration),
    /// The storage failed.
    Failed(io::Error),
    /// A segment was read. These cannot be read, and so many samples are there that nobody knew of.
    Read { gaps: Vec<Gap>, ids: Vec<u64>, held: super::EntryCounts, found: u64 },
}

impl RunningJobs {
    pub(super) const fn is_preparing(&self) -> bool {
        self.prepare
    }

    /// A new segment began.
    pub(super) const fn on_new_segment(&mut self) {
        self.prepare_failed = false;
    }

    /// One of them came to no end, and nobody knows which.
    pub(super) const fn on_jobs_lost(&mut self) {
        (self.write, self.sync) = (None, None);
        (self.prepare, self.read) = (false, false);
    }

    pub(super) const fn on_storage_failed(&mut self) {
        self.failures += 1;
    }
}

impl<S: Storage> DiskJob<S> {
    /// Whether it hands something to the operating system, which seldom takes long.
    #[cfg(test)]
    pub(in crate::queue) const fn is_write(&self) -> bool {
        matches!(self.0, DiskTask::Write { .. })
    }

    /// Does it; takes as long as the device takes.
    #[must_use]
    pub fn run(self) -> DiskJobDone {
        DiskJobDone(match self.0 {
            DiskTask::Write { storage, steps, upto } => {
                DiskJobResult::Written { upto, walked: execute(&storage, steps) }
            }
            DiskTask::Sync { storage, files, tail, names, upto } => {
                let began = Instant::now();
                let result = sync(&storage, &files, &tail, names);
                DiskJobResult::Synced { upto, took: began.elapsed(), result }
            }
            DiskTask::Prepare { storage, name, size } => {
                let result = prepare(&storage, &name, size);
                DiskJobResult::Prepared { name, size, result }
            }
            DiskTask::Read { storage, segment, ids } => {
                let result = recover::read_segment(&storage, segment.number);
                DiskJobResult::Read { segment: Box::new(segment), ids, result }
            }
        })
    }
}

/// Files that somebody removed are as good as a device that fails.
fn sync<S: Storage>(
    storage: &S,
    files: &[FileSlot<S::File>],
    tail: &str,
    names: bool,
) -> io::Result<()> {
    files.iter().filter_map(|file| file.get()).try_for_each(StoredFile::sync_data)?;
    if names {
        storage.sync_dir()?;
    }
    match storage.open(tail) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other("the files of the queue are gone"))
        }
        _ => Ok(()),
    }
}

/// Makes a file full of zeros: later writes into it change no metadata that a sync would have to
/// write as well.
pub(super) fn prepare<S: Storage>(storage: &S, name: &str, size: u64) -> io::Result<()> {
    let file = storage.create(name)?;
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = 0;
    while at < size {
        let piece = (size - at).min(to_u64(ZERO_CHUNK_BYTES));
        let zeros = zeros.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or_default();
        file.write_at(zeros, at)?;
        at += piece;
    }
    file.sync_data()
}

impl<S: Storage> Log<S> {
    /// A job that hands to the operating system what waits for it; nothing while one is under way.
    pub(in crate::queue) fn write_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let (steps, upto) = self.take_ops()?;
        self.under_way.write = Some(now);
        Some(DiskJob(DiskTask::Write { storage: self.storage.clone(), steps, upto }))
    }

    /// Hands everything to the operating system before it returns, unless a job is under way.
    pub(in crate::queue) fn write_now(&mut self) -> io::Result<()> {
        self.flush();
        let Some((steps, upto)) = self.take_ops() else { return Ok(()) };
        let walked = execute(&self.storage, steps);
        self.on_written(upto, walked)
    }

    fn take_ops(&mut self) -> Option<(Vec<FileOp<S::File>>, FlushPoint)> {
        if self.under_way.write.is_some() || self.line.is_empty() {
            return None;
        }
        let buffered = self.tail.as_ref().map_or(0, |tail| to_u64(tail.buffer.len()));
        Some((self.line.take(), self.mark_at(self.position - buffered)))
    }

    fn on_written(&mut self, upto: FlushPoint, walked: OpsResult) -> io::Result<()> {
        self.retire_unused(walked.unused);
        if upto.failures != self.under_way.failures {
            return Ok(());
        }
        walked.result?;
        self.written = self.written.max(upto.position);
        Ok(())
    }

    /// A job that makes everything durable that is written; nothing while one is under way.
    pub(in crate::queue) fn sync_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let tail = self.tail.as_ref().filter(|_| self.under_way.sync.is_none())?;
        self.under_way.sync = Some(now);
        let name = file_name(tail.segment.number);
        let dirty = self.dirty.iter().map(|segment| &segment.file).chain([&tail.file]);
        let files = dirty.cloned().collect();
        let upto = self.mark_at(self.written);
        self.syncing.extend(self.dirty.extract_if(.., |segment| segment.end <= upto.position));
        let names = self.renamed.is_some();
        self.renamed = self.renamed.filter(|behind| *behind > upto.position);
        let storage = self.storage.clone();
        Some(DiskJob(DiskTask::Sync { storage, files, tail: name, names, upto }))
    }

    const fn mark_at(&self, position: u64) -> FlushPoint {
        FlushPoint { failures: self.under_way.failures, position }
    }

    /// Whether a job is under way that makes things durable.
    pub(in crate::queue) const fn is_syncing(&self) -> bool {
        self.under_way.sync.is_some()
    }

    /// Since when the device owes an answer.
    pub(in crate::queue) fn waiting_since(&self) -> Option<Instant> {
        self.under_way.write.into_iter().chain(self.under_way.sync).min()
    }

    /// Whether the operating system has everything.
    pub(in crate::queue) fn is_all_written(&self) -> bool {
        self.written == self.position && self.line.is_empty() && self.under_way.write.is_none()
    }

    /// Whether the operating system has the whole segment.
    pub(super) fn is_segment_written(&self, number: u64) -> bool {
        if self.tail.as_ref().is_some_and(|tail| tail.segment.number == number) {
            return self.is_all_written();
        }
        let is_it = |segment: &&Unsynced<_>| segment.number == number;
        self.dirty.iter().find(is_it).is_none_or(|segment| segment.end <= self.written)
    }

    /// A job that prepares the next segment while this one fills; nothing when one is ready.
    pub(in crate::queue) fn prepare_job(&mut self) -> Option<DiskJob<S>> {
        let tail = self.tail.as_ref()?;
        let is_early = tail.end() * 2 < tail.segment.size;
        let is_ready = self.idle.iter().any(|(_, size)| *size == self.limits.segment_bytes);
        let is_tried = self.under_way.prepare || self.under_way.prepare_failed;
        if is_tried || is_early || is_ready || !self.has_room_for_spare() {
            return None;
        }
        self.under_way.prepare = true;
        self.under_way.prepared += 1;
        let name = format!("spare-{:x}-{:x}", self.next_number, self.under_way.prepared);
        Some(DiskJob(DiskTask::Prepare {
            storage: self.storage.clone(),
            name,
            size: self.limits.segment_bytes,
        }))
    }

    /// A job that reads the segment in which this id lies; nothing when it was read.
    pub(in crate::queue) fn read_job(&mut self, id: u64, ledger: &Ledger) -> Option<DiskJob<S>> {
        if self.under_way.read {
            return None;
        }
        self.flush();
        let mut segment = self.segment_mut(id)?.clone();
        if !self.is_segment_written(segment.number) {
            return None;
        }
        if segment.ends.is_empty() {
            segment.ends.clone_from(&ledger.next_seq);
        }
        let ids = self.id_range(segment.number);
        self.under_way.read = true;
        Some(DiskJob(DiskTask::Read { storage: self.storage.clone(), segment, ids }))
    }

    /// The entry with this id, if its segment was read.
    pub(in crate::queue) fn take_entry(
        &mut self,
        id: u64,
        topics: &TopicTable,
    ) -> Option<StoredEntry> {
        self.loaded.as_mut()?.take(id, topics)
    }

    /// Takes what a job brought.
    pub(in crate::queue) fn on_job_done(
        &mut self,
        done: DiskJobDone,
        topics: &mut TopicTable,
    ) -> JobOutcome {
        match done.0 {
            DiskJobResult::Written { upto, walked } => {
                self.under_way.write = None;
                self.on_written(upto, walked).map_or_else(JobOutcome::Failed, |()| JobOutcome::None)
            }
            DiskJobResult::Synced { upto, took, result } => {
                self.under_way.sync = None;
                match result {
                    _ if upto.failures != self.under_way.failures => JobOutcome::None,
                    Ok(()) => {
                        self.syncing.clear();
                        self.synced = self.synced.max(upto.position);
                        self.recycle();
                        self.remove_failing_marker();
                        JobOutcome::Durable(took)
                    }
                    Err(error) => JobOutcome::Failed(error),
                }
            }
            DiskJobResult::Prepared { name, size, result } => {
                self.under_way.prepare = false;
                self.on_prepared(name, size, result);
                JobOutcome::None
            }
            DiskJobResult::Read { segment, ids, result } => {
                self.under_way.read = false;
                self.on_read(&segment, ids, result, topics)
            }
        }
    }

    /// Without a file that is ready the next segment begins in one that grows.
    pub(super) fn on_prepared(&mut self, name: String, size: u64, result: io::Result<()>) {
        let Err(error) = result else {
            self.counts.written += size;
            self.idle.push((name, size));
            return;
        };
        self.under_way.prepare_failed = true;
        tracing::warn!(%error, "cannot prepare the next part of the queue");
        // A file that is not whole is never used.
        self.line.push(FileOp::Remove { name });
    }

    fn on_read(
        &mut self,
        segment: &Segment,
        ids: Range<u64>,
        result: io::Result<Vec<u8>>,
        topics: &mut TopicTable,
    ) -> JobOutcome {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                self.under_way.failed_reads += 1;
                if self.under_way.failed_reads < MAX_READ_ATTEMPTS {
                    return JobOutcome::None;
                }
                let name = file_name(segment.number);
                tracing::warn!(%name, %error, "a part of the queue cannot be read");
                Vec::new()
            }
        };
        self.under_way.failed_reads = 0;
        // What waits there may have become less since the job began; and what is still written is
        // in the memory of the operating system and cannot be damaged yet.
        let mut loaded =
            SegmentReader::new(segment, bytes, ids, &self.waiting_ids, topics, &self.names);
        let Some(now) = self.segments.iter_mut().find(|now| now.number == segment.number) else {
            loaded.missing_ids.clear();
            self.loaded = Some(loaded);
            return JobOutcome::None;
        };
        let tally = loaded.counts();
        let mut held = now.waiting;
        held.subtract(tally);
        let found = tally.samples.saturating_sub(now.waiting.samples);
        now.waiting = tally;
        now.waiting.add(super::EntryCounts { entries: to_u64(loaded.missing_ids.len()), ..held });
        let ids = std::mem::take(&mut loaded.missing_ids);
        let gaps = if ids.is_empty() { Vec::new() } else { loaded.gaps(segment, held.samples) };
        self.loaded = Some(loaded);
        JobOutcome::Read { gaps, ids, held, found }
    }
}
