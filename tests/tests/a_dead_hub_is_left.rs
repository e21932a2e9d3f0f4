//! Two hubs that lead to different brokers. When the one in use dies the other is taken, and the
//! broker behind it, at the price of one session.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{
    Gateway, Namespace, NamespacePair, Process, Subscriber, TempDir, TunnelTestbed, WireguardGo,
    eventually, temp_dir,
};
use tunnel::PrivateKey;

const SOON: Duration = Duration::from_secs(20);
/// A session that has become silent is doubted after 15 s, and the hub left after three calls.
const LEFT: Duration = Duration::from_secs(60);
const DATA: &str = "edge/plant-7/data/pump6";

const BROKER: &str = "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
                      log_type all\nset_tcp_nodelay true\n";

const STATUS: &str = "
import sys, urllib.request
print(urllib.request.urlopen(f'http://{sys.argv[1]}:9464/status', timeout=20).read().decode())
";

/// A broker, and who hears everything there.
struct Broker {
    process: Process,
    consumer: Subscriber,
}

impl Broker {
    fn start(namespace: &Namespace, address: &str, dir: &TempDir) -> Self {
        let conf = dir.write("mosquitto.conf", BROKER).display().to_string();
        let process = Process::start(namespace.command("mosquitto").args(["-c", &conf]));
        process.wait_for_line("running", SOON);
        Self { process, consumer: namespace.subscribe(address, DATA) }
    }

    /// Sessions that the gateway has had here.
    fn sessions(&self) -> usize {
        let log = self.process.log().text();
        log.lines().filter(|line| line.contains("as plant-7")).count()
    }
}

#[test]
fn as_root_a_dead_hub_is_left() {
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
    a.consumer.next(SOON);

    hub_a.kill();

    b.consumer.try_next(LEFT).unwrap_or_else(|| panic!("{}", gateway.log().text()));
    // What would take the place of a first session comes right after it.
    for _ in 0..10 {
        b.consumer.next(SOON);
    }
    // It is renewed once a second.
    eventually("the status tells it", SOON, || {
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
    fs::create_dir(&state).expect("it is ours");
    let hub = |name: &str, endpoint: &str, key: &str, network: &str| {
        format!(
            "[[tunnel.hub]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\npublic_key = \"{key}\"\n\
             allowed_ips = [\"{network}/32\"]\n"
        )
    };
    let hubs = hub("hub-a", WireguardGo::ENDPOINT, &a.public_key().to_string(), first)
        + &hub("hub-b", "198.51.100.2:51820", &b.public_key().to_string(), second);
    let text = format!(
        "[gateway]\nid = \"plant-7\"\nstate_dir = \"{}\"\n\
         [tunnel]\nprivate_key_file = \"tunnel.key\"\naddress = \"{site}/32\"\n{hubs}\
         [mqtt]\nbrokers = [\"mqtt://{first}:1883\", \"mqtt://{second}:1883\"]\nkeep_alive = \"5s\"\n\
         [[plc]]\nname = \"pump6\"\nmodel = \"M241\"\naddress = \"127.0.0.1:1502\"\nscan = \"100ms\"\n\
         [[plc.tag]]\nname = \"life\"\nat = \"%MW0\"\ntype = \"WORD\"\n",
        state.display(),
    );
    let secret = dir.write("tunnel.key", &key.expose());
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("it is ours");
    dir.write("gateway.toml", &text).display().to_string()
}
