//! The network side of the gateway: the tunnel in one of its two modes, the route to the broker,
//! and the listeners for metrics.

use std::io;
use std::path::PathBuf;

use axum::Router;
use provisioning::config::{self, Config, Listen, TunnelMode, Via};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{
    DeviceTunnel, InterfaceName, LocalPort, Now, RoutePolicy, Tunnel, TunnelEvent, TunnelReport,
    UdpTransport, UserspaceTunnel,
};

use super::hub_cache::HubCache;
use super::watched_files::WatchedFiles;
use super::{AppError, tunnel_keys};
use crate::clock::{self, ClockAssessment};
use crate::supervise::Stage;
use crate::uplink::{Route, TunnelHandle, Uplink};
use crate::web;

/// Name of the network interface of the tunnel in `tun` mode.
const INTERFACE_NAME: &str = "edge0";

/// The tunnel, the route to the broker, and the metrics listeners that are not served yet.
pub(super) struct Network {
    /// How connections to a broker are opened.
    pub(super) uplink: Uplink,
    /// State and counters of the tunnel; `None` without one.
    pub(super) tunnel: Option<watch::Receiver<TunnelReport>>,
    /// How far the clock can be trusted.
    pub(super) clock: watch::Receiver<ClockAssessment>,
    listeners: Vec<MetricsListener>,
    stage: Stage,
}

/// A listener for `/metrics` and the other pages.
enum MetricsListener {
    Socket(TcpListener),
    Tunnel(web::TunnelListener),
    Interface(web::InterfaceListener),
}

/// A handle to a running tunnel.
#[derive(Clone)]
enum RunningTunnel {
    Userspace(UserspaceTunnel),
    Device(DeviceTunnel),
}

impl Network {
    /// Starts the tunnel and opens every listener.
    pub(super) async fn open(config: &Config, fatal: &CancellationToken) -> Result<Self, AppError> {
        let stage = Stage::new("network");
        let assessment = clock::assess(&config.gateway.state_dir);
        let (clock_changes, clock) = watch::channel(assessment);
        let running = match &config.tunnel {
            Some(tunnel) => Some(start_tunnel(config, tunnel, assessment, &stage, fatal)?),
            None => None,
        };
        let state_dir = config.gateway.state_dir.clone();
        stage.spawn(fatal.clone(), |stop| {
            watch_clock(state_dir, clock_changes, running.clone(), stop)
        });
        let mut listeners = Vec::new();
        for &listen in &config.metrics.listen {
            let listener = open_listener(listen, running.as_ref(), config.tunnel.as_ref()).await;
            listeners.push(listener.map_err(|source| AppError::Listen { listen, source })?);
        }
        let tunnel = running.as_ref().map(RunningTunnel::reports);
        let route = broker_route(config, running);
        let uplink = Uplink::new(route, config.mqtt.tls.clone());
        Ok(Self { uplink, tunnel, clock, listeners, stage })
    }

    /// Starts the task that cancels `restart` when the tunnel may come up with other keys.
    pub(super) fn follow_keys(
        &self,
        config: &Config,
        files: Option<WatchedFiles>,
        restart: CancellationToken,
        fatal: &CancellationToken,
    ) {
        if let (Some(tunnel), Some(reports), Some(files)) =
            (&config.tunnel, self.tunnel.clone(), files)
        {
            let settings = tunnel.settings.clone();
            self.stage.spawn(fatal.clone(), |stop| {
                tunnel_keys::follow(settings, files, reports, restart, stop)
            });
        }
    }

    /// Serves the router on every listener.
    pub(super) fn serve(&mut self, router: &Router, serving: &Stage, fatal: &CancellationToken) {
        for listener in self.listeners.drain(..) {
            let router = router.clone();
            match listener {
                MetricsListener::Socket(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
                MetricsListener::Tunnel(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
                MetricsListener::Interface(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
            }
        }
    }

    /// Returns the stage of the tunnel, to be drained last: everything else may still use it.
    pub(super) fn into_stage(self) -> Stage {
        self.stage
    }
}

fn broker_route(config: &Config, running: Option<RunningTunnel>) -> Route {
    let (Some(running), Some(tunnel), Via::Tunnel) = (running, &config.tunnel, config.mqtt.via)
    else {
        return Route::Direct;
    };
    let handle = TunnelHandle::new(&tunnel.settings.hubs, running.reports());
    match running {
        RunningTunnel::Userspace(stack) => Route::Userspace(stack, handle),
        RunningTunnel::Device(device) => Route::Device(device.interface(), handle),
    }
}

/// Starts the tunnel and the task that stores what it learns about its hubs.
fn start_tunnel(
    config: &Config,
    tunnel: &config::Tunnel,
    assessment: ClockAssessment,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<RunningTunnel, AppError> {
    let settings = &tunnel.settings;
    let (seed, now) = (fastrand::u64(..), Now::read());
    let mut client = Tunnel::site(settings.clone(), clock::tunnel_bounds(assessment), now, seed);
    let hub_cache = HubCache::load(&config.gateway.state_dir, settings.private_key.public_key());
    for event in hub_cache.events(tunnel) {
        client.handle_event(now, event);
    }
    let transport = UdpTransport::bind(LocalPort::Any).map_err(AppError::UdpSocket)?;
    let running = spawn_tunnel(tunnel, client, transport, seed, stage, fatal)?;
    let (hubs, reports) = (settings.hubs.clone(), running.reports());
    stage.spawn(fatal.clone(), |stop| hub_cache.follow(hubs, reports, stop));
    Ok(running)
}

fn spawn_tunnel(
    tunnel: &config::Tunnel,
    client: Tunnel,
    transport: UdpTransport,
    seed: u64,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<RunningTunnel, AppError> {
    match tunnel.mode {
        TunnelMode::Userspace => {
            let (stack, driver) = tunnel::userspace_tunnel(client, transport, seed);
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "the tunnel has ended");
                }
            });
            Ok(RunningTunnel::Userspace(stack))
        }
        TunnelMode::Tun => {
            let name: InterfaceName = INTERFACE_NAME.parse()?;
            let settings = &tunnel.settings;
            let (device, driver) =
                tunnel::device_tunnel(settings, RoutePolicy::Auto, name, client, transport);
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the tunnel has ended");
                }
            });
            Ok(RunningTunnel::Device(device))
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
        (Listen::Tunnel(port), Some(RunningTunnel::Device(device))) => {
            let address = tunnel.and_then(|tunnel| tunnel.settings.addresses.first());
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?.addr();
            let listener = web::InterfaceListener::new((address, port).into(), device.interface());
            Ok(MetricsListener::Interface(listener))
        }
        // The configuration was checked: `tunnel:PORT` needs a `[tunnel]` section.
        (Listen::Tunnel(_), None) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Watches the clock, and passes its bounds to the tunnel.
async fn watch_clock(
    state_dir: PathBuf,
    changes: watch::Sender<ClockAssessment>,
    running: Option<RunningTunnel>,
    stop: CancellationToken,
) {
    let send_bounds = |bounds| {
        let running = running.clone();
        async move {
            if let Some(running) = running {
                running.send_event(TunnelEvent::ClockBoundsChanged(bounds)).await;
            }
        }
    };
    clock::watch(&state_dir, changes, send_bounds, stop).await;
}

impl RunningTunnel {
    fn reports(&self) -> watch::Receiver<TunnelReport> {
        match self {
            Self::Userspace(stack) => stack.reports(),
            Self::Device(device) => device.reports(),
        }
    }

    async fn send_event(&self, event: TunnelEvent) {
        match self {
            // Sending fails only after the tunnel has ended, and its stage ends the process.
            Self::Userspace(stack) => drop(stack.send_event(event).await),
            Self::Device(device) => device.send_event(event).await,
        }
    }
}
