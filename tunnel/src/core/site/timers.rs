//! What has to be done because time has passed.

use std::time::Instant;

use super::{
    BlackHoleDetector, ClockVerdict, HUB_SILENCE_LIMIT, HandshakeTimer, HubEndpoint, HubLink,
    IDLE_AFTER, INITIATIONS_PER_REBIND, LinkRole, MAX_HANDSHAKE_LEN, MAX_UNANSWERED_PROBES,
    MIN_REBIND_INTERVAL, Peer, PeerKeys, SiteTunnel, TimerOutcome, link_mut,
};
use crate::core::clock::Now;
use crate::core::peer::KEEPALIVE_LEN;
use crate::transport::SendBatch;

impl SiteTunnel {
    pub(in crate::core) fn handle_timeout(&mut self, now: Now, out: &mut SendBatch) {
        self.check_clock(now);
        self.limiter.reset_count();
        self.pending.expire(now.instant, &mut self.counters);
        for which in [LinkRole::Active, LinkRole::Probe] {
            self.update_timers_if(which, now, out, |peer, now| now >= peer.next_tick_at());
        }
        for place in &mut self.endpoints {
            place.update_timers(now.instant);
        }
        self.run_handshakes(now, out);
        let due = self.active.next_keepalive_at(self.settings.keep_alive);
        if due.is_some_and(|due| now.instant >= due) {
            // When it is so late that the session is over, it is not due any more all the same.
            self.active.last_sent = now.instant;
            self.encrypt(LinkRole::Active, now, &[], out);
        }
    }

    pub(in crate::core) fn poll_timeout(&self) -> Option<Instant> {
        let active = self.link_deadlines(&self.active);
        let probe = self.probe.iter().flat_map(|link| self.link_deadlines(link));
        let rest = [
            self.active.next_keepalive_at(self.settings.keep_alive),
            self.pending.next_expiry_at(),
            self.selector.next_probe_at().filter(|_| self.probe.is_none()),
        ];
        active.chain(probe).chain(rest.into_iter().flatten()).min()
    }

    fn link_deadlines<'l>(&self, link: &'l HubLink) -> impl Iterator<Item = Instant> + use<'l> {
        let tick = link.peer.as_ref().map(Peer::next_tick_at);
        [tick, link.timer.next_initiation_at(), self.suspect_at(link)].into_iter().flatten()
    }

    /// When a link has been silent for too long.
    fn suspect_at(&self, link: &HubLink) -> Option<Instant> {
        let may_worry = link.peer.is_some() && !link.timer.is_outstanding();
        let at = link.liveness.suspect_at(self.settings.keep_alive).filter(|_| may_worry)?;
        // Not before something can be done about it.
        Some(link.timer.earliest_retry_at().map_or(at, |earliest| earliest.max(at)))
    }

    /// Lets a link's peer see the time if `is_due` says so.
    pub(super) fn update_timers_if(
        &mut self,
        which: LinkRole,
        now: Now,
        out: &mut SendBatch,
        is_due: impl FnOnce(&Peer, Instant) -> bool,
    ) {
        let link = link_mut(&mut self.active, &mut self.probe, which);
        let peer = link.and_then(|link| link.peer.as_ref());
        if peer.is_some_and(|peer| is_due(peer, now.instant)) {
            self.update_timers(which, now, out);
        }
    }

    pub(super) fn update_timers(&mut self, which: LinkRole, now: Now, out: &mut SendBatch) {
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else { return };
        let to = self.endpoints.get(link.hub).and_then(HubEndpoint::current_address);
        // boringtun would repeat initiations every 5 s: the schedule knows better.
        let mut room = [0; KEEPALIVE_LEN];
        match (peer.update_timers(now.instant, &mut room), to) {
            (TimerOutcome::KeepAlive(length), Some(to)) => {
                out.push(to, room.get(..length).unwrap_or_default());
                link.last_sent = now.instant;
            }
            (TimerOutcome::Panicked, _) => self.on_panic(which, now),
            (
                TimerOutcome::Nothing | TimerOutcome::Initiation(_) | TimerOutcome::KeepAlive(_),
                _,
            ) => {}
        }
    }

    /// Begins what handshakes are due.
    pub(super) fn run_handshakes(&mut self, now: Now, out: &mut SendBatch) {
        if self.suspect_at(&self.active).is_some_and(|at| now.instant >= at) {
            self.active.timer.request_session(now.instant);
            let is_fresh =
                self.last_rebind.is_some_and(|at| now.instant < at + MIN_REBIND_INTERVAL);
            if self.active.liveness.is_reply_overdue(now.instant) && !is_fresh {
                // Nothing is lost by another port, and the old one may be what is wrong.
                self.request_rebind(now.instant);
            }
        }
        if self.active.timer.is_due(now.instant) {
            if self.active.timer.is_outstanding() {
                self.on_unanswered(now.instant);
            }
            if self.is_idle(now.instant) {
                self.active.timer.set_idle();
            } else {
                self.initiate(LinkRole::Active, now, out);
            }
        }
        self.run_probe(now, out);
    }

    /// Whether a session may end for want of use: only with keepalives it has to be there always.
    fn is_idle(&self, now: Instant) -> bool {
        let is_idle = self.active.liveness.suspect_at(None).is_none()
            && self.active.liveness.silent_for(now).is_some_and(|silence| silence > IDLE_AFTER)
            && self.active.timer.failed_attempts() == 0;
        self.settings.keep_alive.is_none() && is_idle && self.pending.next_expiry_at().is_none()
    }

    /// The active hub has not answered an initiation.
    fn on_unanswered(&mut self, now: Instant) {
        self.counters.unanswered += 1;
        self.active.last_cause.on_unanswered();
        if self.active.liveness.is_reachable(now) {
            return self.active.timer.ignore_unanswered();
        }
        self.active.timer.on_unanswered();
        let failed = self.active.timer.failed_attempts();
        let hub = self.active.hub;
        let addresses = self.endpoints.get(hub).map_or(0, HubEndpoint::address_count);
        if let Some(place) = self.endpoints.get_mut(hub) {
            place.advance_address();
        }
        if failed % INITIATIONS_PER_REBIND == 1 {
            self.request_rebind(now);
        }
        self.request_lookup(hub, now);
        let Some(patience) = self.selector.max_unanswered(addresses) else { return };
        let silence = self.active.liveness.silent_for(now);
        let is_tried = failed >= MAX_UNANSWERED_PROBES.max(addresses);
        let is_long = is_tried && silence.is_some_and(|silence| silence >= HUB_SILENCE_LIMIT);
        if failed >= patience || is_long {
            self.leave_hub(now);
        }
    }

    fn leave_hub(&mut self, now: Instant) {
        self.selector.switch_to_next(now);
        self.counters.hub_changes += 1;
        let schedule = if self.selector.are_all_down() {
            HandshakeTimer::with_pause_of(now, &self.active.timer)
        } else {
            HandshakeTimer::new(now)
        };
        let left = HubLink::new(self.selector.active(), schedule, now);
        let left = std::mem::replace(&mut self.active, left);
        self.retire_link(left);
        self.end_probe();
        self.black_hole = BlackHoleDetector::default();
        self.request_lookup(self.active.hub, now);
    }

    pub(super) fn retire_link(&mut self, link: HubLink) {
        if let Some(place) = self.endpoints.get_mut(link.hub) {
            place.keep_proven_peer(link);
        }
    }

    fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.retire_link(probe);
        }
    }

    /// Sends an initiation, or does what has to be done before one can be sent.
    fn initiate(&mut self, which: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        self.ensure_peer(which, now);
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else {
            link.timer.postpone(now.instant);
            return;
        };
        let hub = link.hub;
        let Some(to) = self.endpoints.get(hub).and_then(HubEndpoint::current_address) else {
            link.timer.on_no_address(now.instant, random);
            self.request_lookup(hub, now.instant);
            return;
        };
        link.timer.on_initiation_sent(
            now.instant,
            self.endpoints.get(hub).map_or(1, HubEndpoint::address_count),
            random,
        );
        let room = out.reserve(to, MAX_HANDSHAKE_LEN);
        match peer.initiate(now.instant, room) {
            Some(length) => {
                out.commit(length);
                self.counters.initiations += 1;
            }
            None => self.on_panic(which, now),
        }
    }

    fn ensure_peer(&mut self, which: LinkRole, now: Now) {
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        let is_forbidden = self.clock.verdict(now.wall) == ClockVerdict::Ahead;
        let Some(place) = self.endpoints.get_mut(link.hub) else { return };
        if link.peer.is_none()
            && let Some(proven) = place.take_proven_peer()
        {
            (link.peer, link.is_proven) = (Some(proven), true);
        }
        if link.peer.is_some() || is_forbidden {
            return;
        }
        let identity = PeerKeys {
            private_key: self.settings.private_key.clone(),
            public_key: place.settings.public_key,
            preshared_key: place.settings.preshared_key.clone(),
        };
        let index = self.random.u32(..);
        link.peer = Peer::new(&identity, index, &self.limiter, now.instant);
    }

    fn run_probe(&mut self, now: Now, out: &mut SendBatch) {
        if self.probe.is_none()
            && let Some(hub) = self.selector.take_due_probe(now.instant)
        {
            self.start_probe(hub, now.instant);
        }
        let Some(probe) = &mut self.probe else { return };
        if !probe.timer.is_due(now.instant) {
            return;
        }
        probe.timer.on_unanswered();
        let (hub, failed) = (probe.hub, probe.timer.failed_attempts());
        let addresses = self.endpoints.get(hub).map_or(0, HubEndpoint::address_count);
        if failed < MAX_UNANSWERED_PROBES.max(addresses) {
            if failed > 0
                && let Some(place) = self.endpoints.get_mut(hub)
            {
                place.advance_address();
            }
            return self.initiate(LinkRole::Probe, now, out);
        }
        self.end_probe();
        let random = self.random.f64();
        if let Some(next) = self.selector.on_probe_unanswered(hub, now.instant, random) {
            self.start_probe(next, now.instant);
        }
    }

    fn start_probe(&mut self, hub: usize, now: Instant) {
        self.probe = Some(HubLink::new(hub, HandshakeTimer::new(now), now));
        self.request_lookup(hub, now);
    }
}
