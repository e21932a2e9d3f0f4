//! Datagrams that have arrived, as the kernel joins them.

use std::net::SocketAddr;

#[cfg(test)]
mod tests;

/// Room for datagrams. Four reads of the longest run that a kernel joins, and small enough for the
/// second cache level of a Raspberry Pi.
const CAPACITY_BYTES: usize = 4 * MAX_RUN_BYTES;
/// The longest run of datagrams that a kernel gives at once.
const MAX_RUN_BYTES: usize = 64 * 1024;
/// Senders that are remembered as not listening. One tunnel asks one or two hubs.
const MAX_REFUSED: usize = 8;

/// Datagrams that have arrived. Allocated once and reused; what does not fit is lost, as on a
/// network, and counted.
#[derive(Debug)]
pub struct RecvBatch {
    bytes: Vec<u8>,
    used: usize,
    segments: Vec<ReceivedSegments>,
    refused: Vec<SocketAddr>,
    has_network_changed: bool,
    dropped: u64,
}

/// Datagrams of equal length from one sender; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct ReceivedSegments {
    from: SocketAddr,
    start: usize,
    length: usize,
    /// Length of each but the last, above zero.
    segment_size: usize,
}

impl RecvBatch {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; CAPACITY_BYTES],
            used: 0,
            segments: Vec::new(),
            refused: Vec::new(),
            has_network_changed: false,
            dropped: 0,
        }
    }

    /// Forgets everything that has arrived, not what was lost.
    pub fn clear(&mut self) {
        self.used = 0;
        self.segments.clear();
        self.refused.clear();
        self.has_network_changed = false;
    }

    /// Whether nothing has arrived: no datagram, and no news of whoever does not listen or of the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.refused.is_empty() && !self.has_network_changed
    }

    /// Adds a datagram.
    pub fn push(&mut self, from: SocketAddr, datagram: &[u8]) {
        match self.bytes.get_mut(self.used..self.used + datagram.len()) {
            Some(place) => {
                place.copy_from_slice(datagram);
                self.commit(from, datagram.len(), datagram.len());
            }
            None => self.dropped += 1,
        }
    }

    /// Whether [`Inbox::spare`] takes the longest run that a kernel gives, 64 KiB.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes.len() - self.used >= MAX_RUN_BYTES
    }

    /// Where to put what is read; [`Inbox::filled`] then adds it. At least 64 KiB long while
    /// [`Inbox::has_room`].
    pub fn spare_capacity(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Adds the first `length` bytes of [`Inbox::spare`]: datagrams of `stride` bytes each, the
    /// last as long as is left. A stride of 0 is one datagram; a length beyond the room is cut.
    pub fn commit(&mut self, from: SocketAddr, length: usize, stride: usize) {
        let length = length.min(self.bytes.len() - self.used);
        let stride = if stride == 0 { length.max(1) } else { stride };
        self.segments.push(ReceivedSegments {
            from,
            start: self.used,
            length,
            segment_size: stride,
        });
        self.used += length;
    }

    /// Notes that the host at `to` has said that nothing listens on that port.
    pub fn push_refused(&mut self, to: SocketAddr) {
        if self.refused.len() < MAX_REFUSED && !self.refused.contains(&to) {
            self.refused.push(to);
        }
    }

    /// Who has said, since the last [`Inbox::clear`], that nothing listens there (ICMP port
    /// unreachable). Anybody can forge it: a reason for a sentence, not for a decision.
    #[must_use]
    pub fn refused(&self) -> &[SocketAddr] {
        &self.refused
    }

    /// Notes that the way out of this host is another.
    pub const fn note_network_change(&mut self) {
        self.has_network_changed = true;
    }

    /// Whether the way out of this host has become another since the last [`Inbox::clear`], or there
    /// is one again.
    #[must_use]
    pub const fn has_network_changed(&self) -> bool {
        self.has_network_changed
    }

    /// Counts datagrams that were lost on their way here.
    pub const fn add_dropped(&mut self, count: u64) {
        self.dropped += count;
    }

    /// Datagrams that did not fit, since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What has arrived and from where, in order. Empty datagrams are left out.
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
