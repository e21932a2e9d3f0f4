//! A router with address translation between a site and its hub, with a simulated bad network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use tokio::net::UdpSocket;
use tokio::sync::mpsc as orders;

use crate::{Impairment, Namespace, NetworkConditions};

/// A test sends one command at a time.
const MAX_QUEUED_COMMANDS: usize = 8;

/// A router for one site, which uses it as the endpoint of its hub. Dropping it ends it.
///
/// It maps the site's port to another one, and to a new one when the site changes its port, as
/// routers with address translation do.
#[derive(Debug)]
pub struct Router {
    address: SocketAddr,
    orders: orders::Sender<RouterCommand>,
}

/// Datagrams of one direction so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DirectionCounts {
    /// Datagrams received by the router.
    pub received: u64,
    /// Datagrams dropped, including those of blocked ports.
    pub lost: u64,
    /// Datagrams forwarded twice.
    pub duplicated: u64,
    /// Copies forwarded with a flipped bit.
    pub corrupted: u64,
    /// Copies forwarded after a datagram that was received later.
    pub reordered: u64,
    /// Datagrams forwarded, by WireGuard's type minus one (whitepaper, 5.4): initiations,
    /// responses, cookie replies, data.
    pub kinds: [u64; 4],
}

impl DirectionCounts {
    /// Returns the forwarded initiations.
    #[must_use]
    pub const fn initiations(&self) -> u64 {
        self.kinds[0]
    }

    /// Returns the forwarded responses.
    #[must_use]
    pub const fn responses(&self) -> u64 {
        self.kinds[1]
    }

    /// Returns the forwarded packets and keepalives.
    #[must_use]
    pub const fn data(&self) -> u64 {
        self.kinds[3]
    }
}

/// Traffic of a router so far.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// From the site to the hub.
    pub up: DirectionCounts,
    /// From the hub to the site.
    pub down: DirectionCounts,
    /// Address of the site as seen by the hub.
    pub mapped: Option<SocketAddr>,
    /// Number of ports that the site has used.
    pub ports: usize,
}

#[derive(Debug)]
enum RouterCommand {
    RebindPort,
    BlockPort,
    SetConditions(NetworkConditions),
    ReportTraffic(mpsc::Sender<Traffic>),
}

impl Router {
    /// Starts it inside a namespace, where it listens at `at` for the site and forwards to `hub`.
    /// The seed decides which datagrams are impaired.
    ///
    /// # Panics
    /// When the address is taken, or the test does not run as root.
    #[must_use]
    pub fn start(
        namespace: &Namespace,
        (at, hub): (SocketAddr, SocketAddr),
        seed: u64,
        conditions: NetworkConditions,
    ) -> Self {
        let place = File::open(namespace.path()).expect("the namespace is there");
        let (orders, inbox) = orders::channel(MAX_QUEUED_COMMANDS);
        let (told, address) = mpsc::channel();
        thread::spawn(move || {
            // setns(2) moves only this thread, and the sockets that it opens.
            setns(place, CloneFlags::CLONE_NEWNET).expect("it is a network namespace");
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("a runtime can be made");
            let outcome = runtime.block_on(async {
                let site = UdpSocket::bind(at).await?;
                told.send(site.local_addr()?).expect("the test waits");
                RouterTask::new(site, hub, seed, conditions).run(inbox).await
            });
            outcome.unwrap_or_else(|error| panic!("the router at {at} broke: {error}"));
        });
        let address = address.recv().expect("the router starts");
        Self { address, orders }
    }

    /// Returns the address that the site uses as the endpoint of its hub.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Maps the site to another port, as after a restart of the router. Datagrams of the hub to the
    /// old port are lost.
    pub fn rebind_port(&self) {
        self.send_command(RouterCommand::RebindPort);
    }

    /// Blocks the port that the site uses now, or the first one that it will use, in both
    /// directions. Other ports of the site are forwarded.
    pub fn block_port(&self) {
        self.send_command(RouterCommand::BlockPort);
    }

    /// Changes the network for datagrams to come.
    pub fn set_conditions(&self, conditions: NetworkConditions) {
        self.send_command(RouterCommand::SetConditions(conditions));
    }

    /// Returns the traffic so far, after all earlier commands.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let (tell, told) = mpsc::channel();
        self.send_command(RouterCommand::ReportTraffic(tell));
        told.recv().expect("the router runs")
    }

    fn send_command(&self, order: RouterCommand) {
        self.orders.blocking_send(order).expect("the router runs");
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// State of one direction.
#[derive(Debug)]
struct DirectionState {
    impairment: Impairment,
    passed: DirectionCounts,
    /// Highest number of a forwarded datagram.
    last: u64,
}

/// A datagram in transit, the site's address, and its number in its direction.
struct DelayedDatagram {
    way: Direction,
    site: SocketAddr,
    number: u64,
    bytes: Vec<u8>,
}

struct RouterTask {
    site: UdpSocket,
    hub: SocketAddr,
    /// Address of the site and the socket mapped to it.
    mapped: Option<(SocketAddr, UdpSocket)>,
    seen: BTreeSet<SocketAddr>,
    forgotten: BTreeSet<SocketAddr>,
    forget_next: bool,
    up: DirectionState,
    down: DirectionState,
    under_way: BTreeMap<(Instant, u64), DelayedDatagram>,
    count: u64,
}

/// Events that the router waits for.
enum RouterEvent {
    FromSite(SocketAddr, usize),
    FromHub(usize),
    Order(Option<RouterCommand>),
    Due,
}

impl RouterTask {
    fn new(site: UdpSocket, hub: SocketAddr, seed: u64, conditions: NetworkConditions) -> Self {
        Self {
            site,
            hub,
            mapped: None,
            seen: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            forget_next: false,
            up: DirectionState::new(seed, conditions),
            down: DirectionState::new(seed.wrapping_add(1), conditions),
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    async fn run(mut self, mut inbox: orders::Receiver<RouterCommand>) -> io::Result<()> {
        let (mut from_site, mut from_hub) = (vec![0; 65_535], vec![0; 65_535]);
        loop {
            let due = self.under_way.keys().next().map(|(at, _)| *at);
            let event = tokio::select! {
                received = self.site.recv_from(&mut from_site) => {
                    let (length, from) = received?;
                    RouterEvent::FromSite(from, length)
                }
                length = receive(self.mapped.as_ref(), self.hub, &mut from_hub) => {
                    RouterEvent::FromHub(length?)
                }
                order = inbox.recv() => RouterEvent::Order(order),
                () = until(due) => RouterEvent::Due,
            };
            match event {
                RouterEvent::FromSite(from, length) => {
                    self.handle_from_site(from, &from_site[..length]);
                }
                RouterEvent::FromHub(length) => self.handle_from_hub(&from_hub[..length]),
                RouterEvent::Order(Some(order)) => self.handle_command(order).await?,
                RouterEvent::Order(None) => return Ok(()),
                RouterEvent::Due => {}
            }
            self.send_due().await?;
        }
    }

    fn handle_from_site(&mut self, site: SocketAddr, bytes: &[u8]) {
        if self.seen.insert(site) && std::mem::take(&mut self.forget_next) {
            self.forgotten.insert(site);
        }
        self.handle_datagram(Direction::Up, site, bytes);
    }

    fn handle_from_hub(&mut self, bytes: &[u8]) {
        if let Some((site, _)) = self.mapped {
            self.handle_datagram(Direction::Down, site, bytes);
        }
    }

    fn handle_datagram(&mut self, way: Direction, site: SocketAddr, bytes: &[u8]) {
        let is_forgotten = self.forgotten.contains(&site);
        let lane = self.direction_state(way);
        lane.passed.received += 1;
        let number = lane.passed.received;
        let copies = lane.impairment.pass(Instant::now(), bytes);
        if is_forgotten || copies.is_empty() {
            lane.passed.lost += 1;
            return;
        }
        lane.passed.duplicated += u64::from(copies.len() > 1);
        let spoiled = copies.iter().filter(|(_, copy)| copy != bytes).count();
        lane.passed.corrupted += u64::try_from(spoiled).expect("at most two");
        for (at, bytes) in copies {
            self.count += 1;
            self.under_way.insert((at, self.count), DelayedDatagram { way, site, number, bytes });
        }
    }

    async fn send_due(&mut self) -> io::Result<()> {
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > Instant::now() {
                break;
            }
            let DelayedDatagram { way, site, number, bytes } = entry.remove();
            self.direction_state(way).on_forwarded(number, &bytes);
            match way {
                Direction::Up => {
                    let (_, socket) = match self.mapped.take() {
                        Some(mapped) if mapped.0 == site => self.mapped.insert(mapped),
                        _ => self.mapped.insert((site, self.bind_port().await?)),
                    };
                    socket.send_to(&bytes, self.hub).await?;
                }
                Direction::Down => drop(self.site.send_to(&bytes, site).await?),
            }
        }
        Ok(())
    }

    /// Opens a new port towards the hub.
    async fn bind_port(&self) -> io::Result<UdpSocket> {
        UdpSocket::bind((self.site.local_addr()?.ip(), 0)).await
    }

    async fn handle_command(&mut self, order: RouterCommand) -> io::Result<()> {
        match order {
            RouterCommand::RebindPort => {
                if let Some((site, _)) = self.mapped {
                    self.mapped = Some((site, self.bind_port().await?));
                }
            }
            RouterCommand::BlockPort => match &self.mapped {
                Some((site, _)) => drop(self.forgotten.insert(*site)),
                None => self.forget_next = true,
            },
            RouterCommand::SetConditions(conditions) => {
                self.up.impairment.conditions = conditions;
                self.down.impairment.conditions = conditions;
            }
            RouterCommand::ReportTraffic(tell) => {
                let mapped = self.mapped.as_ref().map(|(_, socket)| socket.local_addr());
                let traffic = Traffic {
                    up: self.up.passed,
                    down: self.down.passed,
                    mapped: mapped.transpose()?,
                    ports: self.seen.len(),
                };
                // The test may have ended.
                let _ = tell.send(traffic);
            }
        }
        Ok(())
    }

    const fn direction_state(&mut self, way: Direction) -> &mut DirectionState {
        match way {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl DirectionState {
    fn new(seed: u64, conditions: NetworkConditions) -> Self {
        let impairment = Impairment::new(seed, conditions);
        Self { impairment, passed: DirectionCounts::default(), last: 0 }
    }

    /// Counts a forwarded datagram.
    fn on_forwarded(&mut self, number: u64, bytes: &[u8]) {
        self.passed.reordered += u64::from(number < self.last);
        self.last = self.last.max(number);
        let kind = bytes.first().and_then(|kind| usize::from(*kind).checked_sub(1));
        if let Some(count) = kind.and_then(|kind| self.passed.kinds.get_mut(kind)) {
            *count += 1;
        }
    }
}

/// Receives a datagram from the hub; waits forever while the site has no port.
async fn receive(
    mapped: Option<&(SocketAddr, UdpSocket)>,
    hub: SocketAddr,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some((_, socket)) = mapped else { return future::pending().await };
    loop {
        let (length, from) = socket.recv_from(buffer).await?;
        // A router with address translation drops datagrams from other sources.
        if from == hub {
            return Ok(length);
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => future::pending().await,
    }
}
