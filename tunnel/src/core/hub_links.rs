//! The hubs of a site: where they are, which one is in use, and the links to them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use ipnet::IpNet;

use super::handshake::HandshakeTimer;
use super::hub_link::{HubEndpoint, HubLink, ResolveFailure};
use super::hub_selector::HubSelector;
use super::limiter::HandshakeLimiter;
use super::peer::{Peer, PeerKeys};
use super::wire;
use crate::key::PrivateKey;
use crate::settings::Hub;

/// The link to the hub in use, and at times one to a preferred hub that is probed.
#[derive(Debug)]
pub(super) struct HubLinks {
    /// By the hub's number in the settings.
    endpoints: Vec<HubEndpoint>,
    /// Networks that the host routes into the tunnel: no hub can be reached at an address in them.
    host_routes: Vec<IpNet>,
    selector: HubSelector,
    active: HubLink,
    probe: Option<HubLink>,
}

/// Which of the two links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LinkRole {
    Active,
    Probe,
}

impl HubLinks {
    /// Starts with a link to the first hub.
    pub(super) fn new(hubs: &[Hub], now: Instant) -> Self {
        let endpoints: Vec<_> = hubs.iter().cloned().map(HubEndpoint::new).collect();
        Self {
            selector: HubSelector::new(endpoints.len()),
            endpoints,
            host_routes: Vec::new(),
            active: HubLink::new(0, HandshakeTimer::new(now), now),
            probe: None,
        }
    }

    pub(super) const fn active(&self) -> &HubLink {
        &self.active
    }

    pub(super) const fn active_mut(&mut self) -> &mut HubLink {
        &mut self.active
    }

    pub(super) const fn probe(&self) -> Option<&HubLink> {
        self.probe.as_ref()
    }

    pub(super) const fn get_mut(&mut self, role: LinkRole) -> Option<&mut HubLink> {
        match role {
            LinkRole::Active => Some(&mut self.active),
            LinkRole::Probe => self.probe.as_mut(),
        }
    }

    const fn get(&self, role: LinkRole) -> Option<&HubLink> {
        match role {
            LinkRole::Active => Some(&self.active),
            LinkRole::Probe => self.probe.as_ref(),
        }
    }

    /// Returns the peer of a link.
    pub(super) fn peer(&self, role: LinkRole) -> Option<&Peer> {
        self.get(role).and_then(|link| link.peer.as_ref())
    }

    /// Returns a link with the address of its hub.
    pub(super) fn with_address(
        &mut self,
        role: LinkRole,
    ) -> Option<(&mut HubLink, Option<SocketAddr>)> {
        let link = match role {
            LinkRole::Active => &mut self.active,
            LinkRole::Probe => self.probe.as_mut()?,
        };
        let address = self.endpoints.get(link.hub).and_then(HubEndpoint::current_address);
        Some((link, address))
    }

    /// Returns the link that a receiver index belongs to.
    pub(super) fn role_of(&self, receiver: u32) -> Option<LinkRole> {
        let index = Some(wire::peer_index(receiver));
        let mut roles = [LinkRole::Active, LinkRole::Probe].into_iter();
        roles.find(|role| self.peer(*role).map(Peer::index) == index)
    }

    pub(super) fn endpoint_mut(&mut self, hub: usize) -> Option<&mut HubEndpoint> {
        self.endpoints.get_mut(hub)
    }

    pub(super) fn active_endpoint(&self) -> Option<&HubEndpoint> {
        self.endpoints.get(self.active.hub)
    }

    /// Returns the number of addresses of a hub.
    pub(super) fn address_count(&self, hub: usize) -> u32 {
        self.endpoints.get(hub).map_or(0, HubEndpoint::address_count)
    }

    /// Returns whether a hub's allowed networks contain an address.
    pub(super) fn is_allowed(&self, hub: usize, address: IpAddr) -> bool {
        let networks = self.endpoints.get(hub).map(|endpoint| &endpoint.settings.allowed_ips);
        networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Lets the peers that no link uses expire.
    pub(super) fn update_endpoints(&mut self, now: Instant) {
        for endpoint in &mut self.endpoints {
            endpoint.update_timers(now);
        }
    }

    /// Records the networks that the host routes into the tunnel, and forgets the addresses in
    /// them.
    pub(super) fn set_host_routes(&mut self, networks: Vec<IpNet>) {
        self.host_routes = networks;
        let Self { endpoints, host_routes, .. } = self;
        for endpoint in endpoints {
            endpoint.retain_addresses(|address| !contains(host_routes, address.ip()));
        }
    }

    pub(super) fn host_routes(&self) -> &[IpNet] {
        &self.host_routes
    }

    /// Records the source of an authentic datagram; returns whether the hub is at another address
    /// now. An address inside the tunnel is not used: datagrams to it would carry themselves.
    pub(super) fn roam(&mut self, hub: usize, from: SocketAddr) -> bool {
        if contains(&self.host_routes, from.ip()) {
            return false;
        }
        self.endpoints.get_mut(hub).is_some_and(|endpoint| endpoint.roam(from))
    }

    /// Returns where the answer to a datagram from `from` goes: there, or where the hub is known to
    /// be if `from` is inside the tunnel. `None` if it is known nowhere else.
    pub(super) fn answer_address(&self, role: LinkRole, from: SocketAddr) -> Option<SocketAddr> {
        if !contains(&self.host_routes, from.ip()) {
            return Some(from);
        }
        self.endpoints.get(self.get(role)?.hub)?.current_address()
    }

    /// Takes the addresses of a name that are outside the tunnel. Links without a session try a new
    /// address at once.
    pub(super) fn on_resolved(&mut self, now: Instant, hub: usize, addresses: &[SocketAddr]) {
        let Some(endpoint) = self.endpoints.get_mut(hub) else { return };
        let was_unknown = endpoint.current_address().is_none();
        let is_local_name = endpoint.settings.endpoint.host == "localhost";
        let usable = |address: &&SocketAddr| is_local_name || is_usable(address.ip());
        let usable: Vec<_> = addresses.iter().filter(usable).copied().collect();
        if let (Some(first), true) = (addresses.first(), usable.is_empty()) {
            return endpoint.on_resolve_failed(ResolveFailure::Blocked(first.ip()));
        }
        let is_outside = |address: &&SocketAddr| !contains(&self.host_routes, address.ip());
        let outside: Vec<_> = usable.iter().filter(is_outside).copied().collect();
        if outside.is_empty() && !usable.is_empty() {
            return endpoint.on_resolve_failed(ResolveFailure::InsideTunnel);
        }
        if !endpoint.on_resolved(&outside) {
            return;
        }
        for link in [Some(&mut self.active), self.probe.as_mut()].into_iter().flatten() {
            if link.hub == hub && link.session_start(now).is_none() {
                if was_unknown {
                    link.timer = HandshakeTimer::new(now);
                } else {
                    link.timer.retry_now(now);
                }
            }
        }
    }

    /// Gives a link a peer if it has none: the one that its hub knows from before, or a new one. A
    /// new one is made only if `may_create`.
    pub(super) fn ensure_peer(
        &mut self,
        role: LinkRole,
        private_key: &PrivateKey,
        limiter: &HandshakeLimiter,
        random: &mut fastrand::Rng,
        (now, may_create): (Instant, bool),
    ) {
        let link = match role {
            LinkRole::Active => Some(&mut self.active),
            LinkRole::Probe => self.probe.as_mut(),
        };
        let Some(link) = link.filter(|link| link.peer.is_none()) else { return };
        let Some(endpoint) = self.endpoints.get_mut(link.hub) else { return };
        // A proven peer first: its timestamps are later than all that its hub has accepted.
        if let Some(proven) = endpoint.take_proven_peer() {
            (link.peer, link.is_proven) = (Some(proven), true);
        } else if may_create {
            let keys = PeerKeys {
                private_key: private_key.clone(),
                public_key: endpoint.settings.public_key,
                preshared_key: endpoint.settings.preshared_key.clone(),
            };
            link.peer = Peer::new(&keys, random.u32(..), limiter, now);
        }
    }

    /// Records that the hub of a link has answered an initiation: it has accepted its timestamp.
    pub(super) fn on_initiation_answered(&mut self, role: LinkRole) {
        let Some(link) = self.get_mut(role) else { return };
        link.is_proven = true;
        let (hub, stamp) = (link.hub, link.peer.as_ref().and_then(Peer::latest_stamp));
        if let Some(endpoint) = self.endpoints.get_mut(hub) {
            // Also if it is earlier than the last: the hub has forgotten that one.
            endpoint.accepted_stamp = stamp;
        }
    }

    /// Records that a hub has accepted a timestamp of an earlier run.
    pub(super) fn on_stamp_accepted(&mut self, hub: usize, stamp: SystemTime) {
        if let Some(endpoint) = self.endpoints.get_mut(hub) {
            endpoint.accepted_stamp = endpoint.accepted_stamp.max(Some(stamp));
        }
    }

    /// Returns whether the active hub has accepted a later timestamp than the next would be.
    pub(super) fn is_stamp_ahead(&self, wall: SystemTime) -> bool {
        let endpoint = self.active_endpoint();
        endpoint.is_some_and(|endpoint| endpoint.is_stamp_ahead(&self.active, wall))
    }

    /// Records a session with the active hub. `random` is in `[0, 1)`.
    pub(super) fn on_answered(&mut self, now: Instant, random: f64) {
        self.selector.on_answered(now, random);
    }

    /// Returns whether a hub was left and none has answered since.
    pub(super) const fn is_searching(&self) -> bool {
        self.selector.is_searching()
    }

    /// Returns after how many unanswered initiations the active hub is left; `None` if it is the
    /// only one.
    pub(super) fn max_unanswered(&self) -> Option<u32> {
        self.selector.max_unanswered(self.address_count(self.active.hub))
    }

    /// Leaves the active hub for the next one.
    pub(super) fn switch_to_next(&mut self, now: Instant) {
        self.selector.switch_to_next(now);
        let timer = if self.selector.are_all_down() {
            HandshakeTimer::with_pause_of(now, &self.active.timer)
        } else {
            HandshakeTimer::new(now)
        };
        let next = HubLink::new(self.selector.active(), timer, now);
        let left = std::mem::replace(&mut self.active, next);
        self.retire(left);
        self.end_probe();
    }

    /// Returns when a preferred hub is probed next; `None` while one is.
    pub(super) fn next_probe_at(&self) -> Option<Instant> {
        self.selector.next_probe_at().filter(|_| self.probe.is_none())
    }

    /// Starts a probe if one is due. Returns the hub.
    pub(super) fn start_due_probe(&mut self, now: Instant) -> Option<usize> {
        if self.probe.is_some() {
            return None;
        }
        let hub = self.selector.take_due_probe(now)?;
        self.probe = Some(HubLink::new(hub, HandshakeTimer::new(now), now));
        Some(hub)
    }

    /// Ends a probe without an answer and starts that of the next preferred hub, if there is one.
    /// Returns that hub.
    pub(super) fn probe_next(&mut self, hub: usize, now: Instant, random: f64) -> Option<usize> {
        self.end_probe();
        let next = self.selector.on_probe_unanswered(hub, now, random)?;
        self.probe = Some(HubLink::new(next, HandshakeTimer::new(now), now));
        Some(next)
    }

    /// Makes the probed hub the active one. Returns whether there was one.
    pub(super) fn activate_probe(&mut self, now: Instant, random: f64) -> bool {
        let Some(link) = self.probe.take() else { return false };
        self.selector.on_probe_answered(link.hub, now, random);
        let left = std::mem::replace(&mut self.active, link);
        self.retire(left);
        true
    }

    fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.retire(probe);
        }
    }

    fn retire(&mut self, link: HubLink) {
        if let Some(endpoint) = self.endpoints.get_mut(link.hub) {
            endpoint.keep_proven_peer(link);
        }
    }
}

/// Returns whether a hub on another host can have this address. DNS servers answer with one that
/// none can have (0.0.0.0, 127.0.0.1) to block a name.
const fn is_usable(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        // Without a zone nothing can be sent there.
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_link_local
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
