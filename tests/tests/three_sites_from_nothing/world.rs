//! An office, a hub and three boxes with a PLC each, on which nothing of a fleet is installed but
//! the programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::{
    Gateway, Machine, Namespace, Office, Process, RECOVERY_TIMEOUT, Subscriber, TempDir,
    eventually, temp_dir,
};

use crate::page::{Place, Step};

pub(crate) const SITES: [&str; 3] = ["amsterdam-01", "rotterdam-01", "utrecht-01"];
/// What stands in for programs that this machine does not run.
const STAND_INS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/operator");
/// The same at every site, as `add` writes it.
const PLC: &str = "192.168.1.10";
/// The web server's directory.
const BUNDLES: &str = "/srv/bundles";

/// All machines. The boxes are in the order of [`SITES`].
pub(crate) struct World {
    pub(crate) office: Machine,
    pub(crate) hub: Machine,
    pub(crate) boxes: Vec<Machine>,
    hub_network: Namespace,
    _plcs: Vec<Process>,
    _networks: Vec<Namespace>,
    _sticks: Vec<TempDir>,
    _bundles: TempDir,
}

impl World {
    pub(crate) fn start() -> Self {
        let (hub_network, office_network) = (Namespace::new(), Namespace::new());
        let (sticks, bundles) = ([temp_dir(), temp_dir(), temp_dir()], temp_dir());
        // The web server reads as a user of its own.
        let served = bundles.path().join("bundles");
        std::fs::create_dir(&served).expect("the directory is the test's");
        let hub = machine(&hub_network, &[("systemctl", "systemctl-hub")], &[(&served, BUNDLES)]);
        let media = SITES.map(|site| format!("/media/{site}"));
        let places: Vec<(&Path, &str)> =
            sticks.iter().map(TempDir::path).zip(media.iter().map(String::as_str)).collect();
        let program = Office::program();
        let own = [(program.as_path(), "/usr/local/bin/edge-provision"), (&served, BUNDLES)];
        let office = machine(&office_network, &[("ssh", "ssh")], &[&places[..], &own].concat());
        office.write("/etc/hub.pid", hub.id());
        let mut world = Self {
            office,
            hub,
            boxes: Vec::new(),
            hub_network,
            _plcs: Vec::new(),
            _networks: vec![office_network],
            _sticks: Vec::new(),
            _bundles: bundles,
        };
        for (number, stick) in sticks.into_iter().enumerate() {
            world.add_box(number, stick);
        }
        world
    }

    /// Adds a box whose `eth0` can get an address, and whose `eth1` leads to a PLC.
    fn add_box(&mut self, number: usize, stick: TempDir) {
        let (network, plc_network) = (Namespace::new(), Namespace::new());
        let (router, lease) = (4 * number + 1, 4 * number + 2);
        let cable = format!("cable{number}");
        self.hub_network.plug(&cable, &network, "eth0");
        let router = format!("192.0.2.{router}");
        self.hub_network.ip(&["address", "add", &format!("{router}/30"), "dev", &cable]);
        self.hub_network.ip(&["link", "set", &cable, "up"]);
        plc_network.plug("eth0", &network, "eth1");
        plc_network.ip(&["address", "add", &format!("{PLC}/24"), "dev", "eth0"]);
        plc_network.ip(&["link", "set", "eth0", "up"]);
        let gateway = Gateway::program();
        let listen = format!("{PLC}:502");
        let mut plc = plc_network.command(&gateway.display().to_string());
        plc.args(["simulate", "--model", "M241", "--listen", &listen]);
        self._plcs.push(Process::start(&mut plc));
        let helper = Office::program().with_file_name("edge-gateway-box");
        let places = [
            (gateway.as_path(), "/usr/bin/edge-gateway"),
            (&helper, "/usr/bin/edge-gateway-box"),
            (stick.path(), "/media/stick"),
        ];
        let stand_ins = [("systemctl", "systemctl-box"), ("networkctl", "networkctl")];
        let one = machine(&network, &stand_ins, &places);
        one.write("/etc/dhcp.lease", &format!("192.0.2.{lease}/30 {router}\n"));
        // What the package makes, and systemd-networkd, which runs.
        one.type_lines(
            "useradd --system edge-gateway\n\
             install -d -o edge-gateway -g edge-gateway -m 0750 /var/lib/edge-gateway\n\
             mkdir -p /etc/systemd/network /run/systemd/netif && touch /run/systemd/netif/state",
        );
        self.boxes.push(one);
        self._sticks.push(stick);
        self._networks.extend([network, plc_network]);
    }

    /// Does one step, at each box if it is one of the boxes. Returns what was printed.
    pub(crate) fn take(&self, step: &Step) -> String {
        match step {
            Step::Save { at, path, text } => {
                self.machines(*at).iter().for_each(|machine| machine.write(path, text));
                String::new()
            }
            // An operator types it again until the last box is there.
            Step::Type { lines, .. } if lines.starts_with("edge-provision status") => {
                self.status_when(|output| output.status.success(), lines)
            }
            Step::Type { at, lines } => {
                let machines = self.machines(*at);
                let typed = machines.iter().map(|machine| machine.try_type(lines));
                typed.map(|output| self.text_of(lines, &output)).collect()
            }
        }
    }

    /// Types a command at the office until its output fits, and returns that.
    pub(crate) fn status_when(&self, fits: impl Fn(&Output) -> bool, lines: &str) -> String {
        let mut last = None;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(lines, RECOVERY_TIMEOUT, || {
                let output = self.office.try_type(lines);
                let found = fits(&output).then(|| text(&output));
                last = Some(output);
                found
            })
        }));
        found.unwrap_or_else(|_| panic!("{lines}\n{last:?}\n{}", self.logs()))
    }

    /// Subscribes at the hub, as the office.
    pub(crate) fn subscribe(&self, filter: &str) -> Subscriber {
        let password = self.office.type_lines("cat secrets/office/mqtt.password");
        let user = ["-u", "office", "-P", password.trim()];
        self.hub_network.subscribe_as(&user, Office::HUB, filter)
    }

    fn machines(&self, place: Place) -> Vec<&Machine> {
        match place {
            Place::Office => vec![&self.office],
            Place::Hub => vec![&self.hub],
            Place::Box => self.boxes.iter().collect(),
        }
    }

    /// Returns what a command has printed.
    ///
    /// # Panics
    /// When it has failed.
    pub(crate) fn text_of(&self, lines: &str, output: &Output) -> String {
        assert!(output.status.success(), "{lines}\n{}\n{}", text(output), self.logs());
        text(output)
    }

    /// Returns the logs of all boxes.
    pub(crate) fn logs(&self) -> String {
        let of_box = |machine: &Machine| {
            let log = "tail -n 30 /var/log/apply.log /var/log/gateway.log; ip address";
            text(&machine.command("sh").args(["-c", log]).output().expect("sh is there"))
        };
        let of_hub = "tail -n 30 /var/log/mosquitto/mosquitto.log; wg show; ip address; ss -ltn";
        let hub = self.hub.command("sh").args(["-c", of_hub]).output().expect("sh is there");
        self.boxes.iter().map(of_box).chain([text(&hub)]).collect::<Vec<_>>().join("\n-----\n")
    }
}

/// Starts a machine with what stands in for programs, each by its name and its file.
fn machine(network: &Namespace, stand_ins: &[(&str, &str)], places: &[(&Path, &str)]) -> Machine {
    let common = [("sudo", "sudo"), ("apt", "apt")];
    let files: Vec<(PathBuf, String)> = common
        .iter()
        .chain(stand_ins)
        .map(|(name, file)| (Path::new(STAND_INS).join(file), format!("/usr/local/sbin/{name}")))
        .collect();
    let all: Vec<(&Path, &str)> = files
        .iter()
        .map(|(file, place)| (file.as_path(), place.as_str()))
        .chain(places.iter().copied())
        .collect();
    Machine::start(network, &all)
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Returns the sites that a text names at the start of its topics.
pub(crate) fn sites_in(values: &str) -> BTreeSet<&str> {
    let topics = values.lines().filter_map(|line| line.strip_prefix("edge/"));
    topics.filter_map(|topic| topic.split_once("/data/")).map(|(site, _)| site).collect()
}
