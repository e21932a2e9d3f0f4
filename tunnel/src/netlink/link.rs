//! Addresses, routes and the state of a network device.

#[cfg(test)]
mod tests;

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;
use tracing::debug;

use super::Asker;
use super::message::{METRIC, Message};

/// Packets that wait in the device: a whole window of one fast stream over a long line. With the
/// usual 500, Firezone measured half the throughput.
const QUEUE: u32 = 1000;

/// Why the host does not do what it was asked for.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The process may not.
    #[error("setting {0} needs the capability CAP_NET_ADMIN")]
    Denied(Step),
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
    NoIpv6(Step),
    /// Something else.
    #[error("cannot set {0}")]
    Failed(Step, #[source] io::Error),
}

/// What was being set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
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
pub(crate) struct Link {
    asker: Asker,
    index: u32,
    addresses: Vec<IpNet>,
    routes: Vec<IpNet>,
}

/// Whether something was missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mended {
    Nothing,
    Something,
}

impl Link {
    /// Speaks of the device with that number.
    pub(crate) fn new(
        index: u32,
        addresses: &[IpNet],
        routes: &[IpNet],
    ) -> Result<Self, LinkError> {
        let asker =
            Asker::open().map_err(|errno| LinkError::Failed(Step::Netlink, errno.into()))?;
        let (addresses, routes) = (addresses.to_vec(), routes.to_vec());
        Ok(Self { asker, index, addresses, routes })
    }

    /// Takes the device up, with its MTU, addresses and routes. May be repeated.
    pub(crate) fn set_up(&mut self, mtu: u16) -> Result<(), LinkError> {
        // Else it would send router solicitations into the tunnel, each a paid packet.
        if let Err(errno) = self.asker.order(Message::no_link_local(self.index)) {
            debug!(error = errno.desc(), "cannot switch off link-local addresses");
        }
        let state = Message::state(self.index, mtu, QUEUE);
        self.asker.order(state).map_err(|errno| failure(Step::State, errno))?;
        self.mend().map(drop)
    }

    /// Sets those addresses and routes that are not there; the kernel takes the routes of a device
    /// away that goes down. Changes nothing and is heard of by nobody while all are there.
    ///
    /// Fails for a network that this host reaches by another device, when everything is set, and never
    /// takes it over: routes of ours go behind whatever others there are, and only sockets that are
    /// bound to the device find them then.
    pub(crate) fn mend(&mut self) -> Result<Mended, LinkError> {
        let taken = self.taken()?;
        let mut mended = Mended::Nothing;
        for address in &self.addresses {
            match self.asker.order(Message::address(self.index, *address)) {
                Ok(()) => mended = Mended::Something,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failure(Step::Address(*address), errno)),
            }
        }
        for route in &self.routes {
            match self.asker.order(Message::route(self.index, *route)) {
                Ok(()) => mended = Mended::Something,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failure(Step::Route(*route), errno)),
            }
        }
        taken.first().map_or(Ok(mended), |network| Err(LinkError::RouteTaken(*network)))
    }

    /// Networks of ours that this host reaches by another device. The kernel takes a second route to
    /// a network as long as its metric is another.
    fn taken(&mut self) -> Result<Vec<IpNet>, LinkError> {
        let routes =
            self.asker.routes().map_err(|errno| LinkError::Failed(Step::Routes, errno.into()))?;
        let own = self.addresses.iter().map(IpNet::trunc).chain(self.routes.iter().copied());
        let is_taken = |network: &IpNet| {
            routes.iter().any(|route| {
                route.to == *network && route.device != Some(self.index) && route.metric <= METRIC
            })
        };
        Ok(own.filter(is_taken).collect())
    }
}

fn failure(step: Step, errno: Errno) -> LinkError {
    let is_v6 = match step {
        Step::Address(net) | Step::Route(net) => net.addr().is_ipv6(),
        Step::Netlink | Step::Routes | Step::State => false,
    };
    match (errno, is_v6) {
        (Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, true) => LinkError::NoIpv6(step),
        (Errno::EPERM | Errno::EACCES, _) => LinkError::Denied(step),
        (Errno::ENODEV, _) => LinkError::Gone,
        (Errno::ENETDOWN, _) => LinkError::Down,
        (errno, _) => LinkError::Failed(step, errno.into()),
    }
}

impl std::fmt::Display for Step {
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
