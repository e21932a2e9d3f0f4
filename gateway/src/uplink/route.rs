//! Direct, or through the tunnel in one of its two modes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use provisioning::config::HostPort;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tunnel::{InterfaceName, TunnelReport, UserspaceTunnel};

use super::{ByteStream, DialError, tcp};

/// How streams leave this process.
#[derive(Clone, Debug)]
pub enum Route {
    /// As the operating system routes.
    Direct,
    /// Through the tunnel's stack in this process.
    Userspace(UserspaceTunnel, TunnelHandle),
    /// Through the tunnel's device, and through nothing else.
    Device(InterfaceName, TunnelHandle),
}

/// What is known of the tunnel.
#[derive(Clone, Debug)]
pub struct TunnelHandle {
    report: watch::Receiver<TunnelReport>,
    /// What each hub leads to, by its name.
    networks: Arc<BTreeMap<String, Vec<IpNet>>>,
}

/// Sees the tunnel go over to another hub.
#[derive(Clone, Debug)]
pub struct HubChanges {
    /// Absent without a tunnel.
    report: Option<watch::Receiver<TunnelReport>>,
    /// The hub in use when this was looked at last.
    hub: String,
}

impl TunnelHandle {
    /// A tunnel with these hubs, which tells how it is by `report`.
    #[must_use]
    pub fn new(hubs: &[tunnel::Hub], report: watch::Receiver<TunnelReport>) -> Self {
        let networks = hubs.iter().map(|hub| (hub.name.clone(), hub.allowed_ips.clone())).collect();
        Self { report, networks: Arc::new(networks) }
    }

    /// Whether the hub in use leads there.
    fn routes_to(&self, address: IpAddr) -> bool {
        let networks = self.networks.get(&self.report.borrow().hub);
        networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// What is wrong with the tunnel, unless it has a session.
    fn no_session_error(&self) -> Option<DialError> {
        let report = self.report.borrow();
        let sentence = report.diagnosis.to_string();
        (!report.state.has_session()).then_some(DialError::NoTunnel { sentence })
    }
}

impl HubChanges {
    /// Ends when another hub is in use than when this was made, or than when this ended last. Never
    /// ends without a tunnel. Cancel safe.
    pub async fn changed(&mut self) {
        let Self { report: Some(report), hub } = self else { return std::future::pending().await };
        let Ok(report) = report.wait_for(|report| report.hub != *hub).await else {
            // The tunnel ends with the process.
            return std::future::pending().await;
        };
        hub.clone_from(&report.hub);
    }
}

impl Route {
    pub(super) async fn dial(
        &self,
        at: &HostPort,
        deadline: Instant,
    ) -> Result<Box<dyn ByteStream>, DialError> {
        match self {
            Self::Direct => {
                let addresses = resolve(at, deadline).await?;
                let connect = |address| tcp::connect(address, None);
                Ok(Box::new(connect_first(at, &addresses, deadline, connect).await?))
            }
            Self::Device(interface, tunnel) => {
                let addresses = addresses_behind_hub(at, deadline, tunnel).await?;
                let connect = |address| tcp::connect(address, Some(*interface));
                let stream = connect_first(at, &addresses, deadline, connect).await;
                Ok(Box::new(stream.map_err(|error| tunnel.no_session_error().unwrap_or(error))?))
            }
            Self::Userspace(stack, tunnel) => {
                let addresses = addresses_behind_hub(at, deadline, tunnel).await?;
                let connect = |address| stack.connect(address);
                let stream = connect_first(at, &addresses, deadline, connect).await;
                Ok(Box::new(stream.map_err(|error| tunnel.no_session_error().unwrap_or(error))?))
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

/// The addresses of a broker that the hub in use leads to.
async fn addresses_behind_hub(
    at: &HostPort,
    deadline: Instant,
    tunnel: &TunnelHandle,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses = resolve(at, deadline).await?;
    addresses.retain(|address| tunnel.routes_to(address.ip()));
    if addresses.is_empty() {
        let hub = tunnel.report.borrow().hub.clone();
        return Err(DialError::NotBehindHub { at: at.clone(), hub });
    }
    Ok(addresses)
}

/// All addresses of a name, in the resolver's order. Asked for every time, since they change.
async fn resolve(at: &HostPort, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let unresolved = |source| DialError::Unresolved { host: at.host.clone(), source };
    match timeout_at(deadline, lookup_host((at.host.as_str(), at.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(source)) => Err(unresolved(Some(source))),
        Err(_) => Err(unresolved(None)),
    }
}

/// The first connection that comes about. Every address is tried in the resolver's order.
async fn connect_first<S, C>(
    at: &HostPort,
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> C,
) -> Result<S, DialError>
where
    C: Future<Output = io::Result<S>>,
{
    let mut failure = DialError::Unresolved { host: at.host.clone(), source: None };
    for (address, limit) in addresses.iter().zip(attempt_deadlines(addresses.len(), deadline)) {
        match timeout_at(limit, connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = connect_error(at, error),
            Err(_) => failure = DialError::TimedOut { at: at.clone() },
        }
    }
    Err(failure)
}

/// Until when each of several attempts may last: equal shares of the time that is left, so that a
/// dead address does not use up the turn of the next.
fn attempt_deadlines(attempts: usize, deadline: Instant) -> impl Iterator<Item = Instant> {
    (1..=attempts).rev().map(move |left| {
        let now = Instant::now();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        now + deadline.saturating_duration_since(now) / left
    })
}

/// An attempt that ended by itself.
fn connect_error(at: &HostPort, source: io::Error) -> DialError {
    let at = at.clone();
    if source.kind() == ErrorKind::ConnectionRefused {
        DialError::Refused { at }
    } else if source.kind() == ErrorKind::TimedOut {
        DialError::TimedOut { at }
    } else {
        DialError::Unreachable { at, source }
    }
}
