//! How many connections peers may open at once. Connections that this end opens have slots of their
//! own, which no peer can take.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// Most connections that peers have opened. Their buffers and pipes take 14 MiB if all are full.
const MAX_ACCEPTED: usize = 32;
/// Most of them to the same port.
const MAX_PER_LISTENER: usize = 24;
/// Most of them from the same peer.
const MAX_PER_PEER: usize = 8;

/// A connection that a peer has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptedConnection {
    /// Address of the peer.
    pub(super) peer: IpAddr,
    /// Local port.
    pub(super) port: u16,
    /// When it ends by force; absent as long as it is used.
    pub(super) abort_at: Option<Instant>,
}

/// Whether one more connection is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// There is room.
    Accept,
    /// After this connection was aborted, there may be room.
    Evict(usize),
    /// There is no room: all connections are in use.
    Refuse,
}

/// Decides about a connection `new`; `held` are the others. A connection that only waits for its
/// peer makes room, the one that ends next first.
pub(super) fn admit(held: &[AcceptedConnection], new: AcceptedConnection) -> Admission {
    let peer = network(new.peer);
    let of_peer = |one: &AcceptedConnection| network(one.peer) == peer;
    let of_listener = |one: &AcceptedConnection| one.port == new.port;
    [
        room_in(held, MAX_PER_PEER, of_peer),
        room_in(held, MAX_PER_LISTENER, of_listener),
        room_in(held, MAX_ACCEPTED, |_| true),
    ]
    .into_iter()
    .find(|admission| *admission != Admission::Accept)
    .unwrap_or(Admission::Accept)
}

fn room_in(
    held: &[AcceptedConnection],
    limit: usize,
    is_in: impl Fn(&AcceptedConnection) -> bool,
) -> Admission {
    let group = || held.iter().enumerate().filter(|(_, one)| is_in(one));
    if group().count() < limit {
        return Admission::Accept;
    }
    let ending = group().filter_map(|(index, one)| Some((one.abort_at?, index)));
    ending.min().map_or(Admission::Refuse, |(_, index)| Admission::Evict(index))
}

/// Returns the network that counts as one peer: a host with IPv6 has all addresses of its /64.
fn network(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PORT: u16 = 9464;

    fn connection(peer: &str, abort_at: Option<Instant>) -> AcceptedConnection {
        AcceptedConnection { peer: peer.parse().unwrap(), port: PORT, abort_at }
    }

    #[test]
    fn a_peer_takes_only_its_share() {
        let held = vec![connection("10.0.0.1", None); MAX_PER_PEER];
        assert_eq!(admit(&held, connection("10.0.0.1", None)), Admission::Refuse);
        assert_eq!(admit(&held, connection("10.0.0.2", None)), Admission::Accept);
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_peer() {
        let held: Vec<_> =
            (0..MAX_PER_PEER).map(|host| connection(&format!("fd77::{host:x}:1"), None)).collect();
        assert_eq!(admit(&held, connection("fd77::99", None)), Admission::Refuse);
        assert_eq!(admit(&held, connection("fd77:0:0:1::1", None)), Admission::Accept);
    }

    #[test]
    fn the_connection_that_ends_next_makes_room() {
        let now = Instant::now();
        let mut held = vec![connection("10.0.0.1", None); MAX_PER_PEER];
        held[3].abort_at = Some(now + Duration::from_secs(9));
        held[5].abort_at = Some(now + Duration::from_secs(2));
        assert_eq!(admit(&held, connection("10.0.0.1", None)), Admission::Evict(5));
    }

    proptest! {
        /// Whatever connects, the shares hold, and a peer below its share gets in as long as
        /// something can make room.
        #[test]
        fn the_shares_always_hold(
            asked in prop::collection::vec((0..9_u8, 0..3_u16, 0..3_u8), 0..200)
        ) {
            let now = Instant::now();
            let mut held: Vec<AcceptedConnection> = Vec::new();
            for (at, (peer, port, ending)) in (0_u64..).zip(asked) {
                let peer = IpAddr::from([10, 0, 0, peer]);
                let new = AcceptedConnection { peer, port, abort_at: None };
                let admission = loop {
                    match admit(&held, new) {
                        Admission::Evict(index) => {
                            prop_assert!(held.remove(index).abort_at.is_some());
                        }
                        last @ (Admission::Accept | Admission::Refuse) => break last,
                    }
                };
                if admission == Admission::Accept {
                    let abort_at = (ending == 0).then(|| now + Duration::from_secs(at));
                    held.push(AcceptedConnection { abort_at, ..new });
                }
                let of_peer = held.iter().filter(|one| one.peer == new.peer).count();
                let of_listener = held.iter().filter(|one| one.port == new.port).count();
                prop_assert!(of_peer <= MAX_PER_PEER && of_listener <= MAX_PER_LISTENER);
                prop_assert!(held.len() <= MAX_ACCEPTED);
            }
        }
    }
}
