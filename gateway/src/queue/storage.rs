//! Where segments lie: a directory of files, as little of one as the log needs.

mod dir;
#[cfg(test)]
pub(super) mod simulated;

use std::fmt::Debug;
use std::io;

pub use self::dir::{DirStorage, DirStorageError};

/// A flat directory. Clones are handles to the same one.
pub trait Storage: Clone + Debug + Send + 'static {
    /// An open file; it stays usable when it is renamed or removed.
    type File: StoredFile;

    /// Names of all files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new and empty file; one with this name is emptied.
    ///
    /// # Errors
    /// When there is no room, or nothing may be written.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// A file that is there, for writing where that is allowed.
    ///
    /// # Errors
    /// When there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, which is durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// When there is no such file, or nothing may be written.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When there is no such file, or nothing may be written.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable.
    ///
    /// # Errors
    /// When the device fails.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that others may still take from the file system.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn free_space(&self) -> io::Result<u64>;
}

/// One file.
pub trait StoredFile: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn size(&self) -> io::Result<u64>;

    /// Fills the whole buffer.
    ///
    /// # Errors
    /// When the device fails, or the file ends before.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all bytes, into the memory of the operating system.
    ///
    /// # Errors
    /// When there is no room or the device fails; some of the bytes may then be written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts it off behind this many bytes.
    ///
    /// # Errors
    /// When nothing may be written.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes its content durable. After an error nothing is known of what was written before, and
    /// asking again proves nothing.
    ///
    /// # Errors
    /// When the device fails.
    fn sync_data(&self) -> io::Result<()>;
}
