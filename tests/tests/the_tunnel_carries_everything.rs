//! The gateway's whole traffic goes through the tunnel, in either mode, and never past it; the hub is
//! wireguard-go in a network namespace of its own.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{Tunnelled, WireguardGo, eventually};

const SOON: Duration = Duration::from_secs(20);
/// A hub that was away is noticed, and found again, within this.
const BACK: Duration = Duration::from_secs(60);

const CONNECT: &str = "
import sys, socket
socket.create_connection((sys.argv[1], 9464), 1).close()
";

const CONNECT_AND_CLOSE: &str = "
import sys, socket
for _ in range(1000):
    socket.create_connection((sys.argv[1], 9464), 20).close()
";

/// Whether anything takes a connection at an address of the site, asked from the hub's machine.
fn answers(world: &Tunnelled, address: &str) -> bool {
    let asked = world.pair.hub.command("python3").args(["-c", CONNECT, address]).output();
    asked.expect("python3 is there").status.success()
}

#[test]
fn as_root_nobody_publishes_through_a_tunnel_without_a_device() {
    let mut world = Tunnelled::builder().start();
    world.wait_for_data("the first message");
    world.wait_for_metric("edge_tunnel_up 1");

    world.pair.hub.run("python3", &["-c", CONNECT_AND_CLOSE, WireguardGo::SITE]);
    world.wait_for_metric("edge_mqtt_connected 1");

    world.hub.kill();
    world.gateway.log().wait_for_line("is not running there", BACK).expect("it is told");
    world.hub.start_again(&world.pair.hub, Tunnelled::MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the hub came back");
    // The kernel of the site knows nothing of the tunnel: only the PLC listens there.
    let listening = world.pair.site.run("ss", &["-ltnH"]);
    assert!(listening.lines().all(|line| line.contains("127.0.0.1:1502")), "{listening}");
    assert!(!answers(&world, "192.0.2.1"));
    assert!(world.gateway.is_running());
}

#[test]
fn as_root_nothing_answers_beside_the_device_and_nothing_leaves_in_clear() {
    let mut world = Tunnelled::builder().with_device().start();
    world.wait_for_data("the first message");
    world.wait_for_metric("edge_tunnel_up 1");
    // From the machine's network, at either address, nothing answers.
    world.pair.hub.ip(&["route", "add", "10.9.0.1/32", "via", "192.0.2.1", "metric", "1"]);
    assert!(!answers(&world, WireguardGo::SITE), "it answers beside the tunnel");
    assert!(!answers(&world, "192.0.2.1"));
    world.pair.hub.ip(&["route", "del", "10.9.0.1/32", "via", "192.0.2.1"]);

    // The broker could be reached in clear, and is not: neither while the hub is away ...
    world.pair.hub.ip(&["address", "add", "10.9.0.2/32", "dev", "lo"]);
    world.pair.site.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    let in_clear = "from 192.0.2.1";
    world.hub.kill();
    world.gateway.log().wait_for_line("is not running there", BACK).expect("it is told");
    assert!(!world.broker.log().contains(in_clear));
    // ... nor while the device is down, nor when it is gone, which ends the gateway.
    world.pair.site.ip(&["link", "set", "edge0", "down"]);
    assert!(!answers(&world, "192.0.2.1"));
    world.pair.site.ip(&["link", "del", "edge0"]);
    let status = world.gateway.wait(SOON);
    assert!(!status.success(), "{status}");
    assert!(!world.broker.log().contains(in_clear));
}

#[test]
fn as_root_a_killed_gateway_leaves_no_device_and_no_route() {
    let mut world = Tunnelled::builder().with_device().start();
    world.wait_for_data("the first message");
    assert!(world.pair.site.run("ip", &["route", "show"]).contains("dev edge0"));
    world.gateway.kill();
    eventually("the device is gone", SOON, || {
        let shown = world.pair.site.run("ip", &["-o", "link", "show"]);
        (!shown.contains("edge0")).then_some(())
    });
    assert!(!world.pair.site.run("ip", &["route", "show"]).contains("10.9.0.2"));
}
