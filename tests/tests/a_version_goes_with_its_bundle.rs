//! Promise 9 for the program itself, on a clean Debian 13 with real apt and dpkg: a version comes
//! with its bundle, through the tunnel, and goes with it, whatever happens in between.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use e2e::{
    Capture, DebianPackage, EVENT_TIMEOUT, Gateway, Message, Namespace, NspawnMachine, Office,
    OfficeHub, Process, RECOVERY_TIMEOUT, Subscriber, eventually,
};

const SITE: &str = "amsterdam-01";
const UNIT: &str = "edge-gateway.service";
const UPDATE: &str = "edge-gateway-box-update.service";
const UPDATE_OVERRIDE: &str = "/etc/systemd/system/edge-gateway-box-update.service.d/test.conf";
/// A version that does not run is found out after 20 s in place of 5 min.
const IMPATIENT: &str =
    "[Service]\nExecStart=\nExecStart=/usr/bin/edge-gateway-box update --answer-within 20\n";
/// Is there while dpkg unpacks a package.
const UNPACKING: &str = "/var/lib/dpkg/tmp.ci/control";
/// The time of a trial, and to install a package twice.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60 + 120);
/// How long messages are waited for that are on their way.
const QUIET: Duration = Duration::from_secs(1);
/// The version of this workspace.
const OLD: &str = env!("CARGO_PKG_VERSION");

/// A box that is enrolled and runs its first bundle, its hub, and what the hub receives.
struct UpdatedBox {
    machine: NspawnMachine,
    events: Subscriber,
    consumer: Subscriber,
    hub: OfficeHub,
    _plc: Process,
    _plant: Namespace,
    _cables: Namespace,
}

impl UpdatedBox {
    fn start(package: &DebianPackage) -> Self {
        let office = Office::new("192.0.2.1:51820");
        office.run(&["add", SITE, "--location", "amsterdam", "--template", "pump"]);
        let bundles = format!("[bundle]\nurl = \"{}\"\nconfirm = \"3m\"\n", OfficeHub::BUNDLES);
        office.change(&format!("sites/{SITE}.toml"), |text| format!("{text}\n{bundles}"));
        let cables = Namespace::new();
        let machine = NspawnMachine::start(&cables);
        machine.copy_in(package.path(), "/root/edge-gateway.deb");
        machine.run("apt-get", &["install", "--yes", "-qq", "/root/edge-gateway.deb"]);
        machine.write(UPDATE_OVERRIDE, 0o644, IMPATIENT);
        machine.run("systemctl", &["daemon-reload"]);
        let enrolment = machine.run("edge-gateway-box", &["enrolment", "--output", "/root"]);
        let enrolment = machine.on_disk(enrolment.trim()).display().to_string();
        office.run(&["enrol", SITE, &enrolment]);
        office.run(&["build"]);
        let (hub, plant) = (OfficeHub::start(office), Namespace::new());
        hub.namespace.connect(("cable", "192.0.2.1/24"), &cables, ("eth0", "192.0.2.9/24"));
        plant.connect(("cable", "192.168.1.10/24"), &cables, ("eth1", "192.168.1.2/24"));
        let program = Gateway::program().display().to_string();
        let simulate = ["simulate", "--model", "M241", "--listen", "192.168.1.10:502"];
        let plc = Process::start(plant.command(&program).args(simulate));
        let events = hub.subscribe(&format!("edge/{SITE}/event"));
        let consumer = hub.subscribe(&format!("edge/{SITE}/#"));
        machine.copy_in(&hub.bundle(SITE), "/root/bundle.tar");
        machine.run("edge-gateway-box", &["load", "/root/bundle.tar"]);
        machine.run("systemctl", &["enable", "-q", "--now", UNIT]);
        let (_plc, _plant, _cables) = (plc, plant, cables);
        let here = Self { machine, events, consumer, hub, _plc, _plant, _cables };
        here.wait_for(1, "confirmed");
        here
    }

    /// Publishes a package at the office.
    fn publish(&self, version: &str, package: &Path) {
        let dir = self.hub.office.path("packages");
        fs::create_dir_all(&dir).expect("its own directory is writable");
        let architecture = self.machine.run("dpkg", &["--print-architecture"]);
        let name = format!("edge-gateway_{version}_{}.deb", architecture.trim());
        fs::copy(package, dir.join(name)).expect("its own directory is writable");
    }

    /// Offers a bundle with this version, and returns its counter.
    fn offer(&self, version: &str) -> u64 {
        self.hub.office.change("fleet.toml", |text| {
            let is_kept = |line: &&str| !line.starts_with("version = ");
            let rest: String =
                text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
            format!("version = \"{version}\"\n{rest}")
        });
        self.hub.offer(SITE)
    }

    /// Waits for an event about a bundle, and returns its reason.
    fn wait_for(&self, counter: u64, state: &str) -> String {
        let is_it = |message: &Message| {
            let event = message.json();
            event["state"] == state && event["counter"] == counter
        };
        let event = self.events.wait_for(state, TRIAL_TIMEOUT, is_it).json();
        event["reason"].as_str().expect("it has a reason").to_owned()
    }

    /// Returns status and version of the package.
    fn installed(&self) -> String {
        let format = "--showformat=${db:Status-Abbrev}${Version}";
        self.machine.run("dpkg-query", &["--show", format, "edge-gateway"])
    }

    /// Waits until the helper has nothing left to do.
    fn wait_until_idle(&self) {
        self.machine
            .wait_for_property((UPDATE, "ActiveState"), EVENT_TIMEOUT, |now| now == "inactive");
    }
}

/// Shows what the box says when the test fails.
impl Drop for UpdatedBox {
    #[expect(clippy::print_stderr, reason = "the output of a test")]
    fn drop(&mut self) {
        if thread::panicking() && self.machine.is_on() {
            for unit in [UNIT, UPDATE] {
                eprintln!("{}", self.machine.journal_text(unit));
            }
        }
    }
}

/// Returns a package whose gateway ends at once.
fn broken(package: &DebianPackage, version: &str) -> DebianPackage {
    package.with_change(version, |root| {
        let program = root.join("usr/bin/edge-gateway");
        fs::write(program, "#!/bin/sh\nexit 1\n").expect("its own directory is writable");
    })
}

#[test]
fn as_root_a_version_comes_and_goes_with_its_bundle() {
    let package = DebianPackage::build();
    let mut updated = UpdatedBox::start(&package);
    updated.publish(OLD, package.path());
    updated.publish("9.1.0", package.with_version("9.1.0").path());
    updated.publish("9.2.0", broken(&package, "9.2.0").path());

    let counter = updated.offer("9.1.0");
    updated.wait_for(counter, "confirmed");
    assert_eq!(updated.installed(), "ii 9.1.0");
    updated.wait_until_idle();
    let kept = updated.machine.run("ls", &["/var/lib/edge-gateway-box/packages"]);
    assert!(kept.trim().starts_with("edge-gateway_9.1.0_") && kept.lines().count() == 1, "{kept}");
    every_message_is_accounted_for(&updated);

    let counter = updated.offer("9.2.0");
    let reason = updated.wait_for(counter, "reverted");
    let expected = "edge-gateway 9.2.0 does not answer on its status socket";
    assert!(reason.contains(expected), "{reason}");
    updated.wait_until_idle();
    assert_eq!(updated.installed(), "ii 9.1.0");

    // An older version is one like any other, and the power fails while dpkg is at work.
    let journal = updated.machine.journal(UPDATE);
    let counter = updated.offer(OLD);
    journal.wait_for_line(&format!("installing edge-gateway_{OLD}"), TRIAL_TIMEOUT);
    let unpacking = updated.machine.on_disk(UNPACKING);
    eventually("dpkg is at work", TRIAL_TIMEOUT, || unpacking.exists().then_some(()));
    updated.machine.cut_power();
    updated.machine.boot();
    updated.wait_for(counter, "confirmed");
    assert_eq!(updated.installed(), format!("ii {OLD}"));
    updated.wait_until_idle();
}

/// Nothing is lost by the change of the program.
fn every_message_is_accounted_for(updated: &UpdatedBox) {
    updated.machine.run("systemctl", &["stop", UNIT]);
    let messages = updated.consumer.drain(QUIET);
    // Offers are of the office.
    let of_gateway = messages.iter().filter(|message| !message.topic.ends_with("/offer"));
    let (is_clean, report) = Capture::of(of_gateway).audit();
    assert!(is_clean, "{report}");
    updated.machine.run("systemctl", &["start", UNIT]);
    let next = updated.consumer.try_next(RECOVERY_TIMEOUT);
    assert!(next.is_some(), "{}", updated.machine.journal_text(UNIT));
}
