//! The last known address of each hub, on disk: a gateway that starts while DNS is down reaches its
//! hub all the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use provisioning::config::{self, TunnelMode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{Hub, TunnelEvent, TunnelReport};

use crate::state_file::StateFile;

/// The address at which each host name was reached last, and the file that keeps it.
#[derive(Debug)]
pub(super) struct HubAddressCache {
    file: StateFile,
    /// By host name. On disk, one line with name and address each.
    addresses: BTreeMap<String, IpAddr>,
    /// Whether the file holds these addresses.
    is_stored: bool,
}

impl HubAddressCache {
    /// Loads what an earlier run stored in `state_dir`; unreadable lines are ignored.
    pub(super) fn load(state_dir: &Path) -> Self {
        let loss = "cannot store the hub's address: a start without DNS will wait for DNS";
        let file = StateFile::new(state_dir, "hubs", loss);
        let addresses = file.read().map(|text| parse(&text)).unwrap_or_default();
        Self { file, addresses, is_stored: true }
    }

    /// Returns the events that pass the cached addresses to a new tunnel, before any look-up.
    pub(super) fn resolved_events(&self, tunnel: &config::Tunnel) -> Vec<TunnelEvent> {
        let hubs = &tunnel.settings.hubs;
        let networks: Vec<_> = hubs.iter().flat_map(|hub| &hub.allowed_ips).collect();
        // A tunnel cannot carry its own datagrams: such an address would be routed into the device.
        let is_inside = |address: IpAddr| {
            tunnel.mode == TunnelMode::Tun
                && networks.iter().any(|network| network.contains(&address))
        };
        let resolved = hubs.iter().enumerate().filter_map(|(number, hub)| {
            let address = self.addresses.get(&hub.endpoint.host);
            let address = address.filter(|address| !is_inside(**address))?;
            let addresses = vec![SocketAddr::new(*address, hub.endpoint.port)];
            Some(TunnelEvent::Resolved { hub: number, addresses })
        });
        resolved.collect()
    }

    /// Stores the address of every hub that completes a handshake, until `stop` fires. The file is
    /// written only when an address changed, or when the last write failed.
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
            if handshakes != before
                && let Some((host, address)) = host_and_address(&hubs, &report)
            {
                self.store(host, address).await;
            }
        }
    }

    async fn store(&mut self, host: String, address: IpAddr) {
        if self.addresses.insert(host, address) != Some(address) || !self.is_stored {
            self.is_stored = self.file.write(to_text(&self.addresses)).await;
        }
    }
}

/// Returns host name and address of the hub in use, unless its endpoint is configured by address.
fn host_and_address(hubs: &[Hub], report: &TunnelReport) -> Option<(String, IpAddr)> {
    let host = &hubs.iter().find(|hub| hub.name == report.hub)?.endpoint.host;
    let is_name = host.parse::<IpAddr>().is_err();
    Some((host.clone(), report.endpoint?.ip())).filter(|_| is_name)
}

fn parse(text: &str) -> BTreeMap<String, IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let (host, address) = line.split_once(' ')?;
        Some((host.to_owned(), address.parse().ok()?))
    });
    lines.collect()
}

fn to_text(addresses: &BTreeMap<String, IpAddr>) -> String {
    addresses.iter().fold(String::new(), |mut text, (host, address)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{host} {address}");
        text
    })
}

#[cfg(test)]
mod tests {
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cache(address: &str) -> HubAddressCache {
        let mut cache = HubAddressCache::load(Path::new("/nowhere"));
        cache.addresses.insert("b.example.net".to_owned(), self::address(address));
        cache
    }

    #[test]
    fn unreadable_lines_are_ignored() {
        let known = parse("b.example.net 192.0.2.7\nc.example.net 2001:db8::7\n");
        assert_eq!(known["c.example.net"], address("2001:db8::7"));
        assert_eq!(parse(&to_text(&known)), known);
        assert_eq!(parse("\0\nb.example.net\nb.example.net 192.0.2\n 192.0.2.7").len(), 1);
        assert!(HubAddressCache::load(Path::new("/nowhere")).addresses.is_empty());
    }

    #[test]
    fn a_cached_address_is_used_with_the_configured_port() {
        let addresses = vec![SocketAddr::new(address("192.0.2.7"), 51820)];
        let events = cache("192.0.2.7").resolved_events(&tunnel(TunnelMode::Userspace));
        assert_eq!(events, [TunnelEvent::Resolved { hub: 1, addresses }]);
    }

    #[test]
    fn in_tun_mode_an_address_inside_the_tunnel_is_not_used() {
        let cache = cache("10.77.0.1");
        assert_eq!(cache.resolved_events(&tunnel(TunnelMode::Tun)), []);
        assert_eq!(cache.resolved_events(&tunnel(TunnelMode::Userspace)).len(), 1);
    }

    #[tokio::test]
    async fn the_address_of_a_handshake_is_stored_once_and_loaded_at_the_next_start() {
        let name = format!("edge-gateway-hubs-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        let settings = tunnel(TunnelMode::Userspace).settings;
        let hubs = settings.hubs.clone();
        let site = tunnel::Tunnel::site(settings, ClockBounds::default(), Now::read(), 1);
        let report = |hub: &str, at: &str, handshakes| {
            let mut report = site.report(Now::read());
            (report.hub, report.endpoint) = (hub.to_owned(), Some(at.parse().unwrap()));
            report.counters.handshakes = handshakes;
            report
        };
        let (publish, reports) = watch::channel(report("b", "192.0.2.1:1", 0));
        let stop = CancellationToken::new();
        let following = HubAddressCache::load(&directory).follow(hubs, reports, stop.clone());
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
        let loaded = HubAddressCache::load(&directory).addresses;
        assert_eq!(loaded, BTreeMap::from([("b.example.net".to_owned(), address("192.0.2.7"))]));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
