//! What `edge-provision hub` writes is what WireGuard, nftables, Mosquitto,
//! Prometheus and NATS accept, and it lets each site do its own work and no more.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::{Namespace, NatsCluster, Office, Port, Process};
use provisioning::enrolment::BoxKeys;

/// A cluster that has just started does not answer for some seconds.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(60);
const SITES: [&str; 2] = ["amsterdam-01", "rotterdam-01"];

fn office() -> Office {
    let office = Office::new("hub-a.example.net:51820");
    for site in SITES {
        office.run(&["add", site, "--template", "pump", "--with-key"]);
    }
    office
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the program is installed");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn wireguard_and_prometheus_take_their_files() {
    let office = office();
    office.run(&["hub"]);
    let etc = office.path("out/hubs/hub-a/etc");

    let stripped =
        succeeds(Command::new("wg-quick").arg("strip").arg(etc.join("wireguard/edge.conf")));
    assert_eq!(stripped.matches("[Peer]").count(), SITES.len());
    let prometheus = etc.join("prometheus/prometheus.yml");
    let checked = succeeds(Command::new("promtool").args(["check", "config"]).arg(prometheus));
    assert!(checked.contains("rules found"), "{checked}");
}

/// Returns the words of a text that begin so.
fn words<'t>(text: &'t str, start: &'t str) -> BTreeSet<&'t str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with(start)).collect()
}

/// Returns what follows each `key` of a YAML text, sorted.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let mut found: Vec<_> =
        text.split(key).skip(1).filter_map(|rest| rest.split([',', '\n', ' ']).next()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn every_alert_fires_when_it_should_and_is_documented() {
    let office = office();
    office.run(&["hub"]);
    let rules = office.read("out/hubs/hub-a/etc/prometheus/edge-rules.yml");
    let cases = workspace("provisioning/src/office/hub/prometheus/edge-rules.test.yml");
    // The cases name the rules by a path in the same directory.
    fs::write(office.path("edge-rules.yml"), &rules).expect("the directory is writable");
    fs::write(office.path("cases.yml"), &cases).expect("the directory is writable");
    let cases_path = office.path("cases.yml");
    succeeds(Command::new("promtool").args(["test", "rules"]).arg(&cases_path));

    let alerts = values(&rules, "alert: ");
    assert!(alerts.len() >= 19, "{alerts:?}");
    assert_eq!(values(&cases, "alertname: "), alerts, "each has a case");
    let page = workspace("docs/hub/monitoring.md");
    for alert in &alerts {
        assert!(page.contains(&format!("\n| `{alert}` | ")), "{alert} has a row in the book");
        let fires = format!("alertname: {alert}\n        exp_alerts:\n");
        let silent = format!("alertname: {alert}, exp_alerts: [] }}");
        assert!(cases.contains(&fires) && cases.contains(&silent), "{alert} fires and is silent");
    }
    let metrics = workspace("docs/metrics.md");
    for metric in words(&rules, "edge_") {
        assert!(metrics.contains(&format!("\n| `{metric}` | ")), "{metric} is no metric");
    }

    // The cases see a change.
    let later = rules.replacen("for: 5m", "for: 20m", 1);
    fs::write(office.path("edge-rules.yml"), later).expect("the directory is writable");
    let changed = Command::new("promtool").args(["test", "rules"]).arg(cases_path).output();
    assert!(!changed.expect("promtool is installed").status.success());
}

fn workspace(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn as_root_nftables_takes_its_file_twice() {
    let office = office();
    office.run(&["hub"]);
    let file = office.path("out/hubs/hub-a/etc/nftables.d/edge.nft").display().to_string();
    let hub = Namespace::new();
    hub.run("nft", &["-c", "-f", &file]);
    for _ in 0..2 {
        hub.run("nft", &["-f", &file]);
    }
    let rules = hub.run("nft", &["list", "ruleset"]);
    assert_eq!(rules.matches("hook input").count(), 1, "{rules}");
}

/// A client of a broker with the password of a user.
struct Client<'a> {
    office: &'a Office,
    port: u16,
    user: &'static str,
    version: &'static str,
}

impl Client<'_> {
    fn command(&self, program: &str) -> Command {
        let secret = match self.user {
            "office" => "secrets/office/mqtt.password".to_owned(),
            site => format!("secrets/sites/{site}/mqtt.password.1"),
        };
        let (port, password) = (self.port.to_string(), self.office.read(&secret));
        let mut command = Command::new("sh");
        // Its output goes where the log of a process is read.
        command.args(["-c", "exec stdbuf -oL \"$@\" >&2", "sh", program]);
        command.args(["-h", "127.0.0.1", "-p", &port, "-u", self.user, "-P", password.trim()]);
        command.args(["-V", self.version, "-i", self.user]);
        command
    }

    /// Publishes a message and waits for its acknowledgement.
    fn publish(&self, topic: &str) {
        succeeds(self.command("mosquitto_pub").args(["-q", "1", "-t", topic, "-m", topic]));
    }

    /// Publishes a message that the broker refuses. NATS does not answer one with quality of
    /// service 1 at all.
    fn publish_in_vain(&self, topic: &str) {
        succeeds(self.command("mosquitto_pub").args(["-q", "0", "-t", topic, "-m", topic]));
    }

    /// Starts a subscriber that prints the topic of each message and ends after `count` of them.
    fn receive(&self, filters: &[&str], count: usize) -> Process {
        let mut command = self.command("mosquitto_sub");
        command.args(["-q", "1", "-d", "-F", "received %t", "-C", &count.to_string(), "-W", "60"]);
        for filter in filters {
            command.args(["-t", filter]);
        }
        let process = Process::start(&mut command);
        process.wait_for_line("Subscribed", CLUSTER_TIMEOUT);
        process
    }
}

/// Sends messages to a broker with the rendered accounts: each site reaches its own topics and no
/// others.
fn each_site_does_its_own_work(office: &Office, port: u16, version: &'static str) {
    let client = |user| Client { office, port, user, version };
    let [own, other] = SITES;
    let mut listener = client("office").receive(&["edge/#"], 5);
    let site = client(own);
    for kind in ["data/pump", "status", "event", "reply/pump"] {
        site.publish_in_vain(&format!("edge/{other}/{kind}"));
        site.publish(&format!("edge/{own}/{kind}"));
    }
    // Sites never send commands, not even to themselves.
    site.publish_in_vain(&format!("edge/{own}/offer"));
    client(other).publish(&format!("edge/{other}/status"));
    listener.wait(CLUSTER_TIMEOUT);
    let mut received: Vec<String> = listener
        .log()
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("received ").map(str::to_owned))
        .collect();
    received.sort();
    let mut expected: Vec<String> = ["data/pump", "status", "event", "reply/pump"]
        .map(|kind| format!("edge/{own}/{kind}"))
        .into();
    expected.push(format!("edge/{other}/status"));
    expected.sort();
    assert_eq!(received, expected);

    let (set, offer) = (format!("edge/{own}/set/pump"), format!("edge/{own}/offer"));
    let mut box_of_site = client(own).receive(&[&format!("edge/{own}/set/#"), &offer], 2);
    let office_client = client("office");
    office_client.publish(&format!("edge/{other}/set/pump"));
    office_client.publish(&set);
    office_client.publish(&offer);
    box_of_site.wait(CLUSTER_TIMEOUT);
    let text = box_of_site.log().text();
    assert!(text.contains(&format!("received {set}")), "{text}");
    assert!(text.contains(&format!("received {offer}")), "{text}");
    assert!(!text.contains(other), "{text}");
}

#[test]
fn mosquitto_lets_each_site_do_its_own_work() {
    let office = office();
    office.run(&["hub"]);
    let port = Port::reserve();
    let listener = format!("listener {} 127.0.0.1", port.number());
    let broker = office.start_mosquitto(|program| Command::new(program), &listener);
    each_site_does_its_own_work(&office, port.number(), "mqttv5");
    let wrong = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.number().to_string(), "-u", SITES[0], "-P", "wrong"])
        .args(["-t", "edge/amsterdam-01/status", "-m", ""])
        .output()
        .expect("mosquitto_pub is installed");
    assert!(!wrong.status.success(), "{wrong:?}");
    assert!(!broker.log().contains("Error"), "{}", broker.log().text());
}

/// The broker reads its files as the user to whom the commands of `hub --help` give them.
#[test]
fn as_root_mosquitto_reads_its_certificate_and_lets_a_box_in_with_its_own() {
    let office = Office::new("hub-a.example.net:51820");
    office.change("fleet.toml", |text| {
        text.replace("authentication = \"password\"", "authentication = \"certificate\"")
    });
    let [site, _] = SITES;
    office.run(&["add", site, "--template", "pump"]);
    let keys = BoxKeys::open_or_create(&office.path("box")).expect("the directory is writable");
    let enrolment = keys.enrolment().expect("the box has its keys");
    let file = office.path(enrolment.file_name());
    fs::write(&file, enrolment.to_string()).expect("the directory is writable");
    office.run(&["enrol", site, &file.display().to_string()]);
    office.run(&["build"]);
    office.run(&["hub"]);

    let etc = office.path("out/hubs/hub-a/etc").display().to_string();
    let help = office.run(&["hub", "--help"]);
    let given: Vec<_> = help.lines().filter(|line| line.contains("chown ")).collect();
    assert!(!given.is_empty(), "{help}");
    for line in given {
        let command = line.split("    ").find(|part| part.contains("chown")).expect("a command");
        let command = command.replace("/etc/", &format!("{etc}/"));
        succeeds(Command::new("sh").args(["-e", "-c", &command]));
    }
    let hub = Namespace::new();
    hub.ip(&["address", "add", &format!("{}/32", Office::HUB), "dev", "lo"]);
    let _broker = office.start_mosquitto_as_its_user(|program| hub.command(program));
    let publish = |certificate: &[String]| {
        let mut command = hub.command("mosquitto_pub");
        command.args(["-h", Office::HUB, "-p", "8883", "-q", "1", "-m", "", "-V", "mqttv5"]);
        command.args(["-t", &format!("edge/{site}/status"), "--cafile"]);
        command.arg(office.path("authority/ca.pem")).args(certificate);
        command.output().expect("mosquitto_pub is installed")
    };
    let path = |name: &str| office.path(name).display().to_string();
    let certificate = path(&format!("authority/sites/{site}.pem"));
    let own = ["--cert".to_owned(), certificate, "--key".to_owned(), path("box/certificate.key")];
    let accepted = publish(&own);
    assert!(accepted.status.success(), "{accepted:?}");
    assert!(!publish(&[]).status.success(), "without a certificate");
}

/// With the addresses of this machine, and the accounts of a fleet.
#[test]
fn nats_takes_the_settings_of_the_page() {
    let office = office();
    office.change("fleet.toml", |text| {
        text.replace("software = \"mosquitto\"", "software = \"nats\"     ")
    });
    office.run(&["hub"]);
    let page = workspace("docs/hub/clusters.md");
    let block = page.split("```").find_map(|block| block.strip_prefix("text nats\n"));
    let settings = block.expect("a block").replace("/var/lib/nats", "nats");
    let dir = office.path("out/hubs/hub-a/etc/nats");
    fs::write(dir.join("nats.conf"), &settings).expect("the directory is writable");
    let check = |settings: &str| {
        let mut server = Command::new("sh");
        // Debian installs it in /usr/sbin, which may not be in PATH.
        server.args(["-c", "PATH=$PATH:/usr/sbin exec nats-server -t -c \"$1\"", "sh", settings]);
        server.current_dir(&dir).output().expect("nats-server is installed")
    };
    let checked = check("nats.conf");
    assert!(checked.status.success(), "{checked:?}");
    fs::write(dir.join("wrong.conf"), settings + "no_such: {}}\n").expect("it is writable");
    assert!(!check("wrong.conf").status.success());
}

#[test]
fn a_cluster_of_nats_servers_lets_each_site_do_its_own_work() {
    let office = office();
    office.change("fleet.toml", |text| {
        text.replace("software = \"mosquitto\"", "software = \"nats\"     ")
    });
    office.run(&["hub"]);
    let accounts = office.path("out/hubs/hub-a/etc/nats/edge-accounts.conf");
    let cluster = NatsCluster::start_with_accounts(&accounts);
    for broker in cluster.brokers() {
        let port = broker.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        each_site_does_its_own_work(&office, port, "mqttv311");
    }
}
