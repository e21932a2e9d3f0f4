//! Promise 9 for the network of a box, with a real systemd: a bundle whose network does not reach
//! the hub is applied, judged and taken back together with its network, also when the power fails
//! in between, with NetworkManager and with systemd-networkd. The gateway's user cannot misuse root
//! for anything else.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use e2e::{
    DebianPackage, EVENT_TIMEOUT, Gateway, Namespace, NspawnMachine, Office, OfficeHub, Process,
    RECOVERY_TIMEOUT, Subscriber, eventually,
};
use serde_json::Value;

const SITE: &str = "amsterdam-01";
/// The shortest time of a trial, what a power cut makes it forget, and the time to end it.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60 + 30 + 60);
const PLC: &str = "192.168.1.10/24";
const MACHINE_SIDE: &str = "192.168.1.2/24";
const GOOD: (&str, &str) = ("192.0.2.9/24", "192.0.2.1");
const NEXT: (&str, &str) = ("192.0.2.10/24", "192.0.2.1");
const WRONG: (&str, &str) = ("198.51.100.9/24", "198.51.100.1");
const UNIT: &str = "edge-gateway.service";
const APPLY: &str = "edge-gateway-box-apply.service";
const RECORD: &str = "/var/lib/edge-gateway/bundle/record";

/// What manages the network of a box.
#[derive(Clone, Copy)]
struct Manager {
    service: &'static str,
    /// The file of the bundle for the way to the hub, where it is installed.
    uplink: &'static str,
    mode: u32,
}

const NETWORK_MANAGER: Manager = Manager {
    service: "NetworkManager.service",
    uplink: "/etc/NetworkManager/system-connections/edge-uplink.nmconnection",
    mode: 0o600,
};
const NETWORKD: Manager = Manager {
    service: "systemd-networkd.service",
    uplink: "/etc/systemd/network/05-edge-10-edge-uplink.network",
    mode: 0o644,
};

/// A box whose network comes from its bundle, its hub, and its PLC.
struct Box {
    machine: NspawnMachine,
    manager: Manager,
    statuses: Subscriber,
    hub: OfficeHub,
    _plc: Process,
    _plant: Namespace,
    _cables: Namespace,
}

impl Box {
    /// Starts a box that is enrolled, with its first bundle loaded by hand.
    fn start(manager: Manager) -> Self {
        let cables = Namespace::new();
        let office = Office::new("192.0.2.1:51820");
        office.run(&["add", SITE, "--location", "amsterdam", "--template", "pump"]);
        let bundles = format!("[bundle]\nurl = \"{}\"\nconfirm = \"1m\"\n", OfficeHub::BUNDLES);
        office.change(&format!("sites/{SITE}.toml"), |text| format!("{text}\n{bundles}"));
        set_uplink(&office, GOOD);
        let machine = NspawnMachine::start(&cables);
        machine.run("systemctl", &["enable", "-q", "--now", manager.service]);
        install(&machine);
        let enrolment = machine.run("edge-gateway-box", &["enrolment", "--output", "/root"]);
        let enrolment = machine.on_disk(enrolment.trim()).display().to_string();
        office.run(&["enrol", SITE, &enrolment]);
        office.run(&["build"]);
        let hub = OfficeHub::start(office);
        let plant = Namespace::new();
        connect(&hub.namespace, ("cable", "192.0.2.1/24"), &cables, "eth0");
        connect(&plant, ("cable", PLC), &cables, "eth1");
        let program = Gateway::program().display().to_string();
        let listen = PLC.replace("/24", ":502");
        let simulate = ["simulate", "--model", "M241", "--listen", &listen];
        let plc = Process::start(plant.command(&program).args(simulate));
        let statuses = hub.subscribe(&format!("edge/{SITE}/status"));
        let here =
            Self { machine, manager, statuses, hub, _plc: plc, _plant: plant, _cables: cables };
        here.load();
        here
    }

    fn load(&self) {
        let watchdog = format!("/etc/systemd/system/{UNIT}.d/watchdog.conf");
        self.machine.write(&watchdog, 0o644, "[Service]\nWatchdogSec=5\n");
        self.machine.run("systemctl", &["daemon-reload"]);
        self.machine.copy_in(&self.hub.bundle(SITE), "/root/bundle.tar");
        self.machine.run("edge-gateway-box", &["load", "/root/bundle.tar"]);
        self.machine.run("systemctl", &["enable", "-q", "--now", UNIT]);
        self.wait_for_status(RECOVERY_TIMEOUT, |status| runs(status, 1));
        self.wait_for_uplink(GOOD, EVENT_TIMEOUT);
        // It has started again in the same process, and has kept its name.
        let process = self.machine.property(UNIT, "MainPID");
        let name = self.machine.run("cat", &[&format!("/proc/{process}/comm")]);
        assert_eq!(name.trim(), "edge-gateway");
        // The side of the machines is of the bundle too.
        self.hub.subscribe(&format!("edge/{SITE}/data/#")).next(RECOVERY_TIMEOUT);
    }

    fn wait_for_status(&self, limit: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        self.statuses.wait_for("the status", limit, |message| fits(&message.json())).json()
    }

    /// Waits until the interface to the hub has this address and no other one.
    fn wait_for_uplink(&self, (address, _): (&str, &str), limit: Duration) {
        let show = ["-4", "-oneline", "address", "show", "dev", "eth0"];
        eventually(&format!("eth0 has {address}"), limit, || {
            let shown = self.machine.run("ip", &show);
            (shown.contains(address) && shown.lines().count() == 1).then_some(())
        });
    }

    fn installed(&self) -> String {
        fs::read_to_string(self.machine.on_disk(self.manager.uplink)).expect("it is installed")
    }
}

/// Shows what the box says when the test fails.
impl Drop for Box {
    #[expect(clippy::print_stderr, reason = "the output of a test")]
    fn drop(&mut self) {
        if thread::panicking() && self.machine.is_on() {
            let units = ["--no-pager", "-u", UNIT, "-u", APPLY, "-u", self.manager.service];
            for (program, arguments) in [("journalctl", &units[..]), ("ip", &["address"][..])] {
                let shown = self.machine.try_run(program, arguments);
                eprintln!("{}", String::from_utf8_lossy(&shown.stdout));
            }
        }
    }
}

/// Installs the package.
fn install(machine: &NspawnMachine) {
    let package = DebianPackage::build();
    machine.copy_in(package.path(), "/root/edge-gateway.deb");
    machine.run("apt-get", &["install", "--yes", "-qq", "/root/edge-gateway.deb"]);
}

/// Connects an interface of the box, which gets its address from a bundle: the service that
/// manages it would answer one that is taken away again with others.
fn connect(other: &Namespace, (device, address): (&str, &str), cables: &Namespace, at_box: &str) {
    other.plug(device, cables, at_box);
    other.ip(&["address", "add", address, "dev", device]);
    other.ip(&["link", "set", device, "up"]);
    cables.ip(&["link", "set", at_box, "up"]);
}

fn set_uplink(office: &Office, (address, gateway): (&str, &str)) {
    office.change(&format!("sites/{SITE}.toml"), |text| {
        let rest = text.split("\n[network.machine]").next().unwrap_or_default();
        format!(
            "{rest}\n[network.machine]\ninterface = \"eth1\"\naddress = \"{MACHINE_SIDE}\"\n\n\
             [network.uplink]\nmethod = \"static\"\ninterface = \"eth0\"\n\
             address = \"{address}\"\ngateway = \"{gateway}\"\ndns = [\"{gateway}\"]\n"
        )
    });
}

fn runs(status: &Value, counter: u64) -> bool {
    status["gateway"]["config"]["counter"] == counter && status["trial"].is_null()
}

fn a_wrong_network_takes_itself_back(manager: Manager) {
    let mut here = Box::start(manager);
    let file = here.installed();
    let installed = fs::metadata(here.machine.on_disk(manager.uplink)).expect("it is there");
    assert_eq!(installed.permissions().mode() & 0o777, manager.mode);

    set_uplink(&here.hub.office, WRONG);
    assert_eq!(here.hub.offer(SITE), 2);
    here.wait_for_uplink(WRONG, RECOVERY_TIMEOUT);
    here.machine.cut_power();
    here.machine.boot();
    // The trial goes on.
    here.wait_for_uplink(WRONG, RECOVERY_TIMEOUT);
    let record = fs::read_to_string(here.machine.on_disk(RECORD)).expect("it is there");
    assert!(record.contains("[tried]"), "{record}");

    let status = here.wait_for_status(TRIAL_TIMEOUT, |status| {
        status["gateway"]["config"]["counter"] == 1 && status["trial"]["state"] == "reverted"
    });

    assert_eq!(status["trial"]["counter"], 2);
    let sentence = status["trial"]["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("the tunnel did not come up"), "{sentence}");
    here.wait_for_uplink(GOOD, EVENT_TIMEOUT);
    assert_eq!(here.installed(), file);
    assert_eq!(here.machine.property(APPLY, "Result"), "success");
    // The offer is still there, and is not taken again.
    a_slow_helper_costs_no_restart(&here);
    a_hostile_gateway_gains_nothing(&here);
}

/// Both at once: nearly all of the time is that of the trial.
#[test]
fn as_root_networkmanager_and_networkd_get_their_network_back() {
    thread::scope(|scope| {
        for manager in [NETWORK_MANAGER, NETWORKD] {
            scope.spawn(move || a_wrong_network_takes_itself_back(manager));
        }
    });
}

/// The helper takes longer than the watchdog: the gateway waits for the network of the bundle.
fn a_slow_helper_costs_no_restart(here: &Box) {
    let slow = "[Service]\nExecStartPre=/usr/bin/sleep 7\n";
    let drop_in = format!("/etc/systemd/system/{APPLY}.d/slow.conf");
    here.machine.write(&drop_in, 0o644, slow);
    here.machine.run("systemctl", &["daemon-reload"]);
    set_uplink(&here.hub.office, NEXT);
    assert_eq!(here.hub.offer(SITE), 3);
    here.wait_for_uplink(NEXT, RECOVERY_TIMEOUT);
    here.wait_for_status(RECOVERY_TIMEOUT, |status| runs(status, 3));
    assert_eq!(here.machine.property(UNIT, "NRestarts"), "0");
    here.machine.shell(&format!("rm {drop_in}; systemctl daemon-reload"));
}

/// What the gateway's user puts where its record and its bundles are.
const ATTACKS: [&str; 6] = [
    "ln -sf /etc/shadow record",
    "rm record; mkfifo record",
    "rm -f record; head -c 5000000 /dev/zero > record",
    "rm record; printf 'last = 9\\n[tried]\\nslot = \"b\"\\ncounter = 9\\n\
     origin = \"by-hand\"\\nstarts = 1\\nused_ms = 0\\n' > record; ln -sf /etc/shadow b.tar",
    "rm b.tar; head -c 5000000 /dev/urandom > b.tar; touch record",
    "cd ..; mv bundle aside; ln -s /root bundle",
];

/// The user is hostile: it changes everything that is its own, and starts the helper by that.
fn a_hostile_gateway_gains_nothing(here: &Box) {
    let machine = &here.machine;
    machine.run("systemctl", &["stop", UNIT]);
    let (before, secrets) = (here.installed(), secrets(machine));
    let user = ["--reuid", "edge-gateway", "--regid", "edge-gateway", "--init-groups"];
    for attack in ATTACKS {
        let script = format!("cd /var/lib/edge-gateway/bundle; {attack}");
        machine.run("setpriv", &[&user[..], &["sh", "-ec", &script]].concat());
        // As the unit of the path does, but at a known time.
        machine.try_run("systemctl", &["start", APPLY]);
        assert_eq!(here.installed(), before, "{attack}");
        assert_eq!(self::secrets(machine), secrets, "{attack}");
    }
    machine.shell("cd /var/lib/edge-gateway; rm bundle; mv aside bundle; rm -f bundle/*.tar");
    assert!(!machine.on_disk("/root/record").exists());
    // 200 changes in a row start it at most a few times, and it does not fail over them.
    let storm = "cd /var/lib/edge-gateway/bundle; for i in $(seq 200); do echo $i > record; done";
    machine.run("setpriv", &[&user[..], &["sh", "-ec", storm]].concat());
    let path = "edge-gateway-box-apply.path";
    machine.wait_for_property((path, "ActiveState"), EVENT_TIMEOUT, |state| state == "active");
    assert_eq!(here.installed(), before);
}

/// Returns the secrets in memory, with their owners and modes.
fn secrets(machine: &NspawnMachine) -> String {
    let dir = "/run/edge-gateway-box/3";
    machine.shell(&format!("stat -c '%U:%G %a %n' {dir} {dir}/*; sha256sum {dir}/*"))
}
