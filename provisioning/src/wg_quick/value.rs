//! Values of keys. No error text contains the value, which may be a secret.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tunnel::{Endpoint, EndpointError, KeyError, LocalPort, MTU_RANGE, RoutePolicy};

/// Least MTU without IPv6: every host takes packets of this length (RFC 1122, 3.3.2).
const MIN_MTU_V4: u16 = 576;

/// What is wrong with a value, to follow its key in a sentence, and what to write instead.
pub(super) type ValueProblem = (&'static str, String);

/// Parses a WireGuard key.
pub(super) fn key<T: FromStr<Err = KeyError>>(text: &str) -> Result<T, ValueProblem> {
    text.parse().map_err(|error: KeyError| ("is not a key", error.to_string()))
}

/// Parses IP addresses with or without prefix length, separated by commas.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, ValueProblem> {
    let help = "write addresses like `10.77.0.12/32`, separated by commas";
    let network = |text: &str| {
        let text = text.trim();
        let alone = text.parse::<IpAddr>().map(IpNet::from);
        alone.or_else(|_| text.parse()).map_err(|_| ("is not a list of IP addresses", help.into()))
    };
    text.split(',').map(network).collect()
}

/// Parses the maximum packet size.
pub(super) fn mtu(text: &str) -> Result<u16, ValueProblem> {
    let (low, high) = (MIN_MTU_V4, *MTU_RANGE.end());
    let help = || format!("write a number from {low} to {high}, or remove the line for 1280");
    let mtu = number(text).filter(|mtu| (low..=high).contains(mtu));
    mtu.ok_or_else(|| ("is out of range", help()))
}

/// Parses a port; 0 leaves the choice to the system.
pub(super) fn port(text: &str) -> Result<LocalPort, ValueProblem> {
    match number(text) {
        Some(0) => Ok(LocalPort::Any),
        Some(port) => Ok(LocalPort::Fixed(port)),
        None => Err(("is not a port", "write a number from 1 to 65535, or remove the line".into())),
    }
}

/// Parses whether routes are made.
pub(super) fn routes(text: &str) -> Result<RoutePolicy, ValueProblem> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(RoutePolicy::Auto),
        "off" => Ok(RoutePolicy::Off),
        _ => Err((
            "names a routing table, but only the main table is supported",
            "write `auto`, or `off` to make your own routes".into(),
        )),
    }
}

/// Rejects a firewall mark; accepts `off` and 0, which set none.
pub(super) fn no_mark(text: &str) -> Result<(), ValueProblem> {
    let is_none = ["off", "0", "0x0"].contains(&text.to_ascii_lowercase().as_str());
    is_none.then_some(()).ok_or_else(|| {
        (
            "sets a firewall mark, which is not supported",
            "remove the line, and list the networks of the hub in AllowedIPs".into(),
        )
    })
}

/// Accepts both values, of which neither has an effect: the file is never written.
pub(super) fn saved(text: &str) -> Result<(), ValueProblem> {
    let is_known = ["true", "false"].iter().any(|known| text.eq_ignore_ascii_case(known));
    is_known.then_some(()).ok_or_else(|| ("is not `true` or `false`", "remove the line".into()))
}

/// Parses the address of the hub.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, ValueProblem> {
    text.parse().map_err(|error: EndpointError| ("is not the address of a hub", error.to_string()))
}

/// Parses the keepalive interval; `None` disables it.
pub(super) fn keep_alive(text: &str) -> Result<Option<Duration>, ValueProblem> {
    match number(text) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        None if text.eq_ignore_ascii_case("off") => Ok(None),
        None => Err(("is not a time in seconds", "write `25`, or `off`".into())),
    }
}

/// Parses a number without a sign, up to 65535.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
