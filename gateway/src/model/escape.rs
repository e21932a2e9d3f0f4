//! Text of foreign origin, made harmless for a terminal.

use std::fmt::{self, Write};

/// Displays a text with a `?` in place of each control character: the name that a PLC or a message
/// gives for itself must not be able to move the cursor or change colours.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .try_for_each(|c| f.write_char(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_letters_are_kept() {
        assert_eq!(Escaped("\u{1b}[2JÜber\n\u{9b}").to_string(), "?[2JÜber??");
    }
}
