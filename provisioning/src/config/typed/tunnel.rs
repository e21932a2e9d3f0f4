//! `[tunnel]`, and the addresses that the metrics listener can have.

use std::fmt;
use std::net::SocketAddr;

/// `[tunnel]`.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Where packets enter and leave the tunnel on this machine.
    pub mode: TunnelMode,
    /// Keys, addresses and hubs.
    pub settings: tunnel::Settings,
}

/// `tunnel.mode`, when it is not `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelMode {
    /// A TCP stack in this process: needs no privileges and no routes.
    Userspace,
    /// A network interface of the operating system; needs CAP_NET_ADMIN.
    Tun,
}

/// One entry of `metrics.listen`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listen {
    /// An address of this machine.
    Address(SocketAddr),
    /// A port of the gateway's address in the tunnel, reachable through the tunnel only.
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
