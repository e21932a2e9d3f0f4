//! The text of an export and the places in it.

use std::path::{Path, PathBuf};

use crate::diagnostics::{Problem, RejectedFile, SourceSpan};

/// A file to import, as it was read.
#[derive(Clone, Debug)]
pub struct ImportFile {
    /// Path for messages; its extension and stem also tell format and name of a variable list.
    pub path: PathBuf,
    /// The bytes, in UTF-8, in UTF-16 with a byte order mark, or in Windows-1252.
    pub bytes: Vec<u8>,
}

/// Place of a declaration.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SourcePlace {
    /// Number of the file, from 0.
    pub file: usize,
    /// Number of the line, from 1.
    pub line: usize,
}

/// The decoded text of one file.
#[derive(Debug)]
pub(super) struct SourceText {
    pub(super) path: PathBuf,
    pub(super) text: String,
    number: usize,
    line_starts: Vec<usize>,
}

impl SourceText {
    /// Decodes the file with the number `number`.
    pub(super) fn decode(number: usize, file: &ImportFile) -> Self {
        let text = decode(&file.bytes);
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = [0].into_iter().chain(breaks).collect();
        Self { path: file.path.clone(), text, number, line_starts }
    }

    /// Returns the same lines as a list of variables.
    pub(super) fn as_list(&self) -> Self {
        let text = format!("VAR_GLOBAL {}\nEND_VAR", self.text);
        let bytes = text.into_bytes();
        Self::decode(self.number, &ImportFile { path: self.path.clone(), bytes })
    }

    /// Returns the place of a byte of the text.
    pub(super) fn place(&self, at: usize) -> SourcePlace {
        let line = self.line_starts.partition_point(|start| *start <= at);
        SourcePlace { file: self.number, line }
    }

    /// Returns the position of the first byte of a line, counted from 1.
    pub(super) fn line_start(&self, line: usize) -> usize {
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index));
        start.copied().unwrap_or(self.text.len())
    }

    /// Returns the name of the file without its extension.
    pub(super) fn stem(&self) -> Option<&str> {
        self.path.file_stem()?.to_str()
    }

    /// Returns whether the name of the file has this extension.
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        let own = self.path.extension().and_then(|own| own.to_str());
        own.is_some_and(|own| own.eq_ignore_ascii_case(extension))
    }

    /// Returns the rejection of the whole file.
    pub(super) fn reject(
        &self,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> RejectedFile {
        reject(&self.path, Problem::new(SourceSpan::WholeFile, message, help))
    }

    /// Returns the rejection of the file at a byte of its text.
    pub(super) fn reject_at(
        &self,
        at: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> RejectedFile {
        let start = self.text.floor_char_boundary(at.min(self.text.len()));
        let end = self.text.ceil_char_boundary(start.saturating_add(1).min(self.text.len()));
        let problem = Problem::new(SourceSpan::File(start..end), message, help);
        RejectedFile::new(&self.path, self.text.clone(), vec![problem])
    }
}

/// Returns the rejection of a file of which no text is shown.
pub(super) fn reject(path: &Path, problem: Problem) -> RejectedFile {
    RejectedFile::new(path, String::new(), vec![problem])
}

/// Decodes UTF-16 by its byte order mark or the `<` of XML, else UTF-8, else Windows-1252, the code page in which
/// older versions of Machine Expert store texts on a western Windows.
fn decode(bytes: &[u8]) -> String {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2).map(|pair| match *pair {
            [first, second] => unit([first, second]),
            _ => 0,
        });
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] | rest @ [b'<', 0, ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] | rest @ [0, b'<', ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => decode_bytes(rest),
        _ => decode_bytes(bytes),
    }
}

fn decode_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
    }
}

/// Returns the character of a byte (WHATWG Encoding Standard, index windows-1252).
fn windows_1252(byte: u8) -> char {
    const FROM_80: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    let special = byte.checked_sub(0x80).and_then(|index| FROM_80.get(usize::from(index)));
    special.copied().unwrap_or_else(|| char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encodings_of_the_tools_are_recognised() {
        let text = "Zürich € 20";
        let units =
            |unit: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(unit).collect() };
        let little = [&[0xff, 0xfe], units(u16::to_le_bytes).as_slice()].concat();
        let big = [&[0xfe, 0xff], units(u16::to_be_bytes).as_slice()].concat();
        let marked = [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
        let western = b"Z\xfcrich \x80 20".to_vec();
        for bytes in [little, big, marked, western, text.as_bytes().to_vec()] {
            assert_eq!(decode(&bytes), text);
        }
        assert_eq!(decode(&[0xff, 0xfe, 0x00, 0xd8]), "\u{fffd}");
        assert_eq!([decode(b"<\0a\0"), decode(b"\0<\0a")], ["<a", "<a"]);
    }
}
