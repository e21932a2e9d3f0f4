//! Requests of rtnetlink, as bytes (RFC 3549; rtnetlink(7)). Pure.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use nix::libc;

const REQUEST: u16 = 0x01;
const ACKNOWLEDGE: u16 = 0x04;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
/// All there are (NLM_F_DUMP).
const ALL: u16 = 0x300;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
pub(super) const NEW_ROUTE: u16 = 24;
const ASK_ROUTE: u16 = 26;

const LINK_MTU: u16 = 4;
const LINK_QUEUE: u16 = 13;
const LINK_FAMILIES: u16 = 26;
const INET6_ADDRESS_MODE: u16 = 8;
const MODE_NONE: u8 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// The metric of the route to the address's own network (Linux 4.18).
const ADDRESS_METRIC: u16 = 9;
pub(super) const ROUTE_TO: u16 = 1;
pub(super) const ROUTE_DEVICE: u16 = 4;
pub(super) const ROUTE_METRIC: u16 = 6;

const UP: u32 = 1;
/// The address is ours alone in the tunnel: it need not be asked for (RFC 4862, 5.4).
const NO_DETECTION: u8 = 2;
pub(super) const TABLE_MAIN: u8 = 254;
/// Set by an administrator, not by a routing daemon.
const BY_HAND: u8 = 4;
const UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;

/// Of all routes of ours. It is above whatever others give the routes of a machine's own networks
/// (0 by hand, 100 to 20,600 by NetworkManager, 1,024 by networkd), so that a route to the same
/// network goes before ours, whichever came first.
pub(super) const METRIC: u32 = 1_000_000;

/// Length of a header; requests and attributes begin at multiples of 4.
pub(super) const HEADER: usize = 16;
/// The same with what precedes the attributes of a route (struct rtmsg).
pub(super) const ROUTE_HEADER: usize = HEADER + 12;
/// Where in a header the number of the request stands.
pub(super) const NUMBER: Range<usize> = 8..12;

/// One request.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// MTU, length of the queue, and up.
    pub(super) fn state(index: u32, mtu: u16, queue: u32) -> Self {
        let mut message = Self::link(index, UP);
        message.attribute(LINK_MTU, &u32::from(mtu).to_ne_bytes());
        message.attribute(LINK_QUEUE, &queue.to_ne_bytes());
        message
    }

    /// No address that the kernel makes up by itself.
    pub(super) fn no_link_local(index: u32) -> Self {
        let (mut mode, mut family) = (Vec::new(), Vec::new());
        attribute(&mut mode, INET6_ADDRESS_MODE, &[MODE_NONE]);
        attribute(&mut family, u16::from(family_byte(true)), &mode);
        let mut message = Self::link(index, 0);
        message.attribute(LINK_FAMILIES, &family);
        message
    }

    fn link(index: u32, up: u32) -> Self {
        // struct ifinfomsg: family, type, index, flags, which of them change
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&up.to_ne_bytes());
        body.extend_from_slice(&up.to_ne_bytes());
        Self::new(NEW_LINK, ACKNOWLEDGE, &body)
    }

    /// One of the device's addresses. Fails when it is there.
    pub(super) fn address(index: u32, address: IpNet) -> Self {
        // struct ifaddrmsg: family, length of the prefix, flags, scope, index
        let family = family_byte(address.addr().is_ipv6());
        let mut body = vec![family, address.prefix_len(), NO_DETECTION, SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        let mut message = Self::new(NEW_ADDRESS, ACKNOWLEDGE | CREATE | EXCLUSIVE, &body);
        message.ip(ADDRESS_LOCAL, address.addr());
        message.ip(ADDRESS, address.addr());
        message.attribute(ADDRESS_METRIC, &METRIC.to_ne_bytes());
        message
    }

    /// A network that is reached through the device. Fails when it is there.
    pub(super) fn route(index: u32, to: IpNet) -> Self {
        // struct rtmsg: family, lengths of destination and source, TOS; table, who, scope, type
        let family = family_byte(to.addr().is_ipv6());
        let scope = if to.addr().is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        let body = [family, to.prefix_len(), 0, 0, TABLE_MAIN, BY_HAND, scope, UNICAST, 0, 0, 0, 0];
        let mut message = Self::new(NEW_ROUTE, ACKNOWLEDGE | CREATE | EXCLUSIVE, &body);
        message.ip(ROUTE_TO, to.network());
        message.attribute(ROUTE_DEVICE, &index.to_ne_bytes());
        message.attribute(ROUTE_METRIC, &METRIC.to_ne_bytes());
        message
    }

    /// All routes of both families; [`super::answer::listed`] reads the answer.
    pub(super) fn all_routes() -> Self {
        Self::new(ASK_ROUTE, ALL, &[0; ROUTE_HEADER - HEADER])
    }

    /// How this host reaches another; [`super::answer::hop`] reads the answer.
    pub(super) fn way(to: IpAddr) -> Self {
        let length = if to.is_ipv6() { 128 } else { 32 };
        let body = [family_byte(to.is_ipv6()), length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut message = Self::new(ASK_ROUTE, 0, &body);
        message.ip(ROUTE_TO, to);
        message
    }

    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut message = vec![0; 4];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        let mut message = Self(message);
        message.write_length();
        message
    }

    fn ip(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.0, kind, value);
        self.write_length();
    }

    /// Numbers it, so that its answer can be told from others.
    pub(super) fn set_number(&mut self, number: u32) {
        if let Some(place) = self.0.get_mut(NUMBER) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
    }

    fn write_length(&mut self) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.0.first_chunk_mut() {
            *place = length.to_ne_bytes();
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Adds an attribute behind what is there.
pub(super) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

pub(super) fn family_byte(is_v6: bool) -> u8 {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    u8::try_from(family).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_route_is_ordered_as_the_kernel_reads_it() {
        let mut message = Message::route(5, "10.77.3.0/24".parse().unwrap());
        message.set_number(7);
        let expected = [
            [52, 0, 0, 0, 24, 0, 0x05, 0x06, 7, 0, 0, 0, 0, 0, 0, 0].as_slice(),
            &[2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0],
            &[8, 0, 1, 0, 10, 77, 3, 0],
            &[8, 0, 4, 0, 5, 0, 0, 0],
            &[8, 0, 6, 0, 0x40, 0x42, 0x0f, 0],
        ];
        assert_eq!(message.bytes(), expected.concat());
    }
}
