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
use tunnel::wg_quick::Table;
use tunnel::{
    DeviceTunnel, Event, InterfaceName, LocalPort, Now, Report, Tunnel, UdpPath, Userspace,
    bind_to_device,
};

use super::{AppError, hubs};
use crate::clock::{self, Judgement};
use crate::supervise::Stage;
use crate::uplink::{Tunnelled, Uplink, Way};
use crate::web;

/// Name of the tunnel's network device.
const DEVICE: &str = "edge0";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 16;

/// Everything that leads out and in.
pub(super) struct Reach {
    /// The way to the brokers.
    pub(super) uplink: Uplink,
    /// How the tunnel is, if there is one.
    pub(super) tunnel: Option<watch::Receiver<Report>>,
    /// How far the clock can be believed.
    pub(super) clock: watch::Receiver<Judgement>,
    entrances: Vec<Entrance>,
    stage: Stage,
}

/// A listener for /metrics and its kind.
enum Entrance {
    Socket(TcpListener),
    Tunnel(web::InTunnel),
}

/// A handle to a running tunnel.
#[derive(Clone)]
enum Running {
    Userspace(Userspace),
    Device(DeviceTunnel, InterfaceName),
}

impl Reach {
    /// Opens the tunnel and every listener.
    pub(super) async fn open(config: &Config, fatal: &CancellationToken) -> Result<Self, AppError> {
        let stage = Stage::new("reach");
        let judgement = clock::judge(&config.gateway.state_dir);
        let (told, clock) = watch::channel(judgement);
        let running = match &config.tunnel {
            Some(tunnel) => Some(start(config, tunnel, judgement, &stage, fatal)?),
            None => None,
        };
        let state_dir = config.gateway.state_dir.clone();
        stage.spawn(fatal.clone(), |stop| keep_clock(state_dir, told, running.clone(), stop));
        let mut entrances = Vec::new();
        for &listen in &config.metrics.listen {
            let entrance = enter(listen, running.as_ref(), config.tunnel.as_ref()).await;
            entrances.push(entrance.map_err(|source| AppError::Listen { listen, source })?);
        }
        let tunnel = running.as_ref().map(Running::reports);
        let way = way(config, running);
        let uplink = Uplink::new(way, config.mqtt.tls.clone());
        Ok(Self { uplink, tunnel, clock, entrances, stage })
    }

    /// Serves the router at every entrance.
    pub(super) fn serve(&mut self, router: &Router, serving: &Stage, fatal: &CancellationToken) {
        for entrance in self.entrances.drain(..) {
            let router = router.clone();
            match entrance {
                Entrance::Socket(listener) => {
                    serving.spawn(fatal.clone(), |stop| web::serve(listener, router, stop));
                }
                Entrance::Tunnel(listener) => {
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

fn way(config: &Config, running: Option<Running>) -> Way {
    let (Some(running), Some(tunnel), Via::Tunnel) = (running, &config.tunnel, config.mqtt.via)
    else {
        return Way::Direct;
    };
    let known = Tunnelled::new(&tunnel.settings.hubs, running.reports());
    match running {
        Running::Userspace(stack) => Way::Userspace(stack, known),
        Running::Device(_, interface) => Way::Device(interface, known),
    }
}

/// Starts the tunnel's task.
fn start(
    config: &Config,
    tunnel: &config::Tunnel,
    judgement: Judgement,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<Running, AppError> {
    let settings = tunnel.settings.clone();
    let (seed, now) = (fastrand::u64(..), Now::read());
    let mut site = Tunnel::site(settings, clock::bounds(judgement), now, seed);
    let file = hubs::file(&config.gateway.state_dir);
    let known = hubs::load(&file);
    for event in hubs::events(tunnel, &known) {
        site.handle_event(now, event);
    }
    let path = UdpPath::bind(LocalPort::Any).map_err(AppError::Udp)?;
    let running = drive(tunnel, site, path, seed, stage, fatal)?;
    let (hubs, reports) = (tunnel.settings.hubs.clone(), running.reports());
    stage.spawn(fatal.clone(), |stop| hubs::keep(file, hubs, known, reports, stop));
    Ok(running)
}

fn drive(
    tunnel: &config::Tunnel,
    site: Tunnel,
    path: UdpPath,
    seed: u64,
    stage: &Stage,
    fatal: &CancellationToken,
) -> Result<Running, AppError> {
    match tunnel.mode {
        TunnelMode::Userspace => {
            let (stack, driver) = tunnel::userspace(site, path, seed);
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "the tunnel has ended");
                }
            });
            Ok(Running::Userspace(stack))
        }
        TunnelMode::Tun => {
            let name: InterfaceName = DEVICE.parse()?;
            let opened = tunnel::open(&tunnel.settings, Table::Auto, name, site, path)?;
            let (device, driver) = opened;
            stage.spawn(fatal.clone(), |stop| async move {
                if let Err(error) = driver.run(stop.cancelled_owned()).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the tunnel has ended");
                }
            });
            Ok(Running::Device(device, name))
        }
    }
}

async fn enter(
    listen: Listen,
    running: Option<&Running>,
    tunnel: Option<&config::Tunnel>,
) -> io::Result<Entrance> {
    match (listen, running) {
        (Listen::Address(address), _) => TcpListener::bind(address).await.map(Entrance::Socket),
        (Listen::Tunnel(port), Some(Running::Userspace(stack))) => {
            let listener = stack.listen(port).await?;
            Ok(Entrance::Tunnel(web::InTunnel(listener)))
        }
        (Listen::Tunnel(port), Some(Running::Device(_, interface))) => {
            let address = tunnel.and_then(|tunnel| tunnel.settings.addresses.first());
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?.addr();
            listen_at_device((address, port).into(), *interface).map(Entrance::Socket)
        }
        // The configuration has been checked: there is a tunnel.
        (Listen::Tunnel(_), None) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Linux takes packets for an address of its own on any device, so the socket is bound to the
/// tunnel's: nothing answers on the machine's network.
fn listen_at_device(address: SocketAddr, interface: InterfaceName) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    bind_to_device(&socket, interface)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Watches the clock, and tells the tunnel.
async fn keep_clock(
    state_dir: PathBuf,
    told: watch::Sender<Judgement>,
    running: Option<Running>,
    stop: CancellationToken,
) {
    let tell = |bounds| {
        let running = running.clone();
        async move {
            if let Some(running) = running {
                running.tell(Event::Clock(bounds)).await;
            }
        }
    };
    clock::keep(&state_dir, told, tell, stop).await;
}

impl Running {
    fn reports(&self) -> watch::Receiver<Report> {
        match self {
            Self::Userspace(stack) => stack.reports(),
            Self::Device(device, _) => device.reports(),
        }
    }

    async fn tell(&self, event: Event) {
        match self {
            // A tunnel that has ended takes the process with it.
            Self::Userspace(stack) => drop(stack.tell(event).await),
            Self::Device(device, _) => device.tell(event).await,
        }
    }
}
