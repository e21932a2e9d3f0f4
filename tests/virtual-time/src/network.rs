//! What lies between a site and its hubs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use e2e::{Conditions, Impairment};

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
    pub cut: BTreeSet<IpAddr>,
    /// Ports whose mapping a router has forgotten: what they send is lost.
    pub dead: BTreeSet<SocketAddr>,
    /// Longest datagram that passes.
    pub longest: usize,
    /// So many of the next initiations of a handshake are lost.
    pub initiations_to_lose: u32,
    /// The last ones that were sent, if a test wants to see them.
    pub seen: Option<Vec<Datagram>>,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            impairment: Impairment::new(seed, Conditions::default()),
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            longest: usize::MAX,
            initiations_to_lose: 0,
            seen: None,
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Sends a datagram.
    pub fn send(&mut self, now: Instant, datagram: &Datagram) {
        if let Some(seen) = &mut self.seen {
            seen.push(datagram.clone());
        }
        let is_dead = self.dead.contains(&datagram.from) || self.dead.contains(&datagram.to);
        if is_dead || datagram.bytes.len() > self.longest {
            return;
        }
        if self.initiations_to_lose > 0 && datagram.bytes.first() == Some(&1) {
            self.initiations_to_lose -= 1;
            return;
        }
        for (at, bytes) in self.impairment.pass(now, &datagram.bytes) {
            self.sent += 1;
            self.under_way.insert((at, self.sent), Datagram { bytes, ..*datagram });
        }
    }

    /// When the next one arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    /// The next one that has arrived.
    pub fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        while self.next_at().is_some_and(|at| at <= now) {
            let (_, datagram) = self.under_way.pop_first()?;
            let is_cut = |address: &SocketAddr| self.cut.contains(&address.ip());
            if !is_cut(&datagram.from) && !is_cut(&datagram.to) {
                return Some(datagram);
            }
        }
        None
    }
}
