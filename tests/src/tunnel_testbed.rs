//! A site whose gateway reaches its broker through the tunnel, and the hub: wireguard-go and
//! Mosquitto in a network namespace. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tunnel::PrivateKey;

use crate::{
    CertificateAuthority, Gateway, GatewayConfig, Message, NamespacePair, NetworkConditions,
    PlcConfig, Process, Router, Subscriber, TempDir, WireguardGo, eventually, temp_dir,
};

const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Includes noticing that the hub is down and connecting again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Runs a command as `nobody`, without privileges, on a machine without `/dev/net/tun`.
const AS_UNPRIVILEGED_USER: [&str; 14] = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    "mount -t tmpfs tmpfs /dev/net && exec setpriv \"$@\"",
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
    "--no-new-privs",
];
/// Address of the router, which the site uses as the endpoint of the hub.
const ROUTER_ADDRESS: &str = "192.0.2.2:51821";

/// TCP port of the broker for TLS with client certificates.
const TLS_PORT: u16 = 8883;

/// Without `set_tcp_nodelay` the second of several acknowledgements waits for a round trip.
const MOSQUITTO_CONF: &str = "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
                      log_type all\nset_tcp_nodelay true\n";

const MOSQUITTO_FILE: &str = "mosquitto.conf";

const SCRAPE_SCRIPT: &str = "
import sys, urllib.request
print(urllib.request.urlopen(f'http://{sys.argv[1]}:9464/metrics', timeout=20).read().decode())
";

/// Two machines: a site with a PLC and a gateway, and a hub with a broker and a consumer. The value
/// of the PLC changes in every scan.
#[derive(Debug)]
pub struct TunnelTestbed {
    /// The machines.
    pub pair: NamespacePair,
    /// The hub of the tunnel.
    pub hub: WireguardGo,
    /// The router between them, if any.
    pub router: Option<Router>,
    /// Mosquitto on the hub's machine, listening on every address.
    pub broker: Process,
    /// `edge-gateway run`.
    pub gateway: Process,
    /// It is subscribed to every topic.
    pub consumer: Subscriber,
    dir: TempDir,
    _plc: Process,
}

/// Configuration of a testbed.
#[derive(Clone, Debug, Default)]
pub struct TunnelTestbedBuilder {
    mode: TestbedMode,
    network: Option<(u64, NetworkConditions)>,
    forgets_first_port: bool,
    preshared_at_site: Option<String>,
    preshared_at_hub: Option<String>,
    is_secured: bool,
    log: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum TestbedMode {
    /// `userspace`, as the user `nobody` without privileges.
    #[default]
    Userspace,
    /// `tun`, as root with a device.
    Tun,
}

impl TunnelTestbedBuilder {
    /// Runs the gateway as root with a network device, `edge0`.
    #[must_use]
    pub const fn with_device(mut self) -> Self {
        self.mode = TestbedMode::Tun;
        self
    }

    /// Puts a [`Router`] between the site and the hub.
    #[must_use]
    pub const fn behind_router(mut self, seed: u64, conditions: NetworkConditions) -> Self {
        self.network = Some((seed, conditions));
        self
    }

    /// Blocks the first port that the gateway uses ([`Router::block_port`]).
    #[must_use]
    pub const fn with_first_port_blocked(mut self) -> Self {
        self.forgets_first_port = true;
        self
    }

    /// Sets the preshared keys of the two ends, as `wg genpsk` prints them.
    #[must_use]
    pub fn with_preshared_keys(mut self, at_site: Option<&str>, at_hub: Option<&str>) -> Self {
        self.preshared_at_site = at_site.map(str::to_owned);
        self.preshared_at_hub = at_hub.map(str::to_owned);
        self
    }

    /// Uses TLS to the broker inside the tunnel, with certificates of a test authority at both
    /// ends.
    #[must_use]
    pub const fn with_tls(mut self) -> Self {
        self.is_secured = true;
        self
    }

    /// Sets the log filter of the gateway (`RUST_LOG`).
    #[must_use]
    pub const fn with_log_level(mut self, what: &'static str) -> Self {
        self.log = Some(what);
        self
    }

    /// Starts everything.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn start(self) -> TunnelTestbed {
        let (pair, dir) = (NamespacePair::new(), temp_dir());
        // The gateway may run as another user.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))
            .expect("the test owns it");
        let key = PrivateKey::generate();
        let mut hub = WireguardGo::start(&pair, key.public_key(), TunnelTestbed::MTU);
        if let Some(key) = &self.preshared_at_hub {
            hub.set_preshared_key(&pair.hub, key);
        }
        let conf = MOSQUITTO_CONF.to_owned() + &self.write_certificates(&dir);
        dir.write(MOSQUITTO_FILE, &conf);
        let broker = start_broker(&pair, &dir);
        let consumer = pair.hub.subscribe(WireguardGo::ADDRESS, "#");
        let router = self.router(&pair);
        let program = Gateway::program().display().to_string();
        let plc = ["simulate", "--listen", "127.0.0.1:1502", "--mast", "0"];
        let plc = Process::start(pair.site.command(&program).args(plc));
        self.write_private(&dir, "tunnel.key", &key.expose());
        if let Some(key) = &self.preshared_at_site {
            self.write_private(&dir, "preshared.key", key);
        }
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("the test owns it");
        fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).expect("the test owns it");
        let text = self.configuration(&hub, &dir).to_string();
        let file = self.write_private(&dir, "gateway.toml", &text);
        let words = [self.user_command(), &[program.as_str(), "run", &file]].concat();
        let (first, rest) = words.split_first().expect("a program");
        let mut command = pair.site.command(first);
        command.args(rest).envs(self.log.map(|what| ("RUST_LOG", what)));
        let gateway = Process::start(&mut command);
        TunnelTestbed { pair, hub, router, broker, gateway, consumer, dir, _plc: plc }
    }

    /// Writes the certificates of both ends. Returns the lines for mosquitto.conf.
    fn write_certificates(&self, dir: &TempDir) -> String {
        if !self.is_secured {
            return String::new();
        }
        let authority = CertificateAuthority::new();
        let ca = self.write_private(dir, "ca.pem", &authority.pem());
        let (certificate, key) = authority.sign("plant-7");
        self.write_private(dir, "site.pem", &certificate);
        self.write_private(dir, "site.key", &key);
        let (certificate, key) = authority.sign(WireguardGo::ADDRESS);
        let certificate = dir.write("broker.pem", &certificate).display().to_string();
        let key = dir.write("broker.key", &key).display().to_string();
        format!(
            "listener {TLS_PORT} 0.0.0.0\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}\n\
             require_certificate true\n"
        )
    }

    fn router(&self, pair: &NamespacePair) -> Option<Router> {
        let (seed, conditions) = self.network?;
        let addresses = (ROUTER_ADDRESS, WireguardGo::ENDPOINT);
        let addresses = (addresses.0.parse(), addresses.1.parse());
        let (Ok(at), Ok(hub)) = addresses else { panic!("addresses: {addresses:?}") };
        let router = Router::start(&pair.hub, (at, hub), seed, conditions);
        if self.forgets_first_port {
            router.block_port();
        }
        Some(router)
    }

    const fn user_command(&self) -> &[&'static str] {
        match self.mode {
            TestbedMode::Userspace => &AS_UNPRIVILEGED_USER,
            TestbedMode::Tun => &[],
        }
    }

    /// Writes a file that only the gateway's user can read; returns its path.
    fn write_private(&self, dir: &TempDir, name: &str, text: &str) -> String {
        let path = dir.write(name, text);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("the test owns it");
        if self.mode == TestbedMode::Userspace {
            std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).expect("root may");
        }
        path.display().to_string()
    }

    fn configuration(&self, hub: &WireguardGo, dir: &TempDir) -> GatewayConfig {
        let mode = match self.mode {
            TestbedMode::Userspace => "userspace",
            TestbedMode::Tun => "tun",
        };
        let (address, endpoint) = (WireguardGo::ADDRESS, self.network.map(|_| ROUTER_ADDRESS));
        let endpoint = endpoint.unwrap_or(WireguardGo::ENDPOINT);
        let plc = PlcConfig::new("pump6", "M241", "127.0.0.1:1502")
            .scan(Duration::from_millis(100))
            .tag("life", "%MW0", "WORD");
        let mut config = GatewayConfig::new("plant-7")
            .set("gateway.state_dir", dir.path().join("state").display().to_string())
            .set("tunnel.mode", mode)
            .set("tunnel.private_key_file", "tunnel.key")
            .set("tunnel.address", format!("{}/32", WireguardGo::SITE_ADDRESS))
            .hub("hub-a", endpoint, hub.public_key(), address)
            .set("mqtt.keep_alive", "5s")
            .plc(plc);
        if self.preshared_at_site.is_some() {
            config = config.set_hub("preshared_key_file", "preshared.key");
        }
        if !self.is_secured {
            return config.brokers([format!("mqtt://{address}:1883")]);
        }
        config
            .brokers([format!("mqtts://{address}:{TLS_PORT}")])
            .set("mqtt.ca_file", "ca.pem")
            .set("mqtt.cert_file", "site.pem")
            .set("mqtt.key_file", "site.key")
    }
}

fn start_broker(pair: &NamespacePair, dir: &TempDir) -> Process {
    let conf = dir.path().join(MOSQUITTO_FILE);
    let broker = Process::start(pair.hub.command("mosquitto").arg("-c").arg(conf));
    broker.log().wait_for_line("running", STEP_TIMEOUT).expect("Mosquitto runs");
    broker
}

impl TunnelTestbed {
    /// Largest packet inside the tunnel, in bytes.
    pub const MTU: u16 = 1280;

    /// Returns the default configuration.
    #[must_use]
    pub fn builder() -> TunnelTestbedBuilder {
        TunnelTestbedBuilder::default()
    }

    /// Returns whether a message is new data.
    #[must_use]
    pub fn is_data(message: &Message) -> bool {
        message.topic == "edge/plant-7/data/pump6" && !message.retained
    }

    /// Waits for a message with data.
    ///
    /// # Panics
    /// When none arrives within a minute.
    pub fn wait_for_data(&self, what: &str) {
        let end = std::time::Instant::now() + RECONNECT_TIMEOUT;
        while let Some(message) =
            self.consumer.try_next(end.saturating_duration_since(std::time::Instant::now()))
        {
            if Self::is_data(&message) {
                return;
            }
        }
        panic!("{what}:\n{}", self.gateway.log().text());
    }

    /// Kills the broker and starts it again.
    pub fn restart_broker(&mut self) {
        self.broker.kill();
        self.broker = start_broker(&self.pair, &self.dir);
    }

    /// Reads the metrics of the gateway from the hub, through the tunnel.
    #[must_use]
    pub fn scrape(&self) -> String {
        self.pair.hub.run("python3", &["-c", SCRAPE_SCRIPT, WireguardGo::SITE_ADDRESS])
    }

    /// Waits for a line of the metrics, which are updated every second.
    ///
    /// # Panics
    /// When it does not appear in time.
    pub fn wait_for_metric(&self, line: &str) {
        eventually(line, STEP_TIMEOUT, || self.scrape().contains(line).then_some(()));
    }

    /// Returns the router.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn router(&self) -> &Router {
        self.router.as_ref().expect("there is a router")
    }
}
