//! Small state files in `state_dir` that survive a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use provisioning::regular_file;
use tokio::task::spawn_blocking;

/// Longest text that is read back: the addresses of a few hubs take 1 KB.
const MAX_BYTES: u64 = 64 << 10;

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

    /// Returns the text that was written last; `None` when the file is missing or unreadable, and
    /// when something else lies there: a pipe, a device, a file above 64 KiB.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        String::from_utf8(regular_file::read(&self.path, MAX_BYTES).ok()?).ok()
    }

    /// Replaces the text: a power cut leaves the old one or the new one. Returns whether it is on
    /// disk. The first of consecutive failures is logged.
    pub async fn write(&mut self, text: String) -> bool {
        let path = self.path.clone();
        // An SD card may take seconds, and everything else shares this thread.
        let written = spawn_blocking(move || replace_atomically(&path, &text)).await;
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

fn replace_atomically(path: &Path, text: &str) -> io::Result<()> {
    // rename(2) is atomic, but only a synced file is sure to have its text after a power cut.
    let new = path.with_extension("new");
    // A pipe or a link there would block the write, or send it elsewhere.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
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
}
