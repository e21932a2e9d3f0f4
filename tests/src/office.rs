//! An office: a fleet in a directory, and the program `edge-provision`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{TempDir, resources, temp_dir};

/// A fleet in a directory of its own.
#[derive(Debug)]
pub struct Office {
    dir: TempDir,
}

impl Office {
    /// Makes a fleet with one hub, `hub-a`, at this endpoint.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        let office = Self { dir: temp_dir() };
        office.run(&["init", ".", "--endpoint", endpoint]);
        office
    }

    /// Returns the path of the program under test.
    #[must_use]
    pub fn program() -> PathBuf {
        resources::workspace_program("edge-provision", test_settings::PROVISION)
    }

    /// Runs a command in the directory of the fleet and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "edge-provision {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs a command in the directory of the fleet, whether it succeeds or not.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(Self::program());
        command.args(arguments).current_dir(self.dir.path()).output().expect("it starts")
    }

    /// Returns the path of a file of the fleet.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the text of a file of the fleet.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// Changes a file of the fleet.
    pub fn change(&self, name: &str, change: impl FnOnce(String) -> String) {
        fs::write(self.path(name), change(self.read(name))).expect("the directory is writable");
    }
}
