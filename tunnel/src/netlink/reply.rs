//! Decodes rtnetlink replies (RFC 3549; rtnetlink(7)). Pure.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;

use super::message::{
    IFF_UP, IFLA_MTU, LINK_HEADER_LEN, NLMSG_HEADER_LEN, RT_TABLE_MAIN, RTA_DST, RTA_OIF,
    RTA_PRIORITY, RTM_NEWLINK, RTM_NEWROUTE, RTMSG_HEADER_LEN, SEQUENCE_RANGE, address_family,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
/// A gateway of the other address family.
const RTA_VIA: u16 = 18;

/// Returns the messages in a datagram, up to the first invalid one.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length).filter(|_| length >= NLMSG_HEADER_LEN)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Returns the sequence number of the request that a message answers.
pub(super) fn sequence(message: &[u8]) -> Option<u32> {
    message.get(SEQUENCE_RANGE)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn message_type(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// Returns whether the kernel has executed a request.
pub(super) fn parse_ack(message: &[u8]) -> Result<(), Errno> {
    let number = message.get(NLMSG_HEADER_LEN..).and_then(|rest| rest.first_chunk().copied());
    match (message_type(message), number.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(number)) => Err(Errno::from_raw(number.saturating_neg())),
        _ => Err(Errno::EPROTO),
    }
}

/// State of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LinkState {
    pub(super) is_up: bool,
    pub(super) mtu: u32,
}

/// Decodes the reply to [`super::message::NetlinkMessage::get_link`].
pub(super) fn parse_link(message: &[u8]) -> Result<LinkState, Errno> {
    if message_type(message) != Some(RTM_NEWLINK) {
        return Err(parse_ack(message).err().unwrap_or(Errno::EPROTO));
    }
    let flags = message.get(NLMSG_HEADER_LEN + 8..).and_then(parse_u32).ok_or(Errno::EPROTO)?;
    let rest = message.get(LINK_HEADER_LEN..).unwrap_or_default();
    let mtu = attributes(rest).find(|(kind, _)| *kind == IFLA_MTU);
    let mtu = mtu.and_then(|(_, value)| parse_u32(value)).ok_or(Errno::EPROTO)?;
    Ok(LinkState { is_up: flags & IFF_UP != 0, mtu })
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct HostRoute {
    pub(super) to: IpNet,
    /// Index of its interface; `None` for a multipath or a prohibited route.
    pub(super) device: Option<u32>,
    /// Router that leads there; `None` on the same network.
    pub(super) gateway: Option<IpAddr>,
    /// Priority: the lowest wins.
    pub(super) metric: u32,
}

/// One message of the reply to [`super::message::NetlinkMessage::dump_routes`].
#[derive(Debug, Eq, PartialEq)]
pub(super) enum DumpMessage {
    Route(HostRoute),
    /// A route of another table or family.
    Other,
    End(Result<(), Errno>),
}

/// Decodes one message of a dump.
pub(super) fn parse_dump(message: &[u8]) -> DumpMessage {
    match message_type(message) {
        Some(RTM_NEWROUTE) => parse_route(message).map_or(DumpMessage::Other, DumpMessage::Route),
        Some(NLMSG_DONE) => DumpMessage::End(Ok(())),
        Some(NLMSG_ERROR) => DumpMessage::End(parse_ack(message)),
        _ => DumpMessage::Other,
    }
}

fn parse_route(message: &[u8]) -> Option<HostRoute> {
    let &[family, length, _, _, table, ..] = message.get(NLMSG_HEADER_LEN..RTMSG_HEADER_LEN)?
    else {
        return None;
    };
    let is_v6 = [false, true].into_iter().find(|is_v6| address_family(*is_v6) == family)?;
    let (mut to, mut device, mut gateway, mut metric) = (unspecified(is_v6), None, None, 0);
    for (kind, value) in attributes(message.get(RTMSG_HEADER_LEN..)?) {
        match kind {
            RTA_DST => to = parse_ip(value)?,
            RTA_OIF => device = parse_u32(value),
            RTA_GATEWAY => gateway = parse_ip(value),
            RTA_PRIORITY => metric = parse_u32(value)?,
            _ => {}
        }
    }
    let to = IpNet::new(to, length).ok().filter(|_| table == RT_TABLE_MAIN)?;
    Some(HostRoute { to, device, gateway, metric })
}

const fn unspecified(is_v6: bool) -> IpAddr {
    if is_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn parse_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Returns the attributes as types and values, up to the first invalid one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*after.first_chunk()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Interface, gateway and source address of the route to a host, as encoded by the kernel. Only
/// used for comparison.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RouteFingerprint(pub(super) Vec<(u16, Vec<u8>)>);

/// Decodes the reply to [`super::message::NetlinkMessage::get_route`]; `None` if there is no route.
pub(super) fn route_fingerprint(message: &[u8]) -> Option<RouteFingerprint> {
    let rest =
        message.get(RTMSG_HEADER_LEN..).filter(|_| message_type(message) == Some(RTM_NEWROUTE))?;
    let kinds = [RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA];
    let kept = attributes(rest).filter(|(kind, _)| kinds.contains(kind));
    Some(RouteFingerprint(kept.map(|(kind, value)| (kind, value.to_vec())).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::{NetlinkMessage, TUNNEL_METRIC, attribute};

    #[test]
    fn a_reply_is_success_or_an_error() {
        let mut bytes = [0; 36];
        bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(parse_ack(&bytes), Ok(()));
        bytes[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(parse_ack(&bytes), Err(Errno::EEXIST));
        assert_eq!(parse_ack(&bytes[..19]), Err(Errno::EPROTO));
        assert_eq!(route_fingerprint(&bytes), None);
    }

    #[test]
    fn a_fingerprint_keeps_only_interface_gateway_and_source() {
        let mut answer = vec![0; RTMSG_HEADER_LEN];
        answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        for (kind, value) in
            [(1, [198, 51, 100, 7]), (4, [3, 0, 0, 0]), (5, [192, 0, 2, 1]), (12, [9; 4])]
        {
            attribute(&mut answer, kind, &value);
        }
        let expected = vec![(4, vec![3, 0, 0, 0]), (5, vec![192, 0, 2, 1])];
        assert_eq!(route_fingerprint(&answer), Some(RouteFingerprint(expected)));
    }

    #[test]
    fn a_route_decodes_as_it_was_encoded_and_other_tables_are_skipped() {
        for to in ["10.77.3.0/24", "fd77::/64", "0.0.0.0/0", "10.9.0.2/32"] {
            let to = to.parse().unwrap();
            let message = NetlinkMessage::add_route(5, to);
            let route = HostRoute { to, device: Some(5), gateway: None, metric: TUNNEL_METRIC };
            assert_eq!(parse_dump(message.bytes()), DumpMessage::Route(route));
            let mut of_another_table = message.bytes().to_vec();
            of_another_table[NLMSG_HEADER_LEN + 4] = 255;
            assert_eq!(parse_dump(&of_another_table), DumpMessage::Other);
        }
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let (mut first, mut second) =
            (NetlinkMessage::dump_routes(), NetlinkMessage::set_link_state(1, 2, 3));
        first.set_sequence(8);
        second.set_sequence(9);
        let mut datagram = [first.bytes(), second.bytes()].concat();
        let numbers = |datagram: &[u8]| messages(datagram).map(sequence).collect::<Vec<_>>();
        assert_eq!(numbers(&datagram), [Some(8), Some(9)]);
        datagram.pop();
        assert_eq!(numbers(&datagram), [Some(8)]);
    }

    proptest! {
        #[test]
        fn no_reply_panics(mut bytes in prop::collection::vec(0..32_u8, 0..100), is_route: bool) {
            if is_route && let Some(kind) = bytes.get_mut(4..6) {
                kind.copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
            }
            let _ = (parse_ack(&bytes), route_fingerprint(&bytes), parse_dump(&bytes));
            let _ = (parse_link(&bytes), messages(&bytes).count());
        }
    }
}
