//! The file of the command ledger. Its methods block, so they run on blocking threads.

use std::io;

use crate::command::LedgerBatch;
use crate::queue::storage::{Storage, StoredFile};

/// Directory of the ledger in `state_dir`.
pub(super) const COMMANDS_DIR: &str = "commands";
/// Longest file that is read: many times what 50,000 ids take.
const MAX_FILE_BYTES: u64 = 256 << 20;
const FILE_NAME: &str = "ledger";
/// The file while it is rewritten.
const NEW_NAME: &str = "ledger.new";

/// The file, in a directory that only this process uses.
#[derive(Debug)]
pub(super) struct CommandFile<S: Storage> {
    storage: S,
    /// The open file with its length; `None` before the first write, and after a failure.
    file: Option<(S::File, u64)>,
}

impl<S: Storage> CommandFile<S> {
    /// Returns the file with its content, which is empty for a new one.
    ///
    /// # Errors
    /// When the file exists and cannot be read: what it says must not be forgotten.
    pub(super) fn open(storage: S) -> io::Result<(Self, Vec<u8>)> {
        let mut content = Vec::new();
        if storage.list()?.iter().any(|name| name == FILE_NAME) {
            let file = storage.open(FILE_NAME)?;
            let size = file.size()?;
            if size > MAX_FILE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            content = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_at(&mut content, 0)?;
        }
        Ok((Self { storage, file: None }, content))
    }

    /// Writes a batch. If that fails, a part of it may have been written.
    ///
    /// # Errors
    /// When there is no room, or the device fails.
    pub(super) fn store(&mut self, batch: &LedgerBatch) -> io::Result<()> {
        // Not kept after an error: another sync of the same file would prove nothing.
        let (file, length) = match self.file.take() {
            _ if batch.replaces_file => (self.storage.create(NEW_NAME)?, 0),
            Some(open) => open,
            None => self.open_for_append()?,
        };
        file.write_at(&batch.bytes, length)?;
        if batch.replaces_file {
            file.sync_data()?;
            self.storage.rename(NEW_NAME, FILE_NAME)?;
            self.storage.sync_dir()?;
        } else if batch.has_intents {
            file.sync_data()?;
        }
        let written = u64::try_from(batch.bytes.len()).unwrap_or_default();
        self.file = Some((file, length + written));
        Ok(())
    }

    fn open_for_append(&self) -> io::Result<(S::File, u64)> {
        if self.storage.list()?.iter().any(|name| name == FILE_NAME) {
            let file = self.storage.open(FILE_NAME)?;
            let length = file.size()?;
            return Ok((file, length));
        }
        let file = self.storage.create(FILE_NAME)?;
        // Otherwise a power cut could remove the file although its content was synced.
        self.storage.sync_dir()?;
        Ok((file, 0))
    }
}

#[cfg(test)]
mod tests;
