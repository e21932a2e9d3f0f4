//! A way between two ends in one process.

use std::io;
use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::{RecvBatch, SendBatch, Transport};

/// Sendings that wait at each end; more are lost, as on a network.
const MAX_QUEUED_BATCHES: usize = 64;
/// A sending is not much longer than this, so that it fits where a kernel's would.
const BATCH_BYTES: usize = 32 * 1024;

/// One of two ends that are joined in memory.
#[derive(Debug)]
pub struct MemoryTransport {
    address: SocketAddr,
    to_peer: mpsc::Sender<MemoryBatch>,
    from_peer: mpsc::Receiver<MemoryBatch>,
    unsent: u64,
}

/// Everything that one end sent at once.
#[derive(Debug)]
struct MemoryBatch {
    from: SocketAddr,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl MemoryBatch {
    const fn new(from: SocketAddr) -> Self {
        Self { from, bytes: Vec::new(), lengths: Vec::new() }
    }
}

/// Makes both ends of a way. The addresses are only names: what is sent goes to the other end,
/// whatever address it is sent to, and seems to come from this end's.
#[must_use]
pub fn memory_pair(one: SocketAddr, other: SocketAddr) -> (MemoryTransport, MemoryTransport) {
    let (to_other, from_one) = mpsc::channel(MAX_QUEUED_BATCHES);
    let (to_one, from_other) = mpsc::channel(MAX_QUEUED_BATCHES);
    (
        MemoryTransport { address: one, to_peer: to_other, from_peer: from_other, unsent: 0 },
        MemoryTransport { address: other, to_peer: to_one, from_peer: from_one, unsent: 0 },
    )
}

impl MemoryTransport {
    /// Without room, or with nobody there, it is lost.
    fn deliver(&mut self, sending: MemoryBatch) {
        let count = sending.lengths.len() as u64;
        if self.to_peer.try_send(sending).is_err() {
            self.unsent += count;
        }
    }
}

impl Transport for MemoryTransport {
    async fn receive(&mut self, inbox: &mut RecvBatch) -> io::Result<()> {
        let Some(mut sending) = self.from_peer.recv().await else {
            // The other end is gone, like a host that was switched off.
            return std::future::pending().await;
        };
        loop {
            let mut rest = sending.bytes.as_slice();
            for length in sending.lengths {
                let (datagram, after) = rest.split_at_checked(length).unwrap_or_default();
                inbox.push(sending.from, datagram);
                rest = after;
            }
            if !inbox.has_room() {
                return Ok(());
            }
            match self.from_peer.try_recv() {
                Ok(next) => sending = next,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn send(&mut self, outbox: &mut SendBatch) -> io::Result<()> {
        let mut sending = MemoryBatch::new(self.address);
        for (_, datagram) in outbox.datagrams() {
            sending.bytes.extend_from_slice(datagram);
            sending.lengths.push(datagram.len());
            if sending.bytes.len() >= BATCH_BYTES {
                let full = std::mem::replace(&mut sending, MemoryBatch::new(self.address));
                self.deliver(full);
            }
        }
        outbox.clear();
        if !sending.lengths.is_empty() {
            self.deliver(sending);
        }
        Ok(())
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn rebind(&mut self) -> io::Result<()> {
        let port = self.address.port().checked_add(1).unwrap_or(1024);
        self.address.set_port(port);
        Ok(())
    }
}
