//! A clean Debian 13 becomes a hub with the script that `edge-provision hub` writes, and nothing of
//! it is open to others. Its Prometheus reads a gateway through the tunnel, every query of the
//! dashboards has an answer, and an alert arrives as mail.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code may stop on the spot, and prints what it measures"
)]

mod compose;
mod dashboards;
mod drawing;
mod hub_server;
mod mail_sink;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{
    Gateway, GatewayConfig, NamespacePair, NodeRed, Office, PlcConfig, Process, RECOVERY_TIMEOUT,
    TempDir, commands_of_page, eventually, http_get, temp_dir,
};

use hub_server::{HubServer, UNITS};
use mail_sink::MailSink;

const SITE: &str = "amsterdam-01";
/// The page with what the operator of the hub types.
const DAY: &str = "docs/hub/day.md";
const PLC: &str = "127.0.0.1:1502";
/// A gateway that has waited for long pauses for up to a minute before it tries again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(120);
const RECEIVERS: &str = include_str!("../../../deploy/hub/alertmanager.yml");

/// Makes a fleet with one site.
fn office() -> Office {
    let office = Office::new("192.0.2.2:51820");
    office.run(&["add", SITE, "--template", "pump", "--with-key"]);
    office
}

/// Shortens the intervals of the files of the hub.
fn shorten_intervals(office: &Office) {
    let file = |name: &str| format!("out/hubs/hub-a/etc/prometheus/{name}");
    office.change(&file("prometheus.yml"), |text| text.replace("interval: 30s", "interval: 1s"));
    // Of the first alert, GatewayUnreachable.
    office.change(&file("edge-rules.yml"), |text| text.replacen("for: 5m", "for: 1s", 1));
}

/// A gateway with a PLC that answers and one that is off, at the site's end of the cable.
struct Site {
    gateway: Process,
    _plc: Process,
    dir: TempDir,
}

impl Site {
    fn start(office: &Office, pair: &NamespacePair) -> Self {
        let program = Gateway::program().display().to_string();
        let plc = ["simulate", "--listen", PLC];
        let plc = Process::start(pair.site.command(&program).args(plc));
        let dir = temp_dir();
        let secret = |name: &str| office.path(format!("secrets/sites/{SITE}/{name}"));
        let hub_key = value(&office.read("fleet.toml"), "public_key");
        let own = value(&office.read(&format!("sites/{SITE}.toml")), "address");
        let plc_settings = PlcConfig::new("pump", "M241", PLC)
            .scan(Duration::from_millis(200))
            .tag("temperature", "%MW10", "REAL");
        let config = GatewayConfig::new(SITE)
            .set("gateway.state_dir", dir.path().display().to_string())
            .set("tunnel.private_key_file", secret("tunnel.key").display().to_string())
            .set("tunnel.address", format!("{own}/32"))
            .hub("hub-a", "192.0.2.2:51820", hub_key, Office::HUB)
            .set("mqtt.username", SITE)
            .set("mqtt.password_file", secret("mqtt.password.1").display().to_string())
            .brokers([format!("mqtt://{}:1883", Office::HUB)])
            .plc(plc_settings)
            .plc(PlcConfig::new("mixer", "M241", "127.0.0.1:1503").tag("level", "%MW10", "REAL"));
        let file = dir.write("gateway.toml", &config.to_string()).display().to_string();
        let gateway = Process::start(pair.site.command(&program).args(["run", &file]));
        Self { gateway, _plc: plc, dir }
    }

    /// Switches the box off and on.
    fn restart(&mut self, pair: &NamespacePair) {
        let program = Gateway::program().display().to_string();
        let file = self.dir.path().join("gateway.toml").display().to_string();
        self.gateway = Process::start(pair.site.command(&program).args(["run", &file]));
    }
}

/// Returns the first text that a key has in a TOML file.
fn value(text: &str, key: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split('"').nth(1));
    value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

#[test]
fn as_root_a_script_makes_a_hub_that_reports_a_site_that_is_switched_off() {
    let (office, pair) = (office(), NamespacePair::new());
    let mut hub = HubServer::start(&pair.hub);
    hub.copy_files(&office, shorten_intervals);
    wrong_input_changes_nothing(&hub);
    the_second_run_changes_nothing(&hub);
    a_power_cut_changes_nothing(&mut hub);
    only_the_tunnel_is_open(&hub);
    let mut site = Site::start(&office, &pair);
    values_arrive(&hub);

    let hub = a_lost_hub_is_made_again(hub, &office, &pair);
    a_run_that_failed_is_finished_by_the_next(&office, &hub);
    later_files_are_loaded_without_a_restart(&office, &hub);
    node_red_asks_for_a_password(&hub, &pair);
    dashboards::every_query_has_an_answer(&hub);
    drawing::each_dashboard_is_drawn(&hub);
    an_alert_arrives_as_mail(&mut site, &hub, &pair);
    compose::its_commands_make_a_hub(&office, &hub);
    only_the_tunnel_is_open(&hub);
}

#[test]
fn the_compose_file_runs_what_the_script_runs() {
    let office = office();
    office.run(&["hub"]);
    compose::it_runs_what_the_script_runs(&office);
    office.change("fleet.toml", |text| {
        text.replace("software = \"mosquitto\"", "software = \"nats\"     ")
    });
    office.run(&["hub", "--out", "cluster"]);
    assert!(!office.path("cluster/hub-a/compose.yaml").exists(), "it would run Mosquitto");
}

#[test]
fn each_panel_of_a_dashboard_is_in_the_picture_of_the_book() {
    drawing::each_panel_is_in_the_book();
}

/// Waits until Prometheus reads through the tunnel that the broker takes values.
fn values_arrive(hub: &HubServer<'_>) {
    eventually("the gateway delivers values", RETURN_TIMEOUT, || {
        let series = format!("edge_samples_delivered_total{{gateway=\"{SITE}\"}}");
        (!hub.query(&format!("increase({series}[1m]) > 0")).is_empty()).then_some(())
    });
}

/// From the fleet's files and its secrets alone. The site keeps its values meanwhile.
fn a_lost_hub_is_made_again<'n>(
    lost: HubServer<'n>,
    office: &Office,
    pair: &'n NamespacePair,
) -> HubServer<'n> {
    lost.forget_packet_filter();
    drop(lost);
    fs::remove_dir_all(office.path("out")).expect("the directory is one of the test");
    let hub = HubServer::start(&pair.hub);
    let start = Instant::now();
    hub.copy_files(office, shorten_intervals);
    hub.install("");
    let installed = start.elapsed();
    values_arrive(&hub);
    let (all, installed) = (start.elapsed().as_secs_f64(), installed.as_secs_f64());
    println!("a lost hub: installed after {installed:.1} s, values after {all:.1} s");
    let dropped = format!("sum(edge_samples_dropped_total{{gateway=\"{SITE}\"}}) == 0");
    assert_eq!(hub.query(&dropped).len(), 1, "no value is lost");
    hub
}

/// Before anything is installed.
fn wrong_input_changes_nothing(hub: &HubServer<'_>) {
    let before = hub.state();
    let none = ("LC_ALL", "C");
    for (variable, arguments, code, part) in [
        (none, "--chek", 2, "there is no option --chek"),
        (none, "/root", 1, "/root/etc/wireguard/edge.conf is not there"),
        (none, "--alertmanager /root/none", 1, "/root/none is not there"),
        (("SSH_CONNECTION", "192.0.2.9 4711 192.0.2.2 2222"), "", 1, "set ssh_port = 2222"),
    ] {
        let output = hub.try_install(variable, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(text.contains(part), "{arguments}: {text}");
    }
    let said = hub.install("--check");
    assert!(said.lines().all(|line| line.starts_with("would: ")), "{said}");
    assert!(said.contains("would: install chrony mosquitto"), "{said}");
    let has_wireguard = Path::new("/sys/module/wireguard").exists();
    assert_eq!(said.contains("wireguard-go"), !has_wireguard, "{said}");
    assert!(said.contains("would: write /etc/wireguard/edge.conf\n"), "{said}");
    assert_eq!(hub.state(), before);
}

fn the_second_run_changes_nothing(hub: &HubServer<'_>) {
    let said = hub.install("");
    assert!(said.ends_with("The hub runs.\n"), "{said}");
    for unit in UNITS {
        assert_eq!(hub.machine.property(unit, "ActiveState"), "active", "{unit}: {}", hub.logs());
        assert_eq!(hub.machine.property(unit, "UnitFileState"), "enabled", "{unit}");
    }
    let installed = hub.state();
    for secret in
        ["/etc/wireguard/edge.conf 600 root", "/etc/mosquitto/edge.passwords 600 mosquitto"]
    {
        assert!(installed.contains(secret), "{secret}");
    }
    assert_eq!(hub.install(""), "Nothing to change.\n");
    assert_eq!(hub.install("--check"), "Nothing to change.\n");
    assert_eq!(hub.state(), installed);
}

/// It comes up again by itself.
fn a_power_cut_changes_nothing(hub: &mut HubServer<'_>) {
    hub.machine.cut_power();
    hub.forget_packet_filter();
    hub.machine.boot();
    hub.machine.wait_until_up();
    for unit in UNITS {
        assert_eq!(hub.machine.property(unit, "ActiveState"), "active", "{unit}: {}", hub.logs());
    }
    assert_eq!(hub.install(""), "Nothing to change.\n");
}

fn only_the_tunnel_is_open(hub: &HubServer<'_>) {
    let is_closed = |socket: &str| {
        let (_, address) = socket.split_once(' ').expect("protocol and address");
        ["127.", "[::1]:", "10.77.0.1:"].iter().any(|own| address.starts_with(own))
    };
    let open: Vec<_> = hub.listeners().into_iter().filter(|socket| !is_closed(socket)).collect();
    assert_eq!(open, ["udp 0.0.0.0:51820", "udp [::]:51820"]);
    for own in
        ["tcp 127.0.0.1:9090", "tcp 127.0.0.1:9093", "tcp 10.77.0.1:1883", "tcp 10.77.0.1:80"]
    {
        assert!(hub.listeners().iter().any(|socket| socket == own), "{own}: {:?}", hub.listeners());
    }
    let table = hub.machine.run("nft", &["list", "table", "inet", "edge"]);
    assert!(table.contains("policy drop"), "{table}");
}

/// Prometheus, whose files the failed run has written, comes after the broker.
fn a_run_that_failed_is_finished_by_the_next(office: &Office, hub: &HubServer<'_>) {
    let changed = |office: &Office| {
        let rules = "out/hubs/hub-a/etc/prometheus/edge-rules.yml";
        office.change(rules, |text| text + "# changed\n");
    };
    hub.copy_files(office, |office| {
        changed(office);
        let broker = "out/hubs/hub-a/etc/mosquitto/conf.d/edge.conf";
        office.change(broker, |text| text + "no_such_setting true\n");
    });
    let failed = hub.try_install(("LC_ALL", "C"), "");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        text.contains("mosquitto does not start: `journalctl -u mosquitto` says why"),
        "{text}"
    );

    hub.copy_files(office, changed);
    let said = hub.install("");

    assert!(said.contains("start mosquitto\n") && said.contains("reload prometheus\n"), "{said}");
    assert!(!said.contains("edge-rules.yml"), "it was written before: {said}");
    assert_eq!(hub.install(""), "Nothing to change.\n");
}

/// Another site, and the receivers of the alerts.
fn later_files_are_loaded_without_a_restart(office: &Office, hub: &HubServer<'_>) {
    let processes = || UNITS.map(|unit| hub.machine.property(unit, "MainPID"));
    let before = processes();
    office.run(&["add", "rotterdam-01", "--template", "pump", "--with-key"]);
    hub.copy_files(office, shorten_intervals);
    let receivers = RECEIVERS
        .replace("mail.example.net:587", MailSink::ADDRESS)
        .replace("smtp_require_tls: true", "smtp_require_tls: false")
        .replace("group_wait: 30s", "group_wait: 0s")
        .replace("group_interval: 5m", "group_interval: 1s");
    hub.machine.write("/root/alertmanager.yml", 0o600, &receivers);

    let said = hub.install("--alertmanager alertmanager.yml");

    for step in ["wg-quick@edge", "mosquitto", "prometheus", "prometheus-alertmanager"] {
        assert!(said.contains(&format!("reload {step}\n")), "{said}");
    }
    assert!(!said.contains("start"), "{said}");
    assert_eq!(processes(), before);
    assert_eq!(hub.install(""), "Nothing to change.\n", "the receivers stay");
}

/// Prints the status of Node-RED's answer to a password.
const LOG_IN: &str = "
const form = { client_id: 'node-red-editor', grant_type: 'password', scope: '*' };
const body = new URLSearchParams({ ...form, username: 'admin', password: process.argv[1] });
fetch('http://127.0.0.1:1880/auth/token', { method: 'POST', body })
    .then(answer => console.log(answer.status));
";

/// Node-RED is that of the other tests: this machine has no way to npm.
fn node_red_asks_for_a_password(hub: &HubServer<'_>, pair: &NamespacePair) {
    let modules = NodeRed::home().join("node_modules");
    hub.copy_in(&modules, "/opt/node-red/node_modules");

    let said = hub.install("--node-red");

    let password = hub.machine.run("cat", &["/etc/edge-hub/node-red.password"]);
    assert!(said.contains(&format!("user admin, password {}", password.trim())), "{said}");
    let modes = hub.machine.shell("stat -c '%a %U' /etc/edge-hub/node-red.*");
    assert_eq!(modes, "600 node-red\n600 root\n");
    assert_eq!(hub.install("--node-red"), "Nothing to change.\n");
    let editor = "127.0.0.1:1880".parse().expect("an address");
    let ask = |path: &str| pair.hub.enter(|| http_get(editor, path)).ok();
    let refused = eventually("Node-RED answers", RECOVERY_TIMEOUT, || ask("/flows"));
    assert_eq!(refused.status, 401);
    let answers = (log_in(hub, &password), log_in(hub, "wrong"));
    assert_eq!(answers, ("200\n".to_owned(), "403\n".to_owned()));
    assert!(hub.listeners().contains(&"tcp 127.0.0.1:1880".to_owned()), "{:?}", hub.listeners());
}

/// Returns the status of the answer of Node-RED.
fn log_in(hub: &HubServer<'_>, password: &str) -> String {
    hub.machine.run("node", &["-e", LOG_IN, password.trim()])
}

/// One mail is for all gateways with the same alert, so it may be about the other site too.
fn an_alert_arrives_as_mail(site: &mut Site, hub: &HubServer<'_>, pair: &NamespacePair) {
    let mails = MailSink::start(&pair.hub);
    let sentence = format!("{SITE} cannot be reached through hub-a: box, line or tunnel");
    site.gateway.kill();

    let mail = mails.wait_for(&format!("firing: {sentence}"));

    assert!(mail.session.contains("RCPT TO:<operators@example.net>"), "{}", mail.session);
    assert!(mail.text.contains("Subject: firing: GatewayUnreachable"), "{}", mail.text);
    for line in commands_of_page(DAY, "trouble") {
        let printed = hub.machine.shell(&line);
        assert!(
            !line.contains("alert query") || printed.contains("GatewayUnreachable"),
            "{printed}"
        );
    }
    site.restart(pair);
    mails.wait_for(&format!("resolved: {sentence}"));
    for line in commands_of_page(DAY, "silence") {
        hub.machine.shell(&line);
    }
}
