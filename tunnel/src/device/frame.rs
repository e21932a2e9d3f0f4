//! The header before each packet: segmentation and partial checksum (struct virtio_net_hdr).

use thiserror::Error;

/// Length of the header before a packet.
pub(crate) const VNET_HEADER_LEN: usize = 10;
/// Longest frame: the header and an IP packet.
pub(crate) const MAX_FRAME_LEN: usize = VNET_HEADER_LEN + u16::MAX as usize;

const FLAG_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Marks a TCP packet with ECN; each of its segments keeps the bits, except CWR.
const GSO_ECN: u8 = 0x80;

/// A frame that no host sends.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a frame from the network interface is malformed")]
pub(crate) struct MalformedFrame;

/// The header before a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct VnetHeader {
    /// A checksum that the receiver must complete.
    pub checksum: Option<PartialChecksum>,
    /// Whether the packet stands for several.
    pub gso: GsoType,
}

/// Position of a partial checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PartialChecksum {
    /// Offset of the transport header in the packet, from which on the checksum is computed.
    pub start: u16,
    /// Offset of the checksum from there.
    pub offset: u16,
}

/// Protocol of the joined packets, with the length of each payload but the last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum GsoType {
    /// It is a single packet.
    #[default]
    None,
    /// TCP segments over IPv4.
    Tcp4(u16),
    /// TCP segments over IPv6.
    Tcp6(u16),
    /// UDP datagrams over either.
    Udp(u16),
}

impl VnetHeader {
    /// Splits a frame into its header and the packet.
    pub(crate) fn parse(frame: &mut [u8]) -> Result<(Self, &mut [u8]), MalformedFrame> {
        let (header, packet) =
            frame.split_first_chunk_mut::<VNET_HEADER_LEN>().ok_or(MalformedFrame)?;
        let [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1] = *header;
        let _header_length_which_is_wrong_for_forwarded_packets = [l0, l1];
        let size = u16::from_ne_bytes([s0, s1]);
        let joined = match kind & !GSO_ECN {
            GSO_NONE => GsoType::None,
            GSO_TCPV4 => GsoType::Tcp4(size),
            GSO_TCPV6 => GsoType::Tcp6(size),
            GSO_UDP_L4 => GsoType::Udp(size),
            _ => return Err(MalformedFrame),
        };
        let start = u16::from_ne_bytes([c0, c1]);
        let checksum = PartialChecksum { start, offset: u16::from_ne_bytes([o0, o1]) };
        let checksum = (flags & FLAG_NEEDS_CSUM != 0).then_some(checksum);
        Ok((Self { checksum, gso: joined }, packet))
    }

    /// Encodes the header for a packet with `headers` bytes of IP and transport headers, which the
    /// kernel needs for joined segments only.
    #[must_use]
    pub(crate) fn to_bytes(self, headers: u16) -> [u8; VNET_HEADER_LEN] {
        let (kind, size) = match self.gso {
            GsoType::None => (GSO_NONE, 0),
            GsoType::Tcp4(size) => (GSO_TCPV4, size),
            GsoType::Tcp6(size) => (GSO_TCPV6, size),
            GsoType::Udp(size) => (GSO_UDP_L4, size),
        };
        let flags = if self.checksum.is_some() { FLAG_NEEDS_CSUM } else { 0 };
        let checksum = self.checksum.unwrap_or(PartialChecksum { start: 0, offset: 0 });
        let [l0, l1] = if self.gso == GsoType::None { [0, 0] } else { headers.to_ne_bytes() };
        let ([s0, s1], [c0, c1]) = (size.to_ne_bytes(), checksum.start.to_ne_bytes());
        let [o0, o1] = checksum.offset.to_ne_bytes();
        [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1]
    }
}
