//! The site's end: one hub is in use, a preferred one may be asked beside it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::black_hole::BlackHoleDetector;
use super::clock::{ClockBounds, ClockStep, ClockVerdict, ClockWatch, Now};
use super::counters::{Counters, DropReason};
use super::handshake::HandshakeTimer;
use super::hub_link::{FailureCause, HubEndpoint, HubLink, ResolveFailure};
use super::hub_selector::HubSelector;
use super::ip_header;
use super::limiter::HandshakeLimiter;
use super::peer::{DATA_OVERHEAD, Encrypted, MAX_HANDSHAKE_LEN, Peer, PeerKeys, TimerOutcome};
use super::pending_packets::PendingPackets;
use super::{HubLookup, TunnelEvent, TunnelRequest};
use crate::settings::Settings;
use crate::transport::SendBatch;

mod receive;
mod telling;
mod timers;

/// A tunnel without keepalives that has heard nothing for this long, and has asked for nothing, is not
/// in use.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// A hub that was not heard for this long is left a little sooner than its patience says.
const HUB_SILENCE_LIMIT: Duration = Duration::from_secs(25);
/// Unanswered initiations from one of which to the next a new local port is tried, from the first
/// on: a forgotten mapping in a router is the most likely fault, and a new port costs nothing.
const INITIATIONS_PER_REBIND: u32 = 3;
/// Data that stays without an answer is no reason for another new port before this: the last one is
/// not forgotten yet.
const MIN_REBIND_INTERVAL: Duration = Duration::from_secs(60);
/// Unanswered initiations, or as many as a hub has addresses, after which a preferred hub counts as
/// still away, and the hub in use as gone if it was silent for [`LONG`] besides.
const MAX_UNANSWERED_PROBES: u32 = 2;

#[derive(Debug)]
pub(super) struct SiteTunnel {
    settings: Settings,
    /// Our public key as text.
    public_key: String,
    endpoints: Vec<HubEndpoint>,
    selector: HubSelector,
    active: HubLink,
    /// A preferred hub that is asked whether it is there again.
    probe: Option<HubLink>,
    pending: PendingPackets,
    black_hole: BlackHoleDetector,
    clock: ClockWatch,
    limiter: HandshakeLimiter,
    random: fastrand::Rng,
    requests: VecDeque<TunnelRequest>,
    /// When a new port was asked for last.
    last_rebind: Option<Instant>,
    counters: Counters,
    last_handshake: Option<SystemTime>,
}

/// One of the two links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LinkRole {
    Active,
    Probe,
}

impl SiteTunnel {
    pub(super) fn new(settings: Settings, bounds: ClockBounds, now: Now, seed: u64) -> Self {
        let places: Vec<_> = settings.hubs.iter().cloned().map(HubEndpoint::new).collect();
        let mut site = Self {
            selector: HubSelector::new(places.len()),
            endpoints: places,
            active: HubLink::new(0, HandshakeTimer::new(now.instant), now.instant),
            probe: None,
            pending: PendingPackets::default(),
            black_hole: BlackHoleDetector::default(),
            clock: ClockWatch::new(now, bounds),
            limiter: HandshakeLimiter::new(&settings.private_key),
            random: fastrand::Rng::with_seed(seed),
            requests: VecDeque::new(),
            last_rebind: None,
            counters: Counters::default(),
            last_handshake: None,
            public_key: settings.private_key.public_key().to_string(),
            settings,
        };
        site.request_lookup(0, now.instant);
        site
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(super) fn next_request(&mut self) -> Option<TunnelRequest> {
        self.requests.pop_front()
    }

    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut SendBatch) {
        self.check_clock(now);
        let Some(packet) = self.check_outgoing(packet) else { return };
        if self.active.peer.as_ref().is_some_and(|peer| peer.is_stale(now.instant)) {
            self.update_timers(LinkRole::Active, now, out);
        }
        if !self.encrypt(LinkRole::Active, now, packet, out) {
            self.pending.push(now.instant, packet, &mut self.counters);
            self.active.timer.request_session(now.instant);
            self.run_handshakes(now, out);
        }
    }

    /// The packet without what lies behind its end, if it may go to the hub in use.
    fn check_outgoing<'p>(&mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        let verdict = match ip_header::parse(packet) {
            None => Err(DropReason::Malformed),
            Some(header) if header.length > usize::from(self.settings.mtu) => {
                Err(DropReason::TooLong)
            }
            Some(header) if !self.is_allowed(self.active.hub, header.destination) => {
                Err(DropReason::NotAllowedOut)
            }
            Some(header) => packet.get(..header.length).ok_or(DropReason::Malformed),
        };
        verdict.map_err(|reason| self.counters.count_dropped(reason)).ok()
    }

    fn is_allowed(&self, hub: usize, address: std::net::IpAddr) -> bool {
        let networks = self.endpoints.get(hub).map(|place| &place.settings.allowed_ips);
        networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Encrypts a packet, or a keepalive when it is empty; `false` if there is no session.
    fn encrypt(&mut self, which: LinkRole, now: Now, packet: &[u8], out: &mut SendBatch) -> bool {
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return false };
        let to = self.endpoints.get(link.hub).and_then(HubEndpoint::current_address);
        let has_session = link.session_start(now.instant).is_some();
        let (Some(to), Some(peer), true) = (to, &mut link.peer, has_session) else { return false };
        let room = out.reserve(to, (packet.len() + DATA_OVERHEAD).max(MAX_HANDSHAKE_LEN));
        match peer.encrypt(now.instant, packet, room) {
            Encrypted::Datagram(length) => {
                out.commit(length);
                link.last_sent = now.instant;
                if !packet.is_empty() {
                    link.liveness.on_sent(now.instant);
                    self.black_hole.on_sent(now.instant, packet);
                    self.counters.on_sent(packet.len());
                }
                true
            }
            Encrypted::NoSession => false,
            Encrypted::Panicked => {
                self.counters.panics += 1;
                link.reset_peer(now.instant);
                false
            }
        }
    }

    /// Sends what has waited for a session.
    fn send_pending(&mut self, now: Now, out: &mut SendBatch) {
        self.pending.expire(now.instant, &mut self.counters);
        while self.active.session_start(now.instant).is_some() {
            let Some(packet) = self.pending.pop() else { break };
            // It may have waited for another hub.
            if let Some(packet) = self.check_outgoing(&packet)
                && !self.encrypt(LinkRole::Active, now, packet, out)
            {
                self.counters.count_dropped(DropReason::Waited);
            }
        }
    }

    pub(super) fn handle_event(&mut self, now: Now, event: TunnelEvent) {
        self.check_clock(now);
        match event {
            TunnelEvent::Resolved { hub, addresses } => self.on_resolved(now, hub, &addresses),
            TunnelEvent::ResolvedInsideTunnel { hub } => {
                if let Some(place) = self.endpoints.get_mut(hub) {
                    place.on_resolve_failed(ResolveFailure::InsideTunnel);
                }
            }
            TunnelEvent::NetworkChanged => {
                self.black_hole = BlackHoleDetector::default();
                self.request_rebind(now.instant);
                self.request_lookup(self.active.hub, now.instant);
                self.active.liveness.on_route_changed();
                self.active.timer.retry_now(now.instant);
            }
            TunnelEvent::ClockBoundsChanged(bounds) => {
                self.clock.bounds = bounds;
                if self.active.peer.is_none() {
                    self.active.timer.request_session(now.instant);
                }
            }
            TunnelEvent::PortUnreachable(from) => {
                let place = self.endpoints.get(self.active.hub);
                if place.and_then(HubEndpoint::current_address) == Some(from) {
                    self.active.last_cause.on_cause(FailureCause::Refused);
                }
            }
        }
    }

    fn on_resolved(&mut self, now: Now, hub: usize, addresses: &[SocketAddr]) {
        let Some(place) = self.endpoints.get_mut(hub) else { return };
        let was_unknown = place.current_address().is_none();
        let has_moved = place.on_resolved(addresses);
        for which in [LinkRole::Active, LinkRole::Probe] {
            let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { continue };
            if link.hub == hub && has_moved && link.session_start(now.instant).is_none() {
                if was_unknown {
                    link.timer = HandshakeTimer::new(now.instant);
                } else {
                    link.timer.retry_now(now.instant);
                }
            }
        }
    }

    fn request_lookup(&mut self, hub: usize, now: Instant) {
        let Some(place) = self.endpoints.get_mut(hub) else { return };
        if place.start_lookup(now) {
            let endpoint = place.settings.endpoint.clone();
            self.requests.push_back(TunnelRequest::Resolve(HubLookup { hub, endpoint }));
        }
    }

    fn request_rebind(&mut self, now: Instant) {
        if !self.requests.contains(&TunnelRequest::Rebind) {
            self.requests.push_back(TunnelRequest::Rebind);
            self.last_rebind = Some(now);
            self.counters.rebinds += 1;
        }
    }

    /// A hub ignores a stamp that is not later than the last. Stamps that it has taken rise by
    /// themselves, whatever the clock does: they stay, or a clock that is wrong for an hour would
    /// spoil them. Others are made anew, with the keys, by a clock that may be better.
    fn check_clock(&mut self, now: Now) {
        let Some(step) = self.clock.detect_step(now) else { return };
        self.counters.clock_steps += 1;
        let is_ahead = self.clock.verdict(now.wall) == ClockVerdict::Ahead;
        let links = [Some(&mut self.active), self.probe.as_mut()];
        for link in links.into_iter().flatten() {
            match step {
                ClockStep::Forward if link.is_proven => link.mark_stale(now.instant),
                // Better none that is too old than one of the far future.
                ClockStep::Forward if is_ahead => {}
                ClockStep::Backward if link.is_proven => {}
                ClockStep::Forward | ClockStep::Backward => link.reset_peer(now.instant),
            }
        }
    }
}

/// Borrows a link without the rest of the site.
const fn link_mut<'l>(
    active: &'l mut HubLink,
    probe: &'l mut Option<HubLink>,
    which: LinkRole,
) -> Option<&'l mut HubLink> {
    match which {
        LinkRole::Active => Some(active),
        LinkRole::Probe => probe.as_mut(),
    }
}
