//! The network between a site and its hubs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use e2e::{Impairment, NetworkConditions};

/// A datagram in flight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// Source address.
    pub from: SocketAddr,
    /// Destination address.
    pub to: SocketAddr,
    /// Payload.
    pub bytes: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// Delay, loss and other impairments.
    pub impairment: Impairment,
    /// Hosts whose datagrams are dropped in both directions.
    pub unreachable_hosts: BTreeSet<IpAddr>,
    /// Addresses whose mapping a router has dropped: their datagrams are dropped.
    pub forgotten_ports: BTreeSet<SocketAddr>,
    /// Longest datagram that passes, in bytes.
    pub max_datagram_len: usize,
    /// Number of the next handshake initiations to drop.
    pub initiations_to_drop: u32,
    /// All datagrams that are sent, while a test captures them.
    pub captured: Option<Vec<Datagram>>,
    in_flight: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            impairment: Impairment::new(seed, NetworkConditions::default()),
            unreachable_hosts: BTreeSet::new(),
            forgotten_ports: BTreeSet::new(),
            max_datagram_len: usize::MAX,
            initiations_to_drop: 0,
            captured: None,
            in_flight: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Sends a datagram.
    pub fn send(&mut self, now: Instant, datagram: &Datagram) {
        if let Some(seen) = &mut self.captured {
            seen.push(datagram.clone());
        }
        let is_forgotten = self.forgotten_ports.contains(&datagram.from)
            || self.forgotten_ports.contains(&datagram.to);
        if is_forgotten || datagram.bytes.len() > self.max_datagram_len {
            return;
        }
        if self.initiations_to_drop > 0 && datagram.bytes.first() == Some(&1) {
            self.initiations_to_drop -= 1;
            return;
        }
        for (at, bytes) in self.impairment.pass(now, &datagram.bytes) {
            self.sent += 1;
            self.in_flight.insert((at, self.sent), Datagram { bytes, ..*datagram });
        }
    }

    /// Returns when the next datagram arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// Returns the next datagram that has arrived.
    pub fn next_arrived(&mut self, now: Instant) -> Option<Datagram> {
        while self.next_at().is_some_and(|at| at <= now) {
            let (_, datagram) = self.in_flight.pop_first()?;
            let is_unreachable =
                |address: &SocketAddr| self.unreachable_hosts.contains(&address.ip());
            if !is_unreachable(&datagram.from) && !is_unreachable(&datagram.to) {
                return Some(datagram);
            }
        }
        None
    }
}
