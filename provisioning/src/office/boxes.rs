//! The boxes that the office knows: the enrolment of each site in `enrolled/sites/ID.txt`, and the keys
//! that are refused for ever in `enrolled/refused.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::enrol::{EnrolError, KnownBoxes, key_texts};
use super::output_file::{FileAccess, FileError, replace_if_changed};
use crate::enrolment::{Enrolment, EnrolmentError, MAX_ENROLMENT_BYTES};
use crate::regular_file;

/// Directory with the enrolments.
pub const ENROLLED_DIR: &str = "enrolled";
const REFUSED: &str = "refused.txt";
const REFUSED_HEADER: &str =
    "# Public keys of boxes that were withdrawn or replaced: refused for ever.\n";
/// Maximum size of the list of refused keys: 16 MiB.
const MAX_REFUSED_BYTES: u64 = 16 << 20;

/// The directory `enrolled/` of a fleet.
#[derive(Clone, Debug)]
pub struct Boxes {
    dir: PathBuf,
}

/// An enrolment that is stored and cannot be used.
#[derive(Debug, Error)]
pub enum BoxesError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is damaged.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: EnrolmentError,
    },
    /// A key of it is damaged.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

impl Boxes {
    /// Returns the boxes of the fleet in this directory, without reading them.
    #[must_use]
    pub fn of_fleet(fleet: &Path) -> Self {
        Self { dir: fleet.join(ENROLLED_DIR) }
    }

    /// Returns the enrolment of a site's box; none before `enrol`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn get(&self, site: &str) -> Result<Option<Enrolment>, BoxesError> {
        let path = self.path(site);
        let bytes = match regular_file::read(&path, MAX_ENROLMENT_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        let enrolment = Enrolment::parse(&String::from_utf8_lossy(&bytes));
        let damaged = |problem| BoxesError::Damaged { path: path.display().to_string(), problem };
        enrolment.map(Some).map_err(damaged)
    }

    /// Returns all keys that are known or refused. `sites` are the ids of all sites.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged.
    pub fn known<'a>(
        &self,
        sites: impl IntoIterator<Item = &'a str>,
    ) -> Result<KnownBoxes, BoxesError> {
        let mut known = KnownBoxes::default();
        for site in sites {
            if let Some(enrolment) = self.get(site)? {
                known.add(site, &enrolment);
            }
        }
        for key in self.refused()? {
            known.refuse(&key);
        }
        Ok(known)
    }

    /// Stores the enrolment of a site's box.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, site: &str, enrolment: &Enrolment) -> Result<(), BoxesError> {
        let text = enrolment.to_string();
        replace_if_changed(&self.path(site), text.as_bytes(), FileAccess::Public)?;
        Ok(())
    }

    /// Refuses the keys of a site's box for ever, and `others` as well, and removes its enrolment.
    /// The keys of `incoming`, the next box of the site, are left out: a command that was
    /// interrupted may have stored it already.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn refuse(
        &self,
        site: &str,
        others: &[String],
        incoming: Option<&Enrolment>,
    ) -> Result<(), BoxesError> {
        let mut added: BTreeSet<String> = others.iter().cloned().collect();
        let enrolment = self.get(site)?;
        if let Some(enrolment) = &enrolment {
            added.extend(key_texts(enrolment)?.into_iter().map(|(_, key)| key));
        }
        for (_, key) in incoming.map(key_texts).transpose()?.into_iter().flatten() {
            added.remove(&key);
        }
        let mut refused = self.refused()?;
        refused.extend(added);
        let lines: Vec<_> = refused.into_iter().collect();
        let text = format!("{REFUSED_HEADER}{}\n", lines.join("\n"));
        replace_if_changed(&self.dir.join(REFUSED), text.as_bytes(), FileAccess::Public)?;
        if enrolment.is_some() {
            let path = self.path(site);
            fs::remove_file(&path).map_err(|error| FileError::new("remove", &path, error))?;
        }
        Ok(())
    }

    fn refused(&self) -> Result<BTreeSet<String>, BoxesError> {
        let path = self.dir.join(REFUSED);
        let bytes = match regular_file::read(&path, MAX_REFUSED_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let keys = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(keys.filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    }

    /// Apart from the list of refused keys, since `refused` could be the id of a site.
    fn path(&self, site: &str) -> PathBuf {
        self.dir.join("sites").join(format!("{site}.txt"))
    }
}
