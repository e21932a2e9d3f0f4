//! Takes a file from the disk, if nobody else may read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Rejected, WgQuick, parse};

/// Longest file: some thousand networks.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Why a file was not taken.
#[derive(Debug, Error)]
pub enum WgQuickError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is a directory, a device, or longer than 256 KiB.
    #[error("{} is not a file of wg-quick, which is text of at most 256 KiB", .0.display())]
    Unlikely(PathBuf),
    /// The private key in it is not private.
    #[error(
        "other users of this machine can read or change {}, which holds a private key: close it \
         with `chmod 600`", .0.display()
    )]
    Exposed(PathBuf),
    /// Something in it is wrong.
    #[error("{} cannot be used:\n{}", .0.display(), .1)]
    Rejected(PathBuf, Rejected),
}

/// Reads a file of wg-quick. It must be closed to the group and others, as wg-quick wants it.
pub fn load(path: &Path) -> Result<WgQuick, WgQuickError> {
    let unreadable = |error| WgQuickError::Unreadable(path.to_owned(), error);
    // Something that is not a file, a pipe for example, must not keep us waiting.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(WgQuickError::Unlikely(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(WgQuickError::Exposed(path.to_owned()));
    }
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or_default()));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&bytes).map_err(|rejected| WgQuickError::Rejected(path.to_owned(), rejected))
}
