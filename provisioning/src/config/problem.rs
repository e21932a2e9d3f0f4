//! What is wrong with a configuration, and how it is shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use thiserror::Error;

use super::mask::masked;

/// One thing that is wrong in a configuration, or worth a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key, `plc[0].tag[3].at`; empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong, or probably not meant.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    pub(super) place: Place,
    /// A second place with the words that explain it.
    pub(super) also: Option<(Range<usize>, String)>,
}

/// Where a value was set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Bytes of the file.
    File(Range<usize>),
    /// The file, at no place in particular.
    Whole,
    /// A variable of the environment.
    Environment(Box<Variable>),
}

/// A variable of the environment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// `NAME=text`, without the values of secrets.
    line: String,
}

impl Variable {
    pub(super) fn new(name: String, text: &str) -> Self {
        let line = masked(&format!("{name}={text}"));
        Self { name, line }
    }
}

/// A configuration that cannot be used: every problem at once, in the order of the file.
#[derive(Clone, Debug, Error)]
pub struct Rejected {
    /// Never empty.
    pub problems: Vec<Problem>,
    source_file: Source,
}

/// What holds and yet is probably not meant, in the order of the file. Empty for most.
#[derive(Clone, Debug)]
pub struct Notes {
    notes: Vec<Problem>,
    source_file: Source,
}

/// A file as it is shown.
#[derive(Clone, Debug)]
struct Source {
    file: PathBuf,
    /// Its text without the values of secrets.
    text: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl Rejected {
    /// The same as `Display` with colours, for a terminal.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    pub(super) fn new(file: PathBuf, text: &str, mut problems: Vec<Problem>) -> Self {
        in_file_order(&mut problems);
        Self { problems, source_file: Source { file, text: masked(text) } }
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
        self.notes.iter().take(SHOWN).map(|note| {
            let help = note.help.as_deref().unwrap_or_default();
            format!("{}: {}; {help}", self.source_file.place(note), note.message)
        })
    }

    pub(super) fn new(file: &Path, text: &str, mut notes: Vec<Problem>) -> Self {
        in_file_order(&mut notes);
        let text = if notes.is_empty() { String::new() } else { masked(text) };
        Self { notes, source_file: Source { file: file.to_owned(), text } }
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

fn in_file_order(problems: &mut Vec<Problem>) {
    problems.sort_by_key(|problem| match &problem.place {
        Place::Whole => (0, 0),
        Place::File(span) => (1, span.start),
        Place::Environment(_) => (2, 0),
    });
    problems.dedup();
}

impl Source {
    /// `gateway.toml:12`.
    fn place(&self, problem: &Problem) -> String {
        let file = self.file.display();
        let Place::File(span) = &problem.place else { return file.to_string() };
        let before = self.text.get(..span.start).unwrap_or_default();
        format!("{file}:{}", before.matches('\n').count() + 1)
    }

    fn render(
        &self,
        problems: &[Problem],
        (level, noun): (&Level<'_>, &str),
        renderer: &Renderer,
    ) -> String {
        let shown = problems.iter().take(SHOWN);
        let shown = shown.map(|problem| self.render_one(problem, level, renderer));
        let count = match problems.len() {
            1 => format!("1 {noun}"),
            count @ ..=SHOWN => format!("{count} {noun}s"),
            count => format!("{count} {noun}s; the first {SHOWN} are shown"),
        };
        let total = format!("{}: {count}", self.file.display());
        shown.chain([total]).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, level: &Level<'_>, renderer: &Renderer) -> String {
        let title = level.clone().primary_title(&problem.message);
        let file = self.file.display().to_string();
        let mut group = match &problem.place {
            Place::File(span) => title.element(self.snippet(file, span, problem.also.as_ref())),
            Place::Whole => title.element(Origin::path(file)),
            Place::Environment(variable) => {
                let Variable { name, line } = variable.as_ref();
                let value = name.len() + 1..line.len();
                title.element(
                    Snippet::source(line.as_str())
                        .path(ENVIRONMENT)
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

const ENVIRONMENT: &str = "environment";

/// Most problems that are shown: each takes a while to draw, and nobody reads so many at once.
const SHOWN: usize = 200;
