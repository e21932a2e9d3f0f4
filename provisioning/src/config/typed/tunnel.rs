//! `[tunnel]`, and what is reached through it.

use std::fmt;
use std::net::SocketAddr;

/// `[tunnel]`.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Where its packets come from and go to.
    pub mode: TunnelMode,
    /// Keys, addresses and hubs.
    pub settings: tunnel::Settings,
}

/// `tunnel.mode`, when it is not `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelMode {
    /// A TCP stack in this process: no privileges, no routes.
    Userspace,
    /// A device of the operating system; wants CAP_NET_ADMIN.
    Tun,
}

/// One entry of `metrics.listen`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listen {
    /// An address of this machine.
    Address(SocketAddr),
    /// A port of our address in the tunnel, reachable through it only.
    Tunnel(u16),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Tunnel(port) => write!(f, "tunnel:{port}"),
        }
    }
}
