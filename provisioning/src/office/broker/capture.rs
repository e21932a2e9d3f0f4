//! Statuses in a file, as mosquitto_sub(1) writes them: `mosquitto_sub -t 'edge/+/status' -v`, or
//! `-F '%t %p'`. A line holds the topic, a space and the payload.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use thiserror::Error;

use super::connection::site_of;

/// What `mosquitto_sub -v` writes for an empty message.
const EMPTY: &[u8] = b"(null)";
/// Longest line that is read.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Why a file is no capture.
#[derive(Debug, Error)]
pub enum CaptureFileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// A line is not in the form.
    #[error(
        "line {line} is no topic with a payload: write the file with \
         mosquitto_sub -t 'edge/+/status' -F '%t %p'"
    )]
    Malformed {
        /// Its number, from 1.
        line: usize,
    },
}

/// Passes each status in a file to `on_status`, with its site and its payload, and returns when the
/// file was last written: the ages of statuses count from there. Other topics are skipped.
///
/// # Errors
/// When the file cannot be read, or is in another form.
pub fn read_capture(
    path: &Path,
    mut on_status: impl FnMut(&str, &[u8]),
) -> Result<Timestamp, CaptureFileError> {
    let written = fs::metadata(path)?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = MAX_LINE_BYTES as u64;
        if io::Read::take(&mut reader, limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            continue;
        }
        let (site, payload) = parse_line(text, number)?;
        if let Some(site) = site {
            on_status(site, payload);
        }
    }
    Ok(Timestamp::try_from(written).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Returns the site and the payload of a line; no site for another topic.
fn parse_line(text: &[u8], line: usize) -> Result<(Option<&str>, &[u8]), CaptureFileError> {
    let malformed = || CaptureFileError::Malformed { line };
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let (topic, payload) = text.split_at(end);
    let topic = str::from_utf8(topic).map_err(|_| malformed())?;
    // A line of JSON, or the middle of one, has no topic before it.
    if !topic.contains('/') || topic.contains(['{', '}', '"']) {
        return Err(malformed());
    }
    let payload = payload.strip_prefix(b" ").unwrap_or_default();
    Ok((site_of(topic), if payload == EMPTY { b"" } else { payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, CaptureFileError> {
        let path = std::env::temp_dir().join(format!("edge-capture-{:016x}", fastrand::u64(..)));
        fs::write(&path, text)?;
        let mut found = Vec::new();
        let result = read_capture(&path, |site, payload| {
            found.push((site.to_owned(), String::from_utf8_lossy(payload).into_owned()));
        });
        fs::remove_file(&path)?;
        result.map(|_| found)
    }

    #[test]
    fn both_forms_of_mosquitto_sub_are_read() {
        let text = "edge/a/status {\"state\": \"offline\"}\nedge/b/status (null)\n\n\
                    edge/c/status \r\nedge/a/data/pump6 {}\nedge/d/status";
        let found = read(text).unwrap();
        let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let offline = "{\"state\": \"offline\"}";
        assert_eq!(found, [("a", offline), ("b", ""), ("c", ""), ("d", "")]);
    }

    #[test]
    fn a_file_in_another_form_is_an_error_with_its_line() {
        for text in
            ["edge/a/status {}\n{\"topic\":\"edge/a/status\"}\n", "edge/a/status {}\nstate\n"]
        {
            let error = read(text).unwrap_err();
            assert!(matches!(error, CaptureFileError::Malformed { line: 2 }), "{error}");
        }
        assert!(matches!(
            read_capture(Path::new("/nowhere/file"), |_, _| {}),
            Err(CaptureFileError::Read(_))
        ));
    }
}
