//! Where a broker may be: nothing on the way may read the password and the offers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use thiserror::Error;

use super::MQTT_PORT;

/// Why a broker is not connected to.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BrokerAddressError {
    /// It is not in its form.
    #[error("\"{text}\" is no address of a broker: write something like 10.77.0.1:{MQTT_PORT}")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// It is a name.
    #[error(
        "\"{host}\" is a name, and a forged answer to its DNS query could lead the password \
         elsewhere: write the address of the hub inside the tunnel"
    )]
    Name {
        /// The name.
        host: String,
    },
    /// It is outside of the tunnel.
    #[error(
        "{address} is neither on this machine nor in {network}, the network of the tunnel: the \
         connection is not encrypted, and others could read the password of the office and change \
         offers. Write the address of a hub inside the tunnel, or the end of an ssh tunnel on \
         127.0.0.1"
    )]
    Outside {
        /// The address.
        address: IpAddr,
        /// The network of the tunnel.
        network: Ipv4Net,
    },
}

/// Returns the address in a text `HOST:PORT` or `HOST`. The host is an IP address on this machine
/// or in `network`, or `localhost`.
///
/// ```
/// use provisioning::office::broker::parse_address;
///
/// let network = "10.77.0.0/16".parse()?;
/// assert_eq!(parse_address("10.77.0.1", network)?.to_string(), "10.77.0.1:1883");
/// assert!(parse_address("192.0.2.7:1883", network).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When it is something else.
pub fn parse_address(text: &str, network: Ipv4Net) -> Result<SocketAddr, BrokerAddressError> {
    let text = text.strip_prefix("mqtt://").unwrap_or(text).trim_end_matches('/');
    let address = split(text)?;
    let is_inside = |ip: IpAddr| {
        ip.is_loopback() || matches!(ip, IpAddr::V4(address) if network.contains(&address))
    };
    let ip = address.ip().to_canonical();
    if is_inside(ip) {
        return Ok(SocketAddr::new(ip, address.port()));
    }
    Err(BrokerAddressError::Outside { address: ip, network })
}

fn split(text: &str) -> Result<SocketAddr, BrokerAddressError> {
    let malformed = || BrokerAddressError::Malformed { text: text.to_owned() };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err(malformed()) } else { Ok(address) };
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, MQTT_PORT));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |host: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        host.contains(|c: char| c.is_ascii_alphabetic()) && host.chars().all(is_allowed)
    };
    if !is_name(host) {
        return Err(malformed());
    }
    let port = match port {
        "" if !text.contains(':') => MQTT_PORT,
        port => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(malformed)?,
    };
    if !host.eq_ignore_ascii_case("localhost") {
        return Err(BrokerAddressError::Name { host: host.to_owned() });
    }
    Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let network = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16);
        let address = parse_address(text, network);
        address.map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_broker_is_on_this_machine_or_inside_the_tunnel() {
        for (text, address) in [
            ("10.77.0.1", "10.77.0.1:1883"),
            ("10.77.0.1:1884", "10.77.0.1:1884"),
            ("127.0.0.1:1885", "127.0.0.1:1885"),
            ("localhost", "127.0.0.1:1883"),
            ("localhost:1885", "127.0.0.1:1885"),
            ("[::1]:1885", "[::1]:1885"),
            ("::1", "[::1]:1883"),
            ("[::ffff:10.77.0.1]:1883", "10.77.0.1:1883"),
            ("mqtt://10.77.0.1:1883", "10.77.0.1:1883"),
        ] {
            assert_eq!(parsed(text).unwrap(), address, "{text}");
        }
        for (text, reason) in [
            ("192.0.2.7:1883", "not encrypted"),
            ("10.78.0.1", "not encrypted"),
            ("[fd77::1]:1883", "not encrypted"),
            ("hub-a.example.net:1883", "DNS"),
            ("localhost.example.net", "DNS"),
            ("10.77.0.1:0", "no address"),
            ("10.77.0.1:", "no address"),
            ("localhost:", "no address"),
            ("localhost:99999", "no address"),
            ("", "no address"),
            ("mqtts://10.77.0.1", "no address"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
