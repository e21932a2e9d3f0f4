//! A buffer for received datagrams, as the kernel joins them.

use std::net::SocketAddr;

use crate::core::PathError;

/// Capacity in bytes: four reads of the longest run that the kernel joins, small enough for the
/// second-level cache of a Raspberry Pi.
const CAPACITY_BYTES: usize = 4 * MAX_RUN_BYTES;
/// Longest run of datagrams that the kernel returns at once, in bytes.
const MAX_RUN_BYTES: usize = 64 * 1024;
/// Reports that are remembered; a tunnel sends to one or two hubs.
const MAX_PATH_ERRORS: usize = 8;

/// Received datagrams. The buffer grows to what the traffic needs and is reused; datagrams that
/// exceed the capacity are dropped, as on a network, and counted.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Vec<u8>,
    used: usize,
    segments: Vec<ReceivedSegments>,
    path_errors: Vec<PathError>,
    has_network_changed: bool,
    dropped: u64,
}

/// Datagrams of equal length from one sender; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct ReceivedSegments {
    from: SocketAddr,
    start: usize,
    length: usize,
    /// Length of each datagram but the last; not 0.
    segment_size: usize,
}

impl RecvBatch {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            used: 0,
            segments: Vec::new(),
            path_errors: Vec::new(),
            has_network_changed: false,
            dropped: 0,
        }
    }

    /// Removes everything that has arrived, but keeps the number of dropped datagrams.
    pub fn clear(&mut self) {
        self.used = 0;
        self.segments.clear();
        self.path_errors.clear();
        self.has_network_changed = false;
    }

    /// Returns whether nothing has arrived: no datagram, no report and no change of the network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.path_errors.is_empty() && !self.has_network_changed
    }

    /// Adds a datagram.
    pub fn push(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.grow_by(datagram.len());
        match self.bytes.get_mut(self.used..self.used + datagram.len()) {
            Some(space) => {
                space.copy_from_slice(datagram);
                self.commit(from, datagram.len(), datagram.len());
            }
            None => self.dropped += 1,
        }
    }

    /// Returns whether [`RecvBatch::spare_capacity`] holds the longest run that the kernel returns,
    /// 64 KiB.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        CAPACITY_BYTES - self.used >= MAX_RUN_BYTES
    }

    /// Returns the space to read into; [`RecvBatch::commit`] then adds it. At least 64 KiB while
    /// [`RecvBatch::has_room`].
    pub fn spare_capacity(&mut self) -> &mut [u8] {
        self.grow_by(MAX_RUN_BYTES);
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Makes room for `length` bytes, as far as the capacity allows. It grows to what the traffic
    /// needs: an allocator may touch every zero of a large buffer.
    fn grow_by(&mut self, length: usize) {
        let end = self.used.saturating_add(length).min(CAPACITY_BYTES);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
    }

    /// Adds the first `length` bytes of [`RecvBatch::spare_capacity`]: datagrams of `segment_size`
    /// bytes each, the last as long as is left. A size of 0 is one datagram; a longer length is
    /// cut.
    pub fn commit(&mut self, from: SocketAddr, length: usize, segment_size: usize) {
        let length = length.min(self.bytes.len() - self.used);
        let segment_size = if segment_size == 0 { length.max(1) } else { segment_size };
        self.segments.push(ReceivedSegments { from, start: self.used, length, segment_size });
        self.used += length;
    }

    /// Records that a datagram did not arrive.
    pub fn push_path_error(&mut self, error: PathError) {
        if self.path_errors.len() < MAX_PATH_ERRORS && !self.path_errors.contains(&error) {
            self.path_errors.push(error);
        }
    }

    /// Returns what was reported about datagrams since the last [`RecvBatch::clear`]. The reports
    /// can be forged and must only affect the diagnosis.
    #[must_use]
    pub fn path_errors(&self) -> &[PathError] {
        &self.path_errors
    }

    /// Records that this host has another route to the hub.
    pub const fn note_network_change(&mut self) {
        self.has_network_changed = true;
    }

    /// Returns whether the route to the hub has changed since the last [`RecvBatch::clear`].
    #[must_use]
    pub const fn has_network_changed(&self) -> bool {
        self.has_network_changed
    }

    /// Counts datagrams that were dropped before they got here.
    pub const fn add_dropped(&mut self, count: u64) {
        self.dropped += count;
    }

    /// Returns the number of datagrams that did not fit, since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the datagrams with their sources, in order, without empty ones.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.segments.iter().flat_map(|run| {
            let bytes = self.bytes.get(run.start..run.start + run.length).unwrap_or_default();
            bytes.chunks(run.segment_size).map(|datagram| (run.from, datagram))
        })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::PathErrorCause;

    fn hub(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn all(batch: &RecvBatch) -> Vec<(u16, Vec<u8>)> {
        batch.datagrams().map(|(from, bytes)| (from.port(), bytes.to_vec())).collect()
    }

    #[test]
    fn pushed_datagrams_come_out_in_order() {
        let mut batch = RecvBatch::new();
        assert!(batch.is_empty());
        batch.push(hub(1), b"one");
        batch.push(hub(2), b"two");
        assert_eq!(all(&batch), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
        batch.clear();
        assert!(batch.is_empty() && all(&batch).is_empty());
    }

    #[test]
    fn a_run_is_split_into_segments() {
        let mut batch = RecvBatch::new();
        batch.spare_capacity()[..8].copy_from_slice(b"abcdefgh");
        batch.commit(hub(1), 8, 3);
        batch.push(hub(2), b"z");
        let expected: [(u16, &[u8]); 4] = [(1, b"abc"), (1, b"def"), (1, b"gh"), (2, b"z")];
        assert_eq!(all(&batch), expected.map(|(port, bytes)| (port, bytes.to_vec())));
    }

    #[test]
    fn lengths_out_of_range_are_cut() {
        let mut batch = RecvBatch::new();
        batch.commit(hub(1), usize::MAX, 0);
        assert_eq!(batch.datagrams().count(), 0, "there was no space to read into");
        for run in 1..=4 {
            assert!(batch.has_room() && batch.spare_capacity().len() >= MAX_RUN_BYTES);
            batch.commit(hub(1), usize::MAX, 0);
            let received = batch.datagrams().map(|(_, bytes)| bytes.len()).sum::<usize>();
            assert_eq!(received, run * MAX_RUN_BYTES);
        }
        assert!(!batch.has_room() && batch.spare_capacity().is_empty());
        batch.commit(hub(1), 3, 0);
        batch.push(hub(1), b"no room");
        assert_eq!((batch.datagrams().count(), batch.dropped()), (4, 1));
    }

    #[test]
    fn a_report_is_kept_once() {
        let refused = |port| PathError {
            to: hub(port),
            cause: PathErrorCause::PortUnreachable,
            reporter: None,
        };
        let mut batch = RecvBatch::new();
        for port in [1, 1, 2] {
            batch.push_path_error(refused(port));
        }
        assert_eq!(batch.path_errors(), [refused(1), refused(2)]);
        assert!(!batch.is_empty());
        batch.clear();
        assert!(batch.path_errors().is_empty());
        (0..1000).for_each(|port| batch.push_path_error(refused(port)));
        assert_eq!(batch.path_errors().len(), MAX_PATH_ERRORS);
    }
}
