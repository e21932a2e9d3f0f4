//! Small state files in `state_dir` that survive a restart.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use provisioning::{atomic_file, regular_file};
use tokio::task::spawn_blocking;

/// A bound for texts that are always short: the addresses of a few hubs take 1 KB.
pub const SHORT_TEXT_BYTES: u64 = 64 << 10;

/// Mode of files in `state_dir`.
pub const OWNER_ONLY: u32 = 0o600;

/// A small text file that is replaced atomically.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Log message for a failed write: what is lost by it.
    loss_message: &'static str,
    /// Longest text that is written and read back.
    max_bytes: u64,
    is_failing: bool,
}

impl StateFile {
    /// Returns the file with this name, without opening it. `loss_message` is logged when a write
    /// fails. A text of more than `max_bytes` is neither written nor read.
    #[must_use]
    pub fn new(state_dir: &Path, name: &str, loss_message: &'static str, max_bytes: u64) -> Self {
        Self { path: state_dir.join(name), loss_message, max_bytes, is_failing: false }
    }

    /// Returns the text that was written last; `None` when there is no file, or none that can be
    /// read: a pipe, a device, a longer file. A file that cannot be read is logged.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        let text = regular_file::read(&self.path, self.max_bytes)
            .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        match text {
            Ok(text) => return Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.on_unreadable(&error),
        }
        None
    }

    /// Logs that the file is there, but that its text cannot be used.
    pub fn on_unreadable(&self, error: &dyn fmt::Display) {
        tracing::warn!(%error, path = %self.path.display(), "cannot be read, and is ignored");
    }

    /// Replaces the text: a power cut leaves the old one or the new one, and once this returns
    /// `true` the new one. The first of consecutive failures is logged.
    pub async fn write(&mut self, text: String) -> bool {
        let (path, max_bytes) = (self.path.clone(), self.max_bytes);
        // An SD card may take seconds, and everything else shares this thread.
        let replace = move || {
            // It would not be read back, and the text that is there would be lost.
            if u64::try_from(text.len()).map_or(true, |bytes| bytes > max_bytes) {
                return Err(ErrorKind::FileTooLarge.into());
            }
            atomic_file::replace(&path, text.as_bytes(), OWNER_ONLY)
        };
        let written = spawn_blocking(replace).await;
        let error = match written {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(path = %self.path.display(), "can be written again");
                }
                return true;
            }
            Ok(Err(error)) => error,
            Err(died) => io::Error::other(died),
        };
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, path = %self.path.display(), "{}", self.loss_message);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn the_last_text_is_read_back_and_a_failure_ends() {
        let name = format!("edge-gateway-kept-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        let mut kept = StateFile::new(&directory, "text", "nothing", SHORT_TEXT_BYTES);

        assert!(!kept.write("lost".to_owned()).await);
        assert!(kept.is_failing);
        assert_eq!(kept.read(), None);
        fs::create_dir(&directory).unwrap();
        for text in ["old", "new"] {
            assert!(kept.write(text.to_owned()).await);
            assert_eq!(kept.read().as_deref(), Some(text));
        }
        assert!(!kept.is_failing);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        // What another program left there neither blocks nor goes into memory.
        let mkfifo = |name| std::process::Command::new("mkfifo").arg(directory.join(name)).status();
        fs::remove_file(directory.join("text")).unwrap();
        assert!(mkfifo("text").unwrap().success() && mkfifo("text.new").unwrap().success());
        assert_eq!(kept.read(), None);
        assert!(kept.write("again".to_owned()).await);
        assert_eq!(kept.read().as_deref(), Some("again"));
        fs::write(directory.join("text"), vec![b' '; 1 << 20]).unwrap();
        assert_eq!(kept.read(), None);
        fs::remove_file(directory.join("text")).unwrap();
        fs::create_dir(directory.join("text")).unwrap();
        assert_eq!(kept.read(), None);
        assert!(!kept.write("lost".to_owned()).await);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn a_text_that_would_not_be_read_back_does_not_replace_one_that_is() {
        let name = format!("edge-gateway-long-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let mut kept = StateFile::new(&directory, "text", "nothing", 8);
        assert!(kept.write("8 bytes.".to_owned()).await);
        assert!(!kept.write("9 bytes: ".to_owned()).await);
        assert_eq!(kept.read().as_deref(), Some("8 bytes."));
        fs::remove_dir_all(&directory).unwrap();
    }
}
