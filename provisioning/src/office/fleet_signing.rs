//! The signing keys of a fleet: its lists of public keys in `signing/`, and the key that is open.

mod rotation;

use std::path::Path;

use thiserror::Error;

use super::output_file::{FileAccess, FileError, create_new, replace_if_changed};
use super::secrets::{SecretError, Secrets};
use super::signing::{KeyFile, KeyFileError, NewKey, Signer};
use crate::bundle::{
    ArchiveError, Signature, SigningKeyError, SigningKeys, SigningKeysError, seal,
};
use crate::regular_file;
pub use rotation::SigningRole;

/// Directory with the lists of public keys.
pub const SIGNING_DIR: &str = "signing";
/// Name below `secrets/` of the key that signs bundles.
pub const SIGNING_KEY: &str = "signing.key";
/// Name below `secrets/` of the second key, until it is moved to a safe place.
pub const OFFLINE_KEY: &str = "offline.key";

/// Maximum number of lists, so that they leave room in a bundle.
const MAX_LISTS: u32 = 24;
/// Maximum size of a list, a signature or a key file.
const MAX_BYTES: u64 = 4096;

/// All lists of signing keys that a fleet has had, each signed by a key of the one before it.
#[derive(Clone, Debug)]
pub struct SigningLists(Vec<(SigningKeys, Signature)>);

/// Why bundles cannot be signed.
#[derive(Debug, Error)]
pub enum SigningError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A secret key cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret key cannot be opened.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A list or a signature is damaged.
    #[error("{path} is damaged: take it from git")]
    Damaged {
        /// Its path.
        path: String,
    },
    /// The fleet has no lists.
    #[error("signing/keys-1.txt is missing: `edge-provision init` makes the signing keys")]
    NoLists,
    /// The key is not in the last list.
    #[error(
        "the key {key} is not in signing/keys-{number}.txt, so no box takes what it signs; use one \
         of {known}"
    )]
    ForeignKey {
        /// Number of the key.
        key: String,
        /// Number of the last list.
        number: u32,
        /// Numbers of its keys.
        known: String,
    },
    /// The signature of another program is not one by a key of the fleet, or not of this content.
    #[error("this is not a signature of the content by a key in signing/keys-{number}.txt")]
    WrongSignature {
        /// Number of the last list.
        number: u32,
    },
    /// A `.pub` file is damaged.
    #[error(transparent)]
    PublicKey(#[from] SigningKeyError),
    /// A list cannot be made.
    #[error(transparent)]
    List(#[from] SigningKeysError),
    /// There are too many lists.
    #[error("there are {MAX_LISTS} lists of signing keys, which is the most a bundle can show")]
    TooManyLists,
    /// The bundle cannot be put together.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl SigningLists {
    /// Makes the first list of a fleet unless there is one, of two new keys, and writes their files.
    /// The second key is for the day when the first one is lost or stolen.
    ///
    /// # Errors
    /// When a file cannot be written, or one of an interrupted run cannot be used.
    pub fn ensure(fleet: &Path, password: Option<&str>) -> Result<(), SigningError> {
        if fleet.join(SIGNING_DIR).join("keys-1.txt").exists() {
            return Ok(());
        }
        let secrets = Secrets::of_fleet(fleet);
        let first = ensure_key(&secrets.file(SIGNING_KEY), password)?;
        let second = ensure_key(&secrets.file(OFFLINE_KEY), password)?;
        let keys = SigningKeys::new(1, vec![first.key().clone(), second.key().clone()])?;
        Self(Vec::new()).push(fleet, keys, &first)
    }

    /// Reads the lists of a fleet.
    ///
    /// # Errors
    /// When there is none, or one is damaged or not signed by the one before it.
    pub fn load(fleet: &Path) -> Result<Self, SigningError> {
        let dir = fleet.join(SIGNING_DIR);
        let mut lists: Vec<(SigningKeys, Signature)> = Vec::new();
        for number in 1..=MAX_LISTS {
            let path = dir.join(format!("keys-{number}.txt"));
            let Some(text) = read_optional(&path)? else { break };
            let damaged = || SigningError::Damaged { path: path.display().to_string() };
            let keys: SigningKeys = text.parse().map_err(|_| damaged())?;
            let signature = path.with_extension("txt.minisig");
            let signature = read_optional(&signature)?.as_deref().and_then(Signature::from_minisig);
            let signature = signature.ok_or_else(damaged)?;
            let before = lists.last().map_or(&keys, |(keys, _)| keys);
            if keys.number() != number || !before.have_signed(text.as_bytes(), &signature) {
                return Err(damaged());
            }
            lists.push((keys, signature));
        }
        if lists.is_empty() { Err(SigningError::NoLists) } else { Ok(Self(lists)) }
    }

    /// Returns the last list, whose keys sign now.
    ///
    /// # Errors
    /// When there is none.
    pub fn last(&self) -> Result<&SigningKeys, SigningError> {
        self.0.last().map(|(keys, _)| keys).ok_or(SigningError::NoLists)
    }

    /// Returns the first list, which every box of the fleet trusts or trusted.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(&self) -> Result<&SigningKeys, SigningError> {
        self.0.first().map(|(keys, _)| keys).ok_or(SigningError::NoLists)
    }

    /// Returns a key that is in the last list; otherwise an error that names those that are.
    ///
    /// # Errors
    /// When it is not.
    pub fn accept(&self, signer: Signer) -> Result<Signer, SigningError> {
        let last = self.last()?;
        if last.keys().contains(signer.key()) {
            return Ok(signer);
        }
        let known: Vec<_> = last.keys().iter().map(|key| key.id().to_string()).collect();
        Err(SigningError::ForeignKey {
            key: signer.key().id().to_string(),
            number: last.number(),
            known: known.join(" or "),
        })
    }

    fn push(
        &mut self,
        fleet: &Path,
        keys: SigningKeys,
        signer: &Signer,
    ) -> Result<(), SigningError> {
        let text = keys.to_string();
        let signature = signer.sign(text.as_bytes())?;
        let path = fleet.join(SIGNING_DIR).join(format!("keys-{}.txt", keys.number()));
        let minisig = path.with_extension("txt.minisig");
        // The list last: without it there is no list, with it there is a signature.
        replace_if_changed(&minisig, signature.to_string().as_bytes(), FileAccess::Public)?;
        create_new(&path, text.as_bytes(), FileAccess::Public)?;
        self.0.push((keys, signature));
        Ok(())
    }

    /// Returns the bundle of signed contents.
    ///
    /// # Errors
    /// When it cannot be put together.
    pub fn seal(&self, contents: &[u8], signer: &Signer) -> Result<Vec<u8>, SigningError> {
        Ok(seal(&self.0, contents, &signer.sign(contents)?)?)
    }

    /// Returns the bundle of contents that minisign has signed elsewhere.
    ///
    /// # Errors
    /// When the signature is not one of the contents by a key of the last list.
    pub fn seal_signed(&self, contents: &[u8], minisig: &str) -> Result<Vec<u8>, SigningError> {
        let last = self.last()?;
        let signature = Signature::from_minisig(minisig);
        let signature = signature.filter(|signature| last.have_signed(contents, signature));
        let number = last.number();
        let signature = signature.ok_or(SigningError::WrongSignature { number })?;
        Ok(seal(&self.0, contents, &signature)?)
    }
}

/// Returns the key in a file, which is made if it is missing.
fn ensure_key(path: &Path, password: Option<&str>) -> Result<Signer, SigningError> {
    if !path.exists() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let made = NewKey::generate(password, &format!("edge-gateway {name}"))?;
        create_new(path, made.secret.as_bytes(), FileAccess::Secret)?;
    }
    Ok(read_key_file(path)?.open(password)?)
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read, is exposed to others, or is none.
pub fn read_key_file(path: &Path) -> Result<KeyFile, SigningError> {
    let help = "`edge-provision init` makes it; give another place with --key FILE";
    Ok(KeyFile::parse(Secrets::read(path, help)?)?)
}

fn read_optional(path: &Path) -> Result<Option<String>, FileError> {
    match regular_file::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}
