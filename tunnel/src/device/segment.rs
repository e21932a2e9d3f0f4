//! Splits a joined packet into its segments, in position.

#[cfg(test)]
mod tests;

use super::bytes::{length_bytes, put, u16_at, u32_at};
use super::checksum::{
    ChecksumSum, TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET, complete_checksum, pseudo_header,
};
use super::frame::{GsoType, MalformedFrame, VnetHeader};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// Longest headers that are copied before each segment: 60 bytes each of IPv4 and TCP, or 40 of
/// IPv6 with extensions.
const MAX_HEADERS_LEN: usize = 256;

/// Passes the packets of a frame to `each`, in order, and completes the fields that the host has
/// left to its network card: lengths, sequence numbers, flags, checksums.
///
/// No packet is longer than the frame says, and together they hold its payload once. The packet is
/// overwritten.
pub(crate) fn segment(
    frame: VnetHeader,
    packet: &mut [u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), MalformedFrame> {
    let (transport, size) = match frame.gso {
        GsoType::None => {
            if let Some(at) = frame.checksum {
                complete_checksum(packet, at.start.into(), at.offset.into())
                    .ok_or(MalformedFrame)?;
            }
            each(packet);
            return Ok(());
        }
        GsoType::Tcp4(size) | GsoType::Tcp6(size) => (TCP, size),
        GsoType::Udp(size) => (UDP, size),
    };
    let template = SegmentTemplate::new(frame, packet, transport).ok_or(MalformedFrame)?;
    let payload = packet.len() - template.length;
    if size == 0 || payload == 0 {
        return Err(MalformedFrame);
    }
    let size = usize::from(size);
    let count = payload.div_ceil(size);
    for index in 0..count {
        // The headers overwrite the end of the previous payload, which was passed on already.
        let start = index * size;
        let part = size.min(payload - start);
        let segment =
            packet.get_mut(start..start + template.length + part).ok_or(MalformedFrame)?;
        let position = SegmentPosition { index, offset: start, is_last: index + 1 == count };
        template.write(segment, position).ok_or(MalformedFrame)?;
        each(segment);
    }
    Ok(())
}

/// The headers of all segments.
struct SegmentTemplate {
    headers: [u8; MAX_HEADERS_LEN],
    length: usize,
    /// Offset of the transport header.
    transport: usize,
    protocol: u8,
}

/// Position of a segment.
#[derive(Clone, Copy)]
struct SegmentPosition {
    index: usize,
    /// Bytes of payload before it.
    offset: usize,
    is_last: bool,
}

impl SegmentTemplate {
    fn new(frame: VnetHeader, packet: &[u8], protocol: u8) -> Option<Self> {
        let transport = usize::from(frame.checksum?.start);
        let first = *packet.first()?;
        let fits = match (first >> 4, frame.gso) {
            (4, GsoType::Tcp4(_) | GsoType::Udp(_)) => {
                transport >= 20
                    && usize::from(first & 0xf) * 4 == transport
                    && packet.get(9) == Some(&protocol)
            }
            (6, GsoType::Tcp6(_) | GsoType::Udp(_)) => transport >= 40,
            _ => false,
        };
        let length = match protocol {
            TCP => usize::from(packet.get(transport + 12)? >> 4) * 4,
            _ => 8,
        };
        let is_tcp_header = protocol == UDP || length >= 20;
        let length = transport + length;
        let mut headers = [0; MAX_HEADERS_LEN];
        headers.get_mut(..length)?.copy_from_slice(packet.get(..length)?);
        (fits && is_tcp_header).then_some(Self { headers, length, transport, protocol })
    }

    /// Writes the headers of one segment before its payload.
    fn write(&self, segment: &mut [u8], position: SegmentPosition) -> Option<()> {
        segment.get_mut(..self.length)?.copy_from_slice(self.headers.get(..self.length)?);
        let total = segment.len();
        if *segment.first()? >> 4 == 4 {
            put(segment, 2, length_bytes(total))?;
            let step = u16::try_from(position.index).ok()?;
            // The identification must differ, since a router may fragment each segment.
            put(segment, 4, u16_at(&self.headers, 4)?.wrapping_add(step).to_be_bytes())?;
            write_ipv4_checksum(segment, self.transport)?;
        } else {
            put(segment, 4, length_bytes(total - 40))?;
        }
        let at = self.transport;
        let checksum_at = if self.protocol == TCP {
            let step = u32::try_from(position.offset).ok()?;
            let number = u32_at(&self.headers, at + 4)?.wrapping_add(step);
            put(segment, at + 4, number.to_be_bytes())?;
            let mut flags = *segment.get(at + 13)?;
            // FIN and PSH belong to the end of the data, CWR to its beginning (RFC 3168, 6.1.2).
            flags &= if position.is_last { 0xff } else { !(FIN | PSH) };
            flags &= if position.index == 0 { 0xff } else { !CWR };
            put(segment, at + 13, [flags])?;
            TCP_CHECKSUM_OFFSET
        } else {
            put(segment, at + 4, length_bytes(total - at))?;
            UDP_CHECKSUM_OFFSET
        };
        let pseudo = pseudo_header(segment, self.protocol, total - at)?;
        put(segment, at + checksum_at, pseudo.folded())?;
        complete_checksum(segment, at, checksum_at)
    }
}

/// Writes the checksum of an IPv4 header.
pub(super) fn write_ipv4_checksum(packet: &mut [u8], header: usize) -> Option<()> {
    put(packet, 10, [0, 0])?;
    let checksum = ChecksumSum::default().add(packet.get(..header)?).checksum();
    put(packet, 10, checksum)
}
