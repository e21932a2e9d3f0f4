//! Recognises the tunnel's own datagrams among the packets that the host sends into the tunnel.
//! Pure.
//!
//! The host routes them there when a route of the tunnel's interface covers the hub: because the
//! cable that carried a direct route is out, or because the hub answers from an address behind
//! itself. Each would be encrypted, sent, and come back longer, as fast as the processor can.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

const UDP: u8 = 17;
/// Fragment header of IPv6 (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER_LEN: usize = 8;
const IPV6_HEADER_LEN: usize = 40;
/// Destinations that are remembered: every address of a hub, and those of handshakes that were
/// answered.
const MAX_DESTINATIONS: usize = 8;
/// Ports that are remembered: datagrams of the previous one may still wait in the interface.
const MAX_PORTS: usize = 2;

/// Ports and destinations of the datagrams that the tunnel has sent last.
#[derive(Debug, Default)]
pub(super) struct OwnDatagrams {
    /// Newest first.
    ports: Vec<u16>,
    /// Newest first.
    destinations: Vec<SocketAddr>,
}

impl OwnDatagrams {
    /// Records the local port that datagrams are sent from.
    pub(super) fn on_port(&mut self, port: Option<u16>) {
        if let Some(port) = port {
            remember(&mut self.ports, port, MAX_PORTS);
        }
    }

    /// Records the destination of datagrams.
    pub(super) fn on_sent(&mut self, to: SocketAddr) {
        remember(&mut self.destinations, to, MAX_DESTINATIONS);
    }

    /// Returns whether an IP packet is one of these datagrams, or a fragment of one.
    pub(super) fn contain(&self, packet: &[u8]) -> bool {
        let Some(UdpPacket { to, ports }) = UdpPacket::parse(packet) else { return false };
        match ports {
            Some((from_port, to_port)) => {
                self.ports.contains(&from_port)
                    && self.destinations.contains(&SocketAddr::new(to, to_port))
            }
            // Only the first fragment has the ports.
            None => self.destinations.iter().any(|sent| sent.ip() == to),
        }
    }
}

/// Moves a value to the front of a list of at most `limit`.
fn remember<T: Copy + PartialEq>(list: &mut Vec<T>, value: T, limit: usize) {
    if list.first() != Some(&value) {
        list.retain(|known| *known != value);
        list.insert(0, value);
        list.truncate(limit);
    }
}

/// Destination of a UDP datagram or of a fragment of one.
struct UdpPacket {
    to: IpAddr,
    /// Source and destination; `None` in a fragment that is not the first.
    ports: Option<(u16, u16)>,
}

impl UdpPacket {
    /// Parses a packet of either family; `None` for another protocol.
    fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        (*packet.get(9)? == UDP).then_some(())?;
        let to = Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into();
        let is_first = u16_at(packet, 6)? & 0x1fff == 0;
        Some(Self { to, ports: if is_first { Some(ports(packet, header)?) } else { None } })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let to = Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into();
        match *packet.get(6)? {
            UDP => Some(Self { to, ports: Some(ports(packet, IPV6_HEADER_LEN)?) }),
            FRAGMENT if *packet.get(IPV6_HEADER_LEN)? == UDP => {
                let is_first = u16_at(packet, IPV6_HEADER_LEN + 2)? >> 3 == 0;
                let header = IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN;
                Some(Self { to, ports: if is_first { Some(ports(packet, header)?) } else { None } })
            }
            _ => None,
        }
    }
}

fn ports(packet: &[u8], at: usize) -> Option<(u16, u16)> {
    Some((u16_at(packet, at)?, u16_at(packet, at + 2)?))
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Returns the networks whose packets the host sends into the tunnel: its routes, and those of its
/// own addresses, which the kernel routes itself.
pub(super) fn host_routes(routes: &[IpNet], addresses: &[IpNet]) -> Vec<IpNet> {
    routes.iter().chain(addresses).map(IpNet::trunc).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORT: u16 = 40_000;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Returns a UDP datagram over IPv4; `offset` is that of the fragment.
    fn v4(to: [u8; 4], from_port: u16, to_port: u16, offset: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 77, 0, 12];
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet.extend(to);
        packet.extend([from_port, to_port].map(u16::to_be_bytes).concat());
        packet.extend([0; 4]);
        packet
    }

    fn v6(is_fragment: bool, offset: u16) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, if is_fragment { FRAGMENT } else { UDP }, 64];
        packet.extend([[0xfd; 16], [0xfe; 16]].concat());
        if is_fragment {
            packet.extend([UDP, 0]);
            packet.extend((offset << 3).to_be_bytes());
            packet.extend([0; 4]);
        }
        packet.extend([PORT, 51820].map(u16::to_be_bytes).concat());
        packet
    }

    fn sent() -> OwnDatagrams {
        let mut own = OwnDatagrams::default();
        own.on_port(Some(PORT));
        own.on_sent(at("198.51.100.2:51820"));
        own.on_sent(at("[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:51820"));
        own
    }

    #[test]
    fn own_datagrams_and_their_fragments_are_recognised_in_both_families() {
        let (own, hub) = (sent(), [198, 51, 100, 2]);
        assert!(own.contain(&v4(hub, PORT, 51820, 0)));
        // The first fragment has the bit "more fragments", the last an offset.
        assert!(own.contain(&v4(hub, PORT, 51820, 0x2000)));
        assert!(own.contain(&v4(hub, 1, 2, 160)));
        assert!(
            own.contain(&v6(false, 0)) && own.contain(&v6(true, 0)) && own.contain(&v6(true, 9))
        );
    }

    #[test]
    fn other_packets_are_not_own_datagrams() {
        let (own, hub) = (sent(), [198, 51, 100, 2]);
        assert!(!own.contain(&v4(hub, PORT + 1, 51820, 0)), "another program");
        assert!(!own.contain(&v4(hub, PORT, 53, 0)), "another service of the hub");
        assert!(!own.contain(&v4([10, 77, 0, 1], PORT, 51820, 0)), "another host");
        assert!(!own.contain(&v4([10, 77, 0, 1], PORT, 51820, 160)), "a fragment to another host");
        let mut tcp = v4(hub, PORT, 51820, 0);
        tcp[9] = 6;
        assert!(!own.contain(&tcp));
        assert!(!OwnDatagrams::default().contain(&v4(hub, PORT, 51820, 0)));
    }

    #[test]
    fn the_previous_port_and_eight_destinations_are_remembered() {
        let (mut own, hub) = (sent(), [198, 51, 100, 2]);
        own.on_port(None);
        own.on_port(Some(PORT + 1));
        assert!(own.contain(&v4(hub, PORT, 51820, 0)));
        own.on_port(Some(PORT + 2));
        assert!(!own.contain(&v4(hub, PORT, 51820, 0)));
        for number in 1..=7 {
            own.on_sent(at("198.51.100.2:51820"));
            own.on_sent(SocketAddr::from(([192, 0, 2, number], 51820)));
        }
        assert!(own.contain(&v4(hub, PORT + 2, 51820, 0)), "it is in use");
        assert_eq!(own.destinations.len(), MAX_DESTINATIONS);
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80), is_v4: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if is_v4 { 0x40 | (*first & 0x0f) } else { 0x60 };
            }
            let _ = sent().contain(&bytes);
        }
    }
}
