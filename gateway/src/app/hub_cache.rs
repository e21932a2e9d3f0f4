//! What the hubs of a tunnel were like in earlier runs, on disk: their addresses, so that a gateway
//! that starts while DNS is down reaches its hub all the same; and the timestamps of the handshakes
//! that they accepted, so that the status can tell a hub that ignores an earlier time from a
//! network that carries nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use provisioning::config::{self, TunnelMode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{Hub, PublicKey, TunnelEvent, TunnelReport};

use crate::state_file::{SHORT_TEXT_BYTES, StateFile};

/// A timestamp on disk is at most this far from the latest: six small writes per hour, for the sake
/// of flash.
const STAMP_STORE_INTERVAL: Duration = Duration::from_secs(600);

/// What is known about the hubs, and the file that keeps it.
#[derive(Debug)]
pub(super) struct HubCache {
    file: StateFile,
    /// The key of this gateway.
    own_key: PublicKey,
    known: KnownHubs,
    /// Whether the file holds this.
    is_stored: bool,
}

#[derive(Debug, Default, Eq, PartialEq)]
struct KnownHubs {
    /// The address at which each host name was reached last. On disk, a line with both.
    addresses: BTreeMap<String, IpAddr>,
    /// The timestamp that a hub accepted last, by its public key and that of this gateway: a hub
    /// counts for each key. On disk, a line with all three.
    stamps: BTreeMap<(String, String), Timestamp>,
}

impl HubCache {
    /// Loads what an earlier run of the gateway with this key stored in `state_dir`; unreadable
    /// lines are ignored.
    pub(super) fn load(state_dir: &Path, own_key: PublicKey) -> Self {
        let loss = "cannot store what is known about the hubs: a start without DNS will wait for \
                    DNS, and a hub that ignores this gateway's clock may look like a dead one";
        let file = StateFile::new(state_dir, "hubs", loss, SHORT_TEXT_BYTES);
        let known = file.read().map(|text| KnownHubs::parse(&text)).unwrap_or_default();
        Self { file, own_key, known, is_stored: true }
    }

    /// Returns the events that pass this to a new tunnel, before any look-up.
    pub(super) fn events(&self, tunnel: &config::Tunnel) -> Vec<TunnelEvent> {
        let hubs = &tunnel.settings.hubs;
        let networks: Vec<_> = hubs.iter().flat_map(|hub| &hub.allowed_ips).collect();
        // A tunnel cannot carry its own datagrams: such an address would be routed into the device.
        let is_inside = |address: IpAddr| {
            tunnel.mode == TunnelMode::Tun
                && networks.iter().any(|network| network.contains(&address))
        };
        let resolved = hubs.iter().enumerate().filter_map(|(number, hub)| {
            let address = self.known.addresses.get(&hub.endpoint.host);
            let address = address.filter(|address| !is_inside(**address))?;
            let addresses = vec![SocketAddr::new(*address, hub.endpoint.port)];
            Some(TunnelEvent::Resolved { hub: number, addresses })
        });
        let stamps = hubs.iter().enumerate().filter_map(|(number, hub)| {
            let keys = (hub.public_key.to_string(), self.own_key.to_string());
            let stamp = SystemTime::try_from(*self.known.stamps.get(&keys)?).ok()?;
            Some(TunnelEvent::StampAccepted { hub: number, stamp })
        });
        resolved.chain(stamps).collect()
    }

    /// Stores address and timestamp of every hub that completes a handshake, until `stop` fires.
    /// The file is written only when an address changed or a timestamp moved far, or when the last
    /// write failed.
    pub(super) async fn follow(
        mut self,
        hubs: Vec<Hub>,
        mut reports: watch::Receiver<TunnelReport>,
        stop: CancellationToken,
    ) {
        let mut handshakes = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = reports.changed() => if changed.is_err() {
                    // The tunnel has ended, and its stage ends the process.
                    return stop.cancelled().await;
                },
            }
            let report = reports.borrow_and_update().clone();
            let before = std::mem::replace(&mut handshakes, report.counters.handshakes);
            let Some(hub) = hubs.iter().find(|hub| hub.name == report.hub) else { continue };
            if handshakes != before
                && (self.known.update(hub, self.own_key, &report) || !self.is_stored)
            {
                self.is_stored = self.file.write(self.known.to_text()).await;
            }
        }
    }
}

impl KnownHubs {
    /// Records what a report says of the hub in use. Returns whether that is worth a write.
    fn update(&mut self, hub: &Hub, own_key: PublicKey, report: &TunnelReport) -> bool {
        let host = &hub.endpoint.host;
        let is_name = host.parse::<IpAddr>().is_err();
        let address = report.endpoint.map(|endpoint| endpoint.ip()).filter(|_| is_name);
        let has_moved = address
            .is_some_and(|address| self.addresses.insert(host.clone(), address) != Some(address));
        let stamp = report.accepted_stamp.and_then(to_timestamp);
        let is_late = stamp.is_some_and(|stamp| {
            let keys = (hub.public_key.to_string(), own_key.to_string());
            let is_near = |stored: &Timestamp| {
                stored.duration_since(stamp).unsigned_abs() < STAMP_STORE_INTERVAL
            };
            let is_late = !self.stamps.get(&keys).is_some_and(is_near);
            if is_late {
                self.stamps.insert(keys, stamp);
            }
            is_late
        });
        has_moved || is_late
    }

    fn parse(text: &str) -> Self {
        let mut known = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match *words {
                [host, address] => {
                    let address = address.parse().ok().map(|address| (host.to_owned(), address));
                    known.addresses.extend(address);
                }
                [hub, own, stamp] => {
                    let keys = (hub.to_owned(), own.to_owned());
                    known.stamps.extend(stamp.parse().ok().map(|stamp| (keys, stamp)));
                }
                _ => {}
            }
        }
        known
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        for (host, address) in &self.addresses {
            let _ = writeln!(text, "{host} {address}");
        }
        for ((hub, own), stamp) in &self.stamps {
            let _ = writeln!(text, "{hub} {own} {stamp}");
        }
        text
    }
}

/// Returns the time; `None` beyond the year 9999, which no hub has seen.
fn to_timestamp(time: SystemTime) -> Option<Timestamp> {
    time.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use provisioning::config::Tunnel;
    use tunnel::{ClockBounds, Endpoint, Now, PrivateKey, Settings};

    use super::*;

    fn hub(name: &str, host: &str) -> Hub {
        Hub {
            name: name.to_owned(),
            endpoint: Endpoint { host: host.to_owned(), port: 51820 },
            public_key: PrivateKey::generate().public_key(),
            preshared_key: None,
            allowed_ips: vec!["10.77.0.0/16".parse().unwrap()],
        }
    }

    fn tunnel(mode: TunnelMode) -> Tunnel {
        let settings = Settings {
            private_key: PrivateKey::generate(),
            addresses: vec!["10.77.0.12/32".parse().unwrap()],
            mtu: 1280,
            keep_alive: None,
            hubs: vec![hub("a", "192.0.2.1"), hub("b", "b.example.net")],
        };
        Tunnel { mode, settings }
    }

    fn own_key(tunnel: &Tunnel) -> PublicKey {
        tunnel.settings.private_key.public_key()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cache(address: &str, tunnel: &Tunnel) -> HubCache {
        let mut cache = HubCache::load(Path::new("/nowhere"), own_key(tunnel));
        cache.known.addresses.insert("b.example.net".to_owned(), self::address(address));
        cache
    }

    /// Returns a report of a handshake with a hub at this address.
    fn report(tunnel: &Tunnel, hub: &str, at: &str, stamp: Option<i64>) -> TunnelReport {
        let settings = tunnel.settings.clone();
        let site = tunnel::Tunnel::site(settings, ClockBounds::default(), Now::read(), 1);
        let mut report = site.report(Now::read());
        (report.hub, report.endpoint) = (hub.to_owned(), Some(at.parse().unwrap()));
        report.accepted_stamp = stamp.map(time);
        report
    }

    fn time(seconds: i64) -> SystemTime {
        Timestamp::from_second(seconds).unwrap().try_into().unwrap()
    }

    #[test]
    fn unreadable_lines_are_ignored() {
        let text =
            "b.example.net 192.0.2.7\nc.example.net 2001:db8::7\nHUB OWN 2033-11-16T00:00:00Z\n";
        let known = KnownHubs::parse(text);
        assert_eq!(known.addresses["c.example.net"], address("2001:db8::7"));
        assert_eq!(known.stamps.len(), 1);
        assert_eq!(KnownHubs::parse(&known.to_text()), known);
        for garbage in [
            "",
            "\0",
            "b.example.net",
            "b.example.net 192.0.2",
            "HUB OWN 2033",
            "HUB OWN 99999-01-01T00:00:00Z",
            "HUB OWN  2033-11-16T00:00:00Z",
            "HUB OWN 2033-11-16T00:00:00Z 7",
        ] {
            assert_eq!(KnownHubs::parse(garbage), KnownHubs::default(), "{garbage}");
            assert_eq!(KnownHubs::parse(&format!("{garbage}\n{text}")), known, "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([A-Za-z0-9=:.]{0,6}[ \n]{1,2}){0,20}") {
            let known = KnownHubs::parse(&text);
            prop_assert_eq!(KnownHubs::parse(&known.to_text()), known);
        }
    }

    #[test]
    fn a_cached_address_is_used_with_the_configured_port() {
        let addresses = vec![SocketAddr::new(address("192.0.2.7"), 51820)];
        let tunnel = tunnel(TunnelMode::Userspace);
        let events = cache("192.0.2.7", &tunnel).events(&tunnel);
        assert_eq!(events, [TunnelEvent::Resolved { hub: 1, addresses }]);
    }

    #[test]
    fn in_tun_mode_an_address_inside_the_tunnel_is_not_used() {
        let mut tunnel = tunnel(TunnelMode::Tun);
        let cache = cache("10.77.0.1", &tunnel);
        assert_eq!(cache.events(&tunnel), []);
        tunnel.mode = TunnelMode::Userspace;
        assert_eq!(cache.events(&tunnel).len(), 1);
    }

    #[test]
    fn a_timestamp_belongs_to_the_keys_of_both_ends() {
        let mut tunnel = tunnel(TunnelMode::Userspace);
        let mut cache = HubCache::load(Path::new("/nowhere"), own_key(&tunnel));
        let accepted = report(&tunnel, "b", "192.0.2.7:1", Some(2_000_000_000));
        let stamps = |cache: &HubCache, tunnel: &Tunnel| {
            let events = cache.events(tunnel).into_iter().filter_map(|event| {
                let TunnelEvent::StampAccepted { hub, stamp } = event else { return None };
                Some((hub, stamp))
            });
            events.collect::<Vec<_>>()
        };

        assert!(cache.known.update(&tunnel.settings.hubs[1], cache.own_key, &accepted));

        cache.known = KnownHubs::parse(&cache.known.to_text());
        assert_eq!(stamps(&cache, &tunnel), [(1, time(2_000_000_000))]);
        tunnel.settings.hubs.swap(0, 1);
        assert_eq!(stamps(&cache, &tunnel), [(0, time(2_000_000_000))]);
        cache.own_key = PrivateKey::generate().public_key();
        assert_eq!(stamps(&cache, &tunnel), []);
        cache.own_key = own_key(&tunnel);
        tunnel.settings.hubs[0].public_key = PrivateKey::generate().public_key();
        assert_eq!(stamps(&cache, &tunnel), []);
    }

    #[test]
    fn a_timestamp_is_stored_when_it_has_moved_by_ten_minutes() {
        let tunnel = tunnel(TunnelMode::Userspace);
        let mut known = KnownHubs::default();
        let mut is_stored = |seconds| {
            let report = report(&tunnel, "a", "192.0.2.1:1", seconds);
            known.update(&tunnel.settings.hubs[0], own_key(&tunnel), &report)
        };
        assert!(!is_stored(None));
        assert!(is_stored(Some(1_800_000_000)));
        assert!(!is_stored(Some(1_800_000_599)));
        assert!(is_stored(Some(1_800_000_600)));
        // The key was removed at the hub and added again, and the clock is right again.
        assert!(is_stored(Some(1_700_000_000)));
    }

    #[tokio::test]
    async fn the_address_of_a_handshake_is_stored_once_and_loaded_at_the_next_start() {
        let name = format!("edge-gateway-hubs-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        let tunnel = tunnel(TunnelMode::Userspace);
        let hubs = tunnel.settings.hubs.clone();
        let report = |hub: &str, at: &str, handshakes| {
            let mut report = report(&tunnel, hub, at, None);
            report.counters.handshakes = handshakes;
            report
        };
        let (publish, reports) = watch::channel(report("b", "192.0.2.1:1", 0));
        let stop = CancellationToken::new();
        let cache = HubCache::load(&directory, own_key(&tunnel));
        let following = cache.follow(hubs, reports, stop.clone());
        let reporting = async {
            // No handshake; a hub given by address; one by name while the directory is missing.
            for report in [
                report("b", "192.0.2.9:1", 0),
                report("a", "192.0.2.1:1", 1),
                report("b", "192.0.2.7:1", 2),
            ] {
                publish.send_replace(report);
                tokio::task::yield_now().await;
            }
            std::fs::create_dir(&directory).unwrap();
            // The failed write is repeated at the next handshake, although the address is the same.
            for handshakes in 3.. {
                publish.send_replace(report("b", "192.0.2.7:1", handshakes));
                tokio::task::yield_now().await;
                if directory.join("hubs").exists() {
                    break;
                }
            }
            stop.cancel();
        };
        tokio::join!(following, reporting);
        let text = std::fs::read_to_string(directory.join("hubs")).unwrap();
        assert_eq!(text, "b.example.net 192.0.2.7\n");
        let loaded = HubCache::load(&directory, own_key(&tunnel)).known.addresses;
        assert_eq!(loaded, BTreeMap::from([("b.example.net".to_owned(), address("192.0.2.7"))]));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
