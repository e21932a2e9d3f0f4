//! Keys, addresses and networks of the tunnel, and listen addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tunnel::{Endpoint, PublicKey};

use super::endpoint::{parse_port, split_host_port};
use super::{TextScalar, ValueError};
use crate::config::{Listen, TunnelMode};

/// `tunnel.mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) enum TunnelSwitch {
    Userspace,
    Tun,
    Off,
}

/// An IP address with its prefix length; without one, the address alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct TunnelAddress(pub(in crate::config) IpNet);

/// A network; bits after its prefix are cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct TunnelNetwork(pub(in crate::config) IpNet);

/// The public key of a hub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct HubKey(pub(in crate::config) PublicKey);

/// UDP address of a hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct EndpointText(pub(in crate::config) Endpoint);

/// Port used in WireGuard's documentation.
const EXAMPLE_PORT: u16 = 51_820;

const METRICS_PORT: u16 = 9464;

impl TunnelSwitch {
    /// Returns the mode, or `None` when the tunnel is off.
    pub(in crate::config) const fn mode(self) -> Option<TunnelMode> {
        match self {
            Self::Userspace => Some(TunnelMode::Userspace),
            Self::Tun => Some(TunnelMode::Tun),
            Self::Off => None,
        }
    }
}

impl TextScalar for TunnelAddress {
    const KIND: &'static str = "IP address/prefix length";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        parse_network(key, text, "10.77.0.12/32").map(Self)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl TextScalar for TunnelNetwork {
    const KIND: &'static str = "IP address/prefix length";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        parse_network(key, text, "10.77.0.0/16").map(|network| Self(network.trunc()))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// Parses a network, or an address as the network of that address alone.
fn parse_network(key: &str, text: &str, example: &str) -> Result<IpNet, ValueError> {
    let text = text.trim();
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or(alone).map_err(|_| {
        ValueError::new(
            format!("`{key}` contains \"{text}\", which is not an IP address with prefix length"),
            format!("write something like \"{example}\""),
        )
    })
}

impl TextScalar for HubKey {
    const KIND: &'static str = "key";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        text.trim().parse().map(Self).map_err(|_| {
            ValueError::new(
                format!("`{key}` is not a public key"),
                "a key has 44 letters, digits, + and /, and ends with =: copy it from the output \
                 of `wg show` on the hub",
            )
        })
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl TextScalar for EndpointText {
    const KIND: &'static str = "host:port";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let error = |reason: String| {
            ValueError::new(
                format!("`{key}` is \"{text}\": {reason}"),
                format!("write something like {key} = \"hub-a.example.net:{EXAMPLE_PORT}\""),
            )
        };
        let (host, port) = split_host_port(text).map_err(error)?;
        let port = port.ok_or_else(|| error("the port is missing".to_owned()))?;
        let port = parse_port(port).map_err(error)?;
        Ok(Self(Endpoint { host: host.to_owned(), port }))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl TextScalar for Listen {
    const KIND: &'static str = "address:port, or tunnel:port";

    fn parse(_key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let port = |digits: &str| digits.parse::<u16>().ok().filter(|port| *port > 0);
        match text.strip_prefix("tunnel:") {
            Some(digits) => port(digits).map(Self::Tunnel).ok_or_else(|| {
                ValueError::new(
                    format!("\"{text}\" has no valid port, ports are 1 to 65535"),
                    format!("write \"tunnel:{METRICS_PORT}\""),
                )
            }),
            None => {
                let port = text.rsplit(':').next().and_then(port).unwrap_or(METRICS_PORT);
                Err(ValueError::new(
                    format!("\"{text}\" is not an IP address with a port"),
                    format!(
                        "write \"127.0.0.1:{port}\" to listen on this machine only, or \
                         \"tunnel:{port}\" to listen in the tunnel only"
                    ),
                ))
            }
        }
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}
