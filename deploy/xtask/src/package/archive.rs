//! Archives whose bytes depend only on names, modes and contents.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::run::{command, run};

/// How well packages are compressed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compression {
    /// For a release: seconds for each package.
    Small,
    /// For a test, which uses a package for seconds.
    Fast,
}

impl Compression {
    /// Returns the level as an option of gzip.
    const fn gzip(self) -> &'static str {
        match self {
            Self::Small => "-9",
            Self::Fast => "-1",
        }
    }

    /// Returns method and level as options of dpkg-deb.
    pub(super) const fn dpkg_deb(self) -> [&'static str; 2] {
        match self {
            Self::Small => ["-Zxz", "-z9"],
            Self::Fast => ["-Zgzip", "-z1"],
        }
    }
}

/// Packs a directory, owned by root, into an archive with gzip: `output` and `.gz`.
pub(super) fn tar_gz(
    dir: &Path,
    top: &str,
    output: &Path,
    built_at: &str,
    compression: Compression,
) -> Result<()> {
    tar(dir, &[top], output, built_at)?;
    gzip(output, compression)
}

/// Packs files, and directories with all that is in them, owned by root.
pub(super) fn tar(dir: &Path, files: &[&str], output: &Path, built_at: &str) -> Result<()> {
    run(members(dir, built_at, "0").args(["--sort=name", "-cf"]).arg(output).args(files))
}

/// Appends files and directories, without what is in them, for an owner and a group with this
/// number. Creates the archive if it is missing.
pub(super) fn append(
    dir: &Path,
    paths: &[&str],
    archive: &Path,
    built_at: &str,
    owner: &str,
) -> Result<()> {
    run(members(dir, built_at, owner).args(["--no-recursion", "-rf"]).arg(archive).args(paths))
}

/// Returns a command that packs files of a directory for an owner and a group with this number.
fn members(dir: &Path, built_at: &str, owner: &str) -> Command {
    let mut tar = command("tar", &["--format=gnu", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{built_at}"))
        .args([format!("--owner={owner}"), format!("--group={owner}")])
        .arg("-C")
        .arg(dir);
    tar
}

/// Compresses a file to `.gz`, without name and time.
pub(super) fn gzip(file: &Path, compression: Compression) -> Result<()> {
    run(command("gzip", &["-nf", compression.gzip()]).arg(file))
}
