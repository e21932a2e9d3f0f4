//! Encodes rtnetlink requests (RFC 3549; rtnetlink(7)). Pure.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use nix::libc;

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// NLM_F_ROOT and NLM_F_MATCH: the whole table.
const NLM_F_DUMP: u16 = 0x300;

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

pub(super) const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_INET_CONF: u16 = 1;
/// Number of rp_filter among the IPv4 settings of an interface (IPV4_DEVCONF_RP_FILTER).
const RP_FILTER: u16 = 8;
/// The source must be reachable, through any interface (RFC 3704, 2.4).
const RP_FILTER_LOOSE: u32 = 2;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Metric of the route to the address's own network (since Linux 4.18).
const IFA_RT_PRIORITY: u16 = 9;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_PRIORITY: u16 = 6;

pub(super) const IFF_UP: u32 = 1;
/// No other host in the tunnel has the address, so duplicates need not be detected (RFC 4862, 5.4).
const IFA_F_NODAD: u8 = 2;
pub(super) const RT_TABLE_MAIN: u8 = 254;
/// Set by an administrator, not by a routing daemon.
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;

/// Metric of the tunnel's routes. It is higher than that of any other route to the machine's
/// networks (0 by hand, 100 to 20,600 by NetworkManager, 1,024 by networkd), so that those take
/// precedence, also if they are added later.
pub(super) const TUNNEL_METRIC: u32 = 1_000_000;

/// Length of a header; requests and attributes are aligned to 4 bytes.
pub(super) const NLMSG_HEADER_LEN: usize = 16;
/// The same with the fixed part of a route message (struct rtmsg).
pub(super) const RTMSG_HEADER_LEN: usize = NLMSG_HEADER_LEN + 12;
/// The same of a link message (struct ifinfomsg).
pub(super) const LINK_HEADER_LEN: usize = NLMSG_HEADER_LEN + 16;
/// Position of the sequence number in a header.
pub(super) const SEQUENCE_RANGE: Range<usize> = 8..12;

/// One request.
#[derive(Debug)]
pub(super) struct NetlinkMessage(Vec<u8>);

impl NetlinkMessage {
    /// Sets MTU and queue length, and takes the interface up.
    pub(super) fn set_link_state(index: u32, mtu: u16, queue: u32) -> Self {
        let mut message = Self::link_request(index, IFF_UP);
        message.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        message.attribute(IFLA_TXQLEN, &queue.to_ne_bytes());
        message
    }

    /// Sets the MTU of an interface, which stays up or down.
    pub(super) fn set_mtu(index: u32, mtu: u16) -> Self {
        let mut message = Self::link_request(index, 0);
        message.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        message
    }

    /// Requests the state of an interface; [`super::reply::parse_link`] parses the reply.
    pub(super) fn get_link(index: u32) -> Self {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&[0; 8]);
        Self::new(RTM_GETLINK, 0, &body)
    }

    /// Accepts packets whose source this host reaches through another interface. Set this way and
    /// not in /proc/sys, which a sandbox makes read-only.
    pub(super) fn set_loose_rp_filter(index: u32) -> Self {
        let (mut value, mut conf, mut family) = (Vec::new(), Vec::new(), Vec::new());
        attribute(&mut value, RP_FILTER, &RP_FILTER_LOOSE.to_ne_bytes());
        attribute(&mut conf, IFLA_INET_CONF, &value);
        attribute(&mut family, u16::from(address_family(false)), &conf);
        let mut message = Self::link_request(index, 0);
        message.attribute(IFLA_AF_SPEC, &family);
        message
    }

    /// Disables the addresses that the kernel assigns automatically.
    pub(super) fn disable_link_local(index: u32) -> Self {
        let (mut mode, mut family) = (Vec::new(), Vec::new());
        attribute(&mut mode, IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        attribute(&mut family, u16::from(address_family(true)), &mode);
        let mut message = Self::link_request(index, 0);
        message.attribute(IFLA_AF_SPEC, &family);
        message
    }

    fn link_request(index: u32, up: u32) -> Self {
        // struct ifinfomsg: family, type, index, flags, mask of flags to change
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&up.to_ne_bytes());
        body.extend_from_slice(&up.to_ne_bytes());
        Self::new(RTM_NEWLINK, NLM_F_ACK, &body)
    }

    /// Adds an address to the interface. Fails if it exists.
    pub(super) fn add_address(index: u32, address: IpNet) -> Self {
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        let family = address_family(address.addr().is_ipv6());
        let mut body = vec![family, address.prefix_len(), IFA_F_NODAD, RT_SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        let mut message = Self::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body);
        message.ip_attribute(IFA_LOCAL, address.addr());
        message.ip_attribute(IFA_ADDRESS, address.addr());
        message.attribute(IFA_RT_PRIORITY, &TUNNEL_METRIC.to_ne_bytes());
        message
    }

    /// Adds a route through the interface. Fails if it exists.
    pub(super) fn add_route(index: u32, to: IpNet) -> Self {
        // struct rtmsg: family, lengths of destination and source, TOS; table, protocol, scope,
        // type
        let family = address_family(to.addr().is_ipv6());
        let scope = if to.addr().is_ipv6() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let body = [
            family,
            to.prefix_len(),
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_STATIC,
            scope,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut message = Self::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body);
        message.ip_attribute(RTA_DST, to.network());
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        message.attribute(RTA_PRIORITY, &TUNNEL_METRIC.to_ne_bytes());
        message
    }

    /// Requests all routes of both families; [`super::reply::parse_dump`] parses the reply.
    pub(super) fn dump_routes() -> Self {
        Self::new(RTM_GETROUTE, NLM_F_DUMP, &[0; RTMSG_HEADER_LEN - NLMSG_HEADER_LEN])
    }

    /// Requests the route to a host; [`super::reply::route_fingerprint`] parses the reply.
    pub(super) fn get_route(to: IpAddr) -> Self {
        let length = if to.is_ipv6() { 128 } else { 32 };
        let body = [address_family(to.is_ipv6()), length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut message = Self::new(RTM_GETROUTE, 0, &body);
        message.ip_attribute(RTA_DST, to);
        message
    }

    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut message = vec![0; 4];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        let mut message = Self(message);
        message.write_length();
        message
    }

    fn ip_attribute(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.0, kind, value);
        self.write_length();
    }

    /// Sets the sequence number, by which the reply is recognised.
    pub(super) fn set_sequence(&mut self, number: u32) {
        if let Some(field) = self.0.get_mut(SEQUENCE_RANGE) {
            field.copy_from_slice(&number.to_ne_bytes());
        }
    }

    fn write_length(&mut self) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.0.first_chunk_mut() {
            *field = length.to_ne_bytes();
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends an attribute.
pub(super) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

pub(super) fn address_family(is_v6: bool) -> u8 {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    u8::try_from(family).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_route_is_encoded_as_the_kernel_expects_it() {
        let mut message = NetlinkMessage::add_route(5, "10.77.3.0/24".parse().unwrap());
        message.set_sequence(7);
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
