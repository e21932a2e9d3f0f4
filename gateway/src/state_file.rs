//! Small state files in `state_dir` that survive a restart.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

/// A small text file that is replaced atomically.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Log message for a failed write: what is lost by it.
    loss_message: &'static str,
    is_failing: bool,
}

impl StateFile {
    /// Returns the file with this name, without opening it. `loss_message` is logged when a write
    /// fails.
    #[must_use]
    pub fn new(state_dir: &Path, name: &str, loss_message: &'static str) -> Self {
        Self { path: state_dir.join(name), loss_message, is_failing: false }
    }

    /// Returns the text that was written last; `None` when the file is missing or unreadable.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Replaces the text: a power cut leaves the old one or the new one. Returns whether it is on
    /// disk. The first of consecutive failures is logged.
    pub async fn write(&mut self, text: String) -> bool {
        let path = self.path.clone();
        // An SD card may take seconds, and everything else shares this thread.
        let written = spawn_blocking(move || replace_atomically(&path, &text)).await;
        let error = match written {
            Ok(Ok(())) => {
                self.is_failing = false;
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

fn replace_atomically(path: &Path, text: &str) -> io::Result<()> {
    // rename(2) is atomic, but only a synced file is sure to have its text after a power cut.
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    // The directory is not synced: if a power cut undoes the rename, the old text is still whole.
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_text_is_read_back_and_a_failure_ends() {
        let name = format!("edge-gateway-kept-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        let mut kept = StateFile::new(&directory, "text", "nothing");

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
        fs::remove_dir_all(&directory).unwrap();
    }
}
