//! Detects that this host reaches the hub through another interface, gateway or source address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::NetlinkSocket;
use super::message::NetlinkMessage;
use super::reply::{self, RouteFingerprint};

/// Minimum time between two reported changes, so that a flapping route does not cause a storm of
/// handshakes, and a hub that does not answer is still left.
const MIN_CHANGE_INTERVAL: Duration = Duration::from_secs(15);
/// Stand for any host while the hub's address is unknown (RFC 5737, RFC 3849). Nothing is sent
/// there.
const PLACEHOLDER_HOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Result of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RouteChange {
    /// The route is the same, or there is none.
    Unchanged,
    /// The route is another one, or there is one again.
    Changed,
    /// The route is another one, which must not be reported before this time.
    DeferredUntil(Instant),
}

/// Watches the route to one host, or the routes to two placeholders while no host is known.
#[derive(Debug)]
pub(crate) struct RouteWatch {
    socket: NetlinkSocket,
    to: Option<IpAddr>,
    last: LastRoutes,
}

/// The routes at the last check.
#[derive(Debug, Default)]
struct LastRoutes {
    fingerprints: [Option<RouteFingerprint>; 2],
    last_reported: Option<Instant>,
}

impl RouteWatch {
    /// Starts with the current routes to the placeholders.
    pub(crate) fn new() -> Result<Self, Errno> {
        let mut watch =
            Self { socket: NetlinkSocket::open()?, to: None, last: LastRoutes::default() };
        watch.last.fingerprints = watch.query();
        Ok(watch)
    }

    /// Checks the route again, and from now on the route to `to`.
    pub(crate) fn check(&mut self, now: Instant, to: Option<IpAddr>) -> RouteChange {
        // The old destination first: a change of the destination is not a change of the route.
        let found = self.query();
        let look = self.last.update(now, found);
        if self.to != to {
            self.to = to;
            self.last.fingerprints = self.query();
        }
        look
    }

    fn query(&mut self) -> [Option<RouteFingerprint>; 2] {
        let [v4, v6] = PLACEHOLDER_HOSTS;
        let to = self.to.map_or([Some(v4), Some(v6)], |to| [Some(to), None]);
        to.map(|to| {
            reply::route_fingerprint(&self.socket.request(NetlinkMessage::get_route(to?)).ok()?)
        })
    }
}

impl LastRoutes {
    fn update(&mut self, now: Instant, found: [Option<RouteFingerprint>; 2]) -> RouteChange {
        let is_other = found
            .iter()
            .zip(&self.fingerprints)
            .any(|(found, known)| found.is_some() && found != known);
        let too_soon = self
            .last_reported
            .map(|reported| reported + MIN_CHANGE_INTERVAL)
            .filter(|end| is_other && now < *end);
        if let Some(end) = too_soon {
            // The known routes stay, so that the change is seen again at that time.
            return RouteChange::DeferredUntil(end);
        }
        self.fingerprints = found;
        if is_other {
            self.last_reported = Some(now);
            return RouteChange::Changed;
        }
        RouteChange::Unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Namespace, ip};

    const SECOND: Duration = Duration::from_secs(1);

    fn fingerprints(name: Option<u8>) -> [Option<RouteFingerprint>; 2] {
        [name.map(|name| RouteFingerprint(vec![(1, vec![name])])), None]
    }

    #[test]
    fn a_lost_route_is_reported_when_there_is_one_again() {
        let (mut now, mut last) = (Instant::now(), LastRoutes::default());
        let mut look = |name| {
            now += 20 * SECOND;
            last.update(now, fingerprints(name))
        };
        let looks = [None, Some(1), Some(1), Some(2), None, None, Some(2)].map(&mut look);
        let expected = [false, true, false, true, false, false, true];
        assert_eq!(looks.map(|look| look == RouteChange::Changed), expected);
    }

    #[test]
    fn a_flapping_route_is_reported_four_times_a_minute_and_its_last_state_in_the_end() {
        let (start, mut last) = (Instant::now(), LastRoutes::default());
        let mut reported = 0;
        for tick in 0..600_u32 {
            let name = u8::try_from(tick % 3).unwrap();
            let look = last.update(start + tick * SECOND / 10, fingerprints(Some(name)));
            reported += u32::from(look == RouteChange::Changed);
        }
        assert_eq!(reported, 4);
        let now = start + 60 * SECOND;
        let at = start + 60 * SECOND + SECOND / 2;
        let deferred = last.update(now, fingerprints(Some(9)));
        assert!(matches!(deferred, RouteChange::DeferredUntil(end) if end <= at));
        assert_eq!(last.update(at, fingerprints(Some(9))), RouteChange::Changed);
        assert_eq!(last.update(at, fingerprints(Some(9))), RouteChange::Unchanged);
    }

    #[test]
    fn as_root_a_route_changes_with_interface_gateway_or_source_and_with_nothing_else() {
        let _namespace = Namespace::enter();
        let hub: IpAddr = "198.51.100.7".parse().unwrap();
        let mut watch = RouteWatch::new().unwrap();
        let mut now = Instant::now();
        let mut is_other = |change: &str| {
            change
                .split(';')
                .for_each(|line| drop(ip(&line.split_whitespace().collect::<Vec<_>>())));
            now += 20 * SECOND;
            watch.check(now, Some(hub)) == RouteChange::Changed
        };
        for name in ["lan", "lte"] {
            ip(&["link", "add", name, "type", "veth"]);
            ip(&["link", "set", name, "up"]);
        }
        assert!(!is_other("addr add 192.168.1.5/24 dev lan"));
        // The hub's address is not known up to here: any route matters.
        assert!(!is_other("addr add 10.64.0.9/24 dev lte"));
        assert!(is_other("route add default via 192.168.1.1 dev lan"));
        assert!(!is_other("route replace default via 192.168.1.1 dev lan"), "as DHCP does");
        assert!(!is_other("addr add 192.168.1.6/24 dev lan"), "not the one that is used");
        assert!(!is_other("route add 10.0.0.0/8 via 10.64.0.1"), "to others");
        assert!(!is_other("route add default via 10.64.0.1 metric 500"), "a spare one");
        assert!(is_other("route replace default via 192.168.1.254 dev lan"));
        assert!(is_other("route del default via 192.168.1.254"), "now the spare one");
        assert!(is_other("route add 198.51.100.0/24 via 192.168.1.1"));
        assert!(is_other(
            "addr del 192.168.1.5/24 dev lan; addr add 192.168.1.7/24 dev lan;
                          route replace 198.51.100.0/24 via 192.168.1.1"
        ));
        assert!(!is_other("route del 198.51.100.0/24; link set lte down"), "no route at all");
        assert!(is_other("route add default via 192.168.1.1"));
    }

    #[test]
    fn as_root_any_default_route_counts_before_the_hub_is_known() {
        let _namespace = Namespace::enter();
        ip(&["link", "add", "lan", "type", "veth", "peer", "name", "other"]);
        ["lan", "other"].iter().for_each(|name| drop(ip(&["link", "set", name, "up"])));
        for (address, default) in [("192.168.1.5/24", "192.168.1.1"), ("fd02::5/64", "fd02::1")] {
            let mut watch = RouteWatch::new().unwrap();
            ip(&["addr", "add", address, "dev", "lan"]);
            assert_eq!(watch.check(Instant::now(), None), RouteChange::Unchanged);
            ip(&["route", "add", "default", "via", default]);
            assert_eq!(watch.check(Instant::now(), None), RouteChange::Changed);
            assert_eq!(watch.check(Instant::now(), None), RouteChange::Unchanged);
        }
    }
}
