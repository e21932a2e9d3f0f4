//! Hashes of passwords.
//!
//! The salt is derived from the password, so that the same fleet gives the same files. That is safe
//! for these passwords only: each is random and used once, so no two have the same salt.

use std::num::NonZero;

use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::pbkdf2::{PBKDF2_HMAC_SHA512, derive};

/// Iterations of Mosquitto 2.0 itself. More would protect a password that can be guessed; these
/// hold 192 random bits.
pub(super) const ITERATIONS: NonZero<u32> = NonZero::<u32>::MIN.saturating_add(100);
/// Length of a hash in bytes.
pub(super) const HASH_BYTES: usize = 64;

/// Returns PBKDF2 with HMAC-SHA512 (RFC 8018, 5.2).
pub(super) fn pbkdf2(password: &str, salt: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    derive(PBKDF2_HMAC_SHA512, ITERATIONS, salt, password.as_bytes(), &mut hash);
    hash
}

/// Returns bytes that are different for each password and purpose, and tell nothing about it.
pub(super) fn derived_salt<const N: usize>(password: &str, purpose: &str) -> [u8; N] {
    let key = Key::new(HMAC_SHA256, password.as_bytes());
    let tag = sign(&key, format!("edge-provision salt {purpose}").as_bytes());
    let mut salt = [0; N];
    for (to, from) in salt.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_belongs_to_one_password_and_one_purpose() {
        let salt = |password, purpose| derived_salt::<12>(password, purpose);
        assert_eq!(salt("secret", "mosquitto"), salt("secret", "mosquitto"));
        assert_ne!(salt("secret", "mosquitto"), salt("Secret", "mosquitto"));
        assert_ne!(salt("secret", "mosquitto"), salt("secret", "emqx"));
    }
}
