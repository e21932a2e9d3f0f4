//! What the host writes before a packet: whether it stands for several, and what is left to do.

use thiserror::Error;

/// Length of the header before a packet.
pub(crate) const HEADER: usize = 10;
/// Longest frame: the header and an IP packet.
pub(crate) const FRAME: usize = HEADER + u16::MAX as usize;

const NEEDS_CHECKSUM: u8 = 1;
const NOT_JOINED: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
/// Marks a TCP segment with ECN; each of its segments keeps the bits, except CWR.
const ECN: u8 = 0x80;

/// The frame is not one that a host sends.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a frame from the network device contradicts itself")]
pub(crate) struct Malformed;

/// The header before a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Frame {
    /// A checksum that the host has left to others.
    pub checksum: Option<Checksum>,
    /// Whether the packet stands for several.
    pub joined: Joined,
}

/// Where a checksum is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Checksum {
    /// Where in the packet its transport header begins, and what is summed.
    pub start: u16,
    /// Where it belongs, from there.
    pub offset: u16,
}

/// What is joined in a packet, with the length of each payload but the last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Joined {
    /// It is one packet.
    #[default]
    No,
    /// TCP segments over IPv4.
    Tcp4(u16),
    /// TCP segments over IPv6.
    Tcp6(u16),
    /// UDP datagrams over either.
    Udp(u16),
}

impl Frame {
    /// Takes a frame apart into what its header says and the packet.
    pub(crate) fn parse(frame: &mut [u8]) -> Result<(Self, &mut [u8]), Malformed> {
        let (header, packet) = frame.split_first_chunk_mut::<HEADER>().ok_or(Malformed)?;
        let [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1] = *header;
        let _length_of_headers_that_is_wrong_when_forwarded = [l0, l1];
        let size = u16::from_ne_bytes([s0, s1]);
        let joined = match kind & !ECN {
            NOT_JOINED => Joined::No,
            TCP4 => Joined::Tcp4(size),
            TCP6 => Joined::Tcp6(size),
            UDP => Joined::Udp(size),
            _ => return Err(Malformed),
        };
        let start = u16::from_ne_bytes([c0, c1]);
        let checksum = Checksum { start, offset: u16::from_ne_bytes([o0, o1]) };
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(checksum);
        Ok((Self { checksum, joined }, packet))
    }

    /// The header for a packet whose IP and transport headers are `headers` bytes long.
    #[must_use]
    pub(crate) fn to_bytes(self, headers: u16) -> [u8; HEADER] {
        let (kind, size) = match self.joined {
            Joined::No => (NOT_JOINED, 0),
            Joined::Tcp4(size) => (TCP4, size),
            Joined::Tcp6(size) => (TCP6, size),
            Joined::Udp(size) => (UDP, size),
        };
        let flags = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        let checksum = self.checksum.unwrap_or(Checksum { start: 0, offset: 0 });
        let [l0, l1] = if self.joined == Joined::No { [0, 0] } else { headers.to_ne_bytes() };
        let ([s0, s1], [c0, c1]) = (size.to_ne_bytes(), checksum.start.to_ne_bytes());
        let [o0, o1] = checksum.offset.to_ne_bytes();
        [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1]
    }
}
