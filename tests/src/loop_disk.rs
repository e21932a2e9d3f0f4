//! A file system of its own, on a loop device: one that can be filled, that can break, and that counts
//! what it is told to write. Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{TempDir, system_program, temp_dir};

/// Unit of /sys/block/*/stat, whatever the device's own is.
const SECTOR_BYTES: f64 = 512.0;
/// Takes what others have left.
const FILLER_FILE: &str = "filler";

/// An ext4, mounted. Nothing is reserved for root.
#[derive(Debug)]
pub struct LoopDisk {
    device: String,
    mounted: PathBuf,
    _dir: TempDir,
}

impl LoopDisk {
    /// Makes one of this size and mounts it.
    ///
    /// # Panics
    /// When this is not root.
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
        let disk = Self { device, mounted, _dir: dir };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Takes every block that is free.
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

    /// Gives back what [`LoopDisk::fill`] took.
    pub fn free_filled(&self) {
        fs::remove_file(self.mounted.join(FILLER_FILE)).expect("it is full");
    }

    /// Mounts it anew for reading alone, or for writing again. Nobody may write there.
    pub fn remount(&self, mode: &str) {
        succeed(tool("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.mounted));
    }

    /// Lets the file system find an error, upon which nothing can be written any more.
    pub fn inject_error(&self) {
        let path = format!("/sys/fs/ext4/{}/trigger_fs_error", self.name());
        fs::write(&path, "broken by a test").unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Repairs it. Nobody may use it.
    pub fn repair(&self) {
        succeed(tool("umount").arg(&self.mounted));
        let code = tool("e2fsck").arg("-fy").arg(&self.device).output().expect("it is there");
        // Errors were found, and corrected.
        assert_eq!(code.status.code(), Some(1), "{code:?}");
        self.mount();
    }

    fn mount(&self) {
        let options = "noatime,errors=remount-ro";
        succeed(tool("mount").args(["-o", options, &self.device]).arg(&self.mounted));
    }

    /// Makes everything arrive at the device.
    pub fn sync(&self) {
        succeed(Command::new("sync").arg("-f").arg(&self.mounted));
    }

    /// Bytes that the device was told to write so far.
    #[must_use]
    pub fn bytes_written(&self) -> f64 {
        let path = format!("/sys/block/{}/stat", self.name());
        let stat = fs::read_to_string(path).expect("it is there");
        let sectors =
            stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<f64>().ok());
        sectors.expect("the seventh field counts sectors written") * SECTOR_BYTES
    }

    fn name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A failure here must not hide the failure of the test.
        let _ = tool("umount").arg(&self.mounted).status();
        let _ = tool("losetup").args(["-d", &self.device]).status();
    }
}

/// A program of the administrator's.
fn tool(name: &str) -> Command {
    Command::new(system_program(Path::new(name)))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (as root?): {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
