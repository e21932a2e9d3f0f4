//! The files that `cargo xtask test` prepares for virtual machines, and programs of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{resources, temp_dir};

/// `quiet` hides the kernel's messages, `panic=-1` ends QEMU when the kernel panics,
/// `no_timer_check` accepts a timer that ticks late on a busy machine (without it the kernel panics),
/// the others save a third of the boot time.
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 no_timer_check nokaslr mitigations=off";

/// A program of this size is a debug build; its symbols are useless in a guest.
const STRIP_FROM_BYTES: usize = 8 << 20;

/// The directory that xtask fills.
#[derive(Debug)]
pub(super) struct GuestImage {
    dir: PathBuf,
    kernel: String,
}

impl GuestImage {
    /// Finds the directory that `cargo xtask test` prepares.
    pub(super) fn find() -> Self {
        let dir = test_settings::GUEST.path();
        let dir = dir.unwrap_or_else(|| resources::target_dir().join("guest"));
        let kernel = fs::read_to_string(dir.join("kernel"));
        let kernel = kernel.expect("`cargo xtask test` prepares the kernel and QEMU of the guests");
        Self { dir, kernel }
    }

    /// Returns QEMU with its console at standard input and output, and without devices.
    ///
    /// setpriv ends it with the thread that started it, even if that thread is killed.
    pub(super) fn qemu(&self, initramfs: &Path) -> Command {
        let unpacked = self.root().join("usr/bin/qemu-system-x86_64");
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"]);
        if unpacked.is_file() {
            let lib = |dir: &str| self.root().join(dir).display().to_string();
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(lib).join(":");
            qemu.arg(unpacked).env("LD_LIBRARY_PATH", libraries);
        } else {
            qemu.arg("qemu-system-x86_64");
        }
        qemu.args(["-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config"]);
        qemu.args(["-display", "none", "-no-reboot", "-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.dir.join("vmlinux")).arg("-initrd").arg(initramfs);
        qemu.args(["-append", KERNEL_COMMAND_LINE]);
        qemu
    }

    pub(super) fn busybox(&self) -> Vec<u8> {
        let found = ["bin/busybox", "usr/bin/busybox"].map(|path| self.root().join(path));
        let found = found.iter().find(|path| path.is_file()).expect("busybox-static is unpacked");
        read(found)
    }

    /// Returns these modules and their dependencies, by file name, in the order of loading.
    pub(super) fn modules(&self, names: &[String]) -> Vec<(String, Vec<u8>)> {
        let mut seen = BTreeSet::new();
        let paths = names.iter().flat_map(|name| self.load_order(name));
        paths.filter(|path| seen.insert(path.clone())).map(|path| module(&path)).collect()
    }

    /// Returns the files that modprobe would load for one module. It prints lines of `insmod PATH
    /// OPTIONS` and `builtin NAME`. The module configuration of this machine is ignored.
    fn load_order(&self, name: &str) -> Vec<PathBuf> {
        let mut modprobe = Command::new(resources::system_program(Path::new("modprobe")));
        modprobe.arg("--dirname").arg(self.root()).args(["--set-version", &self.kernel]);
        modprobe.args(["--config", "/dev/null", "--show-depends", name]);
        let order = print(&mut modprobe);
        let paths = order.lines().filter_map(|line| line.strip_prefix("insmod "));
        paths.map(|path| PathBuf::from(path.trim())).collect()
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }
}

/// Returns this machine's shell as /bin/sh.
pub(super) fn shell() -> Vec<(String, Vec<u8>)> {
    with_libraries("sh", Path::new("/bin/sh"))
}

/// Returns a program of this machine as /bin/NAME.
pub(super) fn program(program: impl AsRef<Path>) -> Vec<(String, Vec<u8>)> {
    let found = resources::system_program(program.as_ref());
    let name = found.file_name().expect("a program has a name").to_string_lossy();
    with_libraries(&name, &found)
}

/// Returns a program in /bin, and its libraries at their own paths.
fn with_libraries(name: &str, program: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(format!("/bin/{name}"), stripped(program))];
    for path in libraries(program) {
        files.push((path.display().to_string(), read(&path)));
    }
    files
}

/// Returns the libraries that ld.so(8) loads: the absolute paths in the output of ldd.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = print(Command::new("ldd").arg(program));
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(|word| PathBuf::from(word.trim_end_matches(':'))).collect()
}

/// Returns the program, without its symbols if it is large.
fn stripped(program: &Path) -> Vec<u8> {
    let whole = read(program);
    if whole.len() < STRIP_FROM_BYTES {
        return whole;
    }
    let dir = temp_dir();
    let small = dir.path().join("stripped");
    print(Command::new("strip").arg("-o").arg(&small).arg(program));
    read(&small)
}

/// Returns the name and the content of a module. Debian 13 compresses its modules.
fn module(path: &Path) -> (String, Vec<u8>) {
    let name = path.file_name().expect("a module has a name").to_string_lossy().into_owned();
    match name.strip_suffix(".xz") {
        None => (name, read(path)),
        Some(plain) => (
            plain.to_owned(),
            output(Command::new("xz").args(["--decompress", "--stdout"]).arg(path)),
        ),
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn print(command: &mut Command) -> String {
    String::from_utf8(output(command)).expect("it prints text")
}

/// Returns the standard output of a command.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}
