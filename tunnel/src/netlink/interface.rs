//! Addresses, routes and the state of a network device.

#[cfg(test)]
mod tests;

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;
use tracing::debug;

use super::NetlinkSocket;
use super::message::{NetlinkMessage, TUNNEL_METRIC};

/// Packets that wait in the device: a whole window of one fast stream over a long line. With the
/// usual 500, Firezone measured half the throughput.
const TX_QUEUE_LEN: u32 = 1000;

/// Why the host does not do what it was asked for.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The process may not.
    #[error("setting {0} needs the capability CAP_NET_ADMIN")]
    Denied(InterfaceSetting),
    /// Somebody has removed it.
    #[error("the network device is gone")]
    Gone,
    /// Somebody has taken it down.
    #[error("the network device is down")]
    Down,
    /// Another device has that route, perhaps the machine network.
    #[error(
        "this host reaches {0} by another way already, and the tunnel does not take it over: name \
         other networks in allowed_ips, or use the mode \"userspace\", which needs no routes"
    )]
    RouteTaken(IpNet),
    /// IPv6 is switched off.
    #[error("cannot set {0}: IPv6 is switched off on this host")]
    NoIpv6(InterfaceSetting),
    /// Something else.
    #[error("cannot set {0}")]
    Failed(InterfaceSetting, #[source] io::Error),
}

/// What was being set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InterfaceSetting {
    /// Talking to the kernel at all.
    Netlink,
    /// Which routes there are.
    Routes,
    /// MTU, length of the queue, and up.
    State,
    /// One of its addresses.
    Address(IpNet),
    /// A network that is reached through it.
    Route(IpNet),
}

/// A network device of this host, as others see it. Everything that is set here goes with the
/// device; dropping this changes nothing.
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
    /// Speaks of the device with that number.
    pub(crate) fn new(
        index: u32,
        addresses: &[IpNet],
        routes: &[IpNet],
    ) -> Result<Self, InterfaceError> {
        let asker = NetlinkSocket::open()
            .map_err(|errno| InterfaceError::Failed(InterfaceSetting::Netlink, errno.into()))?;
        let (addresses, routes) = (addresses.to_vec(), routes.to_vec());
        Ok(Self { socket: asker, index, addresses, routes })
    }

    /// Takes the device up, with its MTU, addresses and routes. May be repeated.
    pub(crate) fn configure(&mut self, mtu: u16) -> Result<(), InterfaceError> {
        // Else it would send router solicitations into the tunnel, each a paid packet.
        if let Err(errno) = self.socket.execute(NetlinkMessage::disable_link_local(self.index)) {
            debug!(error = errno.desc(), "cannot switch off link-local addresses");
        }
        let state = NetlinkMessage::set_link_state(self.index, mtu, TX_QUEUE_LEN);
        self.socket
            .execute(state)
            .map_err(|errno| interface_error(InterfaceSetting::State, errno))?;
        self.repair().map(drop)
    }

    /// Sets those addresses and routes that are not there; the kernel takes the routes of a device
    /// away that goes down. Changes nothing and is heard of by nobody while all are there.
    ///
    /// Fails for a network that this host reaches by another device, when everything is set, and never
    /// takes it over: routes of ours go behind whatever others there are, and only sockets that are
    /// bound to the device find them then.
    pub(crate) fn repair(&mut self) -> Result<Repaired, InterfaceError> {
        let taken = self.conflicting_networks()?;
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
        taken.first().map_or(Ok(mended), |network| Err(InterfaceError::RouteTaken(*network)))
    }

    /// Networks of ours that this host reaches by another device. The kernel takes a second route to
    /// a network as long as its metric is another.
    fn conflicting_networks(&mut self) -> Result<Vec<IpNet>, InterfaceError> {
        let routes = self
            .socket
            .dump_routes()
            .map_err(|errno| InterfaceError::Failed(InterfaceSetting::Routes, errno.into()))?;
        let own = self.addresses.iter().map(IpNet::trunc).chain(self.routes.iter().copied());
        let is_taken = |network: &IpNet| {
            routes.iter().any(|route| {
                route.to == *network
                    && route.device != Some(self.index)
                    && route.metric <= TUNNEL_METRIC
            })
        };
        Ok(own.filter(is_taken).collect())
    }
}

fn interface_error(step: InterfaceSetting, errno: Errno) -> InterfaceError {
    let is_v6 = match step {
        InterfaceSetting::Address(net) | InterfaceSetting::Route(net) => net.addr().is_ipv6(),
        InterfaceSetting::Netlink | InterfaceSetting::Routes | InterfaceSetting::State => false,
    };
    match (errno, is_v6) {
        (Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, true) => {
            InterfaceError::NoIpv6(step)
        }
        (Errno::EPERM | Errno::EACCES, _) => InterfaceError::Denied(step),
        (Errno::ENODEV, _) => InterfaceError::Gone,
        (Errno::ENETDOWN, _) => InterfaceError::Down,
        (errno, _) => InterfaceError::Failed(step, errno.into()),
    }
}

impl std::fmt::Display for InterfaceSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netlink => f.write_str("up a network device"),
            Self::Routes => f.write_str("routes without a list of those that there are"),
            Self::State => f.write_str("the MTU and the state of the network device"),
            Self::Address(address) => write!(f, "the address {address}"),
            Self::Route(route) => write!(f, "the route to {route}"),
        }
    }
}
