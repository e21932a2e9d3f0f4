//! A long outage: whatever the moment in which the hub returns, the next handshake succeeds.

use std::time::Duration;

use virtual_time::World;

/// Longest pause between two initiations, and the network's delay.
const FOUND_WITHIN: Duration = Duration::from_secs(32);

#[test]
fn a_hub_that_returns_after_minutes_is_found_by_the_next_handshake() {
    for seed in 0..60 {
        let mut world = World::connected(300 + seed, 1);
        world.network.impairment.conditions.delay = Duration::from_millis(500);
        world.stop_hub(0);
        world.run_for(Duration::from_secs(200 + 7 * seed));
        world.start_hub(0);
        let found = world.run_until(4 * FOUND_WITHIN, |world| world.is_up());
        assert!(found.is_some_and(|found| found <= FOUND_WITHIN), "seed {seed}: {found:?}");
    }
}
