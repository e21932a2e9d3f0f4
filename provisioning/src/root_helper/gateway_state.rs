//! What the gateway keeps of its bundles, as far as the helper uses it. Its user may be hostile.

use std::io;
use std::path::Path;

use super::open_dir::{FileOwner, OpenDir};
use crate::bundle::{MAX_BUNDLE_BYTES, MAX_PACKAGE_BYTES, PackageName};
use crate::trial::TrialSlot;

/// Directory of the packages that the gateway has fetched.
const PACKAGES_DIR: &str = "packages";
/// Directory of the bundles in the gateway's directory.
const BUNDLE_DIR: &str = "bundle";
/// The record of the gateway.
const RECORD: &str = "record";
/// A bundle that a person brought.
const INBOX: &str = "inbox.tar";
/// Why the gateway did not take it.
const INBOX_REFUSED: &str = "inbox.refused";

/// Maximum size of the gateway's record.
const MAX_RECORD_BYTES: usize = 16 * 1024;
/// Maximum size of a sentence of the gateway.
const MAX_SENTENCE_BYTES: usize = 4096;

/// What the helper reads of the gateway.
pub(super) trait GatewayState {
    /// Returns the record of its bundles; none if there is none.
    ///
    /// # Errors
    /// When it is no regular file, too long, or cannot be read.
    fn record(&self) -> io::Result<Option<Vec<u8>>>;

    /// Returns the bundle in a slot.
    ///
    /// # Errors
    /// As [`Self::record`], and when there is none.
    fn bundle(&self, slot: TrialSlot) -> io::Result<Vec<u8>>;
}

/// The directory of the gateway.
#[derive(Debug)]
pub(super) struct StateFiles {
    dir: OpenDir,
}

impl StateFiles {
    /// Opens `state_dir`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: OpenDir::open(path)? })
    }

    /// Returns owner and group of the directory: the gateway's user.
    pub(super) fn owner(&self) -> io::Result<FileOwner> {
        self.dir.owner()
    }

    /// Puts a bundle where the gateway takes it.
    pub(super) fn put_inbox(&self, bundle: &[u8]) -> io::Result<()> {
        let dir = self.dir.open_or_create_below(BUNDLE_DIR)?;
        dir.remove(INBOX_REFUSED)?;
        dir.replace(INBOX, bundle, 0o600, Some(self.owner()?))
    }

    /// Returns a package that the gateway has fetched; none if it has not.
    pub(super) fn package(&self, name: &PackageName) -> io::Result<Option<Vec<u8>>> {
        match self.dir.open_below(PACKAGES_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            dir => dir?.read_optional(&name.to_string(), MAX_PACKAGE_BYTES),
        }
    }

    /// Returns whether a bundle waits for the gateway.
    pub(super) fn has_inbox(&self) -> bool {
        self.dir.open_below(BUNDLE_DIR).is_ok_and(|dir| dir.has(INBOX))
    }

    /// Returns why the gateway refused a bundle, if it said so.
    pub(super) fn inbox_refused(&self) -> Option<String> {
        let dir = self.dir.open_below(BUNDLE_DIR).ok()?;
        let text = dir.read_optional(INBOX_REFUSED, MAX_SENTENCE_BYTES).ok()??;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

impl GatewayState for StateFiles {
    fn record(&self) -> io::Result<Option<Vec<u8>>> {
        match self.dir.open_below(BUNDLE_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            dir => dir?.read_optional(RECORD, MAX_RECORD_BYTES),
        }
    }

    fn bundle(&self, slot: TrialSlot) -> io::Result<Vec<u8>> {
        self.dir.open_below(BUNDLE_DIR)?.read(&format!("{slot}.tar"), MAX_BUNDLE_BYTES)
    }
}
