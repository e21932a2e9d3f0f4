//! Builds IP packets.

use std::net::IpAddr;

/// Returns a packet of `length` bytes, at least a header long, that carries `mark` if it fits.
#[must_use]
pub fn ip_packet(source: IpAddr, destination: IpAddr, length: usize, mark: u64) -> Vec<u8> {
    let total = u16::try_from(length).expect("a packet is at most 65,535 bytes long");
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = total.to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = (total - 40).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, 17, 64];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("both addresses are of one family")
        }
    };
    packet.extend(mark.to_be_bytes());
    packet.resize(length, 0x5a);
    packet
}

/// Swaps source and destination, so that the packet goes back.
pub fn swap_addresses(packet: &mut [u8]) {
    let (at, length) =
        if packet.first().is_some_and(|first| first >> 4 == 4) { (12, 4) } else { (8, 16) };
    for offset in 0..length {
        packet.swap(at + offset, at + length + offset);
    }
}
