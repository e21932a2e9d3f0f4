//! Reading a configuration, and what can be said about one that holds.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::document::{self, Pieces};
use super::draft::{Draft, Held};
use super::hash::Hash;
use super::layers::Layers;
use super::problem::{Notes, Place, Problem, Rejected};
use super::read::Table;
use super::{Config, check, syntax};

/// Longest file that is read. A configuration of 1,000 PLCs is well below.
const LONGEST: u64 = 16 << 20;

/// A configuration that holds.
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Twelve hexadecimal digits that change when an effective setting does. The contents of
    /// password files are no part of it.
    pub hash: String,
    /// What holds in it and is probably not meant.
    pub notes: Notes,
    file: PathBuf,
    text: String,
}

/// One effective setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The key: `plc[0].tag[3].at`.
    pub path: String,
    /// Its value as it would be written in the file. Secrets are files, so none is ever in here.
    pub value: String,
    /// Who set it: `gateway.toml:12`, `environment EDGE_MQTT__CLIENT_ID`, `default`.
    pub source: String,
}

/// Reads the file and the `EDGE_*` variables of the environment.
///
/// # Errors
/// When the file cannot be read, is not TOML, or holds anything that cannot be meant: all problems
/// at once.
pub fn load(path: &Path) -> Result<Loaded, Rejected> {
    let bytes = contents(path).map_err(|error| unreadable(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| syntax::not_utf8(path, &error))?;
    let Read { config, hash, notes, .. } = read(path, &text, None)?;
    let notes = Notes::new(path, &text, notes);
    Ok(Loaded { config, hash, notes, file: path.to_owned(), text })
}

/// Without the text: a comment in it may hold anything.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, hash, notes, file, text: _ } = self;
        f.debug_struct("Loaded")
            .field("config", config)
            .field("hash", hash)
            .field("notes", notes)
            .field("file", file)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Configuration and hash, for somebody who runs it: the text of the file is given back.
    #[must_use]
    pub fn into_parts(self) -> (Config, String) {
        (self.config, self.hash)
    }

    /// Every setting with its value and where that came from, in the order of the reference.
    ///
    /// Reads the configuration once more, so that a gateway that never asks keeps nothing for it.
    #[must_use]
    pub fn effective(&self) -> Vec<Setting> {
        let settings = read(&self.file, &self.text, Some(Vec::new())).map(|read| read.settings);
        let lines: Vec<_> = self.text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let setting = |held: Held| Setting {
            path: held.at.path(),
            source: self.source(&held, &lines),
            value: held.value,
        };
        settings.unwrap_or_default().into_iter().map(setting).collect()
    }

    fn source(&self, held: &Held, lines: &[usize]) -> String {
        match &held.at.place {
            _ if !held.set => "default".to_owned(),
            Place::Environment(variable) => format!("environment {}", variable.name),
            Place::File(span) => {
                let line = lines.partition_point(|start| *start <= span.start) + 1;
                format!("{}:{line}", self.file.display())
            }
            Place::Whole => self.file.display().to_string(),
        }
    }
}

/// The file, unless it is longer than any configuration: a device or a disk image has no end.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[derive(Debug)]
struct Read {
    config: Config,
    hash: String,
    settings: Vec<Held>,
    notes: Vec<Problem>,
}

/// From text to a configuration; `settings` takes up what holds.
fn read(path: &Path, text: &str, settings: Option<Vec<Held>>) -> Result<Read, Rejected> {
    read_in(Pieces::of(text).as_ref(), path, text, settings)
}

fn read_in(
    pieces: Option<&Pieces<'_>>,
    path: &Path,
    text: &str,
    settings: Option<Vec<Held>>,
) -> Result<Read, Rejected> {
    let rest = pieces.map_or(text, |pieces| &pieces.rest);
    let tables = DeTable::parse(rest).map_err(|_| syntax::not_toml(path, text))?;
    let layers = Layers::new(path, tables.as_ref(), pieces.map(|_| document::LIST));
    let mut draft = Draft {
        layers: &layers,
        text,
        pieces,
        piece: 0,
        problems: Vec::new(),
        notes: Vec::new(),
        settings,
        hash: Hash::new(),
        meant: Vec::new(),
    };
    let root = Table::root(&layers.merged, tables.as_ref());
    let config = check::config(&root, path, &mut draft);
    let Draft { problems, notes, settings, hash, .. } = draft;
    match config {
        Some(config) if problems.is_empty() => {
            let settings = settings.unwrap_or_default();
            Ok(Read { config, hash: hash.to_string(), settings, notes })
        }
        _ => Err(Rejected::new(path.to_owned(), text, problems)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Rejected {
    let kind = error.kind();
    let (message, help) = if kind == ErrorKind::NotFound {
        (
            "there is no such configuration file".to_owned(),
            "give the path of your gateway.toml; docs/configuration.md shows what belongs in it",
        )
    } else if kind == ErrorKind::PermissionDenied {
        (
            "this user may not read the configuration file".to_owned(),
            "the gateway runs as a user of its own: let that user read the file",
        )
    } else if kind == ErrorKind::IsADirectory {
        (
            "this is a directory, not a configuration file".to_owned(),
            "give the path of the file in it, for example gateway.toml",
        )
    } else if kind == ErrorKind::FileTooLarge {
        (
            "this file is above 16 MiB, so it is not a configuration file".to_owned(),
            "give the path of your gateway.toml",
        )
    } else {
        (format!("the configuration file cannot be read: {error}"), "check path and disk")
    };
    let problem = Problem {
        path: String::new(),
        message,
        help: Some(help.to_owned()),
        place: Place::Whole,
        also: None,
    };
    Rejected::new(path.to_owned(), "", vec![problem])
}

#[cfg(test)]
mod tests;
