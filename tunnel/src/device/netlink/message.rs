//! Requests of rtnetlink and its answers, as bytes (RFC 3549; rtnetlink(7)). Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;

const REQUEST: u16 = 0x01;
const ACKNOWLEDGE: u16 = 0x04;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const ERROR: u16 = 2;

const LINK_MTU: u16 = 4;
const LINK_QUEUE: u16 = 13;
const LINK_FAMILIES: u16 = 26;
const INET6_ADDRESS_MODE: u16 = 8;
const MODE_NONE: u8 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_TO: u16 = 1;
const ROUTE_DEVICE: u16 = 4;

const UP: u32 = 1;
/// The address is ours alone in the tunnel: it need not be asked for (RFC 4862, 5.4).
const NO_DETECTION: u8 = 2;
const TABLE_MAIN: u8 = 254;
/// Set by an administrator, not by a routing daemon.
const BY_HAND: u8 = 4;
const UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;

/// Length of a header; requests and attributes begin at multiples of 4.
const HEADER: usize = 16;

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
        Self::new(NEW_LINK, 0, &body)
    }

    /// One of the device's addresses.
    pub(super) fn address(index: u32, address: IpNet) -> Self {
        // struct ifaddrmsg: family, length of the prefix, flags, scope, index
        let family = family_byte(address.addr().is_ipv6());
        let mut body = vec![family, address.prefix_len(), NO_DETECTION, SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        let mut message = Self::new(NEW_ADDRESS, CREATE | REPLACE, &body);
        message.ip(ADDRESS_LOCAL, address.addr());
        message.ip(ADDRESS, address.addr());
        message
    }

    /// A network that is reached through the device. Fails when there is a route to it.
    pub(super) fn route(index: u32, to: IpNet) -> Self {
        let scope = if to.addr().is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        Self::routing(NEW_ROUTE, CREATE | EXCLUSIVE, scope, index, to)
    }

    /// Such a network no more.
    pub(super) fn no_route(index: u32, to: IpNet) -> Self {
        Self::routing(DELETE_ROUTE, 0, SCOPE_NOWHERE, index, to)
    }

    fn routing(kind: u16, flags: u16, scope: u8, index: u32, to: IpNet) -> Self {
        // struct rtmsg: family, lengths of destination and source, TOS; table, who, scope, type
        let family = family_byte(to.addr().is_ipv6());
        let body = [family, to.prefix_len(), 0, 0, TABLE_MAIN, BY_HAND, scope, UNICAST, 0, 0, 0, 0];
        let mut message = Self::new(kind, flags, &body);
        message.ip(ROUTE_TO, to.network());
        message.attribute(ROUTE_DEVICE, &index.to_ne_bytes());
        message
    }

    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut message = vec![0; 4];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
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
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// What the kernel says to a request.
pub(super) fn answer(bytes: &[u8]) -> Result<(), Errno> {
    let kind = bytes.get(4..6).and_then(|kind| kind.first_chunk().copied());
    let number = bytes.get(HEADER..).and_then(|rest| rest.first_chunk().copied());
    match (kind.map(u16::from_ne_bytes), number.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(number)) => Err(Errno::from_raw(number.saturating_neg())),
        _ => Err(Errno::EPROTO),
    }
}

fn family_byte(is_v6: bool) -> u8 {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    u8::try_from(family).unwrap_or_default()
}
