//! Roots that packages can be installed and purged in without a trace: that of this machine under
//! an overlay, and a small one with BusyBox, as on a router. Each has its own loopback interface
//! and no other network.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdin, Command, Output};

use crate::{EVENT_TIMEOUT, Process, eventually};

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

/// A root with BusyBox and nothing else. Programs of this machine need its C library and its time
/// zones; they are the only files that it shares.
const BUSYBOX_SCRIPT: &str = r"
set -eu
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/upper
cd /mnt/upper
mkdir -p bin sbin usr/bin usr/sbin usr/share/zoneinfo lib lib64 etc srv var/run proc dev root
mkdir -m 1777 tmp
cp -L /bin/busybox bin/busybox
mount --bind -o ro /usr/share/zoneinfo usr/share/zoneinfo
for dir in /lib/*-linux-gnu*; do
    mkdir .$dir
    mount --bind -o ro $dir .$dir
done
for loader in /lib/ld-linux* /lib64/ld-linux*; do
    [ ! -e $loader ] || cp -L $loader .$loader
done
mount --rbind /proc proc
mount --rbind /dev dev
ip link set lo up
# Printed when the root is the new one: nsenter(1) takes the root of this process.
# Not cat: that of BusyBox ends when the pipe behind its output is closed.
exec chroot . bin/busybox sh -c 'busybox --install -s; echo ready; read -r end'
";

/// The directory of a root that holds what was written, in its mount namespace.
const UPPER: &str = "/mnt/upper";

impl Sandbox {
    /// Creates one with the root of this machine.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(SETUP_SCRIPT)
    }

    /// Creates one with BusyBox alone.
    #[must_use]
    pub fn with_busybox() -> Self {
        Self::start_with(BUSYBOX_SCRIPT)
    }

    /// Runs a script that makes the root and stays in it.
    ///
    /// # Panics
    /// When the test does not run as root.
    fn start_with(script: &str) -> Self {
        assert!(is_root(), "needs root; `cargo xtask test` as another user names what it left out");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--propagation", "private", "sh", "-c", script]);
        let mut holder = Process::start(&mut unshare);
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

    /// Returns the files that were written or removed since it was created, each with its path from
    /// the root, and the directories of this name. /tmp and /run do not count.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn changed_files(&self, name: &str) -> Vec<String> {
        let mut find = Command::new("nsenter");
        find.args(["--target", &self.holder.id().to_string(), "--mount", "find", UPPER, "-xdev"]);
        find.args(["(", "!", "-type", "d", "-o", "-name", name, ")", "-printf", "/%P\n"]);
        let found = find.output().expect("nsenter is installed");
        assert!(found.status.success(), "{found:?}");
        let mut files: Vec<_> =
            String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
        files.sort_unstable();
        files
    }

    /// Returns the response of the gateway inside to `GET /healthz`, once there is one.
    ///
    /// # Panics
    /// When `gateway` ends before, or there is none in time.
    pub fn healthz(&self, gateway: &mut Process) -> String {
        eventually("/healthz answers", EVENT_TIMEOUT, || {
            assert!(gateway.is_running(), "it ended:\n{}", gateway.log().text());
            // The shell of this machine, in the network of the sandbox.
            let mut get = Command::new("nsenter");
            get.args(["--target", &self.holder.id().to_string(), "--net", "bash", "-c", HEALTHZ]);
            let answer = get.output().expect("nsenter is installed");
            answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
        })
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

/// A GET request in bash, which needs no other program.
const HEALTHZ: &str = r"
exec 3<>/dev/tcp/127.0.0.1/9464
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
cat <&3
";

/// Returns whether the test runs as root.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is installed");
    id.stdout == b"0\n"
}
