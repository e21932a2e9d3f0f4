//! Appends received messages to a file of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::audit::format_capture_line;
use crate::model::UnixTime;

/// Size at which a file is renamed to `FILE.1`, in place of an older one: both together take at
/// most 1 GiB.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Returns the file that holds what was recorded before `path`.
pub(super) fn older_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The file with the recorded messages.
pub(super) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    /// Size of the file, with what has not been flushed.
    size: u64,
    max_size: u64,
}

impl Recorder {
    /// Opens a file to append to it, or creates it for its owner only.
    ///
    /// # Errors
    /// When the file cannot be opened, read and written.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::with_max_size(path, MAX_FILE_BYTES)
    }

    fn with_max_size(path: &Path, max_size: u64) -> anyhow::Result<Self> {
        let (file, size) =
            append_to(path).with_context(|| format!("cannot record to {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), size, max_size })
    }

    /// Appends a message. It may stay in memory until the next [`Self::flush`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn record(
        &mut self,
        at: UnixTime,
        topic: &str,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let line = format_capture_line(at, topic, payload);
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.max_size {
            self.flush()?;
            let older = older_file(&self.path);
            fs::rename(&self.path, &older)
                .with_context(|| format!("cannot rename the record to {}", older.display()))?;
            *self = Self::with_max_size(&self.path, self.max_size)?;
        }
        self.size = self.size.saturating_add(length);
        self.file.write_all(&line).with_context(|| self.failure())
    }

    /// Writes what is in memory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| self.failure())
    }

    fn failure(&self) -> String {
        format!("cannot record to {}", self.path.display())
    }
}

/// Opens a file at its end. A last line that was cut, by `kill -9` or a power cut, is ended, so
/// that the next message has a line of its own.
fn append_to(path: &Path) -> std::io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok((file, 0));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, size));
    }
    file.write_all(b"\n")?;
    Ok((file, size + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Auditor;
    use crate::cli::audit::capture::read_capture;
    use crate::cli::audit::test_dir::TestDir;

    fn record(recorder: &mut Recorder, seq: u64) {
        let payload = format!(r#"{{"t":1,"gateway":{{"id":"g","epoch":"aaaaaa","seq":{seq}}}}}"#);
        let at = UnixTime::from_micros(1_800_000_000_000_000);
        recorder.record(at, "edge/g/data/p", payload.as_bytes()).unwrap();
    }

    #[test]
    fn a_restart_appends_also_behind_a_line_that_was_cut() {
        let dir = TestDir::new();
        let path = dir.0.join("capture");
        for seqs in [[0, 1], [1, 2]] {
            let mut recorder = Recorder::open(&path).unwrap();
            seqs.iter().for_each(|seq| record(&mut recorder, *seq));
            recorder.flush().unwrap();
            let mut cut = OpenOptions::new().append(true).open(&path).unwrap();
            cut.write_all(b"{\"at\":\"2026").unwrap();
        }

        let mut auditor = Auditor::default();
        read_capture(&path, None, &mut auditor).unwrap();

        let report = auditor.report();
        let stream = &report.streams[0];
        assert_eq!((stream.received, stream.duplicates, stream.missing), (3, 1, 0));
        assert_eq!(report.unread.map(|unread| (unread.count, unread.first)), Some((2, 3)));
    }

    #[test]
    fn two_files_of_bounded_size_hold_the_latest_messages() {
        const MAX: u64 = 1_000;
        let dir = TestDir::new();
        let path = dir.0.join("capture");
        let mut recorder = Recorder::with_max_size(&path, MAX).unwrap();
        (0..100).for_each(|seq| record(&mut recorder, seq));
        recorder.flush().unwrap();

        let files = [path.clone(), older_file(&path)];
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= MAX));
        let mut auditor = Auditor::default();
        read_capture(&path, None, &mut auditor).unwrap();
        let report = auditor.report();
        assert_eq!((report.unaccounted, report.streams[0].last_seq), (0, Some(99)));
        assert!(report.streams[0].received >= 8, "{report}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = TestDir::new();
        let error = Recorder::open(&dir.0).err().unwrap();
        assert!(error.to_string().contains("cannot record to"), "{error}");
    }
}
