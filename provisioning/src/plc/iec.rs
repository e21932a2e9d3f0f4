//! IEC 61131-3 elementary types.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Elementary type of a tag (IEC 61131-3, table 10), as the variable was declared.
///
/// ```
/// use provisioning::plc::{CodePage, IecType};
///
/// assert_eq!("real".parse(), Ok(IecType::Real));
/// assert_eq!("STRING(20)".parse(), Ok(IecType::String(20, CodePage::Latin1)));
/// assert!("FLOAT".parse::<IecType>().is_err());
/// assert!("STRING(0)".parse::<IecType>().is_err());
/// ```
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
    /// Duration in nanoseconds, unsigned 64 bits; published as a number of nanoseconds.
    Ltime,
    /// Day, in seconds since 1970 at 00:00, unsigned 32 bits.
    Date,
    /// Time of day, in milliseconds since midnight, unsigned 32 bits.
    Tod,
    /// Date and time of the PLC's clock, in seconds since 1970, unsigned 32 bits.
    Dt,
    /// Day, in nanoseconds since 1970 at 00:00, unsigned 64 bits.
    Ldate,
    /// Time of day, in nanoseconds since midnight, unsigned 64 bits.
    Ltod,
    /// Date and time of the PLC's clock, in nanoseconds since 1970, unsigned 64 bits.
    Ldt,
    /// Text of at most this many bytes, followed by a NUL.
    String(u16, CodePage),
    /// Text of at most this many 16-bit units of UTF-16, followed by a NUL.
    Wstring(u16),
}

/// Encoding of a STRING.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CodePage {
    /// ISO 8859-1: one byte per character.
    #[default]
    Latin1,
    /// UTF-8, which is a setting of the PLC project.
    Utf8,
    /// The same; bytes that are no UTF-8, such as a letter that is cut in two, are read as U+FFFD.
    Utf8Lossy,
}

/// Interpretation of the bytes of a type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ValueKind {
    /// True or false.
    Bool,
    /// Unsigned integer.
    Unsigned,
    /// Signed integer in two's complement.
    Signed,
    /// IEEE 754 floating point.
    Real,
    /// A day, counted from 1970-01-01 00:00.
    Date(TimeUnit),
    /// A time of day, counted from midnight.
    TimeOfDay(TimeUnit),
    /// A date with a time of day and no time zone, counted from 1970-01-01 00:00.
    DateAndTime(TimeUnit),
    /// Text that ends at its NUL.
    Text,
}

/// Unit in which a date or a time of day is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeUnit {
    /// Seconds: DATE, DT.
    Second,
    /// Milliseconds: TOD.
    Millisecond,
    /// Nanoseconds: LDATE, LTOD, LDT.
    Nanosecond,
}

impl TimeUnit {
    /// Returns the number of units in a second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Millisecond => 1_000,
            Self::Nanosecond => 1_000_000_000,
        }
    }

    /// Returns the number of units in a day.
    #[must_use]
    pub const fn per_day(self) -> u64 {
        86_400 * self.per_second()
    }
}

impl IecType {
    /// All types without a length, in the order of the IEC table.
    pub const ALL: [Self; 23] = [
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
        Self::Ltime,
        Self::Date,
        Self::Tod,
        Self::Dt,
        Self::Ldate,
        Self::Ltod,
        Self::Ldt,
    ];

    /// Maximum length of a STRING or WSTRING: its size in bytes still fits into 16 bits.
    pub const MAX_TEXT_LEN: u16 = 32_766;

    /// Length of a STRING or WSTRING that is declared without one.
    pub const DEFAULT_TEXT_LEN: u16 = 80;

    /// Long forms of keywords.
    const LONG_KEYWORDS: [(&str, Self); 4] = [
        ("TIME_OF_DAY", Self::Tod),
        ("DATE_AND_TIME", Self::Dt),
        ("LTIME_OF_DAY", Self::Ltod),
        ("LDATE_AND_TIME", Self::Ldt),
    ];

    /// Returns the size of a variable in the PLC's memory, in bytes.
    #[must_use]
    pub const fn size(self) -> u16 {
        match self {
            Self::Bool | Self::Byte | Self::Sint | Self::Usint => 1,
            Self::Word | Self::Int | Self::Uint => 2,
            Self::Dword | Self::Dint | Self::Udint | Self::Real => 4,
            Self::Time | Self::Date | Self::Tod | Self::Dt => 4,
            Self::Lword | Self::Lint | Self::Ulint | Self::Lreal => 8,
            Self::Ltime | Self::Ldate | Self::Ltod | Self::Ldt => 8,
            Self::String(letters, _) => letters.saturating_add(1),
            Self::Wstring(letters) => letters.saturating_add(1).saturating_mul(2),
        }
    }

    /// Returns the alignment of a variable in the PLC's memory, in bytes.
    #[must_use]
    pub const fn alignment(self) -> u16 {
        match (self.kind(), self) {
            (ValueKind::Text, Self::Wstring(_)) => 2,
            (ValueKind::Text, _) => 1,
            (..) => self.size(),
        }
    }

    /// Returns how its bytes are interpreted.
    #[must_use]
    pub const fn kind(self) -> ValueKind {
        match self {
            Self::Bool => ValueKind::Bool,
            Self::Byte | Self::Word | Self::Dword | Self::Lword => ValueKind::Unsigned,
            Self::Usint | Self::Uint | Self::Udint | Self::Ulint => ValueKind::Unsigned,
            Self::Time | Self::Ltime => ValueKind::Unsigned,
            Self::Sint | Self::Int | Self::Dint | Self::Lint => ValueKind::Signed,
            Self::Real | Self::Lreal => ValueKind::Real,
            Self::Date => ValueKind::Date(TimeUnit::Second),
            Self::Tod => ValueKind::TimeOfDay(TimeUnit::Millisecond),
            Self::Dt => ValueKind::DateAndTime(TimeUnit::Second),
            Self::Ldate => ValueKind::Date(TimeUnit::Nanosecond),
            Self::Ltod => ValueKind::TimeOfDay(TimeUnit::Nanosecond),
            Self::Ldt => ValueKind::DateAndTime(TimeUnit::Nanosecond),
            Self::String(..) | Self::Wstring(_) => ValueKind::Text,
        }
    }

    /// Returns the keyword of a declaration: `REAL`.
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
            Self::Ltime => "LTIME",
            Self::Date => "DATE",
            Self::Tod => "TOD",
            Self::Dt => "DT",
            Self::Ldate => "LDATE",
            Self::Ltod => "LTOD",
            Self::Ldt => "LDT",
            Self::String(..) => "STRING",
            Self::Wstring(_) => "WSTRING",
        }
    }
}

/// The text is not the keyword of a supported type.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a supported type")]
pub struct UnknownType(pub String);

impl fmt::Display for IecType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())?;
        if let Self::String(letters, _) | Self::Wstring(letters) = self {
            write!(f, "({letters})")?;
        }
        Ok(())
    }
}

impl FromStr for IecType {
    type Err = UnknownType;

    /// Parses a keyword in upper or lower case, in its short or long form, as Machine Expert does.
    /// The length of a STRING may be in round or square brackets.
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        if let Some(text) = parse_text_type(text) {
            return Ok(text);
        }
        let short = Self::ALL.into_iter().map(|iec| (iec.keyword(), iec));
        let mut known = short.chain(Self::LONG_KEYWORDS);
        let found = known.find(|(keyword, _)| keyword.eq_ignore_ascii_case(text));
        let found = found.map(|(_, iec)| iec);
        found.ok_or_else(|| UnknownType(text.to_owned()))
    }
}

/// Parses `STRING`, `STRING(20)`, `WSTRING[20]`.
fn parse_text_type(text: &str) -> Option<IecType> {
    let (keyword, rest) =
        text.split_at_checked(text.find(['(', '[', ' ']).unwrap_or(text.len()))?;
    let inner = |open, close| rest.trim().strip_prefix(open)?.strip_suffix(close);
    let letters = match inner('(', ')').or_else(|| inner('[', ']')) {
        Some(letters) => letters.trim().parse().ok()?,
        None if rest.is_empty() => IecType::DEFAULT_TEXT_LEN,
        None => return None,
    };
    let is_possible = (1..=IecType::MAX_TEXT_LEN).contains(&letters);
    let text = match keyword.to_ascii_uppercase().as_str() {
        "STRING" => IecType::String(letters, CodePage::Latin1),
        "WSTRING" => IecType::Wstring(letters),
        _ => return None,
    };
    is_possible.then_some(text)
}

impl CodePage {
    /// All code pages.
    pub const ALL: [Self; 3] = [Self::Latin1, Self::Utf8, Self::Utf8Lossy];

    /// Returns the name in a configuration: `latin-1`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Latin1 => "latin-1",
            Self::Utf8 => "utf-8",
            Self::Utf8Lossy => "utf-8-lossy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_parsed_from_its_keyword_in_upper_and_lower_case() {
        for iec in IecType::ALL {
            assert_eq!(iec.to_string().parse(), Ok(iec));
            assert_eq!(iec.to_string().to_lowercase().parse(), Ok(iec));
        }
        assert_eq!("date_and_time".parse(), Ok(IecType::Dt));
        assert_eq!("string".parse(), Ok(IecType::String(80, CodePage::Latin1)));
        assert_eq!("STRING(20)".parse(), Ok(IecType::String(20, CodePage::Latin1)));
        assert_eq!("WSTRING [3]".parse(), Ok(IecType::Wstring(3)));
        for invalid in ["STRING(0)", "STRING(32767)", "STRING(20", "STRING()", "TEXT(3)"] {
            assert!(invalid.parse::<IecType>().is_err(), "{invalid}");
        }
        assert_eq!("REA".parse::<IecType>(), Err(UnknownType("REA".to_owned())));
    }
}
