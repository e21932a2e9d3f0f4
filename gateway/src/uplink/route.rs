//! The route to a broker: direct, or through the tunnel in one of its two modes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use provisioning::config::HostPort;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tunnel::{InterfaceIndex, TunnelReport, UserspaceTunnel, bind_to_interface};

use super::{ByteStream, DialError};
use crate::model::{Sentence, UntrustedText};

/// A connection is probed after this long without traffic. TCP keepalive backs up that of MQTT,
/// which the configuration may switch off.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time without anything from the hub after which a failure is the tunnel's rather than the
/// broker's: longer than a round trip, and shorter than the 10 s within which a hub answers data.
const UNANSWERED_AFTER: Duration = Duration::from_secs(3);
/// Time between probes; Linux drops the connection by default after nine without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How connections leave this process.
#[derive(Clone, Debug)]
pub enum Route {
    /// As the operating system routes.
    Direct,
    /// Through the tunnel's TCP stack in this process.
    Userspace(UserspaceTunnel, TunnelHandle),
    /// Through the tunnel's network interface, once it exists, and through no other.
    Device(watch::Receiver<Option<InterfaceIndex>>, TunnelHandle),
}

/// The state of the tunnel, and the networks behind each hub.
#[derive(Clone, Debug)]
pub struct TunnelHandle {
    report: watch::Receiver<TunnelReport>,
    /// By the name of the hub.
    networks: Arc<BTreeMap<String, Vec<IpNet>>>,
}

/// Watches which hub the tunnel uses.
#[derive(Clone, Debug)]
pub struct HubChanges {
    /// Absent without a tunnel.
    report: Option<watch::Receiver<TunnelReport>>,
    /// The hub in use at the last look.
    hub: String,
}

impl TunnelHandle {
    /// Describes a tunnel with these hubs, which publishes its state in `report`.
    #[must_use]
    pub fn new(hubs: &[tunnel::Hub], report: watch::Receiver<TunnelReport>) -> Self {
        let networks = hubs.iter().map(|hub| (hub.name.clone(), hub.allowed_ips.clone())).collect();
        Self { report, networks: Arc::new(networks) }
    }

    /// Returns whether the address is in an allowed network of the hub in use.
    fn routes_to(&self, address: IpAddr) -> bool {
        let networks = self.networks.get(&self.report.borrow().hub);
        networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Returns the tunnel's own diagnosis if it carries no data: it explains a failure better than
    /// the time-out of a connection does.
    fn fault(&self) -> Option<DialError> {
        let report = self.report.borrow();
        if !report.state.carries_data() {
            let Sentence { text, detail } = Sentence::new(&report.diagnosis);
            return Some(DialError::NoTunnel { text, tunnel: detail });
        }
        let unanswered = report.unanswered_since.map(|since| since.elapsed());
        let unanswered = unanswered.filter(|unanswered| *unanswered >= UNANSWERED_AFTER)?;
        Some(DialError::TunnelUnanswered { hub: report.hub.clone(), seconds: unanswered.as_secs() })
    }
}

impl TunnelHandle {
    /// Returns the fault of the tunnel in place of an error that it explains.
    fn explain(&self, error: DialError) -> DialError {
        // Only a broker or its host refuses, through a tunnel that works.
        let is_refusal = matches!(error, DialError::Refused { .. });
        if is_refusal && self.report.borrow().state.carries_data() {
            return error;
        }
        self.fault().unwrap_or(error)
    }
}

impl HubChanges {
    /// Waits until the tunnel carries data again after it did not. Never returns without a tunnel.
    /// Cancel safe.
    pub async fn recovered(&mut self) {
        let Self { report: Some(report), .. } = self else { return std::future::pending().await };
        for carries_data in [false, true] {
            let is_reached = |report: &TunnelReport| report.state.carries_data() == carries_data;
            if report.wait_for(is_reached).await.is_err() {
                // The sender is dropped when the process stops.
                return std::future::pending().await;
            }
        }
    }

    /// Waits until another hub is in use than at the last look. Never returns without a tunnel.
    /// Cancel safe.
    pub async fn changed(&mut self) {
        let Self { report: Some(report), hub } = self else { return std::future::pending().await };
        let Ok(report) = report.wait_for(|report| report.hub != *hub).await else {
            // The sender is dropped when the process stops: no more changes.
            return std::future::pending().await;
        };
        hub.clone_from(&report.hub);
    }
}

impl Route {
    /// Returns the fault of the tunnel that explains why nothing comes back from a broker.
    pub(super) fn fault(&self) -> Option<DialError> {
        match self {
            Self::Direct => None,
            Self::Userspace(_, tunnel) | Self::Device(_, tunnel) => tunnel.fault(),
        }
    }

    pub(super) async fn dial(
        &self,
        broker: &HostPort,
        deadline: Instant,
    ) -> Result<Box<dyn ByteStream>, DialError> {
        match self {
            Self::Direct => {
                let addresses = resolve(broker, deadline).await?;
                let connect = |address| connect_tcp(address, None);
                Ok(Box::new(connect_first(broker, &addresses, deadline, connect).await?))
            }
            Self::Device(interface, tunnel) => {
                let addresses = addresses_behind_hub(broker, deadline, tunnel).await?;
                let connect = |address| connect_through(interface, address);
                let stream = connect_first(broker, &addresses, deadline, connect).await;
                Ok(Box::new(stream.map_err(|error| tunnel.explain(error))?))
            }
            Self::Userspace(stack, tunnel) => {
                let addresses = addresses_behind_hub(broker, deadline, tunnel).await?;
                let connect = |address| stack.connect(address);
                let stream = connect_first(broker, &addresses, deadline, connect).await;
                Ok(Box::new(stream.map_err(|error| tunnel.explain(error))?))
            }
        }
    }

    pub(super) fn hub_changes(&self) -> HubChanges {
        match self {
            Self::Direct => HubChanges { report: None, hub: String::new() },
            Self::Userspace(_, tunnel) | Self::Device(_, tunnel) => {
                let report = tunnel.report.clone();
                let hub = report.borrow().hub.clone();
                HubChanges { report: Some(report), hub }
            }
        }
    }
}

/// Returns the addresses of a broker that are behind the hub in use.
async fn addresses_behind_hub(
    broker: &HostPort,
    deadline: Instant,
    tunnel: &TunnelHandle,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses = resolve(broker, deadline).await?;
    // Any other address would be reached past the tunnel, or not at all.
    addresses.retain(|address| tunnel.routes_to(address.ip()));
    if addresses.is_empty() {
        let hub = tunnel.report.borrow().hub.clone();
        return Err(DialError::NotBehindHub { broker: broker.to_string(), hub });
    }
    Ok(addresses)
}

/// Returns all addresses of a name, in the resolver's order. Every dial resolves again, because
/// addresses change.
async fn resolve(broker: &HostPort, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    match timeout_at(deadline, lookup_host((broker.host.as_str(), broker.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(_)) | Err(_) => Err(unresolved(broker)),
    }
}

fn unresolved(broker: &HostPort) -> DialError {
    DialError::Unresolved { host: broker.host.clone() }
}

/// Opens a TCP connection through an interface; fails before it exists.
async fn connect_through(
    interface: &watch::Receiver<Option<InterfaceIndex>>,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    // Without this check the connection would leave by any route.
    let interface = interface.borrow().ok_or(ErrorKind::NetworkDown)?;
    connect_tcp(address, Some(interface)).await
}

/// Opens a TCP connection, through `interface` only if there is one.
pub(super) async fn connect_tcp(
    address: SocketAddr,
    interface: Option<InterfaceIndex>,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(interface) = interface {
        // Linux would send over any other route that matches, past the tunnel and unencrypted.
        bind_to_interface(&socket, interface)?;
    }
    let stream = socket.connect(address).await?;
    // Nagle's algorithm (RFC 896) would hold a message back until the last one is acknowledged.
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    Ok(stream)
}

/// Returns the first connection that is accepted. Tries the addresses in the resolver's order.
async fn connect_first<S, C>(
    broker: &HostPort,
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> C,
) -> Result<S, DialError>
where
    C: Future<Output = io::Result<S>>,
{
    let mut failure = unresolved(broker);
    for (address, limit) in addresses.iter().zip(attempt_deadlines(addresses.len(), deadline)) {
        match timeout_at(limit, connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = connect_error(broker, &error),
            Err(_) => failure = DialError::TimedOut { broker: broker.to_string() },
        }
    }
    Err(failure)
}

/// Returns when each of several attempts times out: equal shares of the remaining time, so that one
/// dead address does not use up the time of the next.
fn attempt_deadlines(attempts: usize, deadline: Instant) -> impl Iterator<Item = Instant> {
    (1..=attempts).rev().map(move |left| {
        let now = Instant::now();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        now + deadline.saturating_duration_since(now) / left
    })
}

fn connect_error(address: &HostPort, error: &io::Error) -> DialError {
    let broker = address.to_string();
    if error.kind() == ErrorKind::ConnectionRefused {
        DialError::Refused { broker, port: address.port }
    } else if error.kind() == ErrorKind::TimedOut {
        DialError::TimedOut { broker }
    } else if is_out_of_connections(error) {
        DialError::OutOfConnections { broker, cause: UntrustedText::of(error) }
    } else {
        DialError::Unreachable { broker, cause: UntrustedText::of(error) }
    }
}

/// Returns whether a limit of this process, of its tunnel or of the machine is reached (errno(3)).
fn is_out_of_connections(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.kind() == ErrorKind::ResourceBusy
        || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
