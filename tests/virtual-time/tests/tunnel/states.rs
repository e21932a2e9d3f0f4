//! What a tunnel says of itself, in a word and in a sentence, in each of its states but two: those of a way
//! that is too narrow are in `long`, those of a wrong clock in `clocks` as well.

use std::time::Duration;

use tunnel::{ClockBounds, Now, TunnelDiagnosis, TunnelEvent, TunnelState};
use virtual_time::{World, clock};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A tunnel is in this state, and its sentence says this.
#[track_caller]
fn assert_report(world: &World, state: TunnelState, words: &str) {
    let report = world.report();
    assert_eq!(report.state, state, "{}", report.diagnosis);
    assert!(report.diagnosis.to_string().contains(words), "{}", report.diagnosis);
}

#[test]
fn a_tunnel_is_connecting_and_then_up() {
    let mut world = World::new(130, 1);
    assert_report(&world, TunnelState::Connecting, "Connecting to hub-1 (hub-1.test).");
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
fn a_hub_from_which_nothing_comes_back_is_silent_and_the_sentence_names_the_key() {
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
    assert_eq!(world.report().state.label(), "silent");
    // So is one that is lost after it was up, when its session is of no use any more.
    let mut world = World::connected(132, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
    world.start_hub(0);
    assert!(world.is_answered_within(MINUTE));
    assert_report(&world, TunnelState::Up, "is up");
}

#[test]
fn a_name_that_cannot_be_found_has_no_address() {
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
fn a_name_whose_addresses_all_lie_inside_the_tunnel_is_told_as_that() {
    let mut world = World::new(134, 1);
    world.dns.clear();
    world.restart_site();
    world.send_event(TunnelEvent::ResolvedInsideTunnel { hub: 0 });
    world.run_for(SECOND);
    assert_report(
        &world,
        TunnelState::AddressInside,
        "is in a network that is routed through the tunnel",
    );
    let address = world.hubs[0].address;
    world.send_event(TunnelEvent::Resolved { hub: 0, addresses: vec![address] });
    world.run_for(2 * SECOND);
    assert_report(&world, TunnelState::Up, "is up");
    // An address that works is not doubted.
    world.send_event(TunnelEvent::ResolvedInsideTunnel { hub: 0 });
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(2 * SECOND));
    assert_report(&world, TunnelState::Up, "is up");
}

#[test]
fn a_host_that_refuses_is_told_until_it_says_no_more() {
    let mut world = World::connected(135, 1);
    let address = world.hubs[0].address;
    world.stop_hub(0);
    // It refuses each initiation while WireGuard is stopped.
    let mut initiations = world.report().counters.initiations;
    let mut live = |world: &mut World, time: Duration, refuses: bool| {
        let _ = world.run_until(time, |world| {
            let before = std::mem::replace(&mut initiations, world.report().counters.initiations);
            if refuses && before != initiations {
                world.send_event(TunnelEvent::PortUnreachable(address));
            }
            false
        });
    };
    for _ in 0..60 {
        live(&mut world, MINUTE, true);
        assert_report(&world, TunnelState::Refused, "answers, but hub-1 is not running there");
    }
    // Then it is switched off.
    live(&mut world, 2 * MINUTE, false);
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
    live(&mut world, HOUR, true);
    assert_report(&world, TunnelState::Refused, "is not running there");
}

#[test]
fn what_somebody_else_says_of_another_address_is_not_believed() {
    let mut world = World::new(136, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    world.send_event(TunnelEvent::PortUnreachable(
        "203.0.113.66:51820".parse().expect("an address"),
    ));
    assert_report(&world, TunnelState::Silent, "Nothing comes back");
}

#[test]
fn a_lost_handshake_is_not_worth_a_word() {
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
fn a_clock_that_is_behind_and_one_that_is_far_ahead_are_told() {
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
