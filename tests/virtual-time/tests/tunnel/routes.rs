//! Changes of addresses, names, ports and hubs.

use std::time::{Duration, Instant};

use tunnel::{TunnelEvent, TunnelState};
use virtual_time::{World, clock};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn after_a_change_of_the_sites_address_traffic_resumes_with_the_next_packet() {
    let mut world = World::connected(40, 1);
    world.site_address = "203.0.113.77:1234".parse().expect("an address");
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn a_change_of_the_network_opens_a_new_port_and_reaches_the_hub_at_once() {
    let mut world = World::connected(41, 1);
    world.network.forgotten_ports.insert(world.site_address);
    world.send_event(TunnelEvent::NetworkChanged);
    assert_eq!(world.rebinds, 1);
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn a_storm_of_network_changes_causes_no_storm_of_handshakes() {
    let mut world = World::connected(42, 1);
    let before = world.report().counters.initiations;
    for _ in 0..1_000 {
        world.send_event(TunnelEvent::NetworkChanged);
        world.run_for(SECOND / 100);
    }
    let initiations = world.report().counters.initiations - before;
    assert!(initiations <= 11, "{initiations}");
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn only_an_authentic_datagram_changes_the_hubs_address() {
    let mut world = World::connected(43, 1);
    let good = world.report().endpoint;
    let stranger = "203.0.113.5:9".parse().expect("an address");
    world.network.captured = Some(Vec::new());
    world.run_for(3 * MINUTE);
    let seen = world.network.captured.take().unwrap_or_default();
    for datagram in &seen {
        world.deliver_to_site(stranger, &datagram.bytes);
    }
    assert_eq!(world.report().endpoint, good);
    assert!(world.is_answered_within(2 * SECOND));

    let moved = "198.51.100.200:4000".parse().expect("an address");
    world.hubs[0].address = moved;
    let hub = &mut world.hubs[0];
    let mut out = tunnel::SendBatch::new();
    let packet = virtual_time::packet::ip_packet(
        "10.77.0.1".parse().expect("an address"),
        "10.77.0.12".parse().expect("an address"),
        60,
        0,
    );
    hub.tunnel.as_mut().expect("it runs").handle_packet(tunnel::Now::read(), &packet, &mut out);
    let datagram = out.datagrams().next().expect("one").1.to_vec();
    world.deliver_to_site(moved, &datagram);
    assert_eq!(world.report().endpoint, Some(moved));
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn a_port_without_a_mapping_is_replaced_within_17_s() {
    let mut world = World::connected(44, 1);
    world.network.forgotten_ports.insert(world.site_address);
    assert!(world.is_answered_within(17 * SECOND));
    assert_eq!(world.rebinds, 1);
}

#[test]
fn unanswered_data_opens_a_new_port_at_most_once_a_minute() {
    let mut world = World::connected(60, 1);
    // Handshakes pass, as on a link that drops long packets.
    world.network.max_datagram_len = 148;
    let before = world.rebinds;
    world.ping_interval = None;
    let start = Instant::now();
    while start.elapsed() < HOUR {
        world.send(&virtual_time::packet::ip_packet(
            virtual_time::world::parse_ip("10.77.0.12"),
            virtual_time::world::parse_ip("10.77.0.1"),
            1280,
            0,
        ));
        world.run_for(SECOND);
    }
    let rebinds = world.rebinds - before;
    assert!((1..=60).contains(&rebinds), "{rebinds}");
}

/// Returns a world with traffic whose hub has two addresses, one of them broken.
fn world_with_broken_address(seed: u64) -> World {
    let mut world = World::new(seed, 1);
    let (good, broken) = (world.hubs[0].address.ip(), "2001:db8::1".parse().expect("an address"));
    world.dns.insert("hub-1.test".to_owned(), vec![good, broken]);
    world.restart_site();
    world.ping_interval = Some(SECOND / 2);
    world.run_for(MINUTE);
    assert!(world.is_up());
    world
}

#[test]
fn a_lost_renewal_does_not_disturb_a_working_session() {
    for lost in 1..=5 {
        let mut world = world_with_broken_address(57);
        world.network.initiations_to_drop = lost;
        let before = world.report().counters;
        world.ping_interval = None;
        world.run_for(SECOND);
        world.received_at_site.clear();
        let sent = world.pings_sent();
        world.ping_interval = Some(SECOND / 2);
        assert!(world.run_until(110 * SECOND, |world| !world.is_up()).is_none(), "{lost}");
        world.ping_interval = None;
        world.run_for(SECOND);
        let after = world.report().counters;
        assert_eq!(world.received_at_site.len() as u64, world.pings_sent() - sent, "{lost}");
        assert_eq!(after.handshakes, before.handshakes + 1);
        assert_eq!(after.unanswered, before.unanswered + u64::from(lost));
        assert_eq!((after.endpoint_changes, world.rebinds), (0, 0));
    }
}

#[test]
fn after_a_lost_renewal_the_hubs_new_address_is_kept() {
    let mut world = world_with_broken_address(58);
    let moved = "198.51.100.200:4000".parse().expect("an address");
    world.hubs[0].address = moved;
    world.network.initiations_to_drop = 1;
    // Its next datagram shows where it is.
    let mut out = tunnel::SendBatch::new();
    let (hub, site) =
        (virtual_time::world::parse_ip("10.77.0.1"), virtual_time::world::parse_ip("10.77.0.12"));
    let packet = virtual_time::packet::ip_packet(hub, site, 60, 0);
    let end = world.hubs[0].tunnel.as_mut().expect("it runs");
    end.handle_packet(tunnel::Now::read(), &packet, &mut out);
    let datagram = out.datagrams().next().expect("one").1.to_vec();
    world.deliver_to_site(moved, &datagram);
    world.run_for(3 * MINUTE);
    assert_eq!(world.network.initiations_to_drop, 0);
    assert_eq!(world.report().endpoint, Some(moved));
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn after_one_lost_initiation_another_address_of_the_hub_is_tried() {
    let mut world = world_with_broken_address(59);
    // A datagram that arrived just before, on the old route, does not delay the change.
    let old = world.hubs[0].address;
    let other: std::net::SocketAddr = "198.51.100.99:51820".parse().expect("an address");
    world.dns.insert("hub-1.test".to_owned(), vec![old.ip(), other.ip()]);
    world.hubs[0].address = other;
    world.send_event(TunnelEvent::NetworkChanged);
    assert!(world.is_answered_within(7 * SECOND));
}

#[test]
fn a_new_address_of_a_name_is_found() {
    let mut world = World::connected(45, 1);
    let moved = "198.51.100.77:51820".parse().expect("an address");
    world.hubs[0].address = moved;
    world.start_hub(0);
    world.dns.insert("hub-1.test".to_owned(), vec![moved.ip()]);
    assert!(world.is_answered_within(MINUTE));
}

#[test]
fn a_name_that_does_not_resolve_for_10_minutes_is_looked_up_again() {
    let mut world = World::new(46, 1);
    let addresses = world.dns.remove("hub-1.test").expect("it was there");
    world.restart_site();
    world.ping_interval = Some(SECOND);
    world.run_for(10 * MINUTE);
    assert_eq!(world.report().state, TunnelState::NoAddress, "{}", world.report().diagnosis);
    world.dns.insert("hub-1.test".to_owned(), addresses);
    assert!(world.is_answered_within(MINUTE));
}

#[test]
fn the_last_good_address_is_kept_while_dns_is_down() {
    let mut world = World::connected(47, 1);
    world.dns.clear();
    world.start_hub(0);
    assert!(world.is_answered_within(17 * SECOND));
    world.network.unreachable_hosts.insert(world.hubs[0].address.ip());
    world.run_for(HOUR);
    world.network.unreachable_hosts.clear();
    assert!(world.is_answered_within(MINUTE));
}

#[test]
fn a_site_that_starts_while_dns_is_down_uses_a_stored_address_at_once() {
    let mut world = World::new(61, 1);
    let addresses = vec![world.hubs[0].address];
    world.dns.clear();
    world.restart_site();
    world.send_event(TunnelEvent::Resolved { hub: 0, addresses });
    assert!(world.run_until(SECOND, |world| world.is_up()).is_some());
    // The look-up fails, but its result is not needed.
    world.run_for(HOUR);
    assert!(world.is_up());
}

#[test]
fn the_address_that_works_is_found_among_several() {
    let mut world = World::new(48, 1);
    let good = world.hubs[0].address.ip();
    let broken = "2001:db8::1".parse().expect("an address");
    let other = "198.51.100.99".parse().expect("an address");
    world.dns.insert("hub-1.test".to_owned(), vec![broken, other, good]);
    world.restart_site();
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(20 * SECOND));
    world.run_for(HOUR);
    assert!(world.is_answered_within(2 * SECOND));
    assert_eq!(world.report().counters.endpoint_changes, 0);
}

#[test]
fn a_hub_with_only_a_v6_address_is_reached() {
    let mut world = World::new(49, 1);
    let address = "[2001:db8::5]:51820".parse().expect("an address");
    world.hubs[0].address = address;
    world.dns.insert("hub-1.test".to_owned(), vec![address.ip()]);
    world.site_address = "[2001:db8:1::9]:40000".parse().expect("an address");
    world.restart_site();
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(3 * SECOND));
}

#[test]
fn a_dead_hub_is_replaced_by_the_next_within_30_s() {
    let mut world = World::connected(50, 2);
    world.stop_hub(0);
    world.received_at_site.clear();
    let took = world.run_until(30 * SECOND, |world| !world.received_at_site.is_empty());
    assert!(took.is_some());
    assert_eq!(world.report().hub, "hub-2");
}

#[test]
fn a_site_that_starts_while_its_first_hub_is_dead_is_up_within_30_s() {
    let mut world = World::new(51, 2);
    world.stop_hub(0);
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(30 * SECOND));
}

#[test]
fn the_preferred_hub_is_used_again_after_5_to_10_minutes_and_at_most_one_reply_is_lost() {
    let mut world = World::connected(52, 2);
    world.stop_hub(0);
    assert!(world.run_until(MINUTE, |world| world.report().hub == "hub-2").is_some());
    let left = Instant::now();
    world.run_for(MINUTE);
    world.start_hub(0);
    world.received_at_site.clear();
    let (start, sent) = (Instant::now(), world.pings_sent());
    assert!(world.run_until(10 * MINUTE, |world| world.report().hub == "hub-1").is_some());
    let took = left.elapsed();
    assert!((5 * MINUTE..=10 * MINUTE).contains(&took), "{took:?}");
    world.run_for(MINUTE);
    world.ping_interval = None;
    world.run_for(SECOND);
    let lost = (world.pings_sent() - sent).saturating_sub(world.received_at_site.len() as u64);
    // Replies that were in flight on the old session.
    assert!(lost <= 1, "{lost} lost in {:?}", start.elapsed());
}

#[test]
fn probes_of_a_dead_preferred_hub_do_not_disturb_the_active_one() {
    let mut world = World::connected(53, 2);
    world.stop_hub(0);
    world.run_for(MINUTE);
    world.received_at_site.clear();
    let sent = world.pings_sent();
    world.run_for(24 * HOUR);
    world.ping_interval = None;
    world.run_for(SECOND);
    assert!((world.received_at_site.len() as u64).abs_diff(world.pings_sent() - sent) <= 1);
}

#[test]
fn while_all_hubs_are_dead_all_are_tried_and_the_first_that_answers_is_used() {
    for back in [0, 1] {
        let mut world = World::connected(54, 2);
        world.stop_hub(0);
        world.stop_hub(1);
        let before = world.report().counters.initiations;
        world.run_for(24 * HOUR);
        let initiations = world.report().counters.initiations - before;
        assert!(initiations <= 4_000, "{initiations}");
        world.start_hub(back);
        assert!(world.is_answered_within(61 * SECOND), "{back}");
    }
}

#[test]
fn a_flapping_preferred_hub_causes_few_changes() {
    let mut world = World::connected(55, 2);
    let before = world.report().counters.hub_changes;
    let start = Instant::now();
    while start.elapsed() < 24 * HOUR {
        world.stop_hub(0);
        world.run_for(12 * MINUTE);
        world.start_hub(0);
        world.run_for(12 * MINUTE);
    }
    let changes = world.report().counters.hub_changes - before;
    assert!(changes <= 30, "{changes}");
    assert!(world.is_answered_within(MINUTE));
}

#[test]
fn two_gateways_with_one_key_are_visible_at_the_hub_and_break_nothing() {
    let mut world = World::connected(56, 1);
    let mut other =
        tunnel::Tunnel::site(world.settings.clone(), world.bounds, tunnel::Now::read(), 99);
    let elsewhere = "203.0.113.9:7000".parse().expect("an address");
    let hub = world.hubs[0].address;
    let (mut out, mut packets) = (tunnel::SendBatch::new(), tunnel::PacketBuffer::new());
    other.handle_event(tunnel::Now::read(), TunnelEvent::Resolved { hub: 0, addresses: vec![hub] });
    for _ in 0..600 {
        clock::advance(SECOND);
        world.network.captured = Some(Vec::new());
        other.handle_timeout(tunnel::Now::read(), &mut out);
        for (_, datagram) in out.datagrams() {
            world.deliver_to_hub(0, elsewhere, datagram);
        }
        out.clear();
        for datagram in world.network.captured.take().unwrap_or_default() {
            if datagram.to == elsewhere {
                let datagram = (datagram.from, datagram.bytes.as_slice());
                other.handle_datagram(tunnel::Now::read(), datagram, &mut out, &mut packets);
            }
        }
        world.step(SECOND / 10);
    }
    let now = tunnel::Now::read();
    let report = world.hubs[0].tunnel.as_ref().expect("it runs").report(now);
    assert!(report.counters.endpoint_changes >= 10, "{}", report.counters.endpoint_changes);
    world.run_for(MINUTE);
    assert!(world.is_answered_within(MINUTE));
}
