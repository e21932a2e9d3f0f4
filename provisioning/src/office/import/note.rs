//! Tags that are possible, and probably not what is meant.

use std::fmt;

use super::SourcePlace;
use super::declaration::DeclaredVariable;
use super::expand::ImportedTag;
use crate::plc::{IecType, PlcFamily, PlcModel, ValueKind};

/// A note on a tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportNote {
    /// The variable as the program names it, with its list.
    pub variable: String,
    /// What is probably not meant.
    pub kind: NoteKind,
    /// Place of the declaration.
    pub place: SourcePlace,
}

/// What is probably not meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoteKind {
    /// A value of four or eight bytes does not begin at a multiple of its size.
    Misaligned {
        /// Its address.
        at: String,
        /// The size, in words.
        words: u64,
    },
    /// The name of the variable alone cannot be the name of its tag.
    Qualified {
        /// The name of the tag, with the list in front.
        name: String,
        /// The name of the variable.
        taken: String,
    },
    /// Two variables occupy the same bytes.
    Overlap {
        /// The other variable.
        other: String,
        /// Its address.
        at: String,
    },
}

impl NoteKind {
    /// Returns the stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Misaligned { .. } => "misaligned",
            Self::Qualified { .. } => "qualified",
            Self::Overlap { .. } => "overlapping",
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { at, words } => write!(
                f,
                "misaligned: {at} is not a multiple of {words} words, where Machine Expert places \
                 it"
            ),
            Self::Qualified { name, taken } => write!(
                f,
                "`{taken}` is reserved, or the name of several variables: the tag is called {name}"
            ),
            Self::Overlap { other, at } => {
                write!(f, "overlapping: occupies the same bytes as {other} at {at}")
            }
        }
    }
}

/// Returns the notes on all tags, in the order of their declarations.
pub(super) fn notes(
    tags: &[ImportedTag],
    variables: &[DeclaredVariable],
    model: PlcModel,
) -> Vec<ImportNote> {
    let is_aligned = model.family() == PlcFamily::MachineExpert;
    let misaligned = tags.iter().filter(|_| is_aligned).filter_map(misaligned);
    let qualified = qualified(tags, variables);
    let mut notes: Vec<_> = misaligned.chain(overlaps(tags)).chain(qualified).collect();
    notes.sort_by_key(|note| note.place);
    notes
}

/// Returns a note for each variable whose tags have the name of its list in front.
fn qualified<'a>(
    tags: &'a [ImportedTag],
    variables: &'a [DeclaredVariable],
) -> impl Iterator<Item = ImportNote> + 'a {
    let mut last = None;
    tags.iter().filter_map(move |tag| {
        let variable = variables.get(tag.root)?;
        let is_qualified = tag.name == tag.variable && variable.scope.is_some();
        if !is_qualified || last.replace(tag.root) == Some(tag.root) {
            return None;
        }
        let name = variable.qualified(&variable.name);
        Some(note(tag, NoteKind::Qualified { name, taken: variable.name.clone() }))
    })
}

fn misaligned(tag: &ImportedTag) -> Option<ImportNote> {
    let element = tag.data_type.element;
    let size = u64::from(element.size());
    if tag.location.table.holds_bits() || element.kind() == ValueKind::Text || size < 4 {
        return None;
    }
    let kind = NoteKind::Misaligned { at: tag.at.clone(), words: size / 2 };
    (!first_byte(tag).is_multiple_of(size)).then(|| note(tag, kind))
}

/// Returns the first overlap of each tag with one that begins before it. Parts of one variable may
/// overlap, as in a union, and so may a bit and its word.
fn overlaps(tags: &[ImportedTag]) -> Vec<ImportNote> {
    let is_bytes = |tag: &&ImportedTag| {
        !tag.location.table.holds_bits() && tag.data_type.element != IecType::Bool
    };
    let mut tags: Vec<_> = tags.iter().filter(is_bytes).collect();
    tags.sort_by_key(|tag| (tag.location.table, first_byte(tag)));
    let mut notes = Vec::new();
    let mut furthest: Option<&ImportedTag> = None;
    for tag in tags {
        let before = furthest.filter(|before| before.location.table == tag.location.table);
        if let Some(before) = before
            && before.root != tag.root
            && first_byte(tag) < end_byte(before)
        {
            let (later, earlier) =
                if before.place > tag.place { (before, tag) } else { (tag, before) };
            let (other, at) = (earlier.variable.clone(), earlier.at.clone());
            notes.push(note(later, NoteKind::Overlap { other, at }));
        }
        if before.is_none_or(|before| end_byte(before) <= end_byte(tag)) {
            furthest = Some(tag);
        }
    }
    notes
}

fn note(tag: &ImportedTag, kind: NoteKind) -> ImportNote {
    ImportNote { variable: tag.variable.clone(), kind, place: tag.place }
}

/// Returns the first byte of a tag in the memory of the PLC.
fn first_byte(tag: &ImportedTag) -> u64 {
    2 * u64::from(tag.location.first) + u64::from(tag.location.byte)
}

fn end_byte(tag: &ImportedTag) -> u64 {
    first_byte(tag) + u64::from(tag.data_type.size())
}
