//! Settings that the book shows for other programs: those programs accept them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::{ControlSocket, Namespace, Port, Process, TempDir, eventually, system_program, temp_dir};
use test_settings::XTASK;
use tunnel::PrivateKey;

use crate::pages::{Block, Line, page, pages};

const SOON: Duration = Duration::from_secs(30);

/// Returns the text of a file that a page of the book shows.
fn shown_file(at: &str, named: &str) -> String {
    let file = page(at).blocks().into_iter().find_map(|block| match block {
        Block::File { path, text } => (path == named).then_some(text),
        Block::Fragment(_) | Block::Json(_) | Block::Commands(_) => None,
    });
    file.unwrap_or_else(|| panic!("{at} shows no {named}"))
}

/// Replaces what an operator has to fill in.
fn with_keys(text: &str) -> String {
    let (hub, site) = (PrivateKey::generate(), PrivateKey::generate().public_key().to_string());
    let text = text.replace("the hub's private key", hub.expose().as_str());
    let text = text.replace("the line that keygen printed on the box", &site);
    text.replace("the line that keygen printed", &site)
}

#[test]
fn as_root_wireguard_takes_the_file_of_the_hub() {
    let shown = shown_file("docs/hub/hub.md", "/etc/wireguard/wg0.conf");
    let peer = page("docs/site/tunnel.md").text;
    let (_, peer) = peer.split_once("```ini\n[Peer]").expect("a peer is shown");
    let peer = format!("[Peer]{}", peer.split("```").next().expect("the block ends"));
    for text in [shown, format!("[Interface]\nListenPort = 51820\nPrivateKey = {}\n{peer}", KEY)] {
        let (dir, namespace) = (temp_dir(), Namespace::new());
        let device = format!("book{}", fastrand::u16(..));
        let mut command = namespace.command("wireguard-go");
        let socket = ControlSocket::of(&device);
        let _wireguard = Process::start(command.args(["--foreground", &device]));
        eventually("wireguard-go listens", SOON, || socket.path().exists().then_some(()));
        let file = dir.write_private("wg0.conf", &with_keys(&text));
        let stripped = namespace.run("wg-quick", &["strip", &file]);
        let stripped = dir.write_private("stripped.conf", &stripped);

        namespace.run("wg", &["setconf", &device, &stripped]);

        assert_eq!(namespace.run("wg", &["show", &device, "listen-port"]).trim(), "51820");
        let allowed = namespace.run("wg", &["show", &device, "allowed-ips"]);
        assert!(allowed.trim().ends_with("10.77.0.12/32"), "{allowed}");
    }
}

/// Any private key.
const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// Starts Mosquitto with the settings of the book, at another address and in another directory.
fn mosquitto_of_the_book(dir: &TempDir, port: &Port) -> Process {
    let place = dir.path().display().to_string();
    let passwords = dir.write("passwords", "");
    for name in ["amsterdam-01", "rotterdam-01", "node-red"] {
        let added = Command::new("mosquitto_passwd")
            .arg("-b")
            .arg(&passwords)
            .args([name, "secret"])
            .output();
        let added = added.expect("mosquitto_passwd is installed");
        assert!(added.status.success(), "{added:?}");
    }
    dir.write("acl", &shown_file("docs/hub/hub.md", "/etc/mosquitto/acl"));
    let shown = shown_file("docs/hub/hub.md", "/etc/mosquitto/conf.d/edge-gateway.conf");
    let listener = format!("listener {} 127.0.0.1", port.number());
    let text =
        shown.replace("listener 1883 10.77.0.1", &listener).replace("/etc/mosquitto", &place);
    assert!(text.contains(&listener) && text.contains(&place), "{text}");
    // As root it would drop its privileges and could not read the directory of the test.
    let rest = format!("user root\nlog_dest stderr\nlog_type all\npersistence_location {place}/\n");
    let file = dir.write("mosquitto.conf", &format!("{text}{rest}"));
    let program = system_program("mosquitto".as_ref());
    let process = Process::start(Command::new(program).arg("-c").arg(file));
    process.wait_for_line(" running", SOON);
    process
}

#[test]
fn mosquitto_with_the_settings_of_the_book_lets_each_gateway_write_its_own_topics_only() {
    let (dir, port) = (temp_dir(), Port::reserve());
    let _broker = mosquitto_of_the_book(&dir, &port);
    let publish = |user: &str, topic: &str| -> Output {
        let mut client = Command::new("mosquitto_pub");
        client.args(["-V", "5", "-q", "1", "-d", "-h", "127.0.0.1", "-u", user, "-P", "secret"]);
        client.args(["-p", &port.number().to_string(), "-t", topic, "-m", "1", "-r"]);
        client.output().expect("mosquitto_pub is installed")
    };
    let is_refused = |user, topic| {
        let output = publish(user, topic);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("received PUBACK"), "{output:?}");
        // "Not authorized" (MQTT 5.0, 3.4.2.1).
        text.contains("RC:135")
    };

    assert!(!is_refused("amsterdam-01", "edge/amsterdam-01/data/pump6"));
    assert!(is_refused("amsterdam-01", "edge/rotterdam-01/data/pump6"));
    assert!(is_refused("node-red", "edge/amsterdam-01/data/pump6"));
    let mut reader = Command::new("mosquitto_sub");
    reader.args(["-u", "node-red", "-P", "secret", "-t", "edge/#", "-C", "1", "-W", "10", "-v"]);
    reader.args(["-h", "127.0.0.1", "-p", &port.number().to_string()]);
    let read = reader.output().expect("mosquitto_sub is installed");
    assert_eq!(String::from_utf8_lossy(&read.stdout), "edge/amsterdam-01/data/pump6 1\n");
    assert!(!is_refused("node-red", "edge/amsterdam-01/set/pump6"));
    assert!(is_refused("node-red", "edge/amsterdam-01/set/mixer"));
    assert!(is_refused("rotterdam-01", "edge/amsterdam-01/set/pump6"));
}

/// The unit starts a shell, so systemd's own check says nothing about the command in it.
#[test]
fn the_unit_of_the_recorder_is_valid_and_its_command_records() {
    let (dir, port) = (temp_dir(), Port::reserve());
    let shown = shown_file("docs/hub/completeness.md", "/etc/systemd/system/edge-capture.service");
    let unit = dir.write("edge-capture.service", &shown);
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
    let verified = verified.expect("systemd-analyze is installed");
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");

    let _broker = mosquitto_of_the_book(&dir, &port);
    let command = shown.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '"));
    let command = command.and_then(|line| line.strip_suffix('\'')).expect("a shell is started");
    dir.write("recorder", "secret");
    let place = dir.path().display().to_string();
    // systemd reads `%%` and `\"` within quotes as `%` and `"`.
    let command = command
        .replace("%%", "%")
        .replace("-h 10.77.0.1 -u recorder", &format!("-p {} -u node-red", port.number()))
        .replace("/etc/mosquitto", &place)
        .replace("/var/lib/edge-capture", &place);
    let _recorder = Process::start(Command::new("sh").args(["-c", &command]));
    let publish = || {
        let mut client = Command::new("mosquitto_pub");
        client.args(["-u", "amsterdam-01", "-P", "secret", "-h", "127.0.0.1"]);
        client.args([
            "-p",
            &port.number().to_string(),
            "-t",
            "edge/amsterdam-01/event",
            "-m",
            "{}",
        ]);
        client.output().expect("mosquitto_pub is installed")
    };
    let recorded = eventually("a message is recorded", SOON, || {
        publish();
        fs::read_to_string(dir.path().join("capture.jsonl")).ok().filter(|text| !text.is_empty())
    });
    let line = recorded.lines().next().expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["topic"], "edge/amsterdam-01/event");
}

/// The book's other `cargo` lines are what CI runs, or name a test or a benchmark that exists.
#[test]
fn every_cargo_line_of_the_book_names_what_exists() {
    let help = Command::new(e2e::workspace_program("xtask", XTASK)).arg("--help").output();
    let help = String::from_utf8(help.expect("xtask starts").stdout).expect("text");
    let is_command = |name: &str| help.lines().any(|line| line.trim_start().starts_with(name));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it");
    let has_test = |package: &str, test: &str| {
        let dir = if package == "e2e" { "tests" } else { package };
        let tests = root.join(dir).join("tests");
        tests.join(format!("{test}.rs")).exists() || tests.join(test).is_dir()
    };
    let lines: Vec<Line> = pages().iter().flat_map(crate::pages::Page::lines).collect();
    let cargo = lines.iter().filter_map(|line| line.command.strip_prefix("cargo "));
    let mut seen = 0;
    for line in cargo {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| {
            words.iter().position(|at| *at == word).and_then(|at| words.get(at + 1)).copied()
        };
        let is_known = match words.as_slice() {
            ["xtask", name, ..] => is_command(name),
            ["test", ..] => match (after("-p"), after("--test")) {
                (Some(package), Some(test)) => has_test(package, test),
                (Some("e2e"), None) => true,
                _ => false,
            },
            _ => false,
        };
        assert!(is_known, "cargo {line}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}
