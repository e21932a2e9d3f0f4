//! One hub: its keys, where it is, and what has been heard from it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::handshake::{HandshakeTimer, Liveness};
use super::peer::{KEEPALIVE_LEN, Peer, TimerOutcome};
use crate::settings::{self, Endpoint};

/// Addresses of one hub that are tried; a name with more is a mistake or an attack.
const MAX_ADDRESSES: usize = 8;
/// A look-up that has not been answered by now never will be: its task has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Initiations without an answer after which a reason that was not seen again is forgotten.
const CAUSE_MAX_UNANSWERED: u32 = 3;

/// Where a hub may be found. Outlives the link: the last good address helps when DNS does not.
#[derive(Debug)]
pub(super) struct HubEndpoint {
    pub(super) settings: settings::Hub,
    addresses: Vec<SocketAddr>,
    /// Which of them is used.
    current: usize,
    /// Where the last authentic datagram came from, if from elsewhere.
    roamed_to: Option<SocketAddr>,
    /// When the look-up began that is under way.
    lookup_started: Option<Instant>,
    /// Why the last look-up brought nothing, if it did not.
    resolve_failure: Option<ResolveFailure>,
    /// Keys and stamps that it has taken, while no link uses them.
    proven_peer: Option<Peer>,
}

/// Why a name has no address that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ResolveFailure {
    /// It cannot be found.
    NotFound,
    /// All that it has lie inside the tunnel.
    InsideTunnel,
}

impl HubEndpoint {
    pub(super) fn new(settings: settings::Hub) -> Self {
        let Endpoint { host, port } = &settings.endpoint;
        let literal = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, *port));
        Self {
            addresses: literal.into_iter().collect(),
            current: 0,
            roamed_to: None,
            lookup_started: None,
            resolve_failure: None,
            proven_peer: None,
            settings,
        }
    }

    /// Takes what a link has that is not used any more. A hub ignores a stamp that is not later than
    /// the last: what it has taken is better than another by a clock that may be wrong.
    pub(super) fn keep_proven_peer(&mut self, link: HubLink) {
        if let Some(mut peer) = link.peer.filter(|_| link.is_proven) {
            peer.discard_session();
            self.proven_peer = Some(peer);
        }
    }

    pub(super) const fn take_proven_peer(&mut self) -> Option<Peer> {
        self.proven_peer.take()
    }

    /// Lets what was put away see the time: keys that are too old are forgotten.
    pub(super) fn update_timers(&mut self, now: Instant) {
        let Some(peer) = self.proven_peer.as_mut().filter(|peer| now >= peer.next_tick_at()) else {
            return;
        };
        if peer.update_timers(now, &mut [0; KEEPALIVE_LEN]) == TimerOutcome::Panicked {
            self.proven_peer = None;
        }
    }

    /// Where to send to.
    pub(super) fn current_address(&self) -> Option<SocketAddr> {
        self.roamed_to.or_else(|| self.addresses.get(self.current).copied())
    }

    /// How many addresses there are to try.
    pub(super) fn address_count(&self) -> u32 {
        u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
    }

    /// Takes the address that an authentic datagram came from; returns whether it is another.
    pub(super) fn roam(&mut self, from: SocketAddr) -> bool {
        let is_other = self.current_address() != Some(from);
        if is_other {
            match self.addresses.iter().position(|address| *address == from) {
                Some(at) => (self.current, self.roamed_to) = (at, None),
                None => self.roamed_to = Some(from),
            }
        }
        is_other
    }

    /// The address in use does not answer.
    pub(super) fn advance_address(&mut self) {
        if self.roamed_to.take().is_none() {
            self.current = (self.current + 1) % self.addresses.len().max(1);
        }
    }

    /// Why there is nothing to send to, if that is known.
    pub(super) fn resolve_failure(&self) -> Option<ResolveFailure> {
        self.resolve_failure.filter(|_| self.current_address().is_none())
    }

    /// Whether its name has to be looked up now; then it counts as being looked up.
    pub(super) fn start_lookup(&mut self, now: Instant) -> bool {
        let is_name = self.settings.endpoint.host.parse::<IpAddr>().is_err();
        let is_under_way = self.lookup_started.is_some_and(|since| now < since + LOOKUP_TIMEOUT);
        let begins = is_name && !is_under_way;
        if begins {
            self.lookup_started = Some(now);
        }
        begins
    }

    /// The name has no address that can be used: the old ones may still be right.
    pub(super) const fn on_resolve_failed(&mut self, missing: ResolveFailure) {
        (self.lookup_started, self.resolve_failure) = (None, Some(missing));
    }

    /// Takes what the name means. Returns whether the address in use has changed.
    pub(super) fn on_resolved(&mut self, addresses: &[SocketAddr]) -> bool {
        if addresses.is_empty() {
            self.on_resolve_failed(ResolveFailure::NotFound);
            return false;
        }
        (self.lookup_started, self.resolve_failure) = (None, None);
        let before = self.current_address();
        let used = self.addresses.get(self.current).copied();
        self.addresses = addresses.iter().copied().take(MAX_ADDRESSES).collect();
        let kept = self.addresses.iter().position(|address| Some(*address) == used);
        self.current = kept.unwrap_or_default();
        before != self.current_address()
    }
}

/// Why there is no session, as far as can be seen from here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum FailureCause {
    /// Nothing is known.
    #[default]
    Unknown,
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
pub(super) struct LastCause {
    cause: FailureCause,
    /// Initiations that stayed without an answer since.
    unanswered: u32,
}

impl LastCause {
    /// A reason was seen.
    pub(super) const fn on_cause(&mut self, trouble: FailureCause) {
        *self = Self { cause: trouble, unanswered: 0 };
    }

    /// An initiation has stayed without an answer.
    pub(super) fn on_unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= CAUSE_MAX_UNANSWERED {
            *self = Self::default();
        }
    }

    pub(super) const fn cause(&self) -> FailureCause {
        self.cause
    }
}

/// The tunnel to one hub.
#[derive(Debug)]
pub(super) struct HubLink {
    /// Its number in the settings.
    pub(super) hub: usize,
    /// Absent while the clock forbids a handshake, and after a panic.
    pub(super) peer: Option<Peer>,
    pub(super) timer: HandshakeTimer,
    pub(super) liveness: Liveness,
    pub(super) last_cause: LastCause,
    /// Whether the hub has answered an initiation of this peer state: its stamps are good.
    pub(super) is_proven: bool,
    /// When the last authentic datagram was sent.
    pub(super) last_sent: Instant,
}

impl HubLink {
    pub(super) const fn new(hub: usize, schedule: HandshakeTimer, now: Instant) -> Self {
        Self {
            hub,
            peer: None,
            timer: schedule,
            liveness: Liveness::new(),
            last_cause: LastCause { cause: FailureCause::Unknown, unanswered: 0 },
            is_proven: false,
            last_sent: now,
        }
    }

    /// When the session that may be used for sending began.
    pub(super) fn session_start(&self, now: Instant) -> Option<Instant> {
        self.peer.as_ref()?.session_start(now)
    }

    /// Returns the deadlines of the peer, of the next initiation and of [`Self::suspect_at`].
    pub(super) fn deadlines(
        &self,
        keep_alive: Option<Duration>,
    ) -> impl Iterator<Item = Instant> + use<> {
        let tick = self.peer.as_ref().map(Peer::next_tick_at);
        let initiation = self.timer.next_initiation_at();
        [tick, initiation, self.suspect_at(keep_alive)].into_iter().flatten()
    }

    /// Returns when the link has been silent for too long and a handshake can be begun.
    pub(super) fn suspect_at(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let can_suspect = self.peer.is_some() && !self.timer.is_outstanding();
        let at = self.liveness.suspect_at(keep_alive).filter(|_| can_suspect)?;
        // An earlier deadline would wake the driver for nothing.
        Some(self.timer.earliest_retry_at().map_or(at, |earliest| earliest.max(at)))
    }

    /// When to send a keepalive, if there is a session then.
    pub(super) fn next_keepalive_at(&self, every: Option<Duration>) -> Option<Instant> {
        let at = self.last_sent + every?;
        self.session_start(at).map(|_| at)
    }

    /// The clocks have jumped forward: the session may be older than it seems, and the router may
    /// have forgotten us while we slept.
    pub(super) fn mark_stale(&mut self, now: Instant) {
        if let Some(peer) = &mut self.peer {
            peer.mark_stale();
        }
        self.timer.retry_now(now);
    }

    /// Forgets keys and sessions; new ones are made for the next initiation, which is due now.
    pub(super) fn reset_peer(&mut self, now: Instant) {
        self.peer = None;
        self.is_proven = false;
        self.timer.retry_now(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    fn hub(host: &str) -> HubEndpoint {
        HubEndpoint::new(settings::Hub {
            name: "hub".to_owned(),
            endpoint: Endpoint { host: host.to_owned(), port: 51820 },
            public_key: PrivateKey::generate().public_key(),
            preshared_key: None,
            allowed_ips: Vec::new(),
        })
    }

    #[test]
    fn a_look_up_that_is_never_answered_is_begun_again() {
        let now = Instant::now();
        let mut place = hub("hub.example.net");
        assert!(place.start_lookup(now));
        assert!(!place.start_lookup(now + LOOKUP_TIMEOUT / 2));
        assert!(place.start_lookup(now + LOOKUP_TIMEOUT));
        place.on_resolve_failed(ResolveFailure::NotFound);
        assert!(place.start_lookup(now + LOOKUP_TIMEOUT));
        assert!(!hub("192.0.2.1").start_lookup(now));
    }
}
