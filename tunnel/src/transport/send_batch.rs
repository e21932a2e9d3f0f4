//! Datagrams to be sent, in one buffer, so that a kernel takes many at once.

use std::net::SocketAddr;

#[cfg(test)]
mod tests;

use super::MAX_DATAGRAM;

/// Room for datagrams: seven of the longest runs. Flushing at 30 to 400 KB made no difference in
/// speed.
const CAPACITY_BYTES: usize = 512 * 1024;
/// When to flush: what one packet of a TUN device becomes, up to 64 KiB and 32 bytes for each 500 or
/// more, and a few handshake messages fit behind it.
const FLUSH_THRESHOLD: usize = CAPACITY_BYTES - 128 * 1024;
/// Most datagrams in one message to the kernel (UDP_MAX_SEGMENTS of Linux before 6.9).
const MAX_SEGMENTS: usize = 64;
/// Most bytes in one message to the kernel: what an IPv4 packet carries in UDP.
const MAX_SEGMENTS_BYTES: usize = 65_507;

/// Datagrams to be sent, back to back. Allocated once and reused; what does not fit is lost, as on
/// a network, and counted.
#[derive(Debug)]
pub struct SendBatch {
    /// `BYTES`, and behind them room for the datagram that does not fit.
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

/// Datagrams of equal length to one receiver, the last may be shorter: at most 64, and at most
/// 65,507 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segments<'a> {
    /// Where they go.
    pub to: SocketAddr,
    /// All of them, back to back.
    pub bytes: &'a [u8],
    /// Length of each but the last, above zero.
    pub segment_size: usize,
}

impl SendBatch {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        let bytes = vec![0; CAPACITY_BYTES + MAX_DATAGRAM];
        Self { bytes, used: 0, datagrams: Vec::new(), reserved: None, dropped: 0 }
    }

    /// Gives `max_length` bytes to write a datagram into, at most [`MAX_DATAGRAM`];
    /// [`Outbox::commit`] then adds it. Whatever was reserved before and not committed is gone.
    pub fn reserve(&mut self, to: SocketAddr, max_length: usize) -> &mut [u8] {
        let length = max_length.min(MAX_DATAGRAM);
        self.reserved = Some(QueuedDatagram { to, length });
        self.bytes.get_mut(self.used..self.used + length).unwrap_or_default()
    }

    /// Adds the first `length` bytes of what was reserved. Without a reservation, or with a length
    /// of 0, it does nothing; a longer length is cut to what was reserved.
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
        let place = self.reserve(to, datagram.len());
        if let Some(fitting) = datagram.get(..place.len()) {
            place.copy_from_slice(fitting);
        }
        self.commit(datagram.len());
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Whether it is time to send: what else one packet of the host may become might not fit.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.used > FLUSH_THRESHOLD
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.used
    }

    /// Datagrams that did not fit, since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets everything that waits, not what was lost.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
        self.reserved = None;
    }

    /// What is to be sent and where, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let mut start = 0;
        self.datagrams.iter().map(move |datagram| {
            let bytes = self.bytes.get(start..start + datagram.length).unwrap_or_default();
            start += datagram.length;
            (datagram.to, bytes)
        })
    }

    /// The same in the same order, joined as far as a kernel takes it at once (UDP_SEGMENT).
    pub fn segments(&self) -> impl Iterator<Item = Segments<'_>> {
        let (mut next, mut start) = (0, 0);
        std::iter::from_fn(move || {
            let rest = self.datagrams.get(next..).unwrap_or_default();
            let (count, length) = count_segments(rest)?;
            let stride = rest.first()?.length;
            let run = Segments {
                to: rest.first()?.to,
                bytes: self.bytes.get(start..start + length)?,
                segment_size: stride,
            };
            next += count;
            start += length;
            Some(run)
        })
    }
}

/// How many datagrams make one run, and their length together; `None` without any.
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
