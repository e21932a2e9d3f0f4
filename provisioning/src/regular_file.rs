//! Opens files at paths where anything may lie: a pipe, a device, a directory, a file without end.
//! None of them can block the caller or fill the memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Flags with which opening a pipe or a terminal neither waits nor takes it over.
pub const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Maximum size of a file with certificates: the authorities of a whole system take 250 KB.
pub const MAX_CERTIFICATE_BYTES: u64 = 4 << 20;

/// Opens a regular file of at most `max_bytes` for reading; a symbolic link to one is followed.
///
/// # Errors
/// When it cannot be opened; [`ErrorKind::IsADirectory`] for a directory,
/// [`ErrorKind::InvalidInput`] for a pipe, device or socket, [`ErrorKind::FileTooLarge`] for a
/// longer file.
pub fn open(path: &Path, max_bytes: u64) -> io::Result<File> {
    // Before it is opened too: opening a device may do something, as with a watchdog.
    check(&fs::metadata(path)?, max_bytes)?;
    let file = OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path)?;
    // The path may name another file by now.
    check(&file.metadata()?, max_bytes)?;
    Ok(file)
}

/// Returns the contents of a regular file of at most `max_bytes`.
///
/// # Errors
/// As [`open`], and when it cannot be read.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path, max_bytes)?, max_bytes)
}

/// Returns the contents of a file that [`open`] has opened.
///
/// # Errors
/// With [`ErrorKind::FileTooLarge`] when it has grown; when it cannot be read.
pub fn read_opened(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed, to recognise a file that grows meanwhile.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    let is_longer = u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes;
    if is_longer { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Returns the file if it is a regular one.
///
/// # Errors
/// As [`open`].
pub fn ensure_regular(file: File) -> io::Result<File> {
    check(&file.metadata()?, u64::MAX)?;
    Ok(file)
}

fn check(metadata: &fs::Metadata, max_bytes: u64) -> io::Result<()> {
    if metadata.is_dir() {
        Err(ErrorKind::IsADirectory.into())
    } else if !metadata.is_file() {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is a pipe, a device or a socket"))
    } else if metadata.len() > max_bytes {
        Err(ErrorKind::FileTooLarge.into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let name = format!("edge-regular-file-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let at = |name: &str| dir.join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        // Sparse: it takes no space, and reading it would take 1 TB of memory.
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(at("socket")).unwrap();

        let kind = |path: &Path| read(path, 4).map_err(|error| error.kind());
        assert_eq!(kind(&at("file")), Ok(b"text".to_vec()));
        assert_eq!(kind(&at("link")), Ok(b"text".to_vec()));
        assert_eq!(kind(&dir), Err(ErrorKind::IsADirectory));
        for special in [at("pipe"), at("socket"), "/dev/zero".into(), "/dev/null".into()] {
            assert_eq!(kind(&special), Err(ErrorKind::InvalidInput), "{}", special.display());
        }
        assert_eq!(kind(&at("huge")), Err(ErrorKind::FileTooLarge));
        assert_eq!(kind(&at("none")), Err(ErrorKind::NotFound));
        assert!(kind(&at("loop")).is_err());
        assert_eq!(read(&at("file"), 3).map_err(|e| e.kind()), Err(ErrorKind::FileTooLarge));
        fs::remove_dir_all(&dir).unwrap();
    }
}
