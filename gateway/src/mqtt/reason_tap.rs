//! Reads the reason codes of CONNACK and DISCONNECT from the bytes that the broker sends, because
//! rumqttc 0.25.1 loses them.
//!
//! MQTT 5 allows a DISCONNECT without a property length (3.14.2.2.1), and Mosquitto sends such
//! ones; rumqttc then waits for more bytes and reports a closed connection. The same happens to a
//! CONNACK from a broker that supports 3.1.1 only. The tap reads the stream and never changes it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const CONNACK: u8 = 0x20;
const DISCONNECT: u8 = 0xE0;

/// The reason codes seen so far; the first of each kind is kept.
#[derive(Clone, Debug)]
pub(super) struct ReasonCodes(Arc<SharedCodes>);

#[derive(Debug, Default)]
struct SharedCodes {
    connack: OnceLock<u8>,
    disconnect: OnceLock<u8>,
}

/// A stream that records the reason codes of what is read from it.
#[derive(Debug)]
pub(super) struct ReasonTap<S> {
    stream: S,
    scanner: PacketScanner,
    codes: ReasonCodes,
}

impl ReasonCodes {
    /// Returns the code of the CONNACK as it was sent: a return code under 3.1.1.
    pub(super) fn connack(&self) -> Option<u8> {
        self.0.connack.get().copied()
    }

    /// Returns the reason code of a DISCONNECT from the broker.
    pub(super) fn disconnect(&self) -> Option<u8> {
        self.0.disconnect.get().copied()
    }

    fn record(&self, kind: u8, code: u8) {
        let _ = match kind {
            CONNACK => self.0.connack.set(code),
            DISCONNECT => self.0.disconnect.set(code),
            _ => Ok(()),
        };
    }
}

impl<S> ReasonTap<S> {
    pub(super) fn new(stream: S) -> (Self, ReasonCodes) {
        let codes = ReasonCodes(Arc::default());
        (Self { stream, scanner: PacketScanner::default(), codes: codes.clone() }, codes)
    }
}

/// Finds the packet boundaries in the stream; reads the first two bytes of a packet's body only.
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
    /// Reads the next bytes of the stream, which may begin and end anywhere in a packet.
    fn scan(&mut self, mut bytes: &[u8], codes: &ReasonCodes) {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.position = match self.position {
                ScanPosition::Header => {
                    ScanPosition::Length { kind: byte & 0xF0, length: 0, shift: 0 }
                }
                ScanPosition::Length { kind, length, shift } => {
                    let length = length | usize::from(byte & 0x7F) << shift;
                    match (byte & 0x80 == 0, length) {
                        // Four length bytes at most (3.1.1, 2.2.3): bounded against overflow.
                        (false, _) => {
                            ScanPosition::Length { kind, length, shift: (shift + 7).min(21) }
                        }
                        (true, 0) => ScanPosition::Header,
                        (true, left) => ScanPosition::Body { kind, seen: 0, left },
                    }
                }
                ScanPosition::Body { kind, seen, left } => {
                    // CONNACK begins with its flags (3.2.2.1), DISCONNECT with the code (3.14.2.1).
                    let code_at = if kind == CONNACK { 1 } else { 0 };
                    if seen == code_at {
                        codes.record(kind, byte);
                    }
                    // The first two bytes one by one, since one may be the code; then the rest.
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
    fn a_refusal_in_the_format_of_3_1_1_is_understood() {
        let codes = scanned(&[&[0x20, 0x02, 0x00, 0x01]]);
        assert_eq!((codes.connack(), codes.disconnect()), (Some(1), None));
    }

    #[test]
    fn an_empty_packet_has_no_code() {
        let codes = scanned(&[&[0xD0, 0x00, 0xE0, 0x00]]);
        assert_eq!((codes.connack(), codes.disconnect()), (None, None));
    }

    proptest! {
        #[test]
        fn a_payload_is_never_taken_for_a_disconnect(
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
        let (mut tap, codes) = ReasonTap::new(());
        for piece in pieces {
            tap.scanner.scan(piece, &codes);
        }
        codes
    }
}
