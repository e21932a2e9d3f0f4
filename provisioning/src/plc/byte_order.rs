//! Byte order of values.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Order of the bytes of a value in its registers, in the usual letters: A is the most significant
/// byte, and a register is sent high byte first.
///
/// A Modicon M2xx is little-endian in memory, which gives `CDAB` on the wire.
///
/// ```
/// use provisioning::plc::ByteOrder;
///
/// assert_eq!("cdab".parse(), Ok(ByteOrder::Cdab));
/// assert!("ACBD".parse::<ByteOrder>().is_err());
/// ```
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
#[error("`{0}` is not a byte order, which is ABCD, CDAB, BADC or DCBA")]
pub struct UnknownByteOrder(pub String);

impl ByteOrder {
    /// All byte orders.
    pub const ALL: [Self; 4] = [Self::Abcd, Self::Cdab, Self::Badc, Self::Dcba];

    /// Returns the four letters: `CDAB`.
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

    /// Parses the letters in upper or lower case.
    fn from_str(text: &str) -> Result<Self, UnknownByteOrder> {
        let found = Self::ALL.into_iter().find(|order| order.letters().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownByteOrder(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_is_parsed_from_its_letters_in_upper_and_lower_case() {
        for order in ByteOrder::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
            assert_eq!(order.to_string().to_lowercase().parse(), Ok(order));
        }
        assert_eq!("ACBD".parse::<ByteOrder>(), Err(UnknownByteOrder("ACBD".to_owned())));
    }
}
