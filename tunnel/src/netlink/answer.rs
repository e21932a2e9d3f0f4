//! What rtnetlink answers, as bytes (RFC 3549; rtnetlink(7)). Pure.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;

use super::message::{
    HEADER, NEW_ROUTE, NUMBER, ROUTE_DEVICE, ROUTE_HEADER, ROUTE_METRIC, ROUTE_TO, TABLE_MAIN,
    family_byte,
};

const ERROR: u16 = 2;
const DONE: u16 = 3;

const ROUTE_ROUTER: u16 = 5;
const ROUTE_OUR_ADDRESS: u16 = 7;
/// A router of the other family.
const ROUTE_OTHER_ROUTER: u16 = 18;

/// The messages in one datagram, without what cannot be one.
pub(super) fn split(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length).filter(|_| length >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Which request it answers.
pub(super) fn number(message: &[u8]) -> Option<u32> {
    message.get(NUMBER)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn kind(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// Whether the kernel has done what was ordered.
pub(super) fn done(message: &[u8]) -> Result<(), Errno> {
    let number = message.get(HEADER..).and_then(|rest| rest.first_chunk().copied());
    match (kind(message), number.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(number)) => Err(Errno::from_raw(number.saturating_neg())),
        _ => Err(Errno::EPROTO),
    }
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    pub(super) to: IpNet,
    /// Number of its device; absent where several share it, or where it refuses.
    pub(super) device: Option<u32>,
    /// The lowest goes first.
    pub(super) metric: u32,
}

/// One message of the answer to [`super::message::Message::all_routes`].
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Route(Route),
    /// Of another table or family.
    Other,
    End(Result<(), Errno>),
}

/// Reads one.
pub(super) fn listed(message: &[u8]) -> Answer {
    match kind(message) {
        Some(NEW_ROUTE) => route(message).map_or(Answer::Other, Answer::Route),
        Some(DONE) => Answer::End(Ok(())),
        Some(ERROR) => Answer::End(done(message)),
        _ => Answer::Other,
    }
}

fn route(message: &[u8]) -> Option<Route> {
    let &[family, length, _, _, table, ..] = message.get(HEADER..ROUTE_HEADER)? else {
        return None;
    };
    let is_v6 = [false, true].into_iter().find(|is_v6| family_byte(*is_v6) == family)?;
    let (mut to, mut device, mut metric) = (unspecified(is_v6), None, 0);
    for (kind, value) in attributes(message.get(ROUTE_HEADER..)?) {
        match kind {
            ROUTE_TO => to = ip(value)?,
            ROUTE_DEVICE => device = number_in(value),
            ROUTE_METRIC => metric = number_in(value)?,
            _ => {}
        }
    }
    let to = IpNet::new(to, length).ok().filter(|_| table == TABLE_MAIN)?;
    Some(Route { to, device, metric })
}

const fn unspecified(is_v6: bool) -> IpAddr {
    if is_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn number_in(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Kinds and values up to the first that cannot be one.
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

/// Device, router and our address on the way to a host, as the kernel writes them: to be compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hop(pub(super) Vec<(u16, Vec<u8>)>);

/// What the kernel answers to [`super::message::Message::way`]; `None` when there is no way.
pub(super) fn hop(message: &[u8]) -> Option<Hop> {
    let rest = message.get(ROUTE_HEADER..).filter(|_| kind(message) == Some(NEW_ROUTE))?;
    let kinds = [ROUTE_DEVICE, ROUTE_ROUTER, ROUTE_OUR_ADDRESS, ROUTE_OTHER_ROUTER];
    let told = attributes(rest).filter(|(kind, _)| kinds.contains(kind));
    Some(Hop(told.map(|(kind, value)| (kind, value.to_vec())).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::{METRIC, Message, attribute};

    #[test]
    fn an_answer_is_yes_or_a_reason() {
        let mut bytes = [0; 36];
        bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(done(&bytes), Ok(()));
        bytes[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(done(&bytes), Err(Errno::EEXIST));
        assert_eq!(done(&bytes[..19]), Err(Errno::EPROTO));
        assert_eq!(hop(&bytes), None);
    }

    #[test]
    fn of_a_way_only_what_makes_it_another_is_kept() {
        let mut answer = vec![0; ROUTE_HEADER];
        answer[4..6].copy_from_slice(&NEW_ROUTE.to_ne_bytes());
        for (kind, value) in
            [(1, [198, 51, 100, 7]), (4, [3, 0, 0, 0]), (5, [192, 0, 2, 1]), (12, [9; 4])]
        {
            attribute(&mut answer, kind, &value);
        }
        let expected = vec![(4, vec![3, 0, 0, 0]), (5, vec![192, 0, 2, 1])];
        assert_eq!(hop(&answer), Some(Hop(expected)));
    }

    #[test]
    fn a_route_is_read_as_it_was_ordered_and_others_are_passed_over() {
        for to in ["10.77.3.0/24", "fd77::/64", "0.0.0.0/0", "10.9.0.2/32"] {
            let to = to.parse().unwrap();
            let message = Message::route(5, to);
            let route = Route { to, device: Some(5), metric: METRIC };
            assert_eq!(listed(message.bytes()), Answer::Route(route));
            let mut of_another_table = message.bytes().to_vec();
            of_another_table[HEADER + 4] = 255;
            assert_eq!(listed(&of_another_table), Answer::Other);
        }
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let (mut first, mut second) = (Message::all_routes(), Message::state(1, 2, 3));
        first.set_number(8);
        second.set_number(9);
        let mut datagram = [first.bytes(), second.bytes()].concat();
        let numbers = |datagram: &[u8]| split(datagram).map(number).collect::<Vec<_>>();
        assert_eq!(numbers(&datagram), [Some(8), Some(9)]);
        datagram.pop();
        assert_eq!(numbers(&datagram), [Some(8)]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(mut bytes in prop::collection::vec(0..32_u8, 0..100), is_way: bool) {
            if is_way && let Some(kind) = bytes.get_mut(4..6) {
                kind.copy_from_slice(&NEW_ROUTE.to_ne_bytes());
            }
            let _ = (done(&bytes), hop(&bytes), listed(&bytes), split(&bytes).count());
        }
    }
}
