//! What comes from outside.

use std::net::SocketAddr;

use super::{FailureCause, LinkRole, SiteTunnel, link_mut};
use crate::core::black_hole::BlackHoleDetector;
use crate::core::clock::Now;
use crate::core::counters::DropReason;
use crate::core::ip_header;
use crate::core::peer::{Decrypted, HandshakeOutcome, MAX_HANDSHAKE_LEN};
use crate::core::wire::{self, MessageType};
use crate::packet_buffer::PacketSink;
use crate::transport::SendBatch;

impl SiteTunnel {
    pub(in crate::core) fn handle_datagram(
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

    /// The link that a receiver index belongs to.
    fn link_by_index(&self, receiver: u32) -> Option<LinkRole> {
        let is = |peer: &Option<_>| {
            peer.as_ref().map(super::Peer::index) == Some(wire::peer_index(receiver))
        };
        if is(&self.active.peer) {
            return Some(LinkRole::Active);
        }
        self.probe.as_ref().filter(|link| is(&link.peer)).map(|_| LinkRole::Probe)
    }

    fn handle_data(
        &mut self,
        now: Now,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
        packets: &mut impl PacketSink,
    ) {
        let receiver = wire::receiver_index(datagram, MessageType::Data).unwrap_or_default();
        let Some(which) = self.link_by_index(receiver) else {
            self.counters.count_dropped(DropReason::Stranger);
            return;
        };
        self.update_timers_if(which, now, out, super::Peer::is_stale);
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else { return };
        let (hub, before) = (link.hub, peer.session_start(now.instant));
        let room = packets.reserve(datagram.len());
        let opened = peer.decrypt(now.instant, receiver, datagram, room);
        let is_new = peer.session_start(now.instant) != before;
        match opened {
            Decrypted::Packet(length) => {
                let header = room.get(..length).and_then(ip_header::parse);
                let verdict = header.ok_or(DropReason::Malformed).and_then(|header| {
                    let is_allowed = self.is_allowed(hub, header.source);
                    is_allowed.then_some(header.length).ok_or(DropReason::NotAllowedIn)
                });
                match verdict {
                    Ok(length) => {
                        if let Some(packet) = room.get(..length) {
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
            Decrypted::Panicked => return self.on_panic(which, now),
        }
        self.on_authenticated(which, now, from);
        if is_new {
            self.on_session_confirmed(which, now, out);
        }
    }

    /// Something authentic came: that is where the hub is.
    fn on_authenticated(&mut self, which: LinkRole, now: Now, from: SocketAddr) {
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        link.liveness.on_received(now.instant);
        link.last_cause.on_cause(FailureCause::Unknown);
        let place = self.endpoints.get_mut(link.hub);
        if place.is_some_and(|place| place.roam(from)) {
            self.counters.endpoint_changes += 1;
        }
    }

    /// The hub has used a session that it began.
    fn on_session_confirmed(&mut self, which: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        link.timer.on_peer_established(now.instant, random);
        self.on_session(which, now, out);
    }

    fn handle_handshake(
        &mut self,
        now: Now,
        kind: MessageType,
        (from, datagram): (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) {
        self.limiter.reset_count();
        let which = wire::receiver_index(datagram, kind)
            .map_or(Some(LinkRole::Active), |receiver| self.link_by_index(receiver));
        let Some(which) = which else {
            self.counters.count_dropped(DropReason::Stranger);
            return;
        };
        self.update_timers_if(which, now, out, super::Peer::is_stale_for_handshake);
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        let Some(peer) = &mut link.peer else {
            self.counters.count_dropped(DropReason::Stranger);
            return;
        };
        let room = out.reserve(from, MAX_HANDSHAKE_LEN);
        match peer.handle_handshake(now.instant, from.ip(), datagram, room) {
            HandshakeOutcome::Established(length) => {
                out.commit(length);
                link.last_sent = now.instant;
                // The hub answers at once, and has not had the data of the last 15 s: it would have
                // said so by itself.
                if link.liveness.is_reply_overdue(now.instant) && link.timer.failed_attempts() == 0
                {
                    self.black_hole.on_missing(now.instant);
                }
                self.on_authenticated(which, now, from);
                self.on_established(which, now, out);
            }
            // Nothing is known about the sender before it uses the session: it may be a replay.
            HandshakeOutcome::Responded(length) | HandshakeOutcome::CookieSent(length) => {
                out.commit(length)
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
            HandshakeOutcome::Panicked => self.on_panic(which, now),
        }
    }

    /// The hub has answered our initiation.
    fn on_established(&mut self, which: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        let Some(link) = link_mut(&mut self.active, &mut self.probe, which) else { return };
        link.timer.on_established(now.instant, random);
        link.is_proven = true;
        self.on_session(which, now, out);
    }

    fn on_session(&mut self, which: LinkRole, now: Now, out: &mut SendBatch) {
        let random = self.random.f64();
        self.counters.handshakes += 1;
        self.last_handshake = Some(now.wall);
        if which == LinkRole::Probe
            && let Some(link) = self.probe.take()
        {
            self.selector.on_probe_answered(link.hub, now.instant, random);
            self.counters.hub_changes += 1;
            let left = std::mem::replace(&mut self.active, link);
            self.retire_link(left);
            self.black_hole = BlackHoleDetector::default();
        }
        self.selector.on_answered(now.instant, random);
        self.send_pending(now, out);
    }

    pub(super) fn on_panic(&mut self, which: LinkRole, now: Now) {
        self.counters.panics += 1;
        if let Some(link) = link_mut(&mut self.active, &mut self.probe, which) {
            link.reset_peer(now.instant);
        }
    }
}
