//! Problems and notes about a file, shown with file, line and caret. Used for `gateway.toml` and
//! for files of wg-quick.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, Title,
};
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
    /// `NAME=text`, with secrets redacted, or the name alone to mark it.
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
    line_starts: Vec<usize>,
}

/// The part of a file that an error shows.
struct Excerpt<'a> {
    text: &'a str,
    /// Number of its first line.
    line: usize,
    /// Position of its first byte.
    start: usize,
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
        let source_file = SourceFile::new(path, redacted);
        source_file.sort(&mut problems);
        Self { problems, source_file }
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

    /// Returns the notes, in the order of the file.
    #[cfg(feature = "office")]
    pub(crate) fn as_problems(&self) -> &[Problem] {
        &self.notes
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
        let source_file = SourceFile::new(path, redacted);
        source_file.sort(&mut notes);
        Self { notes, source_file }
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

impl SourceFile {
    fn new(path: &Path, redacted: String) -> Self {
        let breaks = redacted.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = [0].into_iter().chain(breaks).collect();
        Self { path: path.to_owned(), redacted, line_starts }
    }

    /// Sorts problems by position, removes duplicates and sets their lines.
    fn sort(&self, problems: &mut Vec<Problem>) {
        problems.sort_by_key(|problem| match &problem.span {
            SourceSpan::WholeFile => (0, 0),
            SourceSpan::File(span) => (1, span.start),
            SourceSpan::Environment(_) => (2, 0),
        });
        problems.dedup();
        for problem in problems {
            if let SourceSpan::File(span) = &problem.span {
                problem.line = Some(self.line_of(span.start));
            }
        }
    }

    /// Returns the number of the line that holds this byte, from 1.
    fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// Returns the lines of this span; only the part around it where a line is very long.
    fn excerpt(&self, span: &Range<usize>) -> Excerpt<'_> {
        let (first, last) = (self.line_of(span.start), self.line_of(span.end));
        let line_start = self.line_starts.get(first - 1).copied().unwrap_or_default();
        let line_end = self.line_starts.get(last).map_or(self.redacted.len(), |next| next - 1);
        let start = line_start.max(span.start.saturating_sub(MAX_CONTEXT_BYTES));
        let end = line_end.min(span.end.saturating_add(MAX_CONTEXT_BYTES));
        let start = self.redacted.floor_char_boundary(start);
        let end = self.redacted.ceil_char_boundary(end);
        Excerpt { text: self.redacted.get(start..end).unwrap_or_default(), line: first, start }
    }

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
            count @ ..MAX_PROBLEMS => format!("{count} {noun}s; the first {MAX_SHOWN} are shown"),
            _ => format!("{MAX_PROBLEMS} {noun}s or more; the first {MAX_SHOWN} are shown"),
        };
        let total = format!("{}: {count}", self.path.display());
        shown.chain([total]).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, level: &Level<'_>, renderer: &Renderer) -> String {
        let title = level.clone().primary_title(&problem.message);
        let path = self.path.display().to_string();
        let mut group = match &problem.span {
            SourceSpan::File(span) => self.snippets(title, path, span, problem.related.as_ref()),
            SourceSpan::WholeFile => title.element(Origin::path(path)),
            SourceSpan::Environment(variable) => {
                let EnvVariable { name, line } = variable.as_ref();
                let marked = if line == name { 0..name.len() } else { name.len() + 1..line.len() };
                title.element(
                    Snippet::source(line.as_str())
                        .path(ENVIRONMENT_LABEL)
                        .annotation(AnnotationKind::Primary.span(marked)),
                )
            }
        };
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group as Group<'_>])
    }

    /// Adds the lines of a span and of the second place, which share a snippet if they are near.
    fn snippets<'a>(
        &'a self,
        title: Title<'a>,
        path: String,
        span: &Range<usize>,
        related: Option<&'a (Range<usize>, String)>,
    ) -> Group<'a> {
        let span = span.start..span.end.min(span.start + MAX_MARKED_BYTES);
        let primary = |excerpt: &Excerpt<'_>| AnnotationKind::Primary.span(excerpt.place(&span));
        let Some((second, label)) = related else {
            let excerpt = self.excerpt(&span);
            return title.element(excerpt.snippet(path).annotation(primary(&excerpt)));
        };
        let context = |excerpt: &Excerpt<'_>| {
            AnnotationKind::Context.span(excerpt.place(second)).label(label.as_str())
        };
        let both = span.start.min(second.start)..span.end.max(second.end);
        if both.len() <= MAX_JOINED_BYTES {
            let excerpt = self.excerpt(&both);
            let snippet = excerpt.snippet(path).annotation(primary(&excerpt));
            return title.element(snippet.annotation(context(&excerpt)));
        }
        let (excerpt, other) = (self.excerpt(&span), self.excerpt(second));
        title
            .element(excerpt.snippet(path.clone()).annotation(primary(&excerpt)))
            .element(other.snippet(path).annotation(context(&other)))
    }
}

impl<'a> Excerpt<'a> {
    fn snippet(&self, path: String) -> Snippet<'a, Annotation<'a>> {
        Snippet::source(self.text).path(path).line_start(self.line)
    }

    /// Returns a span of the file as a span of this part.
    fn place(&self, span: &Range<usize>) -> Range<usize> {
        let at = |byte: usize| byte.saturating_sub(self.start).min(self.text.len());
        self.text.floor_char_boundary(at(span.start))..self.text.ceil_char_boundary(at(span.end))
    }
}

const ENVIRONMENT_LABEL: &str = "environment";

/// Maximum number of problems that are rendered, because each takes a while to render.
const MAX_SHOWN: usize = 200;

/// Number of problems after which the rest of a file is not read.
pub(crate) const MAX_PROBLEMS: usize = 2_000;

/// Most bytes that are marked.
const MAX_MARKED_BYTES: usize = 400;
/// Most bytes that are shown before and after what is marked.
const MAX_CONTEXT_BYTES: usize = 400;
/// Most bytes between two places in one snippet; the renderer reads all of them.
const MAX_JOINED_BYTES: usize = 64 * 1024;
