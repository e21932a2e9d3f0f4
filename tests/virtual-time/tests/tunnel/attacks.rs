//! Replays, forgeries, garbage and floods.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tunnel::{DropReason, HubSettings, PrivateKey, SitePeer, TunnelState};
use virtual_time::network::Datagram;
use virtual_time::world::{parse_ip, parse_net};
use virtual_time::{HUB_TUNNEL_IP, NetworkConditions, SITE_TUNNEL_IP, World, packet};

use crate::forger::Forger;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Random datagrams in a normal run; `E2E_MUTATIONS` sets another number.
const MUTATIONS: u64 = 100_000;

fn stranger() -> SocketAddr {
    "203.0.113.66:666".parse().expect("an address")
}

fn mutations() -> u64 {
    test_settings::MUTATIONS.number_or(MUTATIONS)
}

fn connected_world(seed: u64) -> World {
    let mut world = World::new(seed, 1);
    world.ping_interval = Some(SECOND / 2);
    world.run_for(SECOND);
    assert!(world.is_up());
    world
}

/// Runs for `time` and returns everything that passed the network.
fn capture_traffic(world: &mut World, time: Duration) -> Vec<Datagram> {
    world.network.captured = Some(Vec::new());
    world.run_for(time);
    world.network.captured.take().unwrap_or_default()
}

/// Returns how many packets are lost in a minute.
fn lost_in_a_minute(world: &mut World) -> u64 {
    world.ping_interval = None;
    world.run_for(SECOND);
    world.received_at_site.clear();
    let sent = world.pings_sent();
    world.ping_interval = Some(SECOND / 2);
    world.run_for(MINUTE);
    world.ping_interval = None;
    world.run_for(SECOND);
    world.ping_interval = Some(SECOND / 2);
    (world.pings_sent() - sent) - world.received_at_site.len() as u64
}

#[test]
fn replayed_datagrams_have_no_effect() {
    let mut world = connected_world(70);
    let seen = capture_traffic(&mut world, 10 * MINUTE);
    assert!(seen.len() > 2_000);
    world.ping_interval = None;
    world.run_for(SECOND);
    let endpoint = world.report().endpoint;
    let (received, arrived) = (world.received_at_site.len(), world.received_at_hubs.len());
    for from in [None, Some(stranger())] {
        for datagram in &seen {
            let from = from.unwrap_or(datagram.from);
            if datagram.to == world.site_address {
                world.deliver_to_site(from, &datagram.bytes);
            } else {
                world.deliver_to_hub(0, from, &datagram.bytes);
            }
        }
    }
    // Until the replies to the flood of old handshakes have arrived.
    world.run_for(SECOND);
    assert_eq!((world.received_at_site.len(), world.received_at_hubs.len()), (received, arrived));
    assert_eq!(world.report().endpoint, endpoint);
    assert!(world.report().counters.dropped(DropReason::Replayed) > 100);
    assert_eq!(lost_in_a_minute(&mut world), 0);
}

#[test]
fn an_old_initiation_replayed_after_a_restart_takes_no_session_over() {
    let mut world = connected_world(71);
    let seen = capture_traffic(&mut world, 5 * MINUTE);
    for restart in [World::restart_site as fn(&mut World), |world: &mut World| world.start_hub(0)] {
        restart(&mut world);
        for datagram in &seen {
            if datagram.from.ip() == world.site_address.ip() {
                world.deliver_to_hub(0, stranger(), &datagram.bytes);
            } else {
                world.deliver_to_site(stranger(), &datagram.bytes);
            }
        }
        world.run_for(MINUTE);
        assert_eq!(world.report().endpoint, Some(world.hubs[0].address));
        assert_eq!(lost_in_a_minute(&mut world), 0);
    }
}

#[test]
fn garbage_of_every_length_and_kind_changes_nothing() {
    let mut world = connected_world(72);
    let valid = capture_traffic(&mut world, 5 * SECOND);
    let endpoint = world.report().endpoint;
    let mut random = fastrand::Rng::with_seed(72);
    let count = mutations();
    let handshakes = world.report().counters.handshakes;
    let start = Instant::now();
    world.run_for(SECOND / 10);
    let lost_before = world.pings_sent() - world.received_at_site.len() as u64;
    for turn in 0..count {
        let garbage = garbage(&mut random, &valid);
        let from = if random.bool() { stranger() } else { world.hubs[0].address };
        if random.bool() {
            world.deliver_to_site(from, &garbage);
        } else {
            world.deliver_to_hub(0, from, &garbage);
        }
        if turn % 1_000 == 0 {
            world.run_for(SECOND);
        }
    }
    world.run_for(20 * SECOND);
    world.ping_interval = None;
    world.run_for(SECOND);
    assert_eq!(
        world.pings_sent() - world.received_at_site.len() as u64,
        lost_before,
        "packets were lost"
    );
    let counters = world.report().counters;
    let renewals = start.elapsed().as_secs() / 120 + 1;
    assert!(counters.handshakes - handshakes <= renewals, "{counters:?}");
    assert_eq!((counters.panics, counters.unanswered, counters.rebinds), (0, 0, 0));
    assert_eq!(world.report().endpoint, endpoint);
    assert_eq!(lost_in_a_minute(&mut world), 0);
}

fn garbage(random: &mut fastrand::Rng, valid: &[Datagram]) -> Vec<u8> {
    let length = if random.usize(..100) == 0 { 65_507 } else { random.usize(..2_048) };
    let mut bytes = match random.u8(..3) {
        0 => valid[random.usize(..valid.len())].bytes.clone(),
        _ => std::iter::repeat_with(|| random.u8(..)).take(length).collect(),
    };
    match random.u8(..4) {
        // The first byte of a type with the matching length.
        0 => {
            let kind = random.u8(1..5);
            bytes.resize(
                match kind {
                    1 => 148,
                    2 => 92,
                    3 => 64,
                    _ => bytes.len().max(32),
                },
                0,
            );
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        1 => bytes.truncate(random.usize(..=bytes.len())),
        2 if !bytes.is_empty() => {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
        }
        _ => bytes.extend(std::iter::repeat_n(0, random.usize(..64))),
    }
    bytes
}

/// Returns more initiations than a hub or a site processes in a second. Repeating the same ones has
/// the same effect.
fn flood(world: &World, at_site: bool) -> Vec<Vec<u8>> {
    let victim =
        if at_site { &world.settings.private_key } else { &world.hubs[0].settings.private_key };
    let mut forger = Forger::new(&PrivateKey::generate(), victim.public_key());
    (0..30).map(|_| forger.initiation()).collect()
}

/// Floods a site or a hub for 10 ms.
fn send_flood(world: &mut World, at_site: bool, flood: &[Vec<u8>]) {
    for initiation in flood {
        if at_site {
            world.deliver_to_site(stranger(), initiation);
        } else {
            world.deliver_to_hub(0, stranger(), initiation);
        }
    }
    world.run_for(SECOND / 100);
}

/// Floods until a packet is answered; returns the time that took.
fn answered_under_a_flood(world: &mut World, at_site: bool) -> Option<Duration> {
    let flood = flood(world, at_site);
    world.received_at_site.clear();
    let start = Instant::now();
    while world.received_at_site.is_empty() && start.elapsed() < MINUTE {
        send_flood(world, at_site, &flood);
    }
    Some(start.elapsed()).filter(|_| !world.received_at_site.is_empty())
}

#[test]
fn under_a_flood_a_handshake_succeeds_by_its_cookie() {
    let mut world = connected_world(78);
    world.restart_site();
    let took = answered_under_a_flood(&mut world, false);
    assert!(took.is_some_and(|took| took < 7 * SECOND), "{took:?}");
    // The first initiation was answered with a cookie, and the second carried it.
    let counters = world.report().counters;
    assert_eq!((counters.cookies, counters.initiations, counters.handshakes), (1, 2, 1));

    // At the site the hub's response must carry the cookie.
    let mut world = connected_world(79);
    world.restart_site();
    let took = answered_under_a_flood(&mut world, true);
    assert!(took.is_some_and(|took| took < 7 * SECOND), "{took:?}");
    let hub = world.hubs[0].tunnel.as_ref().expect("it runs").report(tunnel::Now::read());
    assert_eq!((hub.counters.cookies, world.report().counters.handshakes), (1, 1));
}

#[test]
fn a_valid_cookie_from_elsewhere_does_not_move_the_hub() {
    let mut world = connected_world(69);
    world.restart_site();
    let flood = flood(&world, false);
    world.network.captured = Some(Vec::new());
    let (hub, site) = (world.hubs[0].address, world.site_address.ip());
    let is_cookie = |datagram: &&Datagram| {
        (datagram.from, datagram.to.ip(), datagram.bytes[0]) == (hub, site, 3)
    };
    let mut cookie = None;
    while cookie.is_none() {
        send_flood(&mut world, false, &flood);
        let seen = world.network.captured.as_ref().expect("it is watched");
        cookie = seen.iter().find(is_cookie).map(|datagram| datagram.bytes.clone());
    }
    // It arrives before the hub's own.
    world.deliver_to_site(stranger(), &cookie.expect("one"));
    assert_eq!(world.report().counters.cookies, 1);
    assert_eq!(world.report().endpoint, Some(world.hubs[0].address));
    assert_eq!(world.report().state, TunnelState::Overloaded, "{}", world.report().diagnosis);
    assert!(answered_under_a_flood(&mut world, false).is_some());
    assert_eq!(world.report().counters.endpoint_changes, 0);
}

#[test]
fn a_flood_of_initiations_with_a_valid_first_mac_blocks_no_peer() {
    for (at_site, restart) in [
        (true, World::restart_site as fn(&mut World)),
        (true, |world: &mut World| world.start_hub(0)),
        (false, World::restart_site),
        (false, |world: &mut World| world.start_hub(0)),
    ] {
        let mut world = connected_world(73);
        let victim = if at_site {
            world.settings.private_key.public_key()
        } else {
            world.hubs[0].settings.private_key.public_key()
        };
        let mut forger = Forger::new(&PrivateKey::generate(), victim);
        restart(&mut world);
        world.received_at_site.clear();
        let mut turns = 0;
        while world.received_at_site.is_empty() && turns < 6_000 {
            for _ in 0..2 {
                let initiation = forger.initiation();
                if at_site {
                    world.deliver_to_site(stranger(), &initiation);
                } else {
                    world.deliver_to_hub(0, stranger(), &initiation);
                }
            }
            world.run_for(SECOND / 100);
            turns += 1;
        }
        assert!(turns < 4_000, "{at_site}: {turns}");
    }
}

#[test]
fn an_unknown_peer_gets_no_answer_and_is_counted() {
    let mut world = connected_world(74);
    let hub = world.hubs[0].settings.private_key.public_key();
    let mut forger = Forger::new(&PrivateKey::generate(), hub);
    let initiation = forger.initiation();
    world.ping_interval = None;
    world.run_for(SECOND);
    world.network.captured = Some(Vec::new());
    let before = dropped_at_hub(&world, DropReason::Stranger);
    world.deliver_to_hub(0, stranger(), &initiation);
    assert_eq!(world.network.captured, Some(Vec::new()));
    assert_eq!(dropped_at_hub(&world, DropReason::Stranger), before + 1);
    let site = world.settings.private_key.public_key();
    let initiation = Forger::new(&PrivateKey::generate(), site).initiation();
    world.deliver_to_site(stranger(), &initiation);
    assert_eq!(world.network.captured, Some(Vec::new()));
}

fn dropped_at_hub(world: &World, reason: DropReason) -> u64 {
    let hub = world.hubs[0].tunnel.as_ref().expect("it runs");
    hub.report(tunnel::Now::read()).counters.dropped(reason)
}

#[test]
fn packets_with_the_source_of_another_site_are_dropped() {
    let mut world = World::new(75, 1);
    // Another site owns a more specific part of the first one's network.
    let sites = &mut world.hubs[0].settings.sites;
    sites[0].allowed_ips = vec![parse_net("10.77.0.0/24")];
    let public_key = PrivateKey::generate().public_key();
    let allowed_ips = vec![parse_net("10.77.0.99")];
    sites.push(SitePeer { public_key, preshared_key: None, allowed_ips });
    world.start_hub(0);
    world.restart_site();
    world.run_for(SECOND);
    for source in ["10.77.0.99", "10.78.0.1", "0.0.0.0"] {
        world.send(&packet::ip_packet(parse_ip(source), parse_ip(HUB_TUNNEL_IP), 100, 0));
    }
    world.run_for(SECOND);
    assert_eq!(
        (world.received_at_hubs.len(), dropped_at_hub(&world, DropReason::NotAllowedIn)),
        (0, 3)
    );
    world.ping();
    world.run_for(SECOND);
    assert_eq!(world.received_at_site.len(), 1);
}

#[test]
fn packets_from_outside_the_hubs_networks_and_non_packets_are_dropped() {
    let mut world = World::new(76, 1);
    world.stop_hub(0);
    let HubSettings { private_key, .. } = world.hubs[0].settings.clone();
    let address = world.hubs[0].address;
    let mut forger = Forger::new(&private_key, world.settings.private_key.public_key());
    world.network.captured = Some(Vec::new());
    world.run_for(SECOND / 10);
    let seen = world.network.captured.take().unwrap_or_default();
    let response = forger.handle_datagram(&seen[0].bytes).expect("a response");
    world.network.captured = Some(Vec::new());
    world.deliver_to_site(address, &response);
    let seen = world.network.captured.take().unwrap_or_default();
    forger.handle_datagram(&seen[0].bytes);
    assert!(world.is_up());

    let (hub, site) = (parse_ip(HUB_TUNNEL_IP), parse_ip(SITE_TUNNEL_IP));
    let good = packet::ip_packet(hub, site, 100, 0);
    let mapped = packet::ip_packet(parse_ip("::ffff:10.77.0.1"), parse_ip("fd77::12"), 100, 0);
    let mut long = good.clone();
    long[3] = 101;
    let mut short_header = good.clone();
    short_header[0] = 0x44;
    let mut version = good.clone();
    version[0] = 0x55;
    let bad: [&[u8]; 8] = [
        &packet::ip_packet(parse_ip("192.168.1.1"), site, 100, 0),
        &mapped,
        &long,
        &short_header,
        &version,
        &good[..19],
        &packet::ip_packet(parse_ip("fd77::1"), parse_ip("fd77::12"), 100, 0)[..39],
        &[0x45],
    ];
    for inside in bad {
        world.deliver_to_site(address, &forger.encrypt(inside));
    }
    assert!(world.received_at_site.is_empty());
    let counters = world.report().counters;
    assert_eq!(counters.dropped(DropReason::NotAllowedIn), 2);
    assert_eq!(counters.dropped(DropReason::Malformed), 6);

    let mut padded = good.clone();
    padded.extend([0; 12]);
    world.deliver_to_site(address, &forger.encrypt(&padded));
    assert_eq!(world.received_at_site, [good]);
}

#[test]
fn a_bad_link_still_carries_a_third_of_the_packets() {
    let mut world = connected_world(77);
    world.network.impairment.conditions = NetworkConditions {
        delay: Duration::from_millis(1500),
        jitter: Duration::from_millis(500),
        loss: 0.3,
        duplicate: 0.1,
        corrupt: 0.05,
    };
    world.run_for(60 * MINUTE);
    world.received_at_site.clear();
    let sent = world.pings_sent();
    world.run_for(10 * MINUTE);
    let share = world.received_at_site.len() as f64 / (world.pings_sent() - sent) as f64;
    // (1 - 0.3)^2 with 5 % corrupt each way, without the outages after three lost initiations.
    assert!(share > 0.35, "{share}");
    assert_eq!(world.report().counters.panics, 0);
}
