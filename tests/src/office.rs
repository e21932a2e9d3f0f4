//! An office: a fleet in a directory, and the program `edge-provision`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{EVENT_TIMEOUT, Namespace, Process, TempDir, WireguardInterface, resources, temp_dir};

/// A fleet in a directory of its own.
#[derive(Debug)]
pub struct Office {
    dir: TempDir,
}

impl Office {
    /// Address of `hub-a` inside the tunnel.
    pub const HUB: &str = "10.77.0.1";

    /// Makes a fleet with one hub, `hub-a`, at this endpoint.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        let office = Self { dir: temp_dir() };
        office.run(&["init", ".", "--endpoint", endpoint]);
        office
    }

    /// Returns the path of the program under test.
    #[must_use]
    pub fn program() -> PathBuf {
        resources::workspace_program("edge-provision", test_settings::PROVISION)
    }

    /// Runs a command in the directory of the fleet and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "edge-provision {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs a command in the directory of the fleet, whether it succeeds or not.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(Self::program());
        command.args(arguments).current_dir(self.dir.path()).output().expect("it starts")
    }

    /// Starts `hub-a` in a namespace as its rendered files say: the interface `edge`, and the packet
    /// filter.
    ///
    /// # Panics
    /// When one of them is refused, or the test does not run as root.
    #[must_use]
    pub fn start_hub(&self, namespace: &Namespace) -> WireguardInterface {
        self.run(&["hub"]);
        let etc = self.path("out/hubs/hub-a/etc");
        let file = etc.join("wireguard/edge.conf").display().to_string();
        let settings = namespace.run("wg-quick", &["strip", &file]);
        let interface =
            WireguardInterface::start(namespace, "edge", &settings, &format!("{}/16", Self::HUB));
        // The line PostUp of the file, which wg-quick would run.
        namespace.run("sysctl", &["-q", "-w", "net.ipv4.conf.edge.forwarding=1"]);
        namespace.run("nft", &["-f", &etc.join("nftables.d/edge.nft").display().to_string()]);
        interface
    }

    /// Starts Mosquitto with its rendered files, except that it listens at another address.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_mosquitto(&self, start: impl Fn(&str) -> Command, listener: &str) -> Process {
        let rendered = format!("listener 1883 {}", Self::HUB);
        let settings = self.mosquitto_settings();
        assert!(settings.contains(&rendered), "{settings}");
        // Mosquitto would give up root's rights, and could not read the directory of the test.
        let settings = settings.replace(&rendered, listener) + "user root\n";
        self.run_mosquitto(start, &settings)
    }

    /// Starts Mosquitto with its rendered files as root does: it becomes the user `mosquitto`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_mosquitto_as_its_user(&self, start: impl Fn(&str) -> Command) -> Process {
        // Only the directory of a test has another mode than /etc.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.dir.path(), open).expect("the directory is one of the test");
        self.run_mosquitto(start, &self.mosquitto_settings())
    }

    fn mosquitto_settings(&self) -> String {
        let etc = self.path("out/hubs/hub-a/etc").display().to_string();
        let text = self.read("out/hubs/hub-a/etc/mosquitto/conf.d/edge.conf");
        text.replace("/etc/", &format!("{etc}/"))
    }

    fn run_mosquitto(&self, start: impl Fn(&str) -> Command, settings: &str) -> Process {
        let data = self.path("data");
        fs::create_dir_all(&data).expect("the directory is writable");
        let everyone = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&data, everyone).expect("the directory is one of the test");
        let data = data.display();
        let own = format!("log_dest stderr\npersistence_location {data}/\n");
        let path = self.path("mosquitto.conf");
        fs::write(&path, settings.to_owned() + &own).expect("the directory is writable");
        let program = resources::system_program(Path::new("mosquitto"));
        let process = Process::start(start(&program.display().to_string()).arg("-c").arg(path));
        process.wait_for_line(" running", EVENT_TIMEOUT);
        process
    }

    /// Returns the path of a file of the fleet.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the text of a file of the fleet.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// Changes a file of the fleet.
    pub fn change(&self, name: &str, change: impl FnOnce(String) -> String) {
        fs::write(self.path(name), change(self.read(name))).expect("the directory is writable");
    }
}
