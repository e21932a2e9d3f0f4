//! The hub's end: waits to be called by its sites.
//!
//! It begins no handshake of its own accord. What boringtun sends when a site has not answered data
//! for 15 s goes out, as from every WireGuard hub.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::allowed::AllowedIps;
use super::clock::{Clock, ClockBounds, Now};
use super::counters::{Counters, DropReason};
use super::limiter::{self, Initiator, Limiter};
use super::packet;
use super::peer::{HANDSHAKE_ROOM, Identity, OVERHEAD, Opened, Peer, Sealed, Shaken, Ticked};
use super::pending::Pending;
use super::report::{Report, State};
use super::wire::{self, Kind};
use crate::packets::Sink;
use crate::path::Outbox;
use crate::settings;

#[derive(Debug)]
pub(super) struct HubEnd {
    settings: settings::HubEnd,
    sites: Vec<Site>,
    allowed: AllowedIps,
    limiter: Limiter,
    clock: Clock,
    random: fastrand::Rng,
    counters: Counters,
    last_handshake: Option<SystemTime>,
}

#[derive(Debug)]
struct Site {
    identity: Identity,
    peer: Option<Peer>,
    endpoint: Option<SocketAddr>,
    pending: Pending,
}

impl HubEnd {
    pub(super) fn new(settings: settings::HubEnd, now: Now, seed: u64) -> Self {
        let limiter = Limiter::new(&settings.private_key);
        let mut random = fastrand::Rng::with_seed(seed);
        let sites = settings.sites.iter().map(|keys| {
            let identity = Identity {
                private_key: settings.private_key.clone(),
                public_key: keys.public_key,
                preshared_key: keys.preshared_key.clone(),
            };
            let peer = Peer::new(&identity, random.u32(..), &limiter, now.instant);
            Site { identity, peer, endpoint: None, pending: Pending::default() }
        });
        Self {
            sites: sites.collect(),
            allowed: AllowedIps::new(settings.sites.iter().map(|site| site.allowed_ips.as_slice())),
            limiter,
            clock: Clock::new(now, ClockBounds::default()),
            random,
            counters: Counters::default(),
            last_handshake: None,
            settings,
        }
    }

    pub(super) const fn settings(&self) -> &settings::HubEnd {
        &self.settings
    }

    pub(super) const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Sessions may be older than they seem after a jump of the clocks: boringtun counts time asleep.
    fn watch_clock(&mut self, now: Now) {
        if self.clock.step(now).is_some() {
            self.counters.clock_steps += 1;
            self.sites.iter_mut().filter_map(|site| site.peer.as_mut()).for_each(Peer::doubt);
        }
    }

    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut Outbox) {
        self.watch_clock(now);
        let header = packet::parse(packet);
        let verdict = match header {
            None => Err(DropReason::Malformed),
            Some(header) if header.length > usize::from(self.settings.mtu) => {
                Err(DropReason::TooLong)
            }
            Some(header) => self.allowed.owner(header.destination).ok_or(DropReason::NotAllowedOut),
        };
        let site = match verdict {
            Ok(site) => site,
            Err(reason) => return self.counters.drop(reason),
        };
        if self.peer(site).is_some_and(|peer| peer.is_stale(now.instant)) {
            self.tick(site, now, out);
        }
        if !self.seal(site, now, packet, out)
            && let Some(site) = self.sites.get_mut(site)
        {
            site.pending.push(now.instant, packet, &mut self.counters);
        }
    }

    fn peer(&self, site: usize) -> Option<&Peer> {
        self.sites.get(site)?.peer.as_ref()
    }

    fn seal(&mut self, site: usize, now: Now, packet: &[u8], out: &mut Outbox) -> bool {
        let Some(known) = self.sites.get_mut(site) else { return false };
        let (Some(to), Some(peer)) = (known.endpoint, &mut known.peer) else { return false };
        if peer.session(now.instant).is_none() {
            return false;
        }
        let room = out.reserve(to, (packet.len() + OVERHEAD).max(HANDSHAKE_ROOM));
        match peer.seal(now.instant, packet, room) {
            Sealed::Datagram(length) => {
                out.commit(length);
                self.counters.sent(packet.len());
                true
            }
            Sealed::NoSession => false,
            Sealed::Panicked => {
                self.panicked(site, now.instant);
                false
            }
        }
    }

    fn panicked(&mut self, site: usize, now: Instant) {
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
        out: &mut Outbox,
        packets: &mut impl Sink,
    ) {
        self.watch_clock(now);
        let Some(kind) = wire::kind(datagram) else {
            return self.counters.drop(DropReason::Malformed);
        };
        let site = match wire::receiver(datagram, kind) {
            Some(receiver) => self.addressee(receiver),
            None => self.initiator((from, datagram), out),
        };
        match site {
            Ok(site) if kind == Kind::Data => self.open(site, now, (from, datagram), out, packets),
            Ok(site) => self.shake(site, now, (from, datagram), out),
            Err(reason) => self.counters.drop(reason),
        }
    }

    fn addressee(&self, receiver: u32) -> Result<usize, DropReason> {
        let index = Some(wire::peer_of(receiver));
        let site = (0..self.sites.len()).find(|site| self.peer(*site).map(Peer::index) == index);
        site.ok_or(DropReason::Stranger)
    }

    fn initiator(
        &mut self,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
    ) -> Result<usize, DropReason> {
        self.limiter.reset_count();
        let private_key = &self.settings.private_key;
        match limiter::initiator(private_key, &self.limiter, from.ip(), datagram) {
            Initiator::Claims(key) => {
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

    fn open(
        &mut self,
        site: usize,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
        packets: &mut impl Sink,
    ) {
        if self.peer(site).is_some_and(|peer| peer.is_stale(now.instant)) {
            self.tick(site, now, out);
        }
        let receiver = wire::receiver(datagram, Kind::Data).unwrap_or_default();
        let Some(peer) = self.sites.get_mut(site).and_then(|site| site.peer.as_mut()) else {
            return;
        };
        let before = peer.session(now.instant);
        let room = packets.reserve(datagram.len());
        let opened = peer.open(now.instant, receiver, datagram, room);
        let is_new = peer.session(now.instant) != before;
        match opened {
            Opened::Packet(length) => {
                let header = room.get(..length).and_then(packet::parse);
                let owner = header.and_then(|header| self.allowed.owner(header.source));
                match header {
                    Some(header) if owner == Some(site) => {
                        packets.commit(header.length);
                        self.counters.received(header.length);
                    }
                    Some(_) => self.counters.drop(DropReason::NotAllowedIn),
                    None => self.counters.drop(DropReason::Malformed),
                }
            }
            Opened::KeepAlive => {}
            Opened::NoPacket => self.counters.drop(DropReason::Malformed),
            Opened::Dropped(reason) => return self.counters.drop(reason),
            Opened::Panicked => return self.panicked(site, now.instant),
        }
        self.heard(site, from);
        if is_new {
            self.has_session(site, now, out);
        }
    }

    fn heard(&mut self, site: usize, from: SocketAddr) {
        let Some(site) = self.sites.get_mut(site) else { return };
        let before = site.endpoint.replace(from);
        if before.is_some_and(|before| before != from) {
            self.counters.endpoint_changes += 1;
        }
    }

    fn shake(
        &mut self,
        site: usize,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
    ) {
        self.limiter.reset_count();
        if self.peer(site).is_some_and(|peer| peer.is_stale_for_handshake(now.instant)) {
            self.tick(site, now, out);
        }
        let Some(peer) = self.sites.get_mut(site).and_then(|site| site.peer.as_mut()) else {
            return;
        };
        let room = out.reserve(from, HANDSHAKE_ROOM);
        match peer.shake(now.instant, from.ip(), datagram, room) {
            Shaken::Established(length) => {
                out.commit(length);
                self.heard(site, from);
                self.has_session(site, now, out);
            }
            Shaken::Answered(length) | Shaken::Cookie(length) => out.commit(length),
            Shaken::CookieTaken => self.counters.cookies += 1,
            Shaken::Dropped(reason) => self.counters.drop(reason),
            Shaken::Panicked => self.panicked(site, now.instant),
        }
    }

    fn has_session(&mut self, site: usize, now: Now, out: &mut Outbox) {
        self.counters.handshakes += 1;
        self.last_handshake = Some(now.wall);
        let Some(pending) = self.sites.get_mut(site).map(|site| &mut site.pending) else { return };
        let mut pending = std::mem::take(pending);
        pending.expire(now.instant, &mut self.counters);
        while let Some(packet) = pending.pop() {
            if !self.seal(site, now, &packet, out) {
                self.counters.drop(DropReason::Waited);
            }
        }
    }

    fn tick(&mut self, site: usize, now: Now, out: &mut Outbox) {
        let Some(one) = self.sites.get_mut(site) else { return };
        one.pending.expire(now.instant, &mut self.counters);
        let Some(peer) = &mut one.peer else { return };
        let mut room = [0; HANDSHAKE_ROOM];
        match (peer.tick(now.instant, &mut room), one.endpoint) {
            (Ticked::Initiation(length), Some(to)) => {
                out.push(to, room.get(..length).unwrap_or_default());
                self.counters.initiations += 1;
            }
            (Ticked::KeepAlive(length), Some(to)) => {
                out.push(to, room.get(..length).unwrap_or_default());
            }
            (Ticked::Panicked, _) => self.panicked(site, now.instant),
            (Ticked::Nothing | Ticked::Initiation(_) | Ticked::KeepAlive(_), _) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Outbox) {
        self.watch_clock(now);
        self.limiter.reset_count();
        for site in 0..self.sites.len() {
            if self.peer(site).is_some_and(|peer| now.instant >= peer.tick_at()) {
                self.tick(site, now, out);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sites.iter().filter_map(|site| site.peer.as_ref()).map(Peer::tick_at).min()
    }

    pub(super) fn state(&self, now: Now) -> State {
        let is_up = |site: &Site| {
            site.peer.as_ref().is_some_and(|peer| peer.session(now.instant).is_some())
        };
        if self.sites.iter().any(is_up) { State::Up } else { State::Waiting }
    }

    pub(super) fn report(&self, now: Now) -> Report {
        let state = self.state(now);
        let sentence =
            if state == State::Up { "A site is connected." } else { "No site has called yet." };
        Report {
            state,
            sentence: sentence.to_owned(),
            hub: String::new(),
            endpoint: self.sites.iter().find_map(|site| site.endpoint),
            last_handshake: self.last_handshake,
            counters: self.counters,
        }
    }
}
