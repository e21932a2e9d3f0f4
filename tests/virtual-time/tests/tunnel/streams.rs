//! TCP through the tunnel over very bad links.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State as TcpState;
use tunnel::{
    ListeningSockets, Now, PacketBuffer, SendBatch, Stack, Tunnel, TunnelEvent, TunnelRequest,
};
use virtual_time::network::{Datagram, Network};
use virtual_time::{HUB_TUNNEL_IP, NetworkConditions, World, clock};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const PORT: u16 = 1883;

/// A stack at each end, with the network of a world between them.
pub(super) struct Streams {
    pub(super) world: World,
    pub(super) site: Stack,
    pub(super) hub: Stack,
    pub(super) listener: ListeningSockets,
    /// The host behind the hub is down.
    pub(super) is_broker_down: bool,
    out: SendBatch,
}

impl Streams {
    pub(super) fn new(seed: u64, conditions: NetworkConditions) -> Self {
        let mut world = World::new(seed, 1);
        world.network.impairment.conditions = conditions;
        let now = Now::read();
        let mut tunnel = Tunnel::site(world.settings.clone(), world.bounds, now, seed);
        let addresses = vec![world.hubs[0].address];
        tunnel.handle_event(now, TunnelEvent::Resolved { hub: 0, addresses });
        let site = Stack::new(tunnel, now, seed);
        let (hub, waiting) = Self::new_hub(&world, seed);
        Self { world, site, hub, listener: waiting, is_broker_down: false, out: SendBatch::new() }
    }

    fn new_hub(world: &World, seed: u64) -> (Stack, ListeningSockets) {
        let now = Now::read();
        let tunnel = Tunnel::hub(world.hubs[0].settings.clone(), now, seed + 1);
        let mut hub = Stack::new(tunnel, now, seed + 1);
        let waiting = hub.listen(PORT).expect("the port is free");
        (hub, waiting)
    }

    pub(super) fn restart_hub(&mut self) {
        (self.hub, self.listener) = Self::new_hub(&self.world, 4711);
    }

    pub(super) fn connect(&mut self) -> SocketHandle {
        let to = SocketAddr::new(HUB_TUNNEL_IP.parse().expect("an address"), PORT);
        self.site.connect(to).expect("it can be reached")
    }

    /// Does what is due now, then advances time to the next deadline.
    pub(super) fn step(&mut self) {
        let Self { world, site, hub, out, is_broker_down: is_dead, .. } = self;
        let (site_address, address) = (world.site_address, world.hubs[0].address);
        let now = Now::read();
        while let Some(datagram) = world.network.next_arrived(now.instant) {
            let bytes = (datagram.from, datagram.bytes.as_slice());
            if datagram.to == site_address {
                site.handle_datagram(now, bytes, out);
            } else if *is_dead {
                hub.tunnel.handle_datagram(now, bytes, out, &mut PacketBuffer::new());
            } else {
                hub.handle_datagram(now, bytes, out);
            }
        }
        // Replies go to their destination.
        flush(&mut world.network, out, site_address, address);
        for (stack, from) in [(&mut *site, site_address), (&mut *hub, address)] {
            if from == address && *is_dead {
                stack.tunnel.handle_timeout(now, out);
                flush(&mut world.network, out, site_address, address);
                continue;
            }
            while !stack.poll(now, out) {
                flush(&mut world.network, out, site_address, address);
            }
            while let Some(request) = stack.tunnel.next_request() {
                assert!(
                    matches!(request, TunnelRequest::Rebind | TunnelRequest::Resolve(_)),
                    "{from}"
                );
            }
            flush(&mut world.network, out, site_address, address);
        }
        let hub_at = if *is_dead { hub.tunnel.poll_timeout() } else { hub.poll_at(now.instant) };
        let at = [site.poll_at(now.instant), hub_at, world.network.next_at()];
        let next = at.into_iter().flatten().min().unwrap_or(now.instant + SECOND);
        let wait = next.saturating_duration_since(now.instant);
        clock::advance(wait.clamp(Duration::from_micros(10), SECOND));
    }
}

fn flush(
    network: &mut Network,
    out: &mut SendBatch,
    site_address: SocketAddr,
    address: SocketAddr,
) {
    let now = Instant::now();
    for (to, bytes) in out.datagrams() {
        let from = if to == address { site_address } else { address };
        network.send(now, &Datagram { from, to, bytes: bytes.to_vec() });
    }
    out.clear();
}

/// Sends `length` bytes from the site to the hub and back; returns the time it took, and `None` if
/// the connection failed.
fn echo(streams: &mut Streams, length: usize, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    let sent: Vec<u8> =
        (0..length).map(|at| u8::try_from(at * 31 % 251).expect("less than 251")).collect();
    let ours = streams.connect();
    let mut theirs = None;
    let (mut up, mut back) = (0, Vec::new());
    let mut buffer = vec![0; 16 * 1024];
    let mut echoed: Vec<u8> = Vec::new();
    while start.elapsed() < limit {
        streams.step();
        let socket = streams.site.socket(ours);
        if socket.state() == TcpState::Closed {
            return None;
        }
        if socket.may_send() && up < sent.len() {
            up += socket.send_slice(&sent[up..]).expect("it may");
        }
        while socket.can_recv() {
            let length = socket.recv_slice(&mut buffer).expect("it can");
            back.extend_from_slice(&buffer[..length]);
        }
        theirs = theirs.or_else(|| streams.hub.accept(&mut streams.listener));
        if let Some(theirs) = theirs {
            let socket = streams.hub.socket(theirs);
            while socket.can_recv() {
                let length = socket.recv_slice(&mut buffer).expect("it can");
                echoed.extend_from_slice(&buffer[..length]);
            }
            let Ok(length) = socket.send_slice(&echoed) else { return None };
            echoed.drain(..length);
        }
        if back.len() == sent.len() {
            assert!(back == sent);
            return Some(start.elapsed());
        }
    }
    None
}

#[test]
fn a_megabyte_passes_both_ways_over_a_good_link_in_seconds() {
    let mut streams = Streams::new(90, NetworkConditions::default());
    let took = echo(&mut streams, 1 << 20, MINUTE);
    assert!(took.is_some_and(|took| took < 5 * SECOND), "{took:?}");
}

#[test]
fn tcp_completes_over_a_link_with_3_percent_loss_and_reordering() {
    let conditions = NetworkConditions {
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(100),
        loss: 0.03,
        duplicate: 0.05,
        corrupt: 0.01,
    };
    let mut streams = Streams::new(91, conditions);
    let took = echo(&mut streams, 256 * 1024, 60 * MINUTE);
    assert!(took.is_some(), "{took:?}");
}

#[test]
fn tcp_completes_over_a_link_that_reorders_hundreds_of_packets() {
    let conditions = NetworkConditions {
        delay: Duration::from_millis(50),
        jitter: SECOND,
        duplicate: 0.05,
        ..NetworkConditions::default()
    };
    let mut streams = Streams::new(95, conditions);
    let took = echo(&mut streams, 1 << 20, 60 * MINUTE);
    assert!(took.is_some(), "{took:?}");
}

#[test]
fn tcp_completes_over_a_link_with_30_percent_loss_and_1500_ms_delay() {
    let conditions = NetworkConditions {
        delay: Duration::from_millis(1500),
        jitter: Duration::from_millis(500),
        loss: 0.3,
        duplicate: 0.1,
        corrupt: 0.05,
    };
    // In a few runs nothing is acknowledged for five minutes, mostly during pauses of a minute
    // between two retransmissions.
    let completes =
        |seed| echo(&mut Streams::new(seed, conditions), 8 * 1024, 60 * MINUTE).is_some();
    let completed = (0..160).filter(|seed| completes(*seed)).count();
    // Seven of eight.
    assert!(completed >= 140, "{completed} of 160");
}

#[test]
fn after_a_restart_of_the_hub_the_old_connection_ends_and_a_new_one_works() {
    let mut streams = Streams::new(93, NetworkConditions::default());
    assert!(echo(&mut streams, 1000, MINUTE).is_some());
    let old = streams.connect();
    for _ in 0..100 {
        streams.step();
    }
    streams.restart_hub();
    let start = Instant::now();
    while streams.site.socket(old).is_active() {
        let socket = streams.site.socket(old);
        let _ = socket.send_slice(b"are you there");
        streams.step();
        assert!(start.elapsed() < 30 * SECOND, "{:?}", streams.site.socket(old).state());
    }
    assert!(echo(&mut streams, 1000, MINUTE).is_some());
}

#[test]
fn a_link_that_is_down_for_25_s_interrupts_no_connection_and_loses_nothing() {
    let mut streams = Streams::new(94, NetworkConditions::default());
    assert!(echo(&mut streams, 1000, MINUTE).is_some());
    let old = streams.connect();
    let begin = Instant::now();
    let theirs = loop {
        streams.step();
        if let Some(theirs) = streams.hub.accept(&mut streams.listener) {
            break theirs;
        }
        assert!(begin.elapsed() < MINUTE, "it is not connected");
    };
    let hub = streams.world.hubs[0].address.ip();
    streams.world.network.unreachable_hosts.insert(hub);
    streams.site.socket(old).send_slice(b"held up").expect("it may");
    let start = Instant::now();
    while start.elapsed() < 25 * SECOND {
        streams.step();
    }
    streams.world.network.unreachable_hosts.clear();
    while !streams.hub.socket(theirs).can_recv() {
        streams.step();
        assert!(start.elapsed() < 40 * SECOND);
    }
    let mut buffer = [0; 16];
    let length = streams.hub.socket(theirs).recv_slice(&mut buffer).expect("it can");
    assert_eq!(&buffer[..length], b"held up");
    assert!(streams.site.socket(old).may_send());
}
