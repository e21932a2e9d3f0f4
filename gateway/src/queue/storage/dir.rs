//! A directory of the local file system as storage.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use provisioning::regular_file::{self, OPEN_FLAGS};
use thiserror::Error;

use super::{Storage, StoredFile};

/// Name of the lock file.
const LOCK_FILE_NAME: &str = "lock";

/// A directory that only this process uses.
#[derive(Clone, Debug)]
pub struct DirStorage {
    dir: PathBuf,
    /// Held as long as a clone exists; `None` while no file can be created, since then no other
    /// process can write either.
    lock: Arc<Mutex<Option<File>>>,
}

/// A directory cannot be used.
#[derive(Debug, Error)]
pub enum DirStorageError {
    /// Another process uses it.
    #[error("another gateway uses {0}; two must not share one queue")]
    InUse(PathBuf),
    /// It cannot be created or read.
    #[error("cannot use {dir} for the queue")]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the operating system reported.
        #[source]
        source: io::Error,
    },
}

impl DirStorage {
    /// Locks the directory, and creates it if it does not exist.
    ///
    /// # Errors
    /// Fails when another process uses it, or when it cannot be created.
    pub fn open(dir: &Path) -> Result<Self, DirStorageError> {
        let unusable = |source| DirStorageError::Unusable { dir: dir.to_owned(), source };
        create_dir(dir).map_err(unusable)?;
        let lock = match take_lock(dir) {
            Ok(file) => Some(file),
            Err(LockError::InUse) => return Err(DirStorageError::InUse(dir.to_owned())),
            Err(LockError::Failed(source)) => return Err(unusable(source)),
            Err(LockError::NoFile(_)) => None,
        };
        Ok(Self { dir: dir.to_owned(), lock: Arc::new(Mutex::new(lock)) })
    }

    /// Makes sure that this process holds the lock: the directory may have become writable, or have
    /// been replaced by another one.
    fn ensure_locked(&self) -> io::Result<()> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let there = fs::metadata(self.dir.join(LOCK_FILE_NAME))
            .ok()
            .map(|found| (found.dev(), found.ino()));
        let ours = held.as_ref().and_then(|file| file.metadata().ok());
        // The inode, not the path: the lock on a file that was replaced excludes no other process.
        if there.is_some() && there == ours.map(|ours| (ours.dev(), ours.ino())) {
            return Ok(());
        }
        *held = Some(take_lock(&self.dir).map_err(|error| match error {
            LockError::InUse => io::Error::other("another gateway uses the directory"),
            LockError::NoFile(error) | LockError::Failed(error) => error,
        })?);
        Ok(())
    }
}

/// Why the lock is not held.
enum LockError {
    InUse,
    NoFile(io::Error),
    Failed(io::Error),
}

/// Creates the directory, and those above it, for this user only.
fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Returns options with which a pipe at the place of a file of the queue does not block the start.
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OPEN_FLAGS);
    options
}

/// Locks the lock file, and creates it if it can; does not wait for another process.
fn take_lock(dir: &Path) -> Result<File, LockError> {
    let path = dir.join(LOCK_FILE_NAME);
    // On a read-only file system the file can be locked as well, opened for reading.
    let writable = open_options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = writable.or_else(|_| open_options().read(true).open(&path));
    let file = file.and_then(regular_file::ensure_regular).map_err(LockError::NoFile)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::InUse),
        Err(TryLockError::Error(error)) => Err(LockError::Failed(error)),
    }
}

impl Storage for DirStorage {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)?;
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        Ok(names?.into_iter().flatten().collect())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        create_dir(&self.dir)?;
        self.ensure_locked()?;
        let mut options = open_options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        regular_file::ensure_regular(options.open(self.dir.join(name))?)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.dir.join(name);
        // What is stored on a read-only file system is still delivered.
        let writable = open_options().read(true).write(true).open(&path);
        let file = writable.or_else(|_| open_options().read(true).open(&path))?;
        regular_file::ensure_regular(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.ensure_locked()?;
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        // A new file or a rename survives a power cut only after this (fsync(2)).
        File::open(&self.dir)?.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.dir)?;
        // Not `f_bfree`: it includes the blocks that only root may use.
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl StoredFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}
