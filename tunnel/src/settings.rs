//! Settings of a tunnel.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// The site's end of a tunnel.
///
/// The creator must have checked it: there is at least one address and one hub, and the MTU is in
/// [`MTU_RANGE`].
///
/// ```
/// use std::time::Duration;
///
/// use tunnel::{Hub, PrivateKey, Settings};
///
/// let hub = Hub {
///     name: "hub-a".to_owned(),
///     endpoint: "hub.example.net:51820".parse()?,
///     public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse()?,
///     preshared_key: None,
///     allowed_ips: vec!["10.77.0.0/16".parse()?],
/// };
/// let settings = Settings {
///     private_key: PrivateKey::generate(),
///     addresses: vec!["10.77.0.12/32".parse()?],
///     mtu: 1280,
///     keep_alive: Some(Duration::from_secs(25)),
///     hubs: vec![hub],
/// };
/// assert!(tunnel::MTU_RANGE.contains(&settings.mtu) && !tunnel::MTU_RANGE.contains(&576));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// Private key of this end.
    pub private_key: PrivateKey,
    /// Addresses of this end inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// Longest packet inside the tunnel, in bytes.
    pub mtu: u16,
    /// Interval at which an idle tunnel sends a keepalive; `None` sends nothing when idle.
    pub keep_alive: Option<Duration>,
    /// The hubs in order of preference; one is in use at a time.
    pub hubs: Vec<Hub>,
}

/// Allowed values of [`Settings::mtu`], in bytes. IPv6 needs at least the lower one (RFC 8200, 5).
pub const MTU_RANGE: std::ops::RangeInclusive<u16> = 1280..=9000;

/// Whether the allowed IPs of a hub become routes of the operating system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RoutePolicy {
    /// Routes through the tunnel.
    Auto,
    /// No routes.
    Off,
}

/// A hub, as a site knows it.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Name in status, metrics and logs.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Public key of the hub.
    pub public_key: PublicKey,
    /// Preshared key, if the hub uses one.
    pub preshared_key: Option<PresharedKey>,
    /// Networks that are reached through the hub, and the only ones it may send from.
    pub allowed_ips: Vec<IpNet>,
}

/// The hub's end of a tunnel in this process, for the demo and for tests. It waits for its sites to
/// connect and learns their addresses from authentic datagrams.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Private key of this end.
    pub private_key: PrivateKey,
    /// Addresses of this end inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// Longest packet inside the tunnel, in bytes, in [`MTU_RANGE`].
    pub mtu: u16,
    /// The sites.
    pub sites: Vec<SitePeer>,
}

/// A site, as its hub knows it.
#[derive(Clone, Debug)]
pub struct SitePeer {
    /// Public key of the site.
    pub public_key: PublicKey,
    /// Preshared key, if the site uses one.
    pub preshared_key: Option<PresharedKey>,
    /// Networks that are reached through the site, and the only ones it may send from. Among all
    /// sites the longest matching prefix decides.
    pub allowed_ips: Vec<IpNet>,
}

/// A host and a UDP port.
///
/// ```
/// use tunnel::{Endpoint, EndpointError};
///
/// let endpoint: Endpoint = "[2001:db8::1]:51820".parse()?;
/// assert_eq!((endpoint.host.as_str(), endpoint.port), ("2001:db8::1", 51820));
/// let error = "hub.example.net".parse::<Endpoint>().unwrap_err();
/// assert_eq!(error, EndpointError::MissingPort);
/// # Ok::<(), EndpointError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A DNS name, or an IPv4 or IPv6 address without brackets.
    pub host: String,
    /// The port, never 0.
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
