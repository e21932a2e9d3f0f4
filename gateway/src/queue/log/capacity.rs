//! What may be begun within the bounds: of all files, and of the file system that others use too.

use super::{AppendError, Log, LogLimits};
use crate::queue::storage::Storage;
use crate::queue::to_u64;

/// Segments that stay free for the log's own records: without them it could not even write down
/// that something was delivered.
const RESERVE_SEGMENTS: u64 = 2;

/// What a segment is begun for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Telemetry, within the bounds.
    Data,
    /// Events and replies, out of the first half of the reserve: telemetry makes room for them only
    /// when that is full of them.
    Message,
    /// The log's own records, out of the reserve, and beyond it where nothing else is left: they are
    /// what frees files.
    Control,
}

impl Purpose {
    /// Segments that have to stay free beside the one that is begun.
    const fn reserve_segments(self) -> u64 {
        match self {
            Self::Data => RESERVE_SEGMENTS,
            Self::Message => RESERVE_SEGMENTS - 1,
            Self::Control => 0,
        }
    }
}

impl<S: Storage> Log<S> {
    /// Whether a segment of this length may be begun now.
    pub(super) fn check_capacity(&self, purpose: Purpose, size: u64) -> Result<(), AppendError> {
        if purpose == Purpose::Control {
            return Ok(());
        }
        let LogLimits { segment_bytes: segment, max_bytes: max, min_free_bytes: min_free } =
            self.limits;
        let kept = purpose.reserve_segments() * segment;
        if self.segment_bytes() + size + kept > max {
            return Err(AppendError::Full);
        }
        let free = self.free_space();
        let spare = to_u64(self.idle.len()) * segment;
        // What others leave free is not taken for telemetry, and a file of ours is not given to them.
        let min_free = if purpose == Purpose::Data { min_free } else { 0 };
        let has_file = spare > 0 && size == segment
            || self.file_bytes() + size <= max && free >= min_free.saturating_add(size);
        if has_file && free.saturating_add(spare) >= size + kept {
            return Ok(());
        }
        let is_freeing = !self.retiring.is_empty() || self.under_way.is_preparing();
        Err(if is_freeing { AppendError::FullForNow } else { AppendError::Full })
    }

    /// Whether the reserve is whole without the tail.
    pub(super) fn has_reserve(&self) -> bool {
        let reserve = RESERVE_SEGMENTS * self.limits.segment_bytes;
        let spare = to_u64(self.idle.len()) * self.limits.segment_bytes;
        self.segment_bytes() + reserve <= self.limits.max_bytes
            && self.free_space().saturating_add(spare) >= reserve
    }

    /// Whether there may be one more file, to be ready for the next segment.
    pub(super) fn has_room_for_spare(&self) -> bool {
        let LogLimits { segment_bytes: segment, max_bytes: max, min_free_bytes: min_free } =
            self.limits;
        self.file_bytes() + segment <= max && self.free_space() >= min_free.saturating_add(segment)
    }

    /// Bytes of telemetry that can be appended before something has to be given up.
    pub(in crate::queue) fn appendable_bytes(&self) -> u64 {
        let LogLimits { segment_bytes: segment, max_bytes: max, min_free_bytes: min_free } =
            self.limits;
        let tail = self.tail.iter().filter(|tail| !tail.is_reserve);
        let here = tail.map(|tail| tail.segment.size.saturating_sub(tail.end())).sum::<u64>();
        let (free, spare) = (self.free_space(), to_u64(self.idle.len()) * segment);
        let reserve = RESERVE_SEGMENTS * segment;
        let within = max.saturating_sub(self.segment_bytes()).saturating_sub(reserve);
        let backed = free.saturating_add(spare).saturating_sub(reserve);
        let there = free.saturating_sub(min_free).saturating_add(spare);
        here + within.min(backed).min(there) / segment.max(1) * segment
    }

    /// Whether it is the file system and not the bound that leaves no room.
    pub(in crate::queue) fn is_disk_full(&self) -> bool {
        let LogLimits { segment_bytes: segment, max_bytes: max, min_free_bytes: min_free } =
            self.limits;
        let is_within = self.segment_bytes() + (RESERVE_SEGMENTS + 1) * segment <= max;
        is_within && self.free_space() < min_free.saturating_add(segment)
    }

    /// One that cannot be asked has room.
    fn free_space(&self) -> u64 {
        self.storage.free_space().unwrap_or(u64::MAX)
    }

    /// Whether what waits takes more than it may: another run may have had another bound.
    pub(in crate::queue) fn exceeds_limit(&self) -> bool {
        self.segment_bytes() > self.limits.max_bytes
    }

    /// What the segments take.
    fn segment_bytes(&self) -> u64 {
        let tail = self.tail.iter().map(|tail| tail.segment.size);
        tail.chain(self.segments.iter().map(|segment| segment.size)).sum()
    }

    /// What all files take.
    pub(super) fn file_bytes(&self) -> u64 {
        let retiring = self.retiring.iter().map(|file| file.size);
        let prepared = self.under_way.is_preparing().then_some(self.limits.segment_bytes);
        let beside = self.idle.iter().map(|(_, size)| *size).chain(retiring).chain(prepared);
        self.segment_bytes() + beside.sum::<u64>()
    }
}
