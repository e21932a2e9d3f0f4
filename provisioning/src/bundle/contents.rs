//! What is signed: the manifest and the files of one gateway.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::archive::{self, ArchiveError};
use super::member_name::{GATEWAY_TOML, MANIFEST, SEALED_SECRETS, SECRETS_DIR, is_member_name};
use super::{Manifest, ManifestError};

/// Why the signed part of a bundle cannot be used. The office has made it so.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ContentsError {
    /// The archive in it is damaged.
    #[error("bundle.tar is no archive: {0}")]
    Archive(#[from] ArchiveError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file that every bundle has is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A file that no bundle may have.
    #[error("`{name}` is not a file that a bundle may contain")]
    Forbidden {
        /// Name of the file.
        name: String,
    },
    /// The manifest is not first, or the files are not sorted by name.
    #[error("its files are not in the order in which `edge-provision` writes them")]
    Order,
}

/// The files of one gateway. `Debug` shows their names only: there may be secrets among them.
#[derive(Clone, Eq, PartialEq)]
pub struct Bundle<'a> {
    manifest: Manifest,
    /// Without the manifest.
    files: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Bundle<'a> {
    /// Creates a bundle of files by their names, without the manifest.
    ///
    /// # Errors
    /// When a name is not allowed, or `gateway.toml` is missing.
    pub fn new(
        manifest: Manifest,
        files: BTreeMap<&'a str, &'a [u8]>,
    ) -> Result<Self, ContentsError> {
        let is_forbidden = |name: &&&str| **name == MANIFEST || !is_member_name(name);
        if let Some(name) = files.keys().find(is_forbidden) {
            return Err(ContentsError::Forbidden { name: (*name).to_owned() });
        }
        if !files.contains_key(GATEWAY_TOML) {
            return Err(ContentsError::Missing(GATEWAY_TOML));
        }
        Ok(Self { manifest, files })
    }

    /// Reads the archive that is signed, or is to be. Does not look for a signature.
    ///
    /// # Errors
    /// When it is not exactly what [`Self::render`] returns for some bundle.
    pub fn read(archive: &'a [u8]) -> Result<Self, ContentsError> {
        let members = archive::read(archive)?;
        let Some(((MANIFEST, manifest), files)) = members.split_first() else {
            return Err(ContentsError::Missing(MANIFEST));
        };
        if !files.is_sorted_by_key(|(name, _)| name) {
            return Err(ContentsError::Order);
        }
        Self::new(Manifest::read(manifest)?, files.iter().copied().collect())
    }

    /// Returns the archive that is to be signed. Equal bundles give equal bytes.
    ///
    /// # Errors
    /// When the manifest has a value that is not allowed, or there are too many files.
    pub fn render(&self) -> Result<Vec<u8>, ContentsError> {
        let manifest = self.manifest.render()?;
        let files = self.files.iter().map(|(name, content)| (*name, *content));
        let members: Vec<_> = [(MANIFEST, manifest.as_bytes())].into_iter().chain(files).collect();
        Ok(archive::render(&members)?)
    }

    /// Returns which bundle it is and for whom.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the files by their names, without the manifest.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<&'a str, &'a [u8]> {
        &self.files
    }

    /// Returns the secrets that only the box can decrypt.
    #[must_use]
    pub fn sealed_secrets(&self) -> Option<&'a [u8]> {
        self.files.get(SEALED_SECRETS).copied()
    }

    /// Returns whether it holds a secret that anyone can read who has the file.
    #[must_use]
    pub fn has_clear_secrets(&self) -> bool {
        self.files.keys().any(|name| name.starts_with(SECRETS_DIR) && *name != SEALED_SECRETS)
    }
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.keys().collect();
        f.debug_struct("Bundle").field("manifest", &self.manifest).field("files", &files).finish()
    }
}
