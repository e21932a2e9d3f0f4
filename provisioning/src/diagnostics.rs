//! Problems and notes about a file, shown with file, line and caret. Used for `gateway.toml` and
//! for files of wg-quick.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use thiserror::Error;

/// A problem in a file, or a note on a valid setting that is probably a mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Path of the key, `plc[0].tag[3].at`; empty when the problem has no key.
    pub path: String,
    /// Line in the file, from 1; absent when the problem is in the file as a whole, or in an
    /// environment variable.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    pub(crate) span: SourceSpan,
    /// A second place in the file with its label.
    pub(crate) related: Option<(Range<usize>, String)>,
}

/// Where a value was set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SourceSpan {
    /// Bytes of the file.
    File(Range<usize>),
    /// The file as a whole.
    WholeFile,
    /// An environment variable.
    Environment(Box<EnvVariable>),
}

/// An environment variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EnvVariable {
    pub(crate) name: String,
    /// `NAME=text`, with secrets redacted.
    pub(crate) line: String,
}

/// A file that was rejected, with all its problems in the order of the file. Its text contains no
/// secret.
#[derive(Clone, Debug, Error)]
pub struct RejectedFile {
    /// At least one.
    pub problems: Vec<Problem>,
    source_file: SourceFile,
}

/// Notes on a valid file, in the order of the file; usually empty.
#[derive(Clone, Debug)]
pub struct Notes {
    notes: Vec<Problem>,
    source_file: SourceFile,
}

/// A file as it is shown.
#[derive(Clone, Debug)]
struct SourceFile {
    path: PathBuf,
    /// Text with secrets redacted; byte positions are those of the file.
    redacted: String,
}

impl Problem {
    /// Creates a problem at one place, with an empty key.
    pub(crate) fn new(
        span: SourceSpan,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            path: String::new(),
            line: None,
            message: message.into(),
            help: Some(help.into()),
            span,
            related: None,
        }
    }
}

impl fmt::Display for RejectedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl RejectedFile {
    /// Returns the text of `Display` with colours, for a terminal.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    /// Returns each problem as one line for a log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.source_file.log_line(problem))
    }

    /// Creates the list. `redacted` is the text of the file without secrets, each byte at its
    /// position in the file.
    pub(crate) fn new(path: &Path, redacted: String, mut problems: Vec<Problem>) -> Self {
        sort_in_file_order(&mut problems, &redacted);
        Self { problems, source_file: SourceFile { path: path.to_owned(), redacted } }
    }

    fn render(&self, renderer: &Renderer) -> String {
        self.source_file.render(&self.problems, (&Level::ERROR, "problem"), renderer)
    }
}

impl Notes {
    /// Returns the number of notes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Returns whether there are no notes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Returns each note as one line for a log; at most 200.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.notes.iter().take(MAX_SHOWN).map(|note| self.source_file.log_line(note))
    }

    /// Creates the list. `redacted` is the text of the file without secrets, each byte at its
    /// position in the file.
    pub(crate) fn new(
        path: &Path,
        redacted: impl FnOnce() -> String,
        mut notes: Vec<Problem>,
    ) -> Self {
        // Most files have no notes; their text is not kept in memory.
        let redacted = if notes.is_empty() { String::new() } else { redacted() };
        sort_in_file_order(&mut notes, &redacted);
        Self { notes, source_file: SourceFile { path: path.to_owned(), redacted } }
    }
}

/// Renders all notes with line and caret; an empty text without notes.
impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let level = (&Level::NOTE, "note");
        f.write_str(&self.source_file.render(&self.notes, level, &Renderer::plain()))
    }
}

/// Sorts problems by position, removes duplicates and sets their lines.
fn sort_in_file_order(problems: &mut Vec<Problem>, text: &str) {
    problems.sort_by_key(|problem| match &problem.span {
        SourceSpan::WholeFile => (0, 0),
        SourceSpan::File(span) => (1, span.start),
        SourceSpan::Environment(_) => (2, 0),
    });
    problems.dedup();
    let breaks: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
    for problem in problems {
        if let SourceSpan::File(span) = &problem.span {
            problem.line = Some(breaks.partition_point(|at| *at < span.start) + 1);
        }
    }
}

impl SourceFile {
    /// Returns `gateway.toml:12`.
    fn line_label(&self, problem: &Problem) -> String {
        let path = self.path.display();
        problem.line.map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
    }

    fn log_line(&self, problem: &Problem) -> String {
        let help = problem.help.as_deref().unwrap_or_default();
        format!("{}: {}; {help}", self.line_label(problem), problem.message)
    }

    fn render(
        &self,
        problems: &[Problem],
        (level, noun): (&Level<'_>, &str),
        renderer: &Renderer,
    ) -> String {
        let shown = problems.iter().take(MAX_SHOWN);
        let shown = shown.map(|problem| self.render_one(problem, level, renderer));
        let count = match problems.len() {
            1 => format!("1 {noun}"),
            count @ ..=MAX_SHOWN => format!("{count} {noun}s"),
            count => format!("{count} {noun}s; the first {MAX_SHOWN} are shown"),
        };
        let total = format!("{}: {count}", self.path.display());
        shown.chain([total]).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, level: &Level<'_>, renderer: &Renderer) -> String {
        let title = level.clone().primary_title(&problem.message);
        let path = self.path.display().to_string();
        let mut group = match &problem.span {
            SourceSpan::File(span) => {
                title.element(self.snippet(path, span, problem.related.as_ref()))
            }
            SourceSpan::WholeFile => title.element(Origin::path(path)),
            SourceSpan::Environment(variable) => {
                let EnvVariable { name, line } = variable.as_ref();
                let value = name.len() + 1..line.len();
                title.element(
                    Snippet::source(line.as_str())
                        .path(ENVIRONMENT_LABEL)
                        .annotation(AnnotationKind::Primary.span(value)),
                )
            }
        };
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group as Group<'_>])
    }

    fn snippet<'a>(
        &'a self,
        path: String,
        span: &Range<usize>,
        related: Option<&'a (Range<usize>, String)>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let second = related
            .map(|(span, label)| AnnotationKind::Context.span(span.clone()).label(label.as_str()));
        Snippet::source(self.redacted.as_str())
            .path(path)
            .annotation(AnnotationKind::Primary.span(span.clone()))
            .annotations(second)
    }
}

const ENVIRONMENT_LABEL: &str = "environment";

/// Maximum number of problems that are rendered, because each takes a while to render.
const MAX_SHOWN: usize = 200;
