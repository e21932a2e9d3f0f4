//! Rejects requests for names that are not the gateway's.
//!
//! A page on the internet can make a browser on the box, or behind the hub, read the gateway: its
//! own name resolves to the gateway's address the second time (DNS rebinding). Such a request
//! carries that name. So addresses are answered, and names that no stranger can own.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Domains that are reserved for private networks: `internal` by ICANN, `home.arpa` by RFC 8375.
const PRIVATE_DOMAINS: [&str; 2] = [".internal", ".home.arpa"];

const FOREIGN_NAME: &str = "this name is not the gateway's: use its IP address, localhost, a name \
                            without a dot, or one that ends with .internal or .home.arpa\n";
const NO_NAME: &str = "a request has exactly one Host header, a name or an address\n";

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Destination {
    ThisGateway,
    /// A name that a stranger may own.
    ForeignName,
    /// Absent, repeated or malformed (RFC 9112, 3.2).
    Malformed,
}

/// Answers 421 to a request for another host, and 400 to one without a valid `Host`.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match destination(request.version(), request.uri(), request.headers()) {
        Destination::ThisGateway => next.run(request).await,
        Destination::ForeignName => (StatusCode::MISDIRECTED_REQUEST, FOREIGN_NAME).into_response(),
        Destination::Malformed => (StatusCode::BAD_REQUEST, NO_NAME).into_response(),
    }
}

fn destination(version: Version, uri: &Uri, headers: &HeaderMap) -> Destination {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Destination::Malformed;
    }
    // The target wins over the header (RFC 9112, 3.2.2).
    let named = match (uri.authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).ok(),
        // Every browser sends the header.
        (None, None) if version < Version::HTTP_11 => return Destination::ThisGateway,
        (None, None) => None,
    };
    match named {
        Some(authority) if authority.as_str().contains('@') => Destination::Malformed,
        Some(authority) if is_own(authority.host()) => Destination::ThisGateway,
        Some(_) => Destination::ForeignName,
        None => Destination::Malformed,
    }
}

/// Returns whether no stranger can own this name: an address, a name without a dot such as
/// `localhost` or the gateway's id, or a name in a private domain.
fn is_own(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok()
        || !host.contains('.')
        || PRIVATE_DOMAINS.iter().any(|domain| host.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(version: Version, uri: &str, hosts: &[&str]) -> Destination {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        destination(version, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn addresses_and_names_that_no_stranger_can_own_are_answered() {
        for host in [
            "10.77.0.12",
            "10.77.0.12:9464",
            "[fd77::12]:9464",
            "[::1]",
            "localhost:9464",
            "LOCALHOST",
            "amsterdam-01:9464",
            "gateway.plant.internal:9464",
            "gateway.home.arpa",
        ] {
            let destination = to(Version::HTTP_11, "/status", &[host]);
            assert_eq!(destination, Destination::ThisGateway, "{host}");
        }
        assert_eq!(to(Version::HTTP_10, "/status", &[]), Destination::ThisGateway);
    }

    #[test]
    fn a_name_that_a_stranger_can_own_is_rejected() {
        for host in [
            "evil.example.com",
            "evil.example.com:9464",
            "127.0.0.1.evil.example.com",
            "localhost.evil.example.com",
            "amsterdam-01.evil.example.com",
            "evil.internal.example.com",
            "localhost.",
            "evil.com.",
        ] {
            let destination = to(Version::HTTP_11, "/status", &[host]);
            assert_eq!(destination, Destination::ForeignName, "{host}");
        }
        let absolute = to(Version::HTTP_11, "http://evil.example.com/status", &["localhost"]);
        assert_eq!(absolute, Destination::ForeignName);
    }

    #[test]
    fn a_request_needs_exactly_one_host() {
        for hosts in [&[][..], &["localhost", "localhost"], &["a b"], &[""], &["me@localhost"]] {
            let destination = to(Version::HTTP_11, "/status", hosts);
            assert_eq!(destination, Destination::Malformed, "{hosts:?}");
        }
    }
}
