//! Archives whose bytes depend only on names, modes and contents.

use std::path::Path;

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
    tar(dir, &[top], output, built_at, "0")?;
    gzip(output, compression)
}

/// Packs files of a directory for an owner and a group with this number.
pub(super) fn tar(
    dir: &Path,
    files: &[&str],
    output: &Path,
    built_at: &str,
    owner: &str,
) -> Result<()> {
    let mut tar = command("tar", &["--format=gnu", "--sort=name", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{built_at}"))
        .args([format!("--owner={owner}"), format!("--group={owner}")])
        .arg("-C")
        .arg(dir)
        .arg("-cf")
        .arg(output)
        .args(files);
    run(&mut tar)
}

/// Compresses a file to `.gz`, without name and time.
pub(super) fn gzip(file: &Path, compression: Compression) -> Result<()> {
    run(command("gzip", &["-nf", compression.gzip()]).arg(file))
}

/// Appends a directory without what is in it, for an owner and a group with this number.
pub(super) fn append(
    dir: &Path,
    path: &str,
    archive: &Path,
    built_at: &str,
    owner: &str,
) -> Result<()> {
    let mut tar = command("tar", &["--format=gnu", "--numeric-owner", "--no-recursion"]);
    tar.arg(format!("--mtime=@{built_at}"))
        .args([format!("--owner={owner}"), format!("--group={owner}")])
        .arg("-C")
        .arg(dir)
        .arg("-rf")
        .arg(archive)
        .arg(path);
    run(&mut tar)
}
