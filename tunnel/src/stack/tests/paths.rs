//! Hosts behind the hub with a smaller MTU on the way, and pings from there.

use super::*;
use crate::packet_buffer::PacketSink;
use crate::stack::path_mtu::tests::too_big;

const BROKER_PORT: u16 = 1883;
const MESSAGE_BYTES: usize = 5000;

/// Whether the router before the narrow link reports what it drops.
#[derive(Clone, Copy, Debug)]
enum Reports {
    Yes,
    No,
}

/// A site and a broker behind a narrow link, in simulated time.
struct Paths {
    site: Stack,
    hub: Stack,
    listener: ListeningSockets,
    now: Now,
    /// Longest packet that passes to the broker, in bytes.
    mtu: usize,
    reports: Reports,
    out: SendBatch,
}

impl Paths {
    fn new(tunnel_mtu: u16, mtu: usize, reports: Reports) -> Self {
        let (mut site, mut hub) = site_and_hub();
        (site.mtu, hub.mtu) = (tunnel_mtu, tunnel_mtu);
        let now = Now::read();
        let site = Stack::new(Tunnel::site(site, ClockBounds::default(), now, 1), now, 1);
        let mut hub = Stack::new(Tunnel::hub(hub, now, 2), now, 2);
        let listener = hub.listen(BROKER_PORT).unwrap();
        Self { site, hub, listener, now, mtu, reports, out: SendBatch::new() }
    }

    /// Exchanges everything that is due, then goes on to the next deadline.
    fn step(&mut self) {
        for _ in 0..4 {
            while !self.site.poll(self.now, &mut self.out) {}
            self.deliver_to_hub();
            while !self.hub.poll(self.now, &mut self.out) {}
            let here = SocketAddr::from(([192, 0, 2, 1], 51820));
            let (site, now) = (&mut self.site, self.now);
            deliver(&mut self.out, |datagram, out| {
                site.handle_datagram(now, (here, datagram), out);
            });
        }
        let at = [self.site.poll_at(self.now.instant), self.hub.poll_at(self.now.instant)];
        let next = at.into_iter().flatten().min().unwrap_or(self.now.instant);
        let wait = next.saturating_duration_since(self.now.instant).max(Duration::from_millis(1));
        self.now = Now { instant: self.now.instant + wait, wall: self.now.wall + wait };
    }

    /// Delivers the site's packets to the broker, as far as the narrow link takes them.
    fn deliver_to_hub(&mut self) {
        let from = SocketAddr::from(([192, 0, 2, 9], 4000));
        let Self { hub, now, mtu, reports, .. } = self;
        deliver(&mut self.out, |datagram, out| {
            let mut arrived = PacketBuffer::new();
            hub.tunnel.handle_datagram(*now, (from, datagram), out, &mut arrived);
            for packet in arrived.iter() {
                if packet.len() <= *mtu {
                    hub.inbound.reserve(packet.len()).copy_from_slice(packet);
                    hub.inbound.commit(packet.len());
                } else if let Reports::Yes = reports {
                    let mtu = u16::try_from(*mtu).unwrap();
                    hub.tunnel.handle_packet(*now, &too_big(packet, mtu), out);
                }
            }
        });
    }

    /// Sends a message on a new connection; returns after how long the broker has it.
    fn first_delivery(&mut self, broker: &str) -> Option<Duration> {
        let ours =
            self.site.connect((broker.parse::<IpAddr>().unwrap(), BROKER_PORT).into()).unwrap();
        let (mut start, mut theirs) = (None, None);
        while start.is_none_or(|start| self.now.instant < start + Duration::from_secs(100)) {
            self.step();
            let socket = self.site.socket(ours);
            if start.is_none() && socket.may_send() {
                socket.send_slice(&[7; MESSAGE_BYTES]).unwrap();
                start = Some(self.now.instant);
            }
            theirs = theirs.or_else(|| self.hub.accept(&mut self.listener));
            if let Some(theirs) = theirs
                && self.hub.socket(theirs).recv_queue() == MESSAGE_BYTES
            {
                return start.map(|start| self.now.instant - start);
            }
        }
        None
    }
}

#[test]
fn a_message_arrives_within_30_s_whatever_the_path_takes_and_reports() {
    for (broker, tunnel_mtu, path) in [
        ("10.77.0.1", 1280, 1000),
        ("10.77.0.1", 1280, 576),
        ("10.77.0.1", 1420, 1400),
        ("10.77.0.1", 1420, 1000),
        ("fd77::1", 1420, 1280),
        ("10.77.0.1", 1280, 9000),
    ] {
        for reports in [Reports::Yes, Reports::No] {
            let mut paths = Paths::new(tunnel_mtu, path, reports);
            let took = paths.first_delivery(broker);
            let what = format!("{broker}, {tunnel_mtu}, {path}, {reports:?}: {took:?}");
            let limit = match (reports, path) {
                (Reports::Yes, _) | (_, 9000) => Duration::from_secs(5),
                (Reports::No, _) => Duration::from_secs(30),
            };
            assert!(took.is_some_and(|took| took < limit), "{what}");
        }
    }
}

#[test]
fn the_next_connection_knows_the_path() {
    let mut paths = Paths::new(1280, 576, Reports::No);
    assert!(paths.first_delivery("10.77.0.1").is_some());
    let took = paths.first_delivery("10.77.0.1");
    assert!(took.is_some_and(|took| took < Duration::from_secs(5)), "{took:?}");
}

/// Returns an echo request from the hub.
fn echo_request(is_v4: bool) -> Vec<u8> {
    let body = [0, 7, 0, 1, 1, 2, 3, 4];
    let mut packet = if is_v4 {
        vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 1, 10, 77, 0, 12]
    } else {
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        [&[0x60, 0, 0, 0, 0, 12, 58, 64][..], &address("fd77::1"), &address("fd77::12")].concat()
    };
    let at = packet.len();
    packet.extend(if is_v4 { [8, 0, 0, 0] } else { [128, 0, 0, 0] });
    packet.extend(body);
    let pseudo =
        if is_v4 { Vec::new() } else { [&packet[8..40], &[0, 0, 0, 12, 0, 0, 0, 58]].concat() };
    let sum = checksum(&[pseudo.as_slice(), &packet[at..]].concat());
    packet[at + 2..at + 4].copy_from_slice(&sum);
    if is_v4 {
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
    }
    packet
}

#[test]
fn a_ping_from_the_hub_is_answered_in_both_families() {
    let mut paths = Paths::new(1280, 1280, Reports::No);
    paths.step();
    for (is_v4, at, reply) in [(true, 20, 0), (false, 40, 129)] {
        let before = paths.hub.tunnel.report(paths.now).counters.received_packets;
        let mut out = SendBatch::new();
        paths.hub.tunnel.handle_packet(paths.now, &echo_request(is_v4), &mut out);
        let there = SocketAddr::from(([192, 0, 2, 1], 51820));
        let mut answered = Vec::new();
        deliver(&mut out, |datagram, out| {
            paths.site.handle_datagram(paths.now, (there, datagram), out);
        });
        while !paths.site.poll(paths.now, &mut out) {}
        let here = SocketAddr::from(([192, 0, 2, 9], 4000));
        deliver(&mut out, |datagram, out| {
            let mut inside = PacketBuffer::new();
            paths.hub.tunnel.handle_datagram(paths.now, (here, datagram), out, &mut inside);
            answered.extend(inside.iter().map(<[u8]>::to_vec));
        });
        let [answer] = answered.as_slice() else { panic!("{answered:?}") };
        assert_eq!((answer[at], &answer[at + 8..]), (reply, [1, 2, 3, 4].as_slice()));
        assert_eq!(paths.hub.tunnel.report(paths.now).counters.received_packets, before + 1);
    }
}
