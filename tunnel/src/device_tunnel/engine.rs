//! What a driver drives.

use std::net::SocketAddr;
use std::time::Instant;

use crate::core::DropReason;
use crate::device::PacketCoalescer;
use crate::transport::SendBatch;

/// What decides for a tunnel, without a socket and without a clock.
pub(crate) trait Engine: Send {
    /// What it can be told, beside datagrams and packets.
    type Event: Send;
    /// What it can ask of others.
    type Command: Send;

    /// Takes a datagram from anybody. Packets in it go to `hostbound`, answers to `outbox`.
    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        outbox: &mut SendBatch,
        hostbound: &mut PacketCoalescer,
    );

    /// Learns that, so says an ICMP packet that anybody can forge, nothing listens there.
    fn handle_refusal(&mut self, now: Instant, to: SocketAddr);

    /// Learns that the way out of this host is another.
    fn handle_move(&mut self, now: Instant);

    /// Takes a packet of the host, and puts what becomes of it into `outbox`.
    fn handle_packet(&mut self, now: Instant, packet: &[u8], outbox: &mut SendBatch);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant, outbox: &mut SendBatch);

    /// Tells others how it is, once everything that had come is done.
    fn tell(&mut self, now: Instant);

    /// When something will be due; may lie in the past.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Takes what it is told. What follows from it is due at once.
    fn handle_event(&mut self, now: Instant, event: Self::Event);

    /// What it wants, one after the other. It is carried out before what is in the outbox is sent:
    /// an initiation that comes with [`Want::Rebind`] leaves from the new port.
    fn next_command(&mut self) -> Option<Want<Self::Command>>;

    /// Learns what was lost without its doing.
    fn handle_lost(&mut self, reason: DropReason, count: u64);
}

/// What an [`Engine`] wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Want<T> {
    /// Another local port.
    Rebind,
    /// Something of others.
    Ask(T),
}
