//! The sites, their router and their hub, in network namespaces.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    EVENT_TIMEOUT, Gateway, Namespace, NamespacePair, PlcConfig, Process, TempDir, TunnelTestbed,
    WireguardGo, temp_dir,
};
use gateway::status::{Headline, Status};
use gateway::web::{HttpTarget, fetch};
use tokio::runtime::Runtime;
use tunnel::PrivateKey;

use crate::cases::{Case, Place, Script, usual};

/// Includes a look-up by a resolver that waits 15 s, and the pauses before the next one.
const WELL_TIMEOUT: Duration = Duration::from_secs(80);
/// Includes the time in which a hub that returns nothing, or a second device, shows.
const SLOW_CODE_TIMEOUT: Duration = Duration::from_secs(58);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

const BROKER: &str = "listener 1883\nallow_anonymous true\nuser root\nlog_dest stderr\n\
                      set_tcp_nodelay true\n";

/// Hides the machine's own names and DNS servers from a program.
const WITH_OWN_NAMES: &str = "mount --bind \"$etc/hosts\" /etc/hosts && \
    mount --bind \"$etc/resolv.conf\" /etc/resolv.conf && exec \"$@\"";

/// Answers A queries for any name with the hub's address, and no AAAA query (RFC 1035, 4.1).
const DNS: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print('ready', file=sys.stderr)
while True:
    q, client = s.recvfrom(512)
    end = q.index(0, 12) + 5
    if q[end - 4:end - 2] == b'\\0\\1':
        answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4' + bytes([192, 0, 2, 2])
        s.sendto(q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + q[12:end] + answer, client)
";

/// The router and the hub of all sites.
#[derive(Debug)]
pub(crate) struct Field {
    /// The router is where the site of other tests is.
    pair: NamespacePair,
    sites: Vec<Namespace>,
    hub: WireguardGo,
    _broker: Process,
    _dir: TempDir,
}

/// One site with its gateway.
struct Site<'f> {
    field: &'f Field,
    case: &'f Case,
    number: usize,
    key: PrivateKey,
    etc: TempDir,
    runtime: Runtime,
}

impl Field {
    pub(crate) fn start(sites: usize) -> Self {
        let (pair, dir) = (NamespacePair::new(), temp_dir());
        let unused = PrivateKey::generate().public_key();
        let hub = WireguardGo::start(&pair, unused, TunnelTestbed::MTU);
        let script = format!(
            "ip addr add 192.0.2.7/24 dev cable; ip route add default via 192.0.2.1; \
             ip -6 addr add fd77::1/64 dev {0} nodad; ip route add 10.9.1.0/24 dev {0}",
            hub.device()
        );
        pair.hub.run("sh", &["-ec", &script]);
        // Else the kernel limits its ICMP errors to one a second for each destination.
        let script = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                      net.ipv4.icmp_ratelimit=0";
        pair.site.run("sh", &["-ec", script]);
        let conf = dir.write("mosquitto.conf", BROKER).display().to_string();
        let broker = Process::start(pair.hub.command("mosquitto").args(["-c", &conf]));
        broker.wait_for_line("running", EVENT_TIMEOUT);
        let sites = (0..sites).map(|_| Namespace::new()).collect();
        Self { pair, sites, hub, _broker: broker, _dir: dir }
    }

    /// Lets one site have its trouble.
    ///
    /// # Panics
    /// When the trouble is not named, or does not end.
    pub(crate) fn run(&self, index: usize, case: &Case) {
        let runtime = Runtime::new().expect("there are threads");
        let (key, etc) = (PrivateKey::generate(), temp_dir());
        Site { field: self, case, number: index + 1, key, etc, runtime }.run();
    }
}

impl Site<'_> {
    fn run(&self) {
        let case = self.case;
        self.connect();
        self.scripts(&case.before);
        let _dns = (case.code == Some("looking_up")).then(|| self.start_dns());
        let plc = ["simulate", "--listen", "127.0.0.1:1502", "--mast", "0"];
        let _plc = Process::start(self.namespace().command(&program()).args(plc));
        let gateway = self.start_gateway("gateway");
        let is_well_first = case.code.is_none() || !case.trouble.is_empty() || case.has_twin;
        if is_well_first {
            self.wait_until_well(&gateway, None);
        }
        let since = self.status().map(|status| status.broker.since);
        self.scripts(&case.trouble);
        let _twin = case.has_twin.then(|| self.start_gateway("twin"));
        if let Some(code) = case.code {
            self.wait_for_code(&gateway, code);
        }
        self.scripts(&case.mend);
        if !case.is_lasting {
            self.wait_until_well(&gateway, since.filter(|_| case.reconnects));
        }
    }

    fn namespace(&self) -> &Namespace {
        &self.field.sites[self.number - 1]
    }

    /// Connects the site with the router, and makes the hub know it.
    fn connect(&self) {
        self.etc.write("hosts", "127.0.0.1 localhost\n");
        self.etc.write("resolv.conf", "nameserver 127.0.0.1\n");
        let make = "ip link add s$i type veth peer name lan netns $site && \
                    ip addr add 10.50.$i.1/24 dev s$i && ip link set s$i up && \
                    ip -6 addr add fd50:$i::1/64 dev s$i nodad && \
                    nft \"add table inet t$i; \
                    add chain inet t$i c { type filter hook forward priority 0; }\"";
        let join = "ip addr add 10.50.$i.2/24 dev lan && ip link set lan up && \
                    ip route add default via 10.50.$i.1";
        self.scripts(&[(Place::Router, make), (Place::Site, join)]);
        let allowed = format!("10.9.1.{0}/32,fd77::{0}/128", self.number);
        let (hub, key) = (&self.field.pair.hub, self.key.public_key());
        self.field.hub.set_site(hub, key, &["allowed-ips", &allowed]);
    }

    fn scripts(&self, scripts: &[Script]) {
        for (place, script) in scripts {
            let namespace = match place {
                Place::Site => self.namespace(),
                Place::Router => &self.field.pair.site,
                Place::Hub => &self.field.pair.hub,
            };
            let mut command = namespace.command("sh");
            command.args(["-ec", script]).envs(self.variables());
            let output = command.output().expect("ip is installed");
            assert!(output.status.success(), "{}: {script}: {output:?}", self.case.name);
        }
    }

    fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("i", self.number.to_string()),
            ("site", self.namespace().name().to_owned()),
            ("etc", self.etc.path().display().to_string()),
            ("hub", self.field.hub.device().to_owned()),
            ("key", self.key.public_key().to_string()),
        ]
    }

    fn start_dns(&self) -> Process {
        let address = format!("10.50.{}.1", self.number);
        let mut command = self.field.pair.site.command("python3");
        let dns = Process::start(command.args(["-u", "-c", DNS, &address]));
        dns.wait_for_line("ready", EVENT_TIMEOUT);
        dns
    }

    /// Starts a gateway whose files and whose client id begin with this name.
    fn start_gateway(&self, name: &str) -> Process {
        let state = self.etc.path().join(name);
        fs::create_dir(&state).expect("the test owns it");
        let plc = PlcConfig::new("p", "M241", "127.0.0.1:1502")
            .scan(Duration::from_millis(500))
            .tag("life", "%MW0", "WORD");
        let state = state.display().to_string();
        let config = usual(self.number, &self.field.hub, &state);
        let config = (self.case.configure)(config.set("tunnel.mode", self.case.mode), self.number)
            .set("mqtt.client_id", format!("{name}-{}", self.number))
            .plc(plc);
        self.etc.write_private("tunnel.key", &self.key.expose());
        let file = self.etc.write(&format!("{name}.toml"), &config.to_string());
        let mut command = self.namespace().command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", WITH_OWN_NAMES, "sh"]);
        command.arg(program()).arg("run").arg(file);
        Process::start(command.envs(self.variables()))
    }

    /// Returns the status of the gateway, once it serves it.
    fn status(&self) -> Option<Status> {
        let socket = self.etc.path().join("gateway/status.sock");
        let response = self.runtime.block_on(fetch(&HttpTarget::Unix(socket), "/status")).ok()?;
        Some(serde_json::from_slice(&response.body).expect("it is a status"))
    }

    /// Waits until the headline is the sentence with this code. Until then the broker is not named
    /// as the cause, and the PLC is read.
    fn wait_for_code(&self, gateway: &Process, code: &str) {
        let is_slow = ["no_data", "key_shared"].contains(&code);
        let limit = if is_slow { SLOW_CODE_TIMEOUT } else { EVENT_TIMEOUT };
        self.wait(gateway, code, limit, |status, headline| {
            // It is in the status with the first look at it.
            let Some(tunnel) = &status.tunnel else { return false };
            let found = tunnel.sentence_detail.as_ref().expect("it has a code").code.as_str();
            assert!(
                !headline.to_string().starts_with("The broker"),
                "{}: {headline}",
                self.case.name
            );
            found == code && headline.to_string().starts_with(&tunnel.sentence)
        });
    }

    /// Waits until all is well, with a connection to the broker that began later than this.
    fn wait_until_well(&self, gateway: &Process, since: Option<gateway::model::UnixTime>) {
        self.wait(gateway, "all is well", WELL_TIMEOUT, |status, headline| {
            let is_new = since.is_none_or(|since| status.broker.since > since);
            is_new && matches!(headline, Headline::AllWell { .. })
        });
    }

    fn wait(
        &self,
        gateway: &Process,
        what: &str,
        limit: Duration,
        mut is_there: impl FnMut(&Status, &Headline) -> bool,
    ) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if let Some(status) = &status
                && is_there(status, &status.headline())
            {
                return;
            }
            let (name, log) = (self.case.name, gateway.log());
            let shown = status.map(|status| status.to_string()).unwrap_or_default();
            assert!(start.elapsed() < limit, "{name}: never {what}:\n{shown}\n{}", log.text());
            thread::sleep(POLL_INTERVAL);
        }
    }
}

fn program() -> String {
    Gateway::program().display().to_string()
}
