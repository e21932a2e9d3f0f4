//! Explains files that are not valid TOML.

use std::path::Path;
use std::string::FromUtf8Error;

use toml::de::DeTable;

use super::redact::redacted;
use crate::diagnostics::{MAX_PROBLEMS, Problem, RejectedFile, SourceSpan};

/// Explains a file with another encoding than UTF-8, usually saved by an old editor on Windows.
pub(crate) fn not_utf8(path: &Path, error: &FromUtf8Error) -> RejectedFile {
    let bytes = error.as_bytes();
    let start = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(bytes).into_owned();
    // The lossy text is identical up to the first invalid byte, which becomes one U+FFFD.
    let span = start..start + char::REPLACEMENT_CHARACTER.len_utf8();
    let message = "the file is not UTF-8: this byte belongs to another encoding";
    let help = "save the file again with the encoding UTF-8";
    let problem = Problem::new(SourceSpan::File(span), message, help);
    RejectedFile::new(path, redacted(&text), vec![problem])
}

/// Explains each line that is not TOML: common mistakes in plain words, others with the message of
/// the TOML parser.
pub(crate) fn not_toml(path: &Path, text: &str) -> RejectedFile {
    let (_, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = Vec::new();
    let mut explained = 0..0;
    for error in errors {
        let span = error.span().unwrap_or_default();
        // After its first error the parser also rejects the rest of the line; one is enough.
        if explained.contains(&span.start) {
            continue;
        }
        let (start, line) = line_at(text, span.start);
        explained = start..start + line.len() + 1;
        let (message, help) = explain(error.message(), line);
        problems.push(Problem::new(SourceSpan::File(span), message, help));
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    RejectedFile::new(path, redacted(text), problems)
}

/// Returns what is wrong with a line about which the parser `said` something, and what to write.
fn explain(parser_message: &str, line: &str) -> (String, String) {
    // The help repeats parts of the line, which must not contain a secret.
    let line = redacted(line);
    let (key, value) = line.split_once('=').unwrap_or((&line, ""));
    let (key, value) = (key.trim(), value.trim());
    let word = value.to_ascii_lowercase();
    if has_foreign_comment(&line, value) {
        return ("this is not a comment in TOML".to_owned(), "a comment begins with #".to_owned());
    }
    if let Some(flag) = flag(&word).filter(|_| parser_message.contains("must be quoted")) {
        let message = format!("`{value}` is not true, false or text between quotes");
        return (message, format!("write {key} = {flag}"));
    }
    if parser_message.contains("must be quoted") {
        let example = if value.contains("**") { "\"...\"".to_owned() } else { quoted(value) };
        return ("this text is not between quotes".to_owned(), format!("write {key} = {example}"));
    }
    match common_mistake(parser_message, &line, value) {
        Some((message, help)) => (message.to_owned(), help.to_owned()),
        None => (
            format!("this line cannot be read as TOML: {parser_message}"),
            "a line is key = value, with text between quotes; a comment begins with #".to_owned(),
        ),
    }
}

/// Returns the flag that a word of another language means.
fn flag(word: &str) -> Option<bool> {
    match word {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

/// Returns whether a line has a comment of IEC 61131-3, C, SQL or an INI file.
fn has_foreign_comment(line: &str, value: &str) -> bool {
    let line = line.trim_start();
    let after_text = value.rsplit(['"', '\'']).next().unwrap_or_default();
    // Not "//" alone, which is also part of an address without quotes.
    let follows = [" //", "(*", "/*"].iter().any(|start| after_text.contains(start))
        || after_text.starts_with("//") && value != after_text;
    follows || ["//", "(*", "/*", "--", ";"].iter().any(|start| line.starts_with(start))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Returns the line that holds a byte position, and where it begins.
fn line_at(text: &str, at: usize) -> (usize, &str) {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |line| line + 1);
    (start, text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default())
}

/// Returns message and help for a common mistake.
fn common_mistake(
    parser_message: &str,
    line: &str,
    value: &str,
) -> Option<(&'static str, &'static str)> {
    let boolean = ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let digit = value.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    Some(if boolean {
        ("true and false are written in lower case", "write true or false")
    } else if digit && value.contains(',') {
        ("this is not a number", "a number is written with a point: 0.1")
    } else if parser_message.contains("duplicate key") {
        (
            "this key is in its section twice",
            "remove one of them; a second PLC or tag begins with its own line [[plc]] or \
             [[plc.tag]]",
        )
    } else if parser_message.contains("escape") || value.contains('\\') {
        (
            "a backslash has a special meaning between quotes \"...\"",
            "write / instead, or use single quotes '...'",
        )
    } else if parser_message.contains("basic string") || parser_message.contains("literal string") {
        ("this text has no closing quote", "close it on the same line: id = \"plant-7\"")
    } else if parser_message.contains("no value") || parser_message.contains("missing value") {
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
