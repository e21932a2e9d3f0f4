//! Lets exactly one answer pass for each request: what tokio_modbus does not check on its stream.
//!
//! tokio_modbus discards what arrived between two requests, waits for frames of any length, and
//! starts its transaction ids at 0 in every connection. So a second answer could be taken for the
//! next one, and a late answer to an earlier connection for one of this. Both are found here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest frame (Modbus Application Protocol V1.1b3, 4.1).
const MAX_FRAME_LEN: usize = 260;
/// Transaction id, protocol id and length; the length counts what follows.
const MBAP_PREFIX_LEN: usize = 6;
/// The prefix, unit id, function code, and byte count or exception code.
const HEADER_LEN: usize = 9;

/// Transaction ids of all connections to one PLC: each of the 65,536 once, then from the start.
///
/// They are not consecutive, so that a device that counts itself, where it should echo, is found.
#[derive(Clone, Debug)]
pub(super) struct TransactionIds(Arc<AtomicU16>);

/// A stream that lets exactly one well-formed answer through for each request.
///
/// Every error is final: the connection must be dropped.
#[derive(Debug)]
pub(super) struct Strict<S> {
    stream: S,
    transaction_ids: TransactionIds,
    /// Absent between an answer and the next request.
    pending: Option<PendingRequest>,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct PendingRequest {
    /// The id that tokio_modbus chose.
    client_id: [u8; 2],
    /// The id on the wire.
    wire_id: [u8; 2],
    /// Bytes of the request that were sent.
    sent_len: usize,
    /// Bytes of the answer that arrived.
    received_len: usize,
    /// The first bytes of the answer, as far as they arrived.
    header: [u8; HEADER_LEN],
}

impl TransactionIds {
    pub(super) fn starting_at(first: u16) -> Self {
        Self(Arc::new(AtomicU16::new(first)))
    }

    fn next_id(&self) -> u16 {
        // Load and store need not be one operation: one task owns all connections to a PLC.
        let id = self.0.load(Relaxed);
        // A linear congruential generator of full period: the increment is odd, and 4 divides the
        // factor minus 1. Since 4 does not divide the increment minus 1, no id is followed by the
        // next higher number.
        self.0.store(id.wrapping_mul(25_173).wrapping_add(13_851), Relaxed);
        id
    }
}

impl<S> Strict<S> {
    pub(super) const fn new(stream: S, ids: TransactionIds) -> Self {
        Self { stream, transaction_ids: ids, pending: None }
    }
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Starts a request whose first bytes are `start`. Fails when bytes arrived without a request.
    fn begin_request(&mut self, cx: &mut Context<'_>, start: &[u8]) -> io::Result<PendingRequest> {
        let mut byte = [0];
        let mut probe = ReadBuf::new(&mut byte);
        // Readable before anything was requested: the end of the stream, or an answer that is late.
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut probe) {
            read?;
            return Err(match probe.filled() {
                [] => io::ErrorKind::ConnectionAborted.into(),
                _ => invalid_data("bytes arrived without a request".to_owned()),
            });
        }
        let Some(&client_id) = start.first_chunk() else {
            return Err(io::ErrorKind::WriteZero.into());
        };
        let wire_id = self.transaction_ids.next_id().to_be_bytes();
        Ok(PendingRequest {
            client_id,
            wire_id,
            sent_len: 0,
            received_len: 0,
            header: [0; HEADER_LEN],
        })
    }
}

impl PendingRequest {
    /// Checks the next bytes of the answer, and replaces its id by the one that tokio_modbus
    /// expects. Returns whether the answer is complete.
    fn handle_bytes(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        for (place, byte) in self.header.iter_mut().skip(self.received_len).zip(&*bytes) {
            *place = *byte;
        }
        replace_id(bytes, self.received_len, self.client_id);
        self.received_len += bytes.len();
        self.is_complete()
    }

    /// Returns whether the answer is complete; fails as soon as it cannot be the answer any more.
    /// tokio_modbus checks the function code and the unit.
    fn is_complete(&self) -> io::Result<bool> {
        let [t0, t1, p0, p1, l0, l1, _, function, content] = self.header;
        let len = u16::from_be_bytes([l0, l1]);
        let frame_len = MBAP_PREFIX_LEN + usize::from(len);
        let has = |bytes| self.received_len >= bytes;
        if has(2) && [t0, t1] != self.wire_id {
            return Err(invalid_data("it answers another request".to_owned()));
        }
        if has(4) && [p0, p1] != [0, 0] {
            return Err(invalid_data("it is not Modbus".to_owned()));
        }
        if has(MBAP_PREFIX_LEN) && !(3..=254).contains(&len) {
            return Err(invalid_data(format!("no answer has a length of {len}")));
        }
        if has(HEADER_LEN) && !is_consistent(len, function, content) {
            return Err(invalid_data(format!("its length of {len} is not that of its content")));
        }
        if has(MBAP_PREFIX_LEN) && self.received_len > frame_len {
            return Err(invalid_data("bytes follow the answer".to_owned()));
        }
        Ok(has(MBAP_PREFIX_LEN) && self.received_len == frame_len)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if let Some(pending) = &mut self.pending
            && pending.handle_bytes(bytes)?
        {
            self.pending = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A socket may take a request in parts: the rest belongs to the same request and id.
        let mut pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.begin_request(cx, bytes)?,
        };
        let mut frame = [0; MAX_FRAME_LEN];
        let len = bytes.len().min(MAX_FRAME_LEN);
        let (Some(frame), Some(bytes)) = (frame.get_mut(..len), bytes.get(..len)) else {
            return Poll::Ready(Ok(0));
        };
        frame.copy_from_slice(bytes);
        replace_id(frame, pending.sent_len, pending.wire_id);
        let written = Pin::new(&mut self.stream).poll_write(cx, frame);
        if let Poll::Ready(Ok(written)) = written {
            pending.sent_len += written;
        }
        self.pending = Some(pending);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Replaces the part of a frame's transaction id that lies in `bytes`, the bytes of the frame from
/// `at` on.
fn replace_id(bytes: &mut [u8], at: usize, id: [u8; 2]) {
    for (place, byte) in bytes.iter_mut().zip(id.into_iter().skip(at)) {
        *place = byte;
    }
}

/// Returns whether the two lengths of an answer agree (Modbus Application Protocol V1.1b3, 6.1 to
/// 6.4, 7).
fn is_consistent(len: u16, function: u8, content: u8) -> bool {
    match function {
        1..=4 => len == 3 + u16::from(content),
        0x80.. => len == 3,
        _ => true,
    }
}

fn invalid_data(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_id_comes_once_and_is_never_followed_by_the_next_number() {
        let ids = TransactionIds::starting_at(7);
        let taken: Vec<u16> = (0..=u16::MAX).map(|_| ids.next_id()).collect();
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 65_536);
        assert_eq!(ids.next_id(), 7);
        assert!(taken.windows(2).all(|pair| pair[1] != pair[0].wrapping_add(1)));
    }

    #[test]
    fn the_length_of_a_frame_must_match_its_byte_count() {
        // Unit id, function code and byte count precede the data.
        for function in 1..=4 {
            assert!(is_consistent(3 + 250, function, 250) && is_consistent(4, function, 1));
            assert!(!is_consistent(3 + 249, function, 250), "{function}: less than it counts");
            assert!(!is_consistent(3 + 251, function, 250), "{function}: more than it counts");
        }
        for function in [0x80, 0x83, 0xAB, 0xFF] {
            assert!(is_consistent(3, function, 2) && !is_consistent(4, function, 2));
        }
        for function in [0, 5, 43, 0x7F] {
            assert!(is_consistent(9, function, 200), "{function} has no byte count");
        }
    }
}
