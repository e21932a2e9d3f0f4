//! Reads along what the broker sends, for the two packets whose reason rumqttc 0.25.1 loses.
//!
//! MQTT 5 lets a DISCONNECT leave out the property length (3.14.2.2.1), and Mosquitto does; rumqttc
//! then waits for more bytes and reports a closed connection. The same happens to a CONNACK from a
//! broker that only speaks 3.1.1. The codes are told apart here, nothing is changed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const CONNACK: u8 = 0x20;
const DISCONNECT: u8 = 0xE0;
const NO_CODE: u16 = u16::MAX;

/// What was overheard so far.
#[derive(Clone, Debug)]
pub(super) struct ReasonCodes(Arc<SharedCodes>);

#[derive(Debug)]
struct SharedCodes {
    connack: AtomicU16,
    disconnect: AtomicU16,
}

/// A stream that is read along.
#[derive(Debug)]
pub(super) struct ReasonTap<S> {
    stream: S,
    scanner: PacketScanner,
    codes: ReasonCodes,
}

impl ReasonCodes {
    /// Reason code of the CONNACK, as it was on the wire.
    pub(super) fn connack(&self) -> Option<u8> {
        u8::try_from(self.0.connack.load(Ordering::Relaxed)).ok()
    }

    /// Reason code of a DISCONNECT from the broker.
    pub(super) fn disconnect(&self) -> Option<u8> {
        u8::try_from(self.0.disconnect.load(Ordering::Relaxed)).ok()
    }

    fn record(&self, kind: u8, code: u8) {
        match kind {
            CONNACK => self.0.connack.store(u16::from(code), Ordering::Relaxed),
            DISCONNECT => self.0.disconnect.store(u16::from(code), Ordering::Relaxed),
            _ => {}
        }
    }
}

impl<S> ReasonTap<S> {
    pub(super) fn new(stream: S) -> (Self, ReasonCodes) {
        let codes = SharedCodes { connack: NO_CODE.into(), disconnect: NO_CODE.into() };
        let words = ReasonCodes(Arc::new(codes));
        (Self { stream, scanner: PacketScanner::default(), codes: words.clone() }, words)
    }
}

/// Follows the packet borders of the stream; looks at the first two bytes of a body only.
#[derive(Debug, Default)]
struct PacketScanner {
    position: ScanPosition,
}

#[derive(Clone, Copy, Debug, Default)]
enum ScanPosition {
    #[default]
    Header,
    Length {
        kind: u8,
        length: usize,
        shift: u32,
    },
    Body {
        kind: u8,
        seen: usize,
        left: usize,
    },
}

impl PacketScanner {
    fn scan(&mut self, mut bytes: &[u8], words: &ReasonCodes) {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.position = match self.position {
                ScanPosition::Header => {
                    ScanPosition::Length { kind: byte & 0xF0, length: 0, shift: 0 }
                }
                ScanPosition::Length { kind, length, shift } => {
                    let length = length | usize::from(byte & 0x7F) << shift;
                    match (byte & 0x80 == 0, length) {
                        (false, _) => {
                            ScanPosition::Length { kind, length, shift: (shift + 7).min(21) }
                        }
                        (true, 0) => ScanPosition::Header,
                        (true, left) => ScanPosition::Body { kind, seen: 0, left },
                    }
                }
                ScanPosition::Body { kind, seen, left } => {
                    let code_at = if kind == CONNACK { 1 } else { 0 };
                    if seen == code_at {
                        words.record(kind, byte);
                    }
                    let here = if seen < 2 { 1 } else { bytes.len().min(left) };
                    bytes = bytes.get(here..).unwrap_or_default();
                    self.position = match left - here {
                        0 => ScanPosition::Header,
                        left => ScanPosition::Body { kind, seen: seen + here, left },
                    };
                    continue;
                }
            };
            bytes = rest;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReasonTap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(fresh) = buf.filled().get(before..) {
            this.scanner.scan(fresh, &this.codes);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReasonTap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_disconnect_without_property_length_is_understood() {
        assert_eq!(scanned(&[&[0xE0, 0x01, 0x8E]]).disconnect(), Some(0x8E));
    }

    #[test]
    fn a_refusal_in_the_form_of_3_1_1_is_understood() {
        let words = scanned(&[&[0x20, 0x02, 0x00, 0x01]]);
        assert_eq!((words.connack(), words.disconnect()), (Some(1), None));
    }

    #[test]
    fn an_empty_packet_says_nothing() {
        let words = scanned(&[&[0xD0, 0x00, 0xE0, 0x00]]);
        assert_eq!((words.connack(), words.disconnect()), (None, None));
    }

    proptest! {
        #[test]
        fn payloads_never_look_like_a_disconnect(
            payload in vec(prop_oneof![Just(0xE0), Just(0x01), any::<u8>()], 1..400),
            cut in 1_usize..40,
        ) {
            let mut bytes = vec![0x30];
            let mut length = payload.len();
            while length >= 0x80 {
                bytes.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
                length >>= 7;
            }
            bytes.push(u8::try_from(length).unwrap());
            bytes.extend(payload);
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(scanned(&pieces).disconnect(), None);

            let pieces: Vec<&[u8]> = pieces.into_iter().chain([&[0xE0, 0x01][..], &[0x8E]]).collect();
            prop_assert_eq!(scanned(&pieces).disconnect(), Some(0x8E));
        }
    }

    fn scanned(pieces: &[&[u8]]) -> ReasonCodes {
        let (mut heard, words) = ReasonTap::new(());
        for piece in pieces {
            heard.scanner.scan(piece, &words);
        }
        words
    }
}
