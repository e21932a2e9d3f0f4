//! Keys in WireGuard's form: 32 bytes in base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use rand_core::OsRng;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const KEY_LEN: usize = 32;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// It is not base64 of 32 bytes.
    #[error("a key is 44 characters of base64, as `edge-gateway keygen` or `wg genkey` print it")]
    Malformed,
}

/// The private key of a peer. Wiped from memory when dropped; `Debug` does not show it.
///
/// ```
/// use tunnel::{KeyError, PrivateKey};
///
/// let key: PrivateKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=".parse()?;
/// assert_eq!(format!("{key:?}"), "PrivateKey(..)");
/// assert_eq!("yAnz5TF".parse::<PrivateKey>().unwrap_err(), KeyError::Malformed);
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

/// The public key of a peer, which identifies it.
///
/// ```
/// use tunnel::{KeyError, PublicKey};
///
/// let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
/// assert_eq!(text.parse::<PublicKey>()?.to_string(), text);
/// assert_eq!("not base64!".parse::<PublicKey>(), Err(KeyError::Malformed));
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; KEY_LEN]);

/// A secret that two peers share in addition to their keys. Wiped from memory when dropped; `Debug`
/// does not show it.
///
/// ```
/// use tunnel::{KeyError, PresharedKey};
///
/// let text = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";
/// assert!(text.parse::<PresharedKey>().is_ok());
/// assert_eq!("".parse::<PresharedKey>().unwrap_err(), KeyError::Malformed);
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Generates a key from the operating system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::StaticSecret::random_from_rng(OsRng).to_bytes())
    }

    /// Returns the public key that belongs to it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.to_static_secret()).to_bytes())
    }

    /// Returns its text, for the file that stores it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    pub(crate) fn to_static_secret(&self) -> x25519::StaticSecret {
        self.0.into()
    }
}

impl PublicKey {
    pub(crate) const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(crate) fn to_x25519(self) -> x25519::PublicKey {
        self.0.into()
    }
}

impl PresharedKey {
    pub(crate) const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_key(text).map(Self)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_key(text).map(Self)
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_key(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

fn parse_key(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    // The decoded bytes may be a private key.
    // Editors on Windows write a byte order mark.
    let text = text.trim_start_matches('\u{feff}').trim();
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::Malformed)?);
    bytes.as_slice().try_into().map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_prints_as_it_was_parsed() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), text);
    }

    #[test]
    fn a_generated_key_parses_back_to_the_same_key() {
        let key = PrivateKey::generate();
        let again: PrivateKey = key.expose().parse().unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert_ne!(key.public_key(), PrivateKey::generate().public_key());
    }

    #[test]
    fn secret_keys_are_not_printed() {
        let key = PrivateKey::generate();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        let shared: PresharedKey = key.expose().parse().unwrap();
        assert_eq!(format!("{shared:?}"), "PresharedKey(..)");
    }

    #[test]
    fn text_that_is_not_a_key_is_rejected() {
        for text in ["", "abc", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg", "AAAA"] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError::Malformed), "{text}");
        }
    }
}
