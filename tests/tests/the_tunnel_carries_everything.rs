//! The gateway's whole traffic goes through the tunnel, in either mode, and never past it; the hub is
//! wireguard-go in a network namespace of its own.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{Gateway, Pair, Process, Subscriber, TempDir, WireguardGo, eventually, temp_dir};
use tunnel::PrivateKey;

const SOON: Duration = Duration::from_secs(20);
const MTU: u16 = 1280;
/// A hub that was away is noticed, and found again, within this.
const BACK: Duration = Duration::from_secs(60);
const NOBODY: [&str; 7] =
    ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"];

/// Two machines: a site with a PLC and a gateway, and a hub with a broker.
struct World {
    pair: Pair,
    hub: WireguardGo,
    broker: Process,
    gateway: Process,
    consumer: Subscriber,
    _dir: TempDir,
    _plc: Process,
}

impl World {
    /// Everything runs, and a message has come through.
    fn start(mode: &str, user: &[&str]) -> Self {
        let (pair, dir) = (Pair::new(), temp_dir());
        // Everybody may look into it, so that a gateway of another user can.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
        let key = PrivateKey::generate();
        let hub = WireguardGo::start(&pair, key.public(), MTU);
        let conf = "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
                    log_type all\n";
        let conf = dir.write("mosquitto.conf", conf).display().to_string();
        let broker = Process::start(pair.hub.command("mosquitto").args(["-c", &conf]));
        broker.log().wait_for_line("running", SOON).expect("Mosquitto runs");
        let consumer = pair.hub.subscribe(WireguardGo::ADDRESS, "#");
        let program = Gateway::program().display().to_string();
        let plc = ["simulate", "--model", "M241", "--listen", "127.0.0.1:1502"];
        let plc = Process::start(pair.site.command(&program).args(plc));
        write(&dir, "tunnel.key", &key.expose(), user);
        write(&dir, "gateway.toml", &configuration(mode, &hub, &dir), user);
        fs::create_dir(dir.path().join("state")).expect("it is ours");
        fs::set_permissions(dir.path().join("state"), PermissionsExt::from_mode(0o777))
            .expect("it is ours");
        let file = dir.path().join("gateway.toml").display().to_string();
        let words = [user, &[program.as_str(), "run", &file]].concat();
        let [first, rest @ ..] = words.as_slice() else { panic!("a program") };
        let gateway = Process::start(pair.site.command(first).args(rest));
        let world = Self { pair, hub, broker, gateway, consumer, _dir: dir, _plc: plc };
        world.wait_for_data("the first message");
        world
    }

    fn wait_for_data(&self, what: &str) {
        let is_data = |topic: &str| topic == "edge/plant-7/data/pump6";
        let wanted = |message: &e2e::Message| is_data(&message.topic) && !message.retained;
        let mut log = String::new();
        let arrived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.consumer.until(what, BACK, wanted)
        }));
        if arrived.is_err() {
            log.push_str(&self.gateway.log().text());
            panic!("{what}:\n{log}");
        }
    }

    /// Asks the gateway for its metrics from the hub, through the tunnel.
    fn scrape(&self) -> String {
        self.pair.hub.run("python3", &["-c", SCRAPE, WireguardGo::SITE])
    }

    /// The metrics are brought up to date every second.
    fn wait_for_metric(&self, line: &str) {
        eventually(line, SOON, || self.scrape().contains(line).then_some(()));
    }

    /// Whether anything takes a connection at an address of the site, asked from the hub's machine.
    fn answers(&self, address: &str) -> bool {
        let asked = self.pair.hub.command("python3").args(["-c", CONNECT, address]).output();
        asked.expect("python3 is there").status.success()
    }
}

const SCRAPE: &str = "
import sys, urllib.request
print(urllib.request.urlopen(f'http://{sys.argv[1]}:9464/metrics', timeout=20).read().decode())
";

const CONNECT: &str = "
import sys, socket
socket.create_connection((sys.argv[1], 9464), 1).close()
";

const CONNECT_AND_CLOSE: &str = "
import sys, socket
for _ in range(1000):
    socket.create_connection((sys.argv[1], 9464), 20).close()
";

fn configuration(mode: &str, hub: &WireguardGo, dir: &TempDir) -> String {
    format!(
        r#"
[gateway]
id = "plant-7"
state_dir = "{}"

[tunnel]
mode = "{mode}"
private_key_file = "tunnel.key"
address = "{}/32"

[[tunnel.hub]]
name = "hub-a"
endpoint = "{}"
public_key = "{}"
allowed_ips = ["{}/32"]

[mqtt]
brokers = ["mqtt://{}:1883"]
keep_alive = "5s"

[[plc]]
name = "pump6"
model = "M241"
address = "127.0.0.1:1502"
scan = "200ms"

[[plc.tag]]
name = "temperature"
at = "%MW10"
type = "REAL"
"#,
        dir.path().join("state").display(),
        WireguardGo::SITE,
        WireguardGo::ENDPOINT,
        hub.public_key(),
        WireguardGo::ADDRESS,
        WireguardGo::ADDRESS,
    )
}

/// A file that only the gateway's user can read.
fn write(dir: &TempDir, name: &str, text: &str, user: &[&str]) {
    let path = dir.write(name, text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is ours");
    if !user.is_empty() {
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).expect("root may");
    }
}

#[test]
fn as_root_nobody_publishes_through_a_tunnel_without_a_device() {
    let mut world = World::start("userspace", &NOBODY);
    world.wait_for_metric("edge_tunnel_up 1");

    world.pair.hub.run("python3", &["-c", CONNECT_AND_CLOSE, WireguardGo::SITE]);
    world.wait_for_metric("edge_mqtt_connected 1");

    world.hub.kill();
    world.gateway.log().wait_for_line("is not running there", BACK).expect("it is told");
    world.hub.start_again(&world.pair.hub, MTU);
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data after the hub came back");
    // The kernel of the site knows nothing of the tunnel: only the PLC listens there.
    let listening = world.pair.site.run("ss", &["-ltnH"]);
    assert!(listening.lines().all(|line| line.contains("127.0.0.1:1502")), "{listening}");
    assert!(!world.answers("192.0.2.1"));
    assert!(world.gateway.is_running());
}

#[test]
fn as_root_nothing_answers_beside_the_device_and_nothing_leaves_in_clear() {
    let mut world = World::start("tun", &[]);
    world.wait_for_metric("edge_tunnel_up 1");
    // From the machine's network, at either address, nothing answers.
    world.pair.hub.ip(&["route", "add", "10.9.0.1/32", "via", "192.0.2.1", "metric", "1"]);
    assert!(!world.answers(WireguardGo::SITE), "it answers beside the tunnel");
    assert!(!world.answers("192.0.2.1"));
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
    assert!(!world.answers("192.0.2.1"));
    world.pair.site.ip(&["link", "del", "edge0"]);
    let status = world.gateway.wait(SOON);
    assert!(!status.success(), "{status}");
    assert!(!world.broker.log().contains(in_clear));
}

#[test]
fn as_root_a_killed_gateway_leaves_no_device_and_no_route() {
    let mut world = World::start("tun", &[]);
    assert!(world.pair.site.run("ip", &["route", "show"]).contains("dev edge0"));
    world.gateway.kill();
    eventually("the device is gone", SOON, || {
        let shown = world.pair.site.run("ip", &["-o", "link", "show"]);
        (!shown.contains("edge0")).then_some(())
    });
    assert!(!world.pair.site.run("ip", &["route", "show"]).contains("10.9.0.2"));
}
