use proptest::prelude::*;

use super::*;

/// As RFC 1071 puts it, two bytes at a time.
fn plainly(bytes: &[u8]) -> u16 {
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
fn it_is_the_one_of_the_rfc() {
    let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(ChecksumSum::default().add(&example).checksum(), [!0xdd, !0xf2]);
    assert_eq!(
        ChecksumSum::default().add(&[0xff; 65_535]).checksum(),
        plainly(&[0xff; 65_535]).to_be_bytes()
    );
}

#[test]
fn a_checksum_beyond_the_packet_is_refused() {
    for (start, offset) in [(20, 0), (21, 0), (usize::MAX, 0), (0, 19), (10, usize::MAX)] {
        assert_eq!(complete_checksum(&mut [0; 20], start, offset), None, "{start} {offset}");
    }
}

proptest! {
    #[test]
    fn it_is_what_plain_arithmetic_gives(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(ChecksumSum::default().add(&bytes).checksum(), plainly(&bytes).to_be_bytes());
    }

    #[test]
    fn pieces_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..150_usize) {
        let (a, b) = bytes.split_at((at * 2).min(bytes.len() & !1));
        prop_assert_eq!(ChecksumSum::default().add(a).add(b).folded(), ChecksumSum::default().add(&bytes).folded());
    }

    #[test]
    fn a_completed_checksum_is_right(mut bytes in prop::collection::vec(any::<u8>(), 20..300)) {
        (bytes[6], bytes[7]) = (0, 0);
        complete_checksum(&mut bytes, 0, 6).unwrap();
        prop_assert!(ChecksumSum::default().add(&bytes).is_valid());
    }
}
