//! Secrets for one box: an archive of files that age encrypts to the key of that box.

use std::collections::BTreeMap;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::bundle::{ArchiveError, MAX_BUNDLE_BYTES, is_sealed_name, read_archive, render_archive};

/// Secret files by their names, as in a bundle.
pub type UnsealedFiles = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Why secrets cannot be encrypted or decrypted.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SealError {
    /// The recipient is not one of age.
    #[error("`age_recipient` is not a recipient of age, which begins with age1")]
    Recipient,
    /// They cannot be encrypted.
    #[error("the secrets cannot be encrypted")]
    Encrypt,
    /// They cannot be decrypted with the key of this box.
    #[error(
        "the secrets of the bundle cannot be decrypted: they are for the keys of another box, \
             or damaged; send the office the enrolment file of this box"
    )]
    Decrypt,
    /// What was decrypted is not an archive.
    #[error("the secrets of the bundle are damaged: {0}; tell the office")]
    Archive(#[from] ArchiveError),
    /// A file has a name that no secret may have.
    #[error("`{name}` is not a secret that a bundle may contain; tell the office")]
    Forbidden {
        /// Name of the file.
        name: String,
    },
}

/// Returns the files as an archive that only the owner of a recipient of age can decrypt. Equal
/// files give other bytes each time.
///
/// # Errors
/// When the recipient or a name is malformed.
pub fn seal_secrets(recipient: &str, files: &BTreeMap<&str, &[u8]>) -> Result<Vec<u8>, SealError> {
    let recipient: age::x25519::Recipient = recipient.parse().map_err(|_| SealError::Recipient)?;
    if let Some(name) = files.keys().find(|name| !is_sealed_name(name)) {
        return Err(SealError::Forbidden { name: (*name).to_owned() });
    }
    let members: Vec<_> = files.iter().map(|(name, content)| (*name, *content)).collect();
    let archive = Zeroizing::new(render_archive(&members)?);
    age::encrypt(&recipient, &archive).map_err(|_| SealError::Encrypt)
}

/// Returns the files of [`seal_secrets`].
///
/// # Errors
/// When they are encrypted to another box, damaged, or have names that no secret may have.
pub fn unseal_secrets(
    identity: &age::x25519::Identity,
    sealed: &[u8],
) -> Result<UnsealedFiles, SealError> {
    // age writes no compression: the archive is shorter than what it came from.
    if sealed.len() > MAX_BUNDLE_BYTES {
        return Err(SealError::Decrypt);
    }
    let archive = age::decrypt(identity, sealed).map_err(|_| SealError::Decrypt)?;
    let archive = Zeroizing::new(archive);
    let mut files = BTreeMap::new();
    for (name, content) in read_archive(&archive)? {
        if !is_sealed_name(name) {
            return Err(SealError::Forbidden { name: name.to_owned() });
        }
        files.insert(name.to_owned(), Zeroizing::new(content.to_vec()));
    }
    Ok(files)
}
