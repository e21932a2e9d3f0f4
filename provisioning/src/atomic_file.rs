//! Files that are as before or as they were to be, however the program that writes them ends. Where
//! another user may change the directory, `root_helper::open_dir` does the same without a path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[cfg(feature = "enrolment")]
use rustix::fs::{CWD, RenameFlags, renameat_with};
#[cfg(feature = "enrolment")]
use rustix::io::Errno;

/// Replaces a file, or creates it, with the permissions `mode` as far as the umask allows, in one
/// step. After a crash or a power cut it is the old one or the new one; once this returns, the new
/// one. It blocks.
///
/// # Errors
/// When it cannot be written; it is the old one then, or after a failed sync perhaps the new one.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    prepare(path, content, mode)?;
    let new = prepared_path(path);
    // rename(2) is atomic, but only a synced file is sure to have its content after a power cut.
    let replaced = sync(&new).and_then(|()| fs::rename(&new, path));
    put_into_place(&new, path, replaced)
}

/// Creates a file that must not exist yet, with the permissions `mode` as far as the umask allows.
/// After a crash or a power cut it is whole or missing; once this returns, it is on the disk.
///
/// # Errors
/// With [`ErrorKind::AlreadyExists`] when it exists; when it cannot be written.
#[cfg(feature = "enrolment")]
pub(crate) fn create_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    prepare(path, content, mode)?;
    let new = prepared_path(path);
    let created = sync(&new).and_then(|()| rename_new(&new, path));
    put_into_place(&new, path, created)
}

/// Ends what a rename of `new` to `path` has begun.
fn put_into_place(new: &Path, path: &Path, renamed: io::Result<()>) -> io::Result<()> {
    if renamed.is_err() {
        // A key must not stay where nothing looks for it; the next try would replace it.
        let _ = fs::remove_file(new);
    }
    renamed?;
    // The rename survives a power cut only after this (fsync(2)).
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    sync(dir.unwrap_or_else(|| Path::new(".")))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the file that will be put at `path`, beside it. It is not flushed to the disk.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn prepare(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = prepared_path(path);
    // The rest of a run that was cut, or a pipe or a link, which would block the write or send it
    // elsewhere.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?.write_all(content)
}

/// Returns the path beside `path` where [`prepare`] writes.
pub(crate) fn prepared_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Renames a file to a path that must be free.
///
/// # Errors
/// With [`ErrorKind::AlreadyExists`] when it is not.
#[cfg(feature = "enrolment")]
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // NFS cannot rename like this; a link is made only if its path is free as well.
        Err(Errno::INVAL) => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_the_old_one_or_the_new_one() {
        let name = format!("edge-replaced-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("record");
        replace(&path, b"old", 0o600).unwrap();
        fs::create_dir_all(prepared_path(&path).join("other")).unwrap();
        replace(&path, b"new", 0o600).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_dir_all(prepared_path(&path)).unwrap();
        // A pipe there would block the write, and a link send it elsewhere.
        std::os::unix::fs::symlink("/dev/full", prepared_path(&path)).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[cfg(feature = "enrolment")]
    #[test]
    fn a_new_file_is_whole_or_missing() {
        let name = format!("edge-new-file-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("key");
        // Where the content is written, something is in the way: as with a full disk.
        fs::create_dir_all(prepared_path(&path).join("other")).unwrap();
        create_new(&path, b"whole", 0o600).unwrap_err();
        assert!(!path.exists());
        fs::remove_dir_all(prepared_path(&path)).unwrap();

        // What a killed program has left is not the file.
        fs::write(prepared_path(&path), "who").unwrap();
        create_new(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        let again = create_new(&path, b"other", 0o600).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        fs::write(prepared_path(&path), "other").unwrap();
        let late = rename_new(&prepared_path(&path), &path).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::AlreadyExists, "a file that came meanwhile stays");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        fs::remove_dir_all(&dir).unwrap();
    }
}
