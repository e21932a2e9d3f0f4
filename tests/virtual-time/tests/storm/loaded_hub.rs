//! A hub that is busy: it behaves as WireGuard in Linux does under load, with the handshakes of
//! boringtun.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use tunnel::{PrivateKey, PublicKey};

/// Time for a handshake: 2,000 in a second.
const HANDSHAKE_COST: Duration = Duration::from_micros(500);
/// Time for a message that costs no curve operation.
const MAC_COST: Duration = Duration::from_micros(10);
/// Handshake messages that wait (MAX_QUEUED_INCOMING_HANDSHAKES in `queueing.h` of Linux).
const MAX_QUEUED: usize = 4096;
/// Waiting messages from which on the hub is under load, which lasts for a second more.
const LOADED_FROM: usize = MAX_QUEUED / 8;
const LOADED_FOR: Duration = Duration::from_secs(1);
/// Handshakes of one source address under load (`ratelimiter.c`): 20 in a second, 5 at once.
const SOURCE_COST: Duration = Duration::from_millis(50);
const SOURCE_BURST: Duration = Duration::from_millis(250);

/// An initiation that waits.
struct QueuedInitiation {
    site: usize,
    from: IpAddr,
    bytes: Vec<u8>,
}

/// What the hub has done with the initiations that arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HubCounters {
    /// Answered with a response.
    pub(crate) responses: u64,
    /// Answered with a cookie.
    pub(crate) cookies: u64,
    /// Dropped, because the queue was full.
    pub(crate) overflowed: u64,
    /// Dropped, because their source address had sent too many.
    pub(crate) limited: u64,
    /// Most initiations that waited.
    pub(crate) longest_queue: usize,
}

/// The hub.
pub(crate) struct LoadedHub {
    key: PrivateKey,
    sites: Vec<PublicKey>,
    /// By the number of the site; absent until it connects.
    sessions: Vec<Option<Tunn>>,
    queue: VecDeque<QueuedInitiation>,
    /// Until when the initiation that was taken from the queue last is processed.
    busy_until: Instant,
    loaded_until: Instant,
    cookies: RateLimiter,
    sources: HashMap<IpAddr, (Instant, Duration)>,
    is_up: bool,
    pub(crate) counters: HubCounters,
}

impl LoadedHub {
    pub(crate) fn new(key: PrivateKey, sites: Vec<PublicKey>) -> Self {
        let now = Instant::now();
        Self {
            sessions: sites.iter().map(|_| None).collect(),
            sites,
            queue: VecDeque::new(),
            busy_until: now,
            loaded_until: now,
            // A limit of zero asks every initiation for a cookie.
            cookies: RateLimiter::new(&to_bytes(&key.public_key().to_string()).into(), 0),
            key,
            sources: HashMap::new(),
            is_up: true,
            counters: HubCounters::default(),
        }
    }

    /// Stops the hub, which forgets everything but its keys.
    pub(crate) fn stop(&mut self) {
        let sites = std::mem::take(&mut self.sites);
        *self = Self { is_up: false, ..Self::new(self.key.clone(), sites) };
    }

    /// Starts the hub again.
    pub(crate) fn start(&mut self) {
        self.is_up = true;
    }

    /// Returns when the next waiting initiation is processed.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.busy_until)
    }

    /// Queues an initiation.
    pub(crate) fn queue_initiation(&mut self, site: usize, from: IpAddr, bytes: Vec<u8>) {
        if !self.is_up {
            return;
        }
        if self.queue.len() >= MAX_QUEUED {
            self.counters.overflowed += 1;
            return;
        }
        if self.queue.is_empty() {
            self.busy_until = self.busy_until.max(Instant::now());
        }
        self.queue.push_back(QueuedInitiation { site, from, bytes });
        self.counters.longest_queue = self.counters.longest_queue.max(self.queue.len());
    }

    /// Processes the oldest initiation; returns the site and what is sent to it when
    /// [`LoadedHub::next_at`] has come.
    pub(crate) fn process_next(&mut self) -> Option<(usize, Vec<u8>)> {
        let now = Instant::now();
        if self.queue.len() >= LOADED_FROM {
            self.loaded_until = now + LOADED_FOR;
        }
        let QueuedInitiation { site, from, bytes } = self.queue.pop_front()?;
        self.busy_until = now + MAC_COST;
        if now < self.loaded_until {
            let mut buffer = [0; 64];
            if let Err(result) = self.cookies.verify_packet(Some(from), &bytes, &mut buffer) {
                let TunnResult::WriteToNetwork(cookie) = result else { panic!("{result:?}") };
                self.counters.cookies += 1;
                return Some((site, cookie.to_vec()));
            }
            if !self.is_source_within_limit(from, now) {
                self.counters.limited += 1;
                return None;
            }
        }
        self.busy_until = now + HANDSHAKE_COST;
        self.counters.responses += 1;
        self.handle(site, &bytes).map(|response| (site, response))
    }

    fn is_source_within_limit(&mut self, from: IpAddr, now: Instant) -> bool {
        let (last, left) = self.sources.entry(from).or_insert((now, SOURCE_BURST));
        *left = (*left + now.saturating_duration_since(*last)).min(SOURCE_BURST);
        *last = now;
        let is_within = *left >= SOURCE_COST;
        if is_within {
            *left -= SOURCE_COST;
        }
        is_within
    }

    /// Handles a datagram with data; returns the packet inside.
    pub(crate) fn handle_data(&mut self, site: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.is_up {
            return None;
        }
        self.handle(site, bytes)
    }

    /// Encrypts a packet for a site.
    pub(crate) fn encrypt(&mut self, site: usize, packet: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        match self.session(site)?.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
            _ => None,
        }
    }

    fn handle(&mut self, site: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        match self.session(site)?.decapsulate(None, bytes, &mut buffer) {
            TunnResult::WriteToNetwork(content)
            | TunnResult::WriteToTunnelV4(content, _)
            | TunnResult::WriteToTunnelV6(content, _) => Some(content.to_vec()),
            TunnResult::Done | TunnResult::Err(_) => None,
        }
    }

    fn session(&mut self, site: usize) -> Option<&mut Tunn> {
        let (key, peer) = (&self.key, self.sites.get(site)?);
        let tunn = self.sessions.get_mut(site)?.get_or_insert_with(|| {
            let (secret, public) = (to_bytes(&key.expose()), *peer.as_bytes());
            let index = u32::try_from(site).expect("fewer than 2^24 sites");
            let limiter =
                RateLimiter::new(&to_bytes(&key.public_key().to_string()).into(), u64::MAX);
            Tunn::new(secret.into(), public.into(), None, None, index, Some(Arc::new(limiter)))
        });
        // boringtun notices the passing of time only here. What it sends by itself is not needed.
        tunn.update_timers(&mut [0; 148]);
        Some(tunn)
    }
}

fn to_bytes(key: &str) -> [u8; 32] {
    STANDARD.decode(key).expect("a key").try_into().expect("32 bytes")
}
