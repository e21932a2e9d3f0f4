//! Engines that are simpler than a tunnel.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};

use crate::core::DropReason;
use crate::device::PacketCoalescer;
use crate::device_tunnel::{Engine, Want};
use crate::key::PrivateKey;
use crate::transport::{MAX_DATAGRAM, SendBatch};

/// What each test watches from outside.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) refusals: u64,
    pub(super) moves: u64,
    pub(super) lost: u64,
    pub(super) timeouts: u64,
    pub(super) packets: u64,
    /// How many packets there had been at the first refusal, at the first event and at the last
    /// timeout.
    pub(super) until: [Option<u64>; 3],
    pub(super) events: Vec<u8>,
}

/// The simplest tunnel there is: datagrams are packets.
pub(super) struct Plain {
    to: SocketAddr,
    pub(super) seen: Seen,
    pub(super) due: Option<Instant>,
    commands: Vec<Want<u8>>,
}

impl Plain {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, seen: Seen::default(), due: None, commands: Vec::new() }
    }
}

impl Engine for Plain {
    type Event = u8;
    type Command = u8;

    fn handle_datagram(
        &mut self,
        _: Instant,
        _: SocketAddr,
        datagram: &[u8],
        _: &mut SendBatch,
        hostbound: &mut PacketCoalescer,
    ) {
        hostbound.push(datagram);
    }

    fn handle_refusal(&mut self, _: Instant, _: SocketAddr) {
        self.seen.refusals += 1;
        self.seen.until[0].get_or_insert(self.seen.packets);
    }

    fn handle_move(&mut self, _: Instant) {
        self.seen.moves += 1;
    }

    fn handle_packet(&mut self, _: Instant, packet: &[u8], outbox: &mut SendBatch) {
        self.seen.packets += 1;
        outbox.push(self.to, packet);
    }

    fn handle_timeout(&mut self, _: Instant, outbox: &mut SendBatch) {
        self.seen.timeouts += 1;
        self.seen.until[2] = Some(self.seen.packets);
        self.due = None;
        if !self.commands.is_empty() {
            outbox.push(self.to, b"from the new port");
        }
    }

    fn tell(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_event(&mut self, now: Instant, event: u8) {
        self.seen.events.push(event);
        self.seen.until[1].get_or_insert(self.seen.packets);
        self.due = Some(now);
        self.commands.push(Want::Rebind);
        self.commands.push(Want::Ask(event));
    }

    fn next_command(&mut self) -> Option<Want<u8>> {
        (!self.commands.is_empty()).then(|| self.commands.remove(0))
    }

    fn handle_lost(&mut self, _: DropReason, count: u64) {
        self.seen.lost += count;
    }
}

/// WireGuard without a policy.
pub(super) struct Wire {
    tunn: Tunn,
    to: SocketAddr,
    due: Instant,
}

impl Wire {
    pub(super) fn new(key: &PrivateKey, peer: &PrivateKey, to: SocketAddr) -> Self {
        let peer = boringtun::x25519::PublicKey::from(&peer.to_static_secret());
        Self {
            tunn: Tunn::new(key.to_static_secret(), peer, None, None, 1, None),
            to,
            due: Instant::now(),
        }
    }
}

impl Engine for Wire {
    type Event = u8;
    type Command = u8;

    fn handle_datagram(
        &mut self,
        _: Instant,
        from: SocketAddr,
        datagram: &[u8],
        outbox: &mut SendBatch,
        hostbound: &mut PacketCoalescer,
    ) {
        let place = hostbound.reserve(MAX_DATAGRAM);
        match self.tunn.decapsulate(Some(from.ip()), datagram, place) {
            TunnResult::WriteToTunnelV4(packet, _) => {
                let length = packet.len();
                hostbound.commit(length);
            }
            TunnResult::WriteToTunnelV6(packet, _) => {
                let length = packet.len();
                hostbound.commit(length);
            }
            TunnResult::WriteToNetwork(answer) => {
                outbox.push(self.to, answer);
                loop {
                    let place = outbox.reserve(self.to, MAX_DATAGRAM);
                    let TunnResult::WriteToNetwork(more) = self.tunn.decapsulate(None, &[], place)
                    else {
                        break;
                    };
                    let length = more.len();
                    outbox.commit(length);
                }
            }
            TunnResult::Done | TunnResult::Err(_) => {}
        }
    }

    fn handle_refusal(&mut self, _: Instant, _: SocketAddr) {}

    fn handle_move(&mut self, _: Instant) {}

    fn handle_packet(&mut self, _: Instant, packet: &[u8], outbox: &mut SendBatch) {
        let place = outbox.reserve(self.to, (packet.len() + 32).max(148));
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, place) {
            let length = datagram.len();
            outbox.commit(length);
        }
    }

    fn handle_timeout(&mut self, now: Instant, outbox: &mut SendBatch) {
        self.due = now + Duration::from_millis(250);
        let place = outbox.reserve(self.to, 148);
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.update_timers(place) {
            let length = datagram.len();
            outbox.commit(length);
        }
    }

    fn tell(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn handle_event(&mut self, _: Instant, _: u8) {}

    fn next_command(&mut self) -> Option<Want<u8>> {
        None
    }

    fn handle_lost(&mut self, _: DropReason, _: u64) {}
}
