//! A machine whose power is cut, and the disk after the cut.

mod nbd_disk;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::MutexGuard;

use crate::{Guest, GuestBuilder, Log, TempDir, system_program, temp_dir};
use nbd_disk::NbdDisk;

const DISK_BYTES: u64 = 64 << 20;

/// A machine with an ext4 at /data, on a disk that survives all power cuts.
///
/// Every start is a cold boot. Resuming a snapshot would be faster, but every run would draw the
/// same random numbers.
#[derive(Debug)]
pub struct PowerCut {
    machine: GuestBuilder,
    running: Option<(Guest, NbdDisk)>,
    random: fastrand::Rng,
    dir: TempDir,
}

/// Whether the file system passes the flushes of programs on to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Barriers {
    /// It does, as by default.
    Kept,
    /// It does not (ext4(5), `barrier=0`): data is lost although the program flushes. A test uses
    /// this to prove that it would notice a loss.
    Ignored,
}

/// State after a power cut.
#[derive(Debug)]
pub struct CutOutcome {
    /// Everything written to the console.
    pub console: Log,
    /// Flush requests that the disk received.
    pub flushes: u64,
    /// Sectors that were written but not flushed, and are lost.
    pub lost_sectors: usize,
    /// State of the file system.
    pub filesystem: FilesystemState,
}

/// Result of e2fsck(8) after the replay of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FilesystemState {
    /// No errors.
    Sound,
    /// Errors were repaired; the report of e2fsck.
    Repaired(String),
}

impl PowerCut {
    /// Adds an empty disk to a machine, which stays off. The seed decides which sectors a cut
    /// loses.
    #[must_use]
    pub fn new(machine: GuestBuilder, barriers: Barriers, seed: u64) -> Self {
        let dir = temp_dir();
        let disk = dir.path().join("disk");
        let file = File::create(&disk).expect("its own directory is writable");
        file.set_len(DISK_BYTES).expect("a sparse file takes no space");
        // Without these options, the kernel initialises tables in the background during the test.
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        succeed(tool("mkfs.ext4").args(["-q", "-F", "-E", at_once]).arg(&disk));
        let options = match barriers {
            Barriers::Kept => "",
            Barriers::Ignored => "-o barrier=0 ",
        };
        let mount = format!("mkdir -p /data\nmount -t ext4 {options}$(disk data) /data");
        let machine = machine.disk("data", &dir.path().join("socket")).modules(&["ext4"]);
        let machine = machine.setup(&mount).packed();
        Self { machine, running: None, random: fastrand::Rng::with_seed(seed), dir }
    }

    /// Boots the machine with the disk as it is.
    ///
    /// # Panics
    /// When it runs already, or does not come up.
    pub fn power_on(&mut self) -> &Guest {
        assert!(self.running.is_none(), "the power is on already");
        let socket = self.dir.path().join("socket");
        if socket.exists() {
            fs::remove_file(&socket).expect("its own directory is writable");
        }
        let medium = File::options().read(true).write(true).open(self.disk());
        let disk = NbdDisk::serve(medium.expect("the disk is there"), &socket);
        &self.running.insert((self.machine.boot(), disk)).0
    }

    /// The running machine.
    ///
    /// # Panics
    /// When the power is off.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.running.as_ref().expect("the power is on").0
    }

    /// Blocks every request to the disk until the returned guard is dropped.
    ///
    /// # Panics
    /// When the power is off.
    pub fn block_disk(&self) -> MutexGuard<'_, ()> {
        self.running.as_ref().expect("the power is on").1.block()
    }

    /// Cuts the power. Each sector that was not flushed is lost with a random probability: all,
    /// half or one sixteenth of them.
    ///
    /// # Panics
    /// When the power is off.
    pub fn cut(&mut self) -> CutOutcome {
        let of_sixteen = [0, 8, 15][self.random.usize(..3)];
        let mut random = self.random.clone();
        let left = self.cut_with(|| random.usize(..16) < of_sixteen);
        self.random = random;
        left
    }

    /// Cuts the power and loses every sector that was not flushed.
    ///
    /// # Panics
    /// When the power is off.
    pub fn cut_losing_all(&mut self) -> CutOutcome {
        self.cut_with(|| false)
    }

    fn cut_with(&mut self, survives: impl FnMut() -> bool) -> CutOutcome {
        let (guest, disk) = self.running.take().expect("the power is on");
        let console = guest.kill();
        let (flushes, lost_sectors) = disk.switch_off().discard_unflushed(survives);
        CutOutcome { console, flushes, lost_sectors, filesystem: self.check() }
    }

    /// Checks a copy of the disk, which stays as the cut has left it.
    fn check(&self) -> FilesystemState {
        let copy = self.dir.path().join("copy");
        succeed(tool("cp").arg("--sparse=always").arg(self.disk()).arg(&copy));
        // The first run replays the journal and updates counters, which is normal after a crash.
        // Only a second, forced run shows whether anything else was wrong.
        let replayed = run(tool("e2fsck").args(["-y"]).arg(&copy));
        let forced = run(tool("e2fsck").args(["-fy"]).arg(&copy));
        match forced.status.code() {
            Some(0) => FilesystemState::Sound,
            Some(1) => {
                FilesystemState::Repaired(String::from_utf8_lossy(&forced.stdout).into_owned())
            }
            _ => panic!("e2fsck: {replayed:?}, then {forced:?}"),
        }
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }
}

fn tool(name: &str) -> Command {
    Command::new(system_program(Path::new(name)))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
}
