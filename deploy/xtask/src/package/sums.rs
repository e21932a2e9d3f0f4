//! Checksums.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{command, output_of};

/// Name of the file with the checksums, as `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";

/// Returns the SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let line = output_of(command("sha256sum", &["--binary"]).arg(file))?;
    let sum = line.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(sum.to_owned())
}

/// Writes the checksums of everything that was made in a directory, and returns the path.
pub(super) fn write(dir: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{}  {name}\n", sha256(file)?));
    }
    // Sorted by name, which begins after the 64 digits of the sum.
    lines.sort_by(|one, other| one.get(64..).cmp(&other.get(64..)));
    let path = dir.join(SUMS);
    fs::write(&path, lines.concat()).with_context(|| path.display().to_string())?;
    Ok(path)
}
