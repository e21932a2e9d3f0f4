//! What a tunnel has to be told.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// One end of a tunnel. Whoever builds it has checked it: there is at least one address and one
/// hub, and the MTU lies in [`MTU`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this end is.
    pub private_key: PrivateKey,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// Longest packet inside the tunnel, in bytes.
    pub mtu: u16,
    /// An idle tunnel is kept open by one packet in this time; `None` sends nothing when idle.
    pub keep_alive: Option<Duration>,
    /// The other ends in order of preference; one of them is used at a time.
    pub hubs: Vec<Hub>,
}

/// Allowed values of [`Settings::mtu`]: IPv6 needs the lower one (RFC 8200, 5).
pub const MTU_RANGE: std::ops::RangeInclusive<u16> = 1280..=9000;

/// Whether the allowed IPs of a hub become routes of the operating system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RoutePolicy {
    /// Routes through the tunnel.
    Auto,
    /// No routes.
    Off,
}

/// The other end of a tunnel.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its name in status, metrics and sentences.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Who it is.
    pub public_key: PublicKey,
    /// The second secret.
    pub preshared_key: Option<PresharedKey>,
    /// Networks that are reached through it, and the only ones that it may send from.
    pub allowed_ips: Vec<IpNet>,
}

/// The hub's end of a tunnel, in this process: for the demo and for tests. It waits to be called and
/// learns from authentic packets where its sites are.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Who this end is.
    pub private_key: PrivateKey,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// Longest packet inside the tunnel, in bytes, in [`MTU`].
    pub mtu: u16,
    /// The other ends.
    pub sites: Vec<SitePeer>,
}

/// A site, as its hub knows it.
#[derive(Clone, Debug)]
pub struct SitePeer {
    /// Who it is.
    pub public_key: PublicKey,
    /// The second secret.
    pub preshared_key: Option<PresharedKey>,
    /// Networks that are reached through it, and the only ones that it may send from. The longest
    /// of all sites' networks that holds an address decides.
    pub allowed_ips: Vec<IpNet>,
}

/// A name or an address, and a UDP port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A DNS name, or an IPv4 or IPv6 address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
