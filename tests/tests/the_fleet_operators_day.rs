//! The commands of two pages of the book are typed at an office: the fleet operator's day, and the
//! recovery of a fleet whose repository is lost. `edge-provision`, git and Mosquitto are real; the
//! test plays the sites, and a directory is the hub.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may stop on the spot"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use e2e::{Mosquitto, Office, Process, Retain, TempDir, temp_dir};
use jiff::Timestamp;
use serde_json::{Value, json};

const DAY: &str = "docs/fleet/day.md";
const RECOVERY: &str = "docs/fleet/recovery.md";
/// What stands in for ssh.
const SSH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/operator/ssh-desk");
const SITES: [&str; 3] = ["amsterdam-01", "rotterdam-01", "utrecht-01"];

/// The blocks that are typed at the office in the section under a heading.
fn blocks(page: &str, heading: &str) -> Vec<String> {
    let text = page_text(page);
    let start = format!("## {heading}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{page}: no {heading}"));
    let section = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let fenced = section.split("```").skip(1).step_by(2);
    let blocks: Vec<_> =
        fenced.filter_map(|block| block.strip_prefix("sh office\n")).map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "{page}: {heading} has no commands");
    blocks
}

fn page_text(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    fs::read_to_string(path).expect("the page is there")
}

/// An office with three sites that run their bundles.
struct FleetDesk {
    office: Office,
    broker: Mosquitto,
    /// The hub, the sticks, the safe place, and the boxes.
    places: TempDir,
    _sites: Process,
}

impl FleetDesk {
    fn new() -> Self {
        let (office, places) = (Office::new("hub-a.example.net:51820"), temp_dir());
        for name in ["bin", "hub/srv/bundles", "media/safe"] {
            fs::create_dir_all(places.path().join(name)).expect("the directory is writable");
        }
        symlink(Office::program(), places.path().join("bin/edge-provision")).expect("a link");
        symlink(SSH, places.path().join("bin/ssh")).expect("a link");
        let password = office.read("secrets/office/mqtt.password").trim().to_owned();
        let broker = Mosquitto::builder().user("office", &password).persistent().start();
        let sites = start_sites(broker.port(), &password);
        let desk = Self { office, broker, places, _sites: sites };
        for site in SITES {
            desk.office.run(&["add", site, "--template", "pump"]);
            let file = desk.enrolment(site, "first");
            desk.office.run(&["enrol", site, &file.display().to_string()]);
        }
        desk.office.run(&["build"]);
        SITES.iter().for_each(|site| desk.report(site));
        desk.type_block(
            "git init --quiet --initial-branch main\n\
             git add .\n\
             git commit --quiet --message start\n\
             git init --quiet --bare ../origin.git\n\
             git remote add origin ../origin.git\n\
             git push --quiet --set-upstream origin main\n\
             tar -C out/bundles -c . | ssh root@hub-a tar -C /srv/bundles -x",
        );
        desk
    }

    /// Makes the keys of a box, and writes its enrolment onto the stick of a site.
    fn enrolment(&self, site: &str, name: &str) -> PathBuf {
        let stick = self.places.path().join("media").join(site);
        if stick.exists() {
            fs::remove_dir_all(&stick).expect("the directory is the test's");
        }
        fs::create_dir_all(&stick).expect("the directory is writable");
        let own = self.box_dir(site, name);
        self.on_box(&own, &["enrolment", "--output", &stick.display().to_string()]);
        let mut files = fs::read_dir(&stick).expect("the stick is there");
        files.next().expect("one file").expect("it is readable").path()
    }

    fn box_dir(&self, site: &str, name: &str) -> PathBuf {
        self.places.path().join("boxes").join(site).join(name)
    }

    /// Runs `edge-gateway-box` at a box.
    fn on_box(&self, own: &Path, arguments: &[&str]) -> String {
        let dir = |name: &str| {
            let dir = own.join(name);
            fs::create_dir_all(&dir).expect("the directory is writable");
            dir.display().to_string()
        };
        let mut command = Command::new(Office::program().with_file_name("edge-gateway-box"));
        command.args(arguments).args(["--box-dir", &dir("box")]);
        if arguments[0] == "load" {
            command.args(["--run-dir", &dir("run"), "--state-dir", &dir("state")]);
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Publishes that a site runs the last bundle that was built for it.
    fn report(&self, site: &str) {
        let text = self.office.read(&format!("sites/{site}.toml"));
        let counter = text.lines().find_map(|line| line.strip_prefix("counter = "));
        let counter: u64 = counter.and_then(|text| text.parse().ok()).expect("it was built");
        let status = status(site, counter).to_string();
        self.broker.publish(&format!("edge/{site}/status"), &status, Retain::Yes);
    }

    fn type_section(&self, page: &str, heading: &str) -> String {
        blocks(page, heading).iter().map(|block| self.type_block(block)).collect()
    }

    /// Types a block at the office, and returns what it prints.
    fn type_block(&self, block: &str) -> String {
        let output = self.bash(block);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{block}\n{text}\n{output:?}");
        text
    }

    fn bash(&self, block: &str) -> Output {
        let places = self.places.path().display().to_string();
        let port = self.broker.port();
        let translated = block
            .replace("/media/", &format!("{places}/media/"))
            .replace("/tmp/fleet", &format!("{places}/fleet"))
            .replace("../origin.git", &format!("{places}/origin.git"))
            .replace("127.0.0.1:1883", &format!("127.0.0.1:{port}"))
            .replace("mosquitto_pub ", &format!("mosquitto_pub -p {port} "));
        let path = format!("{places}/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", &translated]);
        command.current_dir(self.office.path("")).env("PATH", path);
        command.env("HUB", format!("{places}/hub"));
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Anna");
            command.env(format!("GIT_{role}_EMAIL"), "anna@example.net");
        }
        command.output().expect("bash is there")
    }

    /// Returns a file of the hub.
    fn at_hub(&self, name: &str) -> String {
        fs::read_to_string(self.places.path().join("hub").join(name)).expect("it was copied")
    }
}

/// Plays all sites: each takes what it is offered at once, and reports that.
fn start_sites(port: u16, password: &str) -> Process {
    let login: Vec<String> =
        ["-p", &port.to_string(), "-u", "office", "-P", password].map(str::to_owned).to_vec();
    let mut client = Command::new("mosquitto_sub");
    let mut sites = Process::start(client.args(&login).args(["-t", "edge/+/offer", "-F", "%t %p"]));
    let offers = BufReader::new(sites.stdout());
    thread::spawn(move || {
        for line in offers.lines().map_while(Result::ok) {
            let Some((topic, offer)) = line.split_once(' ') else { continue };
            let offer: Value = serde_json::from_str(offer).unwrap_or_default();
            let Some(counter) = offer["counter"].as_u64() else { continue };
            let site = topic.split('/').nth(1).unwrap_or_default();
            let topic = format!("edge/{site}/status");
            let mut client = Command::new("mosquitto_pub");
            client.args(&login).args(["-r", "-q", "1", "-t", &topic]);
            let reported = client.args(["-m", &status(site, counter).to_string()]).status();
            assert!(reported.expect("it starts").success(), "{site} has no broker");
        }
    });
    sites
}

/// Returns the status of a gateway that runs a confirmed bundle.
fn status(site: &str, counter: u64) -> Value {
    let at = Timestamp::now().to_string();
    json!({
        "state": "online",
        "gateway": {"id": site, "config": {"hash": "0", "counter": counter},
                    "started": at, "at": at},
    })
}

/// The sections of a page with commands for the office.
fn sections_with_commands(page: &str) -> Vec<String> {
    let has_commands = |section: &&str| section.contains("```sh office\n");
    let text = page_text(page);
    let sections = text.split("\n## ").skip(1).filter(has_commands);
    sections.filter_map(|section| section.lines().next()).map(str::to_owned).collect()
}

#[test]
fn every_section_with_commands_is_typed_here() {
    let of_day = [
        "Every morning",
        "Add a site",
        "Change all sites",
        "A site gets another box",
        "A site is closed, or its box is stolen",
        "A password that others have seen",
        "Every week",
        "Every month",
    ];
    assert_eq!(sections_with_commands(DAY), of_day);
    assert_eq!(sections_with_commands(RECOVERY), ["The repository is lost", "Upgrade"]);
}

#[test]
fn the_commands_of_the_day_keep_every_site_current() {
    let desk = FleetDesk::new();
    desk.type_block("ssh -N -L 1883:10.77.0.1:1883 root@hub-a &");
    let shown = desk.type_section(DAY, "Every morning");
    assert!(shown.contains("3 sites: 3 current"), "{shown}");

    desk.enrolment("haarlem-01", "first");
    desk.type_section(DAY, "Add a site");
    desk.report("haarlem-01");
    assert!(desk.at_hub("hub-a/etc/wireguard/edge.conf").contains("# haarlem-01"));

    let shown = desk.type_section(DAY, "Change all sites");
    assert!(shown.contains("+unit = \"bar\"") && shown.contains("4 sites: 4 current"), "{shown}");

    let old = desk.at_hub("hub-a/etc/wireguard/edge.conf");
    desk.enrolment("rotterdam-01", "second");
    desk.type_section(DAY, "A site gets another box");
    desk.report("rotterdam-01");
    let bundle = desk.places.path().join("media/rotterdam-01/edge-bundle-rotterdam-01.tar");
    let second = desk.box_dir("rotterdam-01", "second");
    let loaded = desk.on_box(&second, &["load", &bundle.display().to_string()]);
    assert!(loaded.contains("was loaded"), "{loaded}");
    assert_ne!(desk.at_hub("hub-a/etc/wireguard/edge.conf"), old);

    desk.type_section(DAY, "A site is closed, or its box is stolen");
    assert!(!desk.at_hub("hub-a/etc/wireguard/edge.conf").contains("utrecht-01"));
    assert!(!desk.at_hub("hub-a/etc/mosquitto/edge.acl").contains("utrecht-01"));
    assert!(!desk.places.path().join("hub/srv/bundles/edge-bundle-utrecht-01.tar").exists());

    desk.type_section(DAY, "A password that others have seen");
    let users = desk.at_hub("hub-a/etc/mosquitto/edge.passwords");
    assert!(users.contains("amsterdam-01.2:") && !users.contains("amsterdam-01:"), "{users}");

    desk.type_section(DAY, "Every week");
    let built = desk.type_section(DAY, "Every month");
    assert!(built.contains("0 new bundles"), "{built}");
    let shown = desk.type_section(DAY, "Every morning");
    assert!(shown.contains("3 sites: 3 current"), "{shown}");
}

#[test]
fn a_box_takes_a_bundle_of_a_fleet_that_was_made_again() {
    let desk = FleetDesk::new();
    let own = desk.box_dir("amsterdam-01", "first");
    let load = |bundle: PathBuf| desk.on_box(&own, &["load", &bundle.display().to_string()]);
    desk.type_section(DAY, "A password that others have seen");
    let bundles = desk.places.path().join("hub/srv/bundles");
    load(bundles.join("edge-bundle-amsterdam-01.tar"));
    desk.type_section(DAY, "Every week");

    desk.type_section(RECOVERY, "The repository is lost");

    let again = desk.places.path().join("fleet");
    let read = |path: PathBuf| fs::read_to_string(path).expect("it was made");
    let of_site = |text: &str, key: &str| {
        let value = text.lines().find(|line| line.starts_with(key)).expect("the key is there");
        value.split('#').next().map(|value| value.trim().to_owned())
    };
    let before = desk.office.read("sites/amsterdam-01.toml");
    let after = read(again.join("sites/amsterdam-01.toml"));
    for key in ["address", "login", "public_key"] {
        assert_eq!(of_site(&after, key), of_site(&before, key), "{after}");
    }
    for list in ["keys-1.txt", "keys-1.txt.minisig"] {
        let kept = desk.office.read(&format!("signing/{list}"));
        assert_eq!(read(again.join("signing").join(list)), kept);
    }
    let loaded = load(again.join("out/bundles/edge-bundle-amsterdam-01.tar"));
    assert!(loaded.contains("was loaded"), "{loaded}");
    // The hub takes the same password and the same key as before.
    for file in ["mosquitto/edge.passwords", "wireguard/edge.conf"] {
        let made = read(again.join("out/hubs/hub-a/etc").join(file));
        let known = desk.at_hub(&format!("hub-a/etc/{file}"));
        let of_box = |text: &str| {
            let lines = text.lines().filter(|line| {
                line.starts_with("amsterdam-01.2:") || line.starts_with("PrivateKey")
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of_box(&made), of_box(&known), "{file}");
    }

    let printed = desk.type_section(RECOVERY, "Upgrade");
    assert!(printed.contains("0 new bundles"), "{printed}");
}
