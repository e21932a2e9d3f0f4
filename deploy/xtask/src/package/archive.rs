//! Archives whose bytes depend only on names, modes and contents.

use std::path::Path;

use anyhow::Result;

use crate::run::{command, run};

/// Packs a directory, owned by root, into an archive with gzip: `output` and `.gz`.
pub(super) fn tar_gz(dir: &Path, top: &str, output: &Path, built_at: &str) -> Result<()> {
    tar(dir, &[top], output, built_at, "0")?;
    gzip(output)
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
pub(super) fn gzip(file: &Path) -> Result<()> {
    run(command("gzip", &["-9nf"]).arg(file))
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
