//! One hub: its keys, its addresses, and the link to it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::handshake::{HandshakeTimer, Liveness};
use super::path_error::{PathError, PathErrorCause, PathErrorStreak};
use super::peer::{KEEPALIVE_LEN, Peer, TimerOutcome};
use crate::settings::{self, Endpoint};

/// Addresses of a hub that are tried; a name with more is a mistake or an attack.
const MAX_ADDRESSES: usize = 8;
/// Time after which a look-up without an answer counts as lost.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Unanswered initiations after which a cause that was not seen again is forgotten.
const CAUSE_MAX_UNANSWERED: u32 = 3;

/// Where a hub is. It outlives the link: the last good address helps while DNS is down.
#[derive(Debug)]
pub(super) struct HubEndpoint {
    pub(super) settings: settings::Hub,
    addresses: Vec<SocketAddr>,
    /// Index of the address in use.
    current: usize,
    /// Source of the last authentic datagram, if it is none of the addresses.
    roamed_to: Option<SocketAddr>,
    /// Start of the look-up in progress.
    lookup_started: Option<Instant>,
    /// Why the last look-up gave no usable address.
    resolve_failure: Option<ResolveFailure>,
    /// Keys and timestamps that the hub has accepted, while no link uses them.
    proven_peer: Option<Peer>,
    /// The timestamp of the latest handshake that the hub has accepted, also from an earlier run.
    pub(super) accepted_stamp: Option<SystemTime>,
}

/// Why a name has no usable address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ResolveFailure {
    /// The name does not resolve.
    NotFound,
    /// All addresses are inside the tunnel.
    InsideTunnel,
    /// All addresses are such as no hub can have; this is the first.
    Blocked(IpAddr),
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
            accepted_stamp: None,
            settings,
        }
    }

    /// Keeps the peer of a link that is no longer used, if the hub has accepted its timestamps. A
    /// new peer would take its timestamps from a clock that may be wrong.
    pub(super) fn keep_proven_peer(&mut self, link: HubLink) {
        if let Some(mut peer) = link.peer.filter(|_| link.is_proven) {
            peer.discard_session();
            self.proven_peer = Some(peer);
        }
    }

    pub(super) const fn take_proven_peer(&mut self) -> Option<Peer> {
        self.proven_peer.take()
    }

    /// Returns whether the hub ignores the handshakes of a link, because it has accepted one with a
    /// later timestamp. A new peer would start at `wall`.
    pub(super) fn is_stamp_ahead(&self, link: &HubLink, wall: SystemTime) -> bool {
        // The timestamps of a peer that the hub has accepted only grow.
        let is_proven = link.is_proven || (link.peer.is_none() && self.proven_peer.is_some());
        let next = link.peer.as_ref().map_or(wall, Peer::stamp);
        !is_proven && self.accepted_stamp.is_some_and(|accepted| accepted >= next)
    }

    /// Runs the timers of the kept peer, so that old keys expire.
    pub(super) fn update_timers(&mut self, now: Instant) {
        let Some(peer) = self.proven_peer.as_mut().filter(|peer| now >= peer.next_tick_at()) else {
            return;
        };
        if peer.update_timers(now, &mut [0; KEEPALIVE_LEN]) == TimerOutcome::Panicked {
            self.proven_peer = None;
        }
    }

    /// Returns the address to send to.
    pub(super) fn current_address(&self) -> Option<SocketAddr> {
        self.roamed_to.or_else(|| self.addresses.get(self.current).copied())
    }

    /// Returns how many addresses there are to try.
    pub(super) fn address_count(&self) -> u32 {
        u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
    }

    /// Records the source of an authentic datagram; returns whether it differs from the address in
    /// use.
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

    /// Keeps the addresses that `keep` accepts.
    pub(super) fn retain_addresses(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        self.addresses.retain(&keep);
        self.roamed_to = self.roamed_to.filter(keep);
        self.current = 0;
    }

    /// Moves on to the next address, because the current one does not answer.
    pub(super) fn advance_address(&mut self) {
        // The address that the hub has roamed to is dropped first, for those of its name.
        if self.roamed_to.take().is_none() {
            self.current = (self.current + 1) % self.addresses.len().max(1);
        }
    }

    /// Returns why there is no address, if that is known.
    pub(super) fn resolve_failure(&self) -> Option<ResolveFailure> {
        self.resolve_failure.filter(|_| self.current_address().is_none())
    }

    /// Returns whether no address is known and a look-up is in progress.
    pub(super) fn is_looking_up(&self) -> bool {
        self.lookup_started.is_some() && self.current_address().is_none()
    }

    /// Starts a look-up; returns whether one is needed and none is in progress.
    pub(super) fn start_lookup(&mut self, now: Instant) -> bool {
        // A literal address never changes.
        let is_name = self.settings.endpoint.host.parse::<IpAddr>().is_err();
        let is_under_way = self.lookup_started.is_some_and(|since| now < since + LOOKUP_TIMEOUT);
        let begins = is_name && !is_under_way;
        if begins {
            self.lookup_started = Some(now);
        }
        begins
    }

    /// Records a failed look-up. The old addresses stay, because they may still be right.
    pub(super) const fn on_resolve_failed(&mut self, failure: ResolveFailure) {
        (self.lookup_started, self.resolve_failure) = (None, Some(failure));
    }

    /// Records the addresses of the name; returns whether the address in use has changed.
    pub(super) fn on_resolved(&mut self, addresses: &[SocketAddr]) -> bool {
        if addresses.is_empty() {
            self.on_resolve_failed(ResolveFailure::NotFound);
            return false;
        }
        (self.lookup_started, self.resolve_failure) = (None, None);
        let before = self.current_address();
        let used = self.addresses.get(self.current).copied();
        self.addresses = addresses.iter().copied().take(MAX_ADDRESSES).collect();
        // Round-robin DNS reorders addresses; one that works must stay in use.
        let kept = self.addresses.iter().position(|address| Some(*address) == used);
        self.current = kept.unwrap_or_default();
        before != self.current_address()
    }
}

/// Why there is no session, as far as this end knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum FailureCause {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The host reports that nothing listens on the port.
    Refused,
    /// Another host on the way reports the same.
    RouterRefuses(IpAddr),
    /// A firewall on the way forbids it.
    Prohibited(IpAddr),
    /// A router on the way has no route.
    RouterNoRoute(IpAddr),
    /// This host has no route.
    NoRoute,
    /// The firewall of this host forbids it.
    OwnFirewall,
    /// The hub answers that it is under load.
    Overloaded,
    /// The hub answers, but its answer does not match the keys.
    WrongKey,
}

impl From<PathError> for FailureCause {
    fn from(error: PathError) -> Self {
        match (error.cause, error.reporter) {
            (PathErrorCause::PortUnreachable, Some(reporter)) if reporter == error.to.ip() => {
                Self::Refused
            }
            (PathErrorCause::PortUnreachable, Some(router)) => Self::RouterRefuses(router),
            (PathErrorCause::Prohibited, Some(router)) => Self::Prohibited(router),
            (PathErrorCause::NoRoute, Some(router)) => Self::RouterNoRoute(router),
            // A firewall of this host may also reject with "port unreachable".
            (PathErrorCause::PortUnreachable | PathErrorCause::Prohibited, None) => {
                Self::OwnFirewall
            }
            (PathErrorCause::NoRoute, None) => Self::NoRoute,
        }
    }
}

impl FailureCause {
    /// Returns whether no datagram leaves this host.
    pub(super) const fn is_local(self) -> bool {
        matches!(self, Self::NoRoute | Self::OwnFirewall)
    }
}

/// The last cause that was seen. A host that refuses while it shuts down is silent afterwards, so a
/// cause that is not seen again is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastCause {
    cause: FailureCause,
    /// Unanswered initiations since then.
    unanswered: u32,
}

impl LastCause {
    /// Records a cause.
    pub(super) const fn on_cause(&mut self, cause: FailureCause) {
        *self = Self { cause, unanswered: 0 };
    }

    /// Records an unanswered initiation.
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

/// The link to one hub.
#[derive(Debug)]
pub(super) struct HubLink {
    /// Number of the hub in the settings.
    pub(super) hub: usize,
    /// `None` while the clock forbids a handshake, and after a panic.
    pub(super) peer: Option<Peer>,
    pub(super) timer: HandshakeTimer,
    pub(super) liveness: Liveness,
    pub(super) last_cause: LastCause,
    pub(super) path_errors: PathErrorStreak,
    /// Whether the hub has accepted the timestamps of this peer.
    pub(super) is_proven: bool,
    /// When the last authentic datagram was sent.
    pub(super) last_sent: Instant,
    /// When the first packet was sent, unless one has ever come back.
    pub(super) one_way_since: Option<Instant>,
    /// Whether a packet has come back.
    pub(super) has_received: bool,
}

impl HubLink {
    pub(super) const fn new(hub: usize, timer: HandshakeTimer, now: Instant) -> Self {
        Self {
            hub,
            peer: None,
            timer,
            liveness: Liveness::new(),
            last_cause: LastCause { cause: FailureCause::Unknown, unanswered: 0 },
            path_errors: PathErrorStreak::NONE,
            is_proven: false,
            last_sent: now,
            one_way_since: None,
            has_received: false,
        }
    }

    /// Records an authentic datagram.
    pub(super) fn on_authenticated(&mut self, now: Instant) {
        self.liveness.on_received(now);
        self.path_errors.on_received();
        if !self.path_errors.is_blocked(now) {
            self.last_cause.on_cause(FailureCause::Unknown);
        }
    }

    /// Records an error about a datagram to this hub.
    pub(super) fn on_path_error(&mut self, now: Instant, error: PathError) {
        self.path_errors.on_error(now);
        self.last_cause.on_cause(error.into());
    }

    /// Records that this host has another route to the hub.
    pub(super) const fn on_route_changed(&mut self) {
        self.liveness.on_route_changed();
        self.path_errors = PathErrorStreak::NONE;
    }

    /// Records that a packet was sent.
    pub(super) fn on_packet_sent(&mut self, now: Instant) {
        self.liveness.on_sent(now);
        self.path_errors.on_sent(now);
        if !self.has_received {
            self.one_way_since.get_or_insert(now);
        }
    }

    /// Records that a packet has come back.
    pub(super) const fn on_packet_received(&mut self) {
        (self.has_received, self.one_way_since) = (true, None);
    }

    /// Returns when the session that is used for sending began.
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

    /// Returns when to send a keepalive, if there is a session then.
    pub(super) fn next_keepalive_at(&self, every: Option<Duration>) -> Option<Instant> {
        let at = self.last_sent + every?;
        self.session_start(at).map(|_| at)
    }

    /// Reacts to a forward step of the clock, which may be a suspend: the session may be older than
    /// it seems, and a router may have dropped its mapping.
    pub(super) fn mark_stale(&mut self, now: Instant) {
        if let Some(peer) = &mut self.peer {
            peer.mark_stale();
        }
        self.timer.retry_now(now);
    }

    /// Drops keys and sessions. An initiation with new ones is due now.
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
    fn a_lookup_without_an_answer_is_repeated() {
        let now = Instant::now();
        let mut endpoint = hub("hub.example.net");
        assert!(endpoint.start_lookup(now));
        assert!(!endpoint.start_lookup(now + LOOKUP_TIMEOUT / 2));
        assert!(endpoint.start_lookup(now + LOOKUP_TIMEOUT));
        endpoint.on_resolve_failed(ResolveFailure::NotFound);
        assert!(endpoint.start_lookup(now + LOOKUP_TIMEOUT));
        assert!(!hub("192.0.2.1").start_lookup(now));
    }
}
