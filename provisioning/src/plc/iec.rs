//! IEC 61131-3 elementary types and how their bytes lie in registers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Elementary type of a tag (IEC 61131-3, table 10), as the variable was declared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum IecType {
    /// One bit: a coil, a bit of a register, or a whole byte that holds 0 or 1.
    Bool,
    /// 8 bits, published as an unsigned number.
    Byte,
    /// 16 bits, published as an unsigned number.
    Word,
    /// 32 bits, published as an unsigned number.
    Dword,
    /// 64 bits, published as an unsigned number.
    Lword,
    /// Signed 8-bit integer.
    Sint,
    /// Signed 16-bit integer.
    Int,
    /// Signed 32-bit integer.
    Dint,
    /// Signed 64-bit integer.
    Lint,
    /// Unsigned 8-bit integer.
    Usint,
    /// Unsigned 16-bit integer.
    Uint,
    /// Unsigned 32-bit integer.
    Udint,
    /// Unsigned 64-bit integer.
    Ulint,
    /// IEEE 754 single.
    Real,
    /// IEEE 754 double.
    Lreal,
    /// Duration in milliseconds, unsigned 32 bits; published as a number of milliseconds.
    Time,
}

impl IecType {
    /// Every type, in the order of the IEC table.
    pub const ALL: [Self; 16] = [
        Self::Bool,
        Self::Byte,
        Self::Word,
        Self::Dword,
        Self::Lword,
        Self::Sint,
        Self::Int,
        Self::Dint,
        Self::Lint,
        Self::Usint,
        Self::Uint,
        Self::Udint,
        Self::Ulint,
        Self::Real,
        Self::Lreal,
        Self::Time,
    ];

    /// Bytes that a variable of this type takes in the PLC's memory.
    #[must_use]
    pub const fn size(self) -> u8 {
        match self {
            Self::Bool | Self::Byte | Self::Sint | Self::Usint => 1,
            Self::Word | Self::Int | Self::Uint => 2,
            Self::Dword | Self::Dint | Self::Udint | Self::Real | Self::Time => 4,
            Self::Lword | Self::Lint | Self::Ulint | Self::Lreal => 8,
        }
    }

    /// The keyword as written in a declaration: `REAL`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Byte => "BYTE",
            Self::Word => "WORD",
            Self::Dword => "DWORD",
            Self::Lword => "LWORD",
            Self::Sint => "SINT",
            Self::Int => "INT",
            Self::Dint => "DINT",
            Self::Lint => "LINT",
            Self::Usint => "USINT",
            Self::Uint => "UINT",
            Self::Udint => "UDINT",
            Self::Ulint => "ULINT",
            Self::Real => "REAL",
            Self::Lreal => "LREAL",
            Self::Time => "TIME",
        }
    }
}

/// How the bytes of a value lie in its registers, in the field's usual letters: A is the most
/// significant byte, and a register is sent high byte first.
///
/// A Modicon M2xx is little-endian in memory, which gives `CDAB` on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Order {
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

/// The text is not the keyword of a type in [`IecType::ALL`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a type that can be read")]
pub struct UnknownType(pub String);

/// The text is not one of the four byte orders.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a byte order; there are ABCD, CDAB, BADC and DCBA")]
pub struct UnknownOrder(pub String);

impl fmt::Display for IecType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())
    }
}

impl FromStr for IecType {
    type Err = UnknownType;

    /// Takes the keyword in any case, as Machine Expert does.
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let found = Self::ALL.into_iter().find(|iec| iec.keyword().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownType(text.to_owned()))
    }
}

impl Order {
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

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

impl FromStr for Order {
    type Err = UnknownOrder;

    /// Takes the letters in any case.
    fn from_str(text: &str) -> Result<Self, UnknownOrder> {
        let found = Self::ALL.into_iter().find(|order| order.letters().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownOrder(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_back_from_its_keyword_in_any_case() {
        for iec in IecType::ALL {
            assert_eq!(iec.to_string().parse(), Ok(iec));
            assert_eq!(iec.to_string().to_lowercase().parse(), Ok(iec));
        }
        assert_eq!("REA".parse::<IecType>(), Err(UnknownType("REA".to_owned())));
    }

    #[test]
    fn an_order_is_read_back_from_its_letters_in_any_case() {
        for order in Order::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
            assert_eq!(order.to_string().to_lowercase().parse(), Ok(order));
        }
        assert_eq!("ACBD".parse::<Order>(), Err(UnknownOrder("ACBD".to_owned())));
    }
}
