//! What stands behind the `=`. None of these shows the text that it was given.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::RoutePolicy;
use crate::key::KeyError;
use crate::settings::{Endpoint, MTU_RANGE};
use crate::transport::LocalPort;

/// What is wrong with a value, and what to write instead.
pub(super) type Wrong = (String, String);

fn wrong(what: &str, help: impl Into<String>) -> Wrong {
    (what.to_owned(), help.into())
}

/// A key of WireGuard.
pub(super) fn key<T: FromStr<Err = KeyError>>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|error: KeyError| wrong("is not a key", error.to_string()))
}

/// Addresses, each with or without the length of its network, separated by commas.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, Wrong> {
    let help = "write addresses like `10.77.0.12/32`, separated by commas";
    let network = |text: &str| {
        let text = text.trim();
        let alone = text.parse::<IpAddr>().map(IpNet::from);
        alone.or_else(|_| text.parse()).map_err(|_| wrong("is not a list of addresses", help))
    };
    text.split(',').map(network).collect()
}

/// The longest packet.
pub(super) fn mtu(text: &str) -> Result<u16, Wrong> {
    let (low, high) = (MTU_RANGE.start(), MTU_RANGE.end());
    let help = format!("write a number from {low} to {high}, or leave the line out for 1280");
    let mtu = number(text).filter(|mtu| MTU_RANGE.contains(mtu));
    mtu.ok_or_else(|| wrong("is not a length that works", help))
}

/// A port, where 0 leaves it to the system.
pub(super) fn port(text: &str) -> Result<LocalPort, Wrong> {
    match number(text) {
        Some(0) => Ok(LocalPort::Any),
        Some(port) => Ok(LocalPort::Fixed(port)),
        None => {
            Err(wrong("is not a port", "write a number from 1 to 65535, or leave the line out"))
        }
    }
}

/// Which routing table.
pub(super) fn table(text: &str) -> Result<RoutePolicy, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(RoutePolicy::Auto),
        "off" => Ok(RoutePolicy::Off),
        _ => Err(wrong(
            "names a routing table, and routes are made in the main one only",
            "write `auto`, or `off` to make your own routes",
        )),
    }
}

/// A mark for the packets to the hub.
pub(super) fn no_mark(text: &str) -> Result<(), Wrong> {
    let is_none = ["off", "0", "0x0"].contains(&text.to_ascii_lowercase().as_str());
    is_none.then_some(()).ok_or_else(|| {
        wrong(
            "asks for marked packets, which this program does not send",
            "remove the line, and name the networks behind the hub in AllowedIPs",
        )
    })
}

/// Whether the file is to be written back.
pub(super) fn not_saved(text: &str) -> Result<(), Wrong> {
    text.eq_ignore_ascii_case("false").then_some(()).ok_or_else(|| {
        wrong(
            "asks for this file to be overwritten, which this program does not do",
            "remove the line",
        )
    })
}

/// Where the hub listens.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let is_wrong =
        |error: crate::EndpointError| wrong("does not say where the hub is", error.to_string());
    text.parse().map_err(is_wrong)
}

/// How long an idle tunnel may be silent; `None` for ever.
pub(super) fn keep_alive(text: &str) -> Result<Option<Duration>, Wrong> {
    match number(text) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        None if text.eq_ignore_ascii_case("off") => Ok(None),
        None => Err(wrong("is not a time in seconds", "write `25`, or `off`")),
    }
}

/// A number without a sign, up to 65535.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
