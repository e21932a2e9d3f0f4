//! Reports of routers that a packet is too long for the next link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::device::has_valid_icmp_checksum;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
/// Type and code of ICMP "fragmentation needed and DF set" (RFC 792, RFC 1191, 4).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// Those of ICMPv6 "packet too big" (RFC 4443, 3.2).
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
const ICMP_HEADER_LEN: usize = 8;
const IPV6_HEADER_LEN: usize = 40;

/// A router's report, with the TCP segment that it quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PacketTooBig {
    /// MTU of the next link; 0 if the router does not say it.
    pub(super) mtu: u16,
    /// Length of the packet that was too long.
    pub(super) length: u16,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
}

impl PacketTooBig {
    /// Parses an IP packet; `None` for anything else, and for a report about another protocol.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let at = usize::from(packet.first()? & 0x0f) * 4;
                let is_report =
                    *packet.get(9)? == ICMP && packet.get(at..at + 2)? == FRAGMENTATION_NEEDED;
                (is_report && has_valid_icmp_checksum(packet, at)).then_some(())?;
                let mtu = u16_at(packet, at + 6)?;
                Self::quoted_v4(packet.get(at + ICMP_HEADER_LEN..)?, mtu)
            }
            6 => {
                let at = IPV6_HEADER_LEN;
                let is_report =
                    *packet.get(6)? == ICMPV6 && packet.get(at..at + 2)? == PACKET_TOO_BIG;
                (is_report && has_valid_icmp_checksum(packet, at)).then_some(())?;
                let mtu = u16::try_from(u32_at(packet, at + 4)?).unwrap_or(u16::MAX);
                Self::quoted_v6(packet.get(at + ICMP_HEADER_LEN..)?, mtu)
            }
            _ => None,
        }
    }

    fn quoted_v4(quoted: &[u8], mtu: u16) -> Option<Self> {
        let first = *quoted.first()?;
        (first >> 4 == 4 && *quoted.get(9)? == TCP).then_some(())?;
        let address =
            |at: usize| Some(IpAddr::from(Ipv4Addr::from(*quoted.get(at..)?.first_chunk::<4>()?)));
        let (from, to) = (address(12)?, address(16)?);
        Self::new(quoted, usize::from(first & 0x0f) * 4, (from, to), (mtu, u16_at(quoted, 2)?))
    }

    fn quoted_v6(quoted: &[u8], mtu: u16) -> Option<Self> {
        (*quoted.first()? >> 4 == 6 && *quoted.get(6)? == TCP).then_some(())?;
        let address =
            |at: usize| Some(IpAddr::from(Ipv6Addr::from(*quoted.get(at..)?.first_chunk::<16>()?)));
        let (from, to) = (address(8)?, address(24)?);
        let length = u16_at(quoted, 4)?.saturating_add(u16::try_from(IPV6_HEADER_LEN).ok()?);
        Self::new(quoted, IPV6_HEADER_LEN, (from, to), (mtu, length))
    }

    fn new(
        quoted: &[u8],
        tcp_at: usize,
        (from, to): (IpAddr, IpAddr),
        (mtu, length): (u16, u16),
    ) -> Option<Self> {
        Some(Self {
            mtu,
            length,
            from: SocketAddr::new(from, u16_at(quoted, tcp_at)?),
            to: SocketAddr::new(to, u16_at(quoted, tcp_at + 2)?),
            sequence: u32_at(quoted, tcp_at + 4)?,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}
