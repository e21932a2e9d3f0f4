//! The office's signing keys: files of minisign, and signatures by them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use ring::signature::Ed25519KeyPair;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bundle::{Signature, SigningKey};

/// Comment that each signature covers. It is the same in all, so that equal bundles are equal.
const TRUSTED_COMMENT: &str = "edge-gateway";

/// Memory to open a key file above which [`KeyFile::memory_warning`] warns: 64 MiB.
const MODEST_MEMORY: u64 = 64 << 20;

/// A file with a secret key of minisign, as it was read.
pub struct KeyFile {
    text: Zeroizing<String>,
    /// Bytes that opening it takes; none if it has no password.
    memory: Option<u64>,
}

/// Why a key file cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyFileError {
    /// It is something else.
    #[error(
        "this is not a secret key of minisign: make one with `edge-provision init` or \
             `minisign -G`"
    )]
    Malformed,
    /// The password does not fit, or the file is damaged.
    #[error("the password is wrong, or the key file is damaged")]
    WrongPassword,
    /// A password is needed and there is none.
    #[error("the key file is protected by a password")]
    PasswordMissing,
    /// The operating system gave no random numbers, or no memory.
    #[error("no key could be made")]
    NotGenerated,
}

/// A secret key that is open. `Debug` shows its number only.
pub struct Signer {
    key: SigningKey,
    pair: Ed25519KeyPair,
}

/// A new key, as the two files that minisign would write.
pub struct NewKey {
    /// Text of the secret file.
    pub secret: Zeroizing<String>,
    /// Text of the `.pub` file.
    pub public: String,
}

/// Positions in the bytes of a secret key: algorithms, salt and limits, then the key itself
/// (minisign(1), "Secret key format").
mod layout {
    use std::ops::Range;

    pub(super) const LEN: usize = 158;
    pub(super) const KDF: Range<usize> = 2..4;
    pub(super) const MEMORY: Range<usize> = 46..54;
    pub(super) const NUMBER: Range<usize> = 54..62;
    pub(super) const SEED: Range<usize> = 62..94;
    pub(super) const PUBLIC: Range<usize> = 94..126;
}

/// Value of the field for the key derivation in a file without a password.
const NO_PASSWORD: &[u8] = &[0, 0];

impl KeyFile {
    /// Takes the text of a key file.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: Zeroizing<String>) -> Result<Self, KeyFileError> {
        let line = text.lines().nth(1).ok_or(KeyFileError::Malformed)?;
        let bytes = Zeroizing::new(decode(line)?);
        if bytes.len() != layout::LEN {
            return Err(KeyFileError::Malformed);
        }
        let memory = || bytes.get(layout::MEMORY)?.try_into().ok().map(u64::from_le_bytes);
        let has_password = bytes.get(layout::KDF) != Some(NO_PASSWORD);
        let memory = if has_password { memory() } else { None };
        Ok(Self { text, memory })
    }

    /// Returns whether a password opens it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.memory.is_some()
    }

    /// Returns a warning if opening it takes more than 64 MiB, as with keys of the C tool.
    #[must_use]
    pub fn memory_warning(&self) -> Option<String> {
        let memory = self.memory.filter(|memory| *memory > MODEST_MEMORY)?;
        Some(format!(
            "opening this key file takes {} MiB of memory and some seconds, once per run; a key of \
             `edge-provision init` takes 32 MiB",
            memory >> 20,
        ))
    }

    /// Opens the key. With a password this takes a second of processor time, so that guessing
    /// passwords is slow: open it once.
    ///
    /// # Errors
    /// When a password is missing or wrong, or the file is damaged.
    pub fn open(&self, password: Option<&str>) -> Result<Signer, KeyFileError> {
        let mut bytes = match (self.has_password(), password) {
            (true, None) => return Err(KeyFileError::PasswordMissing),
            (true, Some(password)) => {
                let file = minisign::SecretKeyBox::from(self.text.to_string());
                let opened = file.into_secret_key(Some(password.to_owned()));
                opened.map_err(|_| KeyFileError::WrongPassword)?.to_bytes()
            }
            // The C tool writes such a file without the checksum that the crate asks for.
            (false, _) => self.text.lines().nth(1).map_or(Ok(Vec::new()), decode)?,
        };
        let signer = Signer::from_bytes(&bytes);
        bytes.zeroize();
        signer.ok_or(KeyFileError::Malformed)
    }
}

fn decode(line: &str) -> Result<Vec<u8>, KeyFileError> {
    STANDARD.decode(line.trim()).map_err(|_| KeyFileError::Malformed)
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key, in a file with or without a password.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn generate(password: Option<&str>, comment: &str) -> Result<Self, KeyFileError> {
        let made = match password {
            Some(password) => {
                minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned()))
            }
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        let pair = made.map_err(|_| KeyFileError::NotGenerated)?;
        let secret = pair.sk.to_box(Some(comment)).map_err(|_| KeyFileError::NotGenerated)?;
        let public = format!("untrusted comment: {comment}\n{}\n", pair.pk.to_base64());
        Ok(Self { secret: Zeroizing::new(secret.into_string()), public })
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer {
    /// Takes the bytes of an open key; none if its public half does not belong to its secret one.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let public = bytes.get(layout::PUBLIC)?;
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(bytes.get(layout::SEED)?, public).ok()?;
        let text = STANDARD.encode([b"Ed", bytes.get(layout::NUMBER)?, public].concat());
        Some(Self { key: SigningKey::from_base64(&text).ok()?, pair })
    }

    /// Returns the public key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Returns the signature of a content. Equal contents give equal signatures (RFC 8032, 5.1.6),
    /// as with the C tool; the crate minisign adds random numbers.
    ///
    /// # Errors
    /// Never, unless this program reads signatures in another form than it writes them.
    pub fn sign(&self, content: &[u8]) -> Result<Signature, KeyFileError> {
        let hash = Blake2b512::digest(content);
        let signature = self.pair.sign(&hash);
        let commented = [signature.as_ref(), TRUSTED_COMMENT.as_bytes()].concat();
        let number = self.key.id().to_bytes();
        let first = STANDARD.encode([b"ED", &number[..], signature.as_ref()].concat());
        let second = STANDARD.encode(self.pair.sign(&commented));
        let minisig = format!("\n{first}\ntrusted comment: {TRUSTED_COMMENT}\n{second}\n");
        Signature::from_minisig(&minisig).ok_or(KeyFileError::Malformed)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.key.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(file: &KeyFile, password: Option<&str>) -> Result<SigningKey, KeyFileError> {
        file.open(password).map(|signer| signer.key().clone())
    }

    #[test]
    fn a_key_file_is_opened_by_its_password_only() {
        let made = NewKey::generate(Some("horse"), "edge-gateway").unwrap();
        let key = SigningKey::from_pub_file(&made.public).unwrap();
        let file = KeyFile::parse(made.secret.clone()).unwrap();

        assert!(file.has_password());
        assert_eq!(opened(&file, Some("horse")), Ok(key));
        assert_eq!(opened(&file, Some("mule")), Err(KeyFileError::WrongPassword));
        assert_eq!(opened(&file, None), Err(KeyFileError::PasswordMissing));
        for malformed in ["", "untrusted comment: x\nUlc=\n", made.public.as_str()] {
            let refused = KeyFile::parse(malformed.to_owned().into()).unwrap_err();
            assert_eq!(refused, KeyFileError::Malformed);
        }
        let shown = format!("{file:?} {made:?} {:?}", file.open(Some("horse")).unwrap());
        let secret = made.secret.lines().nth(1).unwrap();
        assert!(!shown.contains(secret) && !shown.contains("horse"), "{shown}");
    }

    #[test]
    fn a_key_file_of_the_c_tool_is_warned_of() {
        let made = NewKey::generate(Some("horse"), "edge-gateway").unwrap();
        assert_eq!(KeyFile::parse(made.secret.clone()).unwrap().memory_warning(), None);
        let mut bytes = decode(made.secret.lines().nth(1).unwrap()).unwrap();
        bytes[layout::MEMORY].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        let text = format!("untrusted comment: x\n{}\n", STANDARD.encode(bytes));
        let warning = KeyFile::parse(text.into()).unwrap().memory_warning().unwrap();
        assert!(warning.contains("takes 1024 MiB"), "{warning}");
    }

    #[test]
    fn a_key_whose_halves_differ_is_refused() {
        let made = NewKey::generate(None, "edge-gateway").unwrap();
        let mut bytes = decode(made.secret.lines().nth(1).unwrap()).unwrap();
        bytes[layout::PUBLIC.start] ^= 1;
        let text = format!("untrusted comment: x\n{}\n", STANDARD.encode(bytes));
        let file = KeyFile::parse(text.into()).unwrap();
        assert_eq!(opened(&file, None), Err(KeyFileError::Malformed));
    }
}
