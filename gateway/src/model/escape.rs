//! Text of foreign origin, made harmless for a terminal, a log and a status.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

/// Displays a text with a `?` in place of each [hidden](is_hidden) character: the name that a PLC
/// or a message gives for itself must not be able to move the cursor or change colours.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

/// Text that a peer chose: a reason string, a server reference, the error of a library that quotes
/// a certificate. At most [`UntrustedText::MAX_CHARS`] characters, on one line, none of them
/// hidden.
///
/// Every text of a peer becomes this type where it enters, so no sentence, log line, status or
/// event can be long, have two lines, or steer a terminal.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String")]
pub struct UntrustedText(String);

impl UntrustedText {
    /// Most characters that are kept; a longer text ends in `…`.
    pub const MAX_CHARS: usize = 200;

    /// Cuts and escapes a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let shown = text.trim().chars().map(|c| if is_hidden(c) { '?' } else { c });
        let mut kept: String = shown.take(Self::MAX_CHARS + 1).collect();
        if let Some((end, _)) = kept.char_indices().nth(Self::MAX_CHARS) {
            kept.truncate(end);
            kept.push('…');
        }
        Self(kept)
    }

    /// Returns the text that an error displays.
    #[must_use]
    pub fn of(error: &dyn fmt::Display) -> Self {
        Self::new(&error.to_string())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether a character steers what displays it, or cannot be seen: control characters, line
/// and paragraph separators, marks that reverse the direction of writing, invisible characters.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}'
                | '\u{61C}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

impl From<String> for UntrustedText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<&str> for UntrustedText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for UntrustedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().map(|c| if is_hidden(c) { '?' } else { c }).try_for_each(|c| f.write_char(c))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_replaced_and_letters_are_kept() {
        assert_eq!(Escaped("\u{1b}[2JÜber\n\u{9b}").to_string(), "?[2JÜber??");
        assert_eq!(Escaped("a\u{202e}b\u{2028}c\u{feff}").to_string(), "a?b?c?");
    }

    #[test]
    fn a_text_of_a_peer_is_cut_and_stays_on_one_line() {
        assert_eq!(
            UntrustedText::new("busy\n FAKE line\r\u{1b}[31m ").as_str(),
            "busy? FAKE line??[31m"
        );
        let long = UntrustedText::new(&"ü".repeat(60_000));
        assert_eq!(long.as_str().chars().count(), UntrustedText::MAX_CHARS + 1);
        assert!(long.as_str().ends_with("ü…"));
        assert_eq!(UntrustedText::new(&"x".repeat(200)).as_str().len(), 200);
    }

    proptest! {
        #[test]
        fn no_text_of_a_peer_is_long_or_hides_anything(text in any::<String>()) {
            let kept = UntrustedText::new(&text);
            prop_assert!(!kept.as_str().chars().any(is_hidden));
            prop_assert!(kept.as_str().chars().count() <= UntrustedText::MAX_CHARS + 1);
            prop_assert_eq!(&UntrustedText::from(kept.as_str().to_owned()), &kept);
        }
    }
}
