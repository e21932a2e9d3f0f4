//! What an import found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::declaration::DeclaredAccess;
use super::expand::ImportedTag;
use super::{Import, SourcePlace};

/// Most lines that are shown for one reason.
const MAX_LINES: usize = 20;

impl Import {
    /// Returns everything that was found as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let files = self.files.iter().map(|(path, format)| {
            json!({ "path": path.display().to_string(), "format": format.to_string() })
        });
        let skipped = self.skipped.iter().map(|skipped| {
            self.entry(&skipped.variable, skipped.place, skipped.reason.code(), &skipped.reason)
        });
        let notes = self
            .notes
            .iter()
            .map(|note| self.entry(&note.variable, note.place, note.kind.code(), &note.kind));
        json!({
            "model": self.model.to_string(),
            "files": files.collect::<Vec<_>>(),
            "variables": self.variables,
            "tags": self.tags.iter().map(|tag| self.tag_entry(tag)).collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
            "notes": notes.collect::<Vec<_>>(),
        })
    }

    fn tag_entry(&self, tag: &ImportedTag) -> Value {
        let mut entry = json!({
            "name": tag.name,
            "at": tag.at,
            "type": tag.data_type.to_string(),
            "variable": tag.variable,
            "file": self.path(tag.place),
            "line": tag.place.line,
        });
        if let Some(entry) = entry.as_object_mut() {
            if let Some(names) = &tag.names {
                let names = names.iter().map(|(number, name)| (number.to_string(), json!(name)));
                entry.insert("enum".to_owned(), Value::Object(names.collect()));
            }
            if let Some(comment) = &tag.comment {
                entry.insert("comment".to_owned(), json!(comment));
            }
            let access = match tag.access {
                DeclaredAccess::Unknown => None,
                DeclaredAccess::Read => Some("read"),
                DeclaredAccess::Write => Some("write"),
            };
            entry.extend(access.map(|access| ("access".to_owned(), json!(access))));
        }
        entry
    }

    fn entry(
        &self,
        variable: &str,
        place: SourcePlace,
        code: &str,
        sentence: &dyn fmt::Display,
    ) -> Value {
        json!({
            "variable": variable,
            "file": self.path(place),
            "line": place.line,
            "reason": code,
            "message": sentence.to_string(),
        })
    }

    fn path(&self, place: SourcePlace) -> String {
        self.files.get(place.file).map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }

    /// Writes lines such as `pump.gvl:12: GVL.level: not located`, at most 20 for each code.
    fn write_lines<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        heading: &str,
        lines: impl Iterator<Item = (&'static str, &'a str, SourcePlace, &'a dyn fmt::Display)>,
    ) -> fmt::Result {
        let mut by_code: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (code, variable, place, sentence) in lines {
            by_code.entry(code).or_default().push((variable, place, sentence));
        }
        for (code, lines) in by_code {
            write!(f, "\n{heading}, {code}: {}\n", lines.len())?;
            for (variable, place, sentence) in lines.iter().take(MAX_LINES) {
                let separator = if variable.is_empty() { "" } else { ": " };
                let (path, line) = (self.path(*place), place.line);
                writeln!(f, "  {path}:{line}: {variable}{separator}{sentence}")?;
            }
            if let Some(more) = lines.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
                writeln!(f, "  and {more} more; --json lists all")?;
            }
        }
        Ok(())
    }
}

/// Shows what was found: files, numbers, what was skipped and why, notes.
impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, format) in &self.files {
            writeln!(f, "{}: {format}", path.display())?;
        }
        let count = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        let (variables, tags) = (count(self.variables, "variable"), count(self.tags.len(), "tag"));
        let (skipped, notes) = (self.skipped.len(), count(self.notes.len(), "note"));
        let model = self.model;
        writeln!(f, "{variables}, {tags} for model {model}, {skipped} skipped, {notes}")?;
        let is_writable = |tag: &&ImportedTag| tag.access == DeclaredAccess::Write;
        let writable = self.tags.iter().filter(is_writable).count();
        if writable > 0 {
            let tags = count(writable, "tag");
            writeln!(
                f,
                "the export allows to write {tags}; every tag is read-only until you add `write`"
            )?;
        }
        self.write_lines(
            f,
            "skipped",
            self.skipped.iter().map(|skipped| {
                let sentence: &dyn fmt::Display = &skipped.reason;
                (skipped.reason.code(), skipped.variable.as_str(), skipped.place, sentence)
            }),
        )?;
        self.write_lines(
            f,
            "note",
            self.notes.iter().map(|note| {
                let sentence: &dyn fmt::Display = &note.kind;
                (note.kind.code(), note.variable.as_str(), note.place, sentence)
            }),
        )
    }
}
