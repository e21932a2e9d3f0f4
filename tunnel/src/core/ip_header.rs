//! Headers of IP packets: addresses and length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// Source, destination and length of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct IpHeader {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Length of the packet according to its header, at most the length of the parsed bytes.
    pub(super) length: usize,
}

/// Parses the header of a packet; `None` if it is not a complete IPv4 or IPv6 packet. Trailing
/// bytes are allowed, because WireGuard pads.
pub(super) fn parse(packet: &[u8]) -> Option<IpHeader> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

/// Parses an IPv4 header; `None` when a length in it is beyond the packet.
fn parse_v4(packet: &[u8]) -> Option<IpHeader> {
    let header = packet.first_chunk::<IPV4_HEADER_LEN>()?;
    let [first, _, length_high, length_low, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_length = usize::from(first & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    // A length beyond the bytes would let a peer read what was in the buffer before.
    let is_whole =
        header_length >= IPV4_HEADER_LEN && length >= header_length && length <= packet.len();
    is_whole.then(|| IpHeader {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        length,
    })
}

fn parse_v6(packet: &[u8]) -> Option<IpHeader> {
    let header = packet.first_chunk::<IPV6_HEADER_LEN>()?;
    let (_, rest) = header.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_first_chunk::<2>()?;
    let (source, destination) = rest.split_first_chunk::<16>()?;
    let destination = destination.first_chunk::<16>()?;
    let length = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes(*payload));
    (length <= packet.len()).then(|| IpHeader {
        source: Ipv6Addr::from(*source).into(),
        destination: Ipv6Addr::from(*destination).into(),
        length,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_has_source_destination_and_length() {
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0; 4]);
        let expected = IpHeader {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            length: 24,
        };
        assert_eq!(parse(&packet), Some(expected));
        packet.extend([0; 8]);
        assert_eq!(parse(&packet), Some(expected));

        let mut packet = vec![0x60, 0, 0, 0, 0, 2, 17, 64];
        packet.extend("fd77::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd77::2".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(parse(&packet), None);
        packet.extend([0; 2]);
        let expected = IpHeader {
            source: "fd77::1".parse().unwrap(),
            destination: "fd77::2".parse().unwrap(),
            length: 42,
        };
        assert_eq!(parse(&packet), Some(expected));
    }

    proptest! {
        #[test]
        fn the_parsed_length_is_in_bounds(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(header) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len() && header.length >= IPV4_HEADER_LEN);
            }
        }
    }
}
