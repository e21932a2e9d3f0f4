//! By which device, router and address this host reaches another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Asker;
use super::answer::{self, Hop};
use super::message::Message;

/// Two new ways are told no closer together than this, so that a route that flaps is no storm of
/// handshakes, and a hub that does not answer is still given up in between.
const APART: Duration = Duration::from_secs(15);
/// Stand for all others while the hub's address is not known (RFC 5737, RFC 3849). Nothing is sent.
const ANYBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What has become of the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Look {
    /// It is the same, or there is none.
    Same,
    /// It is another, or there is one again.
    Other,
    /// It is another, which may not be told before this.
    NotBefore(Instant),
}

/// The way to one host; to two that stand for all others while none is known.
#[derive(Debug)]
pub(crate) struct WayOut {
    asker: Asker,
    to: Option<IpAddr>,
    ways: Ways,
}

/// The last that was seen.
#[derive(Debug, Default)]
struct Ways {
    known: [Option<Hop>; 2],
    told: Option<Instant>,
}

impl WayOut {
    /// The way to anybody, as it is now.
    pub(crate) fn new() -> Result<Self, Errno> {
        let mut way = Self { asker: Asker::open()?, to: None, ways: Ways::default() };
        way.ways.known = way.find();
        Ok(way)
    }

    /// Asks for the way again, and from now on for that to another host.
    pub(crate) fn look(&mut self, now: Instant, to: Option<IpAddr>) -> Look {
        let found = self.find();
        let look = self.ways.look(now, found);
        if self.to != to {
            self.to = to;
            self.ways.known = self.find();
        }
        look
    }

    fn find(&mut self) -> [Option<Hop>; 2] {
        let [v4, v6] = ANYBODY;
        let to = self.to.map_or([Some(v4), Some(v6)], |to| [Some(to), None]);
        to.map(|to| answer::hop(&self.asker.ask(Message::way(to?)).ok()?))
    }
}

impl Ways {
    fn look(&mut self, now: Instant, found: [Option<Hop>; 2]) -> Look {
        let is_other =
            found.iter().zip(&self.known).any(|(found, known)| found.is_some() && found != known);
        let too_soon = self.told.map(|told| told + APART).filter(|end| is_other && now < *end);
        if let Some(end) = too_soon {
            return Look::NotBefore(end);
        }
        self.known = found;
        if is_other {
            self.told = Some(now);
            return Look::Other;
        }
        Look::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Namespace, ip};

    const SECOND: Duration = Duration::from_secs(1);

    fn ways(name: Option<u8>) -> [Option<Hop>; 2] {
        [name.map(|name| Hop(vec![(1, vec![name])])), None]
    }

    #[test]
    fn a_way_that_is_gone_is_told_when_there_is_one_again() {
        let (mut now, mut seen) = (Instant::now(), Ways::default());
        let mut look = |name| {
            now += 20 * SECOND;
            seen.look(now, ways(name))
        };
        let looks = [None, Some(1), Some(1), Some(2), None, None, Some(2)].map(&mut look);
        let expected = [false, true, false, true, false, false, true];
        assert_eq!(looks.map(|look| look == Look::Other), expected);
    }

    #[test]
    fn a_way_that_flaps_is_told_four_times_a_minute_and_the_last_one_at_last() {
        let (start, mut seen) = (Instant::now(), Ways::default());
        let mut told = 0;
        for tick in 0..600_u32 {
            let name = u8::try_from(tick % 3).unwrap();
            let look = seen.look(start + tick * SECOND / 10, ways(Some(name)));
            told += u32::from(look == Look::Other);
        }
        assert_eq!(told, 4);
        let now = start + 60 * SECOND;
        let at = start + 60 * SECOND + SECOND / 2;
        assert!(matches!(seen.look(now, ways(Some(9))), Look::NotBefore(end) if end <= at));
        assert_eq!(seen.look(at, ways(Some(9))), Look::Other);
        assert_eq!(seen.look(at, ways(Some(9))), Look::Same);
    }

    #[test]
    fn as_root_the_way_is_another_with_another_device_router_or_address_and_not_for_less() {
        let _namespace = Namespace::enter();
        let hub: IpAddr = "198.51.100.7".parse().unwrap();
        let mut way = WayOut::new().unwrap();
        let mut now = Instant::now();
        let mut is_other = |change: &str| {
            change
                .split(';')
                .for_each(|line| drop(ip(&line.split_whitespace().collect::<Vec<_>>())));
            now += 20 * SECOND;
            way.look(now, Some(hub)) == Look::Other
        };
        for name in ["lan", "lte"] {
            ip(&["link", "add", name, "type", "veth"]);
            ip(&["link", "set", name, "up"]);
        }
        assert!(!is_other("addr add 192.168.1.5/24 dev lan"));
        // The hub's address is not known up to here: any way out is good news.
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
        assert!(!is_other("route del 198.51.100.0/24; link set lte down"), "no way at all");
        assert!(is_other("route add default via 192.168.1.1"));
    }

    #[test]
    fn as_root_any_way_out_in_either_family_is_good_news_before_the_hub_is_known() {
        let _namespace = Namespace::enter();
        ip(&["link", "add", "lan", "type", "veth", "peer", "name", "other"]);
        ["lan", "other"].iter().for_each(|name| drop(ip(&["link", "set", name, "up"])));
        for (address, default) in [("192.168.1.5/24", "192.168.1.1"), ("fd02::5/64", "fd02::1")] {
            let mut way = WayOut::new().unwrap();
            ip(&["addr", "add", address, "dev", "lan"]);
            assert_eq!(way.look(Instant::now(), None), Look::Same);
            ip(&["route", "add", "default", "via", default]);
            assert_eq!(way.look(Instant::now(), None), Look::Other);
            assert_eq!(way.look(Instant::now(), None), Look::Same);
        }
    }
}
