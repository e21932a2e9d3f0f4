//! The storage of segments: the part of a directory of files that the log needs.

mod dir;
#[cfg(test)]
pub(crate) mod simulated;

use std::fmt::Debug;
use std::io;

pub use self::dir::{DirStorage, DirStorageError};

/// A flat directory. Clones are handles to the same one.
pub trait Storage: Clone + Debug + Send + 'static {
    /// An open file; it stays usable when it is renamed or removed.
    type File: StoredFile;

    /// Returns the names of all files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file; one with this name is emptied.
    ///
    /// # Errors
    /// When there is no room, or the directory is read-only.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file, for writing if that is allowed.
    ///
    /// # Errors
    /// When there is no such file.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file. The new name is durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// When there is no such file, or the directory is read-only.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When there is no such file, or the directory is read-only.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of files durable.
    ///
    /// # Errors
    /// When the device fails.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns the bytes that an unprivileged process may still take from the file system.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file.
pub trait StoredFile: Debug + Send + Sync + 'static {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn size(&self) -> io::Result<u64>;

    /// Fills the whole buffer.
    ///
    /// # Errors
    /// When the device fails, or the file ends before.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all bytes to the memory of the operating system.
    ///
    /// # Errors
    /// When there is no room or the device fails; some of the bytes may then be written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts the file off behind `size` bytes.
    ///
    /// # Errors
    /// When the file is read-only.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes the content durable. After an error nothing is known of what was written before, and
    /// another call proves nothing: Linux has marked the lost pages as clean.
    ///
    /// # Errors
    /// When the device fails.
    fn sync_data(&self) -> io::Result<()>;
}
