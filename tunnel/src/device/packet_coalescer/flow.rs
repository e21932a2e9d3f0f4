//! Decides which packets can be joined.

use crate::device::Offload;
use crate::device::bytes::{length_bytes, put, u16_at, u32_at};
use crate::device::checksum::{
    ChecksumSum, TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET, pseudo_header,
};
use crate::device::frame::{GsoType, PartialChecksum, VnetHeader};
use crate::device::segment::{PSH, TCP, UDP, write_ipv4_checksum};

const ACK: u8 = 0x10;
/// Flag of an IPv4 packet that must not be fragmented; its identification is meaningless (RFC 6864,
/// 4).
const DONT_FRAGMENT: u8 = 0x40;

/// Kinds of packets that can be joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlowKind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

/// A packet, or several joined ones.
#[derive(Clone, Debug)]
pub(super) struct CoalescedPacket {
    kind: FlowKind,
    /// Length of the IP and transport headers.
    headers: u16,
    /// Payload of each packet but the last.
    size: u16,
    /// Length of the whole packet.
    total: usize,
    /// Sequence number after the last byte of a TCP stream.
    next: u32,
    /// Identification of the next IPv4 packet.
    id: u16,
    /// Closed if the last packet was shorter or had PSH set: nothing may follow it.
    state: GrowthState,
    pushed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum GrowthState {
    Growing,
    Closed,
}

impl FlowKind {
    const fn transport_offset(self) -> usize {
        match self {
            Self::Tcp4 | Self::Udp4 => 20,
            Self::Tcp6 | Self::Udp6 => 40,
        }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp4 | Self::Tcp6 => TCP,
            Self::Udp4 | Self::Udp6 => UDP,
        }
    }

    /// Returns the position of addresses and ports, which identify a flow.
    const fn flow_key(self) -> std::ops::Range<usize> {
        match self {
            Self::Tcp4 | Self::Udp4 => 12..24,
            Self::Tcp6 | Self::Udp6 => 8..44,
        }
    }
}

impl CoalescedPacket {
    /// Returns a packet that others may be joined to: a TCP segment with no flags but ACK and PSH,
    /// or a UDP datagram; without IP options or extensions, with correct lengths and checksums.
    ///
    /// A wrong checksum must reach the host unchanged, and a joined packet gets a new one.
    pub(super) fn new(packet: &[u8], offload: Offload) -> Option<Self> {
        if offload == Offload::Nothing {
            return None;
        }
        let kind = flow_kind(packet)?;
        if kind.protocol() == UDP && offload != Offload::TcpAndUdp {
            return None;
        }
        let at = kind.transport_offset();
        let transport = packet.get(at..)?;
        let (headers, next, pushed) = match kind.protocol() {
            TCP => {
                let length = usize::from(*transport.get(12)? >> 4) * 4;
                let flags = *transport.get(13)?;
                let is_plain = length >= 20 && flags & !PSH == ACK;
                (is_plain.then_some(at + length)?, u32_at(transport, 4)?, flags & PSH != 0)
            }
            _ => {
                let has_checksum = u16_at(transport, 6)? != 0;
                let is_whole = usize::from(u16_at(transport, 4)?) == transport.len();
                ((has_checksum && is_whole).then_some(at + 8)?, 0, false)
            }
        };
        let payload = packet.len().checked_sub(headers).filter(|length| *length > 0)?;
        let is_right =
            pseudo_header(packet, kind.protocol(), transport.len())?.add(transport).is_valid();
        let payload = u16::try_from(payload).ok()?;
        is_right.then_some(Self {
            kind,
            headers: u16::try_from(headers).ok()?,
            size: payload,
            total: packet.len(),
            next: next.wrapping_add(payload.into()),
            id: u16_at(packet, 4)?.wrapping_add(1),
            state: if pushed { GrowthState::Closed } else { GrowthState::Growing },
            pushed,
        })
    }

    /// Returns the length of the IP and transport headers.
    pub(super) const fn headers(&self) -> u16 {
        self.headers
    }

    /// Returns whether a packet has the same addresses and ports.
    pub(super) fn is_same_flow(&self, first: &[u8], packet: &[u8], new: &Self) -> bool {
        let addresses = self.kind.flow_key();
        self.kind == new.kind && first.get(addresses.clone()) == packet.get(addresses)
    }

    /// Joins a packet of the same flow if it is the next one and its headers do not differ
    /// otherwise.
    pub(super) fn try_append(&mut self, first: &[u8], packet: &[u8], new: &Self) -> bool {
        let payload = new.size;
        let total = self.total + usize::from(payload);
        let follows = self.state == GrowthState::Growing
            && payload <= self.size
            && total <= usize::from(u16::MAX)
            && self.headers == new.headers
            && self.is_next(packet, new)
            && is_same_header(self.kind, first, packet, self.headers.into());
        if follows {
            self.total = total;
            self.next = new.next;
            self.id = new.id;
            self.pushed = new.pushed;
            let is_last = new.pushed || payload < self.size;
            self.state = if is_last { GrowthState::Closed } else { GrowthState::Growing };
        }
        follows
    }

    fn is_next(&self, packet: &[u8], new: &Self) -> bool {
        let is_v4 = matches!(self.kind, FlowKind::Tcp4 | FlowKind::Udp4);
        let is_numbered = is_v4 && packet.get(6).is_some_and(|flags| flags & DONT_FRAGMENT == 0);
        let is_tcp = self.kind.protocol() == TCP;
        (!is_numbered || new.id == self.id.wrapping_add(1))
            && (!is_tcp || new.next == self.next.wrapping_add(new.size.into()))
    }

    /// Adapts the headers of the first packet to the joined one; returns the header of the frame.
    pub(super) fn finish(&self, first: &mut [u8]) -> Option<VnetHeader> {
        let at = self.kind.transport_offset();
        let joined = match self.kind {
            FlowKind::Tcp4 => GsoType::Tcp4(self.size),
            FlowKind::Tcp6 => GsoType::Tcp6(self.size),
            FlowKind::Udp4 | FlowKind::Udp6 => GsoType::Udp(self.size),
        };
        if at == 20 {
            put(first, 2, length_bytes(self.total))?;
            write_ipv4_checksum(first, at)?;
        } else {
            put(first, 4, length_bytes(self.total - at))?;
        }
        let offset = if self.kind.protocol() == TCP {
            let flags = *first.get(at + 13)?;
            put(first, at + 13, [if self.pushed { flags | PSH } else { flags }])?;
            TCP_CHECKSUM_OFFSET
        } else {
            put(first, at + 4, length_bytes(self.total - at))?;
            UDP_CHECKSUM_OFFSET
        };
        let pseudo = pseudo_header(first, self.kind.protocol(), self.total - at)?;
        put(first, at + offset, pseudo.folded())?;
        let (start, offset) = (u16::try_from(at).ok()?, u16::try_from(offset).ok()?);
        Some(VnetHeader { checksum: Some(PartialChecksum { start, offset }), gso: joined })
    }
}

/// Returns the kind of a packet with plain headers and a correct length.
fn flow_kind(packet: &[u8]) -> Option<FlowKind> {
    match packet.first()? {
        0x45 => {
            let is_whole = usize::from(u16_at(packet, 2)?) == packet.len();
            let is_fragment = u16_at(packet, 6)? & 0xbfff != 0;
            let is_right = ChecksumSum::default().add(packet.get(..20)?).is_valid();
            let kind = match *packet.get(9)? {
                TCP => FlowKind::Tcp4,
                UDP => FlowKind::Udp4,
                _ => return None,
            };
            (is_whole && !is_fragment && is_right).then_some(kind)
        }
        first if first >> 4 == 6 => {
            let is_whole = usize::from(u16_at(packet, 4)?) + 40 == packet.len();
            let kind = match *packet.get(6)? {
                TCP => FlowKind::Tcp6,
                UDP => FlowKind::Udp6,
                _ => return None,
            };
            is_whole.then_some(kind)
        }
        _ => None,
    }
}

/// Returns whether the headers of two packets of a flow differ only where segments of one message
/// differ.
fn is_same_header(kind: FlowKind, a: &[u8], b: &[u8], headers: usize) -> bool {
    let at = kind.transport_offset();
    let same = |range: std::ops::Range<usize>| a.get(range.clone()) == b.get(range);
    let same_ip = match kind {
        FlowKind::Tcp4 | FlowKind::Udp4 => same(0..2) && same(6..10),
        FlowKind::Tcp6 | FlowKind::Udp6 => same(0..4) && same(6..8),
    };
    let same_transport = match kind {
        // Acknowledgement number and data offset; window; urgent pointer and options. Of the flags
        // only PSH can differ.
        FlowKind::Tcp4 | FlowKind::Tcp6 => {
            same(at + 8..at + 13) && same(at + 14..at + 16) && same(at + 18..headers)
        }
        FlowKind::Udp4 | FlowKind::Udp6 => true,
    };
    same_ip && same_transport
}
