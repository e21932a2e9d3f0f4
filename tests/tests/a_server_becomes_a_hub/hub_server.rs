//! A clean Debian 13 on which `install.sh` runs, and what its Prometheus says.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use e2e::{Namespace, NspawnMachine, Office, commands_of_page, http_get};
use serde_json::Value;

/// A server of which a test makes a hub.
pub(crate) struct HubServer<'n> {
    pub(crate) machine: NspawnMachine,
    network: &'n Namespace,
}

/// Services that the script runs. chrony needs a clock of its own, which a container has not.
pub(crate) const UNITS: [&str; 5] = [
    "wg-quick@edge.service",
    "mosquitto.service",
    "nginx.service",
    "prometheus.service",
    "prometheus-alertmanager.service",
];

/// The page whose commands are run here.
const PAGE: &str = "docs/hub/install.md";
const SCRIPT: &str = "hub-a/install.sh";
/// How the page reaches the hub.
const SSH: &str = " | ssh root@hub-a ";

impl<'n> HubServer<'n> {
    /// Boots it without a way to a mirror.
    pub(crate) fn start(network: &'n Namespace) -> Self {
        let machine = NspawnMachine::start(network);
        machine.shell("cp -r /var/lib/apt/lists-of-hub/. /var/lib/apt/lists");
        machine.write("/etc/apt/apt.conf.d/offline", 0o644, "Acquire::Retries \"0\";\n");
        Self { machine, network }
    }

    /// Empties the packet filter, which outlives the machine: it belongs to the namespace.
    pub(crate) fn forget_packet_filter(&self) {
        self.network.run("nft", &["flush", "ruleset"]);
    }

    /// Types the commands of the page at the office; between them, `change` may change the files
    /// of the hub.
    pub(crate) fn copy_files(&self, office: &Office, change: impl Fn(&Office)) {
        for line in commands_of_page(PAGE, "office") {
            let (here, there) = line.split_once(SSH).unwrap_or((line.as_str(), "cat"));
            let program = Office::program();
            let dir = program.parent().expect("a directory").display();
            let path = format!("{dir}:/usr/sbin:/usr/bin:/sbin:/bin");
            let mut typed = Command::new("sh");
            typed.args(["-c", here]).env("PATH", path).current_dir(office.path("."));
            let mut typed = typed.stdout(Stdio::piped()).spawn().expect("sh is there");
            let stdout = typed.stdout.take().expect("it is a pipe");
            let mut login = self.machine.command("sh");
            login.args(["-c", &format!("cd /root && {there}")]).stdin(stdout);
            let output = login.output().expect("nsenter is installed");
            assert!(output.status.success(), "{there}: {output:?}");
            assert!(typed.wait().expect("it is a child").success(), "{here}");
            if there == "cat" {
                change(office);
            }
        }
    }

    /// Copies a directory of this machine to its disk.
    pub(crate) fn copy_in(&self, from: &Path, to: &str) {
        let to = self.machine.on_disk(to);
        fs::create_dir_all(&to).expect("the disk is writable");
        let mut copy = Command::new("cp");
        let copied = copy.args(["-r", "--no-target-directory"]).arg(from).arg(to).output();
        assert!(copied.as_ref().is_ok_and(|done| done.status.success()), "{copied:?}");
    }

    /// Types a command of the page at the hub, and returns what it prints.
    pub(crate) fn install(&self, arguments: &str) -> String {
        let line = format!("sh {SCRIPT} {arguments}").trim_end().to_owned();
        let documented = ["hub", "mail", "node-red"].map(|place| commands_of_page(PAGE, place));
        assert!(documented.concat().contains(&line), "{line} is on {PAGE}");
        self.machine.shell(&format!("cd /root; {line}"))
    }

    /// Runs the script, which may fail, with a variable of its environment.
    pub(crate) fn try_install(&self, variable: (&str, &str), arguments: &str) -> Output {
        let mut command = self.machine.command("sh");
        command
            .env(variable.0, variable.1)
            .arg(format!("/root/{SCRIPT}"))
            .args(arguments.split_whitespace());
        command.output().expect("nsenter is installed")
    }

    /// Returns every file below /etc and /srv with its content, mode and owner, and since when each
    /// service runs as which process.
    pub(crate) fn state(&self) -> String {
        let files = "find /etc /srv -xdev -type f -exec sha256sum {} + -exec stat -c '%n %a %U' {} \
                     + | sort; find /etc -xdev -type l | sort";
        let names = "Id,ActiveState,ActiveEnterTimestamp,MainPID,StateChangeTimestamp";
        let properties = ["show", "-p", names];
        let units = self.machine.run("systemctl", &[&properties[..], &UNITS].concat());
        self.machine.shell(files) + &units
    }

    /// Returns the sockets that listen, as `udp 0.0.0.0:51820`, without those of systemd itself.
    pub(crate) fn listeners(&self) -> Vec<String> {
        let shown = self.machine.run("ss", &["-Hltun"]);
        let socket = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", words[0], words[4])
        };
        shown.lines().map(socket).collect()
    }

    /// Asks Prometheus, and returns the series of the answer.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        self.ask("query", expression, "")
    }

    /// Asks Prometheus for every two seconds between two times, in seconds since 1970.
    pub(crate) fn query_range(&self, expression: &str, (from, to): (f64, f64)) -> Vec<Value> {
        self.ask("query_range", expression, &format!("&start={from}&end={to}&step=2"))
    }

    fn ask(&self, kind: &str, expression: &str, rest: &str) -> Vec<Value> {
        let address: SocketAddr = "127.0.0.1:9090".parse().expect("an address");
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/{kind}?query={encoded}{rest}");
        let Ok(answer) = self.network.enter(|| http_get(address, &path)) else {
            return Vec::new();
        };
        // It has just started.
        if answer.status == 503 {
            return Vec::new();
        }
        let answer: Value = serde_json::from_str(&answer.body).expect("Prometheus answers in JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("a list").clone()
    }

    /// Returns what the services have written.
    pub(crate) fn logs(&self) -> String {
        let journal = |unit: &&str| self.machine.journal_text(unit);
        let broker = fs::read_to_string(self.machine.on_disk("/var/log/mosquitto/mosquitto.log"));
        UNITS.iter().map(journal).collect::<String>() + &broker.unwrap_or_default()
    }
}
