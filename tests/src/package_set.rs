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
        Self::of_format("deb,tar,ipk,oci,sbom")
    }

    /// Packs the programs in the formats that are the default for them.
    #[must_use]
    pub fn of_default_formats() -> Self {
        Self::build(&[])
    }

    /// Packs the programs in one format, such as `tar`, or several with commas.
    #[must_use]
    pub fn of_format(format: &str) -> Self {
        Self::build(&["--format", format])
    }

    /// Makes one container image of the programs in the directory that follows each architecture.
    #[must_use]
    pub fn image<'a>(programs: impl IntoIterator<Item = (&'a str, PathBuf)>) -> Self {
        let argument = |(arch, dir): (&str, PathBuf)| format!("{arch}={}", dir.display());
        Self::run(xtask().arg("image").args(programs.into_iter().map(argument)))
    }

    fn build(options: &[&str]) -> Self {
        let program = Gateway::program();
        let programs = program.parent().expect("a program lies in a directory");
        let mut package = xtask();
        package.args(["package", "--fast"]).args(options).arg("--programs").arg(programs);
        Self::run(&mut package)
    }

    fn run(command: &mut Command) -> Self {
        let dir = temp_dir();
        let done = command.arg("--output").arg(dir.path()).output().expect("xtask can be started");
        assert!(done.status.success(), "{done:?}");
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

fn xtask() -> Command {
    Command::new(resources::workspace_program("xtask", test_settings::XTASK))
}
