//! A small virtual machine: Debian's kernel under QEMU's emulation (no KVM, no root), busybox, and
//! programs of this machine. It is up a few seconds after its start; the test types at its console.

mod cpio;
mod image;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::Duration;

use crate::{Log, Process, TempDir, temp_dir};
use cpio::CpioArchive;
use image::GuestImage;

/// A boot takes 3 s on an idle machine, and many times that while a compiler runs.
const BOOT_TIMEOUT: Duration = Duration::from_secs(100);
/// Longest time of one command at the console.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Configuration of a virtual machine.
#[derive(Clone, Debug, Default)]
pub struct GuestBuilder {
    modules: Vec<String>,
    programs: Vec<PathBuf>,
    files: Vec<(String, Vec<u8>)>,
    setup: String,
    devices: Vec<String>,
    forwards: Option<String>,
    packed: Option<Arc<[u8]>>,
}

/// A running virtual machine. Dropping it kills it; it also ends with the thread that booted it.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    console: Log,
    keyboard: RefCell<ChildStdin>,
    commands: Cell<u32>,
    _dir: TempDir,
}

/// Result of a command at the console.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandResult {
    /// Exit code.
    pub code: u8,
    /// Both outputs, and anything else that was written to the console meanwhile.
    pub output: String,
}

impl GuestBuilder {
    /// Adds kernel modules, loaded at boot after their dependencies.
    #[must_use]
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Adds a program of this machine, by its path or its name, with its libraries. It is in /bin
    /// and hides the applet of busybox with the same name.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.programs.push(program.as_ref().to_owned());
        self
    }

    /// Adds a file, by its absolute path.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Adds lines of shell that run during the boot, in order. `$(disk NAME)` is the device of a
    /// disk. A failing line stops the boot.
    #[must_use]
    pub fn setup(mut self, script: &str) -> Self {
        self.setup.push_str(script);
        self.setup.push('\n');
        self
    }

    /// Adds a disk that an NBD server offers at this Unix socket. QEMU does not cache it.
    #[must_use]
    pub fn disk(mut self, name: &str, socket: &Path) -> Self {
        let socket = socket.display();
        self.devices.extend([
            "-drive".to_owned(),
            format!("file=nbd:unix:{socket},format=raw,if=none,id={name},cache=writeback"),
            "-device".to_owned(),
            format!("virtio-blk-pci,drive={name},serial={name}"),
        ]);
        self.modules(&["virtio_pci", "virtio_blk"])
    }

    /// Adds the network interface eth0, 10.0.2.15/24. It reaches only this machine's loopback, at
    /// 10.0.2.2.
    #[must_use]
    pub fn network(mut self) -> Self {
        if self.forwards.is_some() {
            return self;
        }
        self.forwards = Some(String::new());
        self.modules(&["virtio_pci", "virtio_net"])
            .setup("ip link set lo up\nip address add 10.0.2.15/24 dev eth0\nip link set eth0 up")
    }

    /// Forwards a UDP port of 127.0.0.1 to a port of the guest.
    #[must_use]
    pub fn forward_udp(self, from: u16, to: u16) -> Self {
        self.forward("udp", from, to)
    }

    /// Forwards a TCP port of 127.0.0.1 to a port of the guest.
    #[must_use]
    pub fn forward_tcp(self, from: u16, to: u16) -> Self {
        self.forward("tcp", from, to)
    }

    fn forward(self, protocol: &str, from: u16, to: u16) -> Self {
        let mut with_network = self.network();
        let forwards = with_network.forwards.get_or_insert_default();
        forwards.push_str(&format!(",hostfwd={protocol}:127.0.0.1:{from}-10.0.2.15:{to}"));
        with_network
    }

    /// Packs programs and files once, for a machine that boots often. Nothing can be added later.
    #[must_use]
    pub(crate) fn packed(mut self) -> Self {
        self.packed = Some(self.initramfs(&GuestImage::find()).into());
        self
    }

    /// Boots it and waits until it is up.
    ///
    /// # Panics
    /// When it does not come up; the message contains its console.
    #[must_use]
    pub fn boot(&self) -> Guest {
        let (kit, dir) = (GuestImage::find(), temp_dir());
        let initramfs = dir.path().join("initramfs");
        let packed = self.packed.clone().unwrap_or_else(|| self.initramfs(&kit).into());
        std::fs::write(&initramfs, packed).expect("its own directory is writable");
        let mut qemu = kit.qemu(&initramfs);
        qemu.args(&self.devices);
        if let Some(forwards) = &self.forwards {
            // The empty romfile removes the boot ROM of the card, which costs time.
            qemu.args(["-netdev", &format!("user,id=net{forwards}")]);
            qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        let mut process = Process::start(&mut qemu);
        let console = Log::following(process.stdout());
        let keyboard = RefCell::new(process.stdin());
        let guest = Guest { process, console, keyboard, commands: Cell::new(0), _dir: dir };
        guest.wait_for_line("[guest is up]", BOOT_TIMEOUT);
        guest
    }

    fn initramfs(&self, kit: &GuestImage) -> Vec<u8> {
        let mut archive = CpioArchive::default();
        archive.add("/init", 0o755, include_bytes!("guest/init.sh"));
        archive.add("/setup", 0o644, format!("set -e\n{}", self.setup).as_bytes());
        archive.add("/bin/busybox", 0o755, &kit.busybox());
        let mut order = String::new();
        for (name, module) in kit.modules(&self.modules) {
            archive.add(&format!("/modules/{name}"), 0o644, &module);
            order.push_str(&name);
            order.push('\n');
        }
        archive.add("/modules/order", 0o644, order.as_bytes());
        for (path, content) in
            image::shell().into_iter().chain(self.programs.iter().flat_map(image::program))
        {
            archive.add(&path, 0o755, &content);
        }
        for (path, content) in &self.files {
            archive.add(path, 0o644, content);
        }
        archive.finish()
    }
}

impl Guest {
    /// Returns an empty configuration.
    #[must_use]
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }

    /// Returns the process id of QEMU.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns everything written to its console.
    #[must_use]
    pub const fn console(&self) -> &Log {
        &self.console
    }

    /// Waits for the first line on its console, past or future, that contains `part`.
    ///
    /// # Panics
    /// When there is none in time, or the machine has ended.
    pub fn wait_for_line(&self, part: &str, deadline: Duration) -> String {
        self.console.wait_for_line(part, deadline).unwrap_or_else(|| {
            panic!(
                "the guest never wrote {part:?}; its console:\n{}\nand QEMU:\n{}",
                self.console.text(),
                self.process.log().text(),
            )
        })
    }

    /// Types a line of shell at the console without waiting for its end. The console runs lines one
    /// after the other.
    pub fn send(&self, line: &str) -> u32 {
        assert!(!line.contains('\n'), "the console takes one line: {line}");
        let id = self.commands.get() + 1;
        self.commands.set(id);
        let mut keyboard = self.keyboard.borrow_mut();
        writeln!(keyboard, "{id} {line}").and_then(|()| keyboard.flush()).unwrap_or_else(|error| {
            panic!("cannot type {line:?}: {error}\n{}", self.console.text());
        });
        id
    }

    /// Types a line of shell and waits for its end; it may fail.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn try_run(&self, line: &str) -> CommandResult {
        let id = self.send(line);
        let end = self.wait_for_line(&format!("[end {id} "), COMMAND_TIMEOUT);
        command_result(id, &end, &self.console.text())
    }

    /// Types a line of shell, waits for its end and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, line: &str) -> String {
        let outcome = self.try_run(line);
        assert_eq!(outcome.code, 0, "{line}: {}", outcome.output);
        outcome.output
    }

    /// Kills it like a power cut and returns everything that was written to its console.
    pub fn kill(mut self) -> Log {
        self.process.kill();
        assert!(
            self.console.wait_for_end(COMMAND_TIMEOUT),
            "the console of a dead machine is closed"
        );
        self.console.clone()
    }
}

/// Extracts the output of a command from the text of the console.
fn command_result(id: u32, end: &str, console: &str) -> CommandResult {
    let begin = format!("[begin {id}]");
    let lines = console.lines().skip_while(|line| *line != begin).skip(1);
    let mut output: Vec<&str> = lines.take_while(|line| *line != end).collect();
    // Output without a final newline is on the line of the mark.
    let (last, mark) = end.split_at(end.find("[end ").expect("the mark was found by this"));
    if !last.is_empty() {
        output.push(last);
    }
    let code = mark.trim_end_matches(']').rsplit(' ').next().and_then(|code| code.parse().ok());
    CommandResult {
        code: code.expect("the mark ends with an exit code"),
        output: output.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_command_lies_between_its_marks() {
        let console = "[begin 1]\nold\n[end 1 0]\n[begin 2]\na\nb\n[end 2 3]\nlater";
        let expected = CommandResult { code: 3, output: "a\nb".to_owned() };
        assert_eq!(command_result(2, "[end 2 3]", console), expected);
        let console = "[begin 1]\nno newline[end 1 0]";
        assert_eq!(command_result(1, "no newline[end 1 0]", console).output, "no newline");
    }
}
