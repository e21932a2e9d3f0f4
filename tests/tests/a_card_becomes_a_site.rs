//! What cloud-init of a Raspberry Pi does with deploy/raspberry-pi/user-data, on a clean Debian 13:
//! from a card with the package and a bundle, values arrive at the hub, and no secret stays on the
//! card.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;

use e2e::{
    DebianPackage, Gateway, Namespace, NspawnMachine, Office, OfficeHub, Process, RECOVERY_TIMEOUT,
};

const SITE: &str = "amsterdam-01";
const CARD: &str = "/boot/firmware";

/// Returns the commands that cloud-init runs, in order.
fn commands(recipe: &str) -> Vec<Vec<String>> {
    let is_text = |line: &&str| !line.starts_with('#') && !line.trim_start().starts_with('#');
    let mut lines = recipe.lines().filter(is_text);
    assert_eq!(lines.next(), Some("runcmd:"));
    let command =
        |line: &str| line.strip_prefix("  - ").expect("an element of the list").to_owned();
    let commands = lines.map(|line| serde_json::from_str(&command(line)).expect("a list of words"));
    commands.collect()
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect("it is there")
}

#[test]
fn the_page_shows_the_recipe() {
    let page = read("docs/site/raspberry-pi.md");
    let shown = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown = shown.expect("the page has it");
    let recipe = read("deploy/raspberry-pi/user-data");
    assert!(shown.starts_with("#cloud-config\n") && recipe.starts_with("#cloud-config\n"));
    assert_eq!(commands(shown), commands(&recipe));
}

fn a_card_without_the_package_says_so(machine: &NspawnMachine, commands: &[Vec<String>]) {
    let (program, arguments) = commands
        .first()
        .and_then(|command| command.split_first())
        .expect("the package is installed first");
    machine.run(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let status = machine.shell(&format!("cat {CARD}/edge-status.txt"));
    assert!(status.starts_with("The package is not installed"), "{status}");
}

#[test]
fn as_root_a_card_with_package_and_bundle_becomes_a_site() {
    let office = Office::new("192.0.2.1:51820");
    office.run(&["add", SITE, "--location", "amsterdam", "--template", "pump", "--with-key"]);
    office.run(&["build"]);
    let hub = OfficeHub::start(office);
    let (cables, plant) = (Namespace::new(), Namespace::new());
    let machine = NspawnMachine::start(&cables);
    hub.namespace.connect(("cable", "192.0.2.1/24"), &cables, ("eth0", "192.0.2.9/24"));
    plant.connect(("cable", "192.168.1.10/24"), &cables, ("eth1", "192.168.1.2/24"));
    let mut simulate = plant.command(&Gateway::program().display().to_string());
    let _plc = Process::start(simulate.args(["simulate", "--listen", "192.168.1.10:502"]));
    machine.run("mkdir", &["-p", CARD]);
    let commands = commands(&read("deploy/raspberry-pi/user-data"));
    a_card_without_the_package_says_so(&machine, &commands);
    let package = DebianPackage::build();
    machine.copy_in(package.path(), &format!("{CARD}/edge-gateway_0.1.0_arm64.deb"));
    machine.copy_in(
        &hub.office.path(format!("secrets/bundles/edge-bundle-{SITE}.tar")),
        &format!("{CARD}/edge-bundle-{SITE}.tar"),
    );
    let data = hub.subscribe(&format!("edge/{SITE}/data/#"));

    for command in commands {
        let (program, arguments) = command.split_first().expect("it has a program");
        machine.run(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    let message = data.try_next(RECOVERY_TIMEOUT);
    assert!(message.is_some(), "{}", machine.journal_text("edge-gateway.service"));
    assert_eq!(machine.run("systemctl", &["is-enabled", "edge-gateway"]).trim(), "enabled");
    let on_card = machine.shell(&format!("ls {CARD}"));
    let is_there = |part: &str| on_card.lines().any(|name| name.starts_with(part));
    assert!(is_there("edge-status.txt") && is_there("edge-enrol-"), "{on_card}");
    assert!(!is_there("edge-bundle"), "{on_card}");
    let status = machine.shell(&format!("cat {CARD}/edge-status.txt"));
    assert!(status.contains("gateway: amsterdam-01\nbundle: 1"), "{status}");
}
