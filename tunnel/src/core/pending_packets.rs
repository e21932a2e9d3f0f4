//! Packets that wait for a session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counters::{Counters, DropReason};

/// Packets that may wait. The oldest are dropped first: their senders time out first.
const MAX_PACKETS: usize = 64;
/// Longest wait. Later the sender has retransmitted the packet, and a duplicate does harm.
const MAX_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct PendingPackets {
    packets: VecDeque<(Instant, Vec<u8>)>,
}

impl PendingPackets {
    pub(super) fn push(&mut self, now: Instant, packet: &[u8], counters: &mut Counters) {
        if self.packets.len() >= MAX_PACKETS {
            self.packets.pop_front();
            counters.count_dropped(DropReason::QueueFull);
        }
        self.packets.push_back((now, packet.to_vec()));
    }

    /// Drops the packets that have waited too long.
    pub(super) fn expire(&mut self, now: Instant, counters: &mut Counters) {
        while self.packets.front().is_some_and(|(since, _)| now >= *since + MAX_WAIT) {
            self.packets.pop_front();
            counters.count_dropped(DropReason::Waited);
        }
    }

    /// Returns when the next packet has waited too long.
    pub(super) fn next_expiry_at(&self) -> Option<Instant> {
        self.packets.front().map(|(since, _)| *since + MAX_WAIT)
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front().map(|(_, packet)| packet)
    }
}
