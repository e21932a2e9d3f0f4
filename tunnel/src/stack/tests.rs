//! A stack at the site and a bare tunnel at the hub.

use std::net::SocketAddr;

mod paths;

use super::*;
use crate::core::ClockBounds;
use crate::testing::site_and_hub;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PORT: u16 = 9464;

/// Returns a SYN from the hub to [`PORT`] of the site, with valid checksums.
fn syn() -> Vec<u8> {
    syn_from(0xc001)
}

fn syn_from(port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 12];
    packet.extend(port.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([1, 2, 3, 4, 0, 0, 0, 0, 0x50, SYN, 0x10, 0, 0, 0, 0, 0]);
    let pseudo = [&packet[12..20], &[0, 6, 0, 20]].concat();
    let checksum = checksum(&[pseudo.as_slice(), &packet[20..]].concat());
    packet[36..38].copy_from_slice(&checksum);
    let checksum = self::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum);
    packet
}

/// Computes the checksum as in RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

/// Delivers the datagrams of one end to the other.
fn deliver(out: &mut SendBatch, mut to: impl FnMut(&[u8], &mut SendBatch)) -> usize {
    let datagrams: Vec<Vec<u8>> = out.datagrams().map(|(_, datagram)| datagram.to_vec()).collect();
    out.clear();
    datagrams.iter().for_each(|datagram| to(datagram, out));
    datagrams.len()
}

#[test]
fn handshakes_that_are_not_finished_make_room_for_others() {
    let (site, hub) = site_and_hub();
    let (there, here) =
        (SocketAddr::from(([192, 0, 2, 1], 51820)), SocketAddr::from(([192, 0, 2, 9], 4000)));
    let now = Now::read();
    let mut hub = Tunnel::hub(hub, now, 2);
    let mut site = Stack::new(Tunnel::site(site, ClockBounds::default(), now, 1), now, 1);
    let mut listener = site.listen(PORT).unwrap();
    let sockets = site.sockets.iter().count();
    let mut out = SendBatch::new();
    let mut answers = 0;
    for port in 1_000..1_100 {
        let mut inside = PacketBuffer::new();
        for round in 0..4 {
            if round == 2 {
                hub.handle_packet(now, &syn_from(port), &mut out);
            }
            deliver(&mut out, |datagram, out| site.handle_datagram(now, (there, datagram), out));
            while !site.poll(now, &mut out) {}
            deliver(&mut out, |datagram, out| {
                hub.handle_datagram(now, (here, datagram), out, &mut inside);
            });
        }
        assert_eq!(site.accept(&mut listener), None);
        const FLAGS: usize = 33;
        let is_syn_ack = |packet: &[u8]| packet.get(FLAGS) == Some(&(SYN | ACK));
        answers += (0..inside.len()).filter(|at| inside.get(*at).is_some_and(is_syn_ack)).count();
    }
    assert_eq!(answers, 100);
    assert_eq!(site.sockets.iter().count(), sockets);
}

#[test]
fn a_segment_that_was_damaged_behind_the_hub_is_dropped() {
    let (site, hub) = site_and_hub();
    let (there, here) =
        (SocketAddr::from(([192, 0, 2, 1], 51820)), SocketAddr::from(([192, 0, 2, 9], 4000)));
    let now = Now::read();
    let mut hub = Tunnel::hub(hub, now, 2);
    let mut site = Stack::new(Tunnel::site(site, ClockBounds::default(), now, 1), now, 1);
    site.listen(PORT).unwrap();
    let mut out = SendBatch::new();
    let mut exchange = |packet: Option<&[u8]>| {
        if let Some(packet) = packet {
            hub.handle_packet(now, packet, &mut out);
        }
        let mut inside = PacketBuffer::new();
        // Initiation, response, keepalive; or a packet and its reply.
        for _ in 0..4 {
            deliver(&mut out, |datagram, out| site.handle_datagram(now, (there, datagram), out));
            while !site.poll(now, &mut out) {}
            deliver(&mut out, |datagram, out| {
                hub.handle_datagram(now, (here, datagram), out, &mut inside);
            });
        }
        inside.len()
    };
    assert_eq!(exchange(None), 0);
    for damaged in [11, 25, 37] {
        let mut packet = syn();
        packet[damaged] ^= 1;
        assert_eq!(exchange(Some(&packet)), 0, "byte {damaged}");
    }
    assert_eq!(exchange(Some(&syn())), 1);
}
