//! Fingerprint of a configuration.

use std::fmt;

/// FNV-1a (64 bits) over all effective settings. Tells configurations apart; it is not
/// cryptographic.
pub(super) struct SettingsHash(u64);

impl SettingsHash {
    pub(super) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, table: &str, key: &str, value: &str) {
        // NUL separates the parts, so that they cannot be confused: "a", "bc" and "ab", "c".
        for byte in [table, "\0", key, "\0", value, "\0"].into_iter().flat_map(str::bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for SettingsHash {
    /// Writes the first twelve hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0 >> 16)
    }
}
