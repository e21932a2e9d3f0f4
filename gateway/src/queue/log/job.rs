//! Disk work that may take long: writing, syncing, preparing a file, reading a segment. Jobs run on
//! a thread of their own and never touch the log.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::durability::{FlushPoint, SyncPlan};
use super::file_ops::{FileOp, FileSlot, OpsResult, execute};
use super::segment::{EntryCounts, Segment, file_name};
use super::{Log, recover};
use crate::queue::ledger::Ledger;
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::{Gap, TopicTable, to_u64};

/// Zeros are written in chunks of this length.
const ZERO_CHUNK_BYTES: usize = 64 << 10;

/// Disk work to run on another thread.
#[derive(Debug)]
pub struct DiskJob<S: Storage> {
    storage: S,
    task: DiskTask<S::File>,
}

#[derive(Debug)]
pub(super) enum DiskTask<F> {
    Write { ops: Vec<FileOp<F>>, upto: FlushPoint },
    Sync { plan: SyncPlan<F>, tail: String },
    Prepare { name: String, size: u64 },
    Read { segment: Box<Segment>, ids: Range<u64> },
    Measure,
}

/// The result of a job, and the free space of the file system after it.
#[derive(Debug)]
pub struct DiskJobDone {
    pub(super) result: DiskJobResult,
    pub(super) free_bytes: u64,
}

#[derive(Debug)]
pub(super) enum DiskJobResult {
    Written { upto: FlushPoint, ops: OpsResult },
    Synced { upto: FlushPoint, took: Duration, result: io::Result<()> },
    Prepared { name: String, size: u64, result: io::Result<()> },
    Read { segment: Box<Segment>, ids: Range<u64>, result: io::Result<Vec<u8>> },
    Measured,
}

/// What the end of a job means for the queue.
#[derive(Debug)]
pub(in crate::queue) enum JobOutcome {
    /// Nothing.
    None,
    /// Everything written is durable; the sync took this long.
    Durable(Duration),
    /// The storage failed.
    Failed(io::Error),
    /// A segment was read.
    Read {
        /// Numbers that cannot be read.
        gaps: Vec<Gap>,
        /// Ids that should be there and are not.
        missing: Vec<u64>,
        /// What was stated to wait there and is not there.
        lost: EntryCounts,
        /// Samples that are there and were not stated.
        recovered: u64,
    },
}

impl<S: Storage> DiskJob<S> {
    pub(super) const fn new(storage: S, task: DiskTask<S::File>) -> Self {
        Self { storage, task }
    }

    /// Returns whether the job does not wait for the device, as a rule.
    #[cfg(test)]
    pub(in crate::queue) const fn is_short(&self) -> bool {
        matches!(self.task, DiskTask::Write { .. } | DiskTask::Measure)
    }

    /// Runs the job; takes as long as the device takes.
    #[must_use]
    pub fn run(self) -> DiskJobDone {
        let Self { storage, task } = self;
        let result = match task {
            DiskTask::Write { ops, upto } => {
                DiskJobResult::Written { upto, ops: execute(&storage, ops) }
            }
            DiskTask::Sync { plan: SyncPlan { files, with_names, upto }, tail } => {
                let began = Instant::now();
                let result = sync(&storage, &files, &tail, with_names);
                DiskJobResult::Synced { upto, took: began.elapsed(), result }
            }
            DiskTask::Prepare { name, size } => {
                let result = prepare(&storage, &name, size);
                DiskJobResult::Prepared { name, size, result }
            }
            DiskTask::Read { segment, ids } => {
                let result = recover::read_segment(&storage, segment.number);
                DiskJobResult::Read { segment, ids, result }
            }
            DiskTask::Measure => DiskJobResult::Measured,
        };
        DiskJobDone { result, free_bytes: free_bytes(&storage) }
    }
}

impl<S: Storage> Log<S> {
    /// Returns a job that hands the waiting operations to the operating system; `None` while
    /// another one is running.
    pub(in crate::queue) fn write_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let (ops, upto) = self.take_ops()?;
        self.durability.begin_write(now);
        Some(self.job(DiskTask::Write { ops, upto }))
    }

    /// Hands everything to the operating system before it returns, unless a job is running.
    pub(in crate::queue) fn write_now(&mut self) -> io::Result<()> {
        self.flush();
        let Some((ops, upto)) = self.take_ops() else { return Ok(()) };
        let result = execute(&self.storage, ops);
        self.on_written(upto, result)
    }

    fn take_ops(&mut self) -> Option<(Vec<FileOp<S::File>>, FlushPoint)> {
        if self.durability.is_writing() || !self.files.has_ops() {
            return None;
        }
        let upto = self.durability.flush_point(self.writer.flushed_position());
        Some((self.files.take_ops(), upto))
    }

    fn on_written(&mut self, upto: FlushPoint, ended: OpsResult) -> io::Result<()> {
        self.files.retire_unused(ended.unused);
        if self.durability.on_write_ended(upto) {
            ended.result?;
            self.durability.on_written(upto);
        }
        Ok(())
    }

    /// Returns a job that makes everything written durable; `None` while another one is running.
    pub(in crate::queue) fn sync_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        let (file, number) = self.writer.file()?;
        let plan = self.durability.begin_sync(file, now)?;
        Some(self.job(DiskTask::Sync { plan, tail: file_name(number) }))
    }

    /// Returns a job that prepares the next segment while this one fills; `None` when none is
    /// needed.
    pub(in crate::queue) fn prepare_job(&mut self) -> Option<DiskJob<S>> {
        if !self.writer.is_half_full() {
            return None;
        }
        let name = self.files.next_spare(self.index.segment_bytes())?;
        Some(self.job(DiskTask::Prepare { name, size: self.files.segment_bytes() }))
    }

    /// Returns a job that reads the segment in which this id lies; `None` while another one is
    /// running or the segment is not written.
    pub(in crate::queue) fn read_job(&mut self, id: u64, ledger: &Ledger) -> Option<DiskJob<S>> {
        if self.loader.is_reading() {
            return None;
        }
        self.flush();
        let mut segment = self.index.segment_of(id)?.clone();
        if !self.is_segment_written(segment.number) {
            return None;
        }
        if segment.ends.is_empty() {
            segment.ends.clone_from(&ledger.next_seq);
        }
        let ids = self.index.id_range(segment.number);
        self.loader.begin();
        Some(self.job(DiskTask::Read { segment: Box::new(segment), ids }))
    }

    /// Returns a job that measures the free space of the file system, if no other job has lately.
    pub(in crate::queue) fn measure_job(&mut self, now: Instant) -> Option<DiskJob<S>> {
        // A device that does not answer would hold one more thread.
        if !self.is_writable() || self.durability.waiting_since().is_some() {
            return None;
        }
        self.files.begin_measuring(now).then(|| self.job(DiskTask::Measure))
    }

    fn job(&self, task: DiskTask<S::File>) -> DiskJob<S> {
        DiskJob::new(self.storage.clone(), task)
    }

    /// Records the end of a job.
    pub(in crate::queue) fn on_job_done(
        &mut self,
        done: DiskJobDone,
        topics: &mut TopicTable,
        now: Instant,
    ) -> JobOutcome {
        self.files.on_measured(done.free_bytes, now);
        match done.result {
            DiskJobResult::Written { upto, ops } => {
                self.on_written(upto, ops).map_or_else(JobOutcome::Failed, |()| JobOutcome::None)
            }
            DiskJobResult::Synced { upto, took, result } => {
                match (self.durability.on_sync_ended(upto), result) {
                    (false, _) => JobOutcome::None,
                    (true, Err(error)) => JobOutcome::Failed(error),
                    (true, Ok(())) => {
                        self.durability.on_synced(upto);
                        self.recycle();
                        JobOutcome::Durable(took)
                    }
                }
            }
            DiskJobResult::Prepared { name, size, result } => {
                self.on_prepared(name, size, result);
                JobOutcome::None
            }
            DiskJobResult::Read { segment, ids, result } => {
                self.on_read(&segment, ids, result, topics)
            }
            DiskJobResult::Measured => JobOutcome::None,
        }
    }

    pub(super) fn on_prepared(&mut self, name: String, size: u64, result: io::Result<()>) {
        self.counters.written += if result.is_ok() { size } else { 0 };
        self.files.on_prepared(name, size, result);
    }

    fn on_read(
        &mut self,
        segment: &Segment,
        ids: Range<u64>,
        result: io::Result<Vec<u8>>,
        topics: &mut TopicTable,
    ) -> JobOutcome {
        let Some(bytes) = self.loader.on_read(segment.number, result) else {
            return JobOutcome::None;
        };
        let mut reader = self.reader(segment, bytes, ids, topics);
        let missing = reader.take_missing_ids();
        // Less may wait there than when the job began. And the segment being written is still in
        // the memory of the operating system, where it is not damaged.
        let Some(stated) = self.index.sealed_segment(segment.number).map(|now| now.waiting) else {
            self.loader.set(reader);
            return JobOutcome::None;
        };
        let found = reader.counts();
        let mut lost = stated;
        lost.subtract(found);
        let mut corrected = found;
        corrected.add(EntryCounts { entries: to_u64(missing.len()), ..lost });
        self.index.correct_counts(segment.number, corrected);
        let gaps = if missing.is_empty() { Vec::new() } else { reader.gaps(segment, lost.samples) };
        self.loader.set(reader);
        let recovered = found.samples.saturating_sub(stated.samples);
        JobOutcome::Read { gaps, missing, lost, recovered }
    }
}

/// Returns the free bytes of the file system; `u64::MAX` if they cannot be measured.
pub(super) fn free_bytes<S: Storage>(storage: &S) -> u64 {
    storage.free_space().unwrap_or(u64::MAX)
}

fn sync<S: Storage>(
    storage: &S,
    files: &[FileSlot<S::File>],
    tail: &str,
    with_names: bool,
) -> io::Result<()> {
    // The tail may be begun by a write job that has not run yet: then it has no name so far.
    let is_tail_open = files.last().is_some_and(|tail| tail.get().is_some());
    // First the data, then the names: a name that is durable before its data would prove nothing.
    files.iter().filter_map(|file| file.get()).try_for_each(StoredFile::sync_data)?;
    if with_names {
        storage.sync_dir()?;
    }
    // An open file outlives its removal: syncs would go on to succeed and store nothing.
    match storage.open(tail) {
        Err(error) if is_tail_open && error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other("the files of the queue are gone"))
        }
        _ => Ok(()),
    }
}

/// Writes a file full of zeros. Later writes into it change no metadata, which a sync would have to
/// write as well.
pub(super) fn prepare<S: Storage>(storage: &S, name: &str, size: u64) -> io::Result<()> {
    let file = storage.create(name)?;
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = 0;
    while at < size {
        let len = (size - at).min(to_u64(ZERO_CHUNK_BYTES));
        let zeros = zeros.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
        file.write_at(zeros, at)?;
        at += len;
    }
    // This also makes the length durable, so that later syncs need not.
    file.sync_data()
}
