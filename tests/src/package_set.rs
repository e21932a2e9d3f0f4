//! What `cargo xtask package` makes of the programs that were built with the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Gateway, TempDir, resources, temp_dir};

/// Packages in a directory of their own.
#[derive(Debug)]
pub struct PackageSet(TempDir);

impl PackageSet {
    /// Packs the programs in every format.
    #[must_use]
    pub fn of_all_formats() -> Self {
        Self::build(&[], &programs())
    }

    /// Packs the programs in one format: `tar`, `ipk` or `oci`.
    #[must_use]
    pub fn of_format(format: &str) -> Self {
        Self::of_programs(format, &programs())
    }

    /// Packs programs in a directory in one format.
    #[must_use]
    pub fn of_programs(format: &str, programs: &Path) -> Self {
        Self::build(&["--format", format], programs)
    }

    fn build(options: &[&str], programs: &Path) -> Self {
        let dir = temp_dir();
        let built = Command::new(resources::workspace_program("xtask", test_settings::XTASK))
            .args(["package", "--fast"])
            .args(options)
            .arg("--programs")
            .arg(programs)
            .arg("--output")
            .arg(dir.path())
            .output()
            .expect("xtask can be started");
        assert!(built.status.success(), "{built:?}");
        Self(dir)
    }

    /// Returns the directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Returns the names of all files, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).expect("its own directory is readable");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.expect("it is readable"))).collect();
        names.sort_unstable();
        names
    }

    /// Returns the path of the file whose name ends so.
    ///
    /// # Panics
    /// When there is no such file, or more than one.
    #[must_use]
    pub fn path(&self, ending: &str) -> PathBuf {
        let names = self.names();
        let mut named = names.iter().filter(|name| name.ends_with(ending));
        match (named.next(), named.next()) {
            (Some(name), None) => self.dir().join(name),
            _ => panic!("not one file ends in {ending}: {names:?}"),
        }
    }
}

/// Returns the directory of the programs under test.
fn programs() -> PathBuf {
    let program = Gateway::program();
    program.parent().expect("a program lies in a directory").to_owned()
}
