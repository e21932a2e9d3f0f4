//! What has to be done because time has passed.

use std::time::Instant;

use super::{
    HANDSHAKE_ROOM, IDLE, Identity, LONG, Link, Long, PROBES, Peer, REBIND_EVERY, REBIND_PAUSE,
    Schedule, Site, Ticked, Verdict, Whereabouts, Which, link,
};
use crate::core::clock::Now;
use crate::core::peer::KEEPALIVE_ROOM;
use crate::path::Outbox;

impl Site {
    pub(in crate::core) fn handle_timeout(&mut self, now: Now, out: &mut Outbox) {
        self.watch_clock(now);
        self.limiter.reset_count();
        self.pending.expire(now.instant, &mut self.counters);
        for which in [Which::Active, Which::Probe] {
            self.tick_if(which, now, out, |peer, now| now >= peer.tick_at());
        }
        for place in &mut self.places {
            place.tick(now.instant);
        }
        self.drive(now, out);
        let due = self.active.keep_alive_at(self.settings.keep_alive);
        if due.is_some_and(|due| now.instant >= due) {
            // When it is so late that the session is over, it is not due any more all the same.
            self.active.sent = now.instant;
            self.seal(Which::Active, now, &[], out);
        }
    }

    pub(in crate::core) fn poll_timeout(&self) -> Option<Instant> {
        let active = self.wake(&self.active);
        let probe = self.probe.iter().flat_map(|link| self.wake(link));
        let rest = [
            self.active.keep_alive_at(self.settings.keep_alive),
            self.pending.expires_at(),
            self.preference.probe_at().filter(|_| self.probe.is_none()),
        ];
        active.chain(probe).chain(rest.into_iter().flatten()).min()
    }

    fn wake<'l>(&self, link: &'l Link) -> impl Iterator<Item = Instant> + use<'l> {
        let tick = link.peer.as_ref().map(Peer::tick_at);
        [tick, link.schedule.due(), self.worry_at(link)].into_iter().flatten()
    }

    /// When a link has been silent for too long.
    fn worry_at(&self, link: &Link) -> Option<Instant> {
        let may_worry = link.peer.is_some() && !link.schedule.is_outstanding();
        let at = link.hearing.worry_at(self.settings.keep_alive).filter(|_| may_worry)?;
        // Not before something can be done about it.
        Some(link.schedule.earliest().map_or(at, |earliest| earliest.max(at)))
    }

    /// Lets a link's peer see the time if `is_due` says so.
    pub(super) fn tick_if(
        &mut self,
        which: Which,
        now: Now,
        out: &mut Outbox,
        is_due: impl FnOnce(&Peer, Instant) -> bool,
    ) {
        let link = link(&mut self.active, &mut self.probe, which);
        let peer = link.and_then(|link| link.peer.as_ref());
        if peer.is_some_and(|peer| is_due(peer, now.instant)) {
            self.tick(which, now, out);
        }
    }

    pub(super) fn tick(&mut self, which: Which, now: Now, out: &mut Outbox) {
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else { return };
        let to = self.places.get(link.hub).and_then(Whereabouts::endpoint);
        // boringtun would repeat initiations every 5 s: the schedule knows better.
        let mut room = [0; KEEPALIVE_ROOM];
        match (peer.tick(now.instant, &mut room), to) {
            (Ticked::KeepAlive(length), Some(to)) => {
                out.push(to, room.get(..length).unwrap_or_default());
                link.sent = now.instant;
            }
            (Ticked::Panicked, _) => self.panicked(which, now),
            (Ticked::Nothing | Ticked::Initiation(_) | Ticked::KeepAlive(_), _) => {}
        }
    }

    /// Begins what handshakes are due.
    pub(super) fn drive(&mut self, now: Now, out: &mut Outbox) {
        if self.worry_at(&self.active).is_some_and(|at| now.instant >= at) {
            self.active.schedule.want(now.instant);
            let is_fresh = self.rebound.is_some_and(|at| now.instant < at + REBIND_PAUSE);
            if self.active.hearing.is_unanswered(now.instant) && !is_fresh {
                // Nothing is lost by another port, and the old one may be what is wrong.
                self.rebind(now.instant);
            }
        }
        if self.active.schedule.is_due(now.instant) {
            if self.active.schedule.is_outstanding() {
                self.unanswered(now.instant);
            }
            if self.is_resting(now.instant) {
                self.active.schedule.rest();
            } else {
                self.initiate(Which::Active, now, out);
            }
        }
        self.drive_probe(now, out);
    }

    /// Whether a session may end for want of use: only with keepalives it has to be there always.
    fn is_resting(&self, now: Instant) -> bool {
        let is_idle = self.active.hearing.worry_at(None).is_none()
            && self.active.hearing.silence(now).is_some_and(|silence| silence > IDLE)
            && self.active.schedule.failed() == 0;
        self.settings.keep_alive.is_none() && is_idle && self.pending.expires_at().is_none()
    }

    /// The active hub has not answered an initiation.
    fn unanswered(&mut self, now: Instant) {
        self.counters.unanswered += 1;
        self.active.suspicion.unanswered();
        if self.active.hearing.is_recent(now) {
            return self.active.schedule.forgive();
        }
        self.active.schedule.give_up();
        let failed = self.active.schedule.failed();
        let hub = self.active.hub;
        let addresses = self.places.get(hub).map_or(0, Whereabouts::count);
        if let Some(place) = self.places.get_mut(hub) {
            place.next_address();
        }
        if failed % REBIND_EVERY == 1 {
            self.rebind(now);
        }
        self.resolve(hub, now);
        let Some(patience) = self.preference.patience(addresses) else { return };
        let silence = self.active.hearing.silence(now);
        let is_tried = failed >= PROBES.max(addresses);
        let is_long = is_tried && silence.is_some_and(|silence| silence >= LONG);
        if failed >= patience || is_long {
            self.leave(now);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.preference.leave(now);
        self.counters.hub_changes += 1;
        let schedule = if self.preference.is_lost() {
            Schedule::resume(now, &self.active.schedule)
        } else {
            Schedule::new(now)
        };
        let left = Link::new(self.preference.active(), schedule, now);
        let left = std::mem::replace(&mut self.active, left);
        self.put_away(left);
        self.end_probe();
        self.long = Long::default();
        self.resolve(self.active.hub, now);
    }

    pub(super) fn put_away(&mut self, link: Link) {
        if let Some(place) = self.places.get_mut(link.hub) {
            place.put_away(link);
        }
    }

    fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.put_away(probe);
        }
    }

    /// Sends an initiation, or does what has to be done before one can be sent.
    fn initiate(&mut self, which: Which, now: Now, out: &mut Outbox) {
        let random = self.random.f64();
        self.ensure_peer(which, now);
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else {
            link.schedule.postpone(now.instant);
            return;
        };
        let hub = link.hub;
        let Some(to) = self.places.get(hub).and_then(Whereabouts::endpoint) else {
            link.schedule.attempt_blindly(now.instant, random);
            self.resolve(hub, now.instant);
            return;
        };
        link.schedule.attempt(
            now.instant,
            self.places.get(hub).map_or(1, Whereabouts::count),
            random,
        );
        let room = out.reserve(to, HANDSHAKE_ROOM);
        match peer.initiate(now.instant, room) {
            Some(length) => {
                out.commit(length);
                self.counters.initiations += 1;
            }
            None => self.panicked(which, now),
        }
    }

    fn ensure_peer(&mut self, which: Which, now: Now) {
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        let is_forbidden = self.clock.verdict(now.wall) == Verdict::Ahead;
        let Some(place) = self.places.get_mut(link.hub) else { return };
        if link.peer.is_none()
            && let Some(proven) = place.take_proven()
        {
            (link.peer, link.is_proven) = (Some(proven), true);
        }
        if link.peer.is_some() || is_forbidden {
            return;
        }
        let identity = Identity {
            private_key: self.settings.private_key.clone(),
            public_key: place.settings.public_key,
            preshared_key: place.settings.preshared_key.clone(),
        };
        let index = self.random.u32(..);
        link.peer = Peer::new(&identity, index, &self.limiter, now.instant);
    }

    fn drive_probe(&mut self, now: Now, out: &mut Outbox) {
        if self.probe.is_none()
            && let Some(hub) = self.preference.probe(now.instant)
        {
            self.ask(hub, now.instant);
        }
        let Some(probe) = &mut self.probe else { return };
        if !probe.schedule.is_due(now.instant) {
            return;
        }
        probe.schedule.give_up();
        let (hub, failed) = (probe.hub, probe.schedule.failed());
        let addresses = self.places.get(hub).map_or(0, Whereabouts::count);
        if failed < PROBES.max(addresses) {
            if failed > 0
                && let Some(place) = self.places.get_mut(hub)
            {
                place.next_address();
            }
            return self.initiate(Which::Probe, now, out);
        }
        self.end_probe();
        let random = self.random.f64();
        if let Some(next) = self.preference.probe_failed(hub, now.instant, random) {
            self.ask(next, now.instant);
        }
    }

    fn ask(&mut self, hub: usize, now: Instant) {
        self.probe = Some(Link::new(hub, Schedule::new(now), now));
        self.resolve(hub, now);
    }
}
