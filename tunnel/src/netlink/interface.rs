//! Addresses, routes and the state of a network interface.

#[cfg(test)]
mod tests;

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use thiserror::Error;
use tracing::debug;

use super::NetlinkSocket;
use super::message::{NetlinkMessage, TUNNEL_METRIC};
use super::reply;

/// Packets that may wait in the interface: the window of a fast stream on a link with a long delay.
/// With the default of 500, Firezone measured half the throughput.
const TX_QUEUE_LEN: u32 = 1000;
/// Value of rp_filter with which a packet is dropped unless its sender is reached through the
/// interface it came from (RFC 3704, 2.2).
const RP_FILTER_STRICT: u8 = 1;

/// Why the kernel rejects a setting.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The process lacks the privilege.
    #[error("setting {0} needs the capability CAP_NET_ADMIN")]
    Denied(InterfaceSetting),
    /// The interface was removed.
    #[error("the network interface was removed")]
    Gone,
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
    mtu: u16,
}

/// Result of a repair.
#[derive(Debug)]
pub(crate) struct Repair {
    /// Whether something was missing and is set again.
    pub(crate) has_changed: bool,
    /// Whether the interface is up.
    pub(crate) is_up: bool,
    /// What could not be set, and what another interface has.
    pub(crate) problems: Vec<InterfaceError>,
}

impl HostInterface {
    /// Opens a socket for the interface with that index.
    pub(crate) fn new(
        index: u32,
        addresses: &[IpNet],
        routes: &[IpNet],
        mtu: u16,
    ) -> Result<Self, InterfaceError> {
        let socket = NetlinkSocket::open()
            .map_err(|errno| InterfaceError::Failed(InterfaceSetting::Netlink, errno.into()))?;
        let (addresses, routes) = (addresses.to_vec(), routes.to_vec());
        Ok(Self { socket, index, addresses, routes, mtu })
    }

    /// Returns the present name of the interface, which anyone may change.
    pub(crate) fn name(&self) -> String {
        let name = if_indextoname(self.index);
        name.ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
    }

    /// Takes the interface up with its MTU, addresses and routes. Can be repeated. Fails only if
    /// the interface cannot be taken up.
    pub(crate) fn configure(&mut self) -> Result<Repair, InterfaceError> {
        // Otherwise it would send router solicitations into the tunnel, which cost data volume.
        if let Err(errno) = self.socket.execute(NetlinkMessage::disable_link_local(self.index)) {
            debug!(error = errno.desc(), "cannot disable link-local addresses");
        }
        // Before the routes: the kernel rejects a route through an interface that is down.
        let state = NetlinkMessage::set_link_state(self.index, self.mtu, TX_QUEUE_LEN);
        self.socket
            .execute(state)
            .map_err(|errno| interface_error(InterfaceSetting::State, errno))?;
        self.repair()
    }

    /// Sets what others have changed: the MTU, and missing addresses and routes, which the kernel
    /// removes from an interface that goes down. While nothing is missing, it changes nothing and
    /// causes no notification. An interface that is down stays down.
    ///
    /// What cannot be set does not keep the rest from being set. A network that this host reaches
    /// through another interface is a problem too: the tunnel's routes have the lowest priority and
    /// never take such a network over; only sockets that are bound to the interface use them.
    pub(crate) fn repair(&mut self) -> Result<Repair, InterfaceError> {
        let link = self.socket.request(NetlinkMessage::get_link(self.index));
        let link = link.and_then(|reply| reply::parse_link(&reply));
        let link = link.map_err(|errno| interface_error(InterfaceSetting::State, errno))?;
        let mut repair = Repair { has_changed: false, is_up: link.is_up, problems: Vec::new() };
        if link.mtu != u32::from(self.mtu) {
            let set_mtu = NetlinkMessage::set_mtu(self.index, self.mtu);
            self.set(InterfaceSetting::State, set_mtu, &mut repair);
        }
        if !link.is_up {
            return Ok(repair);
        }
        self.relax_rp_filter();
        // Before setting anything, so that the tunnel's own routes are not mistaken for conflicts.
        match self.conflicting_networks() {
            Ok(taken) => repair.problems.extend(taken.into_iter().map(InterfaceError::RouteTaken)),
            Err(error) => repair.problems.push(error),
        }
        for address in self.addresses.clone() {
            let add = NetlinkMessage::add_address(self.index, address);
            self.set(InterfaceSetting::Address(address), add, &mut repair);
        }
        for route in self.routes.clone() {
            let add = NetlinkMessage::add_route(self.index, route);
            self.set(InterfaceSetting::Route(route), add, &mut repair);
        }
        Ok(repair)
    }

    /// Sets something that may be set already.
    fn set(&mut self, what: InterfaceSetting, message: NetlinkMessage, repair: &mut Repair) {
        match self.socket.execute(message) {
            Ok(()) => repair.has_changed = true,
            Err(Errno::EEXIST) => {}
            Err(errno) => repair.problems.push(interface_error(what, errno)),
        }
    }

    /// Accepts answers from the tunnel although this host reaches their senders through another
    /// interface, as happens where its networks overlap with those behind the hub. A strict filter
    /// would drop them; where there is none, a loose one would only drop more.
    fn relax_rp_filter(&mut self) {
        let setting = |interface: &str| -> Option<u8> {
            let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        // The higher of the two counts (ip-sysctl).
        if setting("all").max(setting(&self.name())) == Some(RP_FILTER_STRICT)
            && let Err(errno) = self.socket.execute(NetlinkMessage::set_loose_rp_filter(self.index))
        {
            debug!(error = errno.desc(), "cannot relax rp_filter");
        }
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
