//! How far the log is written and how far it is durable, and the jobs that move both. Pure.

use std::sync::Arc;
use std::time::Instant;

use super::file_ops::FileSlot;
use super::writer::Unsynced;

/// How far the log is written, and how far it is durable.
#[derive(Debug)]
pub(in crate::queue) struct DurabilityTracker<F> {
    /// Position up to which the operating system has everything: it survives a killed process.
    written: u64,
    /// Position up to which everything is durable: it survives a power cut.
    synced: u64,
    /// Segments that are written no more and not durable, without those in `syncing`.
    unsynced: Vec<Unsynced<F>>,
    /// Those that the running job makes durable.
    syncing: Vec<Unsynced<F>>,
    /// The names of files are durable after a sync that began behind this position.
    renamed: Option<u64>,
    /// When the running write job began.
    writing_since: Option<Instant>,
    /// When the running sync job began.
    syncing_since: Option<Instant>,
    /// How often the storage has failed. What a job reports that began before the last failure says
    /// nothing about what was written since.
    failures: u64,
}

/// A position, and the number of failures before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FlushPoint {
    failures: u64,
    position: u64,
}

/// What a sync job has to make durable.
#[derive(Debug)]
pub(super) struct SyncPlan<F> {
    pub(super) files: Vec<FileSlot<F>>,
    /// Whether names of files changed.
    pub(super) with_names: bool,
    pub(super) upto: FlushPoint,
}

impl<F> Default for DurabilityTracker<F> {
    fn default() -> Self {
        Self {
            written: 0,
            synced: 0,
            unsynced: Vec::new(),
            syncing: Vec::new(),
            renamed: None,
            writing_since: None,
            syncing_since: None,
            failures: 0,
        }
    }
}

impl<F> DurabilityTracker<F> {
    pub(in crate::queue) const fn written(&self) -> u64 {
        self.written
    }

    pub(in crate::queue) const fn synced(&self) -> u64 {
        self.synced
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.writing_since.is_some()
    }

    pub(in crate::queue) const fn is_syncing(&self) -> bool {
        self.syncing_since.is_some()
    }

    /// Returns when the oldest running job began that waits for the device.
    pub(in crate::queue) fn waiting_since(&self) -> Option<Instant> {
        self.writing_since.into_iter().chain(self.syncing_since).min()
    }

    /// Returns whether the operating system has a sealed segment as a whole.
    pub(super) fn is_segment_written(&self, number: u64) -> bool {
        let segment = self.unsynced.iter().find(|segment| segment.number == number);
        segment.is_none_or(|segment| segment.end <= self.written)
    }

    /// Records that a segment is written no more and has to be made durable.
    pub(super) fn on_sealed(&mut self, segment: Unsynced<F>) {
        self.unsynced.push(segment);
    }

    /// Records that names of files change with what is written up to this position.
    pub(super) const fn on_renamed(&mut self, position: u64) {
        self.renamed = Some(position);
    }

    pub(super) const fn flush_point(&self, position: u64) -> FlushPoint {
        FlushPoint { failures: self.failures, position }
    }

    pub(super) const fn begin_write(&mut self, now: Instant) {
        self.writing_since = Some(now);
    }

    /// Records the end of a write job. Returns whether it concerns what is written now.
    pub(super) fn on_write_ended(&mut self, upto: FlushPoint) -> bool {
        self.writing_since = None;
        upto.failures == self.failures
    }

    /// Records that the operating system has everything up to this point.
    pub(super) fn on_written(&mut self, upto: FlushPoint) {
        self.written = self.written.max(upto.position);
    }

    /// Begins to make everything durable that is written, the tail of the log included; `None`
    /// while another sync is running.
    pub(super) fn begin_sync(&mut self, tail: &FileSlot<F>, now: Instant) -> Option<SyncPlan<F>> {
        if self.is_syncing() {
            return None;
        }
        self.syncing_since = Some(now);
        // All files are synced, also those whose end is not written yet: the data that is there
        // leaves the memory of the operating system sooner.
        let files = self.unsynced.iter().map(|segment| &segment.file).chain([tail]);
        let files = files.map(Arc::clone).collect();
        let upto = self.flush_point(self.written);
        self.syncing.extend(self.unsynced.extract_if(.., |segment| segment.end <= upto.position));
        // A rename behind the written position may happen during the sync: it needs another one.
        let with_names = self.renamed.is_some();
        self.renamed = self.renamed.filter(|renamed| *renamed > upto.position);
        Some(SyncPlan { files, with_names, upto })
    }

    /// Records the end of a sync job. Returns whether it concerns what is written now.
    pub(super) fn on_sync_ended(&mut self, upto: FlushPoint) -> bool {
        self.syncing_since = None;
        upto.failures == self.failures
    }

    /// Records that everything up to this point is durable.
    pub(super) fn on_synced(&mut self, upto: FlushPoint) {
        self.syncing.clear();
        self.synced = self.synced.max(upto.position);
    }

    /// Records that the storage failed: nothing behind the durable position counts. Returns the
    /// segments that are not durable.
    pub(super) fn on_storage_failed(&mut self) -> Vec<Unsynced<F>> {
        self.failures += 1;
        self.renamed = None;
        // Linux marks pages as clean that it failed to write: another sync of them would succeed,
        // and the power would still lose them. So they are written again, to another file.
        self.written = self.synced;
        let mut unsynced = std::mem::take(&mut self.syncing);
        unsynced.append(&mut self.unsynced);
        unsynced
    }

    /// Records that the running jobs ended without a result.
    pub(super) const fn on_jobs_lost(&mut self) {
        (self.writing_since, self.syncing_since) = (None, None);
    }
}
