//! A way between two ends in one process.

use std::io;
use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::{Inbox, Outbox, Path};

/// Sendings that wait at each end; more are lost, as on a network.
const WAITING: usize = 64;
/// A sending is not much longer than this, so that it fits where a kernel's would.
const LENGTH: usize = 32 * 1024;

/// One of two ends that are joined in memory.
#[derive(Debug)]
pub struct MemoryPath {
    address: SocketAddr,
    to_peer: mpsc::Sender<Sending>,
    from_peer: mpsc::Receiver<Sending>,
    unsent: u64,
}

/// Everything that one end sent at once.
#[derive(Debug)]
struct Sending {
    from: SocketAddr,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Sending {
    const fn new(from: SocketAddr) -> Self {
        Self { from, bytes: Vec::new(), lengths: Vec::new() }
    }
}

/// Makes both ends of a way. The addresses are only names: what is sent goes to the other end,
/// whatever address it is sent to, and seems to come from this end's.
#[must_use]
pub fn memory(one: SocketAddr, other: SocketAddr) -> (MemoryPath, MemoryPath) {
    let (to_other, from_one) = mpsc::channel(WAITING);
    let (to_one, from_other) = mpsc::channel(WAITING);
    (
        MemoryPath { address: one, to_peer: to_other, from_peer: from_other, unsent: 0 },
        MemoryPath { address: other, to_peer: to_one, from_peer: from_one, unsent: 0 },
    )
}

impl MemoryPath {
    /// Without room, or with nobody there, it is lost.
    fn pass_on(&mut self, sending: Sending) {
        let count = sending.lengths.len() as u64;
        if self.to_peer.try_send(sending).is_err() {
            self.unsent += count;
        }
    }
}

impl Path for MemoryPath {
    async fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
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

    async fn send(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        let mut sending = Sending::new(self.address);
        for (_, datagram) in outbox.datagrams() {
            sending.bytes.extend_from_slice(datagram);
            sending.lengths.push(datagram.len());
            if sending.bytes.len() >= LENGTH {
                let full = std::mem::replace(&mut sending, Sending::new(self.address));
                self.pass_on(full);
            }
        }
        outbox.clear();
        if !sending.lengths.is_empty() {
            self.pass_on(sending);
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
