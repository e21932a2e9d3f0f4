//! The way that datagrams take between the two ends of a tunnel.

use std::io;
use std::net::SocketAddr;

/// A way to the other end. UDP is the first; the in-memory one joins two ends in one process.
///
/// Not a connection: datagrams may be lost, doubled, reordered, and come from anybody.
pub trait Path: Send {
    /// Waits until something has arrived and adds it to `inbox`, as much as is there and fits.
    ///
    /// Cancel safe. An error that concerns a single datagram (an ICMP answer, a too long datagram)
    /// is no error of the path and is swallowed here.
    fn receive(&mut self, inbox: &mut Inbox) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends everything in `outbox`, in order, and empties it. What the system has no room for is
    /// dropped, as a network would.
    fn send(&mut self, outbox: &mut Outbox) -> impl Future<Output = io::Result<()>> + Send;

    /// Takes a new local port: some router on the way has forgotten us.
    fn rebind(&mut self) -> io::Result<()>;
}

/// Datagrams that have arrived.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

/// Datagrams of equal length from one sender, as the kernel joins them; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: SocketAddr,
    start: usize,
    length: usize,
    stride: usize,
}

/// Datagrams to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<Outgoing>,
}

/// A datagram in an [`Outbox`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub to: SocketAddr,
    /// Where its bytes begin.
    pub start: usize,
    /// How many they are.
    pub length: usize,
}
