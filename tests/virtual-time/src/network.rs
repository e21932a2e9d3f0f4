//! What lies between a site and its hubs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How badly the network treats datagrams; probabilities are in `[0, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Time from one end to the other.
    pub delay: Duration,
    /// Up to this is added, so that datagrams overtake each other.
    pub jitter: Duration,
    /// How many are lost.
    pub loss: f64,
    /// How many come twice.
    pub duplicate: f64,
    /// How many come with a flipped bit.
    pub corrupt: f64,
}

/// A good line.
impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

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
    /// How it is.
    pub conditions: Conditions,
    /// Hosts that nothing reaches and from which nothing comes.
    pub cut: BTreeSet<IpAddr>,
    /// Ports whose mapping a router has forgotten: what they send is lost.
    pub dead: BTreeSet<SocketAddr>,
    /// Longest datagram that passes.
    pub longest: usize,
    /// The last ones that were sent, if a test wants to see them.
    pub seen: Option<Vec<Datagram>>,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    random: fastrand::Rng,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            longest: usize::MAX,
            seen: None,
            under_way: BTreeMap::new(),
            sent: 0,
            random: fastrand::Rng::with_seed(seed),
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
        let copies = if self.random.f64() < self.conditions.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.f64() >= self.conditions.loss {
                let at =
                    now + self.conditions.delay + self.conditions.jitter.mul_f64(self.random.f64());
                let datagram = self.corrupted(datagram.clone());
                self.sent += 1;
                self.under_way.insert((at, self.sent), datagram);
            }
        }
    }

    fn corrupted(&mut self, mut datagram: Datagram) -> Datagram {
        if self.random.f64() < self.conditions.corrupt {
            let bit = self.random.usize(..datagram.bytes.len() * 8);
            if let Some(byte) = datagram.bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        datagram
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
