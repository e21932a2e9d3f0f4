//! A tunnel with a network device: opens it, and drives it until it is told to stop.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::upkeep::InterfaceReconciler;
use super::{Engine, RunError, Want, run};
use crate::core::{DropReason, HubLookup, Now, Tunnel, TunnelEvent, TunnelReport, TunnelRequest};
use crate::device::{
    InterfaceName, Offload, PacketCoalescer, RouteError, Tun, TunError, containing_route,
    tunnel_routes,
};
use crate::netlink::{HostInterface, InterfaceError};
use crate::packet_buffer::PacketSink;
use crate::reporter::{Reporter, resolve};
use crate::settings::{RoutePolicy, Settings};
use crate::transport::{SendBatch, Transport};

/// Events that wait for the driver.
const EVENT_QUEUE_LEN: usize = 16;
/// Look-ups that the tunnel wants at once: one for each hub is enough.
const LOOKUP_QUEUE_LEN: usize = 16;
/// The wall clock is read again after this; in between it is reckoned. A step of it is noticed so
/// much later, and a packet costs one system call less.
const WALL_CLOCK_REFRESH: Duration = Duration::from_millis(250);

/// Why a tunnel has no network device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The device itself.
    #[error(transparent)]
    Device(#[from] TunError),
    /// Its addresses or routes.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A route that cannot be.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// A handle to a tunnel with a network device; cheap to clone. The tunnel ends when all are gone.
#[derive(Clone, Debug)]
pub struct DeviceTunnel {
    events: mpsc::Sender<TunnelEvent>,
    reports: watch::Receiver<TunnelReport>,
}

/// The task of a tunnel with a network device.
#[derive(Debug)]
pub struct DeviceDriver<P> {
    engine: Site,
    path: P,
    device: Tun,
    reconciler: InterfaceReconciler,
    events: mpsc::Receiver<TunnelEvent>,
    routes: Vec<IpNet>,
}

/// Makes the device with its addresses and routes, and the task that drives it. Has to be called
/// in a tokio runtime. Everything goes with the driver, or with the process.
///
/// A network that this host reaches by another way stays there and is warned of: what is bound to the
/// device goes into the tunnel all the same, and PLCs want to be read whatever became of the LAN.
///
/// # Errors
/// Fails without CAP_NET_ADMIN, when the name is taken, and when a route would take the hub itself
/// into the tunnel.
pub fn open_device_tunnel<P: Transport>(
    settings: &Settings,
    table: RoutePolicy,
    name: InterfaceName,
    tunnel: Tunnel,
    path: P,
) -> Result<(DeviceTunnel, DeviceDriver<P>), DeviceError> {
    let networks: BTreeSet<IpNet> =
        settings.hubs.iter().flat_map(|hub| &hub.allowed_ips).copied().collect();
    let networks: Vec<IpNet> = networks.into_iter().collect();
    let known = settings.hubs.iter().filter_map(|hub| hub.endpoint.host.parse().ok());
    let known: Vec<IpAddr> = known.collect();
    let routes = match table {
        RoutePolicy::Auto => tunnel_routes(&networks, &settings.addresses, &known)?,
        RoutePolicy::Off => Vec::new(),
    };
    let device = Tun::create(name, Offload::TcpAndUdp)?;
    let mut link = HostInterface::new(device.index(), &settings.addresses, &routes)?;
    match link.configure(settings.mtu) {
        Err(taken @ InterfaceError::RouteTaken(_)) => warn!("{taken}"),
        set_up => set_up?,
    }
    let now = Now::read();
    let (reporter, reports) = Reporter::new(&tunnel, now);
    let (events, inbox) = mpsc::channel(EVENT_QUEUE_LEN);
    let engine = Site { tunnel, reporter, read: now, last: now };
    let driver = DeviceDriver {
        engine,
        path,
        device,
        reconciler: InterfaceReconciler::new(link),
        events: inbox,
        routes,
    };
    Ok((DeviceTunnel { events, reports }, driver))
}

impl DeviceTunnel {
    /// Tells the tunnel what has happened outside. Does nothing when it has ended.
    pub async fn send_event(&self, event: TunnelEvent) {
        let _ = self.events.send(event).await;
    }

    /// How the tunnel is: at every change of state, and once a second while it is used.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<TunnelReport> {
        self.reports.clone()
    }
}

impl<P: Transport> DeviceDriver<P> {
    /// Carries everything until `stop` is ready or every handle is gone.
    ///
    /// # Errors
    /// Fails when the device or the socket does not work any more, for example because somebody
    /// has removed the device.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let (requests, mut asked) = mpsc::channel(LOOKUP_QUEUE_LEN);
        let (events, inbox) = mpsc::channel(EVENT_QUEUE_LEN);
        let driving = run(&mut self.engine, &mut self.path, &mut self.device, inbox, &requests);
        let relaying = relay(&mut self.events, &mut asked, &events, &self.routes);
        tokio::select! {
            () = stop => Ok(()),
            () = relaying => Ok(()),
            ended = driving => ended,
            () = self.reconciler.run() => Ok(()),
        }
    }
}

/// Brings events in and looks names up, until every handle is gone.
async fn relay(
    told: &mut mpsc::Receiver<TunnelEvent>,
    asked: &mut mpsc::Receiver<HubLookup>,
    events: &mpsc::Sender<TunnelEvent>,
    routes: &[IpNet],
) {
    let mut look_ups: JoinSet<(usize, Vec<SocketAddr>)> = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = told.recv() => match event {
                Some(event) => event,
                None => return,
            },
            Some(HubLookup { hub, endpoint }) = asked.recv() => {
                look_ups.spawn(async move { (hub, resolve(endpoint).await) });
                continue;
            }
            Some(Ok((hub, found))) = look_ups.join_next() => lookup_event(hub, found, routes),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// What a look-up comes to, without addresses inside the tunnel that datagrams to them carry.
fn lookup_event(hub: usize, mut addresses: Vec<SocketAddr>, routes: &[IpNet]) -> TunnelEvent {
    let found = addresses.len();
    addresses.retain(|address| {
        let inside = containing_route(routes, address.ip());
        if let Some(network) = inside {
            debug!(%address, %network, "an address of the hub lies inside the tunnel");
        }
        inside.is_none()
    });
    if addresses.is_empty() && found > 0 {
        TunnelEvent::ResolvedInsideTunnel { hub }
    } else {
        TunnelEvent::Resolved { hub, addresses }
    }
}

/// The core, as the driver sees it.
#[derive(Debug)]
struct Site {
    tunnel: Tunnel,
    reporter: Reporter,
    /// When both clocks were read last.
    read: Now,
    /// The last moment that was asked for: a batch has one for all of its packets.
    last: Now,
}

impl Site {
    fn now(&mut self, instant: Instant) -> Now {
        if instant == self.last.instant {
            return self.last;
        }
        let passed = instant.saturating_duration_since(self.read.instant);
        if passed >= WALL_CLOCK_REFRESH {
            self.read = Now::read();
        }
        let passed = instant.saturating_duration_since(self.read.instant);
        self.last = Now { instant, wall: self.read.wall + passed };
        self.last
    }
}

impl Engine for Site {
    type Event = TunnelEvent;
    type Command = HubLookup;

    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        outbox: &mut SendBatch,
        hostbound: &mut PacketCoalescer,
    ) {
        let now = self.now(now);
        self.tunnel.handle_datagram(now, (from, datagram), outbox, hostbound);
    }

    fn handle_refusal(&mut self, now: Instant, to: SocketAddr) {
        let now = self.now(now);
        self.tunnel.handle_event(now, TunnelEvent::PortUnreachable(to));
    }

    fn handle_move(&mut self, now: Instant) {
        let now = self.now(now);
        self.tunnel.handle_event(now, TunnelEvent::NetworkChanged);
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8], outbox: &mut SendBatch) {
        let now = self.now(now);
        self.tunnel.handle_packet(now, packet, outbox);
    }

    fn handle_timeout(&mut self, now: Instant, outbox: &mut SendBatch) {
        let now = self.now(now);
        self.tunnel.handle_timeout(now, outbox);
    }

    fn tell(&mut self, now: Instant) {
        let now = self.now(now);
        self.reporter.publish_if_due(&self.tunnel, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.tunnel.poll_timeout()
    }

    fn handle_event(&mut self, now: Instant, event: TunnelEvent) {
        let now = self.now(now);
        self.tunnel.handle_event(now, event);
    }

    fn next_command(&mut self) -> Option<Want<HubLookup>> {
        self.tunnel.next_request().map(|request| match request {
            TunnelRequest::Rebind => Want::Rebind,
            TunnelRequest::Resolve(look_up) => Want::Ask(look_up),
        })
    }

    fn handle_lost(&mut self, reason: DropReason, count: u64) {
        self.tunnel.add_dropped(reason, count);
    }
}

impl PacketSink for PacketCoalescer {
    fn reserve(&mut self, length: usize) -> &mut [u8] {
        Self::reserve(self, length)
    }

    fn commit(&mut self, length: usize) {
        Self::commit(self, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_names_addresses_only_those_outside_the_tunnel_are_used() {
        let routes = ["10.77.0.0/16".parse().unwrap()];
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (inside, outside) = (at("10.77.0.1:51820"), at("192.0.2.1:51820"));
        let resolved = |addresses| TunnelEvent::Resolved { hub: 1, addresses };
        assert_eq!(lookup_event(1, vec![inside, outside], &routes), resolved(vec![outside]));
        assert_eq!(
            lookup_event(1, vec![inside], &routes),
            TunnelEvent::ResolvedInsideTunnel { hub: 1 }
        );
        assert_eq!(lookup_event(1, vec![inside], &[]), resolved(vec![inside]));
        assert_eq!(lookup_event(1, Vec::new(), &routes), resolved(Vec::new()));
    }
}
