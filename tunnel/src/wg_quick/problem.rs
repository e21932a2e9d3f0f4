//! What is wrong with a file, all of it at once.

use std::fmt;

use thiserror::Error;

use super::WgQuick;
use super::keys::{self, SectionKind, WgKey};

/// Problems that are told. Whoever feeds a picture to the parser need not read one for each line.
const MOST: usize = 50;
/// A word that is longer is no key with a typing mistake, and perhaps a secret.
const WORD: usize = 24;

/// One thing that is wrong with a file. Shows no value of a key or secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where, from 1; 0 when it is the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// Something in a file that has no effect here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// Where, from 1.
    pub line: usize,
    /// What is not done, and why.
    pub what: &'static str,
}

/// A file that cannot be used, and every reason for that: at least one, in the order of lines.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct Rejected {
    /// The reasons.
    pub problems: Vec<Problem>,
}

/// Collects them.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, line: usize, what: impl Into<String>, help: impl Into<String>) {
        if self.0.len() < MOST {
            self.0.push(Problem { line, what: what.into(), help: help.into() });
        }
    }

    /// A key that is unknown or belongs elsewhere.
    pub(super) fn misplaced(
        &mut self,
        line: usize,
        word: &str,
        open: SectionKind,
        found: Option<(SectionKind, WgKey)>,
    ) {
        match found {
            Some((section, key)) => self.add(
                line,
                format!("`{}` does not belong to {}", key.name(), open.name()),
                format!("move it below {}", section.name()),
            ),
            None => {
                // A key without its name would be printed here.
                let is_word = word.len() <= WORD && word.chars().all(|c| c.is_ascii_alphabetic());
                let shown = if is_word { format!("`{word}`") } else { "of that name".to_owned() };
                self.add(
                    line,
                    format!("{} has no key {shown}", open.name()),
                    format!("use one of {}", keys::key_names(open)),
                );
            }
        }
    }

    /// Gives what was read, if nothing is wrong with it.
    pub(super) fn or(mut self, read: Option<WgQuick>) -> Result<WgQuick, Rejected> {
        match read {
            Some(read) if self.0.is_empty() => Ok(read),
            _ => {
                self.0.sort_by_key(|problem| problem.line);
                Err(Rejected { problems: self.0 })
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.what, self.help)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}
