//! A file system on a loop device, or in memory, that a test can fill and break, and that counts the
//! bytes written. Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{TempDir, system_program, temp_dir};

/// Unit of /sys/block/*/stat for every device.
const SECTOR_BYTES: f64 = 512.0;
/// File that fills the file system.
const FILLER_FILE: &str = "filler";

/// A mounted ext4 without blocks reserved for root, or a tmpfs.
#[derive(Debug)]
pub struct LoopDisk {
    /// Absent with tmpfs.
    device: Option<String>,
    mounted: PathBuf,
    _dir: TempDir,
}

impl LoopDisk {
    /// Creates and mounts one of this size.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let dir = temp_dir();
        let image = dir.path().join("image");
        let file = File::create(&image).expect("its own directory is writable");
        file.set_len(bytes).expect("a sparse file takes no space");
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        let mut mkfs = tool("mkfs.ext4");
        succeed(mkfs.args(["-q", "-F", "-m", "0", "-E", options]).arg(&image));
        let device = succeed(tool("losetup").args(["--show", "-f"]).arg(&image));
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).expect("its own directory is writable");
        let disk = Self { device: Some(device), mounted, _dir: dir };
        disk.mount();
        disk
    }

    /// Mounts a tmpfs of this size.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn tmpfs(bytes: u64) -> Self {
        let dir = temp_dir();
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).expect("its own directory is writable");
        let size = format!("size={bytes}");
        succeed(tool("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mounted));
        Self { device: None, mounted, _dir: dir }
    }

    /// Returns its mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Fills every free block.
    pub fn fill(&self) {
        let mut filler = File::create(self.mounted.join(FILLER_FILE)).expect("it is writable");
        for piece in [64 << 10, 4096, 1] {
            let zeros = vec![0; piece];
            let error = loop {
                if let Err(error) = filler.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    /// Frees the blocks of [`LoopDisk::fill`].
    pub fn free_filled(&self) {
        fs::remove_file(self.mounted.join(FILLER_FILE)).expect("it is full");
    }

    /// Remounts it with the option `ro` or `rw`. No file may be open for writing.
    pub fn remount(&self, mode: &str) {
        succeed(tool("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.mounted));
    }

    /// Triggers a file system error, after which ext4 refuses writes.
    pub fn inject_error(&self) {
        let path = format!("/sys/fs/ext4/{}/trigger_fs_error", self.name());
        fs::write(&path, "broken by a test").unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Unmounts, repairs and mounts it. No file may be open.
    pub fn repair(&self) {
        succeed(tool("umount").arg(&self.mounted));
        let code = tool("e2fsck").arg("-fy").arg(self.device()).output().expect("it exists");
        // e2fsck(8): errors were corrected.
        assert_eq!(code.status.code(), Some(1), "{code:?}");
        self.mount();
    }

    fn mount(&self) {
        let options = "noatime,errors=remount-ro";
        succeed(tool("mount").args(["-o", options, self.device()]).arg(&self.mounted));
    }

    /// Syncs the file system.
    pub fn sync(&self) {
        succeed(Command::new("sync").arg("-f").arg(&self.mounted));
    }

    /// Returns the bytes written to the device so far.
    #[must_use]
    pub fn bytes_written(&self) -> f64 {
        let path = format!("/sys/block/{}/stat", self.name());
        let stat = fs::read_to_string(path).expect("it exists");
        let sectors =
            stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<f64>().ok());
        sectors.expect("the seventh field counts sectors written") * SECTOR_BYTES
    }

    fn name(&self) -> &str {
        self.device().trim_start_matches("/dev/")
    }

    fn device(&self) -> &str {
        self.device.as_deref().expect("this is no tmpfs")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A failure here must not hide the failure of the test.
        let _ = tool("umount").arg(&self.mounted).status();
        if let Some(device) = &self.device {
            let _ = tool("losetup").args(["-d", device]).status();
        }
    }
}

/// Returns a system program, such as those in /usr/sbin.
fn tool(name: &str) -> Command {
    Command::new(system_program(Path::new(name)))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (as root?): {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
