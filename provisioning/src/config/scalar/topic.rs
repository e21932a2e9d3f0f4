//! MQTT topics with placeholders.

use super::{TextScalar, ValueError};
use crate::config::suggest::nearest;

/// A topic with placeholders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct TopicTemplate {
    text: String,
    parts: Vec<TopicPart>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum TopicPart {
    Text(String),
    Placeholder(Placeholder),
}

/// A name in braces that is replaced by a setting.
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

    /// Returns the name between the braces.
    pub(in crate::config) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, this)| *this == self).map_or("", |(word, _)| word)
    }
}

impl TopicTemplate {
    /// Returns the topic with each placeholder replaced by `value` of it.
    pub(in crate::config) fn fill<'v, E>(
        &self,
        mut value: impl FnMut(Placeholder) -> Result<&'v str, E>,
    ) -> Result<String, E> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                TopicPart::Text(text) => filled.push_str(text),
                TopicPart::Placeholder(placeholder) => filled.push_str(value(*placeholder)?),
            }
        }
        Ok(filled)
    }
}

impl TextScalar for TopicTemplate {
    const KIND: &'static str = "topic";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or_else(|| unclosed_brace(key, text))?;
            parts.push(TopicPart::Text(before.to_owned()));
            parts.push(TopicPart::Placeholder(parse_placeholder(key, word)?));
            rest = after;
        }
        parts.push(TopicPart::Text(rest.to_owned()));
        for part in &parts {
            if let TopicPart::Text(text) = part {
                check_literal(key, text)?;
            }
        }
        if text.is_empty() {
            return Err(ValueError::new(
                format!("`{key}` is empty"),
                format!("write {key} = \"topic1\""),
            ));
        }
        if text.starts_with('$') || text.len() > usize::from(u16::MAX) {
            return Err(ValueError::new(
                format!("`{key}` begins with $, which is reserved for the broker, or is too long"),
                format!("write something like {key} = \"topic1\""),
            ));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    fn to_text(&self) -> String {
        self.text.clone()
    }
}

fn parse_placeholder(key: &str, word: &str) -> Result<Placeholder, ValueError> {
    let words = Placeholder::ALL.map(|(word, _)| word);
    let found = Placeholder::ALL.iter().find(|(this, _)| *this == word);
    found.map(|(_, placeholder)| *placeholder).ok_or_else(|| {
        let all = words.map(|word| format!("{{{word}}}")).join(" ");
        let help = match nearest(word, words) {
            Some(near) => format!("did you mean {{{near}}}?"),
            None => format!("the placeholders are {all}"),
        };
        ValueError::new(format!("`{key}` contains {{{word}}}, which is not a placeholder"), help)
    })
}

fn unclosed_brace(key: &str, text: &str) -> ValueError {
    ValueError::new(
        format!("a brace {{ in `{key}` is not closed"),
        format!("close it: {key} = \"{text}}}\""),
    )
}

fn check_literal(key: &str, text: &str) -> Result<(), ValueError> {
    match text.chars().find(|c| matches!(c, '+' | '#' | '}') || c.is_control()) {
        Some('}') => Err(ValueError::new(
            format!("`{key}` contains a closing brace }} without an opening one"),
            "write placeholders as {plc}",
        )),
        Some(c) => Err(ValueError::new(
            format!("`{key}` contains {c:?}: wildcards are for subscribing, not for publishing"),
            "remove it; {plc} gives each PLC its own topic",
        )),
        None => Ok(()),
    }
}
