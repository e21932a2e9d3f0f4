//! All traffic of the gateway goes through the tunnel, in both modes; the hub is wireguard-go in a
//! network namespace.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{EVENT_TIMEOUT, TunnelTestbed, TunnelTestbedBuilder, WireguardGo, eventually};

/// Includes noticing that the hub is down and connecting again.
const HUB_RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

const CONNECT: &str = "
import sys, socket
socket.create_connection((sys.argv[1], sys.argv[2]), 1).close()
";

const CONNECT_AND_CLOSE: &str = "
import sys, socket
for _ in range(1000):
    socket.create_connection((sys.argv[1], 9464), 20).close()
";

/// Returns whether an address of the site accepts connections from the hub's machine.
fn answers(world: &TunnelTestbed, address: &str) -> bool {
    let asked = world.pair.hub.command("python3").args(["-c", CONNECT, address, "9464"]).output();
    asked.expect("python3 is installed").status.success()
}

#[test]
fn as_root_an_unprivileged_user_publishes_through_a_tunnel_without_a_device() {
    let mut world = TunnelTestbed::builder().start();
    world.wait_for_data("the first message");
    world.wait_for_metric("edge_tunnel_up 1");

    world.pair.hub.run("python3", &["-c", CONNECT_AND_CLOSE, WireguardGo::SITE_ADDRESS]);
    world.wait_for_metric("edge_mqtt_connected 1");

    world.hub.kill();
    world
        .gateway
        .log()
        .wait_for_line("is not running there", HUB_RECOVERY_TIMEOUT)
        .expect("the gateway reports it");
    world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the hub came back");
    // In `userspace` mode the kernel does not see the tunnel: only the PLC listens.
    let listening = world.pair.site.run("ss", &["-ltnH"]);
    assert!(listening.lines().all(|line| line.contains("127.0.0.1:1502")), "{listening}");
    assert!(!answers(&world, "192.0.2.1"));
    assert!(world.gateway.is_running());
    let process = world.gateway.id().to_string();
    let arguments = ["--target", &process, "--mount", "ls", "/dev/net"];
    assert_eq!(world.pair.site.run("nsenter", &arguments), "", "the process has /dev/net/tun");
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
    // The machine's network has a route to the address inside the tunnel, too.
    world.pair.hub.ip(&["route", "add", "10.9.0.1/32", "via", "192.0.2.1", "metric", "1"]);
    silent(&world, "up");
    world.pair.site.ip(&["link", "set", "edge0", "down"]);
    silent(&world, "down");
    world.pair.site.ip(&["link", "del", "edge0"]);
    let status = world.gateway.wait(EVENT_TIMEOUT);
    assert!(!status.success(), "{status}");
    silent(&world, "gone");
}

/// Returns the number of connections to the broker that did not use the tunnel.
fn outside_tunnel(world: &TunnelTestbed) -> usize {
    let log = world.broker.log().text();
    log.lines().filter(|line| line.contains("New connection from 192.0.2.1")).count()
}

/// Returns the number of failed connection attempts of the gateway.
fn failed_connects(world: &TunnelTestbed) -> usize {
    let log = world.gateway.log().text();
    log.lines().filter(|line| line.contains("reason=\"unreachable\"")).count()
}

#[test]
fn as_root_while_the_device_is_down_no_connection_bypasses_the_tunnel() {
    let mut world =
        TunnelTestbed::builder().with_device().with_log_level("info,gateway::mqtt=debug").start();
    world.wait_for_data("the first message");
    // Without the device, a socket that is not bound to it reaches the broker outside the tunnel.
    let broker = [WireguardGo::ADDRESS, "1883"];
    world.pair.hub.ip(&["address", "add", "10.9.0.2/32", "dev", "lo"]);
    world.pair.site.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    world.hub.kill();
    world.pair.site.ip(&["link", "set", "edge0", "down"]);
    world.pair.site.run("python3", &[&["-c", CONNECT], &broker[..]].concat());
    eventually("the broker sees the connection outside the tunnel", EVENT_TIMEOUT, || {
        (outside_tunnel(&world) == 1).then_some(())
    });

    let before = failed_connects(&world);
    eventually("the gateway tries to connect several times", HUB_RECOVERY_TIMEOUT, || {
        (failed_connects(&world) >= before + 3 || outside_tunnel(&world) > 1).then_some(())
    });

    assert_eq!(outside_tunnel(&world), 1, "{}", world.broker.log().text());
    world.pair.site.ip(&["link", "set", "edge0", "up"]);
    world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the device is up again");
    assert_eq!(outside_tunnel(&world), 1, "{}", world.broker.log().text());
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
