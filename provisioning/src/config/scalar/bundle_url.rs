//! The address of a directory with bundles.

use std::net::{IpAddr, SocketAddr};

use super::endpoint::{parse_port, split_host_port};
use super::{TextScalar, ValueError};
use crate::config::BundleUrl;

/// `bundle.url`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct BundleUrlText(pub(in crate::config) BundleUrl);

const HTTP_PORT: u16 = 80;
const EXAMPLE: &str = "http://10.77.0.1/bundles";
const MAX_PATH_BYTES: usize = 256;

impl TextScalar for BundleUrlText {
    const KIND: &'static str = "http://IP address, with port and path";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let write = |text: &str| format!("write {key} = \"{text}\"");
        let Some((scheme, rest)) = text.split_once("://") else {
            let message = format!("\"{text}\" has no scheme http://");
            return Err(ValueError::new(message, write(EXAMPLE)));
        };
        if scheme.eq_ignore_ascii_case("https") {
            let message = "bundles are fetched with http://: they are signed, and the tunnel \
                           encrypts them";
            return Err(ValueError::new(message, write(EXAMPLE)));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            let message = format!("the scheme {scheme}:// is not supported");
            return Err(ValueError::new(message, write(EXAMPLE)));
        }
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if host.contains('@') {
            let message = format!("`{key}` cannot have a user name or a password");
            let help = "remove them: the web server is inside the tunnel, and bundles hold no \
                        secret in clear";
            return Err(ValueError::new(message, help));
        }
        let address = parse_address(host)
            .map_err(|reason| ValueError::new(format!("\"{text}\": {reason}"), write(EXAMPLE)))?;
        let path = parse_path(key, path)?;
        Ok(Self(BundleUrl { address, path }))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

fn parse_address(host: &str) -> Result<SocketAddr, String> {
    let (host, port) = split_host_port(host)?;
    let Ok(address) = host.parse::<IpAddr>() else {
        return Err(format!(
            "\"{host}\" is a name, and its DNS query would leave the tunnel: give an IP address"
        ));
    };
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(format!("{address} is not the address of a web server"));
    }
    Ok(SocketAddr::new(address, port.map_or(Ok(HTTP_PORT), parse_port)?))
}

/// Returns the path without slashes at its end.
fn parse_path(key: &str, path: &str) -> Result<String, ValueError> {
    let path = path.trim_end_matches('/');
    if path.contains(['?', '#']) {
        let message = format!("`{key}` is the path of a directory, without a query");
        return Err(ValueError::new(message, "remove the part from ? or #"));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if let Some(c) = path.chars().find(|c| !is_allowed(*c)) {
        let message = format!("the path of `{key}` cannot contain {c:?}");
        return Err(ValueError::new(message, "use a-z, A-Z, 0-9, - . _ ~ and /"));
    }
    if path.split('/').skip(1).any(|step| matches!(step, "" | "." | "..")) {
        let message = format!("the path of `{key}` has an empty step, `.` or `..`");
        return Err(ValueError::new(message, "write the path itself, such as /bundles"));
    }
    if path.len() > MAX_PATH_BYTES {
        let help = format!("write at most {MAX_PATH_BYTES} characters");
        return Err(ValueError::new(format!("the path of `{key}` is too long"), help));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let parsed = BundleUrlText::parse("url", text);
        parsed.map(|url| url.to_text()).map_err(|error| error.message)
    }

    #[test]
    fn every_spelling_of_an_address_has_one_text() {
        for (text, same) in [
            ("http://10.77.0.1/bundles", "http://10.77.0.1/bundles"),
            (" HTTP://10.77.0.1:80/bundles/ ", "http://10.77.0.1/bundles"),
            ("http://10.77.0.1", "http://10.77.0.1"),
            ("http://10.77.0.1/", "http://10.77.0.1"),
            ("http://10.77.0.1:8080/a/b_c", "http://10.77.0.1:8080/a/b_c"),
            ("http://[fd77::1]", "http://[fd77::1]"),
            ("http://[fd77::1]:8080/a", "http://[fd77::1]:8080/a"),
        ] {
            assert_eq!(parsed(text).unwrap(), same, "{text}");
        }
    }

    #[test]
    fn what_could_leave_the_tunnel_or_means_something_else_is_rejected() {
        for (text, reason) in [
            ("10.77.0.1/bundles", "no scheme"),
            ("https://10.77.0.1/bundles", "http://"),
            ("ftp://10.77.0.1", "ftp:// is not supported"),
            ("http://hub.example.net/bundles", "DNS query"),
            ("http://localhost", "DNS query"),
            ("http://me:geheim@10.77.0.1/", "password"),
            ("http://10.77.0.1/bundles?site=1", "without a query"),
            ("http://10.77.0.1/bundles#top", "without a query"),
            ("http://10.77.0.1?a", "cannot contain"),
            ("http://10.77.0.1/a b", "cannot contain ' '"),
            ("http://10.77.0.1/a%20b", "cannot contain '%'"),
            ("http://10.77.0.1/a\r\nHost: b", "cannot contain '\\r'"),
            ("http://10.77.0.1/../etc", "`..`"),
            ("http://10.77.0.1/a//b", "empty step"),
            ("http://10.77.0.1:0/", "not a port"),
            ("http://10.77.0.1:99999/", "not a port"),
            ("http://10.77.0.256/", "not an IP address"),
            ("http://0.0.0.0/", "not the address of a web server"),
            ("http://224.0.0.1/", "not the address of a web server"),
            ("http:///bundles", "host is missing"),
            ("http://[fd77::1", "not closed"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains("geheim"), "{text}: {error}");
        }
    }
}
