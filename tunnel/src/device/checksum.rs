//! The Internet checksum (RFC 1071): sums in native byte order, 64 bits at a time.

use super::bytes::put;

/// Offset of the checksum in a TCP and in a UDP header.
pub(super) const TCP_CHECKSUM_OFFSET: usize = 16;
pub(super) const UDP_CHECKSUM_OFFSET: usize = 6;

/// A sum before folding; no packet is long enough to overflow it. 128 bits keep the carries, which
/// costs half as much as splitting the words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChecksumSum(u128);

impl ChecksumSum {
    /// Adds bytes. Only the last call may add an odd number.
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

    /// Returns the sum in the form of a partial checksum.
    pub(super) fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or_default().to_ne_bytes()
    }

    /// Returns the checksum.
    pub(super) fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }

    /// Returns whether bytes that include their checksum are intact.
    pub(super) fn is_valid(self) -> bool {
        self.folded() == [0xff, 0xff]
    }
}

/// Returns the sum of the pseudo header of TCP or UDP (RFC 9293, 3.1; RFC 8200, 8.1) for `length`
/// bytes of transport header and payload. `None` if the packet is too short for its addresses.
pub(super) fn pseudo_header(packet: &[u8], protocol: u8, length: usize) -> Option<ChecksumSum> {
    let addresses = match packet.first()? >> 4 {
        4 => packet.get(12..20)?,
        _ => packet.get(8..40)?,
    };
    let length = u16::try_from(length).ok()?;
    Some(ChecksumSum::default().add(addresses).add_u16(protocol.into()).add_u16(length))
}

/// Completes a partial checksum: the field at `start + offset` holds the sum of the pseudo header
/// and receives the checksum of everything from `start` on (VIRTIO_NET_HDR_F_NEEDS_CSUM).
pub(super) fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let checksum = ChecksumSum::default().add(packet.get(start..)?).checksum();
    // In UDP, 0 means that there is no checksum (RFC 768); 0xffff is the same number.
    let is_none = offset == UDP_CHECKSUM_OFFSET && checksum == [0, 0];
    let checksum = if is_none { [0xff, 0xff] } else { checksum };
    put(packet, start.checked_add(offset)?, checksum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computes the checksum as in RFC 1071, two bytes at a time.
    fn simple_checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_checksum_matches_the_example_of_the_rfc() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(ChecksumSum::default().add(&example).checksum(), [!0xdd, !0xf2]);
        assert_eq!(
            ChecksumSum::default().add(&[0xff; 65_535]).checksum(),
            simple_checksum(&[0xff; 65_535]).to_be_bytes()
        );
    }

    #[test]
    fn a_checksum_beyond_the_packet_is_rejected() {
        for (start, offset) in [(20, 0), (21, 0), (usize::MAX, 0), (0, 19), (10, usize::MAX)] {
            assert_eq!(complete_checksum(&mut [0; 20], start, offset), None, "{start} {offset}");
        }
    }

    proptest! {
        #[test]
        fn the_checksum_matches_the_simple_algorithm(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let checksum = ChecksumSum::default().add(&bytes).checksum();
            prop_assert_eq!(checksum, simple_checksum(&bytes).to_be_bytes());
        }

        #[test]
        fn sums_of_pieces_add_up(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in 0..150_usize,
        ) {
            let (a, b) = bytes.split_at((at * 2).min(bytes.len() & !1));
            let sum = ChecksumSum::default().add(&bytes);
            prop_assert_eq!(ChecksumSum::default().add(a).add(b).folded(), sum.folded());
        }

        #[test]
        fn a_completed_checksum_is_valid(mut bytes in prop::collection::vec(any::<u8>(), 20..300)) {
            (bytes[6], bytes[7]) = (0, 0);
            complete_checksum(&mut bytes, 0, 6).unwrap();
            prop_assert!(ChecksumSum::default().add(&bytes).is_valid());
        }
    }
}
