//! A machine whose power is cut, and what its disk then holds.
//!
//! The disk forgets like a real one: what the guest has written and not flushed lies in QEMU's
//! memory, as far as it changes a cluster of 4 KiB for the first time since the power came on, and
//! is gone when QEMU is killed. What was overwritten twice since then may survive unflushed, so the
//! disk is a judge of lost acknowledgements, and not of writes that arrive in the wrong order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Guest, GuestBuilder, Log, TempDir, debian, temp_dir};

const DISK_BYTES: u64 = 64 << 20;

/// A machine with an ext4 at /data, on a disk that goes through all its lives.
///
/// Every life is a cold boot: one that is resumed from a snapshot would be quicker and draw the same
/// random numbers as the life before.
#[derive(Debug)]
pub struct PowerCut {
    machine: GuestBuilder,
    guest: Option<Guest>,
    dir: TempDir,
}

/// Whether the filesystem hands the flushes of programs on to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Barriers {
    /// It does, as everywhere.
    Kept,
    /// It does not (ext4(5), `barrier=0`): a program that flushes rightly loses all the same. With
    /// this a test proves that it would notice.
    Ignored,
}

/// A directory of the disk as the next life would find it.
#[derive(Debug)]
pub struct Found {
    dir: TempDir,
    /// What it was read from.
    pub filesystem: Filesystem,
}

/// What e2fsck(8) says, once it has replayed the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Filesystem {
    /// There was nothing to repair.
    Sound,
    /// There was, as it reports.
    Repaired(String),
}

impl PowerCut {
    /// Takes a machine and gives it an empty disk. The power is off.
    #[must_use]
    pub fn new(machine: GuestBuilder, barriers: Barriers) -> Self {
        let power = Self { machine, guest: None, dir: temp_dir() };
        let disk = fs::File::create(power.disk()).expect("its own directory is writable");
        disk.set_len(DISK_BYTES).expect("a sparse file takes no space");
        // What mkfs leaves for later is otherwise done in the first life, beside the test.
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        succeed(tool("mkfs.ext4").args(["-q", "-F", "-E", at_once]).arg(power.disk()));
        let options = match barriers {
            Barriers::Kept => "",
            Barriers::Ignored => "-o barrier=0 ",
        };
        let mount = format!("mkdir -p /data\nmount -t ext4 {options}$(disk data) /data");
        let overlay = power.overlay();
        let machine = power.machine.clone().disk("data", &overlay).modules(&["ext4"]);
        Self { machine: machine.setup(&mount), ..power }
    }

    /// Boots the machine with the disk as it is.
    ///
    /// # Panics
    /// When it runs already, or does not come up.
    pub fn power_on(&mut self) -> &Guest {
        assert!(self.guest.is_none(), "the power is on already");
        let mut create = tool("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-o", "cluster_size=4k", "-b"]);
        succeed(create.arg(self.disk()).arg(self.overlay()));
        self.guest.insert(self.machine.boot())
    }

    /// The running machine.
    ///
    /// # Panics
    /// When the power is off.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        self.guest.as_ref().expect("the power is on")
    }

    /// Cuts the power. Gives everything that had come to the console.
    ///
    /// # Panics
    /// When the power is off.
    pub fn cut(&mut self) -> Log {
        let console = self.guest.take().expect("the power is on").kill();
        copy_disk(&self.overlay(), "qcow2", &self.next());
        fs::rename(self.next(), self.disk()).expect("both are in its own directory");
        console
    }

    /// Reads a directory of the disk, `/` for all of it, from a checked copy: the disk stays as the
    /// cut has left it.
    ///
    /// # Panics
    /// When the power is on, or the filesystem is beyond repair.
    #[must_use]
    pub fn find(&self, directory: &str) -> Found {
        assert!(self.guest.is_none(), "the power is on: the disk is in use");
        let dir = temp_dir();
        let copy = dir.path().join("disk.raw");
        copy_disk(&self.disk(), "raw", &copy);
        let filesystem = check(&copy);
        let files = dir.path().join("files");
        fs::create_dir(&files).expect("its own directory is writable");
        // It complains of owners that it cannot set where it is not root, and goes on.
        let request = format!("rdump {directory} {}", files.display());
        run(tool("debugfs").args(["-R", &request]).arg(&copy));
        fs::remove_file(copy).expect("its own directory is writable");
        Found { dir, filesystem }
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.raw")
    }

    fn overlay(&self) -> PathBuf {
        self.dir.path().join("since-power-on.qcow2")
    }

    fn next(&self) -> PathBuf {
        self.dir.path().join("next.raw")
    }
}

impl Found {
    /// A file or directory, by its path from the root of the disk, or from the parent of the
    /// directory that was asked for. It may not be there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }
}

/// Holes stay holes.
fn copy_disk(from: &Path, format: &str, to: &Path) {
    succeed(tool("qemu-img").args(["convert", "-f", format, "-O", "raw"]).arg(from).arg(to));
}

fn check(image: &Path) -> Filesystem {
    // The first replays the journal and may then count anew what a crash leaves uncounted; whether
    // anything was wrong beyond that is what a second, forced one finds.
    let replayed = run(tool("e2fsck").args(["-y"]).arg(image));
    let forced = run(tool("e2fsck").args(["-fy"]).arg(image));
    match forced.status.code() {
        Some(0) => Filesystem::Sound,
        Some(1) => Filesystem::Repaired(String::from_utf8_lossy(&forced.stdout).into_owned()),
        _ => panic!("e2fsck: {replayed:?}, then {forced:?}"),
    }
}

fn tool(name: &str) -> Command {
    Command::new(debian(Path::new(name)))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
}
