//! The README is correct: its gateway.toml runs, and each of its commands works as described.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use e2e::{
    EVENT_TIMEOUT, Gateway, Mosquitto, Port, Process, Pymodbus, TempDir, eventually, temp_dir,
};
use provisioning::plc::Table;

/// Every command of the README, in order. A new one must be run here.
const COMMANDS: [&str; 8] = [
    "cargo run --release -- demo",
    "cargo xtask test",
    "edge-gateway check gateway.toml",
    "edge-gateway plan gateway.toml",
    "edge-gateway simulate --model M241 --listen 127.0.0.1:1502",
    "edge-gateway run gateway.toml",
    "edge-gateway status gateway.toml",
    "edge-gateway audit --broker mqtt://127.0.0.1:1883",
];

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(path).expect("the README is there")
}

/// Returns the code blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| Some(block.strip_prefix(language)?.to_owned())).collect()
}

fn configuration(plc: &str, broker: &str) -> String {
    let text = readme();
    let toml = blocks(&text, "toml\n").pop().expect("the README has a gateway.toml");
    toml.replace("127.0.0.1:1502", plc).replace("mqtt://127.0.0.1:1883", broker)
}

#[test]
fn its_commands_are_those_of_this_test() {
    let text = readme();
    let lines: Vec<String> = blocks(&text, "sh\n")
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();

    assert_eq!(lines, COMMANDS);
}

#[test]
fn its_gateway_toml_shows_the_values_that_pymodbus_holds() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[0x0000, 0x41AC, 0xA3D7, 0x40C0]);
    plc.set_registers(Table::HoldingRegister, 28, &[0x0001]);
    let messages = broker.subscribe("edge/amsterdam-01/data/pump6");
    let toml = configuration(&plc.address().to_string(), &broker.url());
    let _gateway = Gateway::start(&toml);

    let slow =
        messages.wait_for("the tags of 1 s", EVENT_TIMEOUT, |m| m.payload.contains("temperature"));
    assert!(slow.payload.contains("\"temperature\":21.5,\"pressure\":6.02,"), "{slow:?}");
    assert_eq!(slow.json()["location"], "amsterdam");
    plc.set_registers(Table::HoldingRegister, 28, &[0x0000]);
    let off =
        messages.wait_for("the bit goes off", EVENT_TIMEOUT, |m| m.json()["running"] == false);
    assert_eq!(off.json()["machine"], "pump6");
}

/// The directory of a new user, with the addresses of the README replaced by free ones.
struct NewUser {
    dir: TempDir,
    plc: Port,
    broker: Mosquitto,
}

impl NewUser {
    fn new() -> Self {
        let (dir, plc, broker) = (temp_dir(), Port::reserve(), Mosquitto::start());
        let toml = configuration(&plc.address().to_string(), &broker.url());
        let metrics = Port::reserve().address();
        dir.write("gateway.toml", &format!("{toml}\n[metrics]\nlisten = [\"{metrics}\"]\n"));
        Self { dir, plc, broker }
    }

    /// Returns a line of the README as a command.
    fn command(&self, line: &str) -> Command {
        let line = line
            .replace("127.0.0.1:1502", &self.plc.address().to_string())
            .replace("mqtt://127.0.0.1:1883", &self.broker.url());
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("edge-gateway"));
        let mut command = Command::new(Gateway::program());
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("EDGE_GATEWAY__STATE_DIR", self.dir.path().join("state"));
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("the program is built")
    }
}

#[test]
fn its_commands_work_in_their_order() {
    let new_user = NewUser::new();
    let [_, _, check, plan, simulate, run, status, audit] = COMMANDS;

    let checked = new_user.run(check);
    assert!(checked.status.success(), "{checked:?}");
    let planned = String::from_utf8(new_user.run(plan).stdout).expect("text");
    assert!(planned.contains("FC 3 ") && planned.contains("temperature"), "{planned}");

    let simulator = Process::start(&mut new_user.command(simulate));
    let gateway = Process::start(&mut new_user.command(run));
    let well = eventually("`status` says that all is well", EVENT_TIMEOUT, || {
        let told = new_user.run(status);
        told.status.success().then(|| String::from_utf8_lossy(&told.stdout).into_owned())
    });
    assert!(well.contains("All is well"), "{well}");

    let audited = new_user.run(&format!("{audit} --for 2s"));
    let report = String::from_utf8_lossy(&audited.stdout).into_owned();
    assert!(
        audited.status.success() && report.contains("edge/amsterdam-01/data/pump6"),
        "{report}"
    );
    drop((gateway, simulator));
}
