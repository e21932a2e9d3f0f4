//! Packets for tests.

use proptest::prelude::*;

use super::bytes::put;
use super::checksum::{complete_checksum, pseudo_header};
use super::segment::{TCP, UDP, write_ipv4_checksum};

pub(super) const ACK: u8 = 0x10;

/// The fields of a packet that cannot be derived from others.
#[derive(Clone, Debug)]
pub(super) struct TestPacket {
    pub(super) version: u8,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) number: u32,
    pub(super) id: u16,
    pub(super) dont_fragment: bool,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) ttl: u8,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl TestPacket {
    pub(super) fn tcp(number: u32, length: usize) -> Self {
        let payload = (0..length).map(|index| index.to_le_bytes()[0] ^ 0x5a).collect();
        Self {
            version: 4,
            protocol: TCP,
            port: 5201,
            number,
            id: 7,
            dont_fragment: true,
            flags: ACK,
            window: 500,
            ttl: 64,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload,
        }
    }

    pub(super) fn udp(length: usize) -> Self {
        Self { protocol: UDP, options: Vec::new(), ..Self::tcp(0, length) }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let at = transport.len();
        transport.extend_from_slice(&self.payload);
        let mut packet = match self.version {
            4 => self.ip4(transport.len()),
            _ => self.ip6(transport.len()),
        };
        let start = packet.len();
        packet.extend_from_slice(&transport);
        assert!(at >= 8);
        let offset = if self.protocol == TCP { 16 } else { 6 };
        let pseudo = pseudo_header(&packet, self.protocol, transport.len()).unwrap();
        put(&mut packet, start + offset, pseudo.folded()).unwrap();
        complete_checksum(&mut packet, start, offset).unwrap();
        packet
    }

    fn ip4(&self, length: usize) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend(u16::try_from(20 + length).unwrap().to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([
            if self.dont_fragment { 0x40 } else { 0 },
            0,
            self.ttl,
            self.protocol,
            0,
            0,
        ]);
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        write_ipv4_checksum(&mut header, 20).unwrap();
        header
    }

    fn ip6(&self, length: usize) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 1];
        header.extend(u16::try_from(length).unwrap().to_be_bytes());
        header.extend([self.protocol, self.ttl]);
        header.extend([[0xfd; 16], [0xfe; 16]].concat());
        header
    }

    fn transport(&self) -> Vec<u8> {
        let mut header = self.port.to_be_bytes().to_vec();
        header.extend(80_u16.to_be_bytes());
        if self.protocol == UDP {
            header.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            header.extend([0, 0]);
            return header;
        }
        header.extend(self.number.to_be_bytes());
        header.extend(99_u32.to_be_bytes());
        header.extend([u8::try_from((20 + self.options.len()) / 4).unwrap() << 4, self.flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0; 4]);
        header.extend(&self.options);
        header
    }
}

/// Returns a few flows, mostly in order, with all kinds of disturbances.
pub(super) fn traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let burst = (
        (prop::bool::ANY, prop::bool::ANY, 0..3_u16, any::<u32>(), any::<u16>()),
        (prop::bool::ANY, 1..1400_usize, 0..5_usize, 1..40_usize),
        prop::option::weighted(0.3, (0..40_usize, 0..9_u8)),
    );
    let burst = burst.prop_map(
        |((is_v4, is_tcp, port, number, id), (dont_fragment, size, last, count), disturbance)| {
            let mut packets = Vec::new();
            let (mut number, mut id) = (number, id);
            for index in 0..count {
                let length =
                    if index + 1 == count { size.saturating_sub(last).max(1) } else { size };
                let mut packet =
                    if is_tcp { TestPacket::tcp(number, length) } else { TestPacket::udp(length) };
                packet = TestPacket {
                    version: if is_v4 { 4 } else { 6 },
                    port,
                    id,
                    dont_fragment,
                    ..packet
                };
                number = number.wrapping_add(u32::try_from(length).unwrap());
                id = id.wrapping_add(1);
                let mut bytes = packet.bytes();
                if let Some((at, what)) = disturbance
                    && at == index
                {
                    bytes = altered(packet, what);
                }
                packets.push(bytes);
            }
            packets
        },
    );
    // Bursts are interleaved, so that flows are mixed.
    prop::collection::vec(burst, 1..5).prop_map(|bursts| {
        let mut all = Vec::new();
        let longest = bursts.iter().map(Vec::len).max().unwrap_or(0);
        for at in (0..longest).step_by(3) {
            for burst in &bursts {
                all.extend(burst.iter().skip(at).take(3).cloned());
            }
        }
        all
    })
}

fn altered(mut packet: TestPacket, what: u8) -> Vec<u8> {
    match what {
        0 => packet.flags |= 0x08,
        1 => packet.flags |= 0x01,
        2 => packet.window += 1,
        3 => packet.ttl -= 1,
        4 => packet.number = packet.number.wrapping_add(1),
        5 => packet.id = packet.id.wrapping_add(5),
        6 => packet.payload.clear(),
        7 => packet.options = Vec::new(),
        _ => {
            let mut bytes = packet.bytes();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            return bytes;
        }
    }
    packet.bytes()
}
