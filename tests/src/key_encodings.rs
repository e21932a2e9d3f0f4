//! The forms in which a leaked key could appear.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the forms in which a program could print a key given in base64: base64, the bytes as
/// Rust prints them, and hexadecimal.
///
/// # Panics
/// When the key is not base64.
#[must_use]
pub fn key_encodings(key: &str) -> Vec<String> {
    let bytes = STANDARD.decode(key).expect("a key is base64");
    let hex = |byte: &u8| format!("{byte:02x}");
    let hex: String = bytes.iter().map(hex).collect();
    let bytes = format!("{bytes:?}");
    // Without brackets, as it would appear in a longer list.
    let bytes = bytes.trim_matches(['[', ']']).to_owned();
    vec![key.trim_end_matches('=').to_owned(), bytes, hex.to_uppercase(), hex]
}
