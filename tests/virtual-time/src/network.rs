//! What lies between a site and its hubs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use e2e::{Impairment, NetworkConditions};

/// A datagram on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// How it treats what is sent.
    pub impairment: Impairment,
    /// Hosts that nothing reaches and from which nothing comes.
    pub unreachable_hosts: BTreeSet<IpAddr>,
    /// Ports whose mapping a router has forgotten: what they send is lost.
    pub forgotten_ports: BTreeSet<SocketAddr>,
    /// Longest datagram that passes.
    pub max_datagram_len: usize,
    /// So many of the next initiations of a handshake are lost.
    pub initiations_to_drop: u32,
    /// The last ones that were sent, if a test wants to see them.
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
        let is_dead = self.forgotten_ports.contains(&datagram.from)
            || self.forgotten_ports.contains(&datagram.to);
        if is_dead || datagram.bytes.len() > self.max_datagram_len {
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

    /// When the next one arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// The next one that has arrived.
    pub fn next_arrived(&mut self, now: Instant) -> Option<Datagram> {
        while self.next_at().is_some_and(|at| at <= now) {
            let (_, datagram) = self.in_flight.pop_first()?;
            let is_cut = |address: &SocketAddr| self.unreachable_hosts.contains(&address.ip());
            if !is_cut(&datagram.from) && !is_cut(&datagram.to) {
                return Some(datagram);
            }
        }
        None
    }
}
