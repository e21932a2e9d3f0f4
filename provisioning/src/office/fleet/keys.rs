//! Reading the keys of one section: texts that are parsed to types, and unknown keys.

use std::cell::RefCell;

use super::problems::FleetProblem;
use super::tree::{FilePlace, SettingEntry, SettingTable, SettingValue};
use crate::config::nearest;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: FilePlace,
}

/// What is wrong with a text, and what to write instead.
pub(crate) type Rejection = (String, String);

/// The keys of one section that have been asked for.
pub(crate) struct SectionReader<'a> {
    table: &'a SettingTable,
    /// `[tunnel]`, for messages.
    header: &'static str,
    problems: &'a RefCell<Vec<FleetProblem>>,
    known: Vec<&'static str>,
}

impl<'a> SectionReader<'a> {
    pub(crate) const fn new(
        table: &'a SettingTable,
        header: &'static str,
        problems: &'a RefCell<Vec<FleetProblem>>,
    ) -> Self {
        Self { table, header, problems, known: Vec::new() }
    }

    /// Returns the value of an optional key, parsed.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&toml::Value) -> Result<T, Rejection>,
    ) -> Option<Located<T>> {
        self.known.push(key);
        let entry = self.table.get(key)?;
        let place = entry.value.place(&entry.place);
        let Some(value) = entry.value.parsed() else {
            self.reject(&entry.place, format!("`{key}` is not a section"), String::new());
            return None;
        };
        match parse(&value) {
            Ok(value) => Some(Located { value, place: place.clone() }),
            Err((message, help)) => {
                self.reject(place, message, help);
                None
            }
        }
    }

    /// Returns the value of a required key, parsed; `example` is a complete line to write.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&toml::Value) -> Result<T, Rejection>,
    ) -> Option<Located<T>> {
        if self.table.get(key).is_none() && !self.is_misspelt(key) {
            let header = self.header;
            let message = format!("`{key}` is missing in {header}");
            let help = format!("add a line like {example} below {header}");
            self.reject(&self.table.place, message, help);
        }
        self.optional(key, parse)
    }

    /// Returns the section of this name below this one.
    pub(crate) fn section(&mut self, key: &'static str) -> Option<&'a SettingTable> {
        self.known.push(key);
        self.section_of(self.table.get(key)?)
    }

    /// Returns the sections of this name.
    pub(crate) fn sections(&mut self, key: &'static str) -> &'a [SettingTable] {
        self.known.push(key);
        let Some(entry) = self.table.get(key) else { return &[] };
        if let SettingValue::Tables(tables) = &entry.value {
            return tables;
        }
        let message = format!("`{key}` is a list of sections");
        let help = format!("write two pairs of brackets: [[{key}]]");
        self.reject(&entry.place, message, help);
        &[]
    }

    /// Records the keys that were not asked for.
    pub(crate) fn finish(self) {
        for entry in &self.table.entries {
            let key = entry.key.as_str();
            if self.known.contains(&key) {
                continue;
            }
            let help = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            self.reject(&entry.place, format!("there is no key `{key}` in {}", self.header), help);
        }
    }

    pub(crate) fn reject(&self, place: &FilePlace, message: String, help: String) {
        self.problems.borrow_mut().push(FleetProblem::new(place, message, help));
    }

    fn section_of(&self, entry: &'a SettingEntry) -> Option<&'a SettingTable> {
        if let SettingValue::Table(table) = &entry.value {
            return Some(table);
        }
        let key = &entry.key;
        let message = format!("`{key}` is a section");
        self.reject(&entry.place, message, format!("write [{key}] on a line of its own"));
        None
    }

    /// Returns whether a key of the section is probably meant to be `key`.
    fn is_misspelt(&self, key: &str) -> bool {
        let unknown = self.table.entries.iter().filter(|entry| !self.known.contains(&&*entry.key));
        unknown.into_iter().any(|entry| nearest(&entry.key, [key]).is_some())
    }
}

/// Parses a text by its type; `expected` says what is accepted, `example` is a value.
pub(crate) fn text<T: std::str::FromStr>(
    value: &toml::Value,
    expected: &str,
    example: &str,
) -> Result<T, Rejection> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.ok_or_else(|| (format!("{value} is not {expected}"), format!("write \"{example}\"")))
}

/// Parses one of a few keywords.
pub(crate) fn keyword<T: Copy>(value: &toml::Value, all: &[(&str, T)]) -> Result<T, Rejection> {
    let found = value.as_str().and_then(|text| all.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        (format!("{value} is not one of the words here"), format!("write {}", words.join(" or ")))
    })
}
