//! Reads the files of wg-quick(8), as far as they say how a site reaches its hub.

mod keys;
mod load;
mod peers;
mod problem;
mod sections;
#[cfg(test)]
mod tests;
mod value;

use crate::settings::Settings;
use crate::transport::LocalPort;

pub use load::{WgQuickError, load};
pub use problem::{Note, Problem, Rejected};

use keys::SectionKind;
use problem::Problems;
use sections::ParsedSections;

/// Longest packet inside the tunnel where the file does not say: it fits through any line that
/// IPv6 fits through, LTE and DS-Lite among them. wg-quick would measure the line at its start.
const DEFAULT_MTU: u16 = 1280;

/// What a file says.
#[derive(Clone, Debug)]
pub struct WgQuick {
    /// The tunnel itself. Each `[Peer]` is a hub, in the order of the file.
    pub settings: Settings,
    /// Where it listens.
    pub port: LocalPort,
    /// Whether the networks behind the hub become routes.
    pub table: RoutePolicy,
    /// What was read and not done.
    pub notes: Vec<Note>,
}

/// What becomes of `AllowedIPs`, besides the filter that they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RoutePolicy {
    /// Routes through the tunnel.
    Auto,
    /// Nothing.
    Off,
}

/// Reads a file. Whatever is wrong with it is told at once.
///
/// As in wg-quick, upper and lower case of sections and keys are the same, `#` begins a comment,
/// and lists are separated by commas or continued by another line of the same key. Other keys must
/// not be there twice. Commands (`PostUp` and the like) are refused and never run. Several peers
/// are several hubs, of which one is used at a time, so they must allow the same addresses.
pub fn parse(bytes: &[u8]) -> Result<WgQuick, Rejected> {
    let mut reader = FileReader::default();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        reader.line(number, &parse_line(line));
    }
    let read = reader.draft.finish(&mut reader.problems);
    reader.problems.or(read)
}

/// What was read up to a line.
#[derive(Default)]
struct FileReader {
    draft: ParsedSections,
    problems: Problems,
    place: OpenSection,
}

/// Where the lines that are read belong.
#[derive(Clone, Copy, Default)]
enum OpenSection {
    #[default]
    Nowhere,
    In(SectionKind),
    /// To a section that there is not, which has been told.
    Lost,
}

impl FileReader {
    fn line(&mut self, number: usize, line: &ParsedLine<'_>) {
        let (what, help) = match *line {
            ParsedLine::Nothing => return,
            ParsedLine::Section(section) => {
                self.draft.open(section, number, &mut self.problems);
                self.place = OpenSection::In(section);
                return;
            }
            ParsedLine::Entry(key, value) => return self.entry(number, key, value),
            ParsedLine::Wrong(LineError::Section) => {
                self.place = OpenSection::Lost;
                ("there is no such section", "write `[Interface]` or `[Peer]`")
            }
            ParsedLine::Wrong(LineError::Text) => {
                ("this line is not text in UTF-8", "save the file as UTF-8")
            }
            ParsedLine::Wrong(LineError::Entry) => (
                "this line is neither a section nor a key with a value",
                "write `Key = value`, or begin a comment with `#`",
            ),
        };
        self.problems.add(number, what, help);
    }

    fn entry(&mut self, number: usize, key: &str, value: &str) {
        let (draft, problems) = (&mut self.draft, &mut self.problems);
        match (self.place, keys::find_key(key)) {
            (OpenSection::In(SectionKind::Interface), Some((SectionKind::Interface, word))) => {
                draft.interface(word, value, number, problems);
            }
            (OpenSection::In(SectionKind::Peer), Some((SectionKind::Peer, word))) => {
                draft.peer(word, value, number, problems);
            }
            (OpenSection::In(open), found) => problems.misplaced(number, key, open, found),
            (OpenSection::Lost, _) => {}
            (OpenSection::Nowhere, _) => {
                let help = "begin the file with `[Interface]`";
                problems.add(number, "this line belongs to no section", help);
            }
        }
    }
}

enum ParsedLine<'a> {
    Nothing,
    Section(SectionKind),
    Entry(&'a str, &'a str),
    Wrong(LineError),
}

enum LineError {
    Section,
    Text,
    Entry,
}

fn parse_line(line: &[u8]) -> ParsedLine<'_> {
    let Ok(line) = str::from_utf8(line) else { return ParsedLine::Wrong(LineError::Text) };
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return ParsedLine::Nothing;
    }
    if line.starts_with('[') {
        return keys::find_section(line)
            .map_or(ParsedLine::Wrong(LineError::Section), ParsedLine::Section);
    }
    match line.split_once('=') {
        Some((key, value)) => ParsedLine::Entry(key.trim(), value.trim()),
        None => ParsedLine::Wrong(LineError::Entry),
    }
}
