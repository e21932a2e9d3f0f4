//! The site's end: one hub is in use, and a preferred one may be probed at the same time.

mod events;
mod state;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

use super::black_hole::BlackHoleDetector;
use super::clock::{ClockBounds, ClockStep, ClockVerdict, ClockWatch, Now};
use super::counters::{Counters, DropReason};
use super::hub_link::{FailureCause, HubEndpoint};
use super::hub_links::{HubLinks, LinkRole};
use super::ip_header;
use super::key_sharing::KeySharing;
use super::limiter::HandshakeLimiter;
use super::peer::{
    DATA_OVERHEAD, Decrypted, Encrypted, HandshakeOutcome, KEEPALIVE_LEN, MAX_HANDSHAKE_LEN, Peer,
    TimerOutcome,
};
use super::pending_packets::PendingPackets;
use super::wire::{self, MessageType};
use super::{HubLookup, TunnelRequest};
use crate::packet_buffer::PacketSink;
use crate::settings::Settings;
use crate::transport::SendBatch;

/// A tunnel without keepalives is idle when it has received nothing for this long and awaits no
/// reply.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// A hub that was silent for this long is left after [`MAX_UNANSWERED_PROBES`] already.
const HUB_SILENCE_LIMIT: Duration = Duration::from_secs(25);
/// Unanswered initiations between two new local ports, the first included: the most likely fault is
/// a router that has dropped its mapping, and a new port costs nothing.
const INITIATIONS_PER_REBIND: u32 = 3;
/// Minimum time between two new local ports for data without a reply: routers keep the mapping of
/// the last one.
const MIN_REBIND_INTERVAL: Duration = Duration::from_secs(60);
/// Unanswered initiations, or as many as a hub has addresses, after which a probed hub counts as
/// down, and the active one too if it was silent for [`HUB_SILENCE_LIMIT`].
const MAX_UNANSWERED_PROBES: u32 = 2;
/// Age of a session from which on datagrams of another one are suspicious.
const FOREIGN_SESSION_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct SiteTunnel {
    settings: Settings,
    links: HubLinks,
    pending: PendingPackets,
    black_hole: BlackHoleDetector,
    clock: ClockWatch,
    limiter: HandshakeLimiter,
    random: fastrand::Rng,
    requests: VecDeque<TunnelRequest>,
    /// When the last new port was requested.
    last_rebind: Option<Instant>,
    counters: Counters,
    last_handshake: Option<SystemTime>,
    /// When the host last routed one of the tunnel's datagrams into the tunnel.
    last_loop: Option<Instant>,
    key_sharing: KeySharing,
    /// Default routers of this host, and the DNS servers that it reaches through the tunnel only.
    routers: Vec<IpAddr>,
    resolvers_inside: Vec<IpAddr>,
    /// Name of the network interface, while it is down.
    interface_down: Option<String>,
}

impl SiteTunnel {
    /// Starts with the first hub, and requests a look-up of its name.
    pub(super) fn new(settings: Settings, bounds: ClockBounds, now: Now, seed: u64) -> Self {
        let mut site = Self {
            links: HubLinks::new(&settings.hubs, now.instant),
            pending: PendingPackets::default(),
            black_hole: BlackHoleDetector::default(),
            clock: ClockWatch::new(now, bounds),
            limiter: HandshakeLimiter::new(&settings.private_key),
            random: fastrand::Rng::with_seed(seed),
            requests: VecDeque::new(),
            last_rebind: None,
            counters: Counters::default(),
            last_handshake: None,
            last_loop: None,
            key_sharing: KeySharing::default(),
            routers: Vec::new(),
            resolvers_inside: Vec::new(),
            interface_down: None,
            settings,
        };
        site.request_lookup(0, now.instant);
        site
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn set_host_routes(&mut self, networks: Vec<IpNet>) {
        self.links.set_host_routes(networks);
    }

    pub(super) fn host_routes(&self) -> &[IpNet] {
        self.links.host_routes()
    }

    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.links.active().liveness.silent_for(now)
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
        self.update_timers_if(LinkRole::Active, now, out, Peer::is_stale);
        if !self.encrypt(LinkRole::Active, now, packet, out) {
            self.pending.push(now.instant, packet, &mut self.counters);
            self.links.active_mut().timer.request_session(now.instant);
            self.run_handshakes(now, out);
        }
    }

    /// Returns the packet without trailing bytes, or `None` if it must not go to the active hub.
    fn check_outgoing<'p>(&mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        let hub = self.links.active().hub;
        let checked = match ip_header::parse(packet) {
            None => Err(DropReason::Malformed),
            Some(header) if header.length > usize::from(self.settings.mtu) => {
                Err(DropReason::TooLong)
            }
            Some(header) if !self.links.is_allowed(hub, header.destination) => {
                Err(DropReason::NotAllowedOut)
            }
            Some(header) => packet.get(..header.length).ok_or(DropReason::Malformed),
        };
        checked.map_err(|reason| self.counters.count_dropped(reason)).ok()
    }

    /// Encrypts a packet, or a keepalive if it is empty; returns whether there is a session.
    fn encrypt(&mut self, role: LinkRole, now: Now, packet: &[u8], out: &mut SendBatch) -> bool {
        let Some((link, to)) = self.links.with_address(role) else { return false };
        let has_session = link.session_start(now.instant).is_some();
        let (Some(to), Some(peer), true) = (to, &mut link.peer, has_session) else { return false };
        let buffer = out.reserve(to, (packet.len() + DATA_OVERHEAD).max(MAX_HANDSHAKE_LEN));
        match peer.encrypt(now.instant, packet, buffer) {
            Encrypted::Datagram(length) => {
                out.commit(length);
                link.last_sent = now.instant;
                if !packet.is_empty() {
                    link.on_packet_sent(now.instant);
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

    /// Sends the packets that have waited for a session.
    fn send_pending(&mut self, now: Now, out: &mut SendBatch) {
        self.pending.expire(now.instant, &mut self.counters);
        while self.links.active().session_start(now.instant).is_some() {
            let Some(packet) = self.pending.pop() else { break };
            // It was checked for the hub that was active when it came.
            if let Some(packet) = self.check_outgoing(&packet)
                && !self.encrypt(LinkRole::Active, now, packet, out)
            {
                self.counters.count_dropped(DropReason::Waited);
            }
        }
    }

    fn request_lookup(&mut self, hub: usize, now: Instant) {
        let Some(endpoint) = self.links.endpoint_mut(hub) else { return };
        if endpoint.start_lookup(now) {
            let endpoint = endpoint.settings.endpoint.clone();
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

    /// Reacts to a step of the wall clock.
    ///
    /// A hub ignores a handshake whose timestamp is not later than the last one it accepted
    /// (WireGuard whitepaper, 5.1). boringtun counts up from the clock's value when the peer was
    /// made. So a peer that its hub has accepted stays: its timestamps keep rising however the
    /// clock steps, and a clock that is wrong for an hour blocks nothing. Others are made again.
    fn check_clock(&mut self, now: Now) {
        let Some(step) = self.clock.detect_step(now) else { return };
        self.counters.clock_steps += 1;
        let is_ahead = self.clock.verdict(now.wall) == ClockVerdict::Ahead;
        for role in [LinkRole::Active, LinkRole::Probe] {
            let Some(link) = self.links.get_mut(role) else { continue };
            match step {
                ClockStep::Forward if link.is_proven => link.mark_stale(now.instant),
                // A timestamp that is too old is ignored; one of the far future blocks the key.
                ClockStep::Forward if is_ahead => {}
                ClockStep::Backward if link.is_proven => {}
                ClockStep::Forward | ClockStep::Backward => link.reset_peer(now.instant),
            }
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
        packets: &mut impl PacketSink,
    ) {
        self.check_clock(now);
        match wire::message_type(datagram) {
            None => self.counters.count_dropped(DropReason::Malformed),
            Some(MessageType::Data) => self.handle_data(now, (from, datagram), out, packets),
            Some(kind) => self.handle_handshake(now, kind, (from, datagram), out),
        }
    }

    fn handle_data(
        &mut self,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
        packets: &mut impl PacketSink,
    ) {
        let receiver = wire::receiver_index(datagram, MessageType::Data).unwrap_or_default();
        let Some(role) = self.links.role_of(receiver) else {
            self.on_foreign_session(now.instant, from);
            return self.counters.count_dropped(DropReason::Stranger);
        };
        self.update_timers_if(role, now, out, Peer::is_stale);
        let Some(link) = self.links.get_mut(role) else { return };
        let Some(peer) = &mut link.peer else { return };
        let (hub, before) = (link.hub, peer.session_start(now.instant));
        let buffer = packets.reserve(datagram.len());
        let decrypted = peer.decrypt(now.instant, receiver, datagram, buffer);
        let is_new = peer.session_start(now.instant) != before;
        match decrypted {
            Decrypted::Packet(length) => {
                let header = buffer.get(..length).and_then(ip_header::parse);
                let checked = header.ok_or(DropReason::Malformed).and_then(|header| {
                    let is_allowed = self.links.is_allowed(hub, header.source);
                    is_allowed.then_some(header.length).ok_or(DropReason::NotAllowedIn)
                });
                match checked {
                    Ok(length) => {
                        if let Some(link) = self.links.get_mut(role) {
                            link.on_packet_received();
                        }
                        if let Some(packet) = buffer.get(..length) {
                            self.black_hole.on_received(now.instant, packet);
                        }
                        packets.commit(length);
                        self.counters.on_received(length);
                    }
                    Err(reason) => self.counters.count_dropped(reason),
                }
            }
            Decrypted::KeepAlive => {}
            Decrypted::NotAPacket => self.counters.count_dropped(DropReason::Malformed),
            Decrypted::Dropped(reason) => return self.counters.count_dropped(reason),
            Decrypted::Panicked => return self.on_panic(role, now),
        }
        self.on_authenticated(role, now, from);
        if is_new {
            self.on_session_confirmed(role, now, out);
        }
    }

    /// Records a datagram of a session that this end does not know.
    fn on_foreign_session(&mut self, now: Instant, from: SocketAddr) {
        let link = self.links.active();
        // The hub may still use an older session for a moment after a restart.
        let has_session =
            link.session_start(now).is_some_and(|start| now >= start + FOREIGN_SESSION_GRACE);
        let address = self.links.active_endpoint().and_then(HubEndpoint::current_address);
        if has_session && address == Some(from) {
            self.key_sharing.on_foreign_session(now);
        }
    }

    /// Records an authentic datagram: the hub is where it came from.
    fn on_authenticated(&mut self, role: LinkRole, now: Now, from: SocketAddr) {
        let Some(link) = self.links.get_mut(role) else { return };
        link.on_authenticated(now.instant);
        let hub = link.hub;
        if self.links.roam(hub, from) {
            self.counters.endpoint_changes += 1;
        }
    }

    /// Records that the hub has used a session that it began.
    fn on_session_confirmed(&mut self, role: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        let Some(link) = self.links.get_mut(role) else { return };
        link.timer.on_peer_established(now.instant, random);
        self.on_session(role, now, out);
    }

    fn handle_handshake(
        &mut self,
        now: Now,
        kind: MessageType,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) {
        self.limiter.reset_count();
        let role = wire::receiver_index(datagram, kind)
            .map_or(Some(LinkRole::Active), |receiver| self.links.role_of(receiver));
        let Some(role) = role else {
            return self.counters.count_dropped(DropReason::Stranger);
        };
        self.update_timers_if(role, now, out, Peer::is_stale_for_handshake);
        let answer_to = self.links.answer_address(role, from);
        let Some(link) = self.links.get_mut(role) else { return };
        let (Some(peer), Some(answer_to)) = (&mut link.peer, answer_to) else {
            return self.counters.count_dropped(DropReason::Stranger);
        };
        let buffer = out.reserve(answer_to, MAX_HANDSHAKE_LEN);
        match peer.handle_handshake(now.instant, from.ip(), datagram, buffer) {
            HandshakeOutcome::Established(length) => {
                out.commit(length);
                link.last_sent = now.instant;
                // The hub is there, and would have acknowledged data of 15 s ago: it was lost.
                if link.liveness.is_reply_overdue(now.instant) && link.timer.failed_attempts() == 0
                {
                    self.black_hole.on_missing(now.instant);
                }
                self.on_authenticated(role, now, from);
                self.on_established(role, now, out);
            }
            // This may be a replay: the sender is known when it uses the session.
            HandshakeOutcome::Responded(length) | HandshakeOutcome::CookieSent(length) => {
                out.commit(length);
            }
            HandshakeOutcome::CookieReceived => {
                link.last_cause.on_cause(FailureCause::Overloaded);
                self.counters.cookies += 1;
            }
            HandshakeOutcome::Dropped(reason) => {
                if kind == MessageType::Response && reason == DropReason::Undecryptable {
                    link.last_cause.on_cause(FailureCause::WrongKey);
                }
                self.counters.count_dropped(reason);
            }
            HandshakeOutcome::Panicked => self.on_panic(role, now),
        }
    }

    /// Records that the hub has answered an initiation.
    fn on_established(&mut self, role: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        let Some(link) = self.links.get_mut(role) else { return };
        link.timer.on_established(now.instant, random);
        self.links.on_initiation_answered(role);
        self.on_session(role, now, out);
    }

    fn on_session(&mut self, role: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        self.counters.handshakes += 1;
        self.last_handshake = Some(now.wall);
        if role == LinkRole::Probe && self.links.activate_probe(now.instant, random) {
            self.counters.hub_changes += 1;
            self.black_hole = BlackHoleDetector::default();
        }
        self.links.on_answered(now.instant, random);
        self.send_pending(now, out);
    }

    fn on_panic(&mut self, role: LinkRole, now: Now) {
        self.counters.panics += 1;
        if let Some(link) = self.links.get_mut(role) {
            link.reset_peer(now.instant);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut SendBatch) {
        self.check_clock(now);
        self.limiter.reset_count();
        self.pending.expire(now.instant, &mut self.counters);
        for role in [LinkRole::Active, LinkRole::Probe] {
            self.update_timers_if(role, now, out, |peer, now| now >= peer.next_tick_at());
        }
        self.links.update_endpoints(now.instant);
        self.run_handshakes(now, out);
        let due = self.links.active().next_keepalive_at(self.settings.keep_alive);
        if due.is_some_and(|due| now.instant >= due) {
            // Also if it is too late and the session has ended: the next one is due later.
            self.links.active_mut().last_sent = now.instant;
            self.encrypt(LinkRole::Active, now, &[], out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let keep_alive = self.settings.keep_alive;
        let links = [Some(self.links.active()), self.links.probe()].into_iter().flatten();
        let rest = [
            self.links.active().next_keepalive_at(keep_alive),
            self.pending.next_expiry_at(),
            self.links.next_probe_at(),
        ];
        let deadlines = links.flat_map(|link| link.deadlines(keep_alive));
        deadlines.chain(rest.into_iter().flatten()).min()
    }

    /// Runs the timers of a link's peer if `is_due` says so.
    fn update_timers_if(
        &mut self,
        role: LinkRole,
        now: Now,
        out: &mut SendBatch,
        is_due: impl FnOnce(&Peer, Instant) -> bool,
    ) {
        if !self.links.peer(role).is_some_and(|peer| is_due(peer, now.instant)) {
            return;
        }
        let Some((link, to)) = self.links.with_address(role) else { return };
        let Some(peer) = &mut link.peer else { return };
        // There is no room for an initiation: the handshake timer decides when one is sent, and
        // boringtun would send one every 5 s.
        let mut buffer = [0; KEEPALIVE_LEN];
        let outcome = peer.update_timers(now.instant, &mut buffer);
        if outcome == TimerOutcome::Panicked {
            self.on_panic(role, now);
        } else if let (TimerOutcome::KeepAlive(length), Some(to)) = (outcome, to) {
            out.push(to, buffer.get(..length).unwrap_or_default());
            link.last_sent = now.instant;
        }
    }

    /// Starts the handshakes that are due.
    fn run_handshakes(&mut self, now: Now, out: &mut SendBatch) {
        let suspect_at = self.links.active().suspect_at(self.settings.keep_alive);
        if suspect_at.is_some_and(|at| now.instant >= at) {
            let is_fresh =
                self.last_rebind.is_some_and(|at| now.instant < at + MIN_REBIND_INTERVAL);
            let link = self.links.active_mut();
            link.timer.request_session(now.instant);
            if link.liveness.is_reply_overdue(now.instant) && !is_fresh {
                // A router may have dropped the mapping of the old port; a new one costs nothing.
                self.request_rebind(now.instant);
            }
        }
        if self.links.active().timer.is_due(now.instant) {
            if self.links.active().timer.is_outstanding() {
                self.on_unanswered(now.instant);
            }
            if self.is_idle(now.instant) {
                self.links.active_mut().timer.set_idle();
            } else {
                self.initiate(LinkRole::Active, now, out);
            }
        }
        self.run_probe(now, out);
    }

    /// Returns whether the session may end because it is unused. With keepalives it never may.
    fn is_idle(&self, now: Instant) -> bool {
        let link = self.links.active();
        self.settings.keep_alive.is_none()
            && self.pending.next_expiry_at().is_none()
            && link.liveness.suspect_at(None).is_none()
            && link.liveness.silent_for(now).is_some_and(|silence| silence > IDLE_AFTER)
            && link.timer.failed_attempts() == 0
    }

    /// Records that the active hub has not answered an initiation.
    fn on_unanswered(&mut self, now: Instant) {
        self.counters.unanswered += 1;
        let link = self.links.active_mut();
        link.last_cause.on_unanswered();
        if link.liveness.is_reachable(now) {
            return link.timer.ignore_unanswered();
        }
        link.timer.on_unanswered();
        let (hub, failed) = (link.hub, link.timer.failed_attempts());
        let silence = link.liveness.silent_for(now);
        if let Some(endpoint) = self.links.endpoint_mut(hub) {
            endpoint.advance_address();
        }
        if failed % INITIATIONS_PER_REBIND == 1 {
            self.request_rebind(now);
        }
        self.request_lookup(hub, now);
        let Some(max_unanswered) = self.links.max_unanswered() else { return };
        let is_tried = failed >= MAX_UNANSWERED_PROBES.max(self.links.address_count(hub));
        let is_silent = silence.is_some_and(|silence| silence >= HUB_SILENCE_LIMIT);
        if failed >= max_unanswered || (is_tried && is_silent) {
            self.links.switch_to_next(now);
            self.counters.hub_changes += 1;
            self.black_hole = BlackHoleDetector::default();
            self.request_lookup(self.links.active().hub, now);
        }
    }

    /// Sends an initiation, or requests what it lacks.
    fn initiate(&mut self, role: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        let may_create = self.clock.verdict(now.wall) != ClockVerdict::Ahead;
        let (private_key, limiter) = (&self.settings.private_key, &self.limiter);
        let when = (now.instant, may_create);
        self.links.ensure_peer(role, private_key, limiter, &mut self.random, when);
        // A handshake that boringtun is about to end has to end now: later it would end this one.
        self.update_timers_if(role, now, out, Peer::is_stale_for_handshake);
        let Some((link, to)) = self.links.with_address(role) else { return };
        let hub = link.hub;
        let Some(peer) = &mut link.peer else { return link.timer.postpone(now.instant) };
        let Some(to) = to else {
            link.timer.on_no_address(now.instant, random);
            return self.request_lookup(hub, now.instant);
        };
        let buffer = out.reserve(to, MAX_HANDSHAKE_LEN);
        let initiation = peer.initiate(now.instant, buffer);
        let addresses = self.links.address_count(hub);
        if let Some(link) = self.links.get_mut(role) {
            link.timer.on_initiation_sent(now.instant, addresses, random);
        }
        match initiation {
            Some(length) => {
                out.commit(length);
                self.counters.initiations += 1;
            }
            None => self.on_panic(role, now),
        }
    }

    fn run_probe(&mut self, now: Now, out: &mut SendBatch) {
        if let Some(hub) = self.links.start_due_probe(now.instant) {
            self.request_lookup(hub, now.instant);
        }
        let Some(probe) = self.links.get_mut(LinkRole::Probe) else { return };
        if !probe.timer.is_due(now.instant) {
            return;
        }
        probe.timer.on_unanswered();
        let (hub, failed) = (probe.hub, probe.timer.failed_attempts());
        if failed < MAX_UNANSWERED_PROBES.max(self.links.address_count(hub)) {
            if failed > 0
                && let Some(endpoint) = self.links.endpoint_mut(hub)
            {
                endpoint.advance_address();
            }
            return self.initiate(LinkRole::Probe, now, out);
        }
        let random = self.random.f64();
        if let Some(next) = self.links.probe_next(hub, now.instant, random) {
            self.request_lookup(next, now.instant);
        }
    }
}
