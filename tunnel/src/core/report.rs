//! The state of a tunnel, and what it means for an installer.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::counters::Counters;
use super::hub_link::HubEndpoint;
use crate::settings::{MTU_RANGE, Settings};

/// Headers around a packet inside the tunnel: 32 bytes of WireGuard, 8 of UDP and 40 of IPv6.
const OUTER_HEADERS_LEN: u16 = 80;

/// A snapshot of a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelReport {
    /// Whether packets pass, and if not, the most likely reason.
    pub state: TunnelState,
    /// The same with names and addresses, for an installer.
    pub diagnosis: TunnelDiagnosis,
    /// Name of the hub in use; empty at the hub's end.
    pub hub: String,
    /// Address that datagrams are sent to; `None` until it is known.
    pub endpoint: Option<SocketAddr>,
    /// Since when packets were sent without anything coming back from the hub.
    pub unanswered_since: Option<Instant>,
    /// When the last handshake completed, by this machine's wall clock at that time.
    pub last_handshake: Option<SystemTime>,
    /// The timestamp of the latest handshake that the hub in use has accepted, also from an earlier
    /// run.
    pub accepted_stamp: Option<SystemTime>,
    /// Counters since the start.
    pub counters: Counters,
}

/// Whether packets pass, and if not, the most likely reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelState {
    /// There is a session.
    Up,
    /// There is a session, but long packets are lost on the way.
    MtuTooLarge,
    /// There is a session, but the hub returns no packets.
    NoData,
    /// There is a session, but another device uses the same key.
    KeyShared,
    /// The first initiations are in flight.
    Connecting,
    /// The hub's name is being looked up, and no earlier address is known.
    LookingUp,
    /// The hub's name does not resolve, and no earlier address is known.
    NoAddress,
    /// All addresses of the hub's name are inside the tunnel, which cannot carry itself.
    AddressInside,
    /// The host routes the datagrams of the tunnel into the tunnel itself.
    RoutedInside,
    /// The network interface of the tunnel cannot be created.
    NoInterface,
    /// The network interface of the tunnel was taken down.
    InterfaceDown,
    /// The DNS server is reached through the tunnel only, and the hub's address is not known.
    ResolverInside,
    /// The DNS server answers with an address that no hub can have.
    NameBlocked,
    /// The hub's name leads to this site's router, where no tunnel answers.
    CaptivePortal,
    /// This host has no route to the hub.
    NoRoute,
    /// The firewall of this host forbids datagrams to the hub.
    OwnFirewall,
    /// A router on the way rejects them. The report can be forged, as all of other hosts.
    RouterRefuses,
    /// A firewall on the way forbids them.
    Prohibited,
    /// A router on the way has no route to the hub.
    RouterNoRoute,
    /// Nothing comes back.
    Silent,
    /// The hub's host reports that nothing listens on the port. The report can be forged.
    Refused,
    /// The hub answers with a cookie: it is under load.
    Overloaded,
    /// The hub answers, but the preshared keys differ.
    WrongKey,
    /// The hub answers, but wants a preshared key, and there is none.
    PresharedKeyMissing,
    /// The clock is so far ahead that a handshake would block the key at the hub: none is sent.
    ClockAhead,
    /// Nothing comes back, and the clock is behind, which may be the reason.
    ClockBehind,
    /// The hub has accepted a handshake with a later time than that of the clock, and ignores those
    /// with an earlier one.
    StampAhead,
    /// The hub's end waits for the first site.
    Waiting,
}

impl TunnelState {
    /// Returns whether there is a session.
    #[must_use]
    pub const fn has_session(self) -> bool {
        matches!(self, Self::Up | Self::MtuTooLarge | Self::NoData | Self::KeyShared)
    }

    /// Returns whether packets pass in both directions, at least short ones. If not, this is why a
    /// broker behind the hub is not reached.
    #[must_use]
    pub const fn carries_data(self) -> bool {
        matches!(self, Self::Up | Self::MtuTooLarge)
    }

    /// Returns its name in status and metrics.
    ///
    /// ```
    /// use tunnel::TunnelState;
    ///
    /// assert_eq!(TunnelState::WrongKey.label(), "wrong_key");
    /// assert!(TunnelState::Up.has_session() && !TunnelState::Silent.has_session());
    /// ```
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::MtuTooLarge => "mtu_too_large",
            Self::NoData => "no_data",
            Self::KeyShared => "key_shared",
            Self::Connecting => "connecting",
            Self::LookingUp => "looking_up",
            Self::NoAddress => "no_address",
            Self::AddressInside => "address_inside",
            Self::RoutedInside => "routed_inside",
            Self::NoInterface => "no_interface",
            Self::InterfaceDown => "interface_down",
            Self::ResolverInside => "resolver_inside",
            Self::NameBlocked => "name_blocked",
            Self::CaptivePortal => "captive_portal",
            Self::NoRoute => "no_route",
            Self::OwnFirewall => "own_firewall",
            Self::RouterRefuses => "router_refuses",
            Self::Prohibited => "prohibited",
            Self::RouterNoRoute => "router_no_route",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::WrongKey => "wrong_key",
            Self::PresharedKeyMissing => "preshared_key_missing",
            Self::ClockAhead => "clock_ahead",
            Self::ClockBehind => "clock_behind",
            Self::StampAhead => "stamp_ahead",
            Self::Waiting => "waiting",
        }
    }
}

/// A sentence about a tunnel: what is wrong, where, and what to do.
///
/// It serialises as a code and named arguments, from which a program can make the same sentence in
/// another language; `Display` renders it in English. `address` is the hub's address, or the host
/// of its endpoint as long as no address is known.
///
/// ```
/// use tunnel::TunnelDiagnosis;
///
/// let diagnosis = TunnelDiagnosis::Up { hub: "hub-a".to_owned() };
/// assert_eq!(diagnosis.to_string(), "The tunnel to hub-a is up.");
/// let json = serde_json::to_string(&diagnosis)?;
/// assert_eq!(json, r#"{"code":"up","arguments":{"hub":"hub-a"}}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Eq, Error, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the arguments are named as in the sentences below")]
pub enum TunnelDiagnosis {
    #[error("The tunnel to {hub} is up.")]
    Up { hub: String },
    #[error(
        "The tunnel to {hub} ({address}) is up, but packets of {mtu} bytes are lost on the way \
         while short ones pass. Set `mtu` in [tunnel] to {smallest_mtu}."
    )]
    MtuTooLarge { hub: String, address: String, mtu: u16, smallest_mtu: u16 },
    #[error(
        "The tunnel to {hub} ({address}) is up, but packets of {mtu} bytes are lost on the way \
         while short ones pass. Ask this site's network administrator to let UDP packets of \
         {datagram_bytes} bytes to that address through, whole or fragmented."
    )]
    PathTooNarrow { hub: String, address: String, mtu: u16, datagram_bytes: u16 },
    #[error(
        "{hub} ({address}) answers, but returns no data. Ask the operator of the hub whether \
         `AllowedIPs` of the key {public_key} contains {own_address}, and whether the networks \
         behind the hub know the way back."
    )]
    NoData { hub: String, address: String, own_address: String, public_key: String },
    #[error(
        "Another device uses the key of this gateway ({public_key}) at {hub}, and each interrupts \
         the other. Generate another key for one of them with `edge-gateway keygen`, and register \
         it at the hub."
    )]
    KeyShared { hub: String, public_key: String },
    #[error("Connecting to {hub} ({address}).")]
    Connecting { hub: String, address: String },
    #[error(
        "The address of {hub} ({host}) is being looked up. If this lasts, check that this site's \
         DNS server answers."
    )]
    LookingUp { hub: String, host: String },
    #[error(
        "The address of {hub} ({host}) cannot be found. Check the site's Internet access and its \
         DNS server."
    )]
    NoAddress { hub: String, host: String },
    #[error(
        "The address of {hub} ({host}) is in a network that is routed through the tunnel \
         (`allowed_ips`), so the hub cannot be reached. Remove that network from `allowed_ips`, or \
         give the hub another address."
    )]
    AddressInside { hub: String, host: String },
    #[error(
        "This device routes the datagrams for {hub} ({address}) into the tunnel itself, where \
         they are dropped. Check the cable and the route to that address: it must not lead through \
         the tunnel's network interface."
    )]
    RoutedInside { hub: String, address: String },
    #[error("The tunnel has no network interface: {cause}. The gateway tries again every 10 s.")]
    NoInterface { cause: String },
    #[error(
        "The tunnel's network interface {interface} was taken down. Take it up with `ip link set \
         {interface} up`, or restart the gateway."
    )]
    InterfaceDown { interface: String },
    #[error(
        "The address of {hub} ({host}) cannot be looked up: the DNS server {resolver} is in a \
         network that is routed through the tunnel (`allowed_ips`). Remove that network from \
         `allowed_ips`, or use another DNS server."
    )]
    ResolverInside { hub: String, host: String, resolver: String },
    #[error(
        "The DNS server blocks the name {host} of {hub}: it answers {answer}. Ask this site's \
         network administrator to allow the name, or use another DNS server."
    )]
    NameBlocked { hub: String, host: String, answer: String },
    #[error(
        "The name {host} of {hub} leads to {answer}, the router of this site, where no hub \
         answers. If that network has a login page, log in there; else ask its administrator what \
         the DNS server does with the name."
    )]
    CaptivePortal { hub: String, host: String, answer: String },
    #[error(
        "This device has no route to {hub} ({address}). Check the cable, the Wi-Fi or the SIM \
         card, and that the device gets an address and a router (DHCP)."
    )]
    NoRoute { hub: String, address: String },
    #[error(
        "The firewall of this device blocks UDP to {hub} ({address}). Allow it in its rules (`nft \
         list ruleset`)."
    )]
    OwnFirewall { hub: String, address: String },
    #[error(
        "{router}, a router on the way, rejects UDP to {hub} ({address}). Ask this site's network \
         administrator to allow UDP to that address."
    )]
    RouterRefuses { hub: String, address: String, router: String },
    #[error(
        "A firewall on the way, {router}, forbids UDP to {hub} ({address}). Ask this site's \
         network administrator to allow UDP to that address."
    )]
    Prohibited { hub: String, address: String, router: String },
    #[error(
        "{router}, a router on the way, cannot reach {hub} ({address}). Check this site's \
         Internet access; if it works, ask the operator of the hub whether it is on."
    )]
    RouterNoRoute { hub: String, address: String, router: String },
    #[error(
        "Nothing comes back from {hub} ({address}). Ask this site's network administrator to \
         allow UDP to that address. If it is allowed, ask the operator of the hub whether \
         WireGuard runs there and knows the key {public_key}, and compare `public_key` here with \
         the hub's."
    )]
    Silent { hub: String, address: String, public_key: String },
    #[error(
        "The host at {address} answers, but {hub} is not running there. Ask the operator of the \
         hub to start WireGuard, and check the port."
    )]
    Refused { hub: String, address: String },
    #[error(
        "{hub} ({address}) answers that it is under load. The gateway keeps trying; if this lasts \
         for hours, inform the operator of the hub."
    )]
    Overloaded { hub: String, address: String },
    #[error(
        "{hub} ({address}) answers, but with a different preshared key or with none. Ask the \
         operator of the hub for this site's preshared key."
    )]
    WrongKey { hub: String, address: String },
    #[error(
        "{hub} ({address}) answers, but requires a preshared key, and this configuration has \
         none. Ask the operator of the hub for it, and set `preshared_key_file`."
    )]
    PresharedKeyMissing { hub: String, address: String },
    #[error(
        "The clock of this device is far in the future, so no handshake is sent. Set the clock; \
         the tunnel then connects automatically. If the clock is right, let NTP through: the \
         tunnel connects an hour later."
    )]
    ClockAhead,
    #[error(
        "Nothing comes back from {hub} ({address}), and the clock of this device is in the past, \
         which a hub does not accept. Set the clock, or let NTP through; the tunnel then connects \
         automatically."
    )]
    ClockBehind { hub: String, address: String },
    #[error(
        "{hub} ({address}) has accepted a handshake of this device with the time {accepted}, and \
         ignores those with an earlier time. If the clock of this device is right now, ask the \
         operator of the hub to remove the key {public_key} and to add it again; if not, set the \
         clock."
    )]
    StampAhead { hub: String, address: String, accepted: String, public_key: String },
    #[error("A site is connected.")]
    SiteConnected,
    #[error("No site has connected yet.")]
    WaitingForSites,
}

/// What only some sentences need, as text; empty where it is not known.
#[derive(Debug, Default)]
pub(super) struct DiagnosisDetails {
    /// The router that reports a failure.
    pub(super) router: String,
    /// What the hub's name resolves to.
    pub(super) answer: String,
    /// A DNS server that is reached through the tunnel only.
    pub(super) resolver: String,
    /// Name of the network interface that is down.
    pub(super) interface: String,
    /// Address of the site in the tunnel.
    pub(super) own_address: String,
}

impl TunnelDiagnosis {
    /// Returns the meaning of a state at a site whose active hub is at `endpoint`.
    pub(super) fn of_site(
        state: TunnelState,
        endpoint: Option<&HubEndpoint>,
        settings: &Settings,
        details: DiagnosisDetails,
    ) -> Self {
        let DiagnosisDetails { router, answer, resolver, interface, own_address } = details;
        let public_key = settings.private_key.public_key().to_string();
        let peer = endpoint.map(|endpoint| &endpoint.settings);
        let hub = peer.map(|peer| peer.name.clone()).unwrap_or_default();
        let host = peer.map(|peer| peer.endpoint.host.clone()).unwrap_or_default();
        let address = endpoint.and_then(HubEndpoint::current_address);
        let address = address.map_or_else(|| host.clone(), |address| address.to_string());
        let (mtu, smallest_mtu) = (settings.mtu, *MTU_RANGE.start());
        match state {
            TunnelState::Up => Self::Up { hub },
            TunnelState::MtuTooLarge if mtu > smallest_mtu => {
                Self::MtuTooLarge { hub, address, mtu, smallest_mtu }
            }
            TunnelState::MtuTooLarge => {
                let datagram_bytes = mtu.saturating_add(OUTER_HEADERS_LEN);
                Self::PathTooNarrow { hub, address, mtu, datagram_bytes }
            }
            TunnelState::NoData => Self::NoData { hub, address, own_address, public_key },
            TunnelState::KeyShared => Self::KeyShared { hub, public_key },
            TunnelState::Connecting => Self::Connecting { hub, address },
            TunnelState::LookingUp => Self::LookingUp { hub, host },
            TunnelState::NoAddress => Self::NoAddress { hub, host },
            TunnelState::AddressInside => Self::AddressInside { hub, host },
            TunnelState::RoutedInside => Self::RoutedInside { hub, address },
            TunnelState::NoInterface => Self::NoInterface { cause: String::new() },
            TunnelState::InterfaceDown => Self::InterfaceDown { interface },
            TunnelState::ResolverInside => Self::ResolverInside { hub, host, resolver },
            TunnelState::NameBlocked => Self::NameBlocked { hub, host, answer },
            TunnelState::CaptivePortal => Self::CaptivePortal { hub, host, answer },
            TunnelState::NoRoute => Self::NoRoute { hub, address },
            TunnelState::OwnFirewall => Self::OwnFirewall { hub, address },
            TunnelState::RouterRefuses => Self::RouterRefuses { hub, address, router },
            TunnelState::Prohibited => Self::Prohibited { hub, address, router },
            TunnelState::RouterNoRoute => Self::RouterNoRoute { hub, address, router },
            TunnelState::Silent => Self::Silent { hub, address, public_key },
            TunnelState::Refused => Self::Refused { hub, address },
            TunnelState::Overloaded => Self::Overloaded { hub, address },
            TunnelState::WrongKey => Self::WrongKey { hub, address },
            TunnelState::PresharedKeyMissing => Self::PresharedKeyMissing { hub, address },
            TunnelState::ClockAhead => Self::ClockAhead,
            TunnelState::ClockBehind => Self::ClockBehind { hub, address },
            TunnelState::StampAhead => {
                let accepted = endpoint.and_then(|endpoint| endpoint.accepted_stamp);
                let accepted = accepted.map(to_date).unwrap_or_default();
                Self::StampAhead { hub, address, accepted, public_key }
            }
            TunnelState::Waiting => Self::WaitingForSites,
        }
    }
}

/// Returns the time in seconds, as RFC 3339 writes it.
fn to_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diagnosis_is_a_code_with_named_arguments() {
        let narrow = TunnelDiagnosis::PathTooNarrow {
            hub: "hub-a".to_owned(),
            address: "192.0.2.1:51820".to_owned(),
            mtu: 1280,
            datagram_bytes: 1360,
        };
        let expected = json!({
            "code": "path_too_narrow",
            "arguments": {
                "hub": "hub-a",
                "address": "192.0.2.1:51820",
                "mtu": 1280,
                "datagram_bytes": 1360,
            },
        });
        assert_eq!(serde_json::to_value(&narrow).unwrap(), expected);
        assert!(narrow.to_string().contains("let UDP packets of 1360 bytes to that address"));
        assert_eq!(to_date(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        let ahead = serde_json::to_value(TunnelDiagnosis::ClockAhead).unwrap();
        assert_eq!(ahead, json!({"code": "clock_ahead"}));
    }
}
