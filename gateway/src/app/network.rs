//! How the gateway reaches the broker and how it is reached: sockets of this machine, and the
//! tunnel in one of its two modes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use provisioning::config::{self, Config, Listen, TunnelMode, Via};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{
    DeviceTunnel, InterfaceName, LocalPort, Now, RoutePolicy, Tunnel, TunnelEvent, TunnelReport,
    UdpTransport, UserspaceTunnel, bind_to_device,
};

use super::{AppError, hub_cache};
use crate::clock::{self, ClockAssessment};
use crate::supervise::Stage;
use crate::uplink::{Route, TunnelHandle, Uplink};
use crate::web;

/// Name of the tunnel's network device.
const INTERFACE_NAME: &str = "edge0";
/// Connections that wait to be accepted.
const LISTEN_BACKLOG: u32 = 16;

/// Everything that leads out and in.
pub(super) struct Network {
    /// The way to the brokers.
    pub(super) uplink: Uplink,
    /// How the tunnel is, if there is one.
    pub(super) tunnel: Option<watch::Receiver<TunnelReport>>,
    /// How far the clock can be believed.
    pub(super) clock: watch::Receiver<ClockAssessment>,
    listeners: Vec<MetricsListener>,
    stage: Stage,
}

/// A listener for /metrics and its kind.
enum MetricsListener {
    Socket(TcpListener),
    Tunnel(web::TunnelListener),
}

/// A handle to a running tunnel.
#[derive(Clone)]
enum RunningTunnel {
    Userspace(UserspaceTunnel),
    Device(DeviceTunnel, InterfaceName),
}

impl Network {
    /// Opens the tunnel and every listener.
    pub(super) async fn open(config: &Config, fatal: &CancellationToken) -> Result<Self, AppError> {
        let stage = Stage::new("reach");
        let judgement = clock::assess(&config.gateway.state_dir);
        let (told, clock) = watch::channel(judgement);
        let running = match &config.tunnel {
            Some(tunnel) => Some(start_tunnel(config, tunnel, judgement, &stage, fatal)?),
            None => None,
        };
        let state_dir = config.gateway.state_dir.clone();
        stage.spawn(fatal.clone(), |stop| watch_clock(state_dir, told, running.clone(), stop));
        let mut entrances = Vec::new();
        for &listen in &config.metrics.listen {
            let entrance = open_listener(listen, running.as_ref(), config.tunnel.as_ref()).await;
            entrances.push(entrance.map_err(|source| AppError::Listen { listen, source })?);
        }
        let tunnel = running.as_ref().map(RunningTunnel::reports);
        let way = broker_route(config, running);
        let uplink = Uplink::new(way, config.mqtt.tls.clone());
        Ok(Self { uplink, tunnel, clock, listeners: entrances, stage })
    }

    /// Serves the router at every entrance.
    pub(super) fn serve(&mut self, router: &Router, serving: &Stage, fatal: &CancellationToken) {
        for entrance in self.listeners.drain(..) {
            let router = router.clone();
            match entrance {
                MetricsListener::Socket(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
                MetricsListener::Tunnel(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
            }
        }
    }

    /// Says goodbye, last of all.
    pub(super) fn into_stage(self) -> Stage {
        self.stage
    }
}

fn broker_route(config: &Config, running: Option<RunningTunnel>) -> Route {
    let (Some(running), Some(tunnel), Via::Tunnel) = (running, &config.tunnel, config.mqtt.via)
    else {
        return Route::Direct;
    };
    let known = TunnelHandle::new(&tunnel.settings.hubs, running.reports());
    match running {
        RunningTunnel::Userspace(stack) => Route::Userspace(stack, known),
        RunningTunnel::Device(_, interface) => Route::Device(interface, known),
    }
}

/// Starts the tunnel's task.
fn start_tunnel(
    config: &Config,
    tunnel: &config::Tunnel,
    judgement: ClockAssessment,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<RunningTunnel, AppError> {
    let settings = tunnel.settings.clone();
    let (seed, now) = (fastrand::u64(..), Now::read());
    let mut site = Tunnel::site(settings, clock::tunnel_bounds(judgement), now, seed);
    let file = hub_cache::state_file(&config.gateway.state_dir);
    let known = hub_cache::load(&file);
    for event in hub_cache::resolved_events(tunnel, &known) {
        site.handle_event(now, event);
    }
    let path = UdpTransport::bind(LocalPort::Any).map_err(AppError::UdpSocket)?;
    let running = spawn_tunnel(tunnel, site, path, seed, stage, fatal)?;
    let (hubs, reports) = (tunnel.settings.hubs.clone(), running.reports());
    stage.spawn(fatal.clone(), |stop| {
        hub_cache::store_on_handshake(file, hubs, known, reports, stop)
    });
    Ok(running)
}

fn spawn_tunnel(
    tunnel: &config::Tunnel,
    site: Tunnel,
    path: UdpTransport,
    seed: u64,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<RunningTunnel, AppError> {
    match tunnel.mode {
        TunnelMode::Userspace => {
            let (stack, driver) = tunnel::userspace_tunnel(site, path, seed);
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "the tunnel has ended");
                }
            });
            Ok(RunningTunnel::Userspace(stack))
        }
        TunnelMode::Tun => {
            let name: InterfaceName = INTERFACE_NAME.parse()?;
            let opened =
                tunnel::open_device_tunnel(&tunnel.settings, RoutePolicy::Auto, name, site, path)?;
            let (device, driver) = opened;
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the tunnel has ended");
                }
            });
            Ok(RunningTunnel::Device(device, name))
        }
    }
}

async fn open_listener(
    listen: Listen,
    running: Option<&RunningTunnel>,
    tunnel: Option<&config::Tunnel>,
) -> io::Result<MetricsListener> {
    match (listen, running) {
        (Listen::Address(address), _) => {
            TcpListener::bind(address).await.map(MetricsListener::Socket)
        }
        (Listen::Tunnel(port), Some(RunningTunnel::Userspace(stack))) => {
            let listener = stack.listen(port).await?;
            Ok(MetricsListener::Tunnel(web::TunnelListener(listener)))
        }
        (Listen::Tunnel(port), Some(RunningTunnel::Device(_, interface))) => {
            let address = tunnel.and_then(|tunnel| tunnel.settings.addresses.first());
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?.addr();
            listen_on_device((address, port).into(), *interface).map(MetricsListener::Socket)
        }
        // The configuration has been checked: there is a tunnel.
        (Listen::Tunnel(_), None) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Linux takes packets for an address of its own on any device, so the socket is bound to the
/// tunnel's: nothing answers on the machine's network.
fn listen_on_device(address: SocketAddr, interface: InterfaceName) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    bind_to_device(&socket, interface)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Watches the clock, and tells the tunnel.
async fn watch_clock(
    state_dir: PathBuf,
    told: watch::Sender<ClockAssessment>,
    running: Option<RunningTunnel>,
    stop: CancellationToken,
) {
    let tell = |bounds| {
        let running = running.clone();
        async move {
            if let Some(running) = running {
                running.send_event(TunnelEvent::ClockBoundsChanged(bounds)).await;
            }
        }
    };
    clock::watch(&state_dir, told, tell, stop).await;
}

impl RunningTunnel {
    fn reports(&self) -> watch::Receiver<TunnelReport> {
        match self {
            Self::Userspace(stack) => stack.reports(),
            Self::Device(device, _) => device.reports(),
        }
    }

    async fn send_event(&self, event: TunnelEvent) {
        match self {
            // A tunnel that has ended takes the process with it.
            Self::Userspace(stack) => drop(stack.send_event(event).await),
            Self::Device(device, _) => device.send_event(event).await,
        }
    }
}
