//! Type of a tag: a single value or an array.

use std::fmt;
use std::str::FromStr;

use super::{IecType, UnknownType};

/// Type of a tag as declared: `REAL`, `ARRAY[0..9] OF REAL`.
///
/// ```
/// use provisioning::plc::DataType;
///
/// let array: DataType = "ARRAY[0..9] OF REAL".parse()?;
/// assert_eq!((array.elements(), array.size()), (10, 40));
/// assert!("ARRAY[9..0] OF REAL".parse::<DataType>().is_err());
/// # Ok::<(), provisioning::plc::UnknownType>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DataType {
    /// Type of the value, or of each element.
    pub element: IecType,
    /// Present for an array.
    pub bounds: Option<ArrayBounds>,
}

/// First and last index of an array with 1 to 65,535 elements.
///
/// ```
/// use provisioning::plc::ArrayBounds;
///
/// assert_eq!(ArrayBounds::new(-2, 2).unwrap().elements(), 5);
/// assert!(ArrayBounds::new(2, -2).is_none());
/// assert!(ArrayBounds::new(0, 65_535).is_none());
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ArrayBounds {
    first: i32,
    last: i32,
    len: u16,
}

impl ArrayBounds {
    /// Returns `None` when the last index is below the first, or there are more than 65,535
    /// elements.
    #[must_use]
    pub fn new(first: i32, last: i32) -> Option<Self> {
        let len = u16::try_from(i64::from(last) - i64::from(first) + 1).ok()?;
        (len > 0).then_some(Self { first, last, len })
    }

    /// Returns the first index.
    #[must_use]
    pub const fn first(self) -> i32 {
        self.first
    }

    /// Returns the number of elements, at least one.
    #[must_use]
    pub const fn elements(self) -> u16 {
        self.len
    }
}

impl DataType {
    /// Returns the number of elements of an array, or 1 for a single value.
    #[must_use]
    pub fn elements(self) -> u16 {
        self.bounds.map_or(1, ArrayBounds::elements)
    }

    /// Returns the size in the PLC's memory in bytes, unless it is packed into bits.
    #[must_use]
    pub fn size(self) -> u32 {
        u32::from(self.element.size()) * u32::from(self.elements())
    }
}

impl From<IecType> for DataType {
    fn from(item: IecType) -> Self {
        Self { element: item, bounds: None }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bounds {
            Some(ArrayBounds { first, last, .. }) => {
                write!(f, "ARRAY[{first}..{last}] OF {}", self.element)
            }
            None => self.element.fmt(f),
        }
    }
}

impl FromStr for DataType {
    type Err = UnknownType;

    /// Parses a type as Machine Expert does, in upper or lower case. An array has one dimension,
    /// and its bounds are numbers.
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        parse_array(text)
            .or_else(|| text.parse::<IecType>().ok().map(Self::from))
            .ok_or_else(|| UnknownType(text.to_owned()))
    }
}

/// Parses `ARRAY[0..9] OF REAL`.
fn parse_array(text: &str) -> Option<DataType> {
    let (keyword, rest) = text.split_at_checked("ARRAY".len())?;
    let (bounds, rest) = rest.trim_start().strip_prefix('[')?.split_once(']')?;
    let (of, item) = rest.trim_start().split_once(char::is_whitespace)?;
    let (first, last) = bounds.split_once("..")?;
    let bounds = ArrayBounds::new(first.trim().parse().ok()?, last.trim().parse().ok()?)?;
    let item = item.trim().parse().ok()?;
    let named = keyword.eq_ignore_ascii_case("ARRAY") && of.eq_ignore_ascii_case("OF");
    named.then_some(DataType { element: item, bounds: Some(bounds) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_parsed_from_its_declaration_in_upper_and_lower_case() {
        for text in ["ARRAY[0..9] OF REAL", "ARRAY[-2..2] OF STRING(7)", "ARRAY[1..1] OF BOOL"] {
            let data: DataType = text.parse().unwrap();
            assert_eq!(data.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(data));
        }
        let spaced = "Array [ 0 .. 9 ]  of  Int".parse::<DataType>().unwrap();
        assert_eq!((spaced.elements(), spaced.size()), (10, 20));
    }

    #[test]
    fn malformed_arrays_are_rejected() {
        for text in [
            "ARRAY[9..0] OF REAL",
            "ARRAY[0..65535] OF REAL",
            "ARRAY[0..1,0..1] OF REAL",
            "ARRAY[0..9] OF",
            "ARRAY[0..9] REAL",
            "ARRAY[0..9] OF ARRAY[0..1] OF INT",
            "ARRAY[-2147483648..2147483647] OF BYTE",
            "ÄRRAY",
        ] {
            assert!(text.parse::<DataType>().is_err(), "{text}");
        }
    }
}
