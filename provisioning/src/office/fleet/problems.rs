//! All problems of a fleet, file by file.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::tree::{FilePlace, FleetFile};
use crate::config::redacted;
use crate::diagnostics::{Notes, Problem, RejectedFile, SourceSpan};

/// A fleet that was rejected: the problems of each of its files. Its text contains no secret.
#[derive(Debug)]
pub struct RejectedFleet {
    /// At least one, sorted by path.
    pub files: Vec<RejectedFile>,
}

/// A problem with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FleetProblem {
    pub(crate) place: FilePlace,
    pub(crate) message: String,
    pub(crate) help: String,
    /// A second place in the same file with its label.
    pub(crate) related: Option<(Range<usize>, String)>,
}

impl FleetProblem {
    pub(crate) fn new(
        place: &FilePlace,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (message, help) = (message.into(), help.into());
        Self { place: place.clone(), message, help, related: None }
    }
}

impl RejectedFleet {
    /// Groups problems by file. `source` returns path and text of a file.
    pub(crate) fn new<'a>(
        problems: impl IntoIterator<Item = FleetProblem>,
        mut rejected: Vec<RejectedFile>,
        source: impl Fn(FleetFile) -> (PathBuf, &'a str),
    ) -> Self {
        rejected.extend(by_file(problems).into_iter().map(|(file, problems)| {
            let (path, text) = source(file);
            RejectedFile::new(&path, redacted(text), problems)
        }));
        Self { files: rejected }
    }

    /// Returns the text of `Display` with colours, for a terminal.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(RejectedFile::coloured)
    }

    fn render(&self, file: impl Fn(&RejectedFile) -> String) -> String {
        let shown = self.files.iter().take(MAX_SHOWN_FILES).map(file);
        let mut parts: Vec<String> = shown.collect();
        let hidden = self.files.len().saturating_sub(MAX_SHOWN_FILES);
        if hidden > 0 {
            parts.push(format!("and {hidden} more files with problems"));
        }
        parts.join("\n\n")
    }
}

impl fmt::Display for RejectedFleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(RejectedFile::to_string))
    }
}

impl std::error::Error for RejectedFleet {}

/// Returns notes file by file.
pub(super) fn notes_by_file<'a>(
    notes: Vec<FleetProblem>,
    source: impl Fn(FleetFile) -> (PathBuf, &'a str),
) -> Vec<Notes> {
    let files = by_file(notes).into_iter().map(|(file, notes)| {
        let (path, text) = source(file);
        Notes::new(&path, || redacted(text), notes)
    });
    files.collect()
}

fn by_file(problems: impl IntoIterator<Item = FleetProblem>) -> BTreeMap<FleetFile, Vec<Problem>> {
    let mut by_file: BTreeMap<FleetFile, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        let FleetProblem { place, message, help, related } = problem;
        let span = match place.span {
            Range { start: 0, end: 0 } => SourceSpan::WholeFile,
            span => SourceSpan::File(span),
        };
        let help = Some(help).filter(|help| !help.is_empty());
        let problem = Problem { help, related, ..Problem::new(span, message, "") };
        by_file.entry(place.file).or_default().push(problem);
    }
    by_file
}

/// Maximum number of files whose problems are shown.
const MAX_SHOWN_FILES: usize = 50;
