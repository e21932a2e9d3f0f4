//! The package of edge-gateway on this box: asks dpkg, and installs with apt-get or with dpkg alone.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use super::update::InstalledPackage;
use crate::bundle::PackageName;

/// The package.
const PACKAGE: &str = "edge-gateway";
/// Is there if dpkg has installed the package; below `/`.
const FILE_LIST: &str = "var/lib/dpkg/info/edge-gateway.list";
/// Longest part of a program's own words in a sentence, in characters.
const MAX_WORDS: usize = 300;
/// Longest run of a program, with 10 min for the lock of apt: a script of a package that never ends
/// is stopped then, with all that it started. timeout(1) is in each Debian.
const TIME_LIMIT: [&str; 2] = ["--kill-after=30s", "30m"];
/// What timeout(1) returns when the limit was reached, also if it had to kill the program.
const TIME_LIMIT_REACHED: [i32; 2] = [124, 137];

/// apt-get installs the file that it is given and nothing else: it knows no repository, so it
/// refuses a package that needs one that is not installed. A configuration that the administrator
/// has changed is kept. Another run of apt, as of unattended-upgrades, ends within 10 min.
const INSTALL: [&str; 15] = [
    "--quiet",
    "--assume-yes",
    "--allow-downgrades",
    "--allow-change-held-packages",
    "--reinstall",
    "--no-remove",
    "--no-install-recommends",
    "--option=Dir::Etc::SourceList=/dev/null",
    "--option=Dir::Etc::SourceParts=/dev/null",
    // The file is in a directory of root.
    "--option=APT::Sandbox::User=root",
    "--option=DPkg::Lock::Timeout=600",
    "--option=Dpkg::Use-Pty=0",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Options::=--force-confdef",
    "install",
];
/// A configuration that the administrator has changed is kept.
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confold", "--force-confdef"];

/// What an update needs of the system.
pub(super) trait PackageManager {
    /// Returns what is installed; none if dpkg has no package of edge-gateway.
    ///
    /// # Errors
    /// When dpkg does not answer.
    fn installed(&self) -> Result<Option<InstalledPackage>, PackageError>;

    /// Finishes what a power cut has interrupted in this package; others are left alone.
    ///
    /// # Errors
    /// When something is not installed completely all the same.
    fn finish(&mut self) -> Result<(), PackageError>;

    /// Installs a package, also over a newer one, if all that it needs is installed. The services
    /// that run are restarted.
    ///
    /// # Errors
    /// When it is not installed completely. Nothing was changed if another package of this machine
    /// is in the way.
    fn install(&mut self, package: &Path) -> Result<(), PackageError>;

    /// Installs a package in any state of this machine: over one that a power cut left half
    /// installed, and whatever other packages are broken.
    ///
    /// # Errors
    /// When it is not installed completely, as when it needs a package that is not installed.
    fn restore(&mut self, package: &Path) -> Result<(), PackageError>;
}

/// A package cannot be installed, or dpkg does not answer.
#[derive(Debug, Error)]
pub(super) enum PackageError {
    /// A program cannot be started.
    #[error("cannot start {program}: {source}")]
    NotStarted {
        /// The program.
        program: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// A program was stopped.
    #[error("{program} has not ended within 30 min, and was stopped")]
    NotEnded {
        /// The program.
        program: &'static str,
    },
    /// A program has failed.
    #[error("{program} has failed: {words}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it says.
        words: String,
    },
    /// dpkg shows something else than it is asked for.
    #[error(
        "dpkg-query says of edge-gateway \"{0}\", and a bundle can name no such version: install a \
         package of a release"
    )]
    NotUnderstood(String),
}

/// dpkg and apt of this box.
#[derive(Debug)]
pub(super) struct Dpkg {
    /// `/`, but for tests.
    pub(super) root: PathBuf,
}

impl Dpkg {
    /// Returns whether dpkg has installed the package; starts no program.
    pub(super) fn manages_package(&self) -> bool {
        self.root.join(FILE_LIST).is_file()
    }
}

impl PackageManager for Dpkg {
    fn installed(&self) -> Result<Option<InstalledPackage>, PackageError> {
        if !self.manages_package() {
            return Ok(None);
        }
        let format = "--showformat=${db:Status-Abbrev}|${Version}|${Architecture}";
        let said = succeed("dpkg-query", &["--show", format, PACKAGE])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        match said.get(1..2) {
            // Not installed, or removed with its configuration left.
            Some("n" | "c") => Ok(None),
            _ => installed_of(&said).map(Some).ok_or(PackageError::NotUnderstood(said)),
        }
    }

    fn finish(&mut self) -> Result<(), PackageError> {
        dpkg(["--configure", PACKAGE])
    }

    fn install(&mut self, package: &Path) -> Result<(), PackageError> {
        // apt-get refuses to work while the journal of a run of dpkg that was cut is there. dpkg
        // takes it in first of all; then it says that it has nothing to configure, and fails.
        drop(self.finish());
        let path = package.display().to_string();
        let arguments: Vec<_> = INSTALL.into_iter().chain([path.as_str()]).collect();
        succeed("apt-get", &arguments).map(drop)
    }

    fn restore(&mut self, package: &Path) -> Result<(), PackageError> {
        // apt-get does not replace a half installed package by another version, and does nothing
        // while any package lacks what it needs.
        dpkg(["--install", &package.display().to_string()])
    }
}

fn dpkg(action: [&str; 2]) -> Result<(), PackageError> {
    let arguments: Vec<_> = KEEP_CONFIGURATION.into_iter().chain(action).collect();
    succeed("dpkg", &arguments).map(drop)
}

/// Reads what dpkg-query was asked for: `ii |0.1.0|arm64`.
fn installed_of(said: &str) -> Option<InstalledPackage> {
    let [status, version, architecture] = said.split('|').collect::<Vec<_>>().try_into().ok()?;
    let name = PackageName::new(version, architecture).ok()?;
    // The second letter is the state, the third one an error (dpkg-query(1)).
    Some(InstalledPackage { name, is_complete: matches!(status, "ii " | "hi ") })
}

fn succeed(program: &'static str, arguments: &[&str]) -> Result<Output, PackageError> {
    let mut command = Command::new("timeout");
    command.args(TIME_LIMIT).arg(program).args(arguments).stdin(Stdio::null());
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    // It would restart this program too.
    command.env("NEEDRESTART_SUSPEND", "1");
    let output = command.output().map_err(|source| PackageError::NotStarted { program, source })?;
    match output.status.code() {
        Some(0) => return Ok(output),
        Some(code) if TIME_LIMIT_REACHED.contains(&code) => {
            return Err(PackageError::NotEnded { program });
        }
        Some(_) | None => {}
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    // The last words are the reason.
    let skipped = words.chars().count().saturating_sub(MAX_WORDS);
    let words = words.chars().skip(skipped).filter(|c| !c.is_control()).collect();
    Err(PackageError::Failed { program, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_dpkg_is_understood_or_refused() {
        let of = |said: &str| installed_of(said).map(|one| (one.name.to_string(), one.is_complete));
        let name = "edge-gateway_0.2.0~rc1_arm64.deb".to_owned();
        for (status, is_complete) in
            [("ii ", true), ("hi ", true), ("iU ", false), ("iF ", false), ("iHR", false)]
        {
            let said = format!("{status}|0.2.0~rc1|arm64");
            assert_eq!(of(&said), Some((name.clone(), is_complete)), "{said}");
        }
        for said in ["", "ii ", "ii |0.1.0", "ii ||arm64", "ii |1:0.1|arm64", "ii |0|a|b"] {
            assert_eq!(of(said), None, "{said}");
        }
    }

    #[test]
    fn a_failed_program_is_shown_with_its_last_words() {
        let failed = succeed("sh", &["-c", "seq 1 300 >&2; echo E: no  space >&2; exit 100"]);
        let text = failed.unwrap_err().to_string();
        assert!(text.starts_with("sh has failed: ") && text.ends_with("300 E: no space"), "{text}");
        assert!(text.len() < 400);
        let missing = succeed("no-such-program", &[]).unwrap_err();
        let expected = "no-such-program has failed: timeout: failed to run command";
        assert!(missing.to_string().starts_with(expected), "{missing}");
        let stopped = succeed("sh", &["-c", "exit 124"]).unwrap_err();
        assert_eq!(stopped.to_string(), "sh has not ended within 30 min, and was stopped");
    }
}
