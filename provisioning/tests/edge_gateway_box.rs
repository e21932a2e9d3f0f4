//! `edge-gateway-box` as a person or a unit of systemd calls it, with bundles of a real office.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SITE: &str = "amsterdam-01";
const BUNDLE: &str = "out/bundles/edge-bundle-amsterdam-01.tar";
/// What the office writes for the interface of the machines.
const INSTALLED: &str = "network/05-edge-10-edge-machine.network";

/// An office, a box that it has enrolled, and a stick.
struct SiteInADirectory {
    root: PathBuf,
}

impl SiteInADirectory {
    fn new() -> Self {
        let name = format!("edge-site-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let here = Self { root: std::env::temp_dir().join(name) };
        for dir in ["office", "stick", "network", "state/bundle"] {
            fs::create_dir_all(here.path(dir)).unwrap();
        }
        here.office(&["init", ".", "--endpoint", "192.0.2.1:51820"]);
        here.office(&["add", SITE, "--template", "pump"]);
        here.set_network("192.168.1.2/24");
        let stick = here.text("stick");
        let (is_done, file) =
            here.command(&["enrolment", "--output", &stick, "--box-dir", &here.text("box")]);
        assert!(is_done, "{file}");
        here.office(&["enrol", SITE, file.trim()]);
        here.office(&["build"]);
        fs::write(here.path("reload"), "#!/bin/sh\necho \"$1\" >> \"${0%reload}reloads\"\n")
            .unwrap();
        fs::set_permissions(here.path("reload"), fs::Permissions::from_mode(0o755)).unwrap();
        here
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn office(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-provision"));
        let output = command.args(arguments).current_dir(self.path("office")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Changes the address of the box towards the machines.
    fn set_network(&self, address: &str) {
        let path = self.path("office/sites").join(format!("{SITE}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("\n[network.machine]").next().unwrap();
        let network = format!("interface = \"eth1\"\naddress = \"{address}\"\n");
        fs::write(&path, format!("{text}\n[network.machine]\n{network}")).unwrap();
    }

    fn bundle(&self) -> Vec<u8> {
        fs::read(self.path("office").join(BUNDLE)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway-box"));
        let output = command.args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Runs a command with the directories of this box.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let dirs = self.dirs();
        let dirs = dirs.iter().map(String::as_str);
        self.command(&arguments.iter().copied().chain(dirs).collect::<Vec<_>>())
    }

    fn dirs(&self) -> [String; 6] {
        let dir = |option: &str, name: &str| [format!("--{option}-dir"), self.text(name)];
        let [state, boxes, run] = [dir("state", "state"), dir("box", "box"), dir("run", "run")];
        let [[a, b], [c, d], [e, f]] = [state, boxes, run];
        [a, b, c, d, e, f]
    }

    fn apply_arguments(&self) -> Vec<String> {
        let network = ["--network-dir".to_owned(), self.text("network")];
        let reload = ["--reload-command".to_owned(), self.text("reload")];
        let fixed = ["apply", "--manager", "networkd"].map(str::to_owned);
        [&fixed[..], &network, &reload, &self.dirs()].concat()
    }

    fn apply(&self) -> (bool, String) {
        let arguments = self.apply_arguments();
        self.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What the gateway does with a bundle in its inbox.
    fn take(&self, slot: &str, record: &str) {
        let dir = self.path("state/bundle");
        fs::rename(dir.join("inbox.tar"), dir.join(format!("{slot}.tar"))).unwrap();
        fs::write(dir.join("record"), record).unwrap();
    }

    fn network(&self) -> String {
        fs::read_to_string(self.path(INSTALLED)).unwrap()
    }
}

impl Drop for SiteInADirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

const FIRST: &str =
    "last = 1\n[tried]\nslot = \"a\"\ncounter = 1\norigin = \"by-hand\"\nstarts = 1\nused_ms = 0\n";
const CONFIRMED: &str = "last = 1\n[confirmed]\nslot = \"a\"\ncounter = 1\n";
const SECOND: &str = "last = 2\n[confirmed]\nslot = \"a\"\ncounter = 1\n\
                      [tried]\nslot = \"b\"\ncounter = 2\norigin = \"by-hand\"\nstarts = 1\nused_ms = 0\n";

#[test]
fn a_bundle_comes_by_stick_is_put_to_use_and_leaves_nothing_after_a_wipe() {
    let here = SiteInADirectory::new();
    fs::write(here.path("stick/edge-bundle-amsterdam-01.tar"), here.bundle()).unwrap();
    let (is_done, told) = here.run(&["stick", &here.text("stick"), "--wait", "0"]);
    assert!(is_done && told.contains("bundle 1 was loaded"), "{told}");
    let status = fs::read_to_string(here.path("stick/edge-status.txt")).unwrap();
    assert!(status.contains("the gateway has not taken the bundle yet"), "{status}");
    here.take("a", FIRST);

    let (is_done, told) = here.apply();

    assert!(is_done && told.contains("bundle: 1, on trial"), "{told}");
    assert!(told.contains("network: of bundle 1, by networkd"), "{told}");
    let password = fs::read_to_string(here.path("run/1/mqtt.password")).unwrap();
    let known = here.path("office/secrets/sites").join(SITE).join("mqtt.password.1");
    assert_eq!(password.trim(), fs::read_to_string(known).unwrap().trim());
    assert!(here.network().contains("Address=192.168.1.2/24"));
    assert_eq!(fs::read_to_string(here.path("reloads")).unwrap(), "networkd\n");
    let (is_done, told) = here.run(&["stick", &here.text("stick"), "--wait", "0"]);
    assert!(is_done && told.contains("had already: nothing to do"), "{told}");
    let bundle = here.text(&format!("office/{BUNDLE}"));
    let (is_done, told) = here.run(&["load", &bundle]);
    assert!(is_done && told.contains("had already: nothing to do"), "{told}");

    let wipe = ["wipe", "--network-dir", &here.text("network")];
    let (is_done, told) = here.run(&wipe);
    assert!(!is_done && told.contains("would remove"), "{told}");
    assert!(here.path("box/keys/tunnel.key").exists());
    let (is_done, told) = here.run(&[&wipe[..], &["--yes"]].concat());
    assert!(is_done && told.contains("keys: keys and bundles of this box"), "{told}");
    assert!(!here.path(INSTALLED).exists() && !here.path("run/1").exists());
    assert!(!here.path("box/keys").exists() && !here.path("state/bundle").exists());
}

#[test]
fn wrong_files_and_directories_are_named() {
    let here = SiteInADirectory::new();
    let (is_done, told) = here.run(&["load", "/dev/zero"]);
    assert!(!is_done && told.contains("cannot read /dev/zero"), "{told}");
    let (is_done, told) = here.run(&["load", &here.text("reload")]);
    assert!(!is_done && told.contains("the bundle is damaged"), "{told}");
    let (is_done, told) = here.command(&["apply", "--state-dir", "/no/such/directory"]);
    assert!(!is_done && told.contains("cannot use /no/such/directory"), "{told}");
    fs::remove_dir_all(here.path("state/bundle")).unwrap();
    fs::write(here.path("state/bundle"), "").unwrap();
    fs::write(here.path("stick/edge-bundle-1.tar"), here.bundle()).unwrap();
    let (is_done, told) = here.run(&["stick", &here.text("stick")]);
    assert!(!is_done && told.contains("cannot write the bundle for the gateway"), "{told}");
    let status = fs::read_to_string(here.path("stick/edge-status.txt")).unwrap();
    assert!(status.contains("cannot write the bundle for the gateway"), "{status}");
    fs::remove_file(here.path("state/bundle")).unwrap();
    fs::create_dir(here.path("state/bundle")).unwrap();
    let (is_done, told) = here.run(&["stick", "/no/such/stick"]);
    assert!(!is_done && told.contains("cannot use /no/such/stick"), "{told}");
    fs::write(here.path("state/bundle/record"), FIRST).unwrap();
    let (is_done, told) = here.apply();
    assert!(!is_done && told.contains("bundle/a.tar in the directory of the gateway"), "{told}");
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_helper_that_is_killed_leaves_one_network_and_ends_the_change_later() {
    let here = SiteInADirectory::new();
    let bundle = here.text(&format!("office/{BUNDLE}"));
    assert!(here.run(&["load", &bundle]).0);
    assert!(here.path("run").is_dir(), "the gateway has to wait for its secrets");
    here.take("a", FIRST);
    fs::write(here.path("state/bundle/record"), CONFIRMED).unwrap();
    assert!(here.apply().0);
    let old = here.network();
    here.set_network("192.168.1.3/24");
    here.office(&["build"]);
    assert!(here.run(&["load", &bundle]).0);
    here.take("b", SECOND);
    copy(&here.path("box"), &here.path("kept"));
    for _ in 0..24 {
        copy(&here.path("kept"), &here.path("box"));
        fs::write(here.path("state/bundle/record"), SECOND).unwrap();
        fs::write(here.path(INSTALLED), &old).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway-box"));
        let command = command.args(here.apply_arguments()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Any moment from its start to after its end.
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        fs::write(here.path("state/bundle/record"), "destroyed").unwrap();
        assert!(!here.apply().0);

        let found = here.network();
        assert!(found == old || found.contains("Address=192.168.1.3/24"), "{found}");
        fs::write(here.path("state/bundle/record"), SECOND).unwrap();
        let (is_done, told) = here.apply();
        assert!(is_done && told.contains("bundle: 2, on trial"), "{told}");
        assert!(here.network().contains("Address=192.168.1.3/24"));
    }
}
