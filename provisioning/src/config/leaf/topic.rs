//! Topics with placeholders.

use super::{TextLeaf, Wrong};
use crate::config::near::nearest;

/// A topic as written, with placeholders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Topic {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// What can stand in braces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) enum Placeholder {
    Gateway,
    Location,
    Machine,
    Device,
    Plc,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 5] = [
        ("gateway", Self::Gateway),
        ("location", Self::Location),
        ("machine", Self::Machine),
        ("device", Self::Device),
        ("plc", Self::Plc),
    ];

    /// The word between the braces.
    pub(in crate::config) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, this)| *this == self).map_or("", |(word, _)| word)
    }
}

impl Topic {
    /// The topic with `value` in place of each placeholder.
    pub(in crate::config) fn fill<'v, E>(
        &self,
        mut value: impl FnMut(Placeholder) -> Result<&'v str, E>,
    ) -> Result<String, E> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Placeholder(placeholder) => filled.push_str(value(*placeholder)?),
            }
        }
        Ok(filled)
    }
}

impl TextLeaf for Topic {
    const KIND: &'static str = "topic";

    fn parse(key: &str, text: &str) -> Result<Self, Wrong> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or_else(|| unclosed(key, text))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Placeholder(placeholder(key, word)?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        for part in &parts {
            if let Part::Text(text) = part {
                check_text(key, text)?;
            }
        }
        if text.is_empty() {
            return Err(Wrong::new(
                format!("`{key}` is empty"),
                format!("write {key} = \"topic1\""),
            ));
        }
        if text.starts_with('$') || text.len() > usize::from(u16::MAX) {
            return Err(Wrong::new(
                format!("`{key}` begins with $ or is too long; $ topics belong to the broker"),
                format!("write something like {key} = \"topic1\""),
            ));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    fn text(&self) -> String {
        self.text.clone()
    }
}

fn placeholder(key: &str, word: &str) -> Result<Placeholder, Wrong> {
    let words = Placeholder::ALL.map(|(word, _)| word);
    let found = Placeholder::ALL.iter().find(|(this, _)| *this == word);
    found.map(|(_, placeholder)| *placeholder).ok_or_else(|| {
        let all = words.map(|word| format!("{{{word}}}")).join(" ");
        let help = match nearest(word, words) {
            Some(near) => format!("did you mean {{{near}}}?"),
            None => format!("the placeholders are {all}"),
        };
        Wrong::new(format!("`{key}` holds {{{word}}}, which is not a placeholder"), help)
    })
}

fn unclosed(key: &str, text: &str) -> Wrong {
    Wrong::new(
        format!("a brace {{ in `{key}` is not closed"),
        format!("close it: {key} = \"{text}}}\""),
    )
}

fn check_text(key: &str, text: &str) -> Result<(), Wrong> {
    match text.chars().find(|c| matches!(c, '+' | '#' | '}') || c.is_control()) {
        Some('}') => Err(Wrong::new(
            format!("`{key}` closes a brace }} that was not opened"),
            "write placeholders as {plc}",
        )),
        Some(c) => Err(Wrong::new(
            format!("`{key}` holds {c:?}: that is for subscribing, not for publishing"),
            "leave it out; each PLC can have a topic of its own with {plc}",
        )),
        None => Ok(()),
    }
}
