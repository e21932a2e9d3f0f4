//! Lets exactly one answer pass for each request: what tokio_modbus does not check on its stream.
//!
//! tokio_modbus discards what arrived between two requests, waits for frames of any length, and
//! starts its transaction ids at 0 in every connection. So a second answer could be taken for the
//! next one, and a late answer to an earlier connection for one of this. Both are found here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::plc::session::AnswerMismatch;

/// Longest frame (Modbus Application Protocol V1.1b3, 4.1).
const MAX_FRAME_LEN: usize = 260;
/// Transaction id, protocol id and length; the length counts what follows.
const MBAP_PREFIX_LEN: usize = 6;
/// The prefix, unit id, function code, and byte count or exception code: the shortest answer.
const HEADER_LEN: usize = 9;
/// The length of an exception: unit id, function code and exception code.
const EXCEPTION_LENGTH: u16 = 3;
/// The length of the answer to a write: unit id, function code, address, and value or count.
const WRITE_LENGTH: u16 = 6;
/// An answer to one of this many requests before the last one is late, and not to a foreign one.
const RECENT_REQUESTS: usize = 16;

/// Transaction ids of all connections to one PLC: each of the 65,536 once, then from the start.
///
/// They are not consecutive, so that a device that counts itself, where it should echo, is found.
#[derive(Clone, Debug)]
pub(super) struct TransactionIds(Arc<AtomicU16>);

/// A stream that lets exactly one well-formed answer through for each request, and only whole.
///
/// Every error is final: the connection must be dropped.
#[derive(Debug)]
pub(super) struct Strict<S> {
    stream: S,
    transaction_ids: TransactionIds,
    /// Absent between an answer and the next request.
    pending: Option<PendingRequest>,
    /// The part of a complete answer that tokio_modbus has not taken yet.
    delivery: Vec<u8>,
}

/// Why no byte of a request was sent: the connection could not be used any more.
#[derive(Debug, Error)]
#[error("the request was not sent")]
pub(super) struct UnsentRequest(#[source] pub(super) io::Error);

/// A request that waits for its answer.
#[derive(Debug)]
struct PendingRequest {
    /// The id that tokio_modbus chose.
    client_id: [u8; 2],
    /// The id on the wire.
    wire_id: [u8; 2],
    /// Unit id and function code; absent until they were sent.
    asked: Option<(u8, u8)>,
    /// Bytes of the request that were sent.
    sent_len: usize,
    /// What arrived of the answer.
    answer: Vec<u8>,
}

impl TransactionIds {
    pub(super) fn starting_at(first: u16) -> Self {
        Self(Arc::new(AtomicU16::new(first)))
    }

    fn next_id(&self) -> u16 {
        // Load and store need not be one operation: one task owns all connections to a PLC.
        let id = self.0.load(Relaxed);
        self.0.store(successor(id), Relaxed);
        id
    }
}

/// Returns the transaction id after this one.
///
/// A linear congruential generator of full period: the increment is odd, and 4 divides the factor
/// minus 1. Since 4 does not divide the increment minus 1, no id is followed by the next higher
/// number.
const fn successor(id: u16) -> u16 {
    id.wrapping_mul(25_173).wrapping_add(13_851)
}

/// Returns whether `id` was that of one of the last requests before `current`.
fn is_recent(id: u16, current: u16) -> bool {
    std::iter::successors(Some(id), |id| Some(successor(*id)))
        .skip(1)
        .take(RECENT_REQUESTS)
        .any(|later| later == current)
}

impl<S> Strict<S> {
    pub(super) const fn new(stream: S, ids: TransactionIds) -> Self {
        Self { stream, transaction_ids: ids, pending: None, delivery: Vec::new() }
    }
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Starts a request whose first bytes are `start`. Fails when bytes arrived without a request.
    fn begin_request(&mut self, cx: &mut Context<'_>, start: &[u8]) -> io::Result<PendingRequest> {
        let mut bytes = [0; MAX_FRAME_LEN];
        let mut probe = ReadBuf::new(&mut bytes);
        // Readable before anything was requested: the end of the stream, or an answer that is late.
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut probe) {
            read?;
            return Err(match probe.filled() {
                [] => io::ErrorKind::ConnectionAborted.into(),
                unsolicited => self.judge_unsolicited(unsolicited).into(),
            });
        }
        let Some(&client_id) = start.first_chunk() else {
            return Err(io::ErrorKind::WriteZero.into());
        };
        let wire_id = self.transaction_ids.next_id().to_be_bytes();
        let asked = start.get(6).copied().zip(start.get(7).copied());
        Ok(PendingRequest { client_id, wire_id, asked, sent_len: 0, answer: Vec::new() })
    }

    /// Returns what is wrong with bytes that arrived without a request: an answer that comes late
    /// or twice, or the rest of one that was longer than it said.
    fn judge_unsolicited(&self, bytes: &[u8]) -> AnswerMismatch {
        match bytes {
            &[t0, t1, 0, 0, ..]
                if is_recent(
                    u16::from_be_bytes([t0, t1]),
                    self.transaction_ids.0.load(Relaxed),
                ) =>
            {
                AnswerMismatch::Late
            }
            _ => AnswerMismatch::ExtraBytes { bytes: bytes.len() },
        }
    }
}

impl PendingRequest {
    /// Returns whether the answer is complete; fails as soon as it cannot be the answer any more.
    fn is_complete(&self) -> Result<bool, AnswerMismatch> {
        let mut header = [0; HEADER_LEN];
        for (place, byte) in header.iter_mut().zip(&self.answer) {
            *place = *byte;
        }
        let [t0, t1, p0, p1, l0, l1, unit, function, content] = header;
        let len = u16::from_be_bytes([l0, l1]);
        let received = self.answer.len();
        let has = |bytes| received >= bytes;
        if has(2) && [t0, t1] != self.wire_id {
            return Err(self.judge_id([t0, t1]));
        }
        if has(4) && [p0, p1] != [0, 0] {
            return Err(AnswerMismatch::NotModbus);
        }
        if has(7)
            && let Some((asked, _)) = self.asked.filter(|(asked, _)| *asked != unit)
        {
            return Err(AnswerMismatch::OtherUnit { asked, answered: unit });
        }
        // Some devices count a byte too many in an exception. Unit, function and id show that it
        // is one; if there is more to it, the byte ends the session before the next request.
        if has(8) && self.is_exception(function) {
            return match received {
                ..HEADER_LEN => Ok(false),
                HEADER_LEN => Ok(true),
                _ => Err(AnswerMismatch::ExtraBytes { bytes: received - HEADER_LEN }),
            };
        }
        if has(MBAP_PREFIX_LEN) && !(3..=254).contains(&len) {
            return Err(AnswerMismatch::Length { length: len });
        }
        if has(HEADER_LEN) && !is_consistent(len, function, content) {
            return Err(AnswerMismatch::Length { length: len });
        }
        let frame_len = MBAP_PREFIX_LEN + usize::from(len);
        if has(MBAP_PREFIX_LEN) && received > frame_len {
            return Err(AnswerMismatch::ExtraBytes { bytes: received - frame_len });
        }
        Ok(has(MBAP_PREFIX_LEN) && received == frame_len)
    }

    /// Returns what is wrong with an answer that has this transaction id.
    fn judge_id(&self, id: [u8; 2]) -> AnswerMismatch {
        if is_recent(u16::from_be_bytes(id), u16::from_be_bytes(self.wire_id)) {
            AnswerMismatch::Late
        } else {
            AnswerMismatch::OtherTransaction
        }
    }

    fn is_exception(&self, function: u8) -> bool {
        self.asked.is_some_and(|(_, asked)| function == asked | 0x80)
    }

    /// Returns the complete answer with the id that tokio_modbus expects, and the length that an
    /// exception has.
    fn into_answer(self) -> Vec<u8> {
        let Self { mut answer, client_id, .. } = self;
        replace_id(&mut answer, 0, client_id);
        if answer.len() == HEADER_LEN
            && let Some(length) = answer.get_mut(4..MBAP_PREFIX_LEN)
        {
            // Nine bytes are an exception, or an answer of one byte without data.
            length.copy_from_slice(&EXCEPTION_LENGTH.to_be_bytes());
        }
        answer
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.delivery.is_empty()
            && let Some(mut pending) = self.pending.take()
        {
            let mut bytes = [0; MAX_FRAME_LEN];
            let mut read = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut read);
            let arrived = read.filled();
            if polled.is_pending() || arrived.is_empty() {
                self.pending = Some(pending);
                return polled;
            }
            pending.answer.extend_from_slice(arrived);
            if pending.is_complete()? {
                self.delivery = pending.into_answer();
            } else {
                self.pending = Some(pending);
            }
        }
        if self.delivery.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.delivery.len().min(buf.remaining());
        buf.put_slice(self.delivery.get(..len).unwrap_or_default());
        self.delivery.drain(..len);
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
            None => {
                let begun = self.begin_request(cx, bytes);
                begun.map_err(|error| io::Error::other(UnsentRequest(error)))?
            }
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

/// Returns whether the length of an answer is that of its content (Modbus Application Protocol
/// V1.1b3, 6.1 to 6.6, 6.11, 6.12, 7).
fn is_consistent(len: u16, function: u8, content: u8) -> bool {
    match function {
        1..=4 => len == 3 + u16::from(content),
        5 | 6 | 15 | 16 => len == WRITE_LENGTH,
        0x80.. => len == EXCEPTION_LENGTH,
        _ => true,
    }
}

impl From<AnswerMismatch> for io::Error {
    fn from(mismatch: AnswerMismatch) -> Self {
        Self::new(io::ErrorKind::InvalidData, mismatch)
    }
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
        for function in [5, 6, 15, 16] {
            assert!(is_consistent(6, function, 200) && !is_consistent(7, function, 3));
        }
        for function in [0, 43, 0x7F] {
            assert!(is_consistent(9, function, 200), "{function} has no byte count");
        }
    }
}
