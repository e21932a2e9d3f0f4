//! The directory that is packed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{command, output_of, run};

/// A directory for the files of the package; removed when dropped.
#[derive(Debug)]
pub(super) struct StagingDir(PathBuf);

impl StagingDir {
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        let stage = Self(root);
        fs::create_dir_all(&stage.0).with_context(|| stage.0.display().to_string())?;
        stage.set_mode("", 0o755)?;
        Ok(stage)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.make_parents(to)?;
        fs::copy(from, self.0.join(to)).with_context(|| from.display().to_string())?;
        self.set_mode(to, mode)
    }

    pub(super) fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        fs::set_permissions(self.0.join(path), Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {path}"))
    }

    /// Removes debug symbols.
    pub(super) fn strip(&self, path: &str) -> Result<()> {
        run(command("strip", &["--strip-unneeded", "--remove-section=.comment"])
            .arg(self.0.join(path)))
    }

    /// Compresses without name and time, so that the result depends only on the content.
    pub(super) fn compress(&self, path: &str) -> Result<()> {
        run(command("gzip", &["-9n"]).arg(self.0.join(path)))
    }

    /// Returns the checksums of all files below usr/, as in DEBIAN/md5sums.
    pub(super) fn md5_sums(&self) -> Result<String> {
        let files = output_of(command("find", &["usr", "-type", "f"]).current_dir(&self.0))?;
        let mut files: Vec<_> = files.lines().collect();
        files.sort_unstable();
        output_of(command("md5sum", &files).current_dir(&self.0))
    }

    pub(super) fn write(&self, to: &str, text: &str) -> Result<()> {
        self.make_parents(to)?;
        fs::write(self.0.join(to), text).with_context(|| to.to_owned())?;
        self.set_mode(to, 0o644)
    }

    /// Moves a file of the directory.
    pub(super) fn move_in(&self, from: &Path, to: &str) -> Result<()> {
        self.make_parents(to)?;
        fs::rename(from, self.0.join(to)).with_context(|| from.display().to_string())
    }

    /// Creates an empty directory.
    pub(super) fn make_dir(&self, path: &str) -> Result<()> {
        self.make_parents(&format!("{path}/_"))
    }

    /// Creates parent directories with mode 0755, independent of the umask.
    fn make_parents(&self, path: &str) -> Result<()> {
        let Some(parent) = Path::new(path).parent() else { return Ok(()) };
        fs::create_dir_all(self.0.join(parent)).with_context(|| path.to_owned())?;
        for dir in parent.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::set_permissions(self.0.join(dir), Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Returns the size of all installed files.
    pub(super) fn kibibytes(&self) -> Result<String> {
        let used = output_of(
            command("du", &["-sk", "--apparent-size", "--exclude=DEBIAN", "."])
                .current_dir(&self.0),
        )?;
        Ok(used.split_whitespace().next().unwrap_or_default().to_owned())
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // It is below target/: cargo clean removes it later.
        let _ = fs::remove_dir_all(&self.0);
    }
}
