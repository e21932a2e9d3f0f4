//! Reads files of wg-quick(8), as far as they describe how a site reaches its hub.

mod keys;
mod sections;
#[cfg(test)]
mod tests;
mod value;

use std::io::{self, ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tunnel::{LocalPort, RoutePolicy, Settings};
use zeroize::Zeroizing;

use crate::diagnostics::{Notes, Problem, RejectedFile, SourceSpan};
use crate::regular_file;
use keys::SectionKind;
use sections::{Contents, ParsedSections};

/// Maximum packet size in the tunnel when the file has none: IPv6 requires it of every line, also
/// LTE and DS-Lite. wg-quick would take the MTU of the line at its start.
const DEFAULT_MTU: u16 = 1280;

/// Maximum size of a file: 256 KiB, enough for thousands of networks.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Maximum number of problems that are recorded: a file of another format has one per line.
const MAX_PROBLEMS: usize = 50;

/// Maximum length of a misspelt key that is shown. A longer word may be a secret without its key.
const MAX_SHOWN_KEY: usize = 24;

/// Contents of a file.
#[derive(Clone, Debug)]
pub struct WgQuick {
    /// The tunnel. Each `[Peer]` is a hub, in the order of the file.
    pub settings: Settings,
    /// UDP port of this end.
    pub port: LocalPort,
    /// Whether the networks of the hub become routes.
    pub routes: RoutePolicy,
    /// Lines without effect.
    pub notes: Notes,
}

/// Why a file was not loaded.
#[derive(Debug, Error)]
pub enum WgQuickError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file was read and is invalid.
    #[error(transparent)]
    Rejected(#[from] RejectedFile),
}

/// Reads a file, which must be closed to group and others, as wg-quick requires.
///
/// # Errors
/// When the file cannot be read, is not a text file of at most 256 KiB, can be read or changed by
/// others, or has an invalid line.
pub fn load(path: &Path) -> Result<WgQuick, WgQuickError> {
    let unreadable = |error| WgQuickError::Unreadable(path.to_owned(), error);
    let file = regular_file::open(path, MAX_FILE_BYTES).map_err(|error| open_error(path, error))?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(rejected_as_whole(
            path,
            "other users can read or change this file, which contains a private key",
            format!("remove their access: chmod 600 {}", path.display()),
        ));
    }
    // The full capacity at once: a buffer that grows leaves copies of the key behind.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or(0)));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(parse(path, &bytes)?)
}

fn open_error(path: &Path, error: io::Error) -> WgQuickError {
    let kind = error.kind();
    if ![ErrorKind::IsADirectory, ErrorKind::InvalidInput, ErrorKind::FileTooLarge].contains(&kind)
    {
        return WgQuickError::Unreadable(path.to_owned(), error);
    }
    let help = "give the path of a text file of at most 256 KiB";
    rejected_as_whole(path, "this is not a file of wg-quick", help)
}

fn rejected_as_whole(path: &Path, message: &str, help: impl Into<String>) -> WgQuickError {
    let problem = Problem::new(SourceSpan::WholeFile, message, help);
    RejectedFile::new(path, String::new(), vec![problem]).into()
}

/// Parses the contents of the file `path`, which is only named in errors.
///
/// As in wg-quick, sections and keys may be in upper or lower case, `#` begins a comment, and lists
/// are separated by commas or continued by another line with the same key. Other keys must not be
/// repeated. Commands (`PostUp` and the like) are rejected and never run. Several peers are several
/// hubs, of which one is used at a time, so they must have the same allowed IPs.
///
/// # Errors
/// When a line is invalid or a key is missing. The error holds all problems at once.
///
/// ```
/// use provisioning::wg_quick::parse;
///
/// let text = "[Interface]
/// PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
/// Address = 10.77.0.12/32
/// [Peer]
/// PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
/// Endpoint = hub-a.example.net:51820
/// AllowedIPs = 10.77.0.0/16
/// ";
/// let read = parse("site.conf".as_ref(), text.as_bytes())?;
/// assert_eq!(read.settings.hubs[0].name, "hub-a.example.net:51820");
///
/// let command = text.replace("[Peer]", "PostUp = reboot\n[Peer]");
/// let rejected = parse("site.conf".as_ref(), command.as_bytes()).unwrap_err();
/// assert_eq!(rejected.problems[0].line, Some(4));
/// # Ok::<(), provisioning::diagnostics::RejectedFile>(())
/// ```
pub fn parse(path: &Path, bytes: &[u8]) -> Result<WgQuick, RejectedFile> {
    // Bytes in another encoding become U+FFFD, and their line is reported like other problems.
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let mut reader = FileReader { is_utf8: str::from_utf8(bytes).is_ok(), ..FileReader::default() };
    let mut start = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
    for line in text.get(start..).unwrap_or_default().split_inclusive('\n') {
        reader.read_line(line, start);
        start += line.len();
    }
    let FileReader { sections, mut problems, .. } = reader;
    match sections.finish(&mut problems) {
        Some(Contents { settings, port, routes, notes }) if problems.0.is_empty() => {
            let notes = Notes::new(path, || keys::redacted(&text), notes);
            Ok(WgQuick { settings, port, routes, notes })
        }
        _ => Err(RejectedFile::new(path, keys::redacted(&text), problems.0)),
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// What was read up to a line.
#[derive(Default)]
struct FileReader {
    /// The bytes of the file are UTF-8.
    is_utf8: bool,
    open: OpenSection,
    sections: ParsedSections,
    problems: ProblemList,
}

/// The section to which the next key belongs.
#[derive(Clone, Copy, Default)]
enum OpenSection {
    /// No section has begun.
    #[default]
    None,
    Known(SectionKind),
    /// An unknown section, which has been reported; its keys are skipped.
    Unknown,
}

/// The problems of a file, at most [`MAX_PROBLEMS`].
#[derive(Default)]
struct ProblemList(Vec<Problem>);

/// A line with a key. No error text contains its value, which may be a secret.
struct KeyLine<'a> {
    name: &'a str,
    value: &'a str,
    /// Place of the name.
    name_span: Range<usize>,
    /// Place of the value; the whole line when the value is empty.
    value_span: Range<usize>,
}

impl FileReader {
    /// Reads a line that begins at the byte `start`.
    fn read_line(&mut self, line: &str, start: usize) {
        let (line, span) = trimmed(line.split('#').next().unwrap_or_default(), start);
        if line.is_empty() {
            return;
        }
        if !self.is_utf8 && line.contains(char::REPLACEMENT_CHARACTER) {
            let help = "save the file with the encoding UTF-8";
            self.problems.add(span, "this line is not UTF-8", help);
        } else if line.starts_with('[') {
            self.open_section(line, span);
        } else if let Some((name, value)) = line.split_once('=') {
            let value_start = span.end - value.len();
            let (name, name_span) = trimmed(name, span.start);
            let (value, value_span) = trimmed(value, value_start);
            let value_span = if value.is_empty() { span } else { value_span };
            self.read_key(KeyLine { name, value, name_span, value_span });
        } else {
            let help = "write `Key = value`, or begin a comment with `#`";
            self.problems.add(span, "this line is neither a section nor a key with a value", help);
        }
    }

    fn open_section(&mut self, line: &str, span: Range<usize>) {
        match keys::find_section(line) {
            Some(section) => {
                self.open = OpenSection::Known(section);
                self.sections.open(section, span, &mut self.problems);
            }
            None => {
                self.open = OpenSection::Unknown;
                let help = "write `[Interface]` or `[Peer]`";
                self.problems.add(span, "there is no such section", help);
            }
        }
    }

    fn read_key(&mut self, line: KeyLine<'_>) {
        let (sections, problems) = (&mut self.sections, &mut self.problems);
        let open = match self.open {
            OpenSection::Known(open) => open,
            OpenSection::Unknown => return,
            OpenSection::None => {
                let help = "begin the file with `[Interface]`";
                problems.add(line.name_span, "this line is not in a section", help);
                return;
            }
        };
        match keys::find_key(line.name) {
            Some((section, key)) if section == open => match section {
                SectionKind::Interface => sections.read_interface(key, &line, problems),
                SectionKind::Peer => sections.read_peer(key, &line, problems),
            },
            Some((section, key)) => problems.add(
                line.name_span,
                format!("`{}` does not belong in {}", key.name(), open.name()),
                format!("move it below {}", section.name()),
            ),
            None if keys::is_amnezia(line.name) => problems.add(
                line.name_span,
                format!("`{}` is a key of AmneziaWG, which is another protocol", line.name),
                "ask the operator of the hub for a file of plain WireGuard",
            ),
            None => {
                let shown = match keys::is_printable(line.name) {
                    true => format!("`{}`", line.name),
                    false => "of that name".to_owned(),
                };
                problems.add(
                    line.name_span,
                    format!("{} has no key {shown}", open.name()),
                    format!("use one of {}", keys::key_names(open)),
                );
            }
        }
    }
}

impl ProblemList {
    fn add(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::new(SourceSpan::File(span), message, help));
    }

    /// Records a problem with a second place and its label.
    fn add_related(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
        (related, label): (Range<usize>, &str),
    ) {
        let problem = Problem::new(SourceSpan::File(span), message, help);
        self.push(Problem { related: Some((related, label.to_owned())), ..problem });
    }

    fn add_to_file(&mut self, message: &str, help: &str) {
        self.push(Problem::new(SourceSpan::WholeFile, message, help));
    }

    fn push(&mut self, problem: Problem) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(problem);
        }
    }
}

/// Trims a text that begins at the byte `start`; returns it with its place.
fn trimmed(text: &str, start: usize) -> (&str, Range<usize>) {
    let start = start + text.len() - text.trim_start().len();
    let text = text.trim();
    (text, start..start + text.len())
}
