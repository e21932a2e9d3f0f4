//! The settings of a file of the fleet as a tree, each with its place, so that trees of several
//! files can be merged and a problem in the result is shown where it was written.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A file of the fleet, as seen from one site.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum FleetFile {
    /// `fleet.toml`.
    Fleet,
    /// A file in `templates/`, by its position in their sorted list.
    Template(usize),
    /// A file in `sites/`, by its position in their sorted list.
    Site(usize),
}

/// A place in a file of the fleet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FilePlace {
    pub(crate) file: FleetFile,
    /// Bytes of the file.
    pub(crate) span: Range<usize>,
}

/// A section: its settings in the order in which they were written.
#[derive(Clone, Debug)]
pub(crate) struct SettingTable {
    /// The header; for the root, the start of the file.
    pub(crate) place: FilePlace,
    pub(crate) entries: Vec<SettingEntry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct SettingEntry {
    pub(crate) key: String,
    pub(crate) place: FilePlace,
    pub(crate) value: SettingValue,
}

/// The value of a key.
#[derive(Clone, Debug)]
pub(crate) enum SettingValue {
    /// Anything but a section, as it is written in TOML.
    Literal(Literal),
    /// `[section]`.
    Table(SettingTable),
    /// `[[section]]`.
    Tables(Vec<SettingTable>),
}

/// A value as it is written in TOML.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    pub(crate) toml: String,
    pub(crate) place: FilePlace,
    /// Whether `toml` is the text at `place`; otherwise it was generated because of it.
    pub(crate) is_copied: bool,
}

impl SettingTable {
    /// Converts the root table of a file.
    pub(crate) fn of_file(file: FleetFile, text: &str, root: &DeTable<'_>) -> Self {
        TreeReader { file, text }.table(0..0, root)
    }

    pub(crate) const fn empty(place: FilePlace) -> Self {
        Self { place, entries: Vec::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&SettingEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the section of this name.
    pub(crate) fn table(&self, key: &str) -> Option<&Self> {
        match &self.get(key)?.value {
            SettingValue::Table(table) => Some(table),
            SettingValue::Literal(_) | SettingValue::Tables(_) => None,
        }
    }

    /// Returns the sections of this name, `[[name]]`; none when it is missing.
    pub(crate) fn tables(&self, key: &str) -> &[Self] {
        match self.get(key).map(|entry| &entry.value) {
            Some(SettingValue::Tables(tables)) => tables,
            _ => &[],
        }
    }

    /// Returns the value of a key if it is a text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.value.as_text()
    }

    /// Adds a generated value, which belongs to `place`.
    pub(crate) fn generate(&mut self, key: &str, toml: String, place: &FilePlace) {
        let literal = Literal { toml, place: place.clone(), is_copied: false };
        self.entries.push(SettingEntry {
            key: key.to_owned(),
            place: place.clone(),
            value: SettingValue::Literal(literal),
        });
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, key: &str, value: SettingValue) {
        let place = self.place.clone();
        self.entries.push(SettingEntry { key: key.to_owned(), place, value });
    }

    /// Overrides this table by `over`: section by section, and lists of sections by their `name`.
    pub(crate) fn merge(&mut self, over: Self) {
        for entry in over.entries {
            let Some(own) = self.entries.iter_mut().find(|own| own.key == entry.key) else {
                self.entries.push(entry);
                continue;
            };
            match (&mut own.value, entry.value) {
                (SettingValue::Table(own), SettingValue::Table(over)) => own.merge(over),
                (SettingValue::Tables(own), SettingValue::Tables(over)) => merge_lists(own, over),
                (own_value, value) => {
                    *own_value = value;
                    own.place = entry.place;
                }
            }
        }
    }
}

/// Overrides the sections of a list that have the same `name`, and appends the others.
fn merge_lists(own: &mut Vec<SettingTable>, over: Vec<SettingTable>) {
    // What is overridden is in `own` from the start: two new sections of one name stay two, so that
    // the check of the result reports them.
    let names: Vec<_> = own.iter().map(|table| table.text("name")).collect();
    for table in over {
        let name = table.text("name");
        let at = names.iter().position(|own| own.is_some() && *own == name);
        match at.and_then(|at| own.get_mut(at)) {
            Some(own) => {
                own.place = table.place.clone();
                own.merge(table);
            }
            None => own.push(table),
        }
    }
}

impl SettingValue {
    /// Returns the value if it is a text.
    pub(crate) fn as_text(&self) -> Option<String> {
        if let toml::Value::String(text) = self.parsed()? { Some(text) } else { None }
    }

    /// Returns the value unless it is a section.
    pub(crate) fn parsed(&self) -> Option<toml::Value> {
        let Self::Literal(literal) = self else { return None };
        // Most values are short texts without escapes.
        let plain = literal.toml.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        if let Some(plain) = plain.filter(|text| !text.contains(['"', '\\'])) {
            return Some(toml::Value::String(plain.to_owned()));
        }
        literal.toml.parse().ok()
    }

    /// Returns the place of the value.
    pub(crate) const fn place<'a>(&'a self, key: &'a FilePlace) -> &'a FilePlace {
        match self {
            Self::Literal(literal) => &literal.place,
            Self::Table(table) => &table.place,
            Self::Tables(_) => key,
        }
    }
}

/// Converts the tables of one file.
struct TreeReader<'a> {
    file: FleetFile,
    text: &'a str,
}

impl TreeReader<'_> {
    fn place(&self, span: Range<usize>) -> FilePlace {
        FilePlace { file: self.file, span }
    }

    fn table(&self, span: Range<usize>, table: &DeTable<'_>) -> SettingTable {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| SettingEntry {
                key: key.as_ref().to_string(),
                place: self.place(key.span()),
                value: self.value(key.as_ref(), value),
            })
            .collect();
        entries.sort_by_key(|entry| entry.place.span.start);
        SettingTable { place: self.place(span), entries }
    }

    fn value(&self, key: &str, value: &Spanned<DeValue<'_>>) -> SettingValue {
        if let DeValue::Table(table) = value.as_ref()
            && !self.is_inline(value)
        {
            return SettingValue::Table(self.table(value.span(), table));
        }
        if let DeValue::Array(items) = value.as_ref()
            && self.is_list_of_sections(key, items)
        {
            let tables = items.iter().filter_map(|item| {
                item.as_ref().as_table().map(|table| self.table(item.span(), table))
            });
            return SettingValue::Tables(tables.collect());
        }
        SettingValue::Literal(Literal {
            toml: self.text.get(value.span()).unwrap_or_default().to_owned(),
            place: self.place(value.span()),
            is_copied: true,
        })
    }

    fn is_inline(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.text.get(value.span()).is_some_and(|text| text.starts_with('{'))
    }

    /// Returns whether an array is `[[key]]`, or `tag = [{ .. }]`, which means the same.
    fn is_list_of_sections(&self, key: &str, items: &DeArray<'_>) -> bool {
        !items.is_empty()
            && items.iter().all(|item| {
                item.as_ref().is_table() && (!self.is_inline(item) || ["plc", "tag"].contains(&key))
            })
    }
}
