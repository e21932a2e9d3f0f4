use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::device::testing::{ACK, TestPacket, traffic};

/// A device that stores frames and can reject them.
#[derive(Debug, Default)]
struct FakeHost {
    frames: Vec<Vec<u8>>,
    refuses_joined: bool,
    fails: bool,
}

impl Device for FakeHost {
    async fn readable(&mut self) -> io::Result<()> {
        std::future::pending().await
    }

    fn read(&mut self, _: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn write(&mut self, frame: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = frame.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert!(bytes.len() <= MAX_FRAME_LEN);
        if self.fails {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if self.refuses_joined && bytes[1] != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.frames.push(bytes);
        Ok(())
    }

    fn offload(&self) -> Offload {
        Offload::TcpAndUdp
    }
}

impl FakeHost {
    /// Returns the packets of all frames.
    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for frame in &mut self.frames {
            let (frame, packet) = VnetHeader::parse(frame).unwrap();
            segment(frame, packet, |packet| packets.push(packet.to_vec())).unwrap();
        }
        packets
    }
}

fn written(offload: Offload, packets: &[Vec<u8>]) -> FakeHost {
    let mut host = FakeHost::default();
    let mut coalescer = PacketCoalescer::new(offload);
    for packet in packets {
        coalescer.push(packet);
        if coalescer.is_full() {
            coalescer.write_to(&mut host).unwrap();
        }
    }
    coalescer.write_to(&mut host).unwrap();
    assert!(coalescer.is_empty());
    assert_eq!(coalescer.dropped(), 0);
    host
}

fn frames(packets: &[TestPacket]) -> usize {
    let packets: Vec<_> = packets.iter().map(TestPacket::bytes).collect();
    let mut host = written(Offload::TcpAndUdp, &packets);
    let count = host.frames.len();
    assert_eq!(host.packets(), packets);
    count
}

/// Returns `count` consecutive segments of `length` bytes.
fn stream(count: u16, length: u16) -> Vec<TestPacket> {
    (0..count)
        .map(|index| TestPacket {
            id: index,
            ..TestPacket::tcp(u32::from(index) * u32::from(length), length.into())
        })
        .collect()
}

#[test]
fn consecutive_segments_are_joined_into_one_frame() {
    assert_eq!(frames(&stream(40, 1368)), 1);
    let six: Vec<_> =
        stream(40, 1368).into_iter().map(|it| TestPacket { version: 6, ..it }).collect();
    assert_eq!(frames(&six), 1);
    let udp: Vec<_> = (0..40).map(|id| TestPacket { id, ..TestPacket::udp(1000) }).collect();
    assert_eq!(frames(&udp), 1);
}

#[test]
fn a_frame_has_a_maximum_length_and_number_of_segments() {
    assert_eq!(frames(&stream(48, 1368)), 2);
    assert_eq!(frames(&stream(65, 10)), 2);
}

#[test]
fn packets_whose_headers_differ_are_not_joined() {
    let change = |change: fn(&mut TestPacket)| {
        let mut packets = stream(2, 100);
        change(&mut packets[1]);
        frames(&packets)
    };
    assert_eq!(change(|_| ()), 1);
    assert_eq!(change(|it| it.window += 1), 2);
    assert_eq!(change(|it| it.ttl -= 1), 2);
    assert_eq!(change(|it| it.flags = ACK | 0x01), 2);
    assert_eq!(change(|it| it.flags = ACK | 0x40), 2);
    assert_eq!(change(|it| it.options[7] ^= 1), 2);
    assert_eq!(change(|it| it.options.clear()), 2);
    assert_eq!(change(|it| it.number += 1), 2);
    assert_eq!(change(|it| it.number -= 1), 2);
    assert_eq!(change(|it| it.dont_fragment = false), 2);
    assert_eq!(change(|it| it.port += 1), 2);
    assert_eq!(change(|it| it.payload.push(0)), 2);
}

#[test]
fn nothing_follows_a_push_or_a_shorter_segment() {
    let mut packets = stream(3, 100);
    packets[1].flags = ACK | 0x08;
    assert_eq!(frames(&packets), 2);
    let mut packets = stream(3, 100);
    packets[1].payload.pop();
    packets[2].number -= 1;
    assert_eq!(frames(&packets), 2);
}

#[test]
fn a_wrong_checksum_reaches_the_host_unchanged() {
    let mut packets: Vec<_> = stream(3, 100).iter().map(TestPacket::bytes).collect();
    *packets[1].last_mut().unwrap() ^= 1;
    let mut host = written(Offload::TcpAndUdp, &packets);
    assert_eq!((host.frames.len(), host.packets()), (3, packets));
}

#[test]
fn a_packet_of_another_protocol_is_not_overtaken() {
    let icmp =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0];
    let mut packets: Vec<_> = stream(4, 100).iter().map(TestPacket::bytes).collect();
    packets.insert(2, icmp.to_vec());
    let mut host = written(Offload::TcpAndUdp, &packets);
    assert_eq!((host.frames.len(), host.packets()), (3, packets));
}

#[test]
fn a_device_without_offload_gets_single_packets() {
    let packets: Vec<_> = stream(4, 100).iter().map(TestPacket::bytes).collect();
    assert_eq!(written(Offload::Nothing, &packets).frames.len(), 4);
    assert_eq!(written(Offload::Tcp, &packets).frames.len(), 1);
    let udp: Vec<_> = (0..4).map(|id| TestPacket { id, ..TestPacket::udp(100) }.bytes()).collect();
    assert_eq!(written(Offload::Tcp, &udp).frames.len(), 4);
}

#[test]
fn a_host_that_rejects_a_joined_frame_gets_single_packets_from_then_on() {
    let packets: Vec<_> = stream(10, 100).iter().map(TestPacket::bytes).collect();
    let mut host = FakeHost { refuses_joined: true, ..FakeHost::default() };
    let mut coalescer = PacketCoalescer::new(Offload::TcpAndUdp);
    for _ in 0..2 {
        packets.iter().for_each(|packet| coalescer.push(packet));
        coalescer.write_to(&mut host).unwrap();
        assert_eq!(coalescer.offload(), Offload::Nothing);
    }
    assert_eq!(host.packets(), [packets.clone(), packets].concat());
    assert_eq!(coalescer.dropped(), 0);
}

#[test]
fn packets_that_a_failed_device_does_not_take_are_counted() {
    let mut host = FakeHost { fails: true, ..FakeHost::default() };
    let mut coalescer = PacketCoalescer::new(Offload::TcpAndUdp);
    stream(10, 100).iter().for_each(|packet| coalescer.push(&packet.bytes()));
    coalescer.push(&[0]);
    assert!(coalescer.write_to(&mut host).is_err());
    assert_eq!((coalescer.dropped(), coalescer.is_empty()), (11, true));
}

#[test]
fn there_is_always_a_buffer_to_write_to() {
    let mut coalescer = PacketCoalescer::new(Offload::TcpAndUdp);
    for _ in 0..10 {
        assert_eq!(coalescer.reserve(usize::MAX).len(), MAX_PACKET_LEN);
        coalescer.commit(usize::MAX);
    }
    assert!(coalescer.is_full());
    assert_eq!(coalescer.dropped(), 10 - (CAPACITY_BYTES / MAX_PACKET_LEN) as u64);

    let mut coalescer = PacketCoalescer::new(Offload::TcpAndUdp);
    (0..MAX_PACKETS + 5).for_each(|_| coalescer.push(&[0]));
    assert_eq!(coalescer.dropped(), 5);
}

/// Groups packets by flow, within which the order must be kept.
fn by_stream(packets: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for mut packet in packets {
        let (addresses, protocol) = if packet[0] >> 4 == 4 { (12..24, 9) } else { (8..44, 6) };
        let key = [&packet[addresses], &[packet[protocol]]].concat();
        // The identification of a packet that must not be fragmented is meaningless.
        if packet[0] >> 4 == 4 && packet[6] == 0x40 {
            for at in [4, 5, 10, 11] {
                packet[at] = 0;
            }
        }
        streams.entry(key).or_default().push(packet);
    }
    streams
}

proptest! {
    #[test]
    fn joined_packets_split_into_the_original_ones(packets in traffic()) {
        let mut host = written(Offload::TcpAndUdp, &packets);
        prop_assert_eq!(by_stream(host.packets()), by_stream(packets));
    }

    #[test]
    fn garbage_reaches_the_host_unchanged(
        packets in prop::collection::vec(
            (prop::bool::ANY, prop::collection::vec(any::<u8>(), 1..90)),
            1..30,
        ),
    ) {
        let mut all = Vec::new();
        for (is_likely, mut packet) in packets {
            let like = TestPacket::tcp(1, 30).bytes();
            if is_likely { for (to, from) in packet.iter_mut().zip(&like) { *to = *from; } }
            all.push(packet);
        }
        let mut host = written(Offload::TcpAndUdp, &all);
        prop_assert_eq!(host.packets(), all);
    }

    #[test]
    fn mutated_streams_split_into_the_original_packets(
        mutations in prop::collection::vec((0..20_usize, 0..80_usize, any::<u8>()), 0..10),
    ) {
        let mut packets: Vec<_> = stream(20, 60).iter().map(TestPacket::bytes).collect();
        for (index, at, value) in mutations {
            packets[index][at] ^= value;
        }
        let mut host = written(Offload::TcpAndUdp, &packets);
        prop_assert_eq!(by_stream(host.packets()), by_stream(packets));
    }
}
