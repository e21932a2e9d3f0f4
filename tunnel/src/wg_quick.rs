//! Reads the files of wg-quick(8), as far as they say how a site reaches its hub.

mod keys;
mod load;
mod peers;
mod problem;
mod sections;
#[cfg(test)]
mod tests;
mod value;

use crate::path::LocalPort;
use crate::settings::Settings;

pub use load::{LoadError, load};
pub use problem::{Note, Problem, Rejected};

use keys::Section;
use problem::Problems;
use sections::Draft;

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
    pub table: Table,
    /// What was read and not done.
    pub notes: Vec<Note>,
}

/// What becomes of `AllowedIPs`, besides the filter that they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
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
    let mut reader = Reader::default();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        reader.line(number, &read(line));
    }
    let read = reader.draft.finish(&mut reader.problems);
    reader.problems.or(read)
}

/// What was read up to a line.
#[derive(Default)]
struct Reader {
    draft: Draft,
    problems: Problems,
    place: Where,
}

/// Where the lines that are read belong.
#[derive(Clone, Copy, Default)]
enum Where {
    #[default]
    Nowhere,
    In(Section),
    /// To a section that there is not, which has been told.
    Lost,
}

impl Reader {
    fn line(&mut self, number: usize, line: &Line<'_>) {
        let (what, help) = match *line {
            Line::Nothing => return,
            Line::Section(section) => {
                self.draft.open(section, number, &mut self.problems);
                self.place = Where::In(section);
                return;
            }
            Line::Entry(key, value) => return self.entry(number, key, value),
            Line::Wrong(Wrong::Section) => {
                self.place = Where::Lost;
                ("there is no such section", "write `[Interface]` or `[Peer]`")
            }
            Line::Wrong(Wrong::Text) => {
                ("this line is not text in UTF-8", "save the file as UTF-8")
            }
            Line::Wrong(Wrong::Entry) => (
                "this line is neither a section nor a key with a value",
                "write `Key = value`, or begin a comment with `#`",
            ),
        };
        self.problems.add(number, what, help);
    }

    fn entry(&mut self, number: usize, key: &str, value: &str) {
        let (draft, problems) = (&mut self.draft, &mut self.problems);
        match (self.place, keys::find(key)) {
            (Where::In(Section::Interface), Some((Section::Interface, word))) => {
                draft.interface(word, value, number, problems);
            }
            (Where::In(Section::Peer), Some((Section::Peer, word))) => {
                draft.peer(word, value, number, problems);
            }
            (Where::In(open), found) => problems.misplaced(number, key, open, found),
            (Where::Lost, _) => {}
            (Where::Nowhere, _) => {
                let help = "begin the file with `[Interface]`";
                problems.add(number, "this line belongs to no section", help);
            }
        }
    }
}

enum Line<'a> {
    Nothing,
    Section(Section),
    Entry(&'a str, &'a str),
    Wrong(Wrong),
}

enum Wrong {
    Section,
    Text,
    Entry,
}

fn read(line: &[u8]) -> Line<'_> {
    let Ok(line) = str::from_utf8(line) else { return Line::Wrong(Wrong::Text) };
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Line::Nothing;
    }
    if line.starts_with('[') {
        return keys::section(line).map_or(Line::Wrong(Wrong::Section), Line::Section);
    }
    match line.split_once('=') {
        Some((key, value)) => Line::Entry(key.trim(), value.trim()),
        None => Line::Wrong(Wrong::Entry),
    }
}
