//! A directory that is open, so that no other one can take its place.
//!
//! Its owner may change what lies in it at any time, and may be hostile: every file is opened once,
//! relative to the directory, without following a link, and judged by its descriptor.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::regular_file::ensure_regular;

/// Attempts to create a file whose name another process takes each time.
const MAX_ATTEMPTS: usize = 8;

const DIR_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const CREATE_FLAGS: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct OpenDir {
    descriptor: OwnedFd,
}

/// Owner and group of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileOwner {
    user: Uid,
    group: Gid,
}

impl FileOwner {
    /// Returns root as the owner, with the group of another.
    pub(super) fn only_group(self) -> Self {
        Self { user: rustix::process::geteuid(), ..self }
    }

    /// Makes this the owner of an open file or directory, unless it is already.
    pub(super) fn take(self, file: &File) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) == (self.user.as_raw(), self.group.as_raw()) {
            return Ok(());
        }
        rustix::fs::fchown(file, Some(self.user), Some(self.group)).map_err(Into::into)
    }
}

impl OpenDir {
    /// Opens a directory whose path only root can change; a link in it is followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { descriptor: rustix::fs::openat(CWD, path, DIR_FLAGS, Mode::empty())? })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// When it is a link or no directory.
    pub(super) fn open_below(&self, name: &str) -> io::Result<Self> {
        let flags = DIR_FLAGS.union(OFlags::NOFOLLOW);
        let opened = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty());
        Ok(Self { descriptor: opened? })
    }

    /// Opens a directory in this one, and makes it first if it is missing, with mode 0750 and the
    /// owner of this one.
    ///
    /// # Errors
    /// As [`Self::open_below`], and when it cannot be made.
    pub(super) fn open_or_create_below(&self, name: &str) -> io::Result<Self> {
        match self.open_below(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        rustix::fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o700))?;
        let made = self.open_below(name)?;
        // By now the name may be another directory: a new one is empty, and of this process.
        let is_own = made.stat()?.st_uid == rustix::process::geteuid().as_raw();
        if !is_own || !made.names(1)?.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "it was replaced meanwhile"));
        }
        let owner = self.owner()?;
        rustix::fs::fchmod(&made.descriptor, Mode::from_raw_mode(0o750))?;
        rustix::fs::fchown(&made.descriptor, Some(owner.user), Some(owner.group))?;
        Ok(made)
    }

    /// Returns owner and group of the directory.
    pub(super) fn owner(&self) -> io::Result<FileOwner> {
        let stat = self.stat()?;
        Ok(FileOwner { user: Uid::from_raw(stat.st_uid), group: Gid::from_raw(stat.st_gid) })
    }

    /// Returns the content of a regular file of at most `max_bytes`.
    ///
    /// # Errors
    /// When it is a link, has a second name, is no regular file, is longer, or cannot be read.
    pub(super) fn read(&self, name: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
        self.read_os(name.as_ref(), max_bytes)
    }

    /// As [`Self::read`], for any name.
    pub(super) fn read_os(&self, name: &std::ffi::OsStr, max_bytes: usize) -> io::Result<Vec<u8>> {
        // Before it is opened: opening a device may do something.
        let stat = rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?;
        ensure_file(&stat)?;
        let file = rustix::fs::openat(&self.descriptor, name, READ_FLAGS, Mode::empty())?;
        // What was opened may be another file than the one above.
        ensure_file(&rustix::fs::fstat(&file)?)?;
        let file = ensure_regular(file.into())?;
        let mut bytes = Vec::new();
        // One byte more than allowed, to recognise a file that is too long or grows.
        let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes)?;
        if bytes.len() > max_bytes { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    /// Returns the content of a file as [`Self::read`]; none if there is none.
    pub(super) fn read_optional(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        match self.read(name, max) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Returns whether there is something of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Returns the names in the directory, at most `max` of them, in order.
    pub(super) fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
            if names.len() == max {
                break;
            }
        }
        names.sort();
        Ok(names)
    }

    /// Replaces a file in one step; after a power cut it is the old one or the new one. The owner
    /// is this process if there is none.
    ///
    /// # Errors
    /// When it cannot be written, or a directory has its name.
    pub(super) fn replace(
        &self,
        name: &str,
        content: &[u8],
        mode: u32,
        owner: Option<FileOwner>,
    ) -> io::Result<()> {
        let new = format!(".{name}.new");
        let mut file = self.create(&new)?;
        let renamed = fill(&mut file, content, mode, owner).and_then(|()| {
            rustix::fs::renameat(&self.descriptor, &new, &self.descriptor, name)?;
            self.sync()
        });
        if renamed.is_err() {
            let _ = self.remove(&new);
        }
        renamed
    }

    /// Creates a file that only this process can use yet.
    fn create(&self, name: &str) -> io::Result<File> {
        for _ in 0..MAX_ATTEMPTS {
            // A rest of a run that was cut.
            self.remove(name)?;
            let mode = Mode::from_raw_mode(0o600);
            match rustix::fs::openat(&self.descriptor, name, CREATE_FLAGS, mode) {
                Err(Errno::EXIST) => {}
                created => return Ok(created?.into()),
            }
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, "another process makes it again each time"))
    }

    /// Removes a file, if there is one.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.map_err(Into::into),
        }
    }

    /// Writes the names in the directory to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.descriptor).map_err(Into::into)
    }

    /// Writes everything on the file system of the directory to the disk.
    pub(super) fn sync_file_system(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.descriptor).map_err(Into::into)
    }

    fn stat(&self) -> io::Result<Stat> {
        rustix::fs::fstat(&self.descriptor).map_err(Into::into)
    }
}

/// Writes a new file to the disk, with its mode and owner.
fn fill(file: &mut File, content: &[u8], mode: u32, owner: Option<FileOwner>) -> io::Result<()> {
    file.write_all(content)?;
    match rustix::fs::fchmod(&*file, Mode::from_raw_mode(mode)) {
        // A stick with FAT, which has no modes.
        Err(Errno::PERM) => {}
        set => set?,
    }
    if let Some(owner) = owner {
        owner.take(file)?;
    }
    file.sync_all()
}

/// Refuses what is no regular file with one name. With a second name, it may be the file of another
/// user that its owner cannot read.
fn ensure_file(stat: &Stat) -> io::Result<()> {
    let problem = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_nlink == 1 => return Ok(()),
        FileType::RegularFile => "it has a second name, a hard link",
        FileType::Symlink => "it is a symbolic link",
        FileType::Directory => "it is a directory",
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => "it is a pipe, a device or a socket",
    };
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}
