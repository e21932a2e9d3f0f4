//! Headers of TCP segments.

use std::net::SocketAddr;

use super::ip_header;

const TCP: u8 = 6;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const SYN: u8 = 0x02;

/// The headers of a packet with a TCP segment, as far as they matter here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TcpSegment {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) first_sequence: u32,
    pub(crate) end_sequence: u32,
    pub(crate) acknowledged: Option<u32>,
    pub(crate) is_reset: bool,
    pub(crate) is_syn: bool,
    /// Offset of the TCP header in the packet.
    pub(crate) header_at: usize,
    /// Length of the IP and TCP headers.
    pub(crate) headers_len: usize,
}

impl TcpSegment {
    /// Parses a packet (RFC 9293, 3.1); `None` for anything else, and for a fragment.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let header = ip_header::parse(packet)?;
        let first = *packet.first()?;
        let (protocol, at) = match first >> 4 {
            4 if packet.get(6..8)?.first_chunk().map(|word| u16::from_be_bytes(*word) & 0x3fff)
                == Some(0) =>
            {
                (*packet.get(9)?, usize::from(first & 0x0f) * 4)
            }
            6 => (*packet.get(6)?, 40),
            _ => return None,
        };
        let tcp = packet.get(at..header.length).filter(|_| protocol == TCP)?;
        let (ports, rest) = tcp.split_first_chunk::<4>()?;
        let (start, rest) = rest.split_first_chunk::<4>()?;
        let (acknowledged, rest) = rest.split_first_chunk::<4>()?;
        let [offset, flags, ..] = *rest else { return None };
        let [from_high, from_low, to_high, to_low] = *ports;
        let start = u32::from_be_bytes(*start);
        let tcp_header = usize::from(offset >> 4) * 4;
        let length = tcp.len().checked_sub(tcp_header)?;
        Some(Self {
            from: SocketAddr::new(header.source, u16::from_be_bytes([from_high, from_low])),
            to: SocketAddr::new(header.destination, u16::from_be_bytes([to_high, to_low])),
            first_sequence: start,
            end_sequence: start.wrapping_add(u32::try_from(length).ok()?),
            acknowledged: (flags & ACK != 0).then(|| u32::from_be_bytes(*acknowledged)),
            is_reset: flags & RST != 0,
            is_syn: flags & SYN != 0,
            header_at: at,
            headers_len: at + tcp_header,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..100), is_v4: bool) {
            if is_v4 && bytes.len() > 20 {
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6]);
                bytes[3] = bytes.len().to_le_bytes()[0];
            }
            if let Some(segment) = TcpSegment::parse(&bytes) {
                prop_assert!(segment.headers_len <= bytes.len());
            }
        }
    }
}
