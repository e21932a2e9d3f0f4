//! Addresses, routes and the state of a network interface.

#[cfg(test)]
mod tests;

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;
use tracing::debug;

use super::NetlinkSocket;
use super::message::{NetlinkMessage, TUNNEL_METRIC};

/// Packets that may wait in the interface: the window of a fast stream on a link with a long delay.
/// With the default of 500, Firezone measured half the throughput.
const TX_QUEUE_LEN: u32 = 1000;

/// Why the kernel rejects a setting.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The process lacks the privilege.
    #[error("setting {0} needs the capability CAP_NET_ADMIN")]
    Denied(InterfaceSetting),
    /// The interface was removed.
    #[error("the network interface was removed")]
    Gone,
    /// The interface was taken down.
    #[error("the network interface is down")]
    Down,
    /// Another interface has that route, perhaps that of the machine network.
    #[error(
        "this host already reaches {0} through another interface, and the tunnel does not take it \
         over: use other networks in allowed_ips, or the mode \"userspace\", which needs no routes"
    )]
    RouteTaken(IpNet),
    /// IPv6 is disabled.
    #[error("cannot set {0}: IPv6 is switched off on this host")]
    NoIpv6(InterfaceSetting),
    /// Another error.
    #[error("cannot set {0}")]
    Failed(InterfaceSetting, #[source] io::Error),
}

/// A setting of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InterfaceSetting {
    /// The netlink socket itself.
    Netlink,
    /// The list of routes.
    Routes,
    /// MTU, queue length, and up.
    State,
    /// One of its addresses.
    Address(IpNet),
    /// A network that is routed to it.
    Route(IpNet),
}

/// A network interface of this host. The kernel removes all settings with the interface; dropping
/// this value changes nothing.
#[derive(Debug)]
pub(crate) struct HostInterface {
    socket: NetlinkSocket,
    index: u32,
    addresses: Vec<IpNet>,
    routes: Vec<IpNet>,
}

/// Whether something was missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repaired {
    Nothing,
    Something,
}

impl HostInterface {
    /// Opens a socket for the interface with that index.
    pub(crate) fn new(
        index: u32,
        addresses: &[IpNet],
        routes: &[IpNet],
    ) -> Result<Self, InterfaceError> {
        let socket = NetlinkSocket::open()
            .map_err(|errno| InterfaceError::Failed(InterfaceSetting::Netlink, errno.into()))?;
        let (addresses, routes) = (addresses.to_vec(), routes.to_vec());
        Ok(Self { socket, index, addresses, routes })
    }

    /// Takes the interface up with its MTU, addresses and routes. Can be repeated.
    pub(crate) fn configure(&mut self, mtu: u16) -> Result<(), InterfaceError> {
        // Otherwise it would send router solicitations into the tunnel, which cost data volume.
        if let Err(errno) = self.socket.execute(NetlinkMessage::disable_link_local(self.index)) {
            debug!(error = errno.desc(), "cannot disable link-local addresses");
        }
        // Before the routes: the kernel rejects a route through an interface that is down.
        let state = NetlinkMessage::set_link_state(self.index, mtu, TX_QUEUE_LEN);
        self.socket
            .execute(state)
            .map_err(|errno| interface_error(InterfaceSetting::State, errno))?;
        self.repair().map(drop)
    }

    /// Sets missing addresses and routes: the kernel removes the routes of an interface that goes
    /// down. While nothing is missing, it changes nothing and causes no notification.
    ///
    /// Fails, after everything is set, for a network that this host reaches through another
    /// interface. The tunnel's routes have the lowest priority and never take such a network over;
    /// only sockets that are bound to the interface use them.
    pub(crate) fn repair(&mut self) -> Result<Repaired, InterfaceError> {
        // Before setting anything, so that the tunnel's own routes are not mistaken for conflicts.
        let conflicts = self.conflicting_networks()?;
        let mut mended = Repaired::Nothing;
        for address in &self.addresses {
            match self.socket.execute(NetlinkMessage::add_address(self.index, *address)) {
                Ok(()) => mended = Repaired::Something,
                Err(Errno::EEXIST) => {}
                Err(errno) => {
                    return Err(interface_error(InterfaceSetting::Address(*address), errno));
                }
            }
        }
        for route in &self.routes {
            match self.socket.execute(NetlinkMessage::add_route(self.index, *route)) {
                Ok(()) => mended = Repaired::Something,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(interface_error(InterfaceSetting::Route(*route), errno)),
            }
        }
        conflicts.first().map_or(Ok(mended), |network| Err(InterfaceError::RouteTaken(*network)))
    }

    /// Returns the tunnel's networks that this host reaches through another interface. The kernel
    /// accepts a second route to a network if its metric differs.
    fn conflicting_networks(&mut self) -> Result<Vec<IpNet>, InterfaceError> {
        let routes = self
            .socket
            .dump_routes()
            .map_err(|errno| InterfaceError::Failed(InterfaceSetting::Routes, errno.into()))?;
        let networks = self.addresses.iter().map(IpNet::trunc).chain(self.routes.iter().copied());
        let is_taken = |network: &IpNet| {
            routes.iter().any(|route| {
                route.to == *network
                    && route.device != Some(self.index)
                    && route.metric <= TUNNEL_METRIC
            })
        };
        Ok(networks.filter(is_taken).collect())
    }
}

fn interface_error(setting: InterfaceSetting, errno: Errno) -> InterfaceError {
    let is_v6 = match setting {
        InterfaceSetting::Address(net) | InterfaceSetting::Route(net) => net.addr().is_ipv6(),
        InterfaceSetting::Netlink | InterfaceSetting::Routes | InterfaceSetting::State => false,
    };
    match (errno, is_v6) {
        (Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, true) => {
            InterfaceError::NoIpv6(setting)
        }
        (Errno::EPERM | Errno::EACCES, _) => InterfaceError::Denied(setting),
        (Errno::ENODEV, _) => InterfaceError::Gone,
        (Errno::ENETDOWN, _) => InterfaceError::Down,
        (errno, _) => InterfaceError::Failed(setting, errno.into()),
    }
}

impl std::fmt::Display for InterfaceSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netlink => f.write_str("up a network interface"),
            Self::Routes => f.write_str("routes without the list of existing routes"),
            Self::State => f.write_str("the MTU and the state of the network interface"),
            Self::Address(address) => write!(f, "the address {address}"),
            Self::Route(route) => write!(f, "the route to {route}"),
        }
    }
}
