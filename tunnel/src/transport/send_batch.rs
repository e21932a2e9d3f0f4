//! A buffer for datagrams to send, from which the kernel takes many at once.

use std::net::SocketAddr;

use super::MAX_DATAGRAM;

/// Capacity in bytes: seven of the longest runs. Flushing at 30 to 400 KB made no difference in
/// speed.
const CAPACITY_BYTES: usize = 512 * 1024;
/// Length from which on to flush, in bytes. Behind it there is room for one frame of a TUN
/// interface (64 KiB, and 32 bytes for each packet of 500 bytes or more) and a few handshake
/// messages.
const FLUSH_THRESHOLD: usize = CAPACITY_BYTES - 128 * 1024;
/// Most datagrams in one call of the kernel (UDP_MAX_SEGMENTS of Linux before 6.9).
const MAX_SEGMENTS: usize = 64;
/// Most bytes in one call of the kernel: the payload of UDP over IPv4.
const MAX_SEGMENTS_BYTES: usize = 65_507;

/// Datagrams to send, back to back. The buffer grows to what the traffic needs and is reused;
/// datagrams that exceed the capacity are dropped, as on a network, and counted.
#[derive(Debug)]
pub struct SendBatch {
    /// At most [`CAPACITY_BYTES`], and the datagram that exceeds them.
    bytes: Vec<u8>,
    used: usize,
    datagrams: Vec<QueuedDatagram>,
    reserved: Option<QueuedDatagram>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct QueuedDatagram {
    to: SocketAddr,
    length: usize,
}

/// Datagrams of equal length to one destination; the last may be shorter. At most 64 datagrams and
/// 65,507 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segments<'a> {
    /// Their destination.
    pub to: SocketAddr,
    /// All of them, back to back.
    pub bytes: &'a [u8],
    /// Length of each datagram but the last; not 0.
    pub segment_size: usize,
}

impl SendBatch {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::new(), used: 0, datagrams: Vec::new(), reserved: None, dropped: 0 }
    }

    /// Returns `max_length` bytes to write a datagram to, at most [`MAX_DATAGRAM`];
    /// [`SendBatch::commit`] then adds it. An earlier reservation that was not committed is void.
    pub fn reserve(&mut self, to: SocketAddr, max_length: usize) -> &mut [u8] {
        let length = max_length.min(MAX_DATAGRAM);
        self.reserved = Some(QueuedDatagram { to, length });
        // It grows to what the traffic needs: an allocator may touch every zero of a large buffer.
        if self.bytes.len() < self.used + length {
            self.bytes.resize(self.used + length, 0);
        }
        self.bytes.get_mut(self.used..self.used + length).unwrap_or_default()
    }

    /// Adds the first `length` bytes of the reservation. Without a reservation, or with a length of
    /// 0, it does nothing; a longer length is cut.
    pub fn commit(&mut self, length: usize) {
        let Some(reserved) = self.reserved.take() else { return };
        let length = length.min(reserved.length);
        if length == 0 {
            return;
        }
        if self.used + length > CAPACITY_BYTES {
            self.dropped += 1;
            return;
        }
        self.datagrams.push(QueuedDatagram { length, ..reserved });
        self.used += length;
    }

    /// Adds a datagram.
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let space = self.reserve(to, datagram.len());
        if let Some(fitting) = datagram.get(..space.len()) {
            space.copy_from_slice(fitting);
        }
        self.commit(datagram.len());
    }

    /// Returns whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Returns whether it must be sent: the packets of one more frame might not fit.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.used > FLUSH_THRESHOLD
    }

    /// Returns the number of bytes to send.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.used
    }

    /// Returns the number of datagrams that did not fit, since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Removes all datagrams, but keeps the number of dropped ones.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
        self.reserved = None;
    }

    /// Returns the datagrams with their destinations, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let mut start = 0;
        self.datagrams.iter().map(move |datagram| {
            let bytes = self.bytes.get(start..start + datagram.length).unwrap_or_default();
            start += datagram.length;
            (datagram.to, bytes)
        })
    }

    /// Returns the same datagrams, joined as far as the kernel takes them at once (UDP_SEGMENT).
    pub fn segments(&self) -> impl Iterator<Item = Segments<'_>> {
        let (mut next, mut start) = (0, 0);
        std::iter::from_fn(move || {
            let rest = self.datagrams.get(next..).unwrap_or_default();
            let (count, length) = count_segments(rest)?;
            let segment_size = rest.first()?.length;
            let segments = Segments {
                to: rest.first()?.to,
                bytes: self.bytes.get(start..start + length)?,
                segment_size,
            };
            next += count;
            start += length;
            Some(segments)
        })
    }
}

/// Returns how many datagrams can be joined, and their total length; `None` without any.
fn count_segments(datagrams: &[QueuedDatagram]) -> Option<(usize, usize)> {
    let first = datagrams.first()?;
    let (mut count, mut length) = (1, first.length);
    for datagram in datagrams.iter().skip(1) {
        let fits = count < MAX_SEGMENTS && length + datagram.length <= MAX_SEGMENTS_BYTES;
        if datagram.to != first.to || datagram.length > first.length || !fits {
            break;
        }
        count += 1;
        length += datagram.length;
        // The kernel splits at multiples of the first length, so a shorter datagram must be the
        // last.
        if datagram.length < first.length {
            break;
        }
    }
    Some((count, length))
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hub(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn runs(batch: &SendBatch) -> Vec<(u16, usize, usize)> {
        batch.segments().map(|run| (run.to.port(), run.bytes.len(), run.segment_size)).collect()
    }

    #[test]
    fn committed_datagrams_come_out_in_order() {
        let mut batch = SendBatch::new();
        batch.reserve(hub(1), 100)[..3].copy_from_slice(b"one");
        batch.commit(3);
        batch.push(hub(2), b"two");
        let all: Vec<_> = batch.datagrams().collect();
        assert_eq!(all, [(hub(1), b"one".as_slice()), (hub(2), b"two".as_slice())]);
        assert_eq!(batch.len_bytes(), 6);
        batch.clear();
        assert!(batch.is_empty() && batch.datagrams().next().is_none());
    }

    #[test]
    fn reservations_that_are_not_committed_are_not_sent() {
        let mut batch = SendBatch::new();
        batch.commit(5);
        batch.reserve(hub(1), 100);
        batch.commit(0);
        batch.reserve(hub(1), 100);
        batch.push(hub(2), b"x");
        assert_eq!(runs(&batch), [(2, 1, 1)]);
    }

    #[test]
    fn equal_lengths_are_joined_up_to_a_shorter_one() {
        let mut batch = SendBatch::new();
        for length in [10, 10, 10, 4, 10, 20, 20] {
            batch.push(hub(1), &vec![0; length]);
        }
        batch.push(hub(2), &[0; 20]);
        assert_eq!(runs(&batch), [(1, 34, 10), (1, 10, 10), (1, 40, 20), (2, 20, 20)]);
    }

    #[test]
    fn joined_datagrams_stay_within_the_limits_of_the_kernel() {
        let mut batch = SendBatch::new();
        (0..65).for_each(|_| batch.push(hub(1), &[0; 100]));
        assert_eq!(runs(&batch), [(1, 6400, 100), (1, 100, 100)]);
        batch.clear();
        (0..64).for_each(|_| batch.push(hub(1), &[0; 1452]));
        assert_eq!(runs(&batch), [(1, 45 * 1452, 1452), (1, 19 * 1452, 1452)]);
    }

    #[test]
    fn there_is_always_a_buffer_to_write_to() {
        let mut batch = SendBatch::new();
        for _ in 0..20 {
            assert_eq!(batch.reserve(hub(1), usize::MAX).len(), MAX_DATAGRAM);
            batch.commit(usize::MAX);
        }
        assert!(batch.is_full());
        assert_eq!(batch.datagrams().count(), CAPACITY_BYTES / MAX_DATAGRAM);
        assert_eq!(batch.dropped(), 20 - (CAPACITY_BYTES / MAX_DATAGRAM) as u64);
    }

    proptest! {
        #[test]
        fn joined_datagrams_are_exactly_the_queued_ones(
            sizes in prop::collection::vec((0..3_u16, 1..3000_usize), 0..200),
        ) {
            let mut batch = SendBatch::new();
            for (index, (port, length)) in sizes.iter().enumerate() {
                batch.push(hub(*port), &vec![index.to_le_bytes()[0]; *length]);
            }
            let split: Vec<_> = batch
                .segments()
                .flat_map(|run| {
                    run.bytes.chunks(run.segment_size).map(move |bytes| (run.to, bytes))
                })
                .collect();
            prop_assert_eq!(split, batch.datagrams().collect::<Vec<_>>());
        }
    }
}
