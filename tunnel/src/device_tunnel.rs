//! A tunnel with a network interface of the host.

mod device_loop;
mod own_datagrams;
mod reconciler;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::core::{Now, Tunnel, TunnelEvent, TunnelReport};
use crate::device::{InterfaceName, Offload, RouteError, Tun, TunError, tunnel_routes};
use crate::netlink::{HostInterface, InterfaceError};
use crate::settings::{RoutePolicy, Settings};
use crate::time::ClockCache;
use crate::transport::Transport;
use device_loop::DeviceLoop;
use reconciler::InterfaceReconciler;

/// Events that may wait for the driver.
const EVENT_QUEUE_LEN: usize = 16;

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
}

/// The task of a tunnel with a network interface.
#[derive(Debug)]
pub struct DeviceDriver<T> {
    device_loop: DeviceLoop<T, Tun>,
    reconciler: InterfaceReconciler,
    events: mpsc::Receiver<TunnelEvent>,
}

/// Creates the interface with its addresses and routes, and the task that drives it. Must be called
/// in a tokio runtime. The kernel removes everything with the driver, or with the process.
///
/// A network that this host reaches through another interface stays there, with a warning: sockets
/// that are bound to the tunnel's interface use the tunnel anyway, and PLCs must be read in any
/// case.
///
/// # Errors
/// Fails without CAP_NET_ADMIN, when the name is in use, and when a route would lead the hub's own
/// address into the tunnel.
pub fn open_device_tunnel<T: Transport>(
    settings: &Settings,
    policy: RoutePolicy,
    name: InterfaceName,
    mut tunnel: Tunnel,
    transport: T,
) -> Result<(DeviceTunnel, DeviceDriver<T>), DeviceError> {
    let networks: BTreeSet<IpNet> =
        settings.hubs.iter().flat_map(|hub| &hub.allowed_ips).copied().collect();
    let networks: Vec<IpNet> = networks.into_iter().collect();
    let known_hubs = settings.hubs.iter().filter_map(|hub| hub.endpoint.host.parse().ok());
    let known_hubs: Vec<IpAddr> = known_hubs.collect();
    let routes = match policy {
        RoutePolicy::Auto => tunnel_routes(&networks, &settings.addresses, &known_hubs)?,
        RoutePolicy::Off => Vec::new(),
    };
    let device = Tun::create(name, Offload::TcpAndUdp)?;
    let mut interface = HostInterface::new(device.index(), &settings.addresses, &routes)?;
    match interface.configure(settings.mtu) {
        Err(taken @ InterfaceError::RouteTaken(_)) => warn!("{taken}"),
        configured => configured?,
    }
    tunnel.set_host_routes(own_datagrams::host_routes(&routes, &settings.addresses));
    let clock = ClockCache::new(Now::at);
    let (device_loop, reports) = DeviceLoop::new(tunnel, clock, transport, device);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE_LEN);
    let reconciler = InterfaceReconciler::new(interface);
    let driver = DeviceDriver { device_loop, reconciler, events: event_queue };
    Ok((DeviceTunnel { events, reports }, driver))
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
}

impl<T: Transport> DeviceDriver<T> {
    /// Runs the tunnel until `stop` is ready or the last handle is dropped.
    ///
    /// # Errors
    /// Fails when the interface or the socket fails, for example because the interface was removed.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        tokio::select! {
            () = stop => Ok(()),
            ended = self.device_loop.run(&mut self.events) => ended,
            () = self.reconciler.run() => Ok(()),
        }
    }
}
