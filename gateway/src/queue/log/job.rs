//! Disk work that may take long: writing, syncing, preparing a file, reading a segment. Jobs run on a
//! thread of their own and never touch the log.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::durability::{FlushPoint, SyncPlan};
use super::file_ops::{FileOp, FileSlot, OpsResult, execute};
use super::recover;
use super::segment::{EntryCounts, Segment};
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::{Gap, to_u64};

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

/// Returns the free bytes of the file system; one that does not tell has room.
pub(super) fn free_bytes<S: Storage>(storage: &S) -> u64 {
    storage.free_space().unwrap_or(u64::MAX)
}

fn sync<S: Storage>(
    storage: &S,
    files: &[FileSlot<S::File>],
    tail: &str,
    with_names: bool,
) -> io::Result<()> {
    // First the data, then the names: a name that is durable before its data would prove nothing.
    files.iter().filter_map(|file| file.get()).try_for_each(StoredFile::sync_data)?;
    if with_names {
        storage.sync_dir()?;
    }
    // An open file outlives its removal: syncs would go on to succeed and store nothing.
    match storage.open(tail) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
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
    file.sync_data()
}
