//! Many sites in front of one hub.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tunnel::{
    ClockBounds, Endpoint, Hub, Now, PacketBuffer, PrivateKey, SendBatch, Settings, Tunnel,
    TunnelRequest,
};
use virtual_time::world::{parse_ip, parse_net};
use virtual_time::{HUB_TUNNEL_IP, SITE_TUNNEL_IP, clock, packet};

use crate::loaded_hub::LoadedHub;

const SECOND: Duration = Duration::from_secs(1);
/// Delay of the network in each direction.
const DELAY: Duration = Duration::from_millis(25);
/// Time over which the sites are started: the age at which a session is renewed.
const START_PERIOD: Duration = Duration::from_secs(120);
/// Interval of MQTT's pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Addresses of the carrier's translators (CGNAT), behind which every fourth site is.
const SHARED_ADDRESSES: usize = 10;
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 4;

/// What happens to a site or to the hub.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Start,
    Timer,
    Ping,
    AtHub(Vec<u8>),
    AtSite(Vec<u8>),
    Process,
}

struct Site {
    settings: Settings,
    address: IpAddr,
    seed: u64,
    /// Absent until it is started.
    tunnel: Option<Tunnel>,
    /// The timer that was scheduled last.
    timer_at: Option<Instant>,
    /// Sessions until now.
    sessions: u64,
    /// When a session began that the hub of now knows.
    connected_at: Option<Instant>,
}

/// How long the sites took to have a session with the new hub, in ascending order.
#[derive(Debug)]
pub(crate) struct ReturnTimes {
    /// Those with an address of their own.
    pub(crate) own_address: Vec<Duration>,
    /// Those behind CGNAT.
    pub(crate) shared_address: Vec<Duration>,
}

/// The sites, their hub and time.
pub(crate) struct Fleet {
    sites: Vec<Site>,
    pub(crate) hub: LoadedHub,
    hub_address: SocketAddr,
    /// With the number of the site, in the order in which they were scheduled.
    events: BinaryHeap<Reverse<(Instant, u64, usize, Event)>>,
    scheduled: u64,
    random: fastrand::Rng,
    started: Instant,
    /// Initiations in each second since the start.
    initiations: Vec<u32>,
    process_at: Option<Instant>,
    out: SendBatch,
    packets: PacketBuffer,
}

impl Fleet {
    /// Returns a fleet whose sites have connected one after the other, and switches this thread to
    /// virtual time.
    pub(crate) fn connected(seed: u64, size: usize) -> Self {
        clock::start();
        let key = PrivateKey::generate();
        let hub_address = SocketAddr::new([198, 51, 100, 1].into(), 51820);
        let hub = Hub {
            name: "hub".to_owned(),
            endpoint: Endpoint { host: hub_address.ip().to_string(), port: hub_address.port() },
            public_key: key.public_key(),
            preshared_key: None,
            allowed_ips: vec![parse_net("10.77.0.0/16")],
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let sites: Vec<_> =
            (0..size).map(|number| Site::new(number, &hub, random.u64(..))).collect();
        let keys = sites.iter().map(|site| site.settings.private_key.public_key()).collect();
        let mut fleet = Self {
            sites,
            hub: LoadedHub::new(key, keys),
            hub_address,
            events: BinaryHeap::new(),
            scheduled: 0,
            random,
            started: Instant::now(),
            initiations: Vec::new(),
            process_at: None,
            out: SendBatch::new(),
            packets: PacketBuffer::new(),
        };
        for site in 0..size {
            let at = fleet.started + START_PERIOD.mul_f64(fleet.random.f64());
            fleet.schedule(at, site, Event::Start);
        }
        fleet.run_for(START_PERIOD + 5 * SECOND);
        let connected = fleet.sites.iter().filter(|site| site.connected_at.is_some()).count();
        assert_eq!(connected, size, "sites are connected");
        fleet
    }

    /// Stops the hub. Every site sends something within a second of that.
    pub(crate) fn stop_hub(&mut self) {
        self.hub.stop();
        self.process_at = None;
        let now = Instant::now();
        for site in 0..self.sites.len() {
            if let Some(site) = self.sites.get_mut(site) {
                site.connected_at = None;
            }
            let at = now + SECOND.mul_f64(self.random.f64());
            self.schedule(at, site, Event::Ping);
        }
    }

    /// Starts the hub and runs until every site has a session with it, but at most for `limit`.
    /// Returns how long that took.
    pub(crate) fn start_hub(&mut self, limit: Duration) -> ReturnTimes {
        self.hub.start();
        let start = Instant::now();
        while start.elapsed() < limit && self.sites.iter().any(|site| site.connected_at.is_none()) {
            self.run_for(SECOND);
        }
        let mut times = ReturnTimes { own_address: Vec::new(), shared_address: Vec::new() };
        for (number, site) in self.sites.iter().enumerate() {
            let took = site.connected_at.map_or(limit, |at| at.saturating_duration_since(start));
            let of = if is_behind_cgnat(number) {
                &mut times.shared_address
            } else {
                &mut times.own_address
            };
            of.push(took);
        }
        times.own_address.sort();
        times.shared_address.sort();
        times
    }

    /// Returns the initiations in each of the last `seconds`.
    pub(crate) fn initiations_of_last(&self, seconds: u64) -> Vec<u32> {
        let now = self.started.elapsed().as_secs();
        let second = |second: u64| usize::try_from(second).expect("seconds of a test");
        let get = |at| self.initiations.get(second(at)).copied().unwrap_or_default();
        (now - seconds..now).map(get).collect()
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, site, event))) = self.events.pop() else { break };
            clock::advance(at.saturating_duration_since(Instant::now()));
            self.run_event(site, event);
        }
        clock::advance(end.saturating_duration_since(Instant::now()));
    }

    fn schedule(&mut self, at: Instant, site: usize, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, site, event)));
    }

    fn run_event(&mut self, site: usize, event: Event) {
        match event {
            Event::Start => self.start_site(site),
            Event::Timer => self.run_timer(site),
            Event::Ping => self.ping(site),
            Event::AtHub(bytes) => self.deliver_to_hub(site, bytes),
            Event::AtSite(bytes) => self.deliver_to_site(site, &bytes),
            Event::Process => self.process_next(),
        }
    }

    fn start_site(&mut self, number: usize) {
        let site = &mut self.sites[number];
        let settings = site.settings.clone();
        site.tunnel = Some(Tunnel::site(settings, ClockBounds::default(), Now::read(), site.seed));
        let at = Instant::now() + PING_INTERVAL.mul_f64(self.random.f64());
        self.schedule(at, number, Event::Ping);
        self.with_site(number, |tunnel, now, out, _| tunnel.handle_timeout(now, out));
    }

    fn run_timer(&mut self, number: usize) {
        let now = Instant::now();
        let site = &mut self.sites[number];
        if site.timer_at == Some(now) {
            site.timer_at = None;
            self.with_site(number, |tunnel, now, out, _| tunnel.handle_timeout(now, out));
        }
    }

    /// Sends a packet to the hub, which sends it back.
    fn ping(&mut self, number: usize) {
        let packet = packet::ip_packet(parse_ip(SITE_TUNNEL_IP), parse_ip(HUB_TUNNEL_IP), 100, 0);
        self.with_site(number, |tunnel, now, out, _| tunnel.handle_packet(now, &packet, out));
        // A site whose hub is silent sends nothing more until there is a session.
        if self.sites[number].connected_at.is_some() {
            self.schedule(Instant::now() + PING_INTERVAL, number, Event::Ping);
        }
    }

    fn deliver_to_hub(&mut self, number: usize, bytes: Vec<u8>) {
        match bytes.first() {
            Some(&INITIATION) => {
                self.hub.queue_initiation(number, self.sites[number].address, bytes);
                self.schedule_processing();
            }
            Some(&DATA) => {
                let Some(mut packet) = self.hub.handle_data(number, &bytes) else { return };
                packet::swap_addresses(&mut packet);
                if let Some(answer) = self.hub.encrypt(number, &packet) {
                    self.schedule(Instant::now() + DELAY, number, Event::AtSite(answer));
                }
            }
            kind => panic!("a site sends no message of type {kind:?}"),
        }
    }

    fn schedule_processing(&mut self) {
        if self.process_at.is_none()
            && let Some(at) = self.hub.next_at()
        {
            self.process_at = Some(at);
            self.schedule(at, 0, Event::Process);
        }
    }

    fn process_next(&mut self) {
        if self.process_at.take_if(|at| *at == Instant::now()).is_none() {
            return;
        }
        if let Some((site, bytes)) = self.hub.process_next() {
            self.schedule(Instant::now() + DELAY, site, Event::AtSite(bytes));
        }
        self.schedule_processing();
    }

    fn deliver_to_site(&mut self, number: usize, bytes: &[u8]) {
        let from = self.hub_address;
        self.with_site(number, |tunnel, now, out, packets| {
            tunnel.handle_datagram(now, (from, bytes), out, packets);
        });
        if bytes.first() != Some(&RESPONSE) {
            return;
        }
        let now = Now::read();
        let site = &mut self.sites[number];
        let sessions =
            site.tunnel.as_ref().map_or(0, |tunnel| tunnel.report(now).counters.handshakes);
        if std::mem::replace(&mut site.sessions, sessions) < sessions && site.connected_at.is_none()
        {
            site.connected_at = Some(now.instant);
            let at = now.instant + PING_INTERVAL.mul_f64(self.random.f64());
            self.schedule(at, number, Event::Ping);
        }
    }

    fn with_site(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Tunnel, Now, &mut SendBatch, &mut PacketBuffer),
    ) {
        let now = Now::read();
        let Some(tunnel) = &mut self.sites[number].tunnel else { return };
        self.out.clear();
        self.packets.clear();
        act(tunnel, now, &mut self.out, &mut self.packets);
        while let Some(request) = tunnel.next_request() {
            assert_eq!(request, TunnelRequest::Rebind, "the hub has an address and no name");
        }
        let timer_at = tunnel.poll_timeout().map(|at| at.max(now.instant));
        let sent: Vec<_> = self.out.datagrams().map(|(_, bytes)| bytes.to_vec()).collect();
        for bytes in sent {
            if bytes.first() == Some(&INITIATION) {
                self.count_initiation();
            }
            self.schedule(now.instant + DELAY, number, Event::AtHub(bytes));
        }
        let site = &mut self.sites[number];
        if let Some(at) = timer_at.filter(|at| site.timer_at != Some(*at)) {
            site.timer_at = Some(at);
            self.schedule(at, number, Event::Timer);
        }
    }

    fn count_initiation(&mut self) {
        let second = usize::try_from(self.started.elapsed().as_secs()).expect("seconds of a test");
        if self.initiations.len() <= second {
            self.initiations.resize(second + 1, 0);
        }
        self.initiations[second] += 1;
    }
}

impl Site {
    fn new(number: usize, hub: &Hub, seed: u64) -> Self {
        let settings = Settings {
            private_key: PrivateKey::generate(),
            addresses: vec![parse_net(SITE_TUNNEL_IP)],
            mtu: 1280,
            keep_alive: Some(Duration::from_secs(25)),
            hubs: vec![hub.clone()],
        };
        let address = address_of(number);
        let (tunnel, timer_at, connected_at) = (None, None, None);
        Self { settings, address, seed, tunnel, timer_at, sessions: 0, connected_at }
    }
}

/// Returns the address from which the datagrams of a site seem to come.
fn address_of(number: usize) -> IpAddr {
    let (first, number) = if is_behind_cgnat(number) {
        (Ipv4Addr::new(100, 64, 0, 0), number / 4 % SHARED_ADDRESSES)
    } else {
        (Ipv4Addr::new(10, 0, 0, 0), number)
    };
    let number = u32::try_from(number).expect("fewer than 2^24 sites");
    Ipv4Addr::from_bits(first.to_bits() + number).into()
}

/// Returns whether a site shares its address with others.
const fn is_behind_cgnat(number: usize) -> bool {
    number.is_multiple_of(4)
}
