//! The directory that is packed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::VERSION;
use crate::run::{command, output_of, run, workspace};

/// A directory for the files of the package; removed when dropped.
#[derive(Debug)]
pub(crate) struct StagingDir(PathBuf);

impl StagingDir {
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        let stage = Self(root);
        fs::create_dir_all(&stage.0).with_context(|| stage.0.display().to_string())?;
        stage.set_mode("", 0o755)?;
        Ok(stage)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.make_parents(to)?;
        fs::copy(from, self.0.join(to)).with_context(|| from.display().to_string())?;
        self.set_mode(to, mode)
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        fs::set_permissions(self.0.join(path), Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {path}"))
    }

    /// Removes debug symbols.
    pub(crate) fn strip(&self, path: &str) -> Result<()> {
        run(command("strip", &["--strip-unneeded", "--remove-section=.comment"])
            .arg(self.0.join(path)))
    }

    /// Compresses without name and time, so that the result depends only on the content.
    pub(crate) fn compress(&self, path: &str) -> Result<()> {
        run(command("gzip", &["-9n"]).arg(self.0.join(path)))
    }

    /// Writes DEBIAN/md5sums and DEBIAN/control, after all other files.
    pub(crate) fn control(&self, architecture: &str, depends: &str) -> Result<()> {
        let files = output_of(command("find", &["usr", "-type", "f"]).current_dir(&self.0))?;
        let mut files: Vec<_> = files.lines().collect();
        files.sort_unstable();
        let sums = output_of(command("md5sum", &files).current_dir(&self.0))?;
        self.write("DEBIAN/md5sums", &sums)?;
        let path = workspace().join("deploy/deb/control");
        let template = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let control = template
            .replace("{version}", VERSION)
            .replace("{architecture}", architecture)
            .replace("{installed_size}", &self.kibibytes()?)
            .replace("{depends}", depends);
        self.write("DEBIAN/control", &control)
    }

    pub(crate) fn write(&self, to: &str, text: &str) -> Result<()> {
        self.make_parents(to)?;
        fs::write(self.0.join(to), text).with_context(|| to.to_owned())?;
        self.set_mode(to, 0o644)
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

    fn kibibytes(&self) -> Result<String> {
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
