//! Variables → tags: structures and arrays become tags with addresses of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use super::SourcePlace;
use super::declaration::{Declarations, DeclaredAccess, DeclaredVariable};
use super::layout::{Layout, LayoutMember, Layouts, MemberContent};
use super::skip::SkipReason;
use crate::config::{DEFAULT_MAX_WORDS, MAX_TAGS, size_error};
use crate::plc::{
    ArrayBounds, DataType, IecType, Location, LocationError, PlcFamily, PlcModel, Table,
};

/// A variable, or a part of one, that becomes a tag.
#[derive(Clone, Debug)]
pub struct ImportedTag {
    /// Name of the tag.
    pub name: String,
    /// Address.
    pub at: String,
    /// Type.
    pub data_type: DataType,
    /// Names of the numbers, for an enumeration.
    pub names: Option<Rc<BTreeMap<i64, String>>>,
    /// Comment of the declaration, on one line.
    pub comment: Option<String>,
    /// What the export allows a client to do.
    pub access: DeclaredAccess,
    /// The variable as the program names it, with its list.
    pub variable: String,
    /// Place of the declaration.
    pub place: SourcePlace,
    /// Number of the declaration, from 0: parts of one variable have the same.
    pub(super) root: usize,
    pub(super) location: Location,
}

/// A variable, or a part of one, that does not become a tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedVariable {
    /// The variable as the program names it, with its list; empty when it could not be read.
    pub variable: String,
    /// Why.
    pub reason: SkipReason,
    /// Place of the declaration.
    pub place: SourcePlace,
}

/// Largest number of bytes that Modbus can address: 65,536 registers.
const MAX_BYTES: u64 = 2 << 16;

/// Tags and skipped variables so far.
pub(super) struct Expansion<'a> {
    model: PlcModel,
    layouts: Layouts<'a>,
    pub(super) tags: Vec<ImportedTag>,
    pub(super) skipped: Vec<SkippedVariable>,
}

/// The variable at hand.
#[derive(Clone, Copy)]
struct Root<'a> {
    variable: &'a DeclaredVariable,
    number: usize,
}

/// A part of a variable.
#[derive(Clone, Copy)]
struct PathPart<'a> {
    layout: &'a Layout,
    /// First byte in the memory of the PLC.
    byte: u64,
    bit: Option<u8>,
    comment: Option<&'a String>,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(model: PlcModel, declarations: &'a Declarations) -> Self {
        let layouts = Layouts::new(declarations);
        Self { model, layouts, tags: Vec::new(), skipped: Vec::new() }
    }

    /// Adds the tags of a variable, or the reason why it has none.
    pub(super) fn add(&mut self, number: usize, variable: &DeclaredVariable) {
        let root = Root { variable, number };
        if let Err(reason) = self.expand_variable(root) {
            self.skip(root, &variable.name, reason);
        }
    }

    fn expand_variable(&mut self, root: Root<'_>) -> Result<(), SkipReason> {
        let variable = root.variable;
        let at = variable.at.as_deref().ok_or(SkipReason::NotLocated)?;
        if at.contains('*') {
            return Err(SkipReason::IncompleteAddress(at.to_owned()));
        }
        let layout = self.layouts.layout(&variable.declared)?;
        if layout.size > MAX_BYTES {
            return Err(SkipReason::TooLarge(layout.size));
        }
        if let MemberContent::Opaque(reason) = &layout.content {
            return Err(reason.clone());
        }
        if self.is_full() {
            return Err(SkipReason::TooManyTags(MAX_TAGS));
        }
        let mut path = variable.name.clone();
        let comment = variable.comment.as_ref();
        let undivided = undivided(&layout).filter(|data| !self.is_array_of_bytes(*data, at));
        let whole = undivided.map(|data| self.add_tag(root, &path, (at, data), &layout, comment));
        match whole {
            Some(Ok(())) => return Ok(()),
            // Other devices have no layout that is known.
            Some(Err(reason)) if self.model.family() != PlcFamily::MachineExpert => {
                return Err(reason);
            }
            Some(Err(_)) | None => {}
        }
        let byte = self.first_byte(at, &layout)?;
        self.expand(root, &mut path, &PathPart { layout: &layout, byte, bit: None, comment })
    }

    /// Returns whether a declaration means an array with a byte for each BOOL, which the gateway
    /// would read as bits at this address.
    fn is_array_of_bytes(&self, data_type: DataType, at: &str) -> bool {
        let is_bits = data_type.element == IecType::Bool && data_type.bounds.is_some();
        let location = self.model.locate(at, IecType::Bool);
        is_bits
            && self.model.family() == PlcFamily::MachineExpert
            && !location
                .is_ok_and(|location| location.bit.is_none() && !location.table.holds_bits())
    }

    /// Returns the byte in the memory at which a variable begins that has parts.
    fn first_byte(&self, at: &str, layout: &Layout) -> Result<u64, SkipReason> {
        let out_of_reach =
            |error: LocationError| self.location_problem(at, undivided(layout), error);
        if self.model.family() != PlcFamily::MachineExpert {
            self.model.locate(at, IecType::Byte).map_err(out_of_reach)?;
            let what = format!("only single values and their arrays can be at {at}");
            return Err(SkipReason::UnsupportedType(what));
        }
        let location = self.model.locate(at, IecType::Byte).or_else(|error| {
            // `%MX20.0` has the type BOOL, and is byte 20.
            self.model.locate(at, IecType::Bool).map_err(|_| error)
        });
        let location = location.map_err(out_of_reach)?;
        if location.table != Table::HoldingRegister || location.bit.is_some_and(|bit| bit > 0) {
            let what = format!("only a BOOL can be at {at}");
            return Err(SkipReason::UnsupportedType(what));
        }
        Ok(2 * u64::from(location.first) + u64::from(location.byte))
    }

    /// Adds the tags of a part whose first byte is known.
    fn expand(
        &mut self,
        root: Root<'_>,
        path: &mut String,
        part: &PathPart<'_>,
    ) -> Result<(), SkipReason> {
        match &part.layout.content {
            MemberContent::Value(iec, _) => {
                let at = address(part.byte, part.bit, *iec);
                self.add_tag(root, path, (&at, (*iec).into()), part.layout, part.comment)
            }
            MemberContent::Bit => {
                let bit = part.bit.unwrap_or_default();
                let at = address(part.byte, Some(bit), IecType::Bool);
                self.add_tag(root, path, (&at, IecType::Bool.into()), part.layout, part.comment)
            }
            MemberContent::Members(members) => {
                for member in members {
                    if self.is_full() {
                        return Err(SkipReason::TooManyTags(MAX_TAGS));
                    }
                    self.expand_member(root, path, part, member);
                }
                Ok(())
            }
            MemberContent::Array(dims, element) => {
                self.expand_array(root, path, part, dims, element)
            }
            MemberContent::Opaque(reason) => Err(reason.clone()),
        }
    }

    fn expand_member(
        &mut self,
        root: Root<'_>,
        path: &mut String,
        owner: &PathPart<'_>,
        member: &LayoutMember,
    ) {
        let length = path.len();
        path.push('.');
        path.push_str(&member.name);
        let part = PathPart {
            layout: &member.layout,
            byte: owner.byte.saturating_add(member.offset),
            bit: member.bit,
            comment: member.comment.as_ref().or(owner.comment),
        };
        if let Err(reason) = self.expand(root, path, &part) {
            self.skip(root, path, reason);
        }
        path.truncate(length);
    }

    /// Adds an array: one tag for each run of values along the last dimension, or the parts of each
    /// element.
    fn expand_array(
        &mut self,
        root: Root<'_>,
        path: &mut String,
        part: &PathPart<'_>,
        dims: &[(i64, i64)],
        element: &Rc<Layout>,
    ) -> Result<(), SkipReason> {
        if let MemberContent::Opaque(reason) = &element.content {
            return Err(reason.clone());
        }
        let is_run = matches!(element.content, MemberContent::Value(..));
        let (outer, last) = match dims.split_last() {
            Some((last, outer)) if is_run => (outer, Some(*last)),
            _ => (dims, None),
        };
        let row = last.map_or(1, |(first, last)| last.saturating_sub(first).saturating_add(1));
        let step = element.size.saturating_mul(u64::try_from(row).unwrap_or(u64::MAX));
        let mut index: Vec<i64> = outer.iter().map(|(first, _)| *first).collect();
        let mut byte = part.byte;
        let length = path.len();
        loop {
            if self.is_full() {
                return Err(SkipReason::TooManyTags(MAX_TAGS));
            }
            let inner = PathPart { layout: element, byte, bit: None, comment: part.comment };
            let result = match last {
                Some(last) => self.add_run(root, path, &index, last, &inner),
                None => {
                    push_index(path, &index, None);
                    self.expand(root, path, &inner)
                }
            };
            if let Err(reason) = result {
                self.skip(root, path, reason);
            }
            path.truncate(length);
            byte = byte.saturating_add(step);
            if !advance(&mut index, outer) {
                return Ok(());
            }
        }
    }

    /// Adds the values of one row, as a tag for each part that fits into one request. The layout of
    /// `row` is that of an element.
    fn add_run(
        &mut self,
        root: Root<'_>,
        path: &mut String,
        outer: &[i64],
        (first, last): (i64, i64),
        row: &PathPart<'_>,
    ) -> Result<(), SkipReason> {
        let PathPart { layout: element, mut byte, comment, .. } = *row;
        let MemberContent::Value(iec, _) = element.content else { return Ok(()) };
        let length = path.len();
        let mut next = first;
        while next <= last {
            if self.is_full() {
                return Err(SkipReason::TooManyTags(MAX_TAGS));
            }
            let room = (2 * u64::from(DEFAULT_MAX_WORDS) - byte % 2) / element.size.max(1);
            let count = i64::try_from(room).unwrap_or(i64::MAX).max(1);
            let end = next.saturating_add(count - 1).min(last);
            let is_whole = outer.is_empty() && (next, end) == (first, last);
            if !is_whole {
                push_index(path, outer, Some((next, end)));
            }
            let bounds = i32::try_from(next).ok().zip(i32::try_from(end).ok());
            let bounds = bounds.and_then(|(first, last)| ArrayBounds::new(first, last));
            let Some(bounds) = bounds else {
                let what = format!("the index {next} has more than 32 bits");
                return Err(SkipReason::UnsupportedType(what));
            };
            let data_type = DataType { element: iec, bounds: Some(bounds) };
            let at = address(byte, None, iec);
            if let Err(reason) = self.add_tag(root, path, (&at, data_type), element, comment) {
                self.skip(root, path, reason);
            }
            path.truncate(length);
            let elements = u64::try_from(end - next + 1).unwrap_or(u64::MAX);
            byte = byte.saturating_add(element.size.saturating_mul(elements));
            next = end.saturating_add(1);
        }
        Ok(())
    }

    /// Adds a tag if the gateway can read it.
    fn add_tag(
        &mut self,
        root: Root<'_>,
        path: &str,
        (at, data_type): (&str, DataType),
        layout: &Layout,
        comment: Option<&String>,
    ) -> Result<(), SkipReason> {
        let problem = |error| self.location_problem(at, Some(data_type), error);
        let location = self.model.locate(at, data_type).map_err(problem)?;
        if let Some((message, help)) = size_error(&location, DEFAULT_MAX_WORDS) {
            let message = format!("the type {data_type} takes {message}");
            return Err(SkipReason::OutOfReach { message, help });
        }
        if self.is_full() {
            return Err(SkipReason::TooManyTags(MAX_TAGS));
        }
        let names = layout.names().cloned();
        self.tags.push(ImportedTag {
            name: path.to_owned(),
            at: at.to_owned(),
            data_type,
            names,
            comment: comment.cloned(),
            access: root.variable.access,
            variable: root.variable.qualified(path),
            place: root.variable.place,
            root: root.number,
            location,
        });
        Ok(())
    }

    fn location_problem(
        &self,
        at: &str,
        data_type: Option<DataType>,
        error: LocationError,
    ) -> SkipReason {
        let is_odd = self.model.locate(at, IecType::Byte).is_ok_and(|location| location.byte == 1);
        match data_type {
            Some(data_type) if is_odd && data_type.element.alignment() > 1 => {
                SkipReason::Misaligned { at: at.to_owned(), data_type: data_type.to_string() }
            }
            _ => SkipReason::OutOfReach {
                message: error.message,
                help: error.help.unwrap_or_default(),
            },
        }
    }

    fn is_full(&self) -> bool {
        self.tags.len() + self.skipped.len() >= 2 * MAX_TAGS || self.tags.len() >= MAX_TAGS
    }

    fn skip(&mut self, root: Root<'_>, path: &str, reason: SkipReason) {
        let (variable, place) = (root.variable.qualified(path), root.variable.place);
        self.skipped.push(SkippedVariable { variable, reason, place });
    }
}

impl DeclaredVariable {
    /// Returns a path within this variable with the name of its list in front.
    pub(super) fn qualified(&self, path: &str) -> String {
        self.scope.as_ref().map_or_else(|| path.to_owned(), |scope| format!("{scope}.{path}"))
    }
}

impl Layout {
    /// Returns the names of the numbers of an enumeration, or of an array of one.
    fn names(&self) -> Option<&Rc<BTreeMap<i64, String>>> {
        match &self.content {
            MemberContent::Value(_, names) => names.as_ref(),
            MemberContent::Array(_, element) => element.names(),
            MemberContent::Bit | MemberContent::Members(_) | MemberContent::Opaque(_) => None,
        }
    }
}

/// Returns the type of a variable that may be one tag: a value, or an array of values.
fn undivided(layout: &Layout) -> Option<DataType> {
    match &layout.content {
        MemberContent::Value(iec, _) => Some((*iec).into()),
        MemberContent::Bit => Some(IecType::Bool.into()),
        MemberContent::Array(dims, element) => {
            let ([(first, last)], MemberContent::Value(iec, _)) =
                (dims.as_slice(), &element.content)
            else {
                return None;
            };
            let (first, last) = (i32::try_from(*first).ok()?, i32::try_from(*last).ok()?);
            let bounds = Some(ArrayBounds::new(first, last)?);
            Some(DataType { element: *iec, bounds })
        }
        MemberContent::Members(_) | MemberContent::Opaque(_) => None,
    }
}

/// Returns the address of a value in the memory of M241, M251 and M262.
fn address(byte: u64, bit: Option<u8>, iec: IecType) -> String {
    match bit {
        Some(bit) => format!("%MX{byte}.{bit}"),
        None if iec.size() == 1 || byte % 2 == 1 => format!("%MB{byte}"),
        None => format!("%MW{}", byte / 2),
    }
}

/// Appends `[1,2]`, or `[1,0..9]` with a range of the last dimension.
fn push_index(path: &mut String, index: &[i64], last: Option<(i64, i64)>) {
    path.push('[');
    for (number, index) in index.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(path, "{comma}{index}");
    }
    if let Some((first, last)) = last {
        let comma = if index.is_empty() { "" } else { "," };
        let _ = write!(path, "{comma}{first}..{last}");
    }
    path.push(']');
}

/// Advances the index, the last dimension first. Returns whether there is a next element.
fn advance(index: &mut [i64], dims: &[(i64, i64)]) -> bool {
    for (index, (first, last)) in index.iter_mut().zip(dims).rev() {
        if *index < *last {
            *index += 1;
            return true;
        }
        *index = *first;
    }
    false
}
