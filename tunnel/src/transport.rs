//! Carries datagrams between the two ends of a tunnel.

mod memory;
mod recv_batch;
mod send_batch;
mod udp;

use std::io;

use crate::core::PathError;

pub use memory::{MemoryTransport, memory_pair};
pub use recv_batch::RecvBatch;
pub use send_batch::{Segments, SendBatch};
pub use udp::{Batching, LocalPort, UdpTransport};

/// Longest datagram: an IP packet and 32 bytes of WireGuard. Longer than UDP can carry, so a buffer
/// of this length always suffices.
pub const MAX_DATAGRAM: usize = u16::MAX as usize + 32;

/// Carries datagrams to the other end: over UDP, or in memory between two ends in one process.
///
/// It is connectionless: datagrams can be lost, duplicated, reordered, and come from anyone.
pub trait Transport: Send {
    /// Waits until something has arrived and adds as much as fits to `received`.
    ///
    /// That can also be the notification that the route to the hub has changed.
    ///
    /// Cancel safe. Errors that concern a single datagram (an ICMP error, a datagram that is too
    /// long) are not errors of the transport and are dropped here.
    fn receive(&mut self, received: &mut RecvBatch) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends everything in `outgoing`, in order, and empties it. Datagrams that the system rejects
    /// are dropped and counted.
    fn send(&mut self, outgoing: &mut SendBatch) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns why the system has rejected the last datagram; `None` if it was sent.
    fn send_error(&self) -> Option<PathError>;

    /// Returns the number of datagrams that the system has rejected since the start.
    fn unsent(&self) -> u64;

    /// Returns the local UDP port; `None` without one.
    fn local_port(&self) -> Option<u16>;

    /// Opens another local port, because a router may have dropped the mapping of the old one.
    fn rebind(&mut self) -> io::Result<()>;
}
