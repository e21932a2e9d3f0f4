//! Reports that a datagram did not leave this host, or did not arrive.

use std::net::{IpAddr, SocketAddr};

/// Why a datagram did not arrive. Those of other hosts can be forged and must only affect the
/// diagnosis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PathError {
    /// Its destination.
    pub to: SocketAddr,
    /// What was reported.
    pub cause: PathErrorCause,
    /// The host that reports it; `None` for this one.
    pub reporter: Option<IpAddr>,
}

/// What is reported about a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathErrorCause {
    /// Nothing listens on the port, or a firewall pretends so (ICMP port unreachable).
    PortUnreachable,
    /// A firewall forbids it (ICMP administratively prohibited, EPERM).
    Prohibited,
    /// There is no route, or the next host does not answer.
    NoRoute,
}
