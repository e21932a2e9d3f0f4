//! A stick: the newest bundle for this box is taken from it, and what became of it is written onto
//! it, with the enrolment of the box.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;

use super::box_contents::BoxContents;
use super::load::Loader;
use super::open_dir::OpenDir;
use super::sentence::{HelperError, Refusal};
use crate::bundle::{BundleError, MAX_BUNDLE_BYTES, MAX_PACKAGE_BYTES, PackageName};
use crate::enrolment::Enrolment;

use super::gateway_state::StateFiles;

/// What the name of a bundle begins with.
const BUNDLE_PREFIX: &str = "edge-bundle";
/// Name of the file that says what was done.
const STATUS_FILE: &str = "edge-status.txt";
/// Maximum number of names on a stick that are looked at.
const MAX_NAMES: usize = 4096;
/// Maximum number of bundles on a stick that are opened.
const MAX_BUNDLES: usize = 64;
/// Longest part of a name that is shown, in characters.
const MAX_SHOWN_NAME: usize = 80;

/// What became of the bundles of a stick.
#[derive(Debug, Default)]
pub(super) struct StickReport {
    /// Counter of the bundle that was loaded.
    pub(super) loaded: Option<u64>,
    /// A sentence for each file, with the name before it.
    pub(super) lines: Vec<String>,
    /// A bundle was refused, and not only because the box has it.
    pub(super) is_refused: bool,
}

/// A bundle that may be loaded.
struct StickBundle {
    name: String,
    bytes: Vec<u8>,
    contents: BoxContents,
}

/// Loads the newest bundle of a stick that is for this box and newer than its last one, and takes
/// the packages of its version and of the installed one, if they are on the stick.
///
/// # Errors
/// When a file of the box cannot be read or written. What is wrong with the stick is reported.
pub(super) fn load_newest(
    stick: &OpenDir,
    loader: Loader<'_>,
    state: &StateFiles,
    installed: Option<&PackageName>,
) -> Result<StickReport, HelperError> {
    let mut report = StickReport::default();
    let names = match stick.names(MAX_NAMES) {
        Ok(names) => names,
        Err(error) => {
            report.refuse(format!("the stick cannot be read: {error}"));
            return Ok(report);
        }
    };
    let is_bundle = |name: &&std::ffi::OsString| {
        name.to_string_lossy().to_ascii_lowercase().starts_with(BUNDLE_PREFIX)
    };
    let mut newest: Option<StickBundle> = None;
    for (at, name) in names.iter().filter(is_bundle).enumerate() {
        if at == MAX_BUNDLES {
            report.refuse(format!("only the first {MAX_BUNDLES} bundles on a stick are checked"));
            break;
        }
        let Some(found) = report.look_at(stick, name, &loader) else { continue };
        let is_newer =
            newest.as_ref().is_none_or(|newest| newest.contents.counter < found.contents.counter);
        let older = if is_newer { newest.replace(found) } else { Some(found) };
        if let Some(older) = older {
            let counter = older.contents.counter;
            let line = format!("{}: bundle {counter}, there is a newer one", older.name);
            report.lines.push(line);
        }
    }
    match newest {
        Some(newest) => report.load(newest, stick, loader, state, installed)?,
        None if report.lines.is_empty() => {
            report.lines.push(format!("there is no {BUNDLE_PREFIX}-ID.tar on the stick"));
        }
        None => {}
    }
    Ok(report)
}

impl StickReport {
    /// Returns the report of a stick from which nothing could be loaded.
    pub(super) fn failed(error: &HelperError) -> Self {
        Self { loaded: None, lines: vec![error.to_string()], is_refused: true }
    }

    /// Reports something that is wrong.
    pub(super) fn refuse(&mut self, line: String) {
        self.lines.push(line);
        self.is_refused = true;
    }

    /// Returns a bundle if it may be loaded; says what is wrong with it otherwise.
    fn look_at(
        &mut self,
        stick: &OpenDir,
        name: &OsStr,
        loader: &Loader<'_>,
    ) -> Option<StickBundle> {
        let shown = shown_name(name);
        let bytes = match stick.read_os(name, MAX_BUNDLE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let error = format!("at most {MAX_BUNDLE_BYTES} bytes are read");
                self.refuse(format!("{shown}: it is too long, {error}"));
                return None;
            }
            Err(error) => {
                self.refuse(format!("{shown}: it cannot be read: {error}"));
                return None;
            }
        };
        match loader.verify(&bytes) {
            Ok(contents) => Some(StickBundle { name: shown, bytes, contents }),
            Err(refusal @ Refusal::Bundle(BundleError::SameCounter { .. })) => {
                self.lines.push(format!("{shown}: {refusal}"));
                None
            }
            Err(refusal) => {
                self.refuse(format!("{shown}: {refusal}"));
                None
            }
        }
    }

    fn load(
        &mut self,
        found: StickBundle,
        stick: &OpenDir,
        mut loader: Loader<'_>,
        state: &StateFiles,
        installed: Option<&PackageName>,
    ) -> Result<(), HelperError> {
        let StickBundle { name, bytes, contents } = found;
        for package in contents.packages.keys() {
            let is_needed = installed.is_some_and(|installed| {
                let version = Some(package.version());
                let is_one = version == contents.version.as_deref() || package == installed;
                is_one && package.architecture() == installed.architecture()
            });
            if !is_needed {
                continue;
            }
            match stick.read_optional(&package.to_string(), MAX_PACKAGE_BYTES) {
                Ok(Some(bytes)) => {
                    match loader.keep_package(package, &bytes, &contents) {
                        Ok(true) => {}
                        Ok(false) => {
                            let why = "it is not the one that the bundle names";
                            self.refuse(format!("{package}: {why}"));
                        }
                        // The gateway can still fetch it.
                        Err(error) => self.refuse(format!("{package}: {error}")),
                    }
                }
                Ok(None) => {}
                Err(error) => self.refuse(format!("{package}: it cannot be read: {error}")),
            }
        }
        loader.put(&bytes, &contents, state)?;
        self.loaded = Some(contents.counter);
        self.lines.push(format!("{name}: bundle {} was loaded", contents.counter));
        Ok(())
    }
}

/// Writes the enrolment of the box and what was done onto a stick.
pub(super) fn write_files(
    stick: &OpenDir,
    enrolment: &Enrolment,
    report: &StickReport,
    status: Option<&str>,
) -> Result<(), HelperError> {
    let name = enrolment.file_name();
    stick
        .replace(&name, enrolment.to_string().as_bytes(), 0o644, None)
        .map_err(HelperError::io("write", &name))?;
    let text = status_text(enrolment, report, status);
    stick
        .replace(STATUS_FILE, text.as_bytes(), 0o644, None)
        .and_then(|()| stick.sync_file_system())
        .map_err(HelperError::io("write", STATUS_FILE))
}

fn status_text(enrolment: &Enrolment, report: &StickReport, status: Option<&str>) -> String {
    let mut text = format!(
        "edge-gateway {}, box {}\n\nThis stick:\n",
        env!("CARGO_PKG_VERSION"),
        enrolment.short_id()
    );
    for line in &report.lines {
        // A String accepts every text.
        let _ = writeln!(text, "- {line}");
    }
    let status = status.unwrap_or("No bundle is in use yet.\n");
    let _ = write!(text, "\nThis box:\n{status}");
    text
}

/// Returns a name from a stick as any terminal can show it.
fn shown_name(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    name.chars().map(shown).take(MAX_SHOWN_NAME).collect()
}
