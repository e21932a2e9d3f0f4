//! Addresses, routes and the state of a network device, by rtnetlink.

mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use thiserror::Error;
use tracing::debug;

use message::Message;

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
    /// Another device has that route, perhaps the machine network.
    #[error("this host reaches {0} by another way already: the tunnel cannot take it over")]
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
    netlink: OwnedFd,
    index: u32,
    routes: BTreeSet<IpNet>,
}

impl Link {
    /// Speaks of the device with that number.
    pub(crate) fn new(index: u32) -> Result<Self, LinkError> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        let netlink = netlink.map_err(|errno| LinkError::Failed(Step::Netlink, errno.into()))?;
        Ok(Self { netlink, index, routes: BTreeSet::new() })
    }

    /// Gives the device its addresses and MTU and takes it up. May be repeated.
    pub(crate) fn set_up(&mut self, addresses: &[IpNet], mtu: u16) -> Result<(), LinkError> {
        // Else it would send router solicitations into the tunnel, each a paid packet.
        if let Err(errno) = self.ask(&Message::no_link_local(self.index)) {
            debug!(error = errno.desc(), "cannot switch off link-local addresses");
        }
        let state = Message::state(self.index, mtu, QUEUE);
        self.ask(&state).map_err(|errno| failure(Step::State, errno))?;
        for address in addresses {
            let message = Message::address(self.index, *address);
            self.ask(&message).map_err(|errno| failure(Step::Address(*address), errno))?;
        }
        Ok(())
    }

    /// Makes exactly these networks reached through the device: others that were set here are
    /// removed. May be repeated, and has to be after the device was down, which takes its routes
    /// away; fails for a network that this host reaches by another device, and
    /// never takes it over.
    pub(crate) fn set_routes(&mut self, routes: &[IpNet]) -> Result<(), LinkError> {
        let wanted: BTreeSet<_> = routes.iter().map(IpNet::trunc).collect();
        let superfluous: Vec<_> = self.routes.difference(&wanted).copied().collect();
        for route in superfluous {
            match self.ask(&Message::no_route(self.index, route)) {
                Ok(()) | Err(Errno::ESRCH) => self.routes.remove(&route),
                Err(errno) => return Err(failure(Step::Route(route), errno)),
            };
        }
        for route in wanted {
            match self.ask(&Message::route(self.index, route)) {
                Ok(()) => drop(self.routes.insert(route)),
                Err(Errno::EEXIST) if self.routes.contains(&route) => {}
                Err(errno) => return Err(failure(Step::Route(route), errno)),
            }
        }
        Ok(())
    }

    /// Sends one request and waits for its answer, which the kernel gives before it returns.
    fn ask(&self, message: &Message) -> Result<(), Errno> {
        let fd = self.netlink.as_raw_fd();
        send(fd, message.bytes(), MsgFlags::empty())?;
        let mut answer = [0; 1024];
        let length = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        message::answer(answer.get(..length).unwrap_or_default())
    }
}

fn failure(step: Step, errno: Errno) -> LinkError {
    let is_v6 = match step {
        Step::Address(net) | Step::Route(net) => net.addr().is_ipv6(),
        Step::Netlink | Step::State => false,
    };
    match (errno, step) {
        (Errno::EEXIST, Step::Route(route)) => LinkError::RouteTaken(route),
        (Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, _) if is_v6 => {
            LinkError::NoIpv6(step)
        }
        (Errno::EPERM | Errno::EACCES, _) => LinkError::Denied(step),
        (Errno::ENODEV, _) => LinkError::Gone,
        (errno, _) => LinkError::Failed(step, errno.into()),
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netlink => f.write_str("up a network device"),
            Self::State => f.write_str("the MTU and the state of the network device"),
            Self::Address(address) => write!(f, "the address {address}"),
            Self::Route(route) => write!(f, "the route to {route}"),
        }
    }
}
