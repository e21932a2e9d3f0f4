//! A site, its hubs, and time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tunnel::{
    ClockBounds, HubLookup, Now, PacketBuffer, PrivateKey, SendBatch, Settings, Tunnel,
    TunnelEvent, TunnelReport, TunnelRequest, TunnelState,
};

use crate::hub::SimulatedHub;
use crate::network::{Datagram, Network};
use crate::{clock, packet};

/// The site's address inside the tunnel.
pub const SITE_TUNNEL_IP: &str = "10.77.0.12";
/// The hub's address inside the tunnel, which is the same for every hub.
pub const HUB_TUNNEL_IP: &str = "10.77.0.1";
/// Time until a look-up succeeds, and until one fails.
const LOOKUP_DELAY: Duration = Duration::from_millis(50);
const LOOKUP_FAILURE_DELAY: Duration = Duration::from_secs(5);

/// A simulated world. Hub `n`, from 1 on, has the name `hub-n.test` and the address `198.51.100.n`.
#[derive(Debug)]
pub struct World {
    /// The site's end.
    pub site: Tunnel,
    /// Source address of the site's datagrams.
    pub site_address: SocketAddr,
    /// The hubs.
    pub hubs: Vec<SimulatedHub>,
    /// The network between them.
    pub network: Network,
    /// Addresses of each name; other names do not resolve.
    pub dns: BTreeMap<String, Vec<IpAddr>>,
    /// Packets that were decrypted at the site.
    pub received_at_site: Vec<Vec<u8>>,
    /// Packets that were decrypted at the hubs.
    pub received_at_hubs: Vec<Vec<u8>>,
    /// Whether hubs send packets back.
    pub hubs_echo: bool,
    /// Interval at which the site sends a packet.
    pub ping_interval: Option<Duration>,
    /// Number of times the site has opened a new port.
    pub rebinds: u32,
    /// Settings of the site.
    pub settings: Settings,
    /// Bounds of the true time.
    pub bounds: ClockBounds,
    last_ping: Instant,
    pings_sent: u64,
    lookups: Vec<(Instant, TunnelEvent)>,
    out: SendBatch,
    packets: PacketBuffer,
    seed: u64,
    /// Steps in which no time has passed.
    stalled_steps: u32,
}

impl World {
    /// Creates a world with `hubs` running hubs and switches this thread to virtual time.
    #[must_use]
    pub fn new(seed: u64, hubs: u8) -> Self {
        Self::with_settings(seed, hubs, |_| {})
    }

    /// The same with other settings for the site.
    #[must_use]
    pub fn with_settings(seed: u64, hubs: u8, change: impl FnOnce(&mut Settings)) -> Self {
        clock::start();
        let private_key = PrivateKey::generate();
        let site_key = private_key.public_key();
        let hubs: Vec<_> = (1..=hubs).map(|number| SimulatedHub::new(number, site_key)).collect();
        let mut settings = Settings {
            private_key,
            addresses: vec![parse_net(SITE_TUNNEL_IP), parse_net("fd77::12")],
            mtu: 1280,
            keep_alive: Some(Duration::from_secs(25)),
            hubs: hubs.iter().enumerate().map(|(at, hub)| hub.as_peer(at + 1)).collect(),
        };
        change(&mut settings);
        let names = hubs
            .iter()
            .enumerate()
            .map(|(at, hub)| (format!("hub-{}.test", at + 1), vec![hub.address.ip()]))
            .collect();
        let now = Now::read();
        let bounds = ClockBounds::default();
        let mut world = Self {
            site: Tunnel::site(settings.clone(), bounds, now, seed),
            site_address: "192.0.2.10:40000".parse().expect("an address"),
            hubs,
            network: Network::new(seed),
            dns: names,
            received_at_site: Vec::new(),
            received_at_hubs: Vec::new(),
            hubs_echo: true,
            ping_interval: None,
            rebinds: 0,
            settings,
            bounds,
            last_ping: now.instant,
            pings_sent: 0,
            lookups: Vec::new(),
            out: SendBatch::new(),
            packets: PacketBuffer::new(),
            seed,
            stalled_steps: 0,
        };
        for hub in 0..world.hubs.len() {
            world.start_hub(hub);
        }
        world.serve_requests();
        world
    }

    /// Creates a world that has been up for a minute and sends a packet every second.
    ///
    /// # Panics
    /// If it is not up by then.
    #[must_use]
    pub fn connected(seed: u64, hubs: u8) -> Self {
        let mut world = Self::new(seed, hubs);
        world.ping_interval = Some(Duration::from_secs(1));
        world.run_for(Duration::from_secs(60));
        assert!(world.is_up());
        world
    }

    /// Starts or restarts a hub without any state.
    pub fn start_hub(&mut self, hub: usize) {
        self.seed += 1;
        let hub = self.hubs.get_mut(hub).expect("the hub exists");
        hub.tunnel = Some(Tunnel::hub(hub.settings.clone(), Now::read(), self.seed));
    }

    /// Stops a hub.
    pub fn stop_hub(&mut self, hub: usize) {
        self.hubs.get_mut(hub).expect("the hub exists").tunnel = None;
    }

    /// Restarts the site without any state.
    pub fn restart_site(&mut self) {
        self.seed += 1;
        self.site = Tunnel::site(self.settings.clone(), self.bounds, Now::read(), self.seed);
        self.site_address.set_port(self.site_address.port().wrapping_add(1).max(1024));
        self.lookups.clear();
        self.serve_requests();
    }

    /// Delivers a datagram to a hub as if it came from `from`, and returns what the hub sends there
    /// at once. What it sends to others goes through the network.
    pub fn ask_hub(&mut self, hub: usize, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.deliver_to_hub(hub, from, bytes);
        let replies = self.out.datagrams().filter(|(to, _)| *to == from);
        replies.map(|(_, bytes)| bytes.to_vec()).collect()
    }

    /// Returns whether there is a session at the site.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.site.state(Now::read()) == TunnelState::Up
    }

    /// Returns the site's report.
    #[must_use]
    pub fn report(&self) -> TunnelReport {
        self.site.report(Now::read())
    }

    /// Sends a packet from the site.
    pub fn send(&mut self, packet: &[u8]) {
        self.with_site(|site, now, out, _| site.handle_packet(now, packet, out));
    }

    /// Sends a short packet from the site to the hub; returns its mark.
    pub fn ping(&mut self) -> u64 {
        self.pings_sent += 1;
        let (from, to) = (parse_ip(SITE_TUNNEL_IP), parse_ip(HUB_TUNNEL_IP));
        let packet = packet::ip_packet(from, to, 100, self.pings_sent);
        self.send(&packet);
        self.pings_sent
    }

    /// Sends a packet of 100 bytes from the first hub to the site.
    pub fn ping_from_hub(&mut self) {
        let (from, to) = (parse_ip(HUB_TUNNEL_IP), parse_ip(SITE_TUNNEL_IP));
        let packet = packet::ip_packet(from, to, 100, 0);
        self.with_hub(0, |tunnel, now, out, _| tunnel.handle_packet(now, &packet, out));
    }

    /// Returns how many packets [`World::ping`] has sent.
    #[must_use]
    pub const fn pings_sent(&self) -> u64 {
        self.pings_sent
    }

    /// Passes an event to the site.
    pub fn send_event(&mut self, event: TunnelEvent) {
        self.site.handle_event(Now::read(), event);
        self.with_site(|site, now, out, _| site.handle_timeout(now, out));
    }

    /// Delivers a datagram to the site as if it came from `from`, bypassing the network.
    pub fn deliver_to_site(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.with_site(|site, now, out, packets| {
            site.handle_datagram(now, (from, bytes), out, packets);
        });
    }

    /// Delivers a datagram to a hub as if it came from `from`, bypassing the network.
    pub fn deliver_to_hub(&mut self, hub: usize, from: SocketAddr, bytes: &[u8]) {
        self.with_hub(hub, |tunnel, now, out, packets| {
            tunnel.handle_datagram(now, (from, bytes), out, packets);
        });
    }

    /// Runs until `is_done`, but at most for `limit`; returns the time it took.
    #[must_use]
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = Instant::now();
        loop {
            if is_done(self) {
                return Some(start.elapsed());
            }
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.step(left);
        }
    }

    /// Returns whether a packet that is sent from now on is answered within `limit`.
    #[must_use]
    pub fn is_answered_within(&mut self, limit: Duration) -> bool {
        self.received_at_site.clear();
        self.run_until(limit, |world| !world.received_at_site.is_empty()).is_some()
    }

    /// Runs for `time`.
    pub fn run_for(&mut self, time: Duration) {
        let _ = self.run_until(time, |_| false);
    }

    /// Advances time to the next deadline, by `most` at most, and does what is due.
    pub fn step(&mut self, most: Duration) {
        let before = Instant::now();
        let next = self.next_at().map_or(most, |at| at.saturating_duration_since(before));
        self.stalled_steps = if next.is_zero() { self.stalled_steps + 1 } else { 0 };
        assert!(self.stalled_steps < 10_000, "the same deadline is due over and over: {self:?}");
        clock::advance(next.min(most));
        let now = Instant::now();
        self.answer_lookups(now);
        while let Some(datagram) = self.network.next_arrived(now) {
            self.route_datagram(&datagram);
        }
        if self.ping_interval.is_some_and(|every| now >= self.last_ping + every) {
            self.last_ping = now;
            self.ping();
        }
        if is_due(&self.site, now) {
            self.with_site(|site, now, out, _| site.handle_timeout(now, out));
        }
        for hub in 0..self.hubs.len() {
            if self
                .hubs
                .get(hub)
                .and_then(|hub| hub.tunnel.as_ref())
                .is_some_and(|hub| is_due(hub, now))
            {
                self.with_hub(hub, |hub, now, out, _| hub.handle_timeout(now, out));
            }
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let hubs = self.hubs.iter().filter_map(|hub| hub.tunnel.as_ref()?.poll_timeout());
        let look_ups = self.lookups.iter().map(|(at, _)| *at);
        let talk = self.ping_interval.map(|every| self.last_ping + every);
        hubs.chain(look_ups)
            .chain(self.site.poll_timeout())
            .chain(self.network.next_at())
            .chain(talk)
            .min()
    }

    fn route_datagram(&mut self, datagram: &Datagram) {
        if datagram.to == self.site_address {
            self.deliver_to_site(datagram.from, &datagram.bytes);
            return;
        }
        let hub = self.hubs.iter().position(|hub| hub.address == datagram.to);
        if let Some(hub) = hub {
            self.deliver_to_hub(hub, datagram.from, &datagram.bytes);
        }
    }

    fn with_site(&mut self, act: impl FnOnce(&mut Tunnel, Now, &mut SendBatch, &mut PacketBuffer)) {
        self.out.clear();
        self.packets.clear();
        act(&mut self.site, Now::read(), &mut self.out, &mut self.packets);
        self.received_at_site.extend(self.packets.iter().map(<[u8]>::to_vec));
        self.serve_requests();
        let now = Instant::now();
        for (to, bytes) in self.out.datagrams() {
            let datagram = Datagram { from: self.site_address, to, bytes: bytes.to_vec() };
            self.network.send(now, &datagram);
        }
    }

    fn with_hub(
        &mut self,
        hub: usize,
        act: impl FnOnce(&mut Tunnel, Now, &mut SendBatch, &mut PacketBuffer),
    ) {
        let Some(SimulatedHub { tunnel: Some(tunnel), address, sends_from, .. }) =
            self.hubs.get_mut(hub)
        else {
            return;
        };
        self.out.clear();
        self.packets.clear();
        let now = Now::read();
        act(tunnel, now, &mut self.out, &mut self.packets);
        for packet in self.packets.iter() {
            self.received_at_hubs.push(packet.to_vec());
            if self.hubs_echo {
                let mut answer = packet.to_vec();
                packet::swap_addresses(&mut answer);
                tunnel.handle_packet(now, &answer, &mut self.out);
            }
        }
        for (to, bytes) in self.out.datagrams() {
            let from = sends_from.unwrap_or(*address);
            self.network.send(now.instant, &Datagram { from, to, bytes: bytes.to_vec() });
        }
    }

    fn serve_requests(&mut self) {
        let now = Instant::now();
        while let Some(request) = self.site.next_request() {
            match request {
                TunnelRequest::Resolve(HubLookup { hub, endpoint }) => {
                    let found = self.dns.get(&endpoint.host);
                    let at =
                        now + if found.is_some() { LOOKUP_DELAY } else { LOOKUP_FAILURE_DELAY };
                    let addresses = found.into_iter().flatten();
                    let addresses =
                        addresses.map(|address| SocketAddr::new(*address, endpoint.port)).collect();
                    self.lookups.push((at, TunnelEvent::Resolved { hub, addresses }));
                }
                TunnelRequest::Rebind => {
                    self.rebinds += 1;
                    self.site_address.set_port(self.site_address.port().wrapping_add(1).max(1024));
                }
            }
        }
    }

    fn answer_lookups(&mut self, now: Instant) {
        let is_ready = |(at, _): &(Instant, TunnelEvent)| *at <= now;
        while let Some(at) = self.lookups.iter().position(is_ready) {
            let (_, event) = self.lookups.remove(at);
            self.send_event(event);
        }
    }
}

fn is_due(tunnel: &Tunnel, now: Instant) -> bool {
    tunnel.poll_timeout().is_some_and(|at| now >= at)
}

/// Parses an address.
#[must_use]
pub fn parse_ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Parses a network; a single address is a network of its own.
#[must_use]
pub fn parse_net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(parse_ip(text)))
}
