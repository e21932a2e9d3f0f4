//! Fits complete TCP packets to a path whose MTU is smaller than that of the tunnel.

use super::bytes::{put, u16_at};
use super::checksum::{ChecksumSum, TCP_CHECKSUM_OFFSET, complete_checksum, pseudo_header};
use super::frame::{GsoType, MalformedFrame, PartialChecksum, VnetHeader};
use super::segment::{TCP, segment};
use crate::core::TcpSegment;

/// Options of TCP (RFC 9293, 3.2).
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const MIN_TCP_HEADER_LEN: usize = 20;

/// Passes the parts of a TCP packet to `each`, in order: the same bytes in segments that with their
/// headers are at most `mtu` long. The packet is overwritten.
pub(crate) fn split_tcp(
    packet: &mut [u8],
    mtu: u16,
    each: impl FnMut(&[u8]),
) -> Result<(), MalformedFrame> {
    let TcpSegment { header_at, headers_len, from, .. } =
        TcpSegment::parse(packet).ok_or(MalformedFrame)?;
    let headers = u16::try_from(headers_len).map_err(|_| MalformedFrame)?;
    let size = mtu.checked_sub(headers).ok_or(MalformedFrame)?;
    let start = u16::try_from(header_at).map_err(|_| MalformedFrame)?;
    let offset = u16::try_from(TCP_CHECKSUM_OFFSET).map_err(|_| MalformedFrame)?;
    let gso = if from.is_ipv4() { GsoType::Tcp4(size) } else { GsoType::Tcp6(size) };
    let frame = VnetHeader { checksum: Some(PartialChecksum { start, offset }), gso };
    segment(frame, packet, each)
}

/// Lowers the maximum segment size that a SYN announces, so that the other end sends no packet
/// longer than `mtu`. Does nothing without that option, or if it is as low already.
pub(crate) fn clamp_mss(packet: &mut [u8], mtu: u16) {
    // A malformed packet is left as it is.
    let _ = try_clamp_mss(packet, mtu);
}

fn try_clamp_mss(packet: &mut [u8], mtu: u16) -> Option<()> {
    let TcpSegment { header_at, headers_len, .. } = TcpSegment::parse(packet)?;
    let fixed_headers = u16::try_from(header_at + MIN_TCP_HEADER_LEN).ok()?;
    let mss = mtu.checked_sub(fixed_headers)?;
    let at = find_mss(packet.get(..headers_len)?, header_at + MIN_TCP_HEADER_LEN)?;
    if u16_at(packet, at)? <= mss {
        return None;
    }
    put(packet, at, mss.to_be_bytes())?;
    let pseudo = pseudo_header(packet, TCP, packet.len() - header_at)?;
    put(packet, header_at + TCP_CHECKSUM_OFFSET, pseudo.folded())?;
    complete_checksum(packet, header_at, TCP_CHECKSUM_OFFSET)
}

/// Returns the position of the maximum segment size among the options from `at` on.
fn find_mss(headers: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *headers.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            OPTION_MSS => return Some(at + 2),
            _ => at += usize::from(*headers.get(at + 1)?).max(2),
        }
    }
}

/// Returns whether the checksum of an ICMP message is right; `at` is where it begins in the packet.
/// That of ICMPv6 includes the addresses (RFC 4443, 2.3).
pub(crate) fn has_valid_icmp_checksum(packet: &[u8], at: usize) -> bool {
    const ICMPV6: u8 = 58;
    let Some(message) = packet.get(at..) else { return false };
    let start = match packet.first().map(|first| first >> 4) {
        Some(6) => pseudo_header(packet, ICMPV6, message.len()),
        _ => Some(ChecksumSum::default()),
    };
    start.is_some_and(|sum| sum.add(message).is_valid())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a TCP packet with its checksum, with an MSS option in a SYN.
    fn tcp(is_v4: bool, options: &[u8], payload: usize) -> Vec<u8> {
        let length = u16::try_from(20 + options.len() + payload).unwrap();
        let mut packet = if is_v4 {
            let total = (20 + length).to_be_bytes();
            let head = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, TCP, 0, 0];
            [&head[..], &[10, 77, 0, 12, 10, 88, 0, 2]].concat()
        } else {
            let length = length.to_be_bytes();
            [&[0x60, 0, 0, 0, length[0], length[1], TCP, 64][..], &[0xfd; 32]].concat()
        };
        let at = packet.len();
        packet.extend([0xc0, 0, 7, 0x5b, 0, 0, 1, 0, 0, 0, 0, 9]);
        let offset = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        packet.extend([offset, 0x18, 4, 0, 0, 0, 0, 0]);
        packet.extend(options);
        packet.extend((0..payload).map(|at| (at % 251).to_le_bytes()[0]));
        let pseudo = pseudo_header(&packet, TCP, usize::from(length)).unwrap();
        put(&mut packet, at + TCP_CHECKSUM_OFFSET, pseudo.folded()).unwrap();
        complete_checksum(&mut packet, at, TCP_CHECKSUM_OFFSET).unwrap();
        packet
    }

    fn is_intact(packet: &[u8]) -> bool {
        let at = TcpSegment::parse(packet).unwrap().header_at;
        let pseudo = pseudo_header(packet, TCP, packet.len() - at).unwrap();
        pseudo.add(&packet[at..]).is_valid()
    }

    proptest! {
        #[test]
        fn the_parts_fit_are_intact_and_hold_the_bytes_once(
            is_v4: bool,
            payload in 1..1240_usize,
            mtu in 576..1280_u16,
        ) {
            let packet = tcp(is_v4, &[], payload);
            let headers = packet.len() - payload;
            let (mut bytes, mut next) = (Vec::new(), 0x100_u32);
            split_tcp(&mut packet.clone(), mtu, |part| {
                assert!(part.len() <= usize::from(mtu) && is_intact(part));
                let read = TcpSegment::parse(part).unwrap();
                assert_eq!(read.first_sequence, next);
                next = read.end_sequence;
                bytes.extend_from_slice(&part[headers..]);
            }).unwrap();
            prop_assert_eq!(&bytes, &packet[headers..]);
        }

        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..100), is_v4: bool) {
            if is_v4 && bytes.len() > 20 {
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6]);
                bytes[3] = bytes.len().to_le_bytes()[0];
            }
            clamp_mss(&mut bytes.clone(), 576);
            let _ = has_valid_icmp_checksum(&bytes, 20);
            let _ = split_tcp(&mut bytes, 576, |_| {});
        }
    }

    #[test]
    fn an_announced_segment_size_is_lowered_and_never_raised() {
        let with = |mss: u16| [&[1, 1, 4, 2, 2, 4][..], &mss.to_be_bytes()].concat();
        for (is_v4, before, mtu, after) in
            [(true, 1240, 1000, 960), (true, 536, 1000, 536), (false, 1340, 1280, 1220)]
        {
            let mut packet = tcp(is_v4, &with(before), 0);
            clamp_mss(&mut packet, mtu);
            assert_eq!(packet, tcp(is_v4, &with(after), 0));
        }
        let none = tcp(true, &[1, 1, 1, 0], 0);
        let mut packet = none.clone();
        clamp_mss(&mut packet, 576);
        assert_eq!(packet, none);
    }
}
