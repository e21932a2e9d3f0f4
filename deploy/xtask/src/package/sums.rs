//! Checksums.

use std::fs;
use std::path::Path;

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

/// Writes the checksums of all files in a directory: those of a release are made by several runs.
pub(super) fn write(dir: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != SUMS {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut lines = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        lines.push_str(&format!("{}  {name}\n", sha256(&file)?));
    }
    let path = dir.join(SUMS);
    fs::write(&path, lines).with_context(|| path.display().to_string())
}
