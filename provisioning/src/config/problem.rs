//! What is wrong with a configuration, and how it is shown.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use thiserror::Error;

use super::mask::masked;

/// One thing that is wrong in a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key, `plc[0].tag[3].at`; empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong.
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
    pub(super) file: PathBuf,
    /// The file's text without the values of secrets.
    pub(super) text: String,
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
        problems.sort_by_key(|problem| match &problem.place {
            Place::Whole => (0, 0),
            Place::File(span) => (1, span.start),
            Place::Environment(_) => (2, 0),
        });
        problems.dedup();
        Self { problems, file, text: masked(text) }
    }

    fn render(&self, renderer: &Renderer) -> String {
        let shown = self.problems.iter().take(SHOWN);
        let shown = shown.map(|problem| self.render_one(problem, renderer));
        let count = match self.problems.len() {
            1 => "1 problem".to_owned(),
            count @ ..=SHOWN => format!("{count} problems"),
            count => format!("{count} problems; the first {SHOWN} are shown"),
        };
        let total = format!("{}: {count}", self.file.display());
        shown.chain([total]).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&problem.message);
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
