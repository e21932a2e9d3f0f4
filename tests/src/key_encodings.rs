//! What a secret would look like where it does not belong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Every way in which a program could write a key that `wg` writes in base64: so, as Rust prints its
/// bytes, and in hexadecimal.
///
/// # Panics
/// When it is no base64.
#[must_use]
pub fn key_encodings(key: &str) -> Vec<String> {
    let bytes = STANDARD.decode(key).expect("a key is base64");
    let hex = |byte: &u8| format!("{byte:02x}");
    let hex: String = bytes.iter().map(hex).collect();
    let bytes = format!("{bytes:?}");
    // Without its brackets, as a part of something longer.
    let bytes = bytes.trim_matches(['[', ']']).to_owned();
    vec![key.trim_end_matches('=').to_owned(), bytes, hex.to_uppercase(), hex]
}
