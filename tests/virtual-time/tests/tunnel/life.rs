//! Weeks of what happens to a box that nobody looks after.

use std::time::{Duration, Instant};

use tunnel::Event;
use virtual_time::{Conditions, World, clock, memory};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What happens.
#[expect(clippy::too_many_lines, reason = "a list of troubles")]
fn disturb(world: &mut World, random: &mut fastrand::Rng) -> &'static str {
    let hub = world.hubs[0].address.ip();
    match random.u8(..11) {
        0 => {
            world.network.cut.insert(hub);
            world.run_for(MINUTE * random.u32(1..300));
            world.network.cut.clear();
            "the line is cut"
        }
        1 => {
            world.start_hub(0);
            "the hub restarts"
        }
        2 => {
            world.stop_hub(0);
            world.run_for(MINUTE * random.u32(1..60));
            world.start_hub(0);
            "the hub is away"
        }
        3 => {
            world.restart_site();
            "the site restarts"
        }
        4 => {
            world.outside.set_ip([203, 0, 113, random.u8(..)].into());
            "our address changes"
        }
        5 => {
            world.network.dead.insert(world.outside);
            "a router forgets our port"
        }
        6 => {
            clock::sleep(MINUTE * random.u32(1..600));
            "the box is suspended"
        }
        7 => {
            let by = MINUTE * random.u32(1..600);
            clock::step_back(by);
            world.restart_site();
            world.run_for(5 * MINUTE);
            clock::step_forward(by);
            "the clock was set late"
        }
        8 => {
            world.network.impairment.conditions.loss = 0.5;
            world.run_for(30 * MINUTE);
            world.network.impairment.conditions = Conditions::default();
            "half of everything was lost"
        }
        9 => {
            let names = std::mem::take(&mut world.names);
            world.network.cut.insert(hub);
            world.run_for(MINUTE * random.u32(1..60));
            world.network.cut.clear();
            world.run_for(MINUTE);
            world.names = names;
            "line and DNS were away"
        }
        _ => {
            world.network.dead.insert(world.outside);
            world.tell(Event::NetworkChanged);
            "another network"
        }
    }
}

#[test]
fn in_24_days_of_trouble_a_session_is_there_60_s_after_each_and_memory_does_not_grow() {
    let mut world = World::new(80, 1);
    let mut random = fastrand::Rng::with_seed(80);
    let start = Instant::now();
    let (mut troubles, mut settled) = (0, None);
    while start.elapsed() < 24 * DAY {
        world.talk = Some(MINUTE);
        let what = disturb(&mut world, &mut random);
        world.talk = Some(SECOND);
        world.received.clear();
        let took = world.run_until(MINUTE, |world| !world.received.is_empty());
        assert!(took.is_some(), "{what}, trouble {troubles}: {:?}", world.report());
        world.network.dead.clear();
        world.talk = Some(MINUTE);
        world.run_for(HOUR + MINUTE * random.u32(..120));
        (world.received, world.arrived) = (Vec::new(), Vec::new());
        troubles += 1;
        if start.elapsed() > 2 * DAY {
            settled.get_or_insert_with(memory::held);
        }
    }
    let grown = memory::held() - settled.unwrap_or_default();
    assert!(grown < 16 * 1024, "{grown} bytes in {troubles} troubles");
    assert!(troubles > 150, "{troubles}");
}

#[test]
fn a_tunnel_that_nearly_nothing_happens_to_for_twelve_days_does_not_grow() {
    let mut world = World::with(81, 1, |settings| settings.keep_alive = None);
    world.talk = Some(10 * MINUTE);
    world.run_for(2 * DAY);
    (world.received, world.arrived) = (Vec::new(), Vec::new());
    let before = memory::held();
    world.run_for(10 * DAY);
    assert_eq!(world.received.len(), 10 * 24 * 6);
    (world.received, world.arrived) = (Vec::new(), Vec::new());
    let grown = memory::held() - before;
    assert!(grown < 1024, "{grown} bytes");
}
