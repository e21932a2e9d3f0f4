//! The Internet checksum (RFC 1071): sums in the machine's byte order, 64 bits at a time.

#[cfg(test)]
mod tests;

use super::bytes::put;

/// Where the checksum stands in a header of TCP and of UDP.
pub(super) const TCP_CHECKSUM_OFFSET: usize = 16;
pub(super) const UDP_CHECKSUM_OFFSET: usize = 6;

/// A sum that is not folded yet: no packet is long enough to let it overflow. So wide, since a
/// carry that is kept costs half of what splitting the words costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChecksumSum(u128);

impl ChecksumSum {
    /// Adds bytes. Only the last ones that are added may be odd in number.
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(sum + u128::from(u64::from_ne_bytes(last)))
    }

    /// Adds a number as two bytes in network order.
    pub(super) fn add_u16(self, value: u16) -> Self {
        self.add(&value.to_be_bytes())
    }

    /// The sum as it stands in a packet whose checksum is still to be completed.
    pub(super) fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or_default().to_ne_bytes()
    }

    /// The checksum.
    pub(super) fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }

    /// Whether the bytes, with a checksum in them, are as they were sent.
    pub(super) fn is_valid(self) -> bool {
        self.folded() == [0xff, 0xff]
    }
}

/// Sum of what TCP and UDP take from the packet's header (RFC 9293, 3.1; RFC 8200, 8.1), for a
/// packet whose transport part is `length` bytes. `None` when it is too short for its addresses.
pub(super) fn pseudo_header(packet: &[u8], protocol: u8, length: usize) -> Option<ChecksumSum> {
    let addresses = match packet.first()? >> 4 {
        4 => packet.get(12..20)?,
        _ => packet.get(8..40)?,
    };
    let length = u16::try_from(length).ok()?;
    Some(ChecksumSum::default().add(addresses).add_u16(protocol.into()).add_u16(length))
}

/// Writes the checksum of everything from `start` to `start + offset`, where the sum of the pseudo
/// header stands so far (struct virtio_net_hdr, VIRTIO_NET_HDR_F_NEEDS_CSUM).
pub(super) fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let checksum = ChecksumSum::default().add(packet.get(start..)?).checksum();
    // In UDP, 0 means that there is none (RFC 768); both are the same number.
    let is_none = offset == UDP_CHECKSUM_OFFSET && checksum == [0, 0];
    let checksum = if is_none { [0xff, 0xff] } else { checksum };
    put(packet, start.checked_add(offset)?, checksum)
}
