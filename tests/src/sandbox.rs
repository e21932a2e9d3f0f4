//! The root of this machine under an overlay: packages can be installed and purged in it without a
//! trace. It has its own loopback interface and no other network.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdin, Command, Output};

use crate::Process;

/// A mount namespace with a private, writable root that is discarded. Needs root.
#[derive(Debug)]
pub struct Sandbox {
    holder: Process,
    /// The holder ends when this closes.
    _leash: ChildStdin,
}

/// Returns the part of a script that makes the root. All writes go to a tmpfs that only its mount
/// namespace sees. The root of a container may be an overlay itself, which cannot be the upper layer
/// of another; a tmpfs can.
macro_rules! overlay_script {
    () => {
        r"
set -eu
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
"
    };
}
pub(crate) use overlay_script;

const SETUP_SCRIPT: &str = concat!(
    overlay_script!(),
    r"
ip link set lo up
mount --rbind /proc proc
mount --rbind /sys sys
mount --rbind /dev dev
# Printed when the root is the new one: nsenter(1) takes the root of this process.
exec chroot . sh -c 'echo ready; exec cat'
"
);

impl Sandbox {
    /// Creates it.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn start() -> Self {
        assert!(is_root(), "needs root; `cargo xtask test` as another user names what it left out");
        let mut holder = Process::start(Command::new("unshare").args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SETUP_SCRIPT,
        ]));
        let leash = holder.stdin();
        let mut ready = String::new();
        let read = BufReader::new(holder.stdout()).read_line(&mut ready);
        assert_eq!(ready.trim(), "ready", "{read:?}: {}", holder.log().text());
        Self { holder, _leash: leash }
    }

    /// Returns a command that runs inside, as root, in `/`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.holder.id().to_string(),
            "--mount",
            "--net",
            "--root",
            "--wd",
        ]);
        command.arg("--").arg(program);
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a command inside and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command inside; it may fail.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().expect("nsenter is installed")
    }

    /// Copies a file of this machine into it.
    pub fn copy_in(&self, from: &Path, to: &str) {
        let file = std::fs::File::open(from)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", from.display()));
        let copied =
            self.command("dd").args([&format!("of={to}"), "status=none"]).stdin(file).status();
        assert!(copied.expect("nsenter is installed").success(), "cannot copy to {to}");
    }
}

/// Returns whether the test runs as root.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is installed");
    id.stdout == b"0\n"
}
