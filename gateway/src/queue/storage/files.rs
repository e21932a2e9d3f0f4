//! The storage of this machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Storage, StoredFile};

/// Name of the file that marks the directory as in use.
const LOCK: &str = "lock";

/// A directory that only this process uses.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    /// Held as long as a clone lives. Nothing where no file can be made: there nobody can write.
    _lock: Option<Arc<File>>,
}

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum FilesError {
    /// Another process has it.
    #[error("another gateway uses {0}; two must not share one queue")]
    InUse(PathBuf),
    /// It cannot be made or read.
    #[error("cannot use {dir} for the queue")]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Files {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// Fails when another process has it, or when it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, FilesError> {
        let unusable = |source| FilesError::Unusable { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join(LOCK);
        let writable =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let Ok(file) = writable.or_else(|_| File::open(&path)) else {
            return Ok(Self { dir: dir.to_owned(), _lock: None });
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: Some(Arc::new(file)) }),
            Err(TryLockError::WouldBlock) => Err(FilesError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

impl Storage for Files {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)?;
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        Ok(names?.into_iter().flatten().collect())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.dir.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.dir.join(name);
        OpenOptions::new().read(true).write(true).open(&path).or_else(|_| File::open(&path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.dir)?;
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
