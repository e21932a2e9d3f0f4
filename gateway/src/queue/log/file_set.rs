//! The files of the log without the segment being written: those that may be overwritten, those
//! that will be, what is still to be done to them, and how many there may be.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::AppendError;
use super::file_ops::{FileOp, FileOps, FileSlot, IdleFile};
use super::segment::{FAILING_MARKER, file_name, segment_number};
use crate::queue::to_u64;

/// Segments that stay free for the log's own records: without them it could not even record that an
/// entry was delivered.
const RESERVE_SEGMENTS: u64 = 2;
/// Idle files kept for the next segments; more are removed. One more than the reserve, so that the
/// log can go on in files of its own when other programs fill the file system.
const MAX_IDLE_FILES: usize = 3;
/// Pause between two measurements of the free space when no other job brings one.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of the log.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct LogLimits {
    /// Length of a segment.
    pub(in crate::queue) segment_bytes: u64,
    /// Length of all files together.
    pub(in crate::queue) max_bytes: u64,
    /// Bytes of the file system that telemetry leaves free.
    pub(in crate::queue) min_free_bytes: u64,
}

/// What a segment is begun for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Telemetry, within the limits.
    Data,
    /// Events and replies. They may use the first half of the reserve, so that telemetry is evicted
    /// for them only when that half is full of them.
    Message,
    /// The log's own records. They may use the whole reserve, and exceed it where nothing else is
    /// left: they are what frees files.
    Control,
}

/// Files of the log, without the segment being written.
#[derive(Debug)]
pub(super) struct FileSet<F> {
    limits: LogLimits,
    next_number: u64,
    /// Operations that wait for a job, in order.
    ops: FileOps<F>,
    /// Files that may be overwritten.
    idle: Vec<IdleFile>,
    /// Files in which nothing waits, until that is durable.
    pending: Vec<PendingRecycle>,
    /// Segments among those whose messages were moved and may exist nowhere else on the disk.
    moved: BTreeSet<u64>,
    spare: Spare,
    /// Files prepared so far; makes their names unique.
    prepared: u64,
    space: FreeSpace,
    /// Whether the marker of a failing storage exists.
    has_failing_marker: bool,
}

#[derive(Debug)]
struct PendingRecycle {
    name: String,
    size: u64,
    /// Position behind the record that frees it; `None` while that is not written.
    from: Option<u64>,
}

/// The file prepared for the next segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spare {
    /// None is being prepared.
    None,
    Preparing,
    /// Preparing failed during this segment; another attempt would fail as well.
    Failed,
}

/// Free bytes of the file system, as the last job has measured them.
#[derive(Clone, Copy, Debug)]
struct FreeSpace {
    bytes: u64,
    measured_at: Instant,
    is_measuring: bool,
}

impl Purpose {
    /// Returns the number of segments that must stay free in addition to the one that is begun.
    const fn reserve_segments(self) -> u64 {
        match self {
            Self::Data => RESERVE_SEGMENTS,
            Self::Message => RESERVE_SEGMENTS - 1,
            Self::Control => 0,
        }
    }
}

impl<F> FileSet<F> {
    pub(super) fn new(
        limits: LogLimits,
        next_number: u64,
        has_failing_marker: bool,
        now: Instant,
    ) -> Self {
        Self {
            limits,
            next_number,
            ops: FileOps::default(),
            idle: Vec::new(),
            pending: Vec::new(),
            moved: BTreeSet::new(),
            spare: Spare::None,
            prepared: 0,
            space: FreeSpace { bytes: 0, measured_at: now, is_measuring: false },
            has_failing_marker,
        }
    }

    pub(super) const fn segment_bytes(&self) -> u64 {
        self.limits.segment_bytes
    }

    /// Returns the number of the next segment.
    pub(super) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Sorts the files that a start has found without anything that waits. The newest segment
    /// proves that the others are done with: it is not overwritten before a checkpoint of this run
    /// is durable.
    pub(super) fn classify(&mut self, files: Vec<IdleFile>) {
        let newest = self.next_number.checked_sub(1);
        for (name, size) in files {
            if self.is_reusable(size) && segment_number(&name) != newest {
                self.idle.push((name, size));
            } else {
                self.retire(name, size);
            }
        }
    }

    /// Makes every idle file wait for another proof that nothing waits in it.
    pub(super) fn retire_idle(&mut self) {
        for (name, size) in std::mem::take(&mut self.idle) {
            self.retire(name, size);
        }
    }

    /// Returns the names of all files that are idle or will be.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let pending = self.pending.iter().map(|file| file.name.as_str());
        self.idle.iter().map(|(name, _)| name.as_str()).chain(pending)
    }

    /// Records that nothing waits in a segment any more.
    pub(super) fn retire_segment(&mut self, (number, size): (u64, u64)) {
        self.retire(file_name(number), size);
    }

    fn retire(&mut self, name: String, size: u64) {
        self.pending.push(PendingRecycle { name, size, from: None });
    }

    /// Records that the log states up to this position what waits and what does not.
    pub(super) fn on_recorded(&mut self, position: u64) {
        self.pending.iter_mut().for_each(|file| file.from = file.from.or(Some(position)));
    }

    /// Frees the files of which it is durable that nothing waits in them.
    pub(super) fn recycle(&mut self, synced: u64) {
        // Only when the record that frees it is durable: otherwise a power cut could undo that
        // record, and the log would again need what the file held.
        let is_done = |file: &mut PendingRecycle| file.from.is_some_and(|from| from <= synced);
        let done: Vec<PendingRecycle> = self.pending.extract_if(.., is_done).collect();
        for PendingRecycle { name, size, .. } in done {
            if self.is_reusable(size) {
                self.idle.push((name, size));
            } else {
                self.ops.push(FileOp::Remove { name });
            }
        }
        if self.pending.is_empty() {
            self.moved.clear();
        }
    }

    /// Returns whether a file of this length is kept when nothing waits in it.
    fn is_reusable(&self, size: u64) -> bool {
        size == self.limits.segment_bytes && self.idle.len() < MAX_IDLE_FILES
    }

    /// Frees the largest file in which nothing waits, although that is neither durable nor can be
    /// written: not a byte is free. A crash right now finds it damaged. Returns whether there was
    /// one.
    pub(super) fn reclaim(&mut self, newest_sealed: Option<u64>) -> bool {
        let is_safe = |number| !self.moved.contains(&number);
        let Some(at) = self.find_reclaimable(newest_sealed, is_safe) else { return false };
        let PendingRecycle { name, size, .. } = self.pending.swap_remove(at);
        if size == self.limits.segment_bytes {
            self.idle.push((name, size));
        } else {
            self.ops.push(FileOp::Remove { name });
        }
        true
    }

    /// Returns whether any file is left in which nothing waits: evicting another segment would free
    /// nothing more.
    pub(super) fn has_reclaimable(&self, newest_sealed: Option<u64>) -> bool {
        self.find_reclaimable(newest_sealed, |_| true).is_some()
    }

    /// Records that the messages of an evicted segment were moved to the end of the log.
    pub(super) fn on_messages_moved(&mut self, number: u64) {
        self.moved.insert(number);
    }

    fn find_reclaimable(
        &self,
        newest_sealed: Option<u64>,
        may_go: impl Fn(u64) -> bool,
    ) -> Option<usize> {
        let number = |file: &PendingRecycle| segment_number(&file.name).filter(|_| file.size > 0);
        // Never the newest segment: it proves that this run existed and that others are done with.
        let newest = self.pending.iter().filter_map(number).chain(newest_sealed).max();
        let is_old = |file: &PendingRecycle| {
            let may_go = |own| Some(own) != newest && may_go(own);
            file.size > 0 && number(file).is_none_or(may_go)
        };
        let old = self.pending.iter().enumerate().filter(|(_, file)| is_old(file));
        old.max_by_key(|(_, file)| file.size).map(|(at, _)| at)
    }

    /// Begins the next segment: in a file that may be overwritten, or in a new one. Returns the
    /// file and whether it has its full length already.
    pub(super) fn begin_segment(&mut self, size: u64) -> (FileSlot<F>, bool) {
        let name = file_name(self.next_number);
        let at = self.idle.iter().position(|(_, idle)| *idle == size);
        let over = at.map(|at| self.idle.swap_remove(at));
        let (file, is_allocated) = (FileSlot::default(), over.is_some());
        self.ops.push(FileOp::Open { name, over, file: Arc::clone(&file) });
        self.next_number += 1;
        if self.spare == Spare::Failed {
            self.spare = Spare::None;
        }
        (file, is_allocated)
    }

    pub(super) fn push_op(&mut self, op: FileOp<F>) {
        self.ops.push(op);
    }

    pub(super) const fn has_ops(&self) -> bool {
        !self.ops.is_empty()
    }

    pub(super) fn take_ops(&mut self) -> Vec<FileOp<F>> {
        self.ops.take()
    }

    /// Records files that were to be overwritten and were not: they still count.
    pub(super) fn retire_unused(&mut self, unused: Vec<IdleFile>) {
        unused.into_iter().for_each(|(name, size)| self.retire(name, size));
    }

    /// Marks the storage as failing for the next run.
    pub(super) fn mark_failing(&mut self) {
        if !std::mem::replace(&mut self.has_failing_marker, true) {
            self.ops.push(FileOp::MarkFailing);
        }
    }

    /// Cancels what waits to be written, and marks the storage as failing for the next run: from
    /// now on what comes in is in the memory of this one alone.
    pub(super) fn on_storage_failed(&mut self, synced: u64) {
        let unused = self.ops.cancel_writes();
        self.retire_unused(unused);
        self.has_failing_marker = true;
        self.ops.push(FileOp::MarkFailing);
        self.pending.iter_mut().for_each(|file| {
            file.from = file.from.filter(|from| *from <= synced);
        });
    }

    /// Records that the file of a segment ends here.
    pub(super) fn shrink(&mut self, number: u64, size: u64) {
        let name = file_name(number);
        let pending = self.pending.iter_mut().find(|file| file.name == name);
        pending.into_iter().for_each(|file| file.size = file.size.min(size));
    }

    /// Removes files of this run of which nothing was durable when the storage failed: no start
    /// needs them, and every attempt to write would leave one more.
    pub(super) fn remove_empty(&mut self, run: u64) {
        let is_empty = |file: &mut PendingRecycle| {
            file.size == 0 && segment_number(&file.name).is_some_and(|number| number >= run)
        };
        for PendingRecycle { name, .. } in self.pending.extract_if(.., is_empty) {
            self.ops.push(FileOp::Remove { name });
        }
    }

    /// Removes the marker of a failing storage. Returns whether there was one.
    pub(super) fn remove_failing_marker(&mut self) -> bool {
        let had_marker = std::mem::take(&mut self.has_failing_marker);
        if had_marker {
            self.ops.push(FileOp::Remove { name: FAILING_MARKER.to_owned() });
        }
        had_marker
    }

    /// Returns whether a whole file fits into the file system; a start needs one at once.
    pub(super) const fn fits_file(&self) -> bool {
        self.space.bytes >= self.limits.segment_bytes
    }

    /// Returns the name of a file to prepare for the next segment, if one is needed and there is
    /// room. `segment_bytes` is what all segments take.
    pub(super) fn next_spare(&mut self, segment_bytes: u64) -> Option<String> {
        let LogLimits { segment_bytes: size, max_bytes, min_free_bytes } = self.limits;
        let has_room = self.file_bytes(segment_bytes) + size <= max_bytes
            && self.space.bytes >= min_free_bytes.saturating_add(size);
        if self.spare != Spare::None || self.has_spare() || !has_room {
            return None;
        }
        self.spare = Spare::Preparing;
        self.prepared += 1;
        Some(format!("spare-{:x}-{:x}", self.next_number, self.prepared))
    }

    /// Returns whether a file for the next segment is ready.
    pub(super) fn has_spare(&self) -> bool {
        self.idle.iter().any(|(_, size)| *size == self.limits.segment_bytes)
    }

    /// Records the end of preparing a file. Without one the next segment begins in a file that
    /// grows.
    pub(super) fn on_prepared(&mut self, name: String, size: u64, result: io::Result<()>) {
        let Err(error) = result else {
            self.spare = Spare::None;
            self.idle.push((name, size));
            return;
        };
        self.spare = Spare::Failed;
        tracing::warn!(%error, "cannot prepare the next file of the queue");
        // A file that is incomplete is never used.
        self.ops.push(FileOp::Remove { name });
    }

    /// Records that a job ended without a result, and it is not known which.
    pub(super) fn on_jobs_lost(&mut self) {
        self.space.is_measuring = false;
        if self.spare == Spare::Preparing {
            self.spare = Spare::None;
        }
    }

    /// Records the free space of the file system.
    pub(super) fn on_measured(&mut self, free_bytes: u64, now: Instant) {
        let measured_at = self.space.measured_at.max(now);
        self.space = FreeSpace { bytes: free_bytes, measured_at, is_measuring: false };
    }

    /// Returns whether the free space has to be measured, and records that it is.
    pub(super) fn begin_measuring(&mut self, now: Instant) -> bool {
        let is_due = now >= self.space.measured_at + MEASURE_INTERVAL;
        if !is_due || self.space.is_measuring {
            return false;
        }
        (self.space.measured_at, self.space.is_measuring) = (now, true);
        true
    }

    /// Checks that a segment of `size` bytes may be begun now; `used` is what all segments take.
    pub(super) fn check_capacity(
        &self,
        purpose: Purpose,
        size: u64,
        used: u64,
    ) -> Result<(), AppendError> {
        if purpose == Purpose::Control {
            return Ok(());
        }
        let LogLimits { segment_bytes, max_bytes, min_free_bytes } = self.limits;
        let reserve = purpose.reserve_segments() * segment_bytes;
        if used + size + reserve > max_bytes {
            return Err(AppendError::Full);
        }
        if size == segment_bytes && self.has_spare() {
            return Ok(());
        }
        // Telemetry does not take what other programs are left, nor the last space for the log's
        // own records.
        let min_free = if purpose == Purpose::Data { min_free_bytes } else { 0 };
        let fits_max = self.file_bytes(used) + size <= max_bytes;
        let fits_disk = self.space.bytes >= min_free.max(reserve).saturating_add(size);
        let is_freeing = !self.pending.is_empty() || self.spare == Spare::Preparing;
        match (fits_max, fits_disk) {
            (true, true) => Ok(()),
            (false, _) | (_, false) if is_freeing => Err(AppendError::FullForNow),
            (false, true) => Err(AppendError::Full),
            (_, false) => Err(AppendError::DiskFull),
        }
    }

    /// Returns whether `max_size` has room for the whole reserve in addition to the segments.
    pub(super) const fn has_reserve(&self, used: u64) -> bool {
        used + RESERVE_SEGMENTS * self.limits.segment_bytes <= self.limits.max_bytes
    }

    /// Returns how many bytes at the end of the segment being written stay free, and by how many
    /// bytes its file may grow.
    ///
    /// Where no other file can be begun, telemetry leaves the last quarter to the log's own
    /// records: they free files.
    pub(super) fn tail_limits(&self, purpose: Purpose) -> (u64, u64) {
        if purpose == Purpose::Control || self.can_begin_file() {
            return (0, u64::MAX);
        }
        let margin = if purpose == Purpose::Data { self.limits.segment_bytes / 4 } else { 0 };
        (margin, self.space.bytes.saturating_sub(margin))
    }

    /// Returns whether a file of full length is ready, or fits into the file system.
    pub(super) fn can_begin_file(&self) -> bool {
        self.has_spare() || self.fits_file()
    }

    /// Returns how many bytes of telemetry fit into further segments.
    pub(super) fn appendable_bytes(&self, used: u64) -> u64 {
        let LogLimits { segment_bytes, max_bytes, min_free_bytes } = self.limits;
        let reserve = RESERVE_SEGMENTS * segment_bytes;
        let within_max = max_bytes.saturating_sub(used).saturating_sub(reserve);
        let on_disk = self.space.bytes.saturating_sub(min_free_bytes.max(reserve));
        let on_disk = on_disk.saturating_add(self.idle_bytes());
        within_max.min(on_disk) / segment_bytes.max(1) * segment_bytes
    }

    /// Records that a file will grow by this length: the free space was measured before.
    pub(super) const fn on_grown(&mut self, bytes: u64) {
        self.space.bytes = self.space.bytes.saturating_sub(bytes);
    }

    /// Returns whether the segments exceed the limit: another run may have had another one.
    pub(super) const fn exceeds_limit(&self, used: u64) -> bool {
        used > self.limits.max_bytes
    }

    /// Returns the length of the files that may be overwritten by whole segments.
    fn idle_bytes(&self) -> u64 {
        let full = self.idle.iter().filter(|(_, size)| *size == self.limits.segment_bytes);
        to_u64(full.count()) * self.limits.segment_bytes
    }

    /// Returns the length of all files; `used` is what all segments take.
    fn file_bytes(&self, used: u64) -> u64 {
        let pending = self.pending.iter().map(|file| file.size);
        let spare = (self.spare == Spare::Preparing).then_some(self.limits.segment_bytes);
        let idle = self.idle.iter().map(|(_, size)| *size);
        used + idle.chain(pending).chain(spare).sum::<u64>()
    }
}
