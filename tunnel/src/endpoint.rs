//! Parses the address of a hub.

use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

use crate::settings::Endpoint;

/// Longest DNS name without the final dot, in characters (RFC 1035, 2.3.4).
const MAX_NAME_LEN: usize = 253;
/// Longest label of a DNS name, in characters.
const MAX_LABEL_LEN: usize = 63;

/// Why a text is not an endpoint, and what to write.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EndpointError {
    /// There is no port.
    #[error("the port is missing: write `hub.example.net:51820`")]
    MissingPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535: write `hub.example.net:51820`")]
    InvalidPort,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets: write `[2001:db8::1]:51820`")]
    MissingBrackets,
    /// An address with a zone, which belongs to one interface.
    #[error("an address with a zone (`%`) cannot be a hub: write a name or a global address")]
    Zone,
    /// Neither a name nor an address.
    #[error("it must begin with a name or an address: write `hub.example.net:51820`")]
    InvalidHost,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        // Without this check the last group of an address would be taken for the port.
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::MissingBrackets);
        }
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::MissingPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or(EndpointError::MissingPort)?;
                if address.contains('%') {
                    return Err(EndpointError::Zone);
                }
                address.parse::<Ipv6Addr>().map_err(|_| EndpointError::InvalidHost)?.to_string()
            }
            None if host.contains(':') => return Err(EndpointError::MissingBrackets),
            None if is_host_name(host) => host.to_owned(),
            None => return Err(EndpointError::InvalidHost),
        };
        // `parse` alone would accept a sign.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if port > 0 && is_number => Ok(Self { host, port }),
            _ => Err(EndpointError::InvalidPort),
        }
    }
}

/// Returns whether the text can be a DNS name or an IPv4 address. Underscores are common in private
/// names.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= MAX_NAME_LEN && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_a_port_are_endpoints() {
        for (text, host, port) in [
            ("hub.example.net:51820", "hub.example.net", 51820),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn text_that_is_not_an_endpoint_is_rejected_with_the_reason() {
        for (text, error) in [
            ("", EndpointError::MissingPort),
            ("hub.example.net", EndpointError::MissingPort),
            ("[2001:db8::1]", EndpointError::MissingPort),
            ("hub:0", EndpointError::InvalidPort),
            ("hub:+1", EndpointError::InvalidPort),
            ("hub:65536", EndpointError::InvalidPort),
            ("hub:", EndpointError::InvalidPort),
            ("2001:db8::1", EndpointError::MissingBrackets),
            ("2001:db8::1:51820", EndpointError::MissingBrackets),
            ("[hub]:1", EndpointError::InvalidHost),
            ("[fe80::1%wwan0]:27820", EndpointError::Zone),
            (":1", EndpointError::InvalidHost),
            ("a..b:1", EndpointError::InvalidHost),
            ("http//hub:1", EndpointError::InvalidHost),
            ("häuschen:1", EndpointError::InvalidHost),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
