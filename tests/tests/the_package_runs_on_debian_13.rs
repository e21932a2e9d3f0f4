//! Promises 3, 8 and 11 for the package, on a clean Debian 13 with a real systemd and a real
//! journal: what it brings works in the sandbox of its unit, comes back after everything, floods no
//! journal and leaves nothing.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::{
    Capture, DebianPackage, EVENT_TIMEOUT, Gateway, GatewayConfig, Message, Namespace,
    NamespacePair, NspawnMachine, PlcConfig, Process, RECOVERY_TIMEOUT, Subscriber, TempDir,
    WireguardGo, eventually, http_get, system_program, temp_dir,
};

const UNIT: &str = "edge-gateway.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/edge-gateway.service";
const DROP_IN: &str = "/etc/systemd/system/edge-gateway.service.d";
const CONFIG: &str = "/etc/edge-gateway/gateway.toml";
/// As the book says.
const CREDENTIAL: &str = "[Service]\nLoadCredential=tunnel.key:/etc/edge-gateway/tunnel.key\n";
const MTU: u16 = 1280;
/// Highest exposures in `systemd-analyze security`, in tenths, on its scale from 0 to 10.
const MAX_EXPOSURE: &str = "--threshold=15";
const MAX_EXPOSURE_WITH_DEVICE: &str = "--threshold=25";
/// How long a log is looked at: there is no event for a line that is not written.
const QUIET: Duration = Duration::from_secs(5);

/// A box with the package, and a hub with a broker behind a tunnel.
struct Site {
    machine: NspawnMachine,
    consumer: Subscriber,
    received: RefCell<Vec<Message>>,
    broker: Process,
    hub: WireguardGo,
    _plc: Process,
    dir: TempDir,
    pair: NamespacePair,
}

/// Copies a package to a machine and installs it. `apt` needs no network for that.
fn install(machine: &NspawnMachine, package: &DebianPackage) {
    machine.copy_in(package.path(), "/root/edge-gateway.deb");
    machine.run("apt-get", &["install", "--yes", "-qq", "/root/edge-gateway.deb"]);
}

impl Site {
    /// Installs the package and makes a key, as the book says, and starts the hub for that key.
    fn start(package: &DebianPackage, clean: impl FnOnce(&NspawnMachine)) -> Self {
        let (pair, dir) = (NamespacePair::new(), temp_dir());
        let machine = NspawnMachine::start(&pair.site);
        clean(&machine);
        install(&machine, package);
        let key = machine.run("edge-gateway", &["keygen", "/etc/edge-gateway/tunnel.key"]);
        let key = key.split_whitespace().find_map(|word| word.parse().ok());
        let hub = WireguardGo::start(&pair, key.expect("keygen prints the key"), MTU);
        let acl = dir.write("acl", "topic readwrite #\n");
        let conf = format!(
            "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
             log_type all\nacl_file {}\nmax_queued_messages 1000000\nmax_inflight_messages 0\n",
            acl.display()
        );
        let conf = dir.write("mosquitto.conf", &conf).display().to_string();
        let mosquitto = system_program("mosquitto".as_ref()).display().to_string();
        let broker = Process::start(pair.hub.command(&mosquitto).args(["-c", &conf]));
        broker.wait_for_line(" running", EVENT_TIMEOUT);
        let consumer = pair.hub.subscribe(WireguardGo::ADDRESS, "edge/#");
        let program = Gateway::program().display().to_string();
        let plc = ["simulate", "--listen", "127.0.0.1:1502", "--mast", "0"];
        let plc = Process::start(pair.site.command(&program).args(plc));
        let received = RefCell::default();
        Self { machine, consumer, received, broker, hub, _plc: plc, dir, pair }
    }

    fn config(&self) -> GatewayConfig {
        let plc = PlcConfig::new("pump6", "M241", "127.0.0.1:1502")
            .scan(Duration::from_millis(100))
            .tag("life", "%MW0", "WORD");
        GatewayConfig::new("plant-7")
            .set("tunnel.private_key_file", "cred:tunnel.key")
            .set("tunnel.address", format!("{}/32", WireguardGo::SITE_ADDRESS))
            .hub("hub-a", WireguardGo::ENDPOINT, self.hub.public_key(), WireguardGo::ADDRESS)
            .brokers([format!("mqtt://{}:1883", WireguardGo::ADDRESS)])
            .plc(plc)
    }

    /// Writes the configuration as an administrator does, who keeps its owner and mode.
    fn configure(&self, config: &GatewayConfig) {
        self.machine.write("/root/gateway.toml", 0o600, &config.to_string());
        self.machine.write(&format!("{DROP_IN}/override.conf"), 0o644, CREDENTIAL);
        self.machine.shell(&format!("cat /root/gateway.toml > {CONFIG}; systemctl daemon-reload"));
    }

    /// Waits for a message with data that arrives from now on, and returns it.
    fn next_data(&self) -> Message {
        self.received.borrow_mut().extend(self.consumer.drain(Duration::ZERO));
        let end = Instant::now() + RECOVERY_TIMEOUT;
        while let Some(message) =
            self.consumer.try_next(end.saturating_duration_since(Instant::now()))
        {
            self.received.borrow_mut().push(message.clone());
            if message.topic == "edge/plant-7/data/pump6" && !message.retained {
                return message;
            }
        }
        panic!("no data:\n{}", self.machine.journal_text(UNIT));
    }

    fn main_process(&self) -> String {
        self.machine.property(UNIT, "MainPID")
    }

    /// Runs a command where the service sees its files, as its user.
    fn in_its_sandbox(&self, command: &[&str]) -> bool {
        let process = self.main_process();
        let enter = ["--target", &process, "--mount", "--", "setpriv", "--reuid", "edge-gateway"];
        let enter = [&enter[..], &["--regid", "edge-gateway", "--init-groups", "--"]].concat();
        self.machine.try_run("nsenter", &[enter.as_slice(), command].concat()).status.success()
    }
}

#[test]
fn as_root_the_package_publishes_through_its_tunnel_and_comes_back_from_everything() {
    let package = DebianPackage::build();
    let mut before = BTreeSet::new();
    let site = Site::start(&package, |machine| before = files(machine));

    nothing_runs_without_a_configuration(&site.machine);
    values_arrive_through_the_tunnel(&site);
    the_sandbox_is_real(&site);
    a_changed_configuration_restarts_the_service(&site);
    a_killed_or_hanging_gateway_comes_back(&site);
    a_journal_and_a_systemd_that_hang_stop_nothing(&site);
    an_upgrade_loses_nothing(&site, &package.with_version("9.9.9"));
    every_message_is_accounted_for(&site);
    a_broker_that_refuses_costs_a_few_lines(&site);
    a_purge_leaves_nothing(&site.machine, &before);
}

/// Returns the files of the disk, but for logs, caches and what dpkg and systemd note of all
/// packages.
fn files(machine: &NspawnMachine) -> BTreeSet<String> {
    let script = "find / -xdev \\( -path /root -o -path /var/log -o -path /var/cache \
                  -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \
                  -o -path /var/tmp \\) -prune -o -print";
    machine.shell(script).lines().map(str::to_owned).collect()
}

/// Returns the processes of the programs of the package.
fn processes(machine: &NspawnMachine) -> String {
    machine.shell("grep -s -l ^edge- /proc/[0-9]*/comm || true")
}

fn nothing_runs_without_a_configuration(machine: &NspawnMachine) {
    assert_eq!(machine.property(UNIT, "ActiveState"), "inactive");
    assert_eq!(machine.property(UNIT, "UnitFileState"), "disabled");
    assert_eq!(processes(machine), "");
}

fn values_arrive_through_the_tunnel(site: &Site) {
    site.configure(&site.config());
    site.machine.run("edge-gateway", &["check"]);
    site.machine.run("systemctl", &["enable", "--quiet", "--now", UNIT]);
    site.next_data();
    // It listens in the tunnel and nowhere else.
    let listening = site.machine.run("ss", &["-Hltnp"]);
    assert!(!listening.contains("edge-gateway"), "{listening}");
    let inside = format!("{}:9464", WireguardGo::SITE_ADDRESS).parse().expect("an address");
    let health = site.pair.hub.enter(|| http_get(inside, "/healthz"));
    assert_eq!(health.expect("it answers the hub").status, 200);
    eventually("the status says that all is well", EVENT_TIMEOUT, || {
        let status = site.machine.try_run("edge-gateway", &["status"]);
        String::from_utf8_lossy(&status.stdout).contains("All is well").then_some(())
    });
}

fn the_sandbox_is_real(site: &Site) {
    let status = site.machine.run("cat", &[&format!("/proc/{}/status", site.main_process())]);
    let has = |line: &str| status.lines().any(|found| found == line);
    assert!(has("CapEff:\t0000000000000000") && has("CapBnd:\t0000000000000000"), "{status}");
    assert!(has("NoNewPrivs:\t1") && has("Seccomp:\t2") && !has("Uid:\t0\t0\t0\t0"), "{status}");
    for other in ["/usr/x", "/var/lib/x", CONFIG, "/etc/edge-gateway/x"] {
        assert!(!site.in_its_sandbox(&["touch", other]), "{other} is read-only");
    }
    assert!(!site.in_its_sandbox(&["test", "-e", "/dev/net/tun"]), "it has no devices");
    let own = "/var/lib/edge-gateway/x";
    assert!(site.in_its_sandbox(&["touch", own]) && site.in_its_sandbox(&["rm", own]));
    let analyze = ["security", "--no-pager", "--offline=true", MAX_EXPOSURE, UNIT_FILE];
    site.machine.run("systemd-analyze", &analyze);
}

/// By `edge-gateway-secrets.path`.
fn a_changed_configuration_restarts_the_service(site: &Site) {
    let process = site.main_process();
    site.configure(&site.config().set("gateway.location", "amsterdam"));
    site.machine
        .wait_for_property((UNIT, "MainPID"), EVENT_TIMEOUT, |now| now != process && now != "0");
    eventually("the new location is in the data", EVENT_TIMEOUT, || {
        let location = site.next_data().json().get("location").cloned();
        location.is_some_and(|location| location == "amsterdam").then_some(())
    });
}

fn a_killed_or_hanging_gateway_comes_back(site: &Site) {
    let watchdog = "[Service]\nWatchdogSec=3\n";
    site.machine.write(&format!("{DROP_IN}/watchdog.conf"), 0o644, watchdog);
    site.machine.shell(&format!("systemctl daemon-reload; systemctl restart {UNIT}"));
    site.next_data();
    for (signal, restarts) in [("KILL", "1"), ("STOP", "2")] {
        site.machine.run("systemctl", &["kill", "--signal", signal, UNIT]);
        let done = |count: &str| count == restarts;
        site.machine.wait_for_property((UNIT, "NRestarts"), RECOVERY_TIMEOUT, done);
        site.next_data();
    }
    let first = site.machine.journal(UNIT);
    first.wait_for_line("Watchdog timeout", EVENT_TIMEOUT);
}

/// journald takes no line, and then it is another process; systemd takes no notification.
fn a_journal_and_a_systemd_that_hang_stop_nothing(site: &Site) {
    let journald = "systemd-journald.service";
    let process = site.machine.property(journald, "MainPID");
    let loud = "[Service]\nEnvironment=RUST_LOG=trace\nLogRateLimitIntervalSec=0\n";
    site.machine.write(&format!("{DROP_IN}/loud.conf"), 0o644, loud);
    site.machine.shell(&format!("systemctl daemon-reload; systemctl restart {UNIT}"));
    site.next_data();
    let gateway = site.main_process();
    for signal in ["STOP", "KILL"] {
        site.machine.shell(&format!("kill -{signal} {process}"));
        for _ in 0..25 {
            site.next_data();
        }
    }
    site.machine.pause_systemd();
    for _ in 0..25 {
        site.next_data();
    }
    site.machine.resume_systemd();
    let is_back = |now: &str| now != process && now != "0";
    site.machine.wait_for_property((journald, "MainPID"), EVENT_TIMEOUT, is_back);
    assert_eq!(site.main_process(), gateway, "it goes on as the same process");
    site.machine.shell(&format!("rm {DROP_IN}/loud.conf; systemctl daemon-reload"));
    site.machine.run("systemctl", &["restart", UNIT]);
    site.next_data();
}

fn an_upgrade_loses_nothing(site: &Site, later: &DebianPackage) {
    let process = site.main_process();
    install(&site.machine, later);
    assert_ne!(site.main_process(), process, "the new version runs");
    let version = site.machine.run("dpkg-query", &["-W", "-f", "${Version}", "edge-gateway"]);
    assert_eq!(version, "9.9.9");
    assert_eq!(
        site.machine.run("cat", &[CONFIG]),
        site.machine.run("cat", &["/root/gateway.toml"])
    );
    for _ in 0..20 {
        site.next_data();
    }
}

fn every_message_is_accounted_for(site: &Site) {
    site.machine.run("systemctl", &["stop", UNIT]);
    site.received.borrow_mut().extend(site.consumer.drain(Duration::from_secs(1)));
    let (is_clean, report) = Capture::of(site.received.borrow().iter()).audit();
    assert!(is_clean, "{report}");
    site.machine.run("systemctl", &["start", UNIT]);
}

fn a_broker_that_refuses_costs_a_few_lines(site: &Site) {
    site.next_data();
    let before = site.machine.journal_text(UNIT).lines().count();
    site.dir.write("acl", "topic read #\n");
    site.broker.signal("HUP");
    site.broker.wait_for_line("Denied PUBLISH", EVENT_TIMEOUT);
    // 50 more messages are refused meanwhile.
    std::thread::sleep(QUIET);
    let text = site.machine.journal_text(UNIT);
    let lines: Vec<_> = text.lines().skip(before).collect();
    assert!((1..=8).contains(&lines.len()), "{lines:#?}");
}

fn a_purge_leaves_nothing(machine: &NspawnMachine, before: &BTreeSet<String>) {
    machine.shell(&format!("rm -r {DROP_IN}; apt-get purge --yes -qq edge-gateway"));
    assert_eq!(machine.property(UNIT, "LoadState"), "not-found");
    let after = files(machine);
    let left: Vec<_> = after.difference(before).collect();
    assert!(left.is_empty(), "{left:#?}");
    for database in ["passwd", "group"] {
        assert!(!machine.try_run("getent", &[database, "edge-gateway"]).status.success());
    }
    assert_eq!(processes(machine), "");
}

#[test]
fn as_root_with_a_device_the_service_has_one_capability() {
    let site = Site::start(&DebianPackage::build(), |_| ());
    site.configure(&site.config().set("tunnel.mode", "tun"));
    // As the book says; this Debian keeps no documents but those of the package.
    let example = "/usr/share/doc/edge-gateway/examples/tun.conf";
    site.machine.run("install", &["-D", "-m", "644", example, &format!("{DROP_IN}/tun.conf")]);
    site.machine.shell(&format!("systemctl daemon-reload; systemctl enable -q --now {UNIT}"));

    site.next_data();

    let status = site.machine.run("cat", &[&format!("/proc/{}/status", site.main_process())]);
    let net_admin = format!("CapEff:\t{:016x}", 1 << 12);
    assert!(status.lines().any(|line| line == net_admin), "{status}");
    let routes = site.machine.run("ip", &["route", "get", WireguardGo::ADDRESS]);
    assert!(routes.contains("dev edge"), "{routes}");
    let analyze = ["security", "--no-pager", MAX_EXPOSURE_WITH_DEVICE, UNIT];
    site.machine.run("systemd-analyze", &analyze);
}

/// A box with the package and without any network.
fn lonely_box() -> (NspawnMachine, Namespace) {
    let network = Namespace::new();
    let machine = NspawnMachine::start(&network);
    install(&machine, &DebianPackage::build());
    (machine, network)
}

#[test]
fn as_root_a_start_that_cannot_succeed_neither_ends_nor_floods() {
    let (machine, _network) = lonely_box();
    let valid = machine.run("cat", &[CONFIG]);
    machine.shell(&format!("for i in $(seq 50); do echo \"[[plc]]\\nx = $i\" >> {CONFIG}; done"));

    // The unit counts as started: it waits for the file.
    machine.run("systemctl", &["enable", "-q", "--now", UNIT]);
    let journal = machine.journal(UNIT);
    journal.wait_for_line("problems, shown by", EVENT_TIMEOUT);
    std::thread::sleep(QUIET);

    let text = machine.journal_text(UNIT);
    let before = text.lines().count();
    assert!(before <= 10, "{text}");
    assert_eq!(machine.property(UNIT, "NRestarts"), "0");
    let status = machine.property(UNIT, "StatusText");
    assert!(status.starts_with("not started: ") && status.contains(CONFIG), "{status}");

    // Neither a broker nor a PLC is there, and no network: it runs, and says so.
    machine.write("/root/valid", 0o600, &valid);
    machine.shell(&format!("cat /root/valid > {CONFIG}"));
    let running = |text: &str| text == "running";
    machine.wait_for_property((UNIT, "StatusText"), EVENT_TIMEOUT, running);
    std::thread::sleep(QUIET);
    // It starts by itself, and `edge-gateway-secrets.path` restarts it once more.
    let text = machine.journal_text(UNIT);
    assert!(text.lines().count() - before <= 25, "{text}");
    let status = machine.try_run("edge-gateway", &["status"]);
    let sentence = String::from_utf8_lossy(&status.stdout);
    assert!(sentence.contains("127.0.0.1:1883"), "{sentence}");
}

#[test]
fn as_root_restarts_never_end_and_become_rare() {
    let (machine, _network) = lonely_box();
    let failing = "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=100ms\n";
    machine.write(&format!("{DROP_IN}/failing.conf"), 0o644, failing);
    machine.shell(&format!("systemctl daemon-reload; systemctl start --no-block {UNIT}"));
    // By default, systemd refuses the sixth start within ten seconds, and every later one.
    let many = |count: &str| count.parse().is_ok_and(|count: u32| count >= 5);
    machine.wait_for_property((UNIT, "NRestarts"), RECOVERY_TIMEOUT, many);
    let pause = machine.property(UNIT, "RestartUSecNext");
    assert!(pause != "100ms" && pause != "infinity", "the pauses grow: {pause}");
    assert_eq!(machine.property(UNIT, "ActiveState"), "activating");

    // The obstacle is gone.
    machine.shell(&format!("rm {DROP_IN}/failing.conf; systemctl daemon-reload"));
    machine.run("systemctl", &["restart", UNIT]);
    machine.wait_for_property((UNIT, "ActiveState"), EVENT_TIMEOUT, |state| state == "active");
}

#[test]
fn as_root_a_box_whose_network_never_comes_up_starts_at_boot() {
    let (mut machine, _network) = lonely_box();
    // It waits for two minutes for an interface that is not there.
    machine.run("systemctl", &["enable", "-q", "systemd-networkd.service", UNIT]);
    machine.cut_power();
    machine.boot();
    machine.wait_for_property((UNIT, "ActiveState"), RECOVERY_TIMEOUT, |state| state == "active");
    let waiting = machine.property("systemd-networkd-wait-online.service", "ActiveState");
    assert_ne!(waiting, "active", "the network is not up");
    assert_eq!(machine.property(UNIT, "NRestarts"), "0");
}
