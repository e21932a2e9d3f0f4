//! Handshakes, data, and the renewal of sessions.

use std::time::{Duration, Instant};

use tunnel::{DropReason, Now, TunnelState};
use virtual_time::world::{parse_ip, parse_net};
use virtual_time::{HUB_TUNNEL_IP, SITE_TUNNEL_IP, World, clock, packet};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_clocks_of_the_standard_library_are_virtual() {
    clock::start();
    let before = Now::read();
    clock::advance(HOUR);
    let after = Now::read();
    assert_eq!(after.instant - before.instant, HOUR);
    assert_eq!(after.wall.duration_since(before.wall).expect("later"), HOUR);
    clock::suspend(HOUR);
    assert_eq!(Instant::now(), after.instant);
}

#[test]
fn packets_of_every_length_pass_both_ways_in_both_families() {
    let mut world = World::new(1, 1);
    world.run_for(SECOND);
    assert!(world.is_up());
    for (from, to, header) in [(SITE_TUNNEL_IP, HUB_TUNNEL_IP, 20), ("fd77::12", "fd77::1", 40)] {
        // Eight bytes hold the mark.
        for length in header + 8..=1280 {
            let sent = packet::ip_packet(parse_ip(from), parse_ip(to), length, 0);
            world.received_at_site.clear();
            world.received_at_hubs.clear();
            world.send(&sent);
            world.run_for(SECOND / 20);
            assert_eq!(world.received_at_hubs, std::slice::from_ref(&sent), "{length}");
            let mut back = sent;
            packet::swap_addresses(&mut back);
            assert_eq!(world.received_at_site, [back], "{length}");
        }
    }
}

#[test]
fn the_first_packet_leaves_within_a_round_trip_and_10_ms_of_the_start() {
    let mut world = World::with_settings(2, 1, |settings| {
        settings.hubs[0].endpoint.host = "198.51.100.1".to_owned();
    });
    world.ping();
    let took = world.run_until(SECOND, |world| world.received_at_hubs.len() == 1);
    // 20 ms each way: handshake, response, and the packet itself.
    assert!(took.is_some_and(|took| took <= MILLISECOND * (20 + 20 + 10 + 20)), "{took:?}");
    assert!(world.run_until(SECOND, |world| world.received_at_site.len() == 1).is_some());
}

#[test]
fn packets_reordered_by_up_to_a_thousand_all_arrive_once() {
    let mut world = World::new(12, 1);
    world.run_for(SECOND);
    world.network.impairment.conditions.jitter = SECOND;
    for _ in 0..1_000 {
        world.ping();
    }
    world.run_for(3 * SECOND);
    assert_eq!((world.received_at_hubs.len(), world.received_at_site.len()), (1_000, 1_000));
    let orders = [&world.received_at_hubs, &world.received_at_site]
        .map(|packets| max_overtaken(packets, 20));
    assert!(orders.iter().all(|depth| *depth >= 200), "{orders:?}");
    assert_eq!(world.report().counters.dropped(DropReason::Replayed), 0);
}

/// Returns the largest number of packets that overtook one, by the marks at offset `at`.
fn max_overtaken(packets: &[Vec<u8>], at: usize) -> usize {
    let marks: Vec<u64> = packets
        .iter()
        .map(|packet| u64::from_be_bytes(packet[at..at + 8].try_into().expect("a mark")))
        .collect();
    let overtaken = marks
        .iter()
        .enumerate()
        .map(|(at, mark)| marks[..at].iter().filter(|earlier| *earlier > mark).count());
    overtaken.max().unwrap_or_default()
}

#[test]
fn a_response_that_takes_twelve_seconds_still_makes_a_session() {
    let mut world = World::new(13, 1);
    world.network.impairment.conditions.delay = 6 * SECOND;
    world.restart_site();
    assert!(world.run_until(MINUTE, |world| world.is_up()).is_some());
    let counters = world.report().counters;
    // At 0, 5 and 12.5 s: the first left from a port that was replaced, the second is answered.
    assert!(counters.initiations <= 3, "{}", counters.initiations);
}

#[test]
fn only_the_newest_64_packets_wait_and_only_for_5_s() {
    let mut world = World::new(3, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    for _ in 0..100 {
        world.ping();
    }
    assert_eq!(world.report().counters.dropped(DropReason::QueueFull), 36);
    world.run_for(6 * SECOND);
    assert_eq!(world.report().counters.dropped(DropReason::Waited), 64);
    world.start_hub(0);
    world.run_for(2 * MINUTE);
    assert!(world.is_up());
    assert_eq!(world.received_at_hubs.len(), 0);
}

#[test]
fn with_the_wrong_preshared_key_nothing_passes_and_the_state_says_so() {
    let mut world = World::with_settings(4, 1, |settings| {
        let other = tunnel::PrivateKey::generate().expose().parse().expect("a key");
        settings.hubs[0].preshared_key = Some(other);
    });
    world.ping_interval = Some(SECOND);
    world.run_for(MINUTE);
    assert_eq!(world.report().state, TunnelState::WrongKey, "{}", world.report().diagnosis);
    assert!(world.received_at_hubs.is_empty() && world.received_at_site.is_empty());
}

#[test]
fn a_session_under_load_is_renewed_without_losing_a_packet() {
    let mut world = World::new(5, 1);
    world.run_for(SECOND);
    world.ping_interval = Some(SECOND / 10);
    world.run_for(20 * MINUTE);
    world.ping_interval = None;
    world.run_for(SECOND);
    assert_eq!(world.received_at_site.len() as u64, world.pings_sent());
    let handshakes = world.report().counters.handshakes;
    assert!((10..=12).contains(&handshakes), "{handshakes}");
}

#[test]
fn an_idle_tunnel_with_keepalives_always_has_a_session() {
    let mut world = World::new(6, 1);
    world.run_for(SECOND);
    let mut down = Duration::ZERO;
    let start = Instant::now();
    while start.elapsed() < HOUR {
        let before = Instant::now();
        world.step(SECOND);
        down += if world.is_up() { Duration::ZERO } else { before.elapsed() };
    }
    assert!(down <= 5 * SECOND, "{down:?}");
    // One every 45 s: see `data_use`.
    let handshakes = world.report().counters.handshakes;
    assert!((30..=82).contains(&handshakes), "{handshakes}");
}

#[test]
fn an_idle_tunnel_without_keepalives_is_silent_until_the_next_packet() {
    let mut world = World::with_settings(7, 1, |settings| settings.keep_alive = None);
    world.ping();
    world.run_for(10 * MINUTE);
    let before = world.report().counters;
    world.run_for(10 * HOUR);
    assert_eq!(world.report().counters, before);
    world.received_at_site.clear();
    world.ping();
    assert!(world.run_until(SECOND, |world| world.received_at_site.len() == 1).is_some());
}

#[test]
fn a_hub_that_was_down_is_found_within_a_minute_with_a_bounded_number_of_initiations() {
    for (outage, most) in [(90 * SECOND, 8), (HOUR, 175), (24 * HOUR, 4_000)] {
        let mut world = World::new(8, 1);
        world.ping_interval = Some(10 * SECOND);
        world.run_for(MINUTE);
        let before = world.report().counters.initiations;
        let hub = world.hubs[0].address.ip();
        world.network.unreachable_hosts.insert(hub);
        world.run_for(outage);
        assert!(outage < HOUR || !world.is_up());
        let initiations = world.report().counters.initiations - before;
        assert!(initiations <= most, "{outage:?}: {initiations}");
        world.network.unreachable_hosts.clear();
        world.received_at_site.clear();
        let took = world.run_until(MINUTE, |world| !world.received_at_site.is_empty());
        assert!(took.is_some(), "{outage:?}");
    }
}

#[test]
fn after_a_restart_of_the_hub_traffic_resumes_within_16_s_of_the_first_lost_packet() {
    let mut world = World::new(9, 1);
    world.ping_interval = Some(SECOND);
    world.run_for(MINUTE);
    world.start_hub(0);
    world.received_at_site.clear();
    let took = world.run_until(17 * SECOND, |world| !world.received_at_site.is_empty());
    assert!(took.is_some());
}

#[test]
fn after_a_restart_of_the_site_traffic_resumes_at_once() {
    let mut world = World::new(10, 1);
    world.ping_interval = Some(SECOND);
    world.run_for(MINUTE);
    world.restart_site();
    world.received_at_site.clear();
    let took = world.run_until(2 * SECOND, |world| !world.received_at_site.is_empty());
    assert!(took.is_some());
}

#[test]
fn packets_outside_the_allowed_networks_or_longer_than_the_mtu_are_dropped() {
    let mut world = World::new(11, 1);
    world.run_for(SECOND);
    let site = parse_ip(SITE_TUNNEL_IP);
    world.send(&packet::ip_packet(site, parse_ip("10.78.0.1"), 100, 0));
    world.send(&packet::ip_packet(site, parse_ip(HUB_TUNNEL_IP), 1281, 0));
    world.send(&[0x45; 10]);
    world.run_for(SECOND);
    let counters = world.report().counters;
    let reasons = [DropReason::NotAllowedOut, DropReason::TooLong, DropReason::Malformed];
    assert_eq!(reasons.map(|reason| counters.dropped(reason)), [1, 1, 1]);
    assert!(world.received_at_hubs.is_empty());
    assert!(!parse_net("10.77.0.0/16").contains(&parse_ip("10.78.0.1")));
}
