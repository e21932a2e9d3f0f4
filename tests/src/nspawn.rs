//! Debian 13 with a real systemd, in a container of systemd-nspawn. Needs root.
//!
//! Not as on a machine: limits of memory and processor time do nothing, the clock cannot be set,
//! there is no udev, and a power cut loses nothing that was written.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{EVENT_TIMEOUT, Log, Namespace, Process, TempDir, eventually, resources, temp_dir};

/// A boot takes 2 s on an idle machine, and many times that beside a compiler.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the notification with the process id of init may take.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The disk, in the mount namespace of the holder.
const ROOT: &str = "/mnt/root";

/// All writes go to a tmpfs that only this mount namespace sees, so that a disk needs no time to
/// make, survives the container, and leaves no trace. The device for interfaces is as udev makes it:
/// that of this machine may be for root only.
const HOLD: &str = "
set -eu
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mknod -m 666 /mnt/tun c 10 200
mount -t overlay overlay -o lowerdir=\"$1\",upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
echo ready
exec cat
";

/// The machine may set what concerns its own network, below /proc/sys/net, as on a server.
/// systemd-nspawn makes cgroups below its own, which must be one that can be removed. setpriv ends
/// it with the thread that started it, even if that thread is killed.
const BOOT: &str = "
set -eu
name=$1 holder=$2
shift 2
for top in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ -e $top/cgroup.procs ] || continue
    mkdir $top/$name
    echo $$ > $top/$name/cgroup.procs
done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec nsenter --mount=/proc/$holder/ns/mnt setpriv --pdeathsig KILL -- systemd-nspawn \"$@\" >&2
";

/// Options of systemd-nspawn(1). Neither the systemd nor the journal of this machine takes part.
const OPTIONS: [&str; 10] = [
    "--quiet",
    "--boot",
    "--directory",
    ROOT,
    "--register=no",
    "--keep-unit",
    "--link-journal=no",
    "--console=pipe",
    "--capability=CAP_NET_ADMIN",
    "--bind=/mnt/tun:/dev/net/tun",
];

/// Where a container has its cgroups: in the one hierarchy, or in those of systemd.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// A machine with Debian 13. Its network is that of a namespace. Dropping it cuts its power.
#[derive(Debug)]
pub struct NspawnMachine {
    name: String,
    /// File of the network namespace.
    network: PathBuf,
    booted: Option<BootedSystem>,
    dir: TempDir,
    holder: Process,
    /// The holder ends when this closes.
    _leash: ChildStdin,
}

/// A machine whose power is on.
#[derive(Debug)]
struct BootedSystem {
    process: Process,
    /// Process id of its init, as this machine sees it.
    init: u32,
}

/// The lines that a unit has written to the journal, and those that follow.
#[derive(Debug)]
pub struct UnitJournal {
    log: Log,
    _process: Process,
}

impl NspawnMachine {
    /// Makes a machine with a fresh disk. Its power is off.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn new(network: &Namespace) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let system = test_settings::DEBIAN.path();
        let system = system.unwrap_or_else(|| resources::target_dir().join("debian-13"));
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", HOLD, "sh"]);
        let mut holder = Process::start(unshare.arg(system.join("root")));
        let leash = holder.stdin();
        let mut ready = String::new();
        let read = BufReader::new(holder.stdout()).read_line(&mut ready);
        assert_eq!(
            ready.trim(),
            "ready",
            "{read:?}: {}; `cargo xtask test` as root makes {}",
            holder.log().text(),
            system.display(),
        );
        Self {
            name: format!("edge-{}-{number}", std::process::id()),
            network: network.path(),
            booted: None,
            dir: temp_dir(),
            holder,
            _leash: leash,
        }
    }

    /// Makes a machine and boots it.
    #[must_use]
    pub fn start(network: &Namespace) -> Self {
        let mut machine = Self::new(network);
        machine.boot();
        machine.wait_until_up();
        machine
    }

    /// Turns its power on, and waits until systemd takes commands.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn boot(&mut self) {
        assert!(self.booted.is_none(), "its power is on");
        let socket = self.dir.path().join("notify");
        if socket.exists() {
            fs::remove_file(&socket).expect("its own directory is writable");
        }
        let notifications = UnixDatagram::bind(&socket).expect("its own directory is writable");
        let mut boot = Command::new("sh");
        boot.args(["-c", BOOT, "sh", &self.name, &self.holder.id().to_string()]);
        boot.args(OPTIONS).args(["--machine", &self.name]);
        boot.arg(format!("--network-namespace-path={}", self.network.display()));
        let process = Process::start(boot.env("NOTIFY_SOCKET", &socket));
        let init = wait_for_init(&notifications, &process);
        let system = BootedSystem { process, init };
        let ready = system.path("/run/systemd/private");
        eventually("systemd takes commands", BOOT_TIMEOUT, || {
            assert!(Path::new("/proc").join(init.to_string()).exists(), "{}", system.text());
            ready.exists().then_some(())
        });
        self.booted = Some(system);
    }

    /// Waits until every unit of the boot has started, or has failed.
    pub fn wait_until_up(&self) {
        // Its exit code is that of the state, which may be "degraded".
        let state = self.try_run("timeout", &["60", "systemctl", "is-system-running", "--wait"]);
        assert_ne!(state.status.code(), Some(124), "{}", self.system().text());
    }

    /// Cuts its power: every process ends at once. The disk keeps what was written.
    pub fn cut_power(&mut self) {
        let mut system = self.booted.take().expect("its power is on");
        assert!(system.signal_init("KILL"), "it has ended before: {}", system.text());
        system.process.wait(EVENT_TIMEOUT);
        self.remove_cgroups();
    }

    /// Stops systemd with its sockets open, as one that waits for a disk.
    ///
    /// # Panics
    /// When its power is off.
    pub fn pause_systemd(&self) {
        assert!(self.system().signal_init("STOP"), "{}", self.system().text());
    }

    /// Continues systemd.
    ///
    /// # Panics
    /// When its power is off.
    pub fn resume_systemd(&self) {
        assert!(self.system().signal_init("CONT"), "{}", self.system().text());
    }

    /// Returns whether its power is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.booted.is_some()
    }

    /// Returns a command that runs inside, as root, in `/`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.system().init.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"]);
        command.arg(program);
        command.env_clear();
        command.env("PATH", PATH).env("LC_ALL", "C");
        command
    }

    /// Runs a command inside and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_run(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command inside; it may fail.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().expect("nsenter is installed")
    }

    /// Runs lines of shell inside and returns their output.
    ///
    /// # Panics
    /// When one fails.
    pub fn shell(&self, script: &str) -> String {
        self.run("sh", &["-ec", script])
    }

    /// Returns a property of a unit (systemctl(1), `show`).
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run("systemctl", &["show", "--value", "-p", name, unit]).trim().to_owned()
    }

    /// Waits until a property of a unit fits, and returns it.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for_property(
        &self,
        (unit, name): (&str, &str),
        deadline: Duration,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        eventually(&format!("{name} of {unit}"), deadline, || {
            Some(self.property(unit, name)).filter(|value| fits(value))
        })
    }

    /// Returns what the journal has about a unit, from its first line, of it and of systemd.
    #[must_use]
    pub fn journal_text(&self, unit: &str) -> String {
        self.run("journalctl", &["--no-pager", "--output=cat", "--unit", unit])
    }

    /// Follows the journal of a unit, from its first line.
    #[must_use]
    pub fn journal(&self, unit: &str) -> UnitJournal {
        let mut command = self.command("journalctl");
        command.args(["--follow", "--lines=all", "--output=cat", "--unit", unit]);
        let mut process = Process::start(&mut command);
        UnitJournal { log: Log::following(process.stdout()), _process: process }
    }

    /// Returns the path on this machine of a file on its disk, whether its power is on or off. What
    /// is mounted inside, as `/run` and `/tmp` are, is not there.
    #[must_use]
    pub fn on_disk(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{ROOT}{path}", self.holder.id()))
    }

    /// Copies a file of this machine to its disk.
    ///
    /// # Panics
    /// When it cannot.
    pub fn copy_in(&self, from: &Path, to: &str) {
        let copied = fs::copy(from, self.on_disk(to));
        copied.unwrap_or_else(|error| panic!("cannot copy {} to {to}: {error}", from.display()));
    }

    /// Writes a file to its disk, with the mode, and makes its directory.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, path: &str, mode: u32, text: &str) {
        let path = self.on_disk(path);
        let dir = path.parent().expect("a file has a directory");
        fs::create_dir_all(dir).expect("the disk is writable");
        fs::write(&path, text).expect("the disk is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("root may");
    }

    fn system(&self) -> &BootedSystem {
        self.booted.as_ref().expect("its power is on")
    }

    fn remove_cgroups(&self) {
        eventually("the cgroups are empty", EVENT_TIMEOUT, || {
            let left = CGROUPS.map(|top| Path::new(top).join(&self.name));
            left.iter().for_each(|dir| remove_dirs(dir));
            left.iter().all(|dir| !dir.exists()).then_some(())
        });
    }
}

impl Drop for NspawnMachine {
    fn drop(&mut self) {
        if let Some(system) = self.booted.take() {
            // A failure here must not hide the failure of the test.
            system.signal_init("KILL");
            if system.process.log().wait_for_end(EVENT_TIMEOUT) && !std::thread::panicking() {
                self.remove_cgroups();
            }
        }
    }
}

impl BootedSystem {
    /// Returns the path on this machine of a file inside, with everything that is mounted there.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    fn text(&self) -> String {
        self.process.log().text()
    }

    /// Sends init a signal by its name without `SIG`. Returns whether there is an init. With
    /// `KILL`, the kernel kills all other processes too.
    fn signal_init(&self, name: &str) -> bool {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &self.init.to_string()]);
        kill.output().is_ok_and(|sent| sent.status.success())
    }
}

impl UnitJournal {
    /// Waits for the first line, past or future, that contains `part`.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_for_line(&self, part: &str, deadline: Duration) -> String {
        let found = self.log.wait_for_line(part, deadline);
        found.unwrap_or_else(|| panic!("no {part:?} in the journal:\n{}", self.log.text()))
    }
}

/// Returns the process id of init, of which systemd-nspawn notifies (systemd-nspawn(1),
/// `X_NSPAWN_LEADER_PID`).
fn wait_for_init(notifications: &UnixDatagram, process: &Process) -> u32 {
    notifications.set_read_timeout(Some(LEADER_TIMEOUT)).expect("a time-out can be set");
    let mut buffer = [0; 1024];
    loop {
        let size = notifications.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("no init in the container: {error}\n{}", process.log().text())
        });
        let text = String::from_utf8_lossy(&buffer[..size]);
        let id = text.lines().find_map(|line| line.strip_prefix("X_NSPAWN_LEADER_PID="));
        if let Some(id) = id {
            return id.parse().expect("a process id");
        }
    }
}

/// Removes a directory of cgroups and those below it, as far as they are empty.
fn remove_dirs(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_dirs(&entry.path());
        }
    }
    // A process that is about to end still uses it.
    let _ = fs::remove_dir(dir);
}
