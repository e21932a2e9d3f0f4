//! Clocks that are wrong, step, stop or go back.

use std::time::{Duration, Instant, SystemTime};

use gateway::clock::{ClockReading, ClockTrust, KnownTimes};
use gateway::model::UnixTime;
use tunnel::{ClockBounds, Now, TunnelEvent, TunnelState};
use virtual_time::{World, clock};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[test]
fn a_clock_years_behind_is_reported_and_the_tunnel_is_up_10_s_after_it_is_set() {
    let mut world = World::connected(20, 1);
    clock::step_back(10 * YEAR);
    world.bounds.floor = Some(SystemTime::UNIX_EPOCH + 50 * YEAR);
    world.restart_site();
    world.run_for(5 * MINUTE);
    assert_eq!(world.report().state, TunnelState::ClockBehind, "{}", world.report().diagnosis);
    clock::step_forward(10 * YEAR);
    assert!(world.is_answered_within(10 * SECOND));
}

#[test]
fn a_handshake_is_tried_with_a_clock_that_is_behind() {
    clock::start();
    let mut world = World::new(21, 1);
    world.bounds.floor = Some(Now::read().wall + YEAR);
    world.restart_site();
    world.run_for(SECOND);
    assert!(world.is_up());
}

#[test]
fn with_a_clock_beyond_the_ceiling_nothing_is_sent_and_no_key_is_blocked() {
    let mut world = World::connected(22, 1);
    let right = Now::read().wall;
    clock::step_forward(10 * YEAR);
    world.bounds.ceiling = Some(right + YEAR);
    world.network.captured = Some(Vec::new());
    world.restart_site();
    world.run_for(HOUR);
    let seen = world.network.captured.take().unwrap_or_default();
    assert!(seen.iter().all(|datagram| datagram.from.ip() != world.site_address.ip()));
    assert_eq!(world.report().state, TunnelState::ClockAhead, "{}", world.report().diagnosis);
    clock::step_back(10 * YEAR);
    assert!(world.is_answered_within(10 * SECOND));
    assert_eq!(world.report().counters.unanswered, 0);
}

#[test]
fn a_step_beyond_the_ceiling_does_not_end_a_tunnel_that_is_up() {
    let mut world = World::connected(23, 1);
    let ceiling = Some(Now::read().wall + YEAR);
    world.send_event(TunnelEvent::ClockBoundsChanged(ClockBounds { floor: None, ceiling }));
    clock::step_forward(10 * YEAR);
    for _ in 0..10 {
        world.run_for(MINUTE);
        assert!(world.is_answered_within(2 * SECOND));
    }
    clock::step_back(10 * YEAR);
    world.run_for(10 * MINUTE);
    assert!(world.is_answered_within(2 * SECOND));
    world.restart_site();
    assert!(world.is_answered_within(2 * SECOND), "the key is blocked");
}

/// Returns the bounds that the gateway derives from the clock, with a floor that was stored just
/// now.
fn bounds_of_product(kept: UnixTime, is_synchronised: bool) -> ClockBounds {
    let mut trust = ClockTrust::new(Some(KnownTimes { floor: kept, seen: kept }));
    let wall = gateway::clock::to_unix_time(Now::read().wall);
    let reading = ClockReading { wall, ..ClockReading::default() };
    gateway::clock::tunnel_bounds(trust.assess(Instant::now(), reading, is_synchronised))
}

#[test]
fn a_step_of_ten_years_while_up_blocks_no_key() {
    for is_synchronised in [false, true] {
        let mut world = World::connected(31, 2);
        let kept = gateway::clock::to_unix_time(Now::read().wall);
        clock::step_forward(10 * YEAR);
        world.bounds = bounds_of_product(kept, is_synchronised);
        world.send_event(TunnelEvent::ClockBoundsChanged(world.bounds));
        // No timestamp of the far future is sent: not with renewals, to another hub, or after a
        // restart.
        world.run_for(5 * MINUTE);
        let hub = world.hubs[0].address.ip();
        world.network.unreachable_hosts.insert(hub);
        world.run_for(5 * MINUTE);
        world.network.unreachable_hosts.clear();
        world.restart_site();
        world.run_for(5 * MINUTE);
        assert_eq!(world.report().state, TunnelState::ClockAhead, "{}", world.report().diagnosis);

        clock::step_back(10 * YEAR);
        world.bounds = bounds_of_product(kept, true);
        world.restart_site();
        assert!(world.is_answered_within(10 * SECOND), "the key is blocked");
    }
}

#[test]
fn a_clock_that_is_years_ahead_for_an_hour_blocks_no_key_of_a_tunnel_that_is_up() {
    let mut world = World::connected(32, 1);
    clock::step_forward(5 * YEAR);
    for _ in 0..60 {
        assert!(world.is_answered_within(2 * SECOND));
        world.run_for(MINUTE);
    }
    clock::step_back(5 * YEAR);
    world.run_for(5 * MINUTE);
    world.restart_site();
    assert!(world.is_answered_within(10 * SECOND), "the key is blocked");
}

#[test]
fn a_step_of_the_clock_costs_a_tunnel_that_is_up_no_packet() {
    let mut world = World::connected(33, 1);
    world.ping_interval = None;
    world.run_for(SECOND);
    world.received_at_site.clear();
    let sent = world.pings_sent();
    world.ping_interval = Some(SECOND / 10);
    for by in [2 * SECOND, HOUR, YEAR] {
        clock::step_forward(by);
        world.run_for(5 * MINUTE);
        clock::step_back(by);
        world.run_for(5 * MINUTE);
    }
    world.ping_interval = None;
    world.run_for(SECOND);
    assert_eq!(world.received_at_site.len() as u64, world.pings_sent() - sent);
}

#[test]
fn suspending_the_machine_costs_no_packet() {
    for suspended in [1, 2, 3, 4, 8, 9, 10, 60].map(|minutes| minutes * MINUTE) {
        let mut world = World::connected(34, 1);
        world.ping_interval = None;
        world.run_for(SECOND);
        world.received_at_site.clear();
        let sent = world.pings_sent();
        clock::suspend(suspended);
        world.ping_interval = Some(SECOND);
        world.run_for(MINUTE);
        world.ping_interval = None;
        world.run_for(SECOND);
        assert_eq!(world.received_at_site.len() as u64, world.pings_sent() - sent, "{suspended:?}");
    }
}

#[test]
fn a_step_back_of_an_hour_does_not_interrupt() {
    let mut world = World::connected(24, 1);
    clock::step_back(HOUR);
    for _ in 0..30 {
        assert!(world.is_answered_within(2 * SECOND));
        world.run_for(MINUTE);
    }
}

#[test]
fn after_a_step_back_before_the_first_session_no_future_timestamp_is_sent() {
    let mut world = World::new(25, 1);
    world.stop_hub(0);
    world.run_for(MINUTE);
    clock::step_back(HOUR);
    world.run_for(MINUTE);
    world.start_hub(0);
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(MINUTE));
}

#[test]
fn traffic_resumes_at_once_after_a_step_forward() {
    let mut world = World::connected(26, 1);
    clock::step_forward(HOUR);
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn after_10_minutes_suspended_nothing_is_sent_on_the_expired_session() {
    let mut world = World::connected(27, 1);
    world.ping_interval = None;
    world.run_for(SECOND);
    world.network.captured = Some(Vec::new());
    clock::suspend(10 * MINUTE);
    world.ping();
    let seen = world.network.captured.take().unwrap_or_default();
    let kinds: Vec<_> = seen.iter().map(|datagram| datagram.bytes[0]).collect();
    assert_eq!(kinds, [1]);
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn a_driver_that_was_delayed_by_20_minutes_sends_nothing_on_the_expired_session() {
    let mut world = World::connected(28, 1);
    world.ping_interval = None;
    world.run_for(SECOND);
    world.network.captured = Some(Vec::new());
    clock::advance(20 * MINUTE);
    world.ping();
    let seen = world.network.captured.take().unwrap_or_default();
    let kinds: Vec<_> = seen.iter().map(|datagram| datagram.bytes[0]).collect();
    assert_eq!(kinds, [1]);
    assert!(world.is_answered_within(2 * SECOND));
}

#[test]
fn a_boot_time_clock_that_goes_back_is_tolerated() {
    let mut world = World::connected(29, 1);
    // Longer than boringtun remembers its last session.
    world.run_for(3 * MINUTE);
    clock::step_boot_time_back(4 * MINUTE);
    world.run_for(5 * MINUTE);
    assert!(world.is_answered_within(2 * SECOND));
    assert!(world.report().counters.panics >= 1, "boringtun no longer panics");
}

/// Restarts the site with what its last run knew about the stamps of its hubs.
fn restart_with_stamps(world: &mut World) {
    let stamp = world.report().accepted_stamp.expect("a hub has accepted a handshake");
    world.restart_site();
    world.send_event(TunnelEvent::StampAccepted { hub: 0, stamp });
}

#[test]
fn a_hub_that_has_seen_a_later_time_is_reported_at_once_and_the_network_is_not_blamed() {
    for ahead in [MINUTE, HOUR, YEAR, 7 * YEAR] {
        let mut world = World::new(35, 1);
        // The clock was wrong at the start of the first run.
        clock::step_forward(ahead);
        world.restart_site();
        world.ping_interval = Some(SECOND);
        assert!(world.is_answered_within(10 * SECOND));
        clock::step_back(ahead);
        assert!(world.is_answered_within(10 * SECOND), "a tunnel that is up stays up");

        restart_with_stamps(&mut world);

        for _ in 0..5 {
            let report = world.report();
            assert_eq!(report.state, TunnelState::StampAhead, "{}", report.diagnosis);
            let text = report.diagnosis.to_string();
            let key = world.settings.private_key.public_key().to_string();
            assert!(text.contains("remove the key") && text.contains(&key), "{text}");
            world.run_for(10 * SECOND);
        }
        // The operator removes the key and adds it again.
        world.stop_hub(0);
        world.start_hub(0);
        assert!(world.is_answered_within(MINUTE), "{}", world.report().diagnosis);
        let accepted = world.report().accepted_stamp.expect("a handshake");
        assert!(accepted <= Now::read().wall, "the later time is forgotten");
    }
}

#[test]
fn a_hub_accepts_handshakes_again_when_its_latest_time_has_come() {
    let mut world = World::new(36, 1);
    clock::step_forward(MINUTE);
    world.restart_site();
    world.ping_interval = Some(SECOND);
    assert!(world.is_answered_within(10 * SECOND));
    clock::step_back(MINUTE);
    restart_with_stamps(&mut world);
    assert_eq!(world.report().state, TunnelState::StampAhead);
    assert!(world.is_answered_within(2 * MINUTE), "{}", world.report().diagnosis);
}

#[test]
fn a_restart_with_a_right_clock_reports_no_hub_that_is_ahead() {
    for seed in 40..50 {
        let mut world = World::connected(seed, 2);
        restart_with_stamps(&mut world);
        assert_ne!(world.report().state, TunnelState::StampAhead);
        assert!(world.is_answered_within(2 * SECOND));
    }
}

#[test]
fn a_stamp_equal_to_that_of_the_next_handshake_is_one_that_the_hub_ignores() {
    clock::start();
    let mut world = World::new(37, 1);
    world.restart_site();
    let stamp = Now::read().wall;
    world.send_event(TunnelEvent::StampAccepted { hub: 0, stamp });
    assert_eq!(world.report().state, TunnelState::StampAhead);
    clock::advance(SECOND / 1000);
    assert_eq!(world.report().state, TunnelState::LookingUp);
}

/// A box without a battery starts at the time of its build: not the hub, but the clock is wrong.
#[test]
fn a_clock_behind_the_floor_is_blamed_before_the_hub() {
    let mut world = World::connected(38, 1);
    let stamp = world.report().accepted_stamp.expect("a handshake");
    world.bounds.floor = Some(Now::read().wall);
    clock::step_back(YEAR);
    world.restart_site();
    world.send_event(TunnelEvent::StampAccepted { hub: 0, stamp });
    assert_eq!(world.report().state, TunnelState::ClockBehind, "{}", world.report().diagnosis);
    clock::step_forward(YEAR);
    assert!(world.is_answered_within(10 * SECOND));
}

#[test]
fn only_the_hub_that_has_seen_a_later_time_is_reported() {
    let mut world = World::connected(39, 2);
    let stamp = Now::read().wall + YEAR;
    world.restart_site();
    world.send_event(TunnelEvent::StampAccepted { hub: 1, stamp });
    assert!(world.is_answered_within(2 * SECOND));
    assert_eq!(world.report().hub, "hub-1");
    let hub = world.hubs[0].address.ip();
    world.network.unreachable_hosts.insert(hub);
    world.restart_site();
    world.send_event(TunnelEvent::StampAccepted { hub: 0, stamp });
    assert_eq!(world.report().state, TunnelState::StampAhead);
    // The other hub has no such stamp.
    assert!(world.is_answered_within(2 * MINUTE));
    assert_eq!(world.report().state, TunnelState::Up);
}

/// The timestamps count suspended time too.
#[test]
fn the_accepted_stamp_follows_boringtun_through_suspends_and_steps() {
    let mut world = World::connected(51, 1);
    clock::suspend(HOUR);
    clock::step_back(2 * HOUR);
    world.run_for(5 * MINUTE);
    let accepted = world.report().accepted_stamp.expect("a handshake");
    let ahead = accepted.duration_since(Now::read().wall).expect("it is ahead of the clock");
    assert!((2 * HOUR - 5 * MINUTE..2 * HOUR).contains(&ahead), "{ahead:?}");
}

#[test]
fn a_clock_before_1970_is_tolerated() {
    let mut world = World::connected(30, 1);
    clock::step_back(60 * YEAR);
    world.restart_site();
    world.run_for(MINUTE);
    assert_eq!(world.report().state, TunnelState::ClockAhead);
    clock::step_forward(60 * YEAR);
    assert!(world.is_answered_within(10 * SECOND));
}
