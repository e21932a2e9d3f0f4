//! A file that is not TOML at all.

use std::ops::Range;
use std::path::Path;
use std::string::FromUtf8Error;

use toml::de::DeTable;

use super::diagnostics::{Problem, RejectedFile, SourceSpan};

/// Saved in another encoding, usually by an old editor on Windows.
pub(super) fn not_utf8(path: &Path, error: &FromUtf8Error) -> RejectedFile {
    let bytes = error.as_bytes();
    let start = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(bytes).into_owned();
    // The lossy text is the same up to the first wrong byte, which becomes one U+FFFD.
    let span = start..start + char::REPLACEMENT_CHARACTER.len_utf8();
    let message = "the file is not UTF-8: this byte belongs to another encoding".to_owned();
    let problem = syntax_problem(span, message, "save the file again with the encoding UTF-8");
    RejectedFile::new(path.to_owned(), &text, vec![problem])
}

/// Every line that is not TOML, in plain words where the mistake is a usual one, else in those of
/// the TOML parser.
pub(super) fn not_toml(path: &Path, text: &str) -> RejectedFile {
    let (_, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = Vec::new();
    let mut explained: Option<usize> = None;
    for error in errors {
        let span = error.span().unwrap_or_default();
        let (start, line) = line_at(text, span.start);
        // The rest of a broken line is broken too.
        if explained.replace(start) != Some(start) {
            let (message, help) = explain(error.message(), line);
            problems.push(syntax_problem(span, message, help));
        }
    }
    RejectedFile::new(path.to_owned(), text, problems)
}

fn explain(said: &str, line: &str) -> (String, &'static str) {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    match common_mistake(said, line, value) {
        Some((message, help)) => (message.to_owned(), help),
        None => (
            format!("this line cannot be read as TOML: {said}"),
            "a line is key = value, with text between quotes; a comment begins with #",
        ),
    }
}

/// The line around a place, and where it begins.
fn line_at(text: &str, at: usize) -> (usize, &str) {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |line| line + 1);
    (start, text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default())
}

/// What the parser `said` about a line, in other words, and what to write instead.
fn common_mistake(said: &str, line: &str, value: &str) -> Option<(&'static str, &'static str)> {
    let boolean = ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let digit = value.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    Some(if boolean {
        ("true and false are written in small letters", "write true or false")
    } else if digit && value.contains(',') {
        ("this is not a number", "a number is written with a point: 0.1")
    } else if said.contains("duplicate key") {
        (
            "this key stands twice in its section",
            "leave one of them out; a second PLC or tag begins with a line [[plc]] or [[plc.tag]] \
             of its own",
        )
    } else if said.contains("must be quoted") {
        ("this text is not between quotes", "write it like this: at = \"%MW10\"")
    } else if said.contains("escape") || value.contains('\\') {
        (
            "a backslash has a meaning of its own between quotes \"...\"",
            "write / instead, or put the text between quotes '...'",
        )
    } else if said.contains("basic string") || said.contains("literal string") {
        ("this text has no closing quote", "close it on the same line: id = \"plant-7\"")
    } else if said.contains("no value") || said.contains("missing value") {
        ("this key has no value", "write key = value, with text between quotes")
    } else if line.trim_start().starts_with('[') && !line.contains('=') {
        (
            "this is not the header of a section",
            "a section is [gateway]; a PLC or tag is [[plc]] or [[plc.tag]]",
        )
    } else {
        return None;
    })
}

fn syntax_problem(span: Range<usize>, message: String, help: &str) -> Problem {
    Problem {
        path: String::new(),
        message,
        help: Some(help.to_owned()),
        span: SourceSpan::File(span),
        related: None,
    }
}
