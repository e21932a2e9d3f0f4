//! The hub's end, for the demo and for tests: waits for its sites to connect.
//!
//! It begins no handshake itself. What boringtun sends when a site has not answered data for 15 s
//! is sent, as by every WireGuard hub.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::allowed_ips::AllowedIps;
use super::clock::{ClockBounds, ClockWatch, Now};
use super::counters::{Counters, DropReason};
use super::ip_header;
use super::limiter::{self, HandshakeLimiter, Initiator};
use super::peer::{
    DATA_OVERHEAD, Decrypted, Encrypted, HandshakeOutcome, MAX_HANDSHAKE_LEN, Peer, PeerKeys,
    TimerOutcome,
};
use super::pending_packets::PendingPackets;
use super::report::{TunnelDiagnosis, TunnelReport, TunnelState};
use super::wire::{self, MessageType};
use crate::packet_buffer::PacketSink;
use crate::settings;
use crate::transport::SendBatch;

#[derive(Debug)]
pub(super) struct HubTunnel {
    settings: settings::HubSettings,
    sites: Vec<SiteSession>,
    allowed: AllowedIps,
    limiter: HandshakeLimiter,
    clock: ClockWatch,
    random: fastrand::Rng,
    counters: Counters,
    last_handshake: Option<SystemTime>,
}

#[derive(Debug)]
struct SiteSession {
    identity: PeerKeys,
    peer: Option<Peer>,
    endpoint: Option<SocketAddr>,
    pending: PendingPackets,
}

impl HubTunnel {
    pub(super) fn new(settings: settings::HubSettings, now: Now, seed: u64) -> Self {
        let limiter = HandshakeLimiter::new(&settings.private_key);
        let mut random = fastrand::Rng::with_seed(seed);
        let sites = settings.sites.iter().map(|keys| {
            let identity = PeerKeys {
                private_key: settings.private_key.clone(),
                public_key: keys.public_key,
                preshared_key: keys.preshared_key.clone(),
            };
            let peer = Peer::new(&identity, random.u32(..), &limiter, now.instant);
            SiteSession { identity, peer, endpoint: None, pending: PendingPackets::default() }
        });
        Self {
            sites: sites.collect(),
            allowed: AllowedIps::new(settings.sites.iter().map(|site| site.allowed_ips.as_slice())),
            limiter,
            clock: ClockWatch::new(now, ClockBounds::default()),
            random,
            counters: Counters::default(),
            last_handshake: None,
            settings,
        }
    }

    pub(super) const fn settings(&self) -> &settings::HubSettings {
        &self.settings
    }

    pub(super) const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Marks all sessions stale after a step of the clock: boringtun counts suspended time, so
    /// sessions may be older than they seem.
    fn check_clock(&mut self, now: Now) {
        if self.clock.detect_step(now).is_some() {
            self.counters.clock_steps += 1;
            self.sites.iter_mut().filter_map(|site| site.peer.as_mut()).for_each(Peer::mark_stale);
        }
    }

    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut SendBatch) {
        self.check_clock(now);
        let header = ip_header::parse(packet);
        let peer = match header {
            None => Err(DropReason::Malformed),
            Some(header) if header.length > usize::from(self.settings.mtu) => {
                Err(DropReason::TooLong)
            }
            Some(header) => {
                self.allowed.peer_for(header.destination).ok_or(DropReason::NotAllowedOut)
            }
        };
        let site = match peer {
            Ok(site) => site,
            Err(reason) => return self.counters.count_dropped(reason),
        };
        if self.peer(site).is_some_and(|peer| peer.is_stale(now.instant)) {
            self.update_timers(site, now, out);
        }
        if !self.encrypt(site, now, packet, out)
            && let Some(site) = self.sites.get_mut(site)
        {
            site.pending.push(now.instant, packet, &mut self.counters);
        }
    }

    fn peer(&self, site: usize) -> Option<&Peer> {
        self.sites.get(site)?.peer.as_ref()
    }

    fn encrypt(&mut self, site: usize, now: Now, packet: &[u8], out: &mut SendBatch) -> bool {
        let Some(known) = self.sites.get_mut(site) else { return false };
        let (Some(to), Some(peer)) = (known.endpoint, &mut known.peer) else { return false };
        if peer.session_start(now.instant).is_none() {
            return false;
        }
        let buffer = out.reserve(to, (packet.len() + DATA_OVERHEAD).max(MAX_HANDSHAKE_LEN));
        match peer.encrypt(now.instant, packet, buffer) {
            Encrypted::Datagram(length) => {
                out.commit(length);
                self.counters.on_sent(packet.len());
                true
            }
            Encrypted::NoSession => false,
            Encrypted::Panicked => {
                self.on_panic(site, now.instant);
                false
            }
        }
    }

    fn on_panic(&mut self, site: usize, now: Instant) {
        self.counters.panics += 1;
        let index = self.random.u32(..);
        if let Some(site) = self.sites.get_mut(site) {
            site.peer = Peer::new(&site.identity, index, &self.limiter, now);
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
        let Some(kind) = wire::message_type(datagram) else {
            return self.counters.count_dropped(DropReason::Malformed);
        };
        let site = match wire::receiver_index(datagram, kind) {
            Some(receiver) => self.site_by_index(receiver),
            None => self.identify_initiator((from, datagram), out),
        };
        match site {
            Ok(site) if kind == MessageType::Data => {
                self.handle_data(site, now, (from, datagram), out, packets);
            }
            Ok(site) => self.handle_handshake(site, now, (from, datagram), out),
            Err(reason) => self.counters.count_dropped(reason),
        }
    }

    fn site_by_index(&self, receiver: u32) -> Result<usize, DropReason> {
        let index = Some(wire::peer_index(receiver));
        let site = (0..self.sites.len()).find(|site| self.peer(*site).map(Peer::index) == index);
        site.ok_or(DropReason::Stranger)
    }

    fn identify_initiator(
        &mut self,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) -> Result<usize, DropReason> {
        self.limiter.reset_count();
        let private_key = &self.settings.private_key;
        match limiter::check_initiator(private_key, &self.limiter, from.ip(), datagram) {
            Initiator::ClaimsKey(key) => {
                let site = self.sites.iter().position(|site| site.identity.public_key == key);
                site.ok_or(DropReason::Stranger)
            }
            Initiator::Cookie(cookie) => {
                out.push(from, &cookie);
                self.counters.cookies += 1;
                Err(DropReason::Stranger)
            }
            Initiator::Dropped(reason) => Err(reason),
        }
    }

    fn handle_data(
        &mut self,
        site: usize,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
        packets: &mut impl PacketSink,
    ) {
        if self.peer(site).is_some_and(|peer| peer.is_stale(now.instant)) {
            self.update_timers(site, now, out);
        }
        let receiver = wire::receiver_index(datagram, MessageType::Data).unwrap_or_default();
        let Some(peer) = self.sites.get_mut(site).and_then(|site| site.peer.as_mut()) else {
            return;
        };
        let before = peer.session_start(now.instant);
        let buffer = packets.reserve(datagram.len());
        let decrypted = peer.decrypt(now.instant, receiver, datagram, buffer);
        let is_new = peer.session_start(now.instant) != before;
        match decrypted {
            Decrypted::Packet(length) => {
                let header = buffer.get(..length).and_then(ip_header::parse);
                let owner = header.and_then(|header| self.allowed.peer_for(header.source));
                match header {
                    Some(header) if owner == Some(site) => {
                        packets.commit(header.length);
                        self.counters.on_received(header.length);
                    }
                    Some(_) => self.counters.count_dropped(DropReason::NotAllowedIn),
                    None => self.counters.count_dropped(DropReason::Malformed),
                }
            }
            Decrypted::KeepAlive => {}
            Decrypted::NotAPacket => self.counters.count_dropped(DropReason::Malformed),
            Decrypted::Dropped(reason) => return self.counters.count_dropped(reason),
            Decrypted::Panicked => return self.on_panic(site, now.instant),
        }
        self.on_authenticated(site, from);
        if is_new {
            self.on_session(site, now, out);
        }
    }

    fn on_authenticated(&mut self, site: usize, from: SocketAddr) {
        let Some(site) = self.sites.get_mut(site) else { return };
        let before = site.endpoint.replace(from);
        if before.is_some_and(|before| before != from) {
            self.counters.endpoint_changes += 1;
        }
    }

    fn handle_handshake(
        &mut self,
        site: usize,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) {
        self.limiter.reset_count();
        if self.peer(site).is_some_and(|peer| peer.is_stale_for_handshake(now.instant)) {
            self.update_timers(site, now, out);
        }
        let Some(peer) = self.sites.get_mut(site).and_then(|site| site.peer.as_mut()) else {
            return;
        };
        let buffer = out.reserve(from, MAX_HANDSHAKE_LEN);
        match peer.handle_handshake(now.instant, from.ip(), datagram, buffer) {
            HandshakeOutcome::Established(length) => {
                out.commit(length);
                self.on_authenticated(site, from);
                self.on_session(site, now, out);
            }
            HandshakeOutcome::Responded(length) | HandshakeOutcome::CookieSent(length) => {
                out.commit(length);
            }
            HandshakeOutcome::CookieReceived => self.counters.cookies += 1,
            HandshakeOutcome::Dropped(reason) => self.counters.count_dropped(reason),
            HandshakeOutcome::Panicked => self.on_panic(site, now.instant),
        }
    }

    fn on_session(&mut self, site: usize, now: Now, out: &mut SendBatch) {
        self.counters.handshakes += 1;
        self.last_handshake = Some(now.wall);
        let Some(pending) = self.sites.get_mut(site).map(|site| &mut site.pending) else { return };
        let mut pending = std::mem::take(pending);
        pending.expire(now.instant, &mut self.counters);
        while let Some(packet) = pending.pop() {
            if !self.encrypt(site, now, &packet, out) {
                self.counters.count_dropped(DropReason::Waited);
            }
        }
    }

    fn update_timers(&mut self, site: usize, now: Now, out: &mut SendBatch) {
        let Some(session) = self.sites.get_mut(site) else { return };
        session.pending.expire(now.instant, &mut self.counters);
        let Some(peer) = &mut session.peer else { return };
        let mut buffer = [0; MAX_HANDSHAKE_LEN];
        match (peer.update_timers(now.instant, &mut buffer), session.endpoint) {
            (TimerOutcome::Initiation(length), Some(to)) => {
                out.push(to, buffer.get(..length).unwrap_or_default());
                self.counters.initiations += 1;
            }
            (TimerOutcome::KeepAlive(length), Some(to)) => {
                out.push(to, buffer.get(..length).unwrap_or_default());
            }
            (TimerOutcome::Panicked, _) => self.on_panic(site, now.instant),
            (
                TimerOutcome::Nothing | TimerOutcome::Initiation(_) | TimerOutcome::KeepAlive(_),
                _,
            ) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut SendBatch) {
        self.check_clock(now);
        self.limiter.reset_count();
        for site in 0..self.sites.len() {
            if self.peer(site).is_some_and(|peer| now.instant >= peer.next_tick_at()) {
                self.update_timers(site, now, out);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sites.iter().filter_map(|site| site.peer.as_ref()).map(Peer::next_tick_at).min()
    }

    pub(super) fn state(&self, now: Now) -> TunnelState {
        let is_up = |site: &SiteSession| {
            site.peer.as_ref().is_some_and(|peer| peer.session_start(now.instant).is_some())
        };
        if self.sites.iter().any(is_up) { TunnelState::Up } else { TunnelState::Waiting }
    }

    pub(super) fn report(&self, now: Now) -> TunnelReport {
        let state = self.state(now);
        let diagnosis = if state == TunnelState::Up {
            TunnelDiagnosis::SiteConnected
        } else {
            TunnelDiagnosis::WaitingForSites
        };
        TunnelReport {
            state,
            diagnosis,
            hub: String::new(),
            endpoint: self.sites.iter().find_map(|site| site.endpoint),
            unanswered_since: None,
            last_handshake: self.last_handshake,
            accepted_stamp: None,
            counters: self.counters,
        }
    }
}
