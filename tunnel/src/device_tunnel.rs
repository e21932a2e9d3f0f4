//! A tunnel with a network interface of the host.

mod device_loop;
mod own_datagrams;
mod reconciler;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time;
use tracing::{info, warn};

use crate::core::{Now, Tunnel, TunnelDiagnosis, TunnelEvent, TunnelReport, TunnelState};
use crate::device::{
    InterfaceIndex, InterfaceName, Offload, RouteError, Tun, TunError, tunnel_routes,
};
use crate::netlink::{HostInterface, HostNetwork, InterfaceError};
use crate::reporter::Reporter;
use crate::settings::{Hub, RoutePolicy, Settings};
use crate::time::ClockCache;
use crate::transport::Transport;
use device_loop::DeviceLoop;
use reconciler::InterfaceReconciler;

/// Events that may wait for the driver.
const EVENT_QUEUE_LEN: usize = 16;
/// Pause before another attempt to create the interface.
const OPEN_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Why a tunnel has no network interface.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The TUN device could not be created.
    #[error(transparent)]
    Device(#[from] TunError),
    /// Its addresses or routes could not be set.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A network must not be routed into the tunnel.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// Why a running tunnel has ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The network interface was removed, or it failed.
    #[error("the network interface of the tunnel has failed")]
    Device(#[source] io::Error),
    /// The socket failed.
    #[error("the socket of the tunnel has failed")]
    Transport(#[source] io::Error),
}

/// A handle to a tunnel with a network interface; cheap to clone. The tunnel ends when the last
/// handle is dropped.
#[derive(Clone, Debug)]
pub struct DeviceTunnel {
    events: mpsc::Sender<TunnelEvent>,
    reports: watch::Receiver<TunnelReport>,
    interface: watch::Receiver<Option<InterfaceIndex>>,
}

/// The task of a tunnel with a network interface.
#[derive(Debug)]
pub struct DeviceDriver<T> {
    settings: Settings,
    policy: RoutePolicy,
    name: InterfaceName,
    tunnel: Tunnel,
    transport: T,
    reporter: Reporter,
    events: mpsc::Receiver<TunnelEvent>,
    /// Reports the state of the interface. Weak, because the tunnel ends with the last handle.
    own_events: mpsc::WeakSender<TunnelEvent>,
    has_interface: watch::Sender<Option<InterfaceIndex>>,
    opened: Option<(Tun, InterfaceReconciler)>,
}

/// Creates a handle and the task, which creates the interface with its addresses and routes. The
/// kernel removes everything with the task, or with the process.
///
/// A network that this host reaches through another interface stays there, with a warning, and so
/// does what else cannot be set: sockets that are bound to the tunnel's interface use the tunnel
/// anyway.
pub fn device_tunnel<T: Transport>(
    settings: &Settings,
    policy: RoutePolicy,
    name: InterfaceName,
    tunnel: Tunnel,
    transport: T,
) -> (DeviceTunnel, DeviceDriver<T>) {
    let (reporter, reports) = Reporter::new(&tunnel, Now::read());
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE_LEN);
    let (has_interface, interface) = watch::channel(None);
    let driver = DeviceDriver {
        settings: settings.clone(),
        policy,
        name,
        tunnel,
        transport,
        reporter,
        events: event_queue,
        own_events: events.downgrade(),
        has_interface,
        opened: None,
    };
    (DeviceTunnel { events, reports, interface }, driver)
}

impl DeviceTunnel {
    /// Tells the tunnel what has happened outside. Does nothing after the tunnel has ended.
    pub async fn send_event(&self, event: TunnelEvent) {
        let _ = self.events.send(event).await;
    }

    /// Returns the reports of the tunnel: one at each change of state, and at most one a second
    /// while it is in use.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<TunnelReport> {
        self.reports.clone()
    }

    /// Returns the interface; `None` before it exists.
    #[must_use]
    pub fn interface(&self) -> watch::Receiver<Option<InterfaceIndex>> {
        self.interface.clone()
    }
}

impl<T: Transport> DeviceDriver<T> {
    /// Creates the interface, if there is none yet. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Fails without CAP_NET_ADMIN, when the name is in use, and when a route would lead the hub's
    /// own address into the tunnel. Can be repeated.
    pub fn open(&mut self) -> Result<(), DeviceError> {
        if self.opened.is_some() {
            return Ok(());
        }
        let Settings { hubs, addresses, mtu, .. } = &self.settings;
        let routes = host_routes(hubs, addresses, self.policy)?;
        let device = Tun::create(self.name, Offload::TcpAndUdp)?;
        let mut interface = HostInterface::new(device.index(), addresses, &routes, *mtu)?;
        let repair = interface.configure()?;
        for conflict in HostNetwork::read().unwrap_or_default().conflicts(&routes) {
            warn!("{conflict}");
        }
        self.tunnel.set_host_routes(own_datagrams::host_routes(&routes, addresses));
        self.has_interface.send_replace(Some(InterfaceIndex(device.index())));
        let reconciler = InterfaceReconciler::new(interface, &repair, self.own_events.clone());
        self.opened = Some((device, reconciler));
        Ok(())
    }

    /// Runs the tunnel until `stop` is ready or the last handle is dropped. An interface that
    /// cannot be created is reported, and tried again every 10 s: PLCs must be read in any case.
    ///
    /// # Errors
    /// Fails when the interface or the socket fails, for example because the interface was removed.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let mut stop = std::pin::pin!(stop);
        let (device, mut reconciler) = loop {
            match self.open() {
                Ok(()) => {}
                Err(error) => self.report_no_interface(&error),
            }
            if let Some(opened) = self.opened.take() {
                break opened;
            }
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = time::sleep(OPEN_RETRY_PAUSE) => {}
            }
        };
        let Self { tunnel, transport, reporter, mut events, .. } = self;
        let clock = ClockCache::new(Now::at);
        let mut device_loop = DeviceLoop::new(tunnel, clock, transport, device, reporter);
        tokio::select! {
            () = stop => Ok(()),
            ended = device_loop.run(&mut events) => ended,
            () = reconciler.run() => Ok(()),
        }
    }

    fn report_no_interface(&mut self, error: &DeviceError) {
        let mut cause = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(source) = next {
            cause = format!("{cause}: {source}");
            next = source.source();
        }
        let diagnosis = TunnelDiagnosis::NoInterface { cause };
        let now = Now::read();
        let report = self.tunnel.report(now);
        let report = TunnelReport { state: TunnelState::NoInterface, diagnosis, ..report };
        self.reporter.publish(report, now);
    }
}

/// Returns the networks that the host is to route into the tunnel in `tun` mode. A network of a
/// family in which the tunnel has no address is left out: nothing could be sent there.
///
/// # Errors
/// Fails for networks that cover all addresses, and for one that contains a hub.
pub fn host_routes(
    hubs: &[Hub],
    addresses: &[IpNet],
    policy: RoutePolicy,
) -> Result<Vec<IpNet>, RouteError> {
    let networks: BTreeSet<IpNet> = hubs.iter().flat_map(|hub| &hub.allowed_ips).copied().collect();
    let networks: Vec<IpNet> = networks.into_iter().collect();
    let known_hubs = hubs.iter().filter_map(|hub| hub.endpoint.host.parse().ok());
    let known_hubs: Vec<IpAddr> = known_hubs.collect();
    let mut routes = match policy {
        RoutePolicy::Auto => tunnel_routes(&networks, addresses, &known_hubs)?,
        RoutePolicy::Off => Vec::new(),
    };
    routes.retain(|route| {
        let has_family = |address: &IpNet| address.addr().is_ipv4() == route.addr().is_ipv4();
        let is_useful = addresses.iter().any(has_family);
        if !is_useful {
            info!(%route, "not routed: the tunnel has no address of that family");
        }
        is_useful
    });
    Ok(routes)
}
