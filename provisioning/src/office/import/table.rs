//! Tables in CSV: name, address, type and comment.

use std::ops::Range;

use csv::{ReaderBuilder, StringRecord};

use super::declaration::{
    Declarations, DeclaredAccess, DeclaredVariable, TypeExpression, Unreadable, tidy_comment,
};
use super::skip::SkipReason;
use super::source::SourceText;
use super::st;
use crate::diagnostics::RejectedFile;

/// Names of columns in lower case, without spaces, `_` and `-`.
const NAMES: [&str; 6] = ["name", "variable", "symbol", "tag", "tagname", "variablename"];
const ADDRESSES: [&str; 5] = ["address", "at", "deviceaddress", "directaddress", "location"];
const TYPES: [&str; 4] = ["type", "datatype", "iectype", "variabletype"];
const COMMENTS: [&str; 4] = ["comment", "description", "documentation", "comments"];

/// Positions of the columns.
#[derive(Clone, Copy, Debug)]
struct Columns {
    name: usize,
    address: usize,
    declared: Option<usize>,
    comment: Option<usize>,
}

/// Reads the rows.
///
/// # Errors
/// When no column holds names, or none holds addresses.
pub(super) fn read(
    source: &SourceText,
    declarations: &mut Declarations,
) -> Result<(), RejectedFile> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(&source.text))
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(source.text.as_bytes());
    let mut columns = None;
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).unwrap_or(false) {
        // A spreadsheet may begin with `sep=;`.
        if record.iter().all(str::is_empty) || record.iter().next().is_some_and(is_separator) {
            continue;
        }
        let at = record.position().map_or(0, csv::Position::byte);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let known = match columns {
            Some(columns) => columns,
            None => {
                if let Some(named) = header(&record) {
                    columns = Some(named);
                    continue;
                }
                by_content(&record).ok_or_else(|| no_columns(source, at))?
            }
        };
        columns = Some(known);
        read_row(&record, known, at, source, declarations);
    }
    if columns.is_none() { Err(no_columns(source, 0)) } else { Ok(()) }
}

fn is_separator(cell: &str) -> bool {
    cell.to_ascii_lowercase().starts_with("sep=")
}

fn no_columns(source: &SourceText, at: usize) -> RejectedFile {
    source.reject_at(
        at,
        "this is no export that is known, and no table with the columns name and address",
        "give a symbol configuration (.xml), declarations (.gvl, .st), PLCopenXML, a project of \
         Machine Expert - Basic (.smbp), or a CSV file that begins with name,address,type,comment",
    )
}

/// Returns the delimiter that the first line contains most often.
fn delimiter(text: &str) -> u8 {
    let line = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let count =
        |delimiter: u8| line.unwrap_or_default().bytes().filter(|byte| *byte == delimiter).count();
    [b',', b';', b'\t'].into_iter().rev().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// Returns the columns that the names in a header give.
fn header(record: &StringRecord) -> Option<Columns> {
    let tidy = |cell: &str| -> String {
        let plain = cell.chars().filter(|c| !matches!(c, ' ' | '_' | '-' | '\u{feff}'));
        plain.flat_map(char::to_lowercase).collect()
    };
    let cells: Vec<_> = record.iter().map(tidy).collect();
    let column = |names: &[&str]| cells.iter().position(|cell| names.contains(&cell.as_str()));
    Some(Columns {
        name: column(&NAMES)?,
        address: column(&ADDRESSES)?,
        declared: column(&TYPES),
        comment: column(&COMMENTS),
    })
}

/// Returns the columns of a table without a header: name, address, type, comment.
fn by_content(record: &StringRecord) -> Option<Columns> {
    let address = record.get(1)?;
    let is_address = address.starts_with('%') || address.contains(':');
    is_address.then_some(Columns { name: 0, address: 1, declared: Some(2), comment: Some(3) })
}

fn read_row(
    record: &StringRecord,
    columns: Columns,
    at: usize,
    source: &SourceText,
    declarations: &mut Declarations,
) {
    let cell = |column: Option<usize>| {
        column.and_then(|column| record.get(column)).filter(|cell| !cell.is_empty())
    };
    let place = source.place(at + blank(&source.text, at..source.text.len()));
    let name = cell(Some(columns.name)).unwrap_or_default().to_owned();
    let declared = cell(columns.declared);
    let parsed = match declared {
        Some(text) => st::parse_type(text),
        None => Some(TypeExpression::Unsupported("the table does not state its type".to_owned())),
    };
    let Some(parsed) = parsed else {
        let text = declared.unwrap_or_default();
        let reason = SkipReason::Unreadable(format!("`{text}` is not a type of IEC 61131-3"));
        declarations.unreadable.push(Unreadable { variable: name, reason, place });
        return;
    };
    declarations.variables.push(DeclaredVariable {
        scope: None,
        name,
        at: cell(Some(columns.address)).map(ToOwned::to_owned),
        declared: parsed,
        comment: cell(columns.comment).and_then(tidy_comment),
        access: DeclaredAccess::Unknown,
        place,
    });
}

/// Returns the length of the blank lines with which a part of a text begins.
fn blank(text: &str, part: Range<usize>) -> usize {
    let rest = text.get(part).unwrap_or_default();
    rest.len() - rest.trim_start_matches(['\r', '\n']).len()
}
