//! What comes from outside.

use std::net::SocketAddr;

use super::{Site, Trouble, Which, link};
use crate::core::clock::Now;
use crate::core::counters::DropReason;
use crate::core::long::Long;
use crate::core::packet;
use crate::core::peer::{HANDSHAKE_ROOM, Opened, Shaken};
use crate::core::wire::{self, Kind};
use crate::packets::Sink;
use crate::path::Outbox;

impl Site {
    pub(in crate::core) fn handle_datagram(
        &mut self,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
        packets: &mut impl Sink,
    ) {
        self.watch_clock(now);
        match wire::kind(datagram) {
            None => self.counters.drop(DropReason::Malformed),
            Some(Kind::Data) => self.open(now, (from, datagram), out, packets),
            Some(kind) => self.shake(now, kind, (from, datagram), out),
        }
    }

    /// The link that a receiver index belongs to.
    fn addressee(&self, receiver: u32) -> Option<Which> {
        let is = |peer: &Option<_>| {
            peer.as_ref().map(super::Peer::index) == Some(wire::peer_of(receiver))
        };
        if is(&self.active.peer) {
            return Some(Which::Active);
        }
        self.probe.as_ref().filter(|link| is(&link.peer)).map(|_| Which::Probe)
    }

    fn open(
        &mut self,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
        packets: &mut impl Sink,
    ) {
        let receiver = wire::receiver(datagram, Kind::Data).unwrap_or_default();
        let Some(which) = self.addressee(receiver) else {
            self.counters.drop(DropReason::Stranger);
            return;
        };
        self.tick_if(which, now, out, super::Peer::is_stale);
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else { return };
        let (hub, before) = (link.hub, peer.session(now.instant));
        let room = packets.reserve(datagram.len());
        let opened = peer.open(now.instant, receiver, datagram, room);
        let is_new = peer.session(now.instant) != before;
        match opened {
            Opened::Packet(length) => {
                let header = room.get(..length).and_then(packet::parse);
                let verdict = header.ok_or(DropReason::Malformed).and_then(|header| {
                    let is_allowed = self.allows(hub, header.source);
                    is_allowed.then_some(header.length).ok_or(DropReason::NotAllowedIn)
                });
                match verdict {
                    Ok(length) => {
                        if let Some(packet) = room.get(..length) {
                            self.long.received(now.instant, packet);
                        }
                        packets.commit(length);
                        self.counters.received(length);
                    }
                    Err(reason) => self.counters.drop(reason),
                }
            }
            Opened::KeepAlive => {}
            Opened::NoPacket => self.counters.drop(DropReason::Malformed),
            Opened::Dropped(reason) => return self.counters.drop(reason),
            Opened::Panicked => return self.panicked(which, now),
        }
        self.heard(which, now, from);
        if is_new {
            self.confirmed(which, now, out);
        }
    }

    /// Something authentic came: that is where the hub is.
    fn heard(&mut self, which: Which, now: Now, from: SocketAddr) {
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        link.hearing.heard(now.instant);
        link.suspicion.see(Trouble::None);
        let place = self.places.get_mut(link.hub);
        if place.is_some_and(|place| place.roam(from)) {
            self.counters.endpoint_changes += 1;
        }
    }

    /// The hub has used a session that it began.
    fn confirmed(&mut self, which: Which, now: Now, out: &mut Outbox) {
        let random = self.random.f64();
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        link.schedule.answered(now.instant, random);
        self.has_session(which, now, out);
    }

    fn shake(
        &mut self,
        now: Now,
        kind: Kind,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut Outbox,
    ) {
        self.limiter.reset_count();
        let which = wire::receiver(datagram, kind)
            .map_or(Some(Which::Active), |receiver| self.addressee(receiver));
        let Some(which) = which else {
            self.counters.drop(DropReason::Stranger);
            return;
        };
        self.tick_if(which, now, out, super::Peer::is_stale_for_handshake);
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else {
            self.counters.drop(DropReason::Stranger);
            return;
        };
        let room = out.reserve(from, HANDSHAKE_ROOM);
        match peer.shake(now.instant, from.ip(), datagram, room) {
            Shaken::Established(length) => {
                out.commit(length);
                link.sent = now.instant;
                // The hub answers at once, and has not had the data of the last 15 s: it would have
                // said so by itself.
                if link.hearing.is_unanswered(now.instant) && link.schedule.failed() == 0 {
                    self.long.is_missed(now.instant);
                }
                self.heard(which, now, from);
                self.established(which, now, out);
            }
            // Nothing is known about the sender before it uses the session: it may be a replay.
            Shaken::Answered(length) | Shaken::Cookie(length) => out.commit(length),
            Shaken::CookieTaken => {
                link.suspicion.see(Trouble::Overloaded);
                self.counters.cookies += 1;
            }
            Shaken::Dropped(reason) => {
                if kind == Kind::Response && reason == DropReason::Undecryptable {
                    link.suspicion.see(Trouble::WrongKey);
                }
                self.counters.drop(reason);
            }
            Shaken::Panicked => self.panicked(which, now),
        }
    }

    /// The hub has answered our initiation.
    fn established(&mut self, which: Which, now: Now, out: &mut Outbox) {
        let random = self.random.f64();
        let Some(link) = link(&mut self.active, &mut self.probe, which) else { return };
        link.schedule.established(now.instant, random);
        link.is_proven = true;
        self.has_session(which, now, out);
    }

    fn has_session(&mut self, which: Which, now: Now, out: &mut Outbox) {
        let random = self.random.f64();
        self.counters.handshakes += 1;
        self.last_handshake = Some(now.wall);
        if which == Which::Probe
            && let Some(link) = self.probe.take()
        {
            self.preference.come_back(link.hub, now.instant, random);
            self.counters.hub_changes += 1;
            let left = std::mem::replace(&mut self.active, link);
            self.put_away(left);
            self.long = Long::default();
        }
        self.preference.answered(now.instant, random);
        self.flush(now, out);
    }

    pub(super) fn panicked(&mut self, which: Which, now: Now) {
        self.counters.panics += 1;
        if let Some(link) = link(&mut self.active, &mut self.probe, which) {
            link.rebuild(now.instant);
        }
    }
}
