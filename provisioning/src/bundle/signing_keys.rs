//! The keys whose bundles a box takes, and how they are replaced.

use std::fmt::Write as _;

use thiserror::Error;

use super::signature::{KeyId, Signature, SigningKey};

/// Maximum number of keys in a list.
const MAX_KEYS: usize = 4;

const TITLE: &str = "edge-gateway signing keys ";

/// The keys that a box trusts: a list with a number that grows by 1 with each list that replaces
/// it. A list is replaced by one that one of its own keys has signed.
///
/// In a file it is a title with the number and one key in each further line:
///
/// ```
/// use provisioning::bundle::SigningKeys;
///
/// let text = "edge-gateway signing keys 1
/// RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
/// ";
/// let keys: SigningKeys = text.parse()?;
/// assert_eq!((keys.number(), keys.to_string().as_str()), (1, text));
/// assert!("edge-gateway signing keys 2".parse::<SigningKeys>().is_err());
/// # Ok::<(), provisioning::bundle::SigningKeysError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SigningKeys {
    number: u32,
    keys: Vec<SigningKey>,
}

/// Why a text or a set of keys is not a list of signing keys.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SigningKeysError {
    /// The text is in another form.
    #[error("a list of signing keys is a title with its number, and a key in each further line")]
    Malformed,
    /// The number of keys, or one key twice.
    #[error("a list of signing keys has 1 to {MAX_KEYS} different keys")]
    Count,
}

impl SigningKeys {
    /// Creates the list with a number, from 1.
    ///
    /// # Errors
    /// When there are no keys, more than 4, or two with one key id.
    pub fn new(number: u32, keys: Vec<SigningKey>) -> Result<Self, SigningKeysError> {
        let is_twice = |(at, key): (usize, &SigningKey)| {
            keys.iter().take(at).any(|other| other.id() == key.id())
        };
        let has_twice = keys.iter().enumerate().any(is_twice);
        if keys.is_empty() || keys.len() > MAX_KEYS || has_twice {
            return Err(SigningKeysError::Count);
        }
        Ok(Self { number, keys })
    }

    /// Returns its number, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the keys.
    #[must_use]
    pub fn keys(&self) -> &[SigningKey] {
        &self.keys
    }

    /// Returns the key with a number.
    pub(super) fn find(&self, id: KeyId) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// Returns whether one of the keys has made the signature of a content.
    #[must_use]
    pub fn have_signed(&self, content: &[u8], signature: &Signature) -> bool {
        self.find(signature.key()).is_some_and(|key| key.has_signed(content, signature))
    }

    /// Returns the numbers of the keys, for a sentence.
    pub(super) fn ids(&self) -> String {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id().to_string()).collect();
        ids.join(" or ")
    }
}

impl std::str::FromStr for SigningKeys {
    type Err = SigningKeysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.lines();
        let number = lines.next().and_then(|line| line.strip_prefix(TITLE)?.parse().ok());
        let number = number.filter(|number| *number > 0).ok_or(SigningKeysError::Malformed)?;
        // One more than allowed, so that it is noticed.
        let keys = lines.take(MAX_KEYS + 1).map(SigningKey::from_base64).collect::<Result<_, _>>();
        let keys = Self::new(number, keys.map_err(|_| SigningKeysError::Malformed)?)?;
        // One form only: a signature covers every byte.
        if keys.to_string() == text { Ok(keys) } else { Err(SigningKeysError::Malformed) }
    }
}

impl std::fmt::Display for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("{TITLE}{}\n", self.number);
        for key in &self.keys {
            writeln!(text, "{}", key.as_str())?;
        }
        f.write_str(&text)
    }
}
