//! Variables of a PLC project → tags of gateway.toml.
//!
//! [`import`] reads what the tools of the PLC export: the symbol configuration of Machine Expert,
//! declarations in Structured Text, PLCopenXML, projects of Machine Expert - Basic, and tables in
//! CSV. All formats become the same declarations; layout, addresses and names are computed from
//! those. Pure: files come as bytes.

mod declaration;
mod expand;
mod expression;
mod layout;
mod names;
mod note;
mod plcopen;
mod preview;
mod skip;
mod smbp;
mod source;
mod st;
mod symbols;
mod table;
mod tag_file;
#[cfg(test)]
mod tests;
mod toml_text;
mod xml;

use std::fmt;
use std::path::PathBuf;

pub use declaration::DeclaredAccess;
pub use expand::{ImportedTag, SkippedVariable};
pub use note::{ImportNote, NoteKind};
pub use skip::SkipReason;
pub use source::{ImportFile, SourcePlace};
pub use tag_file::{TagChange, TagFile};

use declaration::Declarations;
use expand::Expansion;
use source::SourceText;

use crate::diagnostics::RejectedFile;
use crate::plc::PlcModel;

/// Maximum size of a file: the largest projects have a few MB of symbols.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

/// What the files of an export contain.
#[derive(Debug)]
pub struct Import {
    /// Model whose rules decide about addresses.
    pub model: PlcModel,
    /// The files with their formats.
    pub files: Vec<(PathBuf, ExportFormat)>,
    /// Number of variables, constants not counted.
    pub variables: usize,
    /// Tags in the order of the files.
    pub tags: Vec<ImportedTag>,
    /// Variables, or parts of them, that do not become tags.
    pub skipped: Vec<SkippedVariable>,
    /// Tags that are possible, and probably not what is meant.
    pub notes: Vec<ImportNote>,
}

/// Format of an export.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExportFormat {
    /// XML of the symbol configuration (Machine Expert, CODESYS).
    SymbolConfiguration,
    /// Declarations in Structured Text: .gvl, .st, pasted text.
    StructuredText,
    /// PLCopenXML.
    PlcOpen,
    /// Project of Machine Expert - Basic.
    MachineExpertBasic,
    /// Table with the columns name, address, type and comment.
    Csv,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SymbolConfiguration => "symbol configuration",
            Self::StructuredText => "declarations in Structured Text",
            Self::PlcOpen => "PLCopenXML",
            Self::MachineExpertBasic => "project of Machine Expert - Basic",
            Self::Csv => "table in CSV",
        })
    }
}

/// Reads all files of one PLC as one export. Without a model, that of the format is taken: M221
/// for a project of Machine Expert - Basic, else M241, whose addresses are also those of M251 and
/// M262.
///
/// ```
/// use provisioning::office::import::{ImportFile, import};
///
/// let bytes = b"VAR_GLOBAL level AT %MW14 : INT; END_VAR".to_vec();
/// let import = import(&[ImportFile { path: "pump.gvl".into(), bytes }], None)?;
/// assert_eq!((import.tags[0].name.as_str(), import.tags[0].at.as_str()), ("level", "%MW14"));
/// # Ok::<(), provisioning::diagnostics::RejectedFile>(())
/// ```
///
/// # Errors
/// When a file has no known format, or is not well-formed XML.
pub fn import(files: &[ImportFile], model: Option<PlcModel>) -> Result<Import, RejectedFile> {
    let mut declarations = Declarations::default();
    let mut formats = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let format = read(&SourceText::decode(number, file), &mut declarations)?;
        formats.push((file.path.clone(), format));
    }
    let is_basic = formats.iter().any(|(_, format)| *format == ExportFormat::MachineExpertBasic);
    let model = model.unwrap_or(if is_basic { PlcModel::M221 } else { PlcModel::M241 });
    let mut skipped = names::remove_repeated(&mut declarations);
    let qualified = names::qualified_roots(&declarations.variables);
    let mut expansion = Expansion::new(model, &declarations);
    for (number, variable) in declarations.variables.iter().enumerate() {
        expansion.add(number, variable);
    }
    let Expansion { tags, skipped: unreachable, .. } = expansion;
    skipped.extend(unreachable);
    let tags = names::assign(tags, &qualified, &mut skipped);
    let notes = note::notes(&tags, &declarations.variables, model);
    let variables = declarations.variables.len();
    skipped.extend(declarations.unreadable.into_iter().map(|part| SkippedVariable {
        variable: part.variable,
        reason: part.reason,
        place: part.place,
    }));
    skipped.sort_by_key(|skipped| skipped.place);
    Ok(Import { model, files: formats, variables, tags, skipped, notes })
}

/// Reads a file in the format that its content shows.
fn read(
    source: &SourceText,
    declarations: &mut Declarations,
) -> Result<ExportFormat, RejectedFile> {
    let text = source.text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Err(source.reject("this file is empty", "export the variables again"));
    }
    if text.starts_with('<') {
        return read_xml(source, declarations);
    }
    if text.contains('\0') || text.starts_with("PK\u{3}") {
        return Err(source.reject(
            "this is a binary file, which only its own tool can read",
            "export the variables as text: File > Export PLCopenXML, or the symbol configuration",
        ));
    }
    if !source.has_extension("csv") {
        if st::has_lists(text) {
            st::read(source, declarations);
            return Ok(ExportFormat::StructuredText);
        }
        if st::is_inside_of_list(text) {
            st::read(&source.as_list(), declarations);
            return Ok(ExportFormat::StructuredText);
        }
    }
    table::read(source, declarations)?;
    Ok(ExportFormat::Csv)
}

fn read_xml(
    source: &SourceText,
    declarations: &mut Declarations,
) -> Result<ExportFormat, RejectedFile> {
    let document = xml::parse(source)?;
    let root = document.root_element();
    let name = root.tag_name().name();
    match name.to_ascii_lowercase().as_str() {
        "symbolconfiguration" => {
            symbols::read(root, source, declarations);
            Ok(ExportFormat::SymbolConfiguration)
        }
        "project" => {
            plcopen::read(root, source, declarations);
            Ok(ExportFormat::PlcOpen)
        }
        "projectdescriptor" => {
            smbp::read(root, source, declarations);
            Ok(ExportFormat::MachineExpertBasic)
        }
        "exportfile" => Err(source.reject_at(
            root.range().start,
            "this is an export of CODESYS that only CODESYS can read",
            "use Project > Export PLCopenXML, or the symbol configuration",
        )),
        "variablesexchangefile" => Err(source.reject_at(
            root.range().start,
            "this is an export of Control Expert, for an M340 or M580",
            "declare them in a CSV file with the columns name,address,type,comment",
        )),
        _ => Err(source.reject_at(
            root.range().start,
            format!("an XML file that begins with <{name}> is no export that is known"),
            "give the symbol configuration, PLCopenXML, or a project of Machine Expert - Basic",
        )),
    }
}
