//! One hub: its keys, where it is, and what has been heard from it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::handshake::{Hearing, Schedule};
use super::peer::Peer;
use crate::settings::{self, Endpoint};

/// Addresses of one hub that are tried; a name with more is a mistake or an attack.
const MOST_ADDRESSES: usize = 8;

/// Where a hub may be found. Outlives the link: the last good address helps when DNS does not.
#[derive(Debug)]
pub(super) struct Whereabouts {
    pub(super) settings: settings::Hub,
    addresses: Vec<SocketAddr>,
    /// Which of them is used.
    at: usize,
    /// Where the last authentic datagram came from, if from elsewhere.
    roamed: Option<SocketAddr>,
    is_resolving: bool,
    /// Whether the last look-up failed.
    pub(super) is_unknown: bool,
}

impl Whereabouts {
    pub(super) fn new(settings: settings::Hub) -> Self {
        let Endpoint { host, port } = &settings.endpoint;
        let literal = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, *port));
        Self {
            addresses: literal.into_iter().collect(),
            at: 0,
            roamed: None,
            is_resolving: false,
            is_unknown: false,
            settings,
        }
    }

    /// Where to send to.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.roamed.or_else(|| self.addresses.get(self.at).copied())
    }

    /// How many addresses there are to try.
    pub(super) const fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Takes the address that an authentic datagram came from; returns whether it is another.
    pub(super) fn roam(&mut self, from: SocketAddr) -> bool {
        let is_other = self.endpoint() != Some(from);
        if is_other {
            match self.addresses.iter().position(|address| *address == from) {
                Some(at) => (self.at, self.roamed) = (at, None),
                None => self.roamed = Some(from),
            }
        }
        is_other
    }

    /// The address in use does not answer.
    pub(super) fn next_address(&mut self) {
        if self.roamed.take().is_none() {
            self.at = (self.at + 1) % self.addresses.len().max(1);
        }
    }

    /// Whether its name has to be looked up now; then it counts as being looked up.
    pub(super) fn begin_to_resolve(&mut self) -> bool {
        let is_name = self.settings.endpoint.host.parse::<IpAddr>().is_err();
        is_name && !std::mem::replace(&mut self.is_resolving, true)
    }

    /// Takes what the name means; an empty answer changes nothing, the old addresses may still be
    /// right. Returns whether the address in use has changed.
    pub(super) fn resolved(&mut self, addresses: &[SocketAddr]) -> bool {
        self.is_resolving = false;
        self.is_unknown = addresses.is_empty();
        if addresses.is_empty() {
            return false;
        }
        let before = self.endpoint();
        let used = self.addresses.get(self.at).copied();
        self.addresses = addresses.iter().copied().take(MOST_ADDRESSES).collect();
        let kept = self.addresses.iter().position(|address| Some(*address) == used);
        self.at = kept.unwrap_or_default();
        before != self.endpoint()
    }
}

/// Why there is no session, as far as can be seen from here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Trouble {
    /// Nothing is known.
    #[default]
    None,
    /// The host says that nothing listens on the port.
    Refused,
    /// It answers that it is under load.
    Overloaded,
    /// It answers, and its answer does not fit our keys.
    WrongKey,
}

/// The tunnel to one hub.
#[derive(Debug)]
pub(super) struct Link {
    /// Its number in the settings.
    pub(super) hub: usize,
    /// Absent while the clock forbids a handshake, and after a panic.
    pub(super) peer: Option<Peer>,
    pub(super) schedule: Schedule,
    pub(super) hearing: Hearing,
    pub(super) trouble: Trouble,
    /// Whether this peer state has had a session: its stamps are good.
    pub(super) is_proven: bool,
    /// When the last authentic datagram was sent.
    pub(super) sent: Instant,
}

impl Link {
    pub(super) const fn new(hub: usize, schedule: Schedule, now: Instant) -> Self {
        Self {
            hub,
            peer: None,
            schedule,
            hearing: Hearing::new(),
            trouble: Trouble::None,
            is_proven: false,
            sent: now,
        }
    }

    /// When the session that may be used for sending began.
    pub(super) fn session(&self, now: Instant) -> Option<Instant> {
        self.peer.as_ref()?.session(now)
    }

    /// When to send a keepalive, if there is a session then.
    pub(super) fn keep_alive_at(&self, every: Option<Duration>) -> Option<Instant> {
        let at = self.sent + every?;
        self.session(at).map(|_| at)
    }

    /// Forgets keys and sessions; new ones are made for the next initiation, which is due now.
    pub(super) fn rebuild(&mut self, now: Instant) {
        self.peer = None;
        self.is_proven = false;
        self.schedule.hurry(now);
    }
}
