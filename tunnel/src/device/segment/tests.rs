use proptest::prelude::*;

use super::*;
use crate::device::frame::{PartialChecksum, VNET_HEADER_LEN};
use crate::device::testing::{ACK, TestPacket};

fn split(frame: VnetHeader, packet: &mut [u8]) -> Result<Vec<Vec<u8>>, MalformedFrame> {
    let mut packets = Vec::new();
    segment(frame, packet, |packet| packets.push(packet.to_vec()))?;
    Ok(packets)
}

fn joined(start: u16, offset: u16, joined: GsoType) -> VnetHeader {
    VnetHeader { checksum: Some(PartialChecksum { start, offset }), gso: joined }
}

#[test]
fn a_joined_packet_is_split_into_consecutive_segments() {
    let whole = TestPacket {
        id: 0xffff,
        flags: ACK | FIN | PSH | CWR,
        ..TestPacket::tcp(u32::MAX - 500, 2500)
    };
    let packets = split(joined(20, 16, GsoType::Tcp4(1000)), &mut whole.bytes()).unwrap();
    let part = |number, id, flags, range: std::ops::Range<usize>| {
        TestPacket { number, id, flags, payload: whole.payload[range].to_vec(), ..whole.clone() }
            .bytes()
    };
    let expected = [
        part(u32::MAX - 500, 0xffff, ACK | CWR, 0..1000),
        part(499, 0, ACK, 1000..2000),
        part(1499, 1, ACK | FIN | PSH, 2000..2500),
    ];
    assert_eq!(packets, expected);
}

#[test]
fn ipv6_and_udp_are_split_too() {
    let six = TestPacket { version: 6, ..TestPacket::tcp(1, 300) };
    let packets = split(joined(40, 16, GsoType::Tcp6(200)), &mut six.bytes()).unwrap();
    let part = |number, range: std::ops::Range<usize>| {
        TestPacket { number, payload: six.payload[range].to_vec(), ..six.clone() }.bytes()
    };
    assert_eq!(packets, [part(1, 0..200), part(201, 200..300)]);

    for version in [4, 6] {
        let udp = TestPacket { version, ..TestPacket::udp(300) };
        let start = if version == 4 { 20 } else { 40 };
        let packets = split(joined(start, 6, GsoType::Udp(200)), &mut udp.bytes()).unwrap();
        let part = |id, range: std::ops::Range<usize>| {
            TestPacket { id, payload: udp.payload[range].to_vec(), ..udp.clone() }.bytes()
        };
        assert_eq!(packets, [part(7, 0..200), part(8, 200..300)]);
    }
}

#[test]
fn a_partial_checksum_is_completed() {
    for (packet, offset) in [(TestPacket::tcp(1, 99), 16), (TestPacket::udp(99), 6)] {
        let right = packet.bytes();
        let mut packet = right.clone();
        let pseudo = pseudo_header(&right, right[9], right.len() - 20).unwrap();
        put(&mut packet, 20 + usize::from(offset), pseudo.folded()).unwrap();
        assert_eq!(split(joined(20, offset, GsoType::None), &mut packet).unwrap(), [right]);
    }
}

#[test]
fn a_malformed_frame_is_rejected() {
    let tcp = || TestPacket::tcp(1, 100).bytes();
    for (frame, mut packet) in [
        (joined(20, 16, GsoType::Tcp4(0)), tcp()),
        (joined(24, 16, GsoType::Tcp4(10)), tcp()),
        (joined(20, 16, GsoType::Tcp6(10)), tcp()),
        (joined(20, 6, GsoType::Udp(10)), tcp()),
        (
            joined(20, 16, GsoType::Tcp4(10)),
            TestPacket { version: 6, ..TestPacket::tcp(1, 100) }.bytes(),
        ),
        (joined(20, 16, GsoType::Tcp4(10)), TestPacket::tcp(1, 0).bytes()),
        (joined(20, 16, GsoType::Tcp4(10)), Vec::new()),
        (joined(300, 16, GsoType::Tcp6(10)), vec![0x60; 1000]),
        (joined(2000, 16, GsoType::None), tcp()),
        (VnetHeader { checksum: None, gso: GsoType::Tcp4(10) }, tcp()),
    ] {
        assert_eq!(split(frame, &mut packet), Err(MalformedFrame), "{frame:?}");
    }
}

#[test]
fn a_header_decodes_as_it_was_encoded() {
    for frame in [
        VnetHeader::default(),
        joined(20, 16, GsoType::Tcp4(1380)),
        joined(40, 16, GsoType::Tcp6(1380)),
        joined(40, 6, GsoType::Udp(9)),
    ] {
        let mut bytes = frame.to_bytes(52).to_vec();
        assert_eq!(VnetHeader::parse(&mut bytes).unwrap().0, frame);
    }
    assert_eq!(VnetHeader::parse(&mut [0; VNET_HEADER_LEN - 1]), Err(MalformedFrame));
    assert_eq!(VnetHeader::parse(&mut [9; VNET_HEADER_LEN + 20]), Err(MalformedFrame));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// For any frame: no panic, no packet longer than announced, no byte twice.
    #[test]
    fn garbage_stays_within_bounds(
        mut header in prop::array::uniform10(any::<u8>()),
        mut packet in prop::collection::vec(any::<u8>(), 0..600),
        likely in prop::bool::ANY,
        size in 0..200_u16,
    ) {
        if likely {
            header = joined(20, 16, GsoType::Tcp4(size)).to_bytes(40);
            for (to, from) in packet.iter_mut().zip(TestPacket::tcp(1, 0).bytes()) { *to = from; }
        }
        let mut frame = [header.as_slice(), packet.as_slice()].concat();
        let length = packet.len();
        let Ok((frame, packet)) = VnetHeader::parse(&mut frame) else { return Ok(()) };
        let mut total = 0;
        let mut count = 0;
        let result = segment(frame, packet, |packet| {
            assert!(packet.len() <= length);
            total += packet.len();
            count += 1;
        });
        if result.is_ok() && frame.gso != GsoType::None {
            let headers = (total - length) / (count - 1).max(1);
            prop_assert!(count == 1 || total == length + headers * (count - 1));
        }
        prop_assert!(count <= length.max(1));
    }
}
