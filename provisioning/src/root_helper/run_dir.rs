//! What the helper gives to the gateway, in memory: the secrets of a bundle in clear, or why there
//! are none. After a power cut it is empty.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::apply::ApplyReport;
use super::box_dir::remove_tree;
use super::open_dir::{FileOwner, OpenDir};
use super::sentence::HelperError;
use crate::bundle::MAX_BUNDLE_BYTES;
use crate::enrolment::UnsealedFiles;
use crate::update_notice::{UPDATE_NOTICE, UpdateNotice};

/// What was done last, for the stick.
const STATUS: &str = "status.txt";
/// Is there while `edge-gateway-box update` has something to do: its path unit looks at it.
const UPDATE_DUE: &str = "update-due";
/// Ending of a file with the sentence why there are no secrets.
const REFUSED: &str = ".refused";
/// Maximum number of entries that are looked at.
const MAX_ENTRIES: usize = 1024;

/// The directory in memory.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    dir: OpenDir,
}

impl RunDir {
    /// Opens the directory, and makes it if it is missing. It tells the gateway that this program
    /// decrypts the secrets of its bundles, so it has to be there before the gateway takes one.
    pub(super) fn open(path: &Path) -> Result<Self, HelperError> {
        let is_new = !path.exists();
        let made = DirBuilder::new().recursive(true).create(path);
        let dir = made.and_then(|()| {
            if is_new {
                // Not as the umask of a person's shell says.
                fs::set_permissions(path, Permissions::from_mode(0o755))?;
            }
            OpenDir::open(path)
        });
        let dir = dir.map_err(HelperError::io("use", path.display()))?;
        Ok(Self { path: path.to_owned(), dir })
    }

    /// Gives the gateway what was applied. The secrets come last: when they are there, the network
    /// is in use.
    pub(super) fn hand_over(&self, applied: &ApplyReport, owner: FileOwner) -> io::Result<()> {
        let known: Vec<_> =
            [applied.record.confirmed, applied.record.on_trial].into_iter().flatten().collect();
        let refused = applied.refused.as_ref();
        self.keep(&known, refused.map(|(counter, _)| *counter))?;
        self.put_status(&applied.to_string())?;
        if let Some((counter, refusal)) = refused {
            self.put_refusal(*counter, &refusal.to_string())?;
        }
        match &applied.in_use {
            Some((counter, secrets)) => self.put_secrets(*counter, secrets, owner),
            None => Ok(()),
        }
    }

    /// Puts the secrets of a bundle there, all at once, for the group of the gateway. Nothing is
    /// touched if they are there.
    fn put_secrets(
        &self,
        counter: u64,
        secrets: &UnsealedFiles,
        owner: FileOwner,
    ) -> io::Result<()> {
        let path = self.path.join(counter.to_string());
        if !has_secrets(&path, secrets) {
            let new = self.path.join(format!(".{counter}.new"));
            remove_tree(&new)?;
            DirBuilder::new().mode(0o700).create(&new)?;
            let dir = OpenDir::open(&new)?;
            for (name, content) in secrets {
                dir.replace(name, content, 0o440, Some(owner))?;
            }
            owner.take(&File::open(&new)?)?;
            fs::set_permissions(&new, Permissions::from_mode(0o750))?;
            if path.symlink_metadata().is_ok() {
                rustix::fs::renameat_with(CWD, &new, CWD, &path, RenameFlags::EXCHANGE)?;
                remove_tree(&new)?;
            } else {
                fs::rename(&new, &path)?;
            }
        }
        self.dir.remove(&format!("{counter}{REFUSED}"))
    }

    /// Says why there are no secrets of a bundle.
    fn put_refusal(&self, counter: u64, sentence: &str) -> io::Result<()> {
        let name = format!("{counter}{REFUSED}");
        self.dir.replace(&name, format!("{sentence}\n").as_bytes(), 0o644, None)
    }

    /// Removes the secrets of all other bundles, and all refusals but one: their number would
    /// otherwise be up to the gateway's user.
    fn keep(&self, counters: &[u64], refused: Option<u64>) -> io::Result<()> {
        for name in self.dir.names(MAX_ENTRIES)? {
            let name = name.to_string_lossy().into_owned();
            let refusal = name.strip_suffix(REFUSED).map(|counter| counter.parse().ok());
            let is_kept = match refusal {
                Some(counter) => counter.is_some() && counter == refused,
                None => name.parse().is_ok_and(|counter| counters.contains(&counter)),
            };
            if !is_kept && ![STATUS, UPDATE_NOTICE, UPDATE_DUE].contains(&name.as_str()) {
                remove_tree(&self.path.join(&name))?;
            }
        }
        Ok(())
    }

    /// Replaces the text for the stick.
    fn put_status(&self, text: &str) -> io::Result<()> {
        self.dir.replace(STATUS, text.as_bytes(), 0o644, None)
    }

    /// Tells the gateway how far an update is; none if it has nothing to know.
    pub(super) fn put_update(&self, notice: Option<&UpdateNotice>) -> Result<(), HelperError> {
        let put = match notice {
            None => self.dir.remove(UPDATE_NOTICE),
            Some(notice) if self.update_notice().as_ref() == Some(notice) => Ok(()),
            Some(notice) => {
                self.dir.replace(UPDATE_NOTICE, notice.to_string().as_bytes(), 0o644, None)
            }
        };
        put.map_err(HelperError::io("write", self.path.join(UPDATE_NOTICE).display()))
    }

    /// Returns what the gateway was told last.
    pub(super) fn update_notice(&self) -> Option<UpdateNotice> {
        let text = self.dir.read(UPDATE_NOTICE, MAX_BUNDLE_BYTES).ok()?;
        str::from_utf8(&text).ok()?.parse().ok()
    }

    /// Says that `edge-gateway-box update` has something to do, or that it has begun.
    pub(super) fn set_update_due(&self, is_due: bool) -> Result<(), HelperError> {
        let set = if is_due {
            self.dir.replace(UPDATE_DUE, b"", 0o600, None)
        } else {
            self.dir.remove(UPDATE_DUE)
        };
        set.map_err(HelperError::io("write", self.path.join(UPDATE_DUE).display()))
    }

    /// Returns the text for the stick; none if nothing was done yet.
    pub(super) fn status(&self) -> Option<String> {
        let text = self.dir.read(STATUS, MAX_BUNDLE_BYTES).ok()?;
        String::from_utf8(text).ok()
    }
}

fn has_secrets(path: &Path, secrets: &UnsealedFiles) -> bool {
    let Ok(dir) = OpenDir::open(path) else { return false };
    let names = dir.names(MAX_ENTRIES).unwrap_or_default();
    let is_same = |(name, content): (&String, &zeroize::Zeroizing<Vec<u8>>)| {
        dir.read(name, MAX_BUNDLE_BYTES).is_ok_and(|found| found == **content)
    };
    names.len() == secrets.len() && secrets.iter().all(is_same)
}
