//! A file system of its own, on a loop device that counts what it is told to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{TempDir, temp_dir};

const BYTES: u64 = 512 << 20;
/// Unit of /sys/block/*/stat, whatever the device's own is.
const SECTOR: f64 = 512.0;

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    device: String,
    mounted: PathBuf,
    _dir: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let dir = temp_dir();
        let image = dir.path().join("image");
        let file = fs::File::create(&image).expect("its own directory is writable");
        file.set_len(BYTES).expect("a sparse file takes no space");
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        succeed(Command::new("mkfs.ext4").args(["-q", "-F", "-E", options]).arg(&image));
        let device = succeed(Command::new("losetup").args(["--show", "-f"]).arg(&image));
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).expect("its own directory is writable");
        succeed(Command::new("mount").args(["-o", "noatime", &device]).arg(&mounted));
        Self { device, mounted, _dir: dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Makes everything arrive at the device.
    pub(crate) fn sync(&self) {
        succeed(Command::new("sync").arg("-f").arg(&self.mounted));
    }

    /// Bytes that the device was told to write so far.
    pub(crate) fn written(&self) -> f64 {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).expect("it is there");
        let sectors =
            stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<f64>().ok());
        sectors.expect("the seventh field counts sectors written") * SECTOR
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure here must not hide the failure of the measurement.
        let _ = Command::new("umount").arg(&self.mounted).status();
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (as root?): {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
