//! The Debian package of the programs that were built with the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Gateway, TempDir, resources, temp_dir};

/// A package in a directory of its own.
#[derive(Debug)]
pub struct DebianPackage {
    path: PathBuf,
    dir: TempDir,
}

impl DebianPackage {
    /// Packs the programs as `cargo xtask deb` does.
    ///
    /// # Panics
    /// When they cannot be packed.
    #[must_use]
    pub fn build() -> Self {
        let dir = temp_dir();
        let built = Command::new(resources::workspace_program("xtask", test_settings::XTASK))
            .args([Path::new("deb"), Path::new("--binary"), &Gateway::program()])
            .args([Path::new("--output"), dir.path()])
            .output()
            .expect("xtask can be started");
        assert!(built.status.success(), "{built:?}");
        Self { path: the_one(dir.path(), "edge-gateway_"), dir }
    }

    /// Returns the path of the package of `edge-provision`, which was built with it.
    #[must_use]
    pub fn provision_path(&self) -> PathBuf {
        the_one(self.dir.path(), "edge-provision_")
    }

    /// Returns the same package with a later version.
    ///
    /// # Panics
    /// When it cannot be packed again.
    #[must_use]
    pub fn with_version(&self, version: &str) -> Self {
        self.with_change(version, |_| ())
    }

    /// Returns the package with a later version and a change to its files, which are below the
    /// directory that `change` gets.
    ///
    /// # Panics
    /// When it cannot be packed again.
    #[must_use]
    pub fn with_change(&self, version: &str, change: impl FnOnce(&Path)) -> Self {
        let dir = temp_dir();
        let (root, path) = (dir.path().join("root"), dir.path().join("later.deb"));
        let dpkg_deb = |command: &mut Command| {
            let done = command.output().expect("dpkg-deb is installed");
            assert!(done.status.success(), "{done:?}");
        };
        dpkg_deb(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.path).arg(&root));
        let control = root.join("DEBIAN/control");
        let text = fs::read_to_string(&control).expect("a package has a control file");
        let lines = text.lines().map(|line| match line.strip_prefix("Version: ") {
            Some(_) => format!("Version: {version}\n"),
            None => format!("{line}\n"),
        });
        fs::write(&control, lines.collect::<String>()).expect("its own directory is writable");
        change(&root);
        // A box takes no package of more than 32 MiB.
        let pack = ["--root-owner-group", "-Zgzip", "-z1", "--build"];
        dpkg_deb(Command::new("dpkg-deb").args(pack).arg(&root).arg(&path));
        Self { path, dir }
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the package in a directory whose name begins so.
fn the_one(dir: &Path, prefix: &str) -> PathBuf {
    let files = fs::read_dir(dir).expect("its own directory is readable");
    let mut paths = files.map(|file| file.expect("its own directory is readable").path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with(".deb")
    };
    paths.find(is_it).expect("xtask writes the package")
}
