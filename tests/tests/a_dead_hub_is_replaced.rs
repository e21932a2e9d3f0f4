//! Two hubs that lead to different brokers. When the active hub dies, the gateway changes to the
//! other hub and its broker, with one new MQTT session.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;

use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Namespace, NamespacePair, PlcConfig, Process,
    Subscriber, TempDir, TunnelTestbed, WireguardGo, eventually, temp_dir,
};
use tunnel::PrivateKey;

/// A silent session is suspected after 15 s; the hub is replaced after three unanswered handshakes.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);
const DATA: &str = "edge/plant-7/data/pump6";

const BROKER: &str = "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
                      log_type all\nset_tcp_nodelay true\n";

const STATUS: &str = "
import sys, urllib.request
print(urllib.request.urlopen(f'http://{sys.argv[1]}:9464/status', timeout=20).read().decode())
";

/// A broker and its subscriber.
struct Broker {
    process: Process,
    consumer: Subscriber,
}

impl Broker {
    fn start(namespace: &Namespace, address: &str, dir: &TempDir) -> Self {
        let conf = dir.write("mosquitto.conf", BROKER).display().to_string();
        let process = Process::start(namespace.command("mosquitto").args(["-c", &conf]));
        process.wait_for_line("running", EVENT_TIMEOUT);
        Self { process, consumer: namespace.subscribe(address, DATA) }
    }

    /// Returns the number of sessions of the gateway.
    fn sessions(&self) -> usize {
        let log = self.process.log().text();
        log.lines().filter(|line| line.contains("as plant-7")).count()
    }
}

#[test]
fn as_root_the_gateway_fails_over_from_a_dead_hub() {
    let (pair, second, dir) = (NamespacePair::new(), Namespace::new(), temp_dir());
    let ends = ["link", "add", "cable2", "type", "veth", "peer", "name", "cable", "netns"];
    pair.site.ip(&[&ends[..], &[second.name()]].concat());
    for (namespace, device, address) in
        [(&pair.site, "cable2", "198.51.100.1/24"), (&second, "cable", "198.51.100.2/24")]
    {
        namespace.ip(&["address", "add", address, "dev", device]);
        namespace.ip(&["link", "set", device, "up"]);
    }
    let key = PrivateKey::generate();
    let mut hub_a = WireguardGo::start(&pair, key.public_key(), TunnelTestbed::MTU);
    let hub_b = WireguardGo::start_second(&second, key.public_key(), TunnelTestbed::MTU);
    let a = Broker::start(&pair.hub, WireguardGo::ADDRESS, &dir);
    let b = Broker::start(&second, WireguardGo::SECOND_ADDRESS, &dir);
    let program = Gateway::program().display().to_string();
    let plc = ["simulate", "--listen", "127.0.0.1:1502", "--mast", "0"];
    let _plc = Process::start(pair.site.command(&program).args(plc));
    let file = configuration(&dir, &key, &hub_a, &hub_b);
    let gateway = Process::start(pair.site.command(&program).args(["run", &file]));
    a.consumer.next(EVENT_TIMEOUT);

    hub_a.kill();

    b.consumer.try_next(FAILOVER_TIMEOUT).unwrap_or_else(|| panic!("{}", gateway.log().text()));
    // A second session would replace the first one immediately.
    for _ in 0..10 {
        b.consumer.next(EVENT_TIMEOUT);
    }
    // The status is updated once a second.
    eventually("the status names the other hub", EVENT_TIMEOUT, || {
        let status = second.run("python3", &["-c", STATUS, WireguardGo::SITE_ADDRESS]);
        let tells = |what| status.contains(what);
        (tells("\"hub\":\"hub-b\"") && tells("10.9.0.3:1883")).then_some(())
    });
    assert_eq!((a.sessions(), b.sessions()), (1, 1), "{}", gateway.log().text());
}

/// Each hub leads to its own broker only.
fn configuration(dir: &TempDir, key: &PrivateKey, a: &WireguardGo, b: &WireguardGo) -> String {
    let (first, second) = (WireguardGo::ADDRESS, WireguardGo::SECOND_ADDRESS);
    let (site, state) = (WireguardGo::SITE_ADDRESS, dir.path().join("state"));
    fs::create_dir(&state).expect("the test owns it");
    let plc = PlcConfig::new("pump6", "M241", "127.0.0.1:1502")
        .scan(Duration::from_millis(100))
        .tag("life", "%MW0", "WORD");
    let config = GatewayConfig::new("plant-7")
        .set("gateway.state_dir", state.display().to_string())
        .set("tunnel.private_key_file", "tunnel.key")
        .set("tunnel.address", format!("{site}/32"))
        .hub("hub-a", WireguardGo::ENDPOINT, a.public_key(), first)
        .hub("hub-b", "198.51.100.2:51820", b.public_key(), second)
        .brokers([first, second].map(|address| format!("mqtt://{address}:1883")))
        .set("mqtt.keep_alive", "5s")
        .plc(plc);
    dir.write_private("tunnel.key", &key.expose());
    dir.write("gateway.toml", &config.to_string()).display().to_string()
}
