//! Where the hubs were found last: a box that starts while DNS is away reaches them all the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use provisioning::config::{self, TunnelMode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{Hub, TunnelEvent, TunnelReport};

use crate::state_file::StateFile;

/// The address at which each name was found last. On disk, a line for each.
pub(super) type HubAddresses = BTreeMap<String, IpAddr>;

/// The file, in `state_dir`.
pub(super) fn state_file(state_dir: &Path) -> StateFile {
    let loss = "the hub's address cannot be kept: a start without DNS will wait for it";
    StateFile::new(state_dir, "hubs", loss)
}

/// What an earlier run has kept; nothing when there is nothing legible.
pub(super) fn load(file: &StateFile) -> HubAddresses {
    file.read().map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> HubAddresses {
    let lines = text.lines().filter_map(|line| {
        let (host, address) = line.split_once(' ')?;
        Some((host.to_owned(), address.parse().ok()?))
    });
    lines.collect()
}

fn to_text(known: &HubAddresses) -> String {
    known.iter().fold(String::new(), |mut text, (host, address)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{host} {address}");
        text
    })
}

/// What a tunnel can be told before anything was looked up.
pub(super) fn resolved_events(tunnel: &config::Tunnel, known: &HubAddresses) -> Vec<TunnelEvent> {
    let hubs = &tunnel.settings.hubs;
    let networks: Vec<_> = hubs.iter().flat_map(|hub| &hub.allowed_ips).collect();
    let is_inside = |address| {
        tunnel.mode == TunnelMode::Tun && networks.iter().any(|network| network.contains(address))
    };
    let found = hubs.iter().enumerate().filter_map(|(number, hub)| {
        let address = known.get(&hub.endpoint.host).filter(|address| !is_inside(*address))?;
        let addresses = vec![SocketAddr::new(*address, hub.endpoint.port)];
        Some(TunnelEvent::Resolved { hub: number, addresses })
    });
    found.collect()
}

/// Keeps the address of every hub with which a handshake was completed, until `stop` fires. It is
/// written when it is another one, or was not written yet.
pub(super) async fn store_on_handshake(
    mut file: StateFile,
    hubs: Vec<Hub>,
    mut known: HubAddresses,
    mut reports: watch::Receiver<TunnelReport>,
    stop: CancellationToken,
) {
    let (mut handshakes, mut is_kept) = (0, true);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            told = reports.changed() => if told.is_err() {
                // The tunnel has ended, and takes the process with it.
                return stop.cancelled().await;
            },
        }
        let found = address_after_handshake(&hubs, &reports.borrow_and_update(), &mut handshakes);
        let Some((host, address)) = found else { continue };
        if known.insert(host, address) != Some(address) || !is_kept {
            is_kept = file.write(to_text(&known)).await;
        }
    }
}

/// A name and its address, if there was another handshake than the first so many.
fn address_after_handshake(
    hubs: &[Hub],
    report: &TunnelReport,
    handshakes: &mut u64,
) -> Option<(String, IpAddr)> {
    let before = std::mem::replace(handshakes, report.counters.handshakes);
    if *handshakes == before {
        return None;
    }
    let host = &hubs.iter().find(|hub| hub.name == report.hub)?.endpoint.host;
    let is_name = host.parse::<IpAddr>().is_err();
    Some((host.clone(), report.endpoint?.ip())).filter(|_| is_name)
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

    #[test]
    fn what_was_printed_is_read_and_garbage_is_left_out() {
        let known = parse("b.example.net 192.0.2.7\nc.example.net 2001:db8::7\n");
        assert_eq!(known["c.example.net"], address("2001:db8::7"));
        assert_eq!(parse(&to_text(&known)), known);
        assert_eq!(parse("\0\nb.example.net\nb.example.net 192.0.2\n 192.0.2.7").len(), 1);
        assert_eq!(load(&state_file(Path::new("/nowhere"))), HubAddresses::new());
    }

    #[test]
    fn a_tunnel_is_told_the_last_address_of_each_name_with_the_port_that_is_configured() {
        let known = HubAddresses::from([("b.example.net".to_owned(), address("192.0.2.7"))]);
        let addresses = vec![SocketAddr::new(address("192.0.2.7"), 51820)];
        let told = resolved_events(&tunnel(TunnelMode::Userspace), &known);
        assert_eq!(told, [TunnelEvent::Resolved { hub: 1, addresses }]);
    }

    #[test]
    fn an_address_that_the_tunnels_device_would_lead_to_is_not_told() {
        let known = HubAddresses::from([("b.example.net".to_owned(), address("10.77.0.1"))]);
        assert_eq!(resolved_events(&tunnel(TunnelMode::Tun), &known), []);
        assert_eq!(resolved_events(&tunnel(TunnelMode::Userspace), &known).len(), 1);
    }

    #[tokio::test]
    async fn the_address_of_each_handshake_is_kept_once_and_read_at_the_next_start() {
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
        let keeping = store_on_handshake(
            state_file(&directory),
            hubs,
            HubAddresses::new(),
            reports,
            stop.clone(),
        );
        let telling = async {
            // No handshake yet; a hub without a name; and one by its name, while there is no directory.
            for report in [
                report("b", "192.0.2.9:1", 0),
                report("a", "192.0.2.1:1", 1),
                report("b", "192.0.2.7:1", 2),
            ] {
                publish.send_replace(report);
                tokio::task::yield_now().await;
            }
            std::fs::create_dir(&directory).unwrap();
            // It is written with the next handshake although the address is the same.
            for handshakes in 3.. {
                publish.send_replace(report("b", "192.0.2.7:1", handshakes));
                tokio::task::yield_now().await;
                if state_file(&directory).read().is_some() {
                    break;
                }
            }
            stop.cancel();
        };
        tokio::join!(keeping, telling);
        let kept = state_file(&directory);
        assert_eq!(kept.read().as_deref(), Some("b.example.net 192.0.2.7\n"));
        assert_eq!(
            load(&kept),
            HubAddresses::from([("b.example.net".to_owned(), address("192.0.2.7"))])
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
