//! Small texts in `state_dir` that outlive the process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

/// A small text in a file of its own.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What it costs when the text cannot be kept, for the log.
    loss_message: &'static str,
    is_failing: bool,
}

impl StateFile {
    /// The file of this name; touches nothing. `loss` says what it costs when it cannot be written.
    #[must_use]
    pub fn new(state_dir: &Path, name: &str, loss: &'static str) -> Self {
        Self { path: state_dir.join(name), loss_message: loss, is_failing: false }
    }

    /// What an earlier run has kept; nothing when there is nothing legible.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Replaces it: a power cut leaves the old text or the new one. Returns whether it is on disk; a
    /// trouble is logged once until it is over, and the gateway goes on without.
    pub async fn write(&mut self, text: String) -> bool {
        let path = self.path.clone();
        // A card may take seconds, and everything else shares this thread.
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
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_last_is_read_and_a_trouble_ends() {
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
