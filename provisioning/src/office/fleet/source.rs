//! The files of a fleet as they lie on disk.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::tree::{FleetFile, SettingTable};
use crate::config::{not_toml, not_utf8};
use crate::diagnostics::{Problem, RejectedFile, SourceSpan};
use crate::regular_file;

/// Maximum size of a file of the fleet, as of a gateway.toml: 16 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A file and its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetSource {
    /// As it is shown.
    pub(crate) path: PathBuf,
    /// Empty if it cannot be read.
    pub(crate) text: String,
}

impl FleetSource {
    /// Returns the name of the file without `.toml`.
    pub(crate) fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }
}

/// Reads and parses a file. What was read is returned also when it is rejected.
pub(crate) fn read_source(
    path: &Path,
    file: FleetFile,
) -> (FleetSource, Result<SettingTable, RejectedFile>) {
    let mut source = FleetSource { path: path.to_owned(), text: String::new() };
    let bytes = match regular_file::read(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => return (source, Err(unreadable(path, &error))),
    };
    source.text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return (source, Err(not_utf8(path, &error))),
    };
    let table = match DeTable::parse(&source.text) {
        Ok(root) => Ok(SettingTable::of_file(file, &source.text, root.get_ref())),
        Err(_) => Err(not_toml(path, &source.text)),
    };
    (source, table)
}

/// Returns the files `*.toml` of a directory, sorted; none if there is no such directory.
pub(crate) fn list_toml_files(dir: &Path) -> Result<Vec<PathBuf>, RejectedFile> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && name.ends_with(".toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> RejectedFile {
    let is_fleet = path.file_name().is_some_and(|name| name == "fleet.toml");
    let (message, help) = if error.kind() == ErrorKind::NotFound && is_fleet {
        let help = "give its directory with --fleet, or make a fleet with `edge-provision init`";
        ("there is no fleet.toml here".to_owned(), help)
    } else if error.kind() == ErrorKind::FileTooLarge {
        ("this file is larger than 16 MiB".to_owned(), "remove what does not belong here")
    } else {
        (format!("this cannot be read: {error}"), "check path and permissions")
    };
    let problem = Problem::new(SourceSpan::WholeFile, message, help);
    RejectedFile::new(path, String::new(), vec![problem])
}
