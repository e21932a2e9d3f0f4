//! Network namespaces: two machines and a cable between them. Needs root.

use std::fs::File;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::Subscriber;
use crate::subscriber::SUBSCRIBE_COMMAND;

/// A machine with a loopback and the interfaces that are moved into it. Removed when dropped.
#[derive(Debug)]
pub struct Namespace(String);

/// Two machines connected by a veth cable: 192.0.2.1 and 192.0.2.2 (TEST-NET-1).
#[derive(Debug)]
pub struct NamespacePair {
    /// The site, 192.0.2.1.
    pub site: Namespace,
    /// The hub, 192.0.2.2.
    pub hub: Namespace,
}

impl Namespace {
    /// Creates it.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edge-{}-{number}", process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Returns a command that runs inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Runs a command inside and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect("ip is installed");
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Subscribes to a broker from inside.
    #[must_use]
    pub fn subscribe(&self, broker: &str, filter: &str) -> Subscriber {
        self.subscribe_as(&[], broker, filter)
    }

    /// Subscribes to a broker from inside, with the options of mosquitto_sub(1) for a user.
    #[must_use]
    pub fn subscribe_as(&self, user: &[&str], broker: &str, filter: &str) -> Subscriber {
        let [first, rest @ ..] = SUBSCRIBE_COMMAND;
        let mut command = self.command(first);
        command.args(rest).args(["-h", broker]).args(user);
        Subscriber::start(command, filter)
    }

    /// Runs `ip` for this namespace.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.0], arguments].concat());
    }

    /// Runs `work` in a thread whose sockets are inside, and returns its result.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let place = File::open(self.path()).expect("the namespace is there");
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // setns(2) moves only this thread, and the sockets that it opens.
                setns(place, CloneFlags::CLONE_NEWNET).expect("it is a network namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects this machine to another one by a veth cable, and gives both ends an address.
    pub fn connect(&self, (device, address): (&str, &str), other: &Self, there: (&str, &str)) {
        self.plug(device, other, there.0);
        for (namespace, (device, address)) in [(self, (device, address)), (other, there)] {
            namespace.ip(&["address", "add", address, "dev", device]);
            namespace.ip(&["link", "set", device, "up"]);
        }
    }

    /// Connects this machine to another one by a veth cable, whose ends are down.
    pub fn plug(&self, device: &str, other: &Self, there: &str) {
        let ends = ["link", "add", device, "netns", self.name(), "type", "veth"];
        ip(&[&ends[..], &["peer", "name", there, "netns", other.name()]].concat());
    }

    /// Returns the file of the namespace (ip-netns(8)).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.0)
    }

    /// Returns its name, for `ip`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure here must not hide the failure of the test.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl NamespacePair {
    /// Creates both machines and the cable.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn new() -> Self {
        let (site, hub) = (Namespace::new(), Namespace::new());
        site.connect(("cable", "192.0.2.1/24"), &hub, ("cable", "192.0.2.2/24"));
        Self { site, hub }
    }
}

impl Default for NamespacePair {
    fn default() -> Self {
        Self::new()
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip is installed");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}
