//! How a tunnel is, in words for whoever stands in front of it.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::counters::Counters;
use crate::settings::MTU_RANGE;

/// What is around a packet on the way: WireGuard's 32 bytes, UDP's 8 and IPv6's 40.
const OUTER_HEADERS_LEN: u32 = 80;

/// How a tunnel is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TunnelReport {
    /// Whether packets pass, and if not, the most likely reason.
    pub state: TunnelState,
    /// The same for a person: what is wrong, and what to do.
    pub sentence: String,
    /// The hub in use, by its name; empty at a hub's end.
    pub hub: String,
    /// Where datagrams are sent to, when that is known.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed, by our wall clock then.
    pub last_handshake: Option<SystemTime>,
    /// What it has done.
    pub counters: Counters,
}

/// Whether packets pass, and if not, the most likely reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelState {
    /// There is a session.
    Up,
    /// There is a session, but long packets are lost on the way.
    MtuTooLarge,
    /// The first initiations are on their way.
    Connecting,
    /// The hub's name could not be looked up, and no address is known from before.
    NoAddress,
    /// All addresses of the hub's name lie inside the tunnel, which cannot carry itself.
    AddressInside,
    /// Nothing comes back.
    Silent,
    /// The hub's host says that nothing listens there. Anybody on the way can say so.
    Refused,
    /// The hub answers that it is under load.
    Overloaded,
    /// The hub answers, but its answer does not fit: the preshared keys differ.
    WrongKey,
    /// The clock is so far ahead that a handshake would spoil the key at the hub: none is sent.
    ClockAhead,
    /// Nothing comes back, and the clock is behind: that may be why.
    ClockBehind,
    /// The hub's end waits to be called.
    Waiting,
}

impl TunnelState {
    /// Whether there is a session.
    #[must_use]
    pub const fn has_session(self) -> bool {
        matches!(self, Self::Up | Self::MtuTooLarge)
    }

    /// Its name in status and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::MtuTooLarge => "mtu_too_large",
            Self::Connecting => "connecting",
            Self::NoAddress => "no_address",
            Self::AddressInside => "address_inside",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::WrongKey => "wrong_key",
            Self::ClockAhead => "clock_ahead",
            Self::ClockBehind => "clock_behind",
            Self::Waiting => "waiting",
        }
    }
}

/// What the sentence of a site's end is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) hub: &'a str,
    pub(super) host: &'a str,
    pub(super) endpoint: Option<SocketAddr>,
    /// Our public key, as the operator of the hub knows it.
    pub(super) key: &'a str,
    /// Longest packet inside, in bytes.
    pub(super) mtu: u16,
}

/// Says what a state means.
pub(super) fn sentence(state: TunnelState, facts: &Facts<'_>) -> String {
    let Facts { hub, host, endpoint, key, mtu } = facts;
    let at = endpoint.map_or_else(|| (*host).to_owned(), |endpoint| endpoint.to_string());
    match state {
        TunnelState::Up => format!("The tunnel to {hub} is up."),
        TunnelState::MtuTooLarge => {
            let (least, whole) = (*MTU_RANGE.start(), u32::from(*mtu) + OUTER_HEADERS_LEN);
            let advice = if *mtu > least {
                format!("Set `mtu` in [tunnel] to {least}.")
            } else {
                format!(
                    "Ask whoever runs this site's network to let UDP packets of {whole} bytes to that \
                     address through, whole or in pieces."
                )
            };
            format!(
                "The tunnel to {hub} ({at}) is up, but packets of {mtu} bytes are lost on the way \
                 while short ones pass. {advice}"
            )
        }
        TunnelState::Connecting => format!("The tunnel to {hub} ({at}) is being set up."),
        TunnelState::NoAddress => format!(
            "The address of {hub} ({host}) cannot be found. Check that this site has Internet and \
             that its DNS server answers."
        ),
        TunnelState::AddressInside => format!(
            "The address of {hub} ({host}) lies in a network that the tunnel itself leads to \
             (`allowed_ips`), so it cannot be reached outside. Ask whoever wrote this configuration \
             to leave that address out of `allowed_ips`, or to give the hub another."
        ),
        TunnelState::Silent => format!(
            "Nothing comes back from {hub} ({at}). Ask whoever runs this site's network to let UDP \
             out to that address; if it is open, ask the operator of the hub whether it runs and \
             knows the key {key}."
        ),
        TunnelState::Refused => format!(
            "The computer at {at} answers, but {hub} is not running there. Ask the operator of the \
             hub to start WireGuard, and check the port."
        ),
        TunnelState::Overloaded => format!(
            "{hub} ({at}) answers that it has too much to do. The tunnel comes up by itself; if it \
             takes longer than an hour, tell the operator of the hub."
        ),
        TunnelState::WrongKey => format!(
            "{hub} ({at}) answers, but with another preshared key than ours. Ask the operator of \
             the hub for a new bundle for this site."
        ),
        TunnelState::ClockAhead => {
            "The clock of this device is far in the future, so the tunnel stays \
                              closed. Set the clock, or let NTP through; the tunnel then opens by \
                              itself."
                .to_owned()
        }
        TunnelState::ClockBehind => format!(
            "Nothing comes back from {hub} ({at}), and the clock of this device is in the past, \
             which a hub does not accept. Set the clock, or let NTP through; the tunnel then opens \
             by itself."
        ),
        TunnelState::Waiting => "No site has called yet.".to_owned(),
    }
}
