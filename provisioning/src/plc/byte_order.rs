//! In which order the bytes of a value are sent.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How the bytes of a value lie in its registers, in the field's usual letters: A is the most
/// significant byte, and a register is sent high byte first.
///
/// A Modicon M2xx is little-endian in memory, which gives `CDAB` on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ByteOrder {
    /// High word first, high byte first: most devices that are not PLCs.
    Abcd,
    /// Low word first, high byte first: Modicon.
    #[default]
    Cdab,
    /// High word first, bytes swapped in each word.
    Badc,
    /// Low word first, bytes swapped in each word.
    Dcba,
}

/// The text is not one of the four byte orders.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a byte order; there are ABCD, CDAB, BADC and DCBA")]
pub struct UnknownByteOrder(pub String);

impl ByteOrder {
    /// Every order.
    pub const ALL: [Self; 4] = [Self::Abcd, Self::Cdab, Self::Badc, Self::Dcba];

    /// The four letters: `CDAB`.
    #[must_use]
    pub const fn letters(self) -> &'static str {
        match self {
            Self::Abcd => "ABCD",
            Self::Cdab => "CDAB",
            Self::Badc => "BADC",
            Self::Dcba => "DCBA",
        }
    }
}

impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

impl FromStr for ByteOrder {
    type Err = UnknownByteOrder;

    /// Takes the letters in any case.
    fn from_str(text: &str) -> Result<Self, UnknownByteOrder> {
        let found = Self::ALL.into_iter().find(|order| order.letters().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownByteOrder(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_back_from_its_letters_in_any_case() {
        for order in ByteOrder::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
            assert_eq!(order.to_string().to_lowercase().parse(), Ok(order));
        }
        assert_eq!("ACBD".parse::<ByteOrder>(), Err(UnknownByteOrder("ACBD".to_owned())));
    }
}
