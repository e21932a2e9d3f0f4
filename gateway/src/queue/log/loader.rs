//! The segment that was read back last, and the job that reads the next one.

use std::io;

use super::reader::{SegmentReader, StoredEntry};
use super::recover::MAX_READ_ATTEMPTS;
use super::segment::file_name;
use crate::queue::TopicTable;

/// Reads segments back, one at a time.
#[derive(Debug, Default)]
pub(super) struct SegmentLoader {
    loaded: Option<SegmentReader>,
    is_reading: bool,
    /// Attempts to read the segment that failed in a row.
    failed_reads: u32,
}

impl SegmentLoader {
    /// Returns whether a job reads a segment now.
    pub(super) const fn is_reading(&self) -> bool {
        self.is_reading
    }

    pub(super) const fn begin(&mut self) {
        self.is_reading = true;
    }

    /// Records the end of a read job. Returns the bytes, none when they cannot be read even now, or
    /// `None` when reading is to be tried again.
    pub(super) fn on_read(&mut self, number: u64, result: io::Result<Vec<u8>>) -> Option<Vec<u8>> {
        self.is_reading = false;
        if let Err(error) = &result {
            self.failed_reads += 1;
            if self.failed_reads < MAX_READ_ATTEMPTS {
                return None;
            }
            tracing::warn!(name = file_name(number), %error, "cannot read a file of the queue");
        }
        self.failed_reads = 0;
        Some(result.unwrap_or_default())
    }

    pub(super) fn set(&mut self, loaded: SegmentReader) {
        self.loaded = Some(loaded);
    }

    /// Returns the number of the segment that was read last.
    pub(super) fn number(&self) -> Option<u64> {
        self.loaded.as_ref().map(SegmentReader::number)
    }

    /// Returns the entry with this id, if its segment was read.
    pub(super) fn take_entry(&mut self, id: u64, topics: &TopicTable) -> Option<StoredEntry> {
        self.loaded.as_mut()?.take(id, topics)
    }

    /// Drops what was read of a segment in which nothing waits any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.loaded.take_if(|loaded| loaded.number() == number);
    }

    /// Records that the running job ended without a result.
    pub(super) const fn on_jobs_lost(&mut self) {
        self.is_reading = false;
    }
}
