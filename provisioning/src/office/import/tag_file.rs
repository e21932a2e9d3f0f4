//! A file with tags that a new export changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Key, Table, Value};

use super::expand::ImportedTag;
use super::{Import, source};
use crate::diagnostics::{Problem, RejectedFile, SourceSpan};
use crate::plc::{DataType, Location, PlcModel};

/// A gateway.toml, a template or a site's file, of which the tags of one PLC are updated. Comments,
/// order and every key except `at`, `type` and `enum` stay as they are.
#[derive(Debug)]
pub struct TagFile {
    path: PathBuf,
    document: DocumentMut,
    owner: TagOwner,
    has_crlf: bool,
}

/// Where the tags are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TagOwner {
    /// `[[tag]]` of a template, which has the keys of a `[[plc]]`.
    Root,
    /// `[[plc.tag]]` without a `[[plc]]`.
    Fragment,
    /// `[[plc.tag]]` below the `[[plc]]` with this number.
    Plc(usize),
}

/// What a new export changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TagChange {
    /// A variable that had no tag.
    Added {
        /// Name of the tag.
        name: String,
        /// Its address.
        at: String,
        /// Its type.
        data_type: String,
    },
    /// A key has another value.
    Changed {
        /// Name of the tag.
        name: String,
        /// `at`, `type` or `enum`.
        key: &'static str,
        /// Value in the file.
        from: String,
        /// Value by the export.
        to: String,
    },
    /// A tag without a variable in the export. It stays.
    Missing {
        /// Name of the tag.
        name: String,
        /// Its address.
        at: String,
    },
}

impl TagChange {
    /// Returns the stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Added { .. } => "added",
            Self::Changed { .. } => "changed",
            Self::Missing { .. } => "missing",
        }
    }

    /// Returns the name of the tag.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Added { name, .. } | Self::Changed { name, .. } | Self::Missing { name, .. } => {
                name
            }
        }
    }
}

impl fmt::Display for TagChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { name, at, data_type } => write!(f, "+ {name}: {data_type} at {at}"),
            Self::Changed { name, key, from, to } => write!(f, "~ {name}: {key} {from} -> {to}"),
            Self::Missing { name, at } => {
                write!(f, "? {name} at {at}: not in the export; it stays until you remove it")
            }
        }
    }
}

/// A tag of the file.
struct ExistingTag {
    name: String,
    at: String,
    data_type: Option<DataType>,
    location: Option<Location>,
    is_matched: bool,
}

impl TagFile {
    /// Reads a file. `plc` names the PLC if there are several.
    ///
    /// # Errors
    /// When the file is not TOML, or it is not clear which tags are meant.
    pub fn parse(path: &Path, text: &str, plc: Option<&str>) -> Result<Self, RejectedFile> {
        let text = text.trim_start_matches('\u{feff}');
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let span = error.span().unwrap_or_default();
            let message = format!("this is not TOML: {}", error.message());
            let help = "edge-provision check shows what to write instead";
            let problem = Problem::new(SourceSpan::File(span), message, help);
            RejectedFile::new(path, text.to_owned(), vec![problem])
        })?;
        let owner = find_owner(&document, plc).map_err(|(message, help)| {
            source::reject(path, Problem::new(SourceSpan::WholeFile, message, help))
        })?;
        let has_crlf = text.contains("\r\n");
        Ok(Self { path: path.to_owned(), document, owner, has_crlf })
    }

    /// Returns the model that the file states for the PLC.
    #[must_use]
    pub fn model(&self) -> Option<PlcModel> {
        let owner = match self.owner {
            TagOwner::Root => self.document.as_table(),
            TagOwner::Fragment => return None,
            TagOwner::Plc(number) => self.document.get("plc")?.as_array_of_tables()?.get(number)?,
        };
        owner.get("model")?.as_str()?.parse().ok()
    }

    /// Applies an export, and returns what it changed: first the tags of the file in their order,
    /// then new ones.
    ///
    /// # Errors
    /// When the tags are not written as sections.
    pub fn update(&mut self, import: &Import) -> Result<Vec<TagChange>, RejectedFile> {
        let path = self.path.clone();
        let Some(tags) = self.tags_mut() else {
            let message = "the tags of this file are not sections";
            let help = "write each tag as a section [[plc.tag]]";
            return Err(source::reject(&path, Problem::new(SourceSpan::WholeFile, message, help)));
        };
        let mut existing: Vec<_> =
            tags.iter().map(|table| ExistingTag::read(table, import.model)).collect();
        let matches = match_tags(&mut existing, &import.tags);
        let mut changes = Vec::new();
        for (number, (table, tag)) in tags.iter_mut().zip(&existing).enumerate() {
            match matches.get(&number) {
                Some(imported) => change_tag(table, tag, imported, &mut changes),
                None => {
                    changes.push(TagChange::Missing { name: tag.name.clone(), at: tag.at.clone() });
                }
            }
        }
        let known: BTreeSet<_> = matches.values().map(|tag| tag.name.as_str()).collect();
        for tag in import.tags.iter().filter(|tag| !known.contains(tag.name.as_str())) {
            tags.push(new_table(tag));
            changes.push(TagChange::Added {
                name: tag.name.clone(),
                at: tag.at.clone(),
                data_type: tag.data_type.to_string(),
            });
        }
        Ok(changes)
    }

    fn tags_mut(&mut self) -> Option<&mut ArrayOfTables> {
        let owner = match self.owner {
            TagOwner::Root => self.document.as_table_mut(),
            TagOwner::Fragment => self.document.get_mut("plc")?.as_table_mut()?,
            TagOwner::Plc(number) => {
                self.document.get_mut("plc")?.as_array_of_tables_mut()?.get_mut(number)?
            }
        };
        let tags = owner.entry("tag").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        tags.as_array_of_tables_mut()
    }
}

/// Returns the text of the file.
impl fmt::Display for TagFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.document.to_string();
        if self.has_crlf {
            f.write_str(&text.replace("\r\n", "\n").replace('\n', "\r\n"))
        } else {
            f.write_str(&text)
        }
    }
}

/// Returns where the tags are, or message and help.
fn find_owner(document: &DocumentMut, plc: Option<&str>) -> Result<TagOwner, (String, String)> {
    let root = document.as_table();
    let Some(plcs) = root.get("plc").and_then(Item::as_array_of_tables) else {
        return if root.get("plc").is_some_and(Item::is_table) {
            Ok(TagOwner::Fragment)
        } else if root.contains_key("tag") || root.contains_key("model") {
            Ok(TagOwner::Root)
        } else {
            let message = "this file has no [[plc]] and no tags".to_owned();
            Err((message, "add a [[plc]] with name, model and address first".to_owned()))
        };
    };
    let names: Vec<_> =
        plcs.iter().map(|plc| plc.get("name").and_then(Item::as_str).unwrap_or_default()).collect();
    let known = names.join(", ");
    let number = match plc {
        Some(plc) => names.iter().position(|name| *name == plc).ok_or_else(|| {
            (format!("this file has no PLC \"{plc}\""), format!("it has {known}"))
        })?,
        None if names.len() == 1 => 0,
        None => {
            let message = format!("this file has {} PLCs", names.len());
            return Err((message, format!("say which one with --plc: {known}")));
        }
    };
    let template = plcs.get(number).and_then(|plc| plc.get("template")).and_then(Item::as_str);
    match template {
        None => Ok(TagOwner::Plc(number)),
        Some(template) => {
            let message = format!("the tags of this PLC are those of the template {template}");
            Err((message, format!("update templates/{template}.toml")))
        }
    }
}

impl ExistingTag {
    fn read(table: &Table, model: PlcModel) -> Self {
        let text = |key| table.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
        let (name, at) = (text("name"), text("at"));
        let data_type = text("type").parse::<DataType>().ok();
        let location = data_type.and_then(|data_type| model.locate(&at, data_type).ok());
        Self { name, at, data_type, location, is_matched: false }
    }
}

/// Returns the imported tag of each tag of the file: the one with the same name, with or without
/// its list, else the one with the same address and type, which was given another name by hand.
fn match_tags<'a>(
    existing: &mut [ExistingTag],
    imported: &'a [ImportedTag],
) -> BTreeMap<usize, &'a ImportedTag> {
    let by_name: HashMap<_, _> = existing
        .iter()
        .enumerate()
        .map(|(number, tag)| (tag.name.to_lowercase(), number))
        .collect();
    let mut matches = BTreeMap::new();
    let mut unmatched = Vec::new();
    for tag in imported {
        let names = [tag.name.to_lowercase(), tag.variable.to_lowercase()];
        let number = names.iter().find_map(|name| by_name.get(name));
        match number.and_then(|number| Some((*number, existing.get_mut(*number)?))) {
            Some((number, found)) if !found.is_matched => {
                found.is_matched = true;
                matches.insert(number, tag);
            }
            _ => unmatched.push(tag),
        }
    }
    let mut by_place: HashMap<_, _> = HashMap::new();
    for (number, tag) in existing.iter().enumerate().rev().filter(|(_, tag)| !tag.is_matched) {
        by_place.extend(tag.location.zip(tag.data_type).map(|place| (place, number)));
    }
    for tag in unmatched {
        if let Some(number) = by_place.remove(&(tag.location, tag.data_type)) {
            matches.insert(number, tag);
        }
    }
    matches
}

/// Changes the keys that the export decides.
fn change_tag(
    table: &mut Table,
    existing: &ExistingTag,
    tag: &ImportedTag,
    changes: &mut Vec<TagChange>,
) {
    let changed = |key, from: String, to: String| TagChange::Changed {
        name: existing.name.clone(),
        key,
        from,
        to,
    };
    if existing.data_type != Some(tag.data_type) {
        let from = table.get("type").and_then(Item::as_str).unwrap_or_default().to_owned();
        let to = tag.data_type.to_string();
        set_text(table, "type", &to);
        changes.push(changed("type", from, to));
    }
    if existing.location != Some(tag.location) && existing.at != tag.at {
        set_text(table, "at", &tag.at);
        changes.push(changed("at", existing.at.clone(), tag.at.clone()));
    }
    // Names that were removed by hand stay removed.
    if let Some(names) = tag.enum_names()
        && let Some(value) = table.get_mut("enum").and_then(Item::as_value_mut)
    {
        let new = enum_value(names);
        if plain(value) != plain(&new) {
            changes.push(changed("enum", plain(value), plain(&new)));
            let decor = value.decor().clone();
            *value = new;
            *value.decor_mut() = decor;
        }
    }
}

/// Sets a text, and keeps the comment behind it.
fn set_text(table: &mut Table, key: &str, text: &str) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = Value::from(text);
            *value.decor_mut() = decor;
        }
        None => {
            table.insert(key, toml_edit::value(text));
        }
    }
}

/// Returns the names of an enumeration in the order of their numbers.
fn plain(value: &Value) -> String {
    let entries = value.as_inline_table().into_iter().flat_map(InlineTable::iter);
    let entry =
        |(key, name): (&str, &Value)| format!("{key} = \"{}\"", name.as_str().unwrap_or_default());
    let in_order = |(key, _): &(&str, &Value)| key.parse::<i128>().unwrap_or(i128::MAX);
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(in_order);
    format!("{{ {} }}", entries.into_iter().map(entry).collect::<Vec<_>>().join(", "))
}

fn enum_value(names: &BTreeMap<i64, String>) -> Value {
    let mut table = InlineTable::new();
    for (number, name) in names {
        table.insert_formatted(&Key::new(number.to_string()), Value::from(name.as_str()));
    }
    Value::InlineTable(table)
}

fn new_table(tag: &ImportedTag) -> Table {
    let mut table = Table::new();
    table.insert("name", toml_edit::value(tag.name.as_str()));
    table.insert("at", toml_edit::value(tag.at.as_str()));
    table.insert("type", toml_edit::value(tag.data_type.to_string()));
    if let Some(names) = tag.enum_names() {
        table.insert("enum", Item::Value(enum_value(names)));
    }
    let comment = tag.comment.as_ref().map_or_else(String::new, |text| format!("# {text}\n"));
    table.decor_mut().set_prefix(format!("\n{comment}"));
    table
}
