//! A machine behind the hub keeps the gateway neither from its broker nor from its scraper; the hub
//! is wireguard-go in a network namespace.

use std::time::Duration;

use e2e::{Process, TunnelTestbed, WireguardGo};

/// Time for the gateway to notice that the broker is gone, and to connect again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens connections that ask for the metrics and never read them, as many as it can get.
const HOLD: &str = "
import socket, sys, time
held, told, start = [], False, time.monotonic()
while True:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.settimeout(1)
    try:
        s.connect((sys.argv[1], 9464))
        s.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
        held.append(s)
    except OSError:
        time.sleep(0.05)
    if not told and time.monotonic() > start + 8:
        told = True
        print('holding', file=sys.stderr, flush=True)
    del held[:-300]
";

#[test]
fn as_root_connections_that_read_nothing_keep_nothing_from_the_broker() {
    let mut world = TunnelTestbed::builder().start();
    world.wait_for_data("the first message");
    let arguments = ["-c", HOLD, WireguardGo::SITE_ADDRESS];
    let attacker = Process::start(world.pair.hub.command("python3").args(arguments));
    attacker.log().wait_for_line("holding", RECONNECT_TIMEOUT).expect("it gets connections");

    world.restart_broker();

    let connected = format!("New client connected from {}", WireguardGo::SITE_ADDRESS);
    let log = world.broker.log();
    log.wait_for_line(&connected, RECONNECT_TIMEOUT).expect("the gateway connects again");
    assert!(!world.gateway.log().contains("resource"), "{}", world.gateway.log().text());
    drop(attacker);
    world.wait_for_metric("edge_mqtt_connected 1");
}
