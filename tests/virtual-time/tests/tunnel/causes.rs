//! For each cause of a failure the sentence that names it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tunnel::{
    Now, PathError, PathErrorCause, PresharedKey, SendBatch, Tunnel, TunnelDiagnosis, TunnelEvent,
    TunnelState,
};
use virtual_time::World;
use virtual_time::world::{parse_ip, parse_net};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[track_caller]
fn assert_state(world: &World, state: TunnelState, words: &str) {
    let report = world.report();
    assert_eq!(report.state, state, "{}", report.diagnosis);
    let json = serde_json::to_value(&report.diagnosis).expect("it serialises");
    assert_eq!(json["code"], state.label());
    assert!(report.diagnosis.to_string().contains(words), "{}", report.diagnosis);
}

/// Runs a world while each initiation has this result.
fn run_with(world: &mut World, time: Duration, cause: PathErrorCause, reporter: Option<IpAddr>) {
    let to = world.hubs[0].address;
    let mut initiations = world.report().counters.initiations;
    let _ = world.run_until(time, |world| {
        let before = std::mem::replace(&mut initiations, world.report().counters.initiations);
        if before != initiations {
            world.send_event(TunnelEvent::PathError(PathError { to, cause, reporter }));
        }
        false
    });
}

#[test]
fn the_host_that_rejects_the_datagrams_is_named() {
    let router = parse_ip("10.50.0.1");
    for (cause, reporter, state, words) in [
        (
            PathErrorCause::PortUnreachable,
            Some(router),
            TunnelState::RouterRefuses,
            "10.50.0.1, a router",
        ),
        (PathErrorCause::Prohibited, Some(router), TunnelState::Prohibited, "10.50.0.1, forbids"),
        (PathErrorCause::NoRoute, Some(router), TunnelState::RouterNoRoute, "10.50.0.1, a router"),
        (PathErrorCause::NoRoute, None, TunnelState::NoRoute, "Check the cable"),
        (PathErrorCause::Prohibited, None, TunnelState::OwnFirewall, "The firewall of this device"),
        (
            PathErrorCause::PortUnreachable,
            None,
            TunnelState::OwnFirewall,
            "The firewall of this device",
        ),
    ] {
        let mut world = World::new(150, 1);
        world.stop_hub(0);
        run_with(&mut world, MINUTE, cause, reporter);
        assert_state(&world, state, words);
        world.start_hub(0);
        world.ping_interval = Some(SECOND);
        assert!(world.is_answered_within(MINUTE));
        assert_state(&world, TunnelState::Up, "is up");
    }
}

#[test]
fn a_cable_that_is_pulled_is_named_within_15_s_although_the_session_is_young() {
    let mut world = World::connected(151, 1);
    let to = world.hubs[0].address;
    world.network.unreachable_hosts.insert(to.ip());
    let error = PathError { to, cause: PathErrorCause::NoRoute, reporter: None };
    let took = world.run_until(MINUTE, |world| {
        world.send_event(TunnelEvent::PathError(error));
        world.report().state == TunnelState::NoRoute
    });
    assert!(took.is_some_and(|took| took <= 3 * SECOND), "{took:?}");
    // What was reported as lost does not arrive later.
    world.run_for(SECOND);
    world.network.unreachable_hosts.clear();
    assert!(world.is_answered_within(30 * SECOND));
    assert_state(&world, TunnelState::Up, "is up");
}

/// A firewall that rejects what the site sends may let pass what the hub sends.
#[test]
fn a_way_out_that_is_blocked_is_named_within_3_s_while_the_hub_is_still_heard() {
    let mut world = World::connected(152, 1);
    let to = world.hubs[0].address;
    let cause = PathErrorCause::PortUnreachable;
    let error = PathError { to, cause, reporter: Some(parse_ip("10.50.0.1")) };
    (world.hubs_echo, world.ping_interval) = (false, None);
    for second in 0..20 {
        world.ping();
        world.send_event(TunnelEvent::PathError(error));
        world.ping_from_hub();
        world.run_for(SECOND);
        let is_named = world.report().state == TunnelState::RouterRefuses;
        assert_eq!(is_named, second >= 2, "{second}: {}", world.report().diagnosis);
    }
    world.hubs_echo = true;
    world.ping();
    assert!(world.is_answered_within(SECOND));
    assert_state(&world, TunnelState::Up, "is up");
}

#[test]
fn a_silent_hub_is_reported_within_15_s_and_its_return_at_once() {
    for seed in 160..170 {
        let mut world = World::connected(seed, 1);
        let hub = world.hubs[0].address.ip();
        world.network.unreachable_hosts.insert(hub);
        let took = world.run_until(MINUTE, |world| world.report().state == TunnelState::Silent);
        assert!(took.is_some_and(|took| took <= 15 * SECOND), "{took:?}");
        world.run_for(MINUTE);
        assert_state(&world, TunnelState::Silent, "Nothing comes back");
        // The session is still usable: data passes before the next handshake.
        world.network.unreachable_hosts.clear();
        assert!(world.is_answered_within(30 * SECOND));
        assert_state(&world, TunnelState::Up, "is up");
    }
}

#[test]
fn a_name_that_is_blocked_or_answered_by_a_portal_is_named() {
    for answer in ["0.0.0.0", "::", "127.0.0.1", "::1", "255.255.255.255", "224.0.0.1", "fe80::1"] {
        let mut world = World::new(170, 1);
        world.dns.insert("hub-1.test".to_owned(), vec![parse_ip(answer)]);
        world.restart_site();
        world.run_for(20 * SECOND);
        assert_state(&world, TunnelState::NameBlocked, &format!("it answers {answer}"));
        let good = world.hubs[0].address.ip();
        world.dns.insert("hub-1.test".to_owned(), vec![parse_ip(answer), good]);
        assert!(world.run_until(MINUTE, |world| world.is_up()).is_some(), "{answer}");
    }
    let mut world = World::new(171, 1);
    let router = parse_ip("10.50.0.1");
    world.dns.insert("hub-1.test".to_owned(), vec![router]);
    world.restart_site();
    world.send_event(TunnelEvent::HostNetwork {
        routers: vec![router],
        resolvers_inside: Vec::new(),
    });
    world.run_for(20 * SECOND);
    assert_state(&world, TunnelState::CaptivePortal, "10.50.0.1, the router of this site");
    let to = SocketAddr::new(router, 51820);
    let cause = PathErrorCause::PortUnreachable;
    world.send_event(TunnelEvent::PathError(PathError { to, cause, reporter: Some(router) }));
    assert_state(&world, TunnelState::CaptivePortal, "login page");
}

#[test]
fn a_slow_look_up_is_no_silence_and_a_dns_server_inside_the_tunnel_is_named() {
    let mut world = World::new(172, 1);
    world.dns.clear();
    world.restart_site();
    world.run_for(4 * SECOND);
    assert_state(&world, TunnelState::LookingUp, "is being looked up");
    world.run_for(20 * SECOND);
    assert_state(&world, TunnelState::NoAddress, "cannot be found");
    world.send_event(TunnelEvent::HostNetwork {
        routers: Vec::new(),
        resolvers_inside: vec![parse_ip("10.0.0.53")],
    });
    assert_state(&world, TunnelState::ResolverInside, "the DNS server 10.0.0.53 is in a network");
}

#[test]
fn a_preshared_key_that_only_the_hub_has_is_named() {
    let key = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";
    let key = || key.parse::<PresharedKey>().expect("a key");
    for (site_has_one, hub_has_one, state) in
        [(false, true, TunnelState::PresharedKeyMissing), (true, false, TunnelState::WrongKey)]
    {
        let change = |settings: &mut tunnel::Settings| {
            settings.hubs[0].preshared_key = site_has_one.then(key);
        };
        let mut world = World::with_settings(173, 1, change);
        world.hubs[0].settings.sites[0].preshared_key = hub_has_one.then(key);
        world.start_hub(0);
        world.run_for(MINUTE);
        assert_state(&world, state, "preshared key");
    }
}

#[test]
fn a_wrong_public_key_is_one_of_the_causes_of_silence() {
    let change = |settings: &mut tunnel::Settings| {
        settings.hubs[0].public_key = tunnel::PrivateKey::generate().public_key();
    };
    let mut world = World::with_settings(174, 1, change);
    world.run_for(MINUTE);
    assert_state(&world, TunnelState::Silent, "compare `public_key` here with the hub's");
}

#[test]
fn a_hub_with_another_address_for_the_key_answers_and_returns_no_data() {
    let mut world = World::new(175, 1);
    world.hubs[0].settings.sites[0].allowed_ips = vec![parse_net("10.77.0.21/32")];
    world.start_hub(0);
    world.ping_interval = Some(SECOND);
    world.run_for(MINUTE);
    assert_state(&world, TunnelState::NoData, "contains 10.77.0.12");
    assert!(world.report().state.has_session() && !world.report().state.carries_data());
    // The operator corrects it.
    world.hubs[0].settings.sites[0].allowed_ips = vec![parse_net("10.77.0.12/32")];
    world.start_hub(0);
    assert!(world.is_answered_within(2 * MINUTE));
    assert_state(&world, TunnelState::Up, "is up");
    // A broker that is away for hours after that is no fault of the hub.
    world.hubs_echo = false;
    world.run_for(60 * MINUTE);
    assert_state(&world, TunnelState::Up, "is up");
}

#[test]
fn a_second_device_with_the_same_key_is_named_and_its_end_too() {
    let mut world = World::connected(176, 1);
    let mut other = Tunnel::site(world.settings.clone(), world.bounds, Now::read(), 4711);
    let address = world.hubs[0].address;
    other.handle_event(Now::read(), TunnelEvent::Resolved { hub: 0, addresses: vec![address] });
    let here: SocketAddr = "192.0.2.77:40000".parse().expect("an address");
    let packet =
        virtual_time::packet::ip_packet(parse_ip("10.77.0.12"), parse_ip("10.77.0.1"), 100, 1);
    let mut was_seen = false;
    for _ in 0..60 {
        let (now, mut out) = (Now::read(), SendBatch::new());
        other.handle_timeout(now, &mut out);
        other.handle_packet(now, &packet, &mut out);
        let sent: Vec<Vec<u8>> = out.datagrams().map(|(_, bytes)| bytes.to_vec()).collect();
        for datagram in sent {
            for reply in world.ask_hub(0, here, &datagram) {
                let packets = &mut tunnel::PacketBuffer::new();
                other.handle_datagram(now, (address, &reply), &mut SendBatch::new(), packets);
            }
        }
        world.run_for(SECOND);
        was_seen |= world.report().state == TunnelState::KeyShared;
    }
    assert!(was_seen);
    world.run_for(2 * MINUTE);
    assert_state(&world, TunnelState::Up, "is up");
    let key = world.settings.private_key.public_key().to_string();
    let shared = TunnelDiagnosis::KeyShared { hub: "hub-1".to_owned(), public_key: key };
    assert!(shared.to_string().contains("edge-gateway keygen"));
}
