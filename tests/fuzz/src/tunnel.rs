use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use tunnel::{
    ClockBounds, Endpoint, Hub, HubSettings, Now, PacketBuffer, PrivateKey, SendBatch, Settings,
    SitePeer, Tunnel,
};

const MTU: u16 = 1280;
/// Datagrams of a session that are kept to be spoiled; enough for two handshakes and some data.
const KEPT: usize = 16;

/// Datagrams between a site and a hub that have a session. The bytes are orders, each with a length:
/// let an end take garbage, or a datagram that passed before with changes, or send a packet.
pub fn datagrams(bytes: &[u8]) {
    let mut pair = Pair::new();
    pair.exchange();
    let mut rest = bytes;
    while let [order, length, after @ ..] = rest {
        let (argument, after) = after.split_at_checked((*length).into()).unwrap_or((after, &[]));
        rest = after;
        let is_site = order & 1 == 0;
        match order >> 1 & 3 {
            0 => pair.give(is_site, argument),
            1 => pair.give_again(is_site, argument),
            2 => pair.send(is_site, argument),
            _ => pair.exchange(),
        }
    }
    for end in [&pair.site, &pair.hub] {
        assert_eq!(end.report(pair.now).counters.panics, 0);
    }
}

/// A site, its hub, and what is under way between them.
struct Pair {
    site: Tunnel,
    hub: Tunnel,
    now: Now,
    out: SendBatch,
    packets: PacketBuffer,
    to_site: VecDeque<Vec<u8>>,
    to_hub: VecDeque<Vec<u8>>,
    seen: VecDeque<Vec<u8>>,
}

impl Pair {
    fn new() -> Self {
        let (now, bounds) = (Now::read(), ClockBounds::default());
        let mut pair = Self {
            site: Tunnel::site(site_settings(&hub_key()), bounds, now, 1),
            hub: Tunnel::hub(hub_settings(), now, 2),
            now,
            out: SendBatch::new(),
            packets: PacketBuffer::new(),
            to_site: VecDeque::new(),
            to_hub: VecDeque::new(),
            seen: VecDeque::new(),
        };
        pair.site.handle_timeout(now, &mut pair.out);
        pair.collect(true);
        pair
    }

    /// Delivers what is under way, and what answers it.
    fn exchange(&mut self) {
        for _ in 0..KEPT {
            if let Some(datagram) = self.to_hub.pop_front() {
                self.give(false, &datagram);
            }
            if let Some(datagram) = self.to_site.pop_front() {
                self.give(true, &datagram);
            }
        }
    }

    fn give(&mut self, is_site: bool, datagram: &[u8]) {
        let (end, from) =
            if is_site { (&mut self.site, hub_address()) } else { (&mut self.hub, site_address()) };
        end.handle_datagram(self.now, (from, datagram), &mut self.out, &mut self.packets);
        for packet in self.packets.iter() {
            assert_whole(packet, if is_site { HUB_INSIDE } else { SITE_INSIDE });
        }
        self.packets.clear();
        self.collect(is_site);
    }

    /// Gives an end a datagram that passed before, changed: which, then pairs of place and byte.
    fn give_again(&mut self, is_site: bool, changes: &[u8]) {
        let Some((which, changes)) = changes.split_first() else { return };
        let Some(datagram) = self.seen.get(usize::from(*which) % KEPT) else { return };
        let mut datagram = datagram.clone();
        for change in changes.chunks_exact(2) {
            if let ([at, by], length) = (change, datagram.len())
                && let Some(byte) = datagram.get_mut(usize::from(*at) % length)
            {
                *byte ^= by;
            }
        }
        self.give(is_site, &datagram);
    }

    fn send(&mut self, is_site: bool, packet: &[u8]) {
        let end = if is_site { &mut self.site } else { &mut self.hub };
        end.handle_packet(self.now, packet, &mut self.out);
        self.collect(is_site);
    }

    fn collect(&mut self, is_site: bool) {
        let queue = if is_site { &mut self.to_hub } else { &mut self.to_site };
        for (_, datagram) in self.out.datagrams() {
            queue.push_back(datagram.to_vec());
            if self.seen.len() < KEPT {
                self.seen.push_back(datagram.to_vec());
            }
        }
        self.out.clear();
    }
}

/// What a hub that knows the key sends inside its session, and what the host sends to it: only whole
/// packets pass, and only from and to the networks of the other end. Pieces of the bytes, each
/// behind its length.
pub fn packets(bytes: &[u8]) {
    let now = Now::read();
    let mut site = Tunnel::site(site_settings(&hub_key()), ClockBounds::default(), now, 3);
    let (mut out, mut packets) = (SendBatch::new(), PacketBuffer::new());
    let mut hub = Forger::new();
    site.handle_timeout(now, &mut out);
    let initiation = out.datagrams().next().expect("it is due at once").1.to_vec();
    let response = hub.take(&initiation);
    out.clear();
    site.handle_datagram(now, (hub_address(), &response), &mut out, &mut packets);
    let confirmation = out.datagrams().next().expect("it answers").1.to_vec();
    hub.take(&confirmation);
    let mut rest = bytes;
    while let [length, after @ ..] = rest {
        let (piece, after) = after.split_at_checked((*length).into()).unwrap_or((after, &[]));
        rest = after;
        out.clear();
        site.handle_packet(now, piece, &mut out);
        let left = out.datagrams().count();
        assert!(left == 0 || destination(piece).is_some_and(|to| inside(HUB_INSIDE, to)));
        let datagram = hub.seal(piece);
        site.handle_datagram(now, (hub_address(), &datagram), &mut out, &mut packets);
        for packet in packets.iter() {
            assert_whole(packet, HUB_INSIDE);
            assert!(piece.starts_with(packet), "it came out as another");
        }
        packets.clear();
    }
    assert_eq!(site.report(now).counters.panics, 0);
}

/// The other end, which seals anything.
struct Forger(Tunn);

impl Forger {
    fn new() -> Self {
        let secret = bytes(&hub_key().expose());
        let public = bytes(&site_key().public_key().to_string());
        Self(Tunn::new(secret.into(), public.into(), None, None, 4711, None))
    }

    fn take(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut room = vec![0; 70_000];
        let taken = self.0.decapsulate(None, datagram, &mut room);
        let TunnResult::WriteToNetwork(answer) = taken else { return Vec::new() };
        answer.to_vec()
    }

    fn seal(&mut self, inside: &[u8]) -> Vec<u8> {
        let mut room = vec![0; 70_000];
        let sealed = self.0.encapsulate(inside, &mut room);
        let TunnResult::WriteToNetwork(datagram) = sealed else { panic!("{sealed:?}") };
        datagram.to_vec()
    }
}

const SITE_INSIDE: [&str; 2] = ["10.77.0.12/32", "fd77::12/128"];
const HUB_INSIDE: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];

/// A packet that came out is one by RFC 791 or RFC 8200, and from a network of the other end.
fn assert_whole(packet: &[u8], networks: [&str; 2]) {
    let big = |at: usize| {
        let bytes = packet.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let (length, source) = match packet.first().map(|first| first >> 4) {
        Some(4) => (big(2), address::<4>(packet, 12)),
        Some(6) => (big(4).map(|length| length + 40), address::<16>(packet, 8)),
        _ => (None, None),
    };
    assert_eq!(length, Some(packet.len()), "{packet:?}");
    assert!(source.is_some_and(|source| inside(networks, source)), "{packet:?}");
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => address::<4>(packet, 16),
        6 => address::<16>(packet, 24),
        _ => None,
    }
}

fn address<const N: usize>(packet: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    let bytes: [u8; N] = packet.get(at..at + N)?.try_into().ok()?;
    Some(bytes.into())
}

fn inside(networks: [&str; 2], address: IpAddr) -> bool {
    networks.iter().any(|network| net(network).contains(&address))
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

fn key(fill: u8) -> PrivateKey {
    STANDARD.encode([fill; 32]).parse().expect("any 32 bytes are a key")
}

fn site_key() -> PrivateKey {
    key(1)
}

fn hub_key() -> PrivateKey {
    key(2)
}

fn bytes(key: &str) -> [u8; 32] {
    STANDARD.decode(key).expect("a key").try_into().expect("32 bytes")
}

fn site_address() -> SocketAddr {
    ([192, 0, 2, 1], 40_000).into()
}

fn hub_address() -> SocketAddr {
    ([192, 0, 2, 2], 51_820).into()
}

fn site_settings(hub: &PrivateKey) -> Settings {
    Settings {
        private_key: site_key(),
        addresses: SITE_INSIDE.map(net).to_vec(),
        mtu: MTU,
        keep_alive: None,
        hubs: vec![Hub {
            name: "hub".to_owned(),
            endpoint: Endpoint { host: "192.0.2.2".to_owned(), port: 51_820 },
            public_key: hub.public_key(),
            preshared_key: None,
            allowed_ips: HUB_INSIDE.map(net).to_vec(),
        }],
    }
}

fn hub_settings() -> HubSettings {
    let allowed_ips = SITE_INSIDE.map(net).to_vec();
    HubSettings {
        private_key: hub_key(),
        addresses: HUB_INSIDE.map(net).to_vec(),
        mtu: MTU,
        sites: vec![SitePeer {
            public_key: site_key().public_key(),
            preshared_key: None,
            allowed_ips,
        }],
    }
}
