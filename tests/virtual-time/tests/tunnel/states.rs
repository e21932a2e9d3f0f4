//! State and diagnosis of a tunnel. The state `mtu_too_large` is tested in `black_hole`, and wrong
//! clocks also in `clocks`.

use std::net::SocketAddr;
use std::time::Duration;

use tunnel::{
    ClockBounds, Now, PathError, PathErrorCause, TunnelDiagnosis, TunnelEvent, TunnelState,
};
use virtual_time::world::parse_net;
use virtual_time::{World, clock};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Asserts a state and a part of its sentence.
#[track_caller]
fn assert_report(world: &World, state: TunnelState, words: &str) {
    let report = world.report();
    assert_eq!(report.state, state, "{}", report.diagnosis);
    assert!(report.diagnosis.to_string().contains(words), "{}", report.diagnosis);
}

/// Returns the report of a host on which WireGuard does not run.
fn refused(to: SocketAddr) -> TunnelEvent {
    let cause = PathErrorCause::PortUnreachable;
    TunnelEvent::PathError(PathError { to, cause, reporter: Some(to.ip()) })
}

#[test]
fn a_tunnel_is_connecting_and_then_up() {
    let mut world = World::new(130, 1);
    assert_report(&world, TunnelState::LookingUp, "hub-1 (hub-1.test) is being looked up.");
    world.run_for(SECOND);
    assert_report(&world, TunnelState::Up, "The tunnel to hub-1 is up.");
    let hub = world.hubs[0].tunnel.as_ref().expect("it runs").report(Now::read());
    assert_eq!((hub.state, hub.diagnosis), (TunnelState::Up, TunnelDiagnosis::SiteConnected));
    world.start_hub(0);
    let hub = world.hubs[0].tunnel.as_ref().expect("it runs").report(Now::read());
    assert_eq!(
        (hub.state, hub.diagnosis),
        (TunnelState::Waiting, TunnelDiagnosis::WaitingForSites)
    );
}

#[test]
fn a_hub_without_an_answer_is_silent_and_the_sentence_names_the_key() {
    let mut world = World::new(131, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    let key = world.settings.private_key.public_key().to_string();
    assert_report(
        &world,
        TunnelState::Silent,
        "Nothing comes back from hub-1 (198.51.100.1:51820).",
    );
    assert_report(&world, TunnelState::Silent, &key);
    assert_report(&world, TunnelState::Silent, "compare `public_key` here with the hub's");
    assert_eq!(world.report().state.label(), "silent");
    // Also after the tunnel was up, once its session has expired.
    let mut world = World::connected(132, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
    world.start_hub(0);
    assert!(world.is_answered_within(MINUTE));
    assert_report(&world, TunnelState::Up, "is up");
}

#[test]
fn a_name_that_does_not_resolve_is_reported() {
    let mut world = World::new(133, 1);
    world.dns.clear();
    world.restart_site();
    world.run_for(MINUTE);
    assert_report(
        &world,
        TunnelState::NoAddress,
        "The address of hub-1 (hub-1.test) cannot be found.",
    );
}

#[test]
fn a_name_with_only_addresses_inside_the_tunnel_is_reported() {
    let mut world = World::new(134, 1);
    let address = world.hubs[0].address;
    world.site.set_host_routes(vec![parse_net("198.51.100.1/32")]);
    world.run_for(SECOND);
    assert_report(
        &world,
        TunnelState::AddressInside,
        "is in a network that is routed through the tunnel",
    );
    world.site.set_host_routes(Vec::new());
    world.send_event(TunnelEvent::Resolved { hub: 0, addresses: vec![address] });
    world.run_for(2 * SECOND);
    assert_report(&world, TunnelState::Up, "is up");
    // An address that works stays in use.
    world.site.set_host_routes(vec![parse_net("203.0.113.0/24")]);
    let inside = "203.0.113.1:51820".parse().expect("an address");
    world.send_event(TunnelEvent::Resolved { hub: 0, addresses: vec![inside] });
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(2 * SECOND));
    assert_report(&world, TunnelState::Up, "is up");
}

#[test]
fn an_address_inside_the_tunnel_is_not_kept_and_the_hub_does_not_roam_there() {
    let mut world = World::connected(139, 1);
    let address = world.hubs[0].address;
    let inside = "203.0.113.1:51820".parse().expect("an address");
    world.site.set_host_routes(vec![parse_net("203.0.113.0/24")]);
    // The hub answers from an address behind itself, and still receives at its own.
    world.hubs[0].sends_from = Some(inside);
    world.network.captured = Some(Vec::new());
    for _ in 0..10 {
        assert!(world.is_answered_within(2 * SECOND));
        world.run_for(MINUTE);
        assert_eq!(world.report().endpoint, Some(address));
    }
    // Nor is a handshake answered there: the host would route the answer into the tunnel.
    let captured = world.network.captured.take().expect("it was begun");
    assert!(captured.iter().any(|datagram| datagram.from == inside));
    assert!(captured.iter().all(|datagram| datagram.to != inside));
    assert_report(&world, TunnelState::Up, "is up");
    world.site.set_host_routes(Vec::new());
    assert!(world.is_answered_within(2 * SECOND));
    assert_eq!(world.report().endpoint, Some(inside));
    // A route that is set later applies to the address in use.
    world.hubs[0].sends_from = None;
    world.site.set_host_routes(vec![parse_net("203.0.113.0/24")]);
    assert_eq!(world.report().endpoint, Some(address));
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn datagrams_that_the_host_routes_into_the_tunnel_are_reported_until_15_s_after_the_last() {
    let mut world = World::connected(143, 1);
    world.send_event(TunnelEvent::DatagramLooped);
    let words = "routes the datagrams for hub-1 (198.51.100.1:51820) into the tunnel itself";
    assert_report(&world, TunnelState::RoutedInside, words);
    world.run_for(14 * SECOND);
    assert_report(&world, TunnelState::RoutedInside, words);
    world.run_for(2 * SECOND);
    assert_report(&world, TunnelState::Up, "is up");
}

#[test]
fn a_host_that_refuses_is_reported_until_it_stops() {
    let mut world = World::connected(135, 1);
    let address = world.hubs[0].address;
    world.stop_hub(0);
    // It refuses each initiation while WireGuard is stopped.
    let mut initiations = world.report().counters.initiations;
    let mut run_with_refusals = |world: &mut World, time: Duration, refuses: bool| {
        let _ = world.run_until(time, |world| {
            let before = std::mem::replace(&mut initiations, world.report().counters.initiations);
            if refuses && before != initiations {
                world.send_event(refused(address));
            }
            false
        });
    };
    for _ in 0..60 {
        run_with_refusals(&mut world, MINUTE, true);
        assert_report(&world, TunnelState::Refused, "answers, but hub-1 is not running there");
    }
    // Then the host is switched off.
    run_with_refusals(&mut world, 2 * MINUTE, false);
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
    run_with_refusals(&mut world, HOUR, true);
    assert_report(&world, TunnelState::Refused, "is not running there");
}

#[test]
fn a_refusal_of_another_address_is_ignored() {
    let mut world = World::new(136, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    world.send_event(refused("203.0.113.66:51820".parse().expect("an address")));
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
}

#[test]
fn a_single_lost_handshake_changes_no_state() {
    let mut world = World::new(137, 1);
    world.run_for(SECOND);
    let mut states = std::collections::BTreeSet::new();
    for _ in 0..100 {
        world.network.initiations_to_drop = 1;
        let _ = world.run_until(MINUTE, |world| {
            states.insert(world.report().state.label());
            false
        });
    }
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["up"]);
}

#[test]
fn a_clock_that_is_behind_and_one_that_is_far_ahead_are_reported() {
    let mut world = World::connected(138, 1);
    clock::step_back(YEAR);
    world.bounds = ClockBounds { floor: Some(Now::read().wall + YEAR / 2), ceiling: None };
    world.restart_site();
    world.run_for(MINUTE);
    assert_report(&world, TunnelState::ClockBehind, "the clock of this device is in the past");
    world.bounds = ClockBounds { floor: None, ceiling: Some(Now::read().wall - YEAR) };
    world.restart_site();
    world.run_for(MINUTE);
    assert_report(&world, TunnelState::ClockAhead, "The clock of this device is far in the future");
}
