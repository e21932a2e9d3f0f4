//! Files that `edge-provision` writes: replaced atomically, and only if their content changes.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::atomic_file;

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileAccess {
    /// Everybody (0644), as far as the umask allows.
    Public,
    /// Only its owner (0600); directories that are created for it have mode 0700.
    Secret,
}

impl FileAccess {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Secret => 0o600,
        }
    }
}

/// What [`replace_if_changed`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileChange {
    /// There was no such file.
    Created,
    /// The content or the access differed.
    Replaced,
    /// Nothing differed; the file was not touched.
    Unchanged,
}

/// A file or directory that cannot be read or written.
#[derive(Debug, Error)]
#[error("cannot {action} {}", .path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Creates the error; `action` is a verb: "read", "write".
    #[must_use]
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// Returns the kind of the underlying error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// Replaces a file atomically if its content or its access differs; creates missing directories.
/// After a power cut the file holds the old content or the new one; once this returns, the new one.
///
/// # Errors
/// When the file cannot be written.
pub fn replace_if_changed(
    path: &Path,
    content: &[u8],
    access: FileAccess,
) -> Result<FileChange, FileError> {
    if is_current(path, content, access)? {
        return Ok(FileChange::Unchanged);
    }
    let is_new = !path.exists();
    create_parent(path, access)?;
    let replaced = atomic_file::replace(path, content, access.mode());
    replaced.map_err(|error| FileError::new("write", path, error))?;
    Ok(if is_new { FileChange::Created } else { FileChange::Replaced })
}

/// Returns whether a file has this content and access, and is no link.
pub(super) fn is_current(
    path: &Path,
    content: &[u8],
    access: FileAccess,
) -> Result<bool, FileError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FileError::new("read", path, error)),
    };
    let is_same = metadata.is_file() && has_access(&metadata, access);
    Ok(is_same && has_content(path, &metadata, content))
}

/// Writes the file that will replace `path`, beside it, and creates missing directories. It is not
/// flushed to the disk.
pub(super) fn prepare_replacement(
    path: &Path,
    content: &[u8],
    access: FileAccess,
) -> Result<(), FileError> {
    create_parent(path, access)?;
    let prepared = atomic_file::prepare(path, content, access.mode());
    prepared.map_err(|error| FileError::new("write", path, error))
}

/// Creates a file that must not exist yet, and missing directories. After a power cut it is whole
/// or missing.
///
/// # Errors
/// With kind [`ErrorKind::AlreadyExists`] when it exists; when it cannot be written.
pub fn create_new(path: &Path, content: &[u8], access: FileAccess) -> Result<(), FileError> {
    create_parent(path, access)?;
    let created = atomic_file::create_new(path, content, access.mode());
    created.map_err(|error| FileError::new("create", path, error))
}

/// Removes a file. Returns whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::new("remove", path, error)),
    }
}

/// Creates a directory that all may enter, with those above it.
///
/// # Errors
/// When it cannot be created.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    create_with_mode(path, 0o755)
}

/// Creates the directory of a file with those above it.
pub(super) fn create_parent(path: &Path, access: FileAccess) -> Result<(), FileError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    match access {
        FileAccess::Public => create_directory(parent),
        FileAccess::Secret => create_with_mode(parent, 0o700),
    }
}

fn create_with_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let created = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    created.map_err(|error| FileError::new("create", path, error))
}

fn has_access(metadata: &fs::Metadata, access: FileAccess) -> bool {
    match access {
        FileAccess::Public => true,
        FileAccess::Secret => metadata.permissions().mode().trailing_zeros() >= 6,
    }
}

fn has_content(path: &Path, metadata: &fs::Metadata, content: &[u8]) -> bool {
    metadata.size() == u64::try_from(content.len()).unwrap_or(u64::MAX)
        && fs::read(path).is_ok_and(|read| read == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp_dir() -> PathBuf {
        let name = format!("edge-output-{}-{:08x}", std::process::id(), fastrand::u32(..));
        std::env::temp_dir().join(name)
    }

    #[test]
    fn only_a_changed_file_is_replaced() {
        let dir = temp_dir();
        let path = dir.join("a/b/file");
        let write = |text: &str| replace_if_changed(&path, text.as_bytes(), FileAccess::Public);

        assert_eq!(write("one").unwrap(), FileChange::Created);
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(write("one").unwrap(), FileChange::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(write("two").unwrap(), FileChange::Replaced);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only() {
        let dir = temp_dir();
        let path = dir.join("secrets/key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        create_new(&path, b"key", FileAccess::Secret).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let again = create_new(&path, b"other", FileAccess::Secret).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"key");

        // A copy that lost its mode gets it back.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let change = replace_if_changed(&path, b"key", FileAccess::Secret).unwrap();
        assert_eq!((change, mode(&path)), (FileChange::Replaced, 0o600));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let dir = temp_dir();
        fs::create_dir(&dir).unwrap();
        let (other, path) = (dir.join("other"), dir.join("file"));
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();

        replace_if_changed(&path, b"text", FileAccess::Public).unwrap();

        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_dir_all(&dir).unwrap();
    }
}
