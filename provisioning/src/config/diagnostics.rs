//! What is wrong with a configuration, and how it is shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use thiserror::Error;

use super::redact::redacted;

/// One thing that is wrong in a configuration, or worth a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key, `plc[0].tag[3].at`; empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong, or probably not meant.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    pub(super) span: SourceSpan,
    /// A second place with the words that explain it.
    pub(super) related: Option<(Range<usize>, String)>,
}

/// Where a value was set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum SourceSpan {
    /// Bytes of the file.
    File(Range<usize>),
    /// The file, at no place in particular.
    WholeFile,
    /// A variable of the environment.
    Environment(Box<EnvVariable>),
}

/// A variable of the environment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct EnvVariable {
    pub(super) name: String,
    /// `NAME=text`, without the values of secrets.
    line: String,
}

impl EnvVariable {
    pub(super) fn new(name: String, text: &str) -> Self {
        let line = redacted(&format!("{name}={text}"));
        Self { name, line }
    }
}

/// A configuration that cannot be used: every problem at once, in the order of the file.
#[derive(Clone, Debug, Error)]
pub struct RejectedFile {
    /// Never empty.
    pub problems: Vec<Problem>,
    source_file: SourceFile,
}

/// What holds and yet is probably not meant, in the order of the file. Empty for most.
#[derive(Clone, Debug)]
pub struct Notes {
    notes: Vec<Problem>,
    source_file: SourceFile,
}

/// A file as it is shown.
#[derive(Clone, Debug)]
struct SourceFile {
    file: PathBuf,
    /// Its text without the values of secrets.
    text: String,
}

impl fmt::Display for RejectedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl RejectedFile {
    /// The same as `Display` with colours, for a terminal.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    pub(super) fn new(file: PathBuf, text: &str, mut problems: Vec<Problem>) -> Self {
        sort_in_file_order(&mut problems);
        Self { problems, source_file: SourceFile { file, text: redacted(text) } }
    }

    fn render(&self, renderer: &Renderer) -> String {
        self.source_file.render(&self.problems, (&Level::ERROR, "problem"), renderer)
    }
}

impl Notes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Each on one line, for a log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.notes.iter().take(MAX_SHOWN).map(|note| {
            let help = note.help.as_deref().unwrap_or_default();
            format!("{}: {}; {help}", self.source_file.line_label(note), note.message)
        })
    }

    pub(super) fn new(file: &Path, text: &str, mut notes: Vec<Problem>) -> Self {
        sort_in_file_order(&mut notes);
        let text = if notes.is_empty() { String::new() } else { redacted(text) };
        Self { notes, source_file: SourceFile { file: file.to_owned(), text } }
    }
}

/// With line and caret, as problems are shown; nothing when there is none.
impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let level = (&Level::NOTE, "note");
        f.write_str(&self.source_file.render(&self.notes, level, &Renderer::plain()))
    }
}

fn sort_in_file_order(problems: &mut Vec<Problem>) {
    problems.sort_by_key(|problem| match &problem.span {
        SourceSpan::WholeFile => (0, 0),
        SourceSpan::File(span) => (1, span.start),
        SourceSpan::Environment(_) => (2, 0),
    });
    problems.dedup();
}

impl SourceFile {
    /// `gateway.toml:12`.
    fn line_label(&self, problem: &Problem) -> String {
        let file = self.file.display();
        let SourceSpan::File(span) = &problem.span else { return file.to_string() };
        let before = self.text.get(..span.start).unwrap_or_default();
        format!("{file}:{}", before.matches('\n').count() + 1)
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
        let total = format!("{}: {count}", self.file.display());
        shown.chain([total]).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, level: &Level<'_>, renderer: &Renderer) -> String {
        let title = level.clone().primary_title(&problem.message);
        let file = self.file.display().to_string();
        let mut group = match &problem.span {
            SourceSpan::File(span) => {
                title.element(self.snippet(file, span, problem.related.as_ref()))
            }
            SourceSpan::WholeFile => title.element(Origin::path(file)),
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
        file: String,
        span: &Range<usize>,
        also: Option<&'a (Range<usize>, String)>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let second = also
            .map(|(span, words)| AnnotationKind::Context.span(span.clone()).label(words.as_str()));
        Snippet::source(self.text.as_str())
            .path(file)
            .annotation(AnnotationKind::Primary.span(span.clone()))
            .annotations(second)
    }
}

const ENVIRONMENT_LABEL: &str = "environment";

/// Most problems that are shown: each takes a while to draw, and nobody reads so many at once.
const MAX_SHOWN: usize = 200;
