//! The site's end: one hub is in use, a preferred one may be asked beside it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::clock::{Clock, ClockBounds, Now, Step, Verdict};
use super::counters::{Counters, DropReason};
use super::handshake::Schedule;
use super::hubs::Preference;
use super::limiter::Limiter;
use super::link::{Link, Missing, Trouble, Whereabouts};
use super::long::Long;
use super::packet;
use super::peer::{HANDSHAKE_ROOM, Identity, OVERHEAD, Peer, Sealed, Ticked};
use super::pending::Pending;
use super::{Event, LookUp, Request};
use crate::path::Outbox;
use crate::settings::Settings;

mod datagrams;
mod schedule;
mod telling;

/// A tunnel without keepalives that has heard nothing for this long, and has asked for nothing, is not
/// in use.
const IDLE: Duration = Duration::from_secs(10);
/// A hub that was not heard for this long is left a little sooner than its patience says.
const LONG: Duration = Duration::from_secs(25);
/// Unanswered initiations from one of which to the next a new local port is tried, from the first
/// on: a forgotten mapping in a router is the most likely fault, and a new port costs nothing.
const REBIND_EVERY: u32 = 3;
/// Data that stays without an answer is no reason for another new port before this: the last one is
/// not forgotten yet.
const REBIND_PAUSE: Duration = Duration::from_secs(60);
/// Unanswered initiations, or as many as a hub has addresses, after which a preferred hub counts as
/// still away, and the hub in use as gone if it was silent for [`LONG`] besides.
const PROBES: u32 = 2;

#[derive(Debug)]
pub(super) struct Site {
    settings: Settings,
    /// Our public key as text.
    name: String,
    places: Vec<Whereabouts>,
    preference: Preference,
    active: Link,
    /// A preferred hub that is asked whether it is there again.
    probe: Option<Link>,
    pending: Pending,
    long: Long,
    clock: Clock,
    limiter: Limiter,
    random: fastrand::Rng,
    requests: VecDeque<Request>,
    /// When a new port was asked for last.
    rebound: Option<Instant>,
    counters: Counters,
    last_handshake: Option<SystemTime>,
}

/// One of the two links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    Active,
    Probe,
}

impl Site {
    pub(super) fn new(settings: Settings, bounds: ClockBounds, now: Now, seed: u64) -> Self {
        let places: Vec<_> = settings.hubs.iter().cloned().map(Whereabouts::new).collect();
        let mut site = Self {
            preference: Preference::new(places.len()),
            places,
            active: Link::new(0, Schedule::new(now.instant), now.instant),
            probe: None,
            pending: Pending::default(),
            long: Long::default(),
            clock: Clock::new(now, bounds),
            limiter: Limiter::new(&settings.private_key),
            random: fastrand::Rng::with_seed(seed),
            requests: VecDeque::new(),
            rebound: None,
            counters: Counters::default(),
            last_handshake: None,
            name: settings.private_key.public().to_string(),
            settings,
        };
        site.resolve(0, now.instant);
        site
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut Outbox) {
        self.watch_clock(now);
        let Some(packet) = self.admit(packet) else { return };
        if self.active.peer.as_ref().is_some_and(|peer| peer.is_stale(now.instant)) {
            self.tick(Which::Active, now, out);
        }
        if !self.seal(Which::Active, now, packet, out) {
            self.pending.push(now.instant, packet, &mut self.counters);
            self.active.schedule.want(now.instant);
            self.drive(now, out);
        }
    }

    /// The packet without what lies behind its end, if it may go to the hub in use.
    fn admit<'p>(&mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        let verdict = match packet::parse(packet) {
            None => Err(DropReason::Malformed),
            Some(header) if header.length > usize::from(self.settings.mtu) => {
                Err(DropReason::TooLong)
            }
            Some(header) if !self.allows(self.active.hub, header.destination) => {
                Err(DropReason::NotAllowedOut)
            }
            Some(header) => packet.get(..header.length).ok_or(DropReason::Malformed),
        };
        verdict.map_err(|reason| self.counters.drop(reason)).ok()
    }

    fn allows(&self, hub: usize, address: std::net::IpAddr) -> bool {
        let networks = self.places.get(hub).map(|place| &place.settings.allowed_ips);
        networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Encrypts a packet, or a keepalive when it is empty; `false` if there is no session.
    fn seal(&mut self, which: Which, now: Now, packet: &[u8], out: &mut Outbox) -> bool {
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return false };
        let to = self.places.get(link.hub).and_then(Whereabouts::endpoint);
        let has_session = link.session(now.instant).is_some();
        let (Some(to), Some(peer), true) = (to, &mut link.peer, has_session) else { return false };
        let room = out.reserve(to, (packet.len() + OVERHEAD).max(HANDSHAKE_ROOM));
        match peer.seal(now.instant, packet, room) {
            Sealed::Datagram(length) => {
                out.commit(length);
                link.sent = now.instant;
                if !packet.is_empty() {
                    link.hearing.asked(now.instant);
                    self.long.sent(now.instant, packet);
                    self.counters.sent(packet.len());
                }
                true
            }
            Sealed::NoSession => false,
            Sealed::Panicked => {
                self.counters.panics += 1;
                link.rebuild(now.instant);
                false
            }
        }
    }

    /// Sends what has waited for a session.
    fn flush(&mut self, now: Now, out: &mut Outbox) {
        self.pending.expire(now.instant, &mut self.counters);
        while self.active.session(now.instant).is_some() {
            let Some(packet) = self.pending.pop() else { break };
            // It may have waited for another hub.
            if let Some(packet) = self.admit(&packet)
                && !self.seal(Which::Active, now, packet, out)
            {
                self.counters.drop(DropReason::Waited);
            }
        }
    }

    pub(super) fn handle_event(&mut self, now: Now, event: Event) {
        self.watch_clock(now);
        match event {
            Event::Resolved { hub, addresses } => self.resolved(now, hub, &addresses),
            Event::Inside { hub } => {
                if let Some(place) = self.places.get_mut(hub) {
                    place.unresolved(Missing::Inside);
                }
            }
            Event::NetworkChanged => {
                self.long = Long::default();
                self.rebind(now.instant);
                self.resolve(self.active.hub, now.instant);
                self.active.hearing.moved();
                self.active.schedule.hurry(now.instant);
            }
            Event::Clock(bounds) => {
                self.clock.bounds = bounds;
                if self.active.peer.is_none() {
                    self.active.schedule.want(now.instant);
                }
            }
            Event::Refused(from) => {
                let place = self.places.get(self.active.hub);
                if place.and_then(Whereabouts::endpoint) == Some(from) {
                    self.active.suspicion.see(Trouble::Refused);
                }
            }
        }
    }

    fn resolved(&mut self, now: Now, hub: usize, addresses: &[SocketAddr]) {
        let Some(place) = self.places.get_mut(hub) else { return };
        let was_unknown = place.endpoint().is_none();
        let has_moved = place.resolved(addresses);
        for which in [Which::Active, Which::Probe] {
            let Some(link) = link(&mut self.active, &mut self.probe, which) else { continue };
            if link.hub == hub && has_moved && link.session(now.instant).is_none() {
                if was_unknown {
                    link.schedule = Schedule::new(now.instant);
                } else {
                    link.schedule.hurry(now.instant);
                }
            }
        }
    }

    fn resolve(&mut self, hub: usize, now: Instant) {
        let Some(place) = self.places.get_mut(hub) else { return };
        if place.begin_to_resolve(now) {
            let endpoint = place.settings.endpoint.clone();
            self.requests.push_back(Request::Resolve(LookUp { hub, endpoint }));
        }
    }

    fn rebind(&mut self, now: Instant) {
        if !self.requests.contains(&Request::Rebind) {
            self.requests.push_back(Request::Rebind);
            self.rebound = Some(now);
            self.counters.rebinds += 1;
        }
    }

    /// A hub ignores a stamp that is not later than the last. Stamps that it has taken rise by
    /// themselves, whatever the clock does: they stay, or a clock that is wrong for an hour would
    /// spoil them. Others are made anew, with the keys, by a clock that may be better.
    fn watch_clock(&mut self, now: Now) {
        let Some(step) = self.clock.step(now) else { return };
        self.counters.clock_steps += 1;
        let is_ahead = self.clock.verdict(now.wall) == Verdict::Ahead;
        let links = [Some(&mut self.active), self.probe.as_mut()];
        for link in links.into_iter().flatten() {
            match step {
                Step::Forward if link.is_proven => link.doubt(now.instant),
                // Better none that is too old than one of the far future.
                Step::Forward if is_ahead => {}
                Step::Backward if link.is_proven => {}
                Step::Forward | Step::Backward => link.rebuild(now.instant),
            }
        }
    }
}

/// Borrows a link without the rest of the site.
const fn link<'l>(
    active: &'l mut Link,
    probe: &'l mut Option<Link>,
    which: Which,
) -> Option<&'l mut Link> {
    match which {
        Which::Active => Some(active),
        Which::Probe => probe.as_mut(),
    }
}
