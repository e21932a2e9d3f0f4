//! Another key in the place of one that is lost, stolen or old.
//!
//! A new key waits in `secrets/signing.key.2` for list 2. It is `secrets/signing.key` as soon as
//! that list is written; the key before it is kept as `secrets/signing.key.old.1`. So no key is
//! replaced by one that boxes do not trust, and a command that was interrupted can be typed again.

use std::path::{Path, PathBuf};

use super::{MAX_LISTS, OFFLINE_KEY, SIGNING_KEY, SigningError, SigningLists};
use crate::atomic_file::rename_new;
use crate::bundle::{SigningKey, SigningKeys};
use crate::office::output_file::{FileAccess, FileError, create_new, remove_if_there};
use crate::office::secrets::Secrets;
use crate::office::signing::{NewKey, Signer};

/// What a key of a list is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningRole {
    /// The first key: it signs bundles.
    Daily,
    /// The second key: it is for the day when the first one is lost or stolen.
    Offline,
}

impl SigningRole {
    const ALL: [Self; 2] = [Self::Daily, Self::Offline];

    /// Returns the name of its file below `secrets/`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Daily => SIGNING_KEY,
            Self::Offline => OFFLINE_KEY,
        }
    }

    /// Returns its place in a list.
    const fn place(self) -> usize {
        match self {
            Self::Daily => 0,
            Self::Offline => 1,
        }
    }

    fn path(self, fleet: &Path) -> PathBuf {
        Secrets::of_fleet(fleet).file(self.file_name())
    }

    /// Returns where the key for a list waits until the list is written.
    fn waiting_path(self, fleet: &Path, list: u32) -> PathBuf {
        Secrets::of_fleet(fleet).file(&format!("{}.{list}", self.file_name()))
    }
}

impl SigningLists {
    /// Adds a list with a new key in the place of the one with this role, and puts the key into
    /// its file. The other keys of the last list stay.
    ///
    /// # Errors
    /// When the signer is not in the last list, there are too many lists, or a file cannot be
    /// written. The keys that boxes trust are still in their files then.
    pub fn rotate(
        &mut self,
        fleet: &Path,
        role: SigningRole,
        made: &NewKey,
        signer: Signer,
    ) -> Result<(), SigningError> {
        let last = self.last()?;
        let number = last.number().saturating_add(1);
        if number > MAX_LISTS {
            return Err(SigningError::TooManyLists);
        }
        let new = SigningKey::from_pub_file(&made.public)?;
        let mut keys = last.keys().to_vec();
        match keys.get_mut(role.place()) {
            Some(key) => *key = new,
            None => keys.push(new),
        }
        let keys = SigningKeys::new(number, keys)?;
        let signer = self.accept(signer)?;
        // The key first: a list with a key that is lost would leave the other one alone. One that
        // waits there already is of an interrupted run, and in no list.
        let waiting = role.waiting_path(fleet, number);
        remove_if_there(&waiting)?;
        create_new(&waiting, made.secret.as_bytes(), FileAccess::Secret)?;
        self.push(fleet, keys, &signer)?;
        self.finish_rotation(fleet)?;
        Ok(())
    }

    /// Puts a key of the last list that still waits into its file, after a run that was
    /// interrupted. Returns the role of the key, if there was one.
    ///
    /// # Errors
    /// When a file cannot be renamed.
    pub fn finish_rotation(&self, fleet: &Path) -> Result<Option<SigningRole>, SigningError> {
        let number = self.last()?.number();
        for role in SigningRole::ALL {
            let (waiting, path) = (role.waiting_path(fleet, number), role.path(fleet));
            if !waiting.exists() {
                continue;
            }
            if path.exists() {
                let before = number.saturating_sub(1);
                let old = format!("{}.old.{before}", role.file_name());
                rename(&path, &Secrets::of_fleet(fleet).file(&old))?;
            }
            rename(&waiting, &path)?;
            return Ok(Some(role));
        }
        Ok(None)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    rename_new(from, to).map_err(|error| FileError::new("rename", from, error))
}
