//! One hub: its keys, where it is, and what has been heard from it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::handshake::{Hearing, Schedule};
use super::peer::{KEEPALIVE_ROOM, Peer, Ticked};
use crate::settings::{self, Endpoint};

/// Addresses of one hub that are tried; a name with more is a mistake or an attack.
const MOST_ADDRESSES: usize = 8;
/// A look-up that has not been answered by now never will be: its task has failed.
const LOOK_UP: Duration = Duration::from_secs(60);
/// Initiations without an answer after which a reason that was not seen again is forgotten.
const BELIEVED: u32 = 3;

/// Where a hub may be found. Outlives the link: the last good address helps when DNS does not.
#[derive(Debug)]
pub(super) struct Whereabouts {
    pub(super) settings: settings::Hub,
    addresses: Vec<SocketAddr>,
    /// Which of them is used.
    at: usize,
    /// Where the last authentic datagram came from, if from elsewhere.
    roamed: Option<SocketAddr>,
    /// When the look-up began that is under way.
    resolving: Option<Instant>,
    /// Why the last look-up brought nothing, if it did not.
    missing: Option<Missing>,
    /// Keys and stamps that it has taken, while no link uses them.
    proven: Option<Peer>,
}

/// Why a name has no address that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    /// It cannot be found.
    Unknown,
    /// All that it has lie inside the tunnel.
    Inside,
}

impl Whereabouts {
    pub(super) fn new(settings: settings::Hub) -> Self {
        let Endpoint { host, port } = &settings.endpoint;
        let literal = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, *port));
        Self {
            addresses: literal.into_iter().collect(),
            at: 0,
            roamed: None,
            resolving: None,
            missing: None,
            proven: None,
            settings,
        }
    }

    /// Takes what a link has that is not used any more. A hub ignores a stamp that is not later than
    /// the last: what it has taken is better than another by a clock that may be wrong.
    pub(super) fn put_away(&mut self, link: Link) {
        if let Some(mut peer) = link.peer.filter(|_| link.is_proven) {
            peer.rest();
            self.proven = Some(peer);
        }
    }

    pub(super) const fn take_proven(&mut self) -> Option<Peer> {
        self.proven.take()
    }

    /// Lets what was put away see the time: keys that are too old are forgotten.
    pub(super) fn tick(&mut self, now: Instant) {
        let Some(peer) = self.proven.as_mut().filter(|peer| now >= peer.tick_at()) else { return };
        if peer.tick(now, &mut [0; KEEPALIVE_ROOM]) == Ticked::Panicked {
            self.proven = None;
        }
    }

    /// Where to send to.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.roamed.or_else(|| self.addresses.get(self.at).copied())
    }

    /// How many addresses there are to try.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
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

    /// Why there is nothing to send to, if that is known.
    pub(super) fn missing(&self) -> Option<Missing> {
        self.missing.filter(|_| self.endpoint().is_none())
    }

    /// Whether its name has to be looked up now; then it counts as being looked up.
    pub(super) fn begin_to_resolve(&mut self, now: Instant) -> bool {
        let is_name = self.settings.endpoint.host.parse::<IpAddr>().is_err();
        let is_under_way = self.resolving.is_some_and(|since| now < since + LOOK_UP);
        let begins = is_name && !is_under_way;
        if begins {
            self.resolving = Some(now);
        }
        begins
    }

    /// The name has no address that can be used: the old ones may still be right.
    pub(super) const fn unresolved(&mut self, missing: Missing) {
        (self.resolving, self.missing) = (None, Some(missing));
    }

    /// Takes what the name means. Returns whether the address in use has changed.
    pub(super) fn resolved(&mut self, addresses: &[SocketAddr]) -> bool {
        if addresses.is_empty() {
            self.unresolved(Missing::Unknown);
            return false;
        }
        (self.resolving, self.missing) = (None, None);
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

/// The last reason that was seen. A host that refuses while it shuts down says nothing afterwards:
/// what is not seen again is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suspicion {
    trouble: Trouble,
    /// Initiations that stayed without an answer since.
    unanswered: u32,
}

impl Suspicion {
    /// A reason was seen.
    pub(super) const fn see(&mut self, trouble: Trouble) {
        *self = Self { trouble, unanswered: 0 };
    }

    /// An initiation has stayed without an answer.
    pub(super) fn unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= BELIEVED {
            *self = Self::default();
        }
    }

    pub(super) const fn trouble(&self) -> Trouble {
        self.trouble
    }
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
    pub(super) suspicion: Suspicion,
    /// Whether the hub has answered an initiation of this peer state: its stamps are good.
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
            suspicion: Suspicion { trouble: Trouble::None, unanswered: 0 },
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

    /// The clocks have jumped forward: the session may be older than it seems, and the router may
    /// have forgotten us while we slept.
    pub(super) fn doubt(&mut self, now: Instant) {
        if let Some(peer) = &mut self.peer {
            peer.doubt();
        }
        self.schedule.hurry(now);
    }

    /// Forgets keys and sessions; new ones are made for the next initiation, which is due now.
    pub(super) fn rebuild(&mut self, now: Instant) {
        self.peer = None;
        self.is_proven = false;
        self.schedule.hurry(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    fn hub(host: &str) -> Whereabouts {
        Whereabouts::new(settings::Hub {
            name: "hub".to_owned(),
            endpoint: Endpoint { host: host.to_owned(), port: 51820 },
            public_key: PrivateKey::generate().public(),
            preshared_key: None,
            allowed_ips: Vec::new(),
        })
    }

    #[test]
    fn a_look_up_that_is_never_answered_is_begun_again() {
        let now = Instant::now();
        let mut place = hub("hub.example.net");
        assert!(place.begin_to_resolve(now));
        assert!(!place.begin_to_resolve(now + LOOK_UP / 2));
        assert!(place.begin_to_resolve(now + LOOK_UP));
        place.unresolved(Missing::Unknown);
        assert!(place.begin_to_resolve(now + LOOK_UP));
        assert!(!hub("192.0.2.1").begin_to_resolve(now));
    }
}
