//! `import`: variables of a PLC project → tags.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{EXIT_NEGATIVE, EXIT_OK};
use crate::diagnostics::RejectedFile;
use crate::office::import::{Import, ImportFile, MAX_FILE_BYTES, TagChange, TagFile, import};
use crate::office::output_file::{self, FileAccess};
use crate::plc::PlcModel;
use crate::regular_file;

pub(super) const EXAMPLES: &str = "\
Examples:
  edge-provision import Pump.Device.Application.xml >> gateway.toml
  edge-provision import GVL_Pump.gvl ST_Pump.st --output tags.toml
  edge-provision import Pump.smbp --json
  edge-provision import Pump.xml --update gateway.toml --plc pump6
  edge-provision import Pump.xml --update gateway.toml --output -

What was skipped, and why, is printed on standard error.
Exit codes: 0 success, 1 no variable became a tag, 2 usage error.";

/// `import`.
#[derive(Args, Debug)]
pub(super) struct ImportOptions {
    /// Symbol configuration (.xml), declarations (.gvl, .st), PLCopenXML, project of Machine Expert
    /// - Basic (.smbp), or table (.csv). Several files are read as one export.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Model of the PLC [default: that of the updated file, M221 for .smbp, else M241].
    #[arg(long, value_name = "MODEL")]
    model: Option<PlcModel>,
    /// Change the tags of this file to the export, and keep everything else in it.
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// PLC whose tags are updated, if the file has several.
    #[arg(long, value_name = "NAME", requires = "update")]
    plc: Option<String>,
    /// File for the tags, `-` for standard output [default: the updated file, else standard
    /// output].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print what was found as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Reads the export, prints the preview and writes the tags.
pub(super) fn run(options: &ImportOptions) -> anyhow::Result<u8> {
    let target = match &options.update {
        Some(path) => match read_target(path, options.plc.as_deref())? {
            Ok(target) => Some(target),
            Err(rejected) => return reject(&rejected),
        },
        None => None,
    };
    let files: Vec<_> = options.files.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let model = options.model.or_else(|| target.as_ref().and_then(TagFile::model));
    let import = match import(&files, model) {
        Ok(import) => import,
        Err(rejected) => return reject(&rejected),
    };
    let mut target = target;
    let changes = match target.as_mut().map(|target| target.update(&import)).transpose() {
        Ok(changes) => changes,
        Err(rejected) => return reject(&rejected),
    };
    show(options, &import, changes.as_deref())?;
    if import.tags.is_empty() {
        return Ok(EXIT_NEGATIVE);
    }
    let text = target.map_or_else(|| import.to_toml(), |target| target.to_string());
    write_tags(options, &text)?;
    Ok(EXIT_OK)
}

fn reject(rejected: &RejectedFile) -> anyhow::Result<u8> {
    writeln!(io::stderr(), "{rejected}")?;
    Ok(EXIT_NEGATIVE)
}

fn read(path: &Path) -> anyhow::Result<ImportFile> {
    let bytes = regular_file::read(path, MAX_FILE_BYTES)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(ImportFile { path: path.to_owned(), bytes })
}

fn read_target(path: &Path, plc: Option<&str>) -> anyhow::Result<Result<TagFile, RejectedFile>> {
    let ImportFile { bytes, .. } = read(path)?;
    let Ok(text) = String::from_utf8(bytes) else { bail!("{} is not UTF-8", path.display()) };
    Ok(TagFile::parse(path, &text, plc))
}

/// Prints the preview: for people on standard error, or as JSON on standard output.
fn show(
    options: &ImportOptions,
    import: &Import,
    changes: Option<&[TagChange]>,
) -> anyhow::Result<()> {
    if options.json {
        let mut found = import.to_json();
        if let (Some(found), Some(changes)) = (found.as_object_mut(), changes) {
            found.insert("changes".to_owned(), changes.iter().map(to_json).collect());
        }
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(());
    }
    let mut error = io::stderr().lock();
    write!(error, "{import}")?;
    let Some(changes) = changes else { return Ok(()) };
    writeln!(error, "\nchanges: {}", changes.len())?;
    for change in changes {
        writeln!(error, "  {change}")?;
    }
    Ok(())
}

fn to_json(change: &TagChange) -> Value {
    json!({ "change": change.code(), "tag": change.name(), "message": change.to_string() })
}

fn write_tags(options: &ImportOptions, text: &str) -> anyhow::Result<()> {
    let output = options.output.as_deref().or(options.update.as_deref());
    match output {
        Some(path) if path != Path::new("-") => {
            // A link is followed: the file that it names is replaced.
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            output_file::replace_if_changed(&path, text.as_bytes(), FileAccess::Public)?;
        }
        // JSON on standard output is the only thing there.
        _ if options.json => {}
        _ => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(())
}
