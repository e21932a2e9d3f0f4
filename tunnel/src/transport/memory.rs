//! A transport between two ends in one process.

use std::io;
use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::{RecvBatch, SendBatch, Transport};
use crate::core::PathError;

/// Batches that may wait at each end; further ones are dropped, as on a network.
const MAX_QUEUED_BATCHES: usize = 64;
/// Length at which a batch is split, in bytes, so that it fits into the receiver's buffer.
const BATCH_BYTES: usize = 32 * 1024;

/// One end of a transport in memory.
#[derive(Debug)]
pub struct MemoryTransport {
    address: SocketAddr,
    to_peer: mpsc::Sender<MemoryBatch>,
    from_peer: mpsc::Receiver<MemoryBatch>,
    unsent: u64,
}

/// Datagrams that one end has sent at once.
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

/// Creates both ends. The addresses are only labels: everything goes to the other end, for any
/// destination, and has this end's address as source.
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
    /// Passes a batch on, or drops it if the other end is full or gone.
    fn deliver(&mut self, batch: MemoryBatch) {
        let count = batch.lengths.len() as u64;
        // Waiting for the other end could deadlock two ends that send to each other.
        if self.to_peer.try_send(batch).is_err() {
            self.unsent += count;
        }
    }
}

impl Transport for MemoryTransport {
    async fn receive(&mut self, received: &mut RecvBatch) -> io::Result<()> {
        let Some(mut batch) = self.from_peer.recv().await else {
            // The other end was dropped, like a host that was switched off.
            return std::future::pending().await;
        };
        loop {
            let mut rest = batch.bytes.as_slice();
            for length in batch.lengths {
                let (datagram, after) = rest.split_at_checked(length).unwrap_or_default();
                received.push(batch.from, datagram);
                rest = after;
            }
            if !received.has_room() {
                return Ok(());
            }
            match self.from_peer.try_recv() {
                Ok(next) => batch = next,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn send(&mut self, outgoing: &mut SendBatch) -> io::Result<()> {
        let mut batch = MemoryBatch::new(self.address);
        for (_, datagram) in outgoing.datagrams() {
            batch.bytes.extend_from_slice(datagram);
            batch.lengths.push(datagram.len());
            if batch.bytes.len() >= BATCH_BYTES {
                let full = std::mem::replace(&mut batch, MemoryBatch::new(self.address));
                self.deliver(full);
            }
        }
        outgoing.clear();
        if !batch.lengths.is_empty() {
            self.deliver(batch);
        }
        Ok(())
    }

    fn send_error(&self) -> Option<PathError> {
        None
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn local_port(&self) -> Option<u16> {
        None
    }

    fn rebind(&mut self) -> io::Result<()> {
        let port = self.address.port().checked_add(1).unwrap_or(1024);
        self.address.set_port(port);
        Ok(())
    }
}
