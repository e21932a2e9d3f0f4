//! The way that datagrams take between the two ends of a tunnel.

mod memory;
mod recv_batch;
mod send_batch;
mod udp;

use std::io;

pub use memory::{MemoryTransport, memory_pair};
pub use recv_batch::RecvBatch;
pub use send_batch::{Segments, SendBatch};
pub use udp::{Batching, LocalPort, UdpTransport};

/// Longest datagram of WireGuard: a whole IP packet and 32 bytes around it. Longer than UDP can
/// carry, so that a buffer of this length is always long enough.
pub const MAX_DATAGRAM: usize = u16::MAX as usize + 32;

/// A way to the other end. UDP is the first; the in-memory one joins two ends in one process.
///
/// Not a connection: datagrams may be lost, doubled, reordered, and come from anybody.
pub trait Transport: Send {
    /// Waits until something has arrived and adds it to `inbox`, as much as is there and fits.
    ///
    /// What has arrived may also be the news that the way out of this host is another.
    ///
    /// Cancel safe. An error that concerns a single datagram (an ICMP answer, a too long datagram)
    /// is no error of the path and is swallowed here.
    fn receive(&mut self, inbox: &mut RecvBatch) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends everything in `outbox`, in order, and empties it. What the system does not take is
    /// dropped, as a network would, and counted.
    fn send(&mut self, outbox: &mut SendBatch) -> impl Future<Output = io::Result<()>> + Send;

    /// Datagrams that the system did not take, since the start.
    fn unsent(&self) -> u64;

    /// Takes a new local port: some router on the way has forgotten us.
    fn rebind(&mut self) -> io::Result<()>;
}
