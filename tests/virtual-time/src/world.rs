//! A site, its hubs, and time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tunnel::{
    ClockBounds, Event, LookUp, Now, Outbox, Packets, PrivateKey, Report, Request, Settings, State,
    Tunnel,
};

use crate::hub::SimulatedHub;
use crate::network::{Datagram, Network};
use crate::{clock, packet};

/// The site's address inside the tunnel.
pub const SITE_INSIDE: &str = "10.77.0.12";
/// The hub's address inside the tunnel; every hub answers there.
pub const HUB_INSIDE: &str = "10.77.0.1";
/// How long a look-up takes, and how long until one fails.
const LOOK_UP: Duration = Duration::from_millis(50);
const LOOK_UP_FAILS: Duration = Duration::from_secs(5);

/// A simulated world. Hub `n` has the name `hub-n.test` and the address `198.51.100.n`, from 1 on.
#[derive(Debug)]
pub struct World {
    /// The site's end.
    pub site: Tunnel,
    /// Where the site sends from.
    pub outside: SocketAddr,
    /// The hubs.
    pub hubs: Vec<SimulatedHub>,
    /// What lies between them.
    pub network: Network,
    /// What names mean; a name that is not there cannot be found.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Packets that came out at the site.
    pub received: Vec<Vec<u8>>,
    /// Packets that came out at the hubs.
    pub arrived: Vec<Vec<u8>>,
    /// Whether hubs send back what arrives.
    pub echo: bool,
    /// The site sends a packet in this time.
    pub talk: Option<Duration>,
    /// How often the site took a new port.
    pub rebinds: u32,
    /// What the site was told.
    pub settings: Settings,
    /// What is known about the right time.
    pub bounds: ClockBounds,
    talked: Instant,
    mark: u64,
    look_ups: Vec<(Instant, Event)>,
    out: Outbox,
    packets: Packets,
    seed: u64,
    /// Steps in which no time passed.
    stuck: u32,
}

impl World {
    /// Makes a world with so many hubs, all running, and moves this thread into virtual time.
    #[must_use]
    pub fn new(seed: u64, hubs: u8) -> Self {
        Self::with(seed, hubs, |_| {})
    }

    /// The same with other settings for the site; they are changed before it starts.
    #[must_use]
    pub fn with(seed: u64, hubs: u8, change: impl FnOnce(&mut Settings)) -> Self {
        clock::start();
        let private_key = PrivateKey::generate();
        let site_key = private_key.public();
        let hubs: Vec<_> = (1..=hubs).map(|number| SimulatedHub::new(number, site_key)).collect();
        let mut settings = Settings {
            private_key,
            addresses: vec![net(SITE_INSIDE), net("fd77::12")],
            mtu: 1280,
            keep_alive: Some(Duration::from_secs(25)),
            hubs: hubs.iter().enumerate().map(|(at, hub)| hub.as_seen_by_site(at + 1)).collect(),
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
            outside: "192.0.2.10:40000".parse().expect("an address"),
            hubs,
            network: Network::new(seed),
            names,
            received: Vec::new(),
            arrived: Vec::new(),
            echo: true,
            talk: None,
            rebinds: 0,
            settings,
            bounds,
            talked: now.instant,
            mark: 0,
            look_ups: Vec::new(),
            out: Outbox::new(),
            packets: Packets::new(),
            seed,
            stuck: 0,
        };
        for hub in 0..world.hubs.len() {
            world.start_hub(hub);
        }
        world.obey();
        world
    }

    /// Makes one that has been up for a minute and talks every second.
    ///
    /// # Panics
    /// When it is not up by then.
    #[must_use]
    pub fn up(seed: u64, hubs: u8) -> Self {
        let mut world = Self::new(seed, hubs);
        world.talk = Some(Duration::from_secs(1));
        world.run_for(Duration::from_secs(60));
        assert!(world.is_up());
        world
    }

    /// Starts a hub, or starts it anew: it has forgotten everything.
    pub fn start_hub(&mut self, hub: usize) {
        self.seed += 1;
        let hub = self.hubs.get_mut(hub).expect("there is such a hub");
        hub.tunnel = Some(Tunnel::hub_end(hub.settings.clone(), Now::read(), self.seed));
    }

    /// Stops a hub.
    pub fn stop_hub(&mut self, hub: usize) {
        self.hubs.get_mut(hub).expect("there is such a hub").tunnel = None;
    }

    /// Starts the site anew: it has forgotten everything.
    pub fn restart_site(&mut self) {
        self.seed += 1;
        self.site = Tunnel::site(self.settings.clone(), self.bounds, Now::read(), self.seed);
        self.outside.set_port(self.outside.port().wrapping_add(1).max(1024));
        self.look_ups.clear();
        self.obey();
    }

    /// Whether there is a session at the site.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.site.state(Now::read()) == State::Up
    }

    /// How the site is.
    #[must_use]
    pub fn report(&self) -> Report {
        self.site.report(Now::read())
    }

    /// Sends a packet from the site.
    pub fn send(&mut self, packet: &[u8]) {
        self.at_site(|site, now, out, _| site.handle_packet(now, packet, out));
    }

    /// Sends a short packet from the site to the hub; returns its mark.
    pub fn ping(&mut self) -> u64 {
        self.mark += 1;
        let (from, to) = (inside(SITE_INSIDE), inside(HUB_INSIDE));
        let packet = packet::ip(from, to, 100, self.mark);
        self.send(&packet);
        self.mark
    }

    /// How many packets [`World::ping`] has sent.
    #[must_use]
    pub const fn pinged(&self) -> u64 {
        self.mark
    }

    /// Tells the site that something has happened.
    pub fn tell(&mut self, event: Event) {
        self.site.handle_event(Now::read(), event);
        self.at_site(|site, now, out, _| site.handle_timeout(now, out));
    }

    /// Gives the site a datagram as if it had come from there, past the network.
    pub fn give_site(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.at_site(|site, now, out, packets| {
            site.handle_datagram(now, (from, bytes), out, packets);
        });
    }

    /// Gives a hub a datagram as if it had come from there, past the network.
    pub fn give_hub(&mut self, hub: usize, from: SocketAddr, bytes: &[u8]) {
        self.at_hub(hub, |tunnel, now, out, packets| {
            tunnel.handle_datagram(now, (from, bytes), out, packets);
        });
    }

    /// Runs until `is_done`, but not longer than `limit`; returns how long it took.
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

    /// Whether something that is sent from now on is answered within this time.
    #[must_use]
    pub fn heard_within(&mut self, limit: Duration) -> bool {
        self.received.clear();
        self.run_until(limit, |world| !world.received.is_empty()).is_some()
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let _ = self.run_until(time, |_| false);
    }

    /// Moves time to the next thing that happens, at most by `most`, and lets it happen.
    pub fn step(&mut self, most: Duration) {
        let before = Instant::now();
        let next = self.next_at().map_or(most, |at| at.saturating_duration_since(before));
        self.stuck = if next.is_zero() { self.stuck + 1 } else { 0 };
        assert!(self.stuck < 10_000, "something is due again and again: {self:?}");
        clock::advance(next.min(most));
        let now = Instant::now();
        self.answer_look_ups(now);
        while let Some(datagram) = self.network.arrived(now) {
            self.deliver(&datagram);
        }
        if self.talk.is_some_and(|every| now >= self.talked + every) {
            self.talked = now;
            self.ping();
        }
        if is_due(&self.site, now) {
            self.at_site(|site, now, out, _| site.handle_timeout(now, out));
        }
        for hub in 0..self.hubs.len() {
            if self
                .hubs
                .get(hub)
                .and_then(|hub| hub.tunnel.as_ref())
                .is_some_and(|hub| is_due(hub, now))
            {
                self.at_hub(hub, |hub, now, out, _| hub.handle_timeout(now, out));
            }
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let hubs = self.hubs.iter().filter_map(|hub| hub.tunnel.as_ref()?.poll_timeout());
        let look_ups = self.look_ups.iter().map(|(at, _)| *at);
        let talk = self.talk.map(|every| self.talked + every);
        hubs.chain(look_ups)
            .chain(self.site.poll_timeout())
            .chain(self.network.next_at())
            .chain(talk)
            .min()
    }

    fn deliver(&mut self, datagram: &Datagram) {
        if datagram.to == self.outside {
            self.give_site(datagram.from, &datagram.bytes);
            return;
        }
        let hub = self.hubs.iter().position(|hub| hub.address == datagram.to);
        if let Some(hub) = hub {
            self.give_hub(hub, datagram.from, &datagram.bytes);
        }
    }

    fn at_site(&mut self, act: impl FnOnce(&mut Tunnel, Now, &mut Outbox, &mut Packets)) {
        self.out.clear();
        self.packets.clear();
        act(&mut self.site, Now::read(), &mut self.out, &mut self.packets);
        self.received.extend(self.packets.iter().map(<[u8]>::to_vec));
        self.obey();
        let now = Instant::now();
        for (to, bytes) in self.out.datagrams() {
            let datagram = Datagram { from: self.outside, to, bytes: bytes.to_vec() };
            self.network.send(now, &datagram);
        }
    }

    fn at_hub(
        &mut self,
        hub: usize,
        act: impl FnOnce(&mut Tunnel, Now, &mut Outbox, &mut Packets),
    ) {
        let Some(SimulatedHub { tunnel: Some(tunnel), address, .. }) = self.hubs.get_mut(hub)
        else {
            return;
        };
        self.out.clear();
        self.packets.clear();
        let now = Now::read();
        act(tunnel, now, &mut self.out, &mut self.packets);
        for packet in self.packets.iter() {
            self.arrived.push(packet.to_vec());
            if self.echo {
                let mut answer = packet.to_vec();
                packet::turn(&mut answer);
                tunnel.handle_packet(now, &answer, &mut self.out);
            }
        }
        for (to, bytes) in self.out.datagrams() {
            let datagram = Datagram { from: *address, to, bytes: bytes.to_vec() };
            self.network.send(now.instant, &datagram);
        }
    }

    fn obey(&mut self) {
        let now = Instant::now();
        while let Some(request) = self.site.next_request() {
            match request {
                Request::Resolve(LookUp { hub, endpoint }) => {
                    let found = self.names.get(&endpoint.host);
                    let at = now + if found.is_some() { LOOK_UP } else { LOOK_UP_FAILS };
                    let addresses = found.into_iter().flatten();
                    let addresses =
                        addresses.map(|address| SocketAddr::new(*address, endpoint.port)).collect();
                    self.look_ups.push((at, Event::Resolved { hub, addresses }));
                }
                Request::Rebind => {
                    self.rebinds += 1;
                    self.outside.set_port(self.outside.port().wrapping_add(1).max(1024));
                }
            }
        }
    }

    fn answer_look_ups(&mut self, now: Instant) {
        let is_ready = |(at, _): &(Instant, Event)| *at <= now;
        while let Some(at) = self.look_ups.iter().position(is_ready) {
            let (_, event) = self.look_ups.remove(at);
            self.tell(event);
        }
    }
}

fn is_due(tunnel: &Tunnel, now: Instant) -> bool {
    tunnel.poll_timeout().is_some_and(|at| now >= at)
}

/// An address as text.
#[must_use]
pub fn inside(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A network as text; an address alone is one of itself.
#[must_use]
pub fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(inside(text)))
}
