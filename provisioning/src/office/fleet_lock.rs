//! One command at a time changes a fleet.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use thiserror::Error;

use super::output_file::{FileAccess, FileError, create_parent};
use super::secrets::Secrets;

/// Name below `secrets/`, which git ignores.
const LOCK: &str = "lock";

/// The right to change a fleet; it ends when it is dropped or the program ends.
#[derive(Debug)]
pub struct FleetLock {
    _file: File,
}

/// Why a fleet cannot be changed now.
#[derive(Debug, Error)]
pub enum FleetLockError {
    /// Another command is running.
    #[error("another edge-provision works on this fleet: try again when it has ended")]
    Taken,
    /// The file cannot be created or locked.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FleetLock {
    /// Takes the lock of a fleet. A fleet must be loaded after that: what was read before may be
    /// old.
    ///
    /// # Errors
    /// With [`FleetLockError::Taken`] when another program has it; when its file cannot be created.
    pub fn take(fleet: &Path) -> Result<Self, FleetLockError> {
        let path = Secrets::of_fleet(fleet).file(LOCK);
        create_parent(&path, FileAccess::Secret)?;
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|error| FileError::new("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(FleetLockError::Taken),
            Err(TryLockError::Error(error)) => Err(FileError::new("lock", &path, error).into()),
        }
    }
}
