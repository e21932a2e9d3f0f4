//! The gateway's whole traffic goes through the tunnel, in either mode, and never past it; the hub is
//! wireguard-go in a network namespace of its own.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{EVENT_TIMEOUT, TunnelTestbed, TunnelTestbedBuilder, WireguardGo, eventually};

/// A hub that was away is noticed, and found again, within this.
const BACK: Duration = Duration::from_secs(60);

const CONNECT: &str = "
import sys, socket
socket.create_connection((sys.argv[1], sys.argv[2]), 1).close()
";

const CONNECT_AND_CLOSE: &str = "
import sys, socket
for _ in range(1000):
    socket.create_connection((sys.argv[1], 9464), 20).close()
";

/// Whether anything takes a connection at an address of the site, asked from the hub's machine.
fn answers(world: &TunnelTestbed, address: &str) -> bool {
    let asked = world.pair.hub.command("python3").args(["-c", CONNECT, address, "9464"]).output();
    asked.expect("python3 is there").status.success()
}

#[test]
fn as_root_nobody_publishes_through_a_tunnel_without_a_device() {
    let mut world = TunnelTestbed::builder().start();
    world.wait_for_data("the first message");
    world.wait_for_metric("edge_tunnel_up 1");

    world.pair.hub.run("python3", &["-c", CONNECT_AND_CLOSE, WireguardGo::SITE_ADDRESS]);
    world.wait_for_metric("edge_mqtt_connected 1");

    world.hub.kill();
    world.gateway.log().wait_for_line("is not running there", BACK).expect("it is told");
    world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the hub came back");
    // The kernel of the site knows nothing of the tunnel: only the PLC listens there.
    let listening = world.pair.site.run("ss", &["-ltnH"]);
    assert!(listening.lines().all(|line| line.contains("127.0.0.1:1502")), "{listening}");
    assert!(!answers(&world, "192.0.2.1"));
    assert!(world.gateway.is_running());
    let process = world.gateway.id().to_string();
    let door = ["--target", &process, "--mount", "ls", "/dev/net"];
    assert_eq!(world.pair.site.run("nsenter", &door), "", "it could have had a device");
}

#[test]
fn as_root_nothing_answers_on_the_machine_network_with_the_device_up_down_and_deleted() {
    let mut world = TunnelTestbed::builder().with_device().start();
    world.wait_for_data("the first message");
    world.wait_for_metric("edge_tunnel_up 1");
    let silent = |world: &TunnelTestbed, when: &str| {
        for address in [WireguardGo::SITE_ADDRESS, "192.0.2.1"] {
            assert!(!answers(world, address), "{when}: it answers at {address}");
        }
    };
    // The machine network knows the way to the address inside the tunnel too.
    world.pair.hub.ip(&["route", "add", "10.9.0.1/32", "via", "192.0.2.1", "metric", "1"]);
    silent(&world, "up");
    world.pair.site.ip(&["link", "set", "edge0", "down"]);
    silent(&world, "down");
    world.pair.site.ip(&["link", "del", "edge0"]);
    let status = world.gateway.wait(EVENT_TIMEOUT);
    assert!(!status.success(), "{status}");
    silent(&world, "gone");
}

/// Connections that the broker was asked for past the tunnel.
fn in_clear(world: &TunnelTestbed) -> usize {
    let log = world.broker.log().text();
    log.lines().filter(|line| line.contains("New connection from 192.0.2.1")).count()
}

/// Dials of the gateway that have failed.
fn failed_dials(world: &TunnelTestbed) -> usize {
    let log = world.gateway.log().text();
    log.lines().filter(|line| line.contains("reason=\"unreachable\"")).count()
}

#[test]
fn as_root_while_the_device_is_down_no_dial_leaves_in_clear() {
    let mut world =
        TunnelTestbed::builder().with_device().with_log_level("info,gateway::mqtt=debug").start();
    world.wait_for_data("the first message");
    // Without the device the broker is reached in clear, by whoever does not ask for the device.
    let broker = [WireguardGo::ADDRESS, "1883"];
    world.pair.hub.ip(&["address", "add", "10.9.0.2/32", "dev", "lo"]);
    world.pair.site.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    world.hub.kill();
    world.pair.site.ip(&["link", "set", "edge0", "down"]);
    world.pair.site.run("python3", &[&["-c", CONNECT], &broker[..]].concat());
    eventually("the broker sees who comes in clear", EVENT_TIMEOUT, || {
        (in_clear(&world) == 1).then_some(())
    });

    let before = failed_dials(&world);
    eventually("the gateway dials again and again", BACK, || {
        (failed_dials(&world) >= before + 3 || in_clear(&world) > 1).then_some(())
    });

    assert_eq!(in_clear(&world), 1, "{}", world.broker.log().text());
    world.pair.site.ip(&["link", "set", "edge0", "up"]);
    world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the device is up again");
    assert_eq!(in_clear(&world), 1, "{}", world.broker.log().text());
}

#[test]
fn as_root_a_killed_gateway_leaves_no_device_and_no_route() {
    let mut world = TunnelTestbed::builder().with_device().start();
    world.wait_for_data("the first message");
    assert!(world.pair.site.run("ip", &["route", "show"]).contains("dev edge0"));
    world.gateway.kill();
    eventually("the device is gone", EVENT_TIMEOUT, || {
        let shown = world.pair.site.run("ip", &["-o", "link", "show"]);
        (!shown.contains("edge0")).then_some(())
    });
    assert!(!world.pair.site.run("ip", &["route", "show"]).contains("10.9.0.2"));
}

fn tls_goes_through(builder: TunnelTestbedBuilder) {
    let world = builder.with_tls().start();
    world.wait_for_data("the first message");
    let log = world.broker.log();
    let arrived = format!("New connection from {}", WireguardGo::SITE_ADDRESS);
    let arrived = log.wait_for_line(&arrived, EVENT_TIMEOUT).expect("it has come");
    assert!(arrived.contains("on port 8883"), "{arrived}");
}

#[test]
fn as_root_tls_with_certificates_of_both_ends_goes_through_the_tunnel() {
    tls_goes_through(TunnelTestbed::builder());
}

#[test]
fn as_root_tls_with_certificates_of_both_ends_goes_through_the_device() {
    tls_goes_through(TunnelTestbed::builder().with_device());
}
