//! Every published message arrives through a bad network. A router between the gateway and
//! wireguard-go loses, duplicates, delays, reorders and corrupts datagrams.

use std::time::{Duration, Instant};

use e2e::{
    Capture, NetworkConditions, RECOVERY_TIMEOUT, Traffic, TunnelTestbed, TunnelTestbedBuilder,
};

const MESSAGES: usize = 50;
const MILLISECOND: Duration = Duration::from_millis(1);

/// A fast network without faults.
fn good() -> NetworkConditions {
    NetworkConditions { delay: MILLISECOND, ..NetworkConditions::default() }
}

/// Publishes through such a network, stops the gateway in a good one, since a stop ends after 5 s
/// whatever is lost, and checks that everything arrived. Returns the traffic of the router.
fn all_arrives(world: TunnelTestbedBuilder, seed: u64, conditions: NetworkConditions) -> Traffic {
    let world = world.behind_router(seed, conditions).start();
    let mut arrived = Capture::default();
    take(&world, &mut arrived, MESSAGES);
    world.router().set_conditions(good());
    finish(world, arrived)
}

/// Receives `count` more messages.
fn take(world: &TunnelTestbed, arrived: &mut Capture, count: usize) {
    arrived.add_distinct(count, RECOVERY_TIMEOUT, |left| next(world, left));
}

/// Returns the next message with data.
fn next(world: &TunnelTestbed, left: Duration) -> Option<e2e::Message> {
    let end = Instant::now() + left;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let message = world.consumer.try_next(left)?;
        if TunnelTestbed::is_data(&message) {
            return Some(message);
        }
    }
}

/// Stops the gateway and receives the rest. Its last message says that it is offline.
fn finish(mut world: TunnelTestbed, mut arrived: Capture) -> Traffic {
    world.gateway.terminate();
    let status = world.gateway.wait(RECOVERY_TIMEOUT);
    let log = world.gateway.log().text();
    assert!(status.success() && !log.contains("kept for the next start"), "{status}: {log}");
    loop {
        let message = world.consumer.next(RECOVERY_TIMEOUT);
        if TunnelTestbed::is_data(&message) {
            arrived.add(&message);
        } else if message.topic == "edge/plant-7/status" && message.payload.contains("offline") {
            break;
        }
    }
    arrived.assert_complete();
    world.router().traffic()
}

#[test]
fn as_root_everything_arrives_when_datagrams_are_lost() {
    let conditions = NetworkConditions { loss: 0.15, ..good() };
    let Traffic { up, down, .. } = all_arrives(TunnelTestbed::builder(), 1, conditions);
    assert!(up.lost > 0 && down.lost > 0, "{up:?} {down:?}");
}

#[test]
fn as_root_everything_arrives_when_datagrams_are_duplicated() {
    let conditions = NetworkConditions { duplicate: 0.5, ..good() };
    let Traffic { up, down, .. } = all_arrives(TunnelTestbed::builder(), 2, conditions);
    assert!(up.duplicated > 0 && down.duplicated > 0, "{up:?} {down:?}");
}

#[test]
fn as_root_everything_arrives_when_datagrams_are_reordered() {
    let conditions = NetworkConditions { jitter: 200 * MILLISECOND, ..good() };
    let Traffic { up, down, .. } = all_arrives(TunnelTestbed::builder(), 3, conditions);
    assert!(up.reordered > 0 && down.reordered > 0, "{up:?} {down:?}");
}

#[test]
fn as_root_everything_arrives_when_each_datagram_takes_300_ms() {
    let conditions = NetworkConditions { delay: 300 * MILLISECOND, ..good() };
    let Traffic { up, .. } = all_arrives(TunnelTestbed::builder(), 4, conditions);
    assert_eq!(up.lost, 0);
}

#[test]
fn as_root_everything_arrives_when_datagrams_are_corrupted() {
    let conditions = NetworkConditions { corrupt: 0.15, ..good() };
    let Traffic { up, down, .. } = all_arrives(TunnelTestbed::builder(), 5, conditions);
    assert!(up.corrupted > 0 && down.corrupted > 0, "{up:?} {down:?}");
}

/// The faults of a weak mobile network.
fn everything() -> NetworkConditions {
    NetworkConditions {
        delay: 40 * MILLISECOND,
        jitter: 60 * MILLISECOND,
        loss: 0.05,
        duplicate: 0.05,
        corrupt: 0.02,
    }
}

#[test]
fn as_root_everything_arrives_with_all_faults_at_once() {
    let Traffic { up, down, .. } = all_arrives(TunnelTestbed::builder(), 6, everything());
    assert!(up.lost + down.lost > 0 && up.reordered + down.reordered > 0, "{up:?} {down:?}");
}

#[test]
fn as_root_everything_arrives_through_the_device_with_all_faults_at_once() {
    let builder = TunnelTestbed::builder().with_device();
    let Traffic { up, down, .. } = all_arrives(builder, 7, everything());
    assert!(up.lost + down.lost > 0 && up.reordered + down.reordered > 0, "{up:?} {down:?}");
}

#[test]
fn as_root_a_new_port_at_the_router_ends_neither_session() {
    let world = TunnelTestbed::builder().behind_router(8, good()).start();
    let mut arrived = Capture::default();
    take(&world, &mut arrived, 10);
    let before = world.router().traffic();

    for _ in 0..5 {
        world.router().rebind_port();
        take(&world, &mut arrived, 10);
    }

    let after = world.router().traffic();
    assert_ne!(after.mapped, before.mapped);
    assert_eq!(after.up.initiations(), before.up.initiations(), "the tunnel made a new handshake");
    assert_eq!(
        after.down.initiations(),
        before.down.initiations(),
        "the tunnel made a new handshake"
    );
    let log = world.broker.log().text();
    let sessions = log.lines().filter(|line| line.contains("as plant-7")).count();
    assert_eq!(sessions, 1, "{log}");
    finish(world, arrived);
}

#[test]
fn as_root_a_port_that_the_router_blocks_at_once_is_replaced() {
    let builder = TunnelTestbed::builder().behind_router(9, good());
    let world = builder.with_first_port_blocked().start();
    let mut arrived = Capture::default();
    take(&world, &mut arrived, 10);
    let traffic = finish(world, arrived);
    assert_eq!(traffic.ports, 2);
    assert!(traffic.up.lost > 0);
}

#[test]
fn as_root_a_port_that_the_router_blocks_later_is_replaced() {
    let world = TunnelTestbed::builder().behind_router(10, good()).start();
    let mut arrived = Capture::default();
    take(&world, &mut arrived, 10);
    world.router().block_port();
    take(&world, &mut arrived, MESSAGES);
    let traffic = finish(world, arrived);
    assert!(traffic.ports >= 2, "{traffic:?}");
    assert!(traffic.up.lost > 0);
}

/// Changes the address of the machine, as after a change of its network.
fn an_address_change_costs_two_handshakes_at_most(builder: TunnelTestbedBuilder, seed: u64) {
    let world = builder.behind_router(seed, good()).start();
    let mut arrived = Capture::default();
    take(&world, &mut arrived, 10);
    let before = world.router().traffic();

    world.pair.site.ip(&["address", "del", "192.0.2.1/24", "dev", "cable"]);
    world.pair.site.ip(&["address", "add", "192.0.2.9/24", "dev", "cable"]);
    take(&world, &mut arrived, MESSAGES);

    let after = world.router().traffic();
    assert!(after.up.initiations() <= before.up.initiations() + 2, "{before:?} {after:?}");
    let log = world.broker.log().text();
    let sessions = log.lines().filter(|line| line.contains("as plant-7")).count();
    assert_eq!(sessions, 1, "{log}");
    finish(world, arrived);
}

#[test]
fn as_root_an_address_change_of_the_site_costs_two_handshakes_at_most() {
    an_address_change_costs_two_handshakes_at_most(TunnelTestbed::builder(), 11);
}

#[test]
fn as_root_an_address_change_of_a_site_with_a_device_costs_two_handshakes_at_most() {
    an_address_change_costs_two_handshakes_at_most(TunnelTestbed::builder().with_device(), 12);
}
