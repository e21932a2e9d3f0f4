//! What is known of a segment without reading it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::UnixTime;
use crate::queue::TopicId;

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::queue) struct EntryCounts {
    pub(in crate::queue) entries: u64,
    pub(in crate::queue) samples: u64,
    /// Bytes on disk, with the frames, or estimated memory.
    pub(in crate::queue) bytes: u64,
}

/// One file of the log. All of it was written by one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segment {
    /// Rises from file to file, and is never given twice.
    pub(super) number: u64,
    /// Only ids from here up to the first one of the next segment count.
    pub(super) first_id: u64,
    pub(super) epoch: Arc<str>,
    /// What waits in it.
    pub(super) waiting: EntryCounts,
    /// When its first record was read from the PLC.
    pub(super) first_at: Option<UnixTime>,
    /// The next number of each topic at its beginning.
    pub(super) starts: BTreeMap<TopicId, u64>,
    /// The same at its end; empty while it is written.
    pub(super) ends: BTreeMap<TopicId, u64>,
    /// Length of the file; not part of a checkpoint.
    pub(super) size: u64,
}

/// What waits in a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::queue) enum SegmentKind {
    /// Telemetry, and perhaps messages.
    Telemetry,
    /// Messages only.
    Messages,
    /// Messages only, in less than a quarter of it: moved to the end of the log they take less
    /// space.
    FewMessages,
}

impl Segment {
    /// Classifies the segment by what waits in it.
    pub(super) const fn kind(&self) -> SegmentKind {
        match (self.waiting.samples, self.waiting.bytes * 4 < self.size) {
            (1.., _) => SegmentKind::Telemetry,
            (0, false) => SegmentKind::Messages,
            (0, true) => SegmentKind::FewMessages,
        }
    }
}

impl EntryCounts {
    pub(in crate::queue) const fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.samples = self.samples.saturating_add(other.samples);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(in crate::queue) const fn subtract(&mut self, other: Self) {
        self.entries = self.entries.saturating_sub(other.entries);
        self.samples = self.samples.saturating_sub(other.samples);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Name of an empty file that exists while the storage fails: after a run that could not write, the
/// next one does not know how much is missing.
pub(super) const FAILING_MARKER: &str = "failing";

/// Returns the name of the file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("seg-{number:016x}.log")
}

/// Returns the number in the name of a segment's file; `None` for any other name, and for a number
/// that no log reaches.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    let number = (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    number.filter(|number| *number < 1 << 63)
}
