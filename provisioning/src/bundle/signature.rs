//! Signatures of minisign, in the one form that `Signature` prints: a changed byte in a
//! part that the signature does not cover, such as the untrusted comment, is refused as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// Maximum length of a file with a signature.
const MAX_SIGNATURE_BYTES: usize = 1024;

/// The first line of each signature in a bundle.
const UNTRUSTED: &str = "untrusted comment: edge-gateway";

/// A public key of minisign.
#[derive(Clone, Eq, PartialEq)]
pub struct SigningKey {
    /// In the form of the second line of a `.pub` file.
    text: String,
    id: KeyId,
    key: minisign_verify::PublicKey,
}

/// Number by which minisign tells keys apart, printed as minisign prints it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(u64);

/// Why a text is not a public key of minisign.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a signing key is 56 characters that begin with RW, as the second line of a .pub file")]
pub struct SigningKeyError;

/// A signature in the right form; whether it belongs to a content, its key says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signature {
    key: KeyId,
    /// Without the comment, which it does not cover.
    text: String,
}

impl SigningKey {
    /// Parses the second line of a `.pub` file.
    ///
    /// # Errors
    /// When it is not a public key.
    pub fn from_base64(text: &str) -> Result<Self, SigningKeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| SigningKeyError)?;
        let key = minisign_verify::PublicKey::from_base64(text).map_err(|_| SigningKeyError)?;
        let id = KeyId::from_bytes(&bytes).ok_or(SigningKeyError)?;
        Ok(Self { text: text.to_owned(), id, key })
    }

    /// Parses a `.pub` file: a comment, and the key in the second line. A text without a comment
    /// is taken for the key.
    ///
    /// # Errors
    /// When it holds no public key.
    ///
    /// ```
    /// use provisioning::bundle::SigningKey;
    ///
    /// let text = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    /// let key = SigningKey::from_pub_file(&format!("untrusted comment: ours\n{text}\n"))?;
    /// assert_eq!((key.as_str(), key.id().to_string().as_str()), (text, "E7620F1842B4E81F"));
    /// assert!(SigningKey::from_pub_file("untrusted comment: none").is_err());
    /// # Ok::<(), provisioning::bundle::SigningKeyError>(())
    /// ```
    pub fn from_pub_file(text: &str) -> Result<Self, SigningKeyError> {
        let mut lines = text.lines().filter(|line| !line.starts_with("untrusted comment:"));
        let key = lines.next().ok_or(SigningKeyError)?;
        Self::from_base64(key.trim())
    }

    /// Returns its text, as in the second line of a `.pub` file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns its number.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns whether the owner of this key signed the content.
    #[must_use]
    pub fn has_signed(&self, content: &[u8], signature: &Signature) -> bool {
        // Only the form that hashes the content first; minisign writes no other by default.
        const ALLOW_LEGACY: bool = false;
        minisign_verify::Signature::decode(&signature.to_string())
            .is_ok_and(|signature| self.key.verify(content, &signature, ALLOW_LEGACY).is_ok())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl KeyId {
    /// Returns the number of a public key or a signature, which has it after two bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(*bytes.get(2..)?.first_chunk()?)))
    }

    #[cfg(feature = "office")]
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

impl Signature {
    /// Reads a file as minisign writes it. Its untrusted comment is dropped.
    ///
    /// ```
    /// use provisioning::bundle::Signature;
    ///
    /// assert!(Signature::from_minisig("untrusted comment: none\n").is_none());
    /// ```
    #[must_use]
    pub fn from_minisig(text: &str) -> Option<Self> {
        minisign_verify::Signature::decode(text).ok()?;
        let mut lines = text.lines().skip(1);
        let (first, comment, second) = (lines.next()?, lines.next()?, lines.next()?);
        let bytes = STANDARD.decode(first).ok()?;
        STANDARD.decode(second).ok()?;
        let text = format!("{first}\n{comment}\n{second}\n");
        Some(Self { key: KeyId::from_bytes(&bytes)?, text })
    }

    /// Reads a signature as it is in a bundle; none if one byte of it could have been another.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_SIGNATURE_BYTES)?;
        Self::from_minisig(text).filter(|signature| signature.to_string() == text)
    }

    /// Returns the number of the key that is said to have made it.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.key
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{UNTRUSTED}\n{}", self.text)
    }
}
