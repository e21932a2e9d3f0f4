//! The reader's desk: a directory, a broker, a PLC and a hub, in which a page is played.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::{
    Gateway, LocalHub, Mosquitto, Office, Port, Process, TempDir, eventually, system_program,
    temp_dir,
};
use tunnel::PrivateKey;

use crate::pages::{Block, Line, Page, page};

const SOON: Duration = Duration::from_secs(30);
/// The configuration of the package's service.
const SERVICE_FILE: &str = "/etc/edge-gateway/gateway.toml";
/// Places of the book that lie in the desk's own directory.
const PLACES: [&str; 5] = [
    "/etc/edge-gateway",
    "/etc/systemd/system",
    "/var/lib/edge-gateway",
    "/usr/share/doc/edge-gateway",
    "/tmp/edge-gateway-trial",
];
/// Commands that a test cannot run, and what stands in for them.
const NOT_RUN: [(&str, &str); 4] = [
    ("cargo ", "CI runs `cargo xtask test`, which also builds the package; benches take minutes"),
    ("valgrind ", "needs what the line before it printed; another test counts with callgrind"),
    ("callgrind_annotate ", "the same"),
    ("sudo edge-gateway tunnel ", "needs root: the_tunnel_alone.rs runs it"),
];

/// Where a page is played.
pub(crate) struct Desk {
    dir: TempDir,
    broker: Mosquitto,
    plc: Port,
    faulty_plc: Port,
    metrics: Port,
    hub: Option<LocalHub>,
    /// Commands that keep running.
    running: Vec<(String, Process)>,
    service: Option<Process>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let dir = temp_dir();
        for place in ["bin", "home"].into_iter().chain(PLACES.map(|p| p.trim_start_matches('/'))) {
            fs::create_dir_all(dir.path().join(place)).expect("the directory is writable");
        }
        symlink(Gateway::program(), dir.path().join("bin/edge-gateway")).expect("a link");
        symlink(Office::program(), dir.path().join("bin/edge-provision")).expect("a link");
        let sudo = dir.write("bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
        fs::set_permissions(sudo, fs::Permissions::from_mode(0o755)).expect("its own file");
        let examples = dir.path().join("usr/share/doc/edge-gateway/examples");
        fs::create_dir_all(&examples).expect("the directory is writable");
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/tun.conf");
        fs::copy(shipped, examples.join("tun.conf")).expect("the package ships it");
        Self {
            dir,
            broker: Mosquitto::start(),
            plc: Port::reserve(),
            faulty_plc: Port::reserve(),
            metrics: Port::reserve(),
            hub: None,
            running: Vec::new(),
            service: None,
        }
    }

    /// A desk of which the first page was played already: with the README's file, with the
    /// service installed, or with nothing.
    pub(crate) fn prepared_for(page: &Page) -> Self {
        let mut desk = Self::new();
        let (text, installs) = (&page.text, page.path == "docs/site/install.md");
        if !text.contains("edge-gateway simulate --listen 127.0.0.1:1502") {
            desk.start("edge-gateway simulate --listen 127.0.0.1:1502");
        }
        if page.path == "docs/fleet/updates.md" {
            // To the office each is a package by its first bytes.
            for version in ["0.1.0", "0.2.0"] {
                let name = format!("home/edge-gateway_{version}_arm64.deb");
                desk.dir.write(&name, &format!("!<arch>\n{version}"));
            }
        }
        let is_service = ["docs/site/", "docs/hub/"].iter().any(|at| page.path.starts_with(at));
        if is_service && !installs {
            desk.play(&self::page("docs/site/install.md").blocks());
        }
        let has_file = page
            .blocks()
            .iter()
            .any(|block| matches!(block, Block::File { path, .. } if path == "gateway.toml"));
        if !is_service && !has_file {
            let files = self::page("README.md").blocks().into_iter();
            desk.play(
                &files.filter(|block| matches!(block, Block::File { .. })).collect::<Vec<_>>(),
            );
            if text.contains("--learned") {
                desk.start("edge-gateway run gateway.toml");
            }
        }
        desk
    }

    /// Writes the files and runs the commands. Gives how many steps that were, and what the last
    /// command printed.
    pub(crate) fn play(&mut self, blocks: &[Block]) -> (usize, String) {
        let (mut steps, mut printed) = (0, String::new());
        for block in blocks {
            match block {
                Block::File { path, text } => {
                    self.write(path, text);
                    steps += 1;
                }
                Block::Commands(lines) => {
                    for line in lines {
                        printed = self.run(line);
                        steps += 1;
                    }
                }
                Block::Fragment(_) | Block::Json(_) => {}
            }
        }
        (steps, printed)
    }

    /// The broker of the page.
    pub(crate) const fn broker(&self) -> &Mosquitto {
        &self.broker
    }

    fn write(&self, path: &str, text: &str) {
        let mut text = self.translated(text);
        if path.ends_with("gateway.toml") && !text.contains("[metrics]") {
            text.push_str(&format!("\n[metrics]\nlisten = [\"{}\"]\n", self.metrics.address()));
        }
        if path == SERVICE_FILE {
            let state = self.place("/var/lib/edge-gateway");
            text = text.replace("[gateway]\n", &format!("[gateway]\nstate_dir = \"{state}\"\n"));
        }
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it is writable");
        fs::write(path, text).expect("it is writable");
    }

    fn run(&mut self, line: &Line) -> String {
        let command = line.command.as_str();
        if NOT_RUN.iter().any(|(not_run, _)| command.starts_with(not_run)) {
            return String::new();
        }
        if let Some(arguments) = command.strip_prefix("sudo apt install ") {
            return package_is_named_right(arguments);
        }
        if let Some(path) = command.strip_prefix("sudo nano ") {
            return self.edit(path);
        }
        if let Some(arguments) = command.strip_prefix("sudo systemctl ") {
            return self.systemctl(arguments);
        }
        if command.starts_with("sudo journalctl -u edge-gateway") {
            return String::new();
        }
        if line.keeps_running() {
            self.start(command);
            return String::new();
        }
        // What the gateway has just begun takes a moment.
        let takes_time = ["status", "audit", "--learned"].iter().any(|word| command.contains(word));
        if takes_time {
            return eventually(command, SOON, || {
                let output = self.bash(command).output().expect("bash is there");
                output.status.success().then(|| text(&output))
            });
        }
        let output = self.bash(command).output().expect("bash is there");
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.logs());
        text(&output)
    }

    fn start(&mut self, command: &str) {
        // A second gateway with the same state would refuse: the reader stops the first.
        if command.starts_with("edge-gateway run") {
            self.running.retain(|(running, _)| !running.starts_with("edge-gateway run"));
        }
        let process = Process::start(self.bash(&format!("exec {command}")).arg("desk"));
        self.running.push((command.to_owned(), process));
        if command.contains("simulate") {
            let port = if command.contains("1503") { &self.faulty_plc } else { &self.plc };
            eventually(command, SOON, || TcpStream::connect(port.address()).ok());
        }
    }

    /// Plays an editor: an empty file gets a password.
    fn edit(&self, path: &str) -> String {
        let path = self.path(path);
        if path.metadata().is_ok_and(|file| file.len() == 0) {
            fs::write(path, "a password\n").expect("it is writable");
        }
        String::new()
    }

    /// Plays systemd: hands the credentials of the drop-ins over and starts the service.
    fn systemctl(&mut self, arguments: &str) -> String {
        match arguments {
            "daemon-reload" | "edit edge-gateway" => {}
            "enable --now edge-gateway" | "restart edge-gateway" => self.start_service(),
            other => panic!("systemctl {other} is not played here"),
        }
        String::new()
    }

    fn start_service(&mut self) {
        self.service = None;
        self.provide_hub();
        let credentials = self.dir.path().join("credentials");
        fs::create_dir_all(&credentials).expect("it is writable");
        let drop_ins = self.path("/etc/systemd/system/edge-gateway.service.d");
        for drop_in in fs::read_dir(drop_ins).into_iter().flatten().filter_map(Result::ok) {
            let text = fs::read_to_string(drop_in.path()).expect("it is readable");
            for line in text.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
                let (name, path) = line.split_once(':').expect("NAME:PATH");
                fs::copy(path, credentials.join(name)).expect("the secret is there");
            }
        }
        let file = self.path(SERVICE_FILE);
        let mut command = Command::new(Gateway::program());
        command.arg("run").arg(file).env("CREDENTIALS_DIRECTORY", credentials);
        self.service = Some(Process::start(&mut command));
    }

    /// Sets a hub up for the key that the page has made, at the place that its file names.
    fn provide_hub(&mut self) {
        let key = self.path("/etc/edge-gateway/tunnel.key");
        let Ok(key) = fs::read_to_string(key) else { return };
        let key: PrivateKey = key.trim().parse().expect("keygen makes keys");
        let broker = ([127, 0, 0, 1], self.broker.port()).into();
        let hub = LocalHub::start(key.public_key(), None, broker);
        let file = self.path(SERVICE_FILE);
        let text = fs::read_to_string(&file).expect("the page has written it");
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("endpoint", _)) => format!("endpoint = \"{}\"\n", hub.address()),
            Some(("public_key", _)) => format!("public_key = \"{}\"\n", hub.public_key()),
            _ => format!("{line}\n"),
        });
        fs::write(file, lines.collect::<String>()).expect("it is writable");
        self.hub = Some(hub);
    }

    /// A command line as bash runs it at this desk.
    fn bash(&self, line: &str) -> Command {
        // Long enough to see something.
        let mut line = self.translated(line).replace("--for 10s", "--for 2s");
        for client in ["mosquitto_sub ", "mosquitto_pub "] {
            line = line.replace(client, &format!("{client}-p {} ", self.broker.port()));
        }
        for (documented, port) in [("-p 1502 ", &self.plc), ("-p 1503 ", &self.faulty_plc)] {
            line = line.replace(documented, &format!("-p {} ", port.number()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let takes_file = words.iter().any(|word| ["check", "status", "plan"].contains(word));
        let names_file = words.iter().any(|word| word.ends_with(".toml"));
        if line.contains("edge-gateway ") && takes_file && !names_file {
            line = format!("{line} {}", self.path(SERVICE_FILE).display());
        }
        let promtool = system_program("promtool".as_ref());
        let path = format!(
            "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            self.dir.path().join("bin").display(),
            promtool.parent().expect("a directory").display()
        );
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", &line]);
        command.current_dir(self.dir.path().join("home")).env("PATH", path);
        command
    }

    /// The text with this desk's places and addresses.
    fn translated(&self, text: &str) -> String {
        let plc = self.plc.address().to_string();
        let mut text = text
            .replace("127.0.0.1:1502", &plc)
            .replace("192.0.2.10", &plc)
            .replace("127.0.0.1:1503", &self.faulty_plc.address().to_string())
            .replace("mqtt://127.0.0.1:1883", &self.broker.url())
            .replace("127.0.0.1:9464", &self.metrics.address().to_string());
        for place in PLACES {
            text = text.replace(place, &self.place(place));
        }
        text
    }

    fn place(&self, place: &str) -> String {
        self.path(place).display().to_string()
    }

    fn path(&self, path: &str) -> PathBuf {
        let dir = self.dir.path();
        path.strip_prefix('/').map_or_else(|| dir.join("home").join(path), |path| dir.join(path))
    }

    fn logs(&self) -> String {
        let running = self.running.iter().map(|(command, process)| (command.as_str(), process));
        let service = self.service.iter().map(|process| ("service", process));
        let logs = running
            .chain(service)
            .map(|(name, process)| format!("--- {name}\n{}\n", process.log().text()));
        logs.collect()
    }
}

/// `./edge-gateway_VERSION_ARCH.deb`, as `cargo xtask deb` names it, and packages of Debian. That
/// it installs is another test's matter.
fn package_is_named_right(arguments: &str) -> String {
    let (file, others) = arguments.split_once(' ').unwrap_or((arguments, ""));
    assert_eq!(file, format!("./edge-gateway_{}_amd64.deb", env!("CARGO_PKG_VERSION")));
    for package in others.split_whitespace() {
        assert!(["mosquitto", "mosquitto-clients"].contains(&package), "{package}");
    }
    String::new()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
